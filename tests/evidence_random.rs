//! A thousand random questions, answered by plain SQL over the journals as well: before, during and
//! after posting, with charges that come late, an attached table whose rows change and go, holes in
//! what the rollups cover, and rollups that are wrong wherever they are not to be trusted.

mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use common::{one, run_sql};
use evidence_common::{books, cover_from, degrade, post_all};
use postgres::Client;
use sessions::Dice;
use usage_common::assert_books_hold;

/// Everything that was charged, plainly; and what is asked.
const JOURNALS: &str = "
    create table public.ledger (n bigint generated always as identity primary key, user_id text, org_id text,
                                amount bigint, model text, at timestamptz);
    select attach_spend_source('llm', 'public.ledger', 'variable', 'ai_gateway',
        '{\"user_id\": \"user_id\", \"organization_id\": \"org_id\", \"amount\": \"amount\",
          \"created_at\": \"at\", \"product_key\": {\"value\": \"llm\"}, \"model_or_plan_key\": \"model\"}', true);
    create view public.journals as
        select case when organization_id is null then 'user' else 'organization' end as kind,
               coalesce(organization_id, user_id) as id, user_id as actor, 'variable' as category,
               'exa' as product, 'other' as model, charged_microdollars as amount, created_at
        from exa_billing.exa_usage_log where charged_microdollars > 0
        union all
        select owner_kind, owner_id, coalesce(actor_user_id, case owner_kind when 'user' then owner_id end),
               spend_category, product_key, model_or_plan_key, amount_microdollars, created_at
        from exa_billing.spend_log
        union all
        select case when org_id is null then 'user' else 'organization' end, coalesce(org_id, user_id), user_id,
               'variable', 'llm', model, amount, at
        from public.ledger where amount > 0;
    create table public.question (n int, kind text, id text, as_of timestamptz, span interval, range text);
    create view public.known as select min(covered_from) as known_from from exa_billing.spend_sources";

/// The sums over [start, as_of) and whether each hour before the books has rows.
const ROLLING: &str = "
    select format('%s: %s, not %s', q, r, e)
    from question as q, known,
         lateral (select (as_of at time zone 'UTC' - span) at time zone 'UTC' as start) as w,
         lateral (
             select sum(amount)::bigint, sum(amount) filter (where category = 'variable')::bigint,
                    sum(amount) filter (where category = 'scheduled')::bigint, count(*),
                    count(distinct date_trunc('hour', created_at, 'UTC'))
                        filter (where created_at < known_from)
             from journal as j
             where j.kind = q.kind and j.id = q.id and created_at >= start and created_at < as_of
         ) as s(total, variable, scheduled, records, hours_with_rows),
         lateral (
             select count(*) from generate_series(date_trunc('hour', start, 'UTC'),
                 least(as_of, known_from) - interval '1 microsecond', interval '1 hour')
         ) as h(hours_before),
         lateral (select known_from < as_of or records > 0) as k(some_known),
         lateral (select case when some_known then coalesce(total, 0) end,
                         case when some_known then coalesce(variable, 0) end,
                         case when some_known then coalesce(scheduled, 0) end,
                         case when some_known then records end, hours_with_rows = hours_before) as e,
         exa_billing.rolling_spend(q.kind, q.id, q.span, q.as_of) as r
    where ($1 <> 1 or n % 3 = 1) and r::text is distinct from e::text";

/// Each hour of the range, put into its bucket by its day.
const SERIES: &str = "
    select format('%s: %s, not %s', q, told, expected)
    from (select q, (select array_agg(s::text order by bucket_start)
                     from exa_billing.spend_series(q.kind, q.id, q.range, q.as_of) as s) as told,
              (select array_agg(b::text order by bucket_start) from (
                  select min(hour) as bucket_start, max(hour) + interval '1 hour', sum(covered::int)::int,
                         count(*)::int,
                         case when bool_or(known) then sum(coalesce(total, 0))::bigint end,
                         case when bool_or(known) then sum(coalesce(variable, 0))::bigint end,
                         case when bool_or(known) then sum(coalesce(scheduled, 0))::bigint end,
                         case when bool_or(known) then sum(coalesce(records, 0))::bigint end
                  from (select hour, bucket, total, variable, scheduled, records,
                               hour >= known_from or records > 0 as known,
                               hour >= known_from and not exists (
                                   select from exa_billing.spend_degraded_intervals as d
                                   where resolved_at is null and from_hour <= hour and hour < to_hour
                                     and (owner_kind is null or owner_kind = q.kind and owner_id = q.id)) as covered
                        from known, date_trunc('hour', q.as_of, 'UTC') as last,
                             lateral (select last - interval '1 hour' * (case q.range when '1h' then 0 when '24h' then 23
                                          when '7d' then 167 when '30d' then 719 else 2159 end)) as f(first),
                             generate_series(first, last, interval '1 hour') as hour
                        left join (
                            select date_trunc('hour', created_at, 'UTC') as hour, sum(amount) as total,
                                   sum(amount) filter (where category = 'variable') as variable,
                                   sum(amount) filter (where category = 'scheduled') as scheduled,
                                   count(*) as records
                            from journal as j
                            where j.kind = q.kind and j.id = q.id and created_at < q.as_of
                            group by 1
                        ) as spent using (hour),
                        lateral (select case when q.range in ('1h', '24h') then extract(epoch from hour)
                                     else floor(((hour at time zone 'UTC')::date - (first at time zone 'UTC')::date)
                                                / case q.range when '90d' then 7 else 1 end) end) as g(bucket)
                       ) as hours
                  group by bucket
              ) as b) as expected
          from question as q where n % 3 = $1) as both_of_them
    where told is distinct from expected";

const DRIVERS: &str = "
    select format('%s: %s, not %s', q, told, expected)
    from (select q, (select array_agg(concat_ws(' ', d.spend_category, d.product_key, d.model_or_plan_key,
                                                d.actor_user_id, d.total_microdollars, d.spend_record_count))
                     from exa_billing.top_spend_drivers(q.kind, q.id, start, q.as_of, category, 4) as d) as told,
              (select array_agg(d order by place) from (
                  select concat_ws(' ', j.category, product, model, actor, sum(amount), count(*)) as d,
                         row_number() over (order by sum(amount) desc, j.category collate \"C\",
                                            max(source) collate \"C\", product collate \"C\",
                                            model collate \"C\", actor collate \"C\" nulls first) as place
                  from (select *, case product when 'exa' then 'other' when 'llm' then 'ai_gateway'
                                         else 'kiloclaw' end as source from journal) as j
                  where j.kind = q.kind and j.id = q.id and created_at >= start and created_at < as_of
                    and (w.category is null or j.category = w.category)
                  group by j.category, product, model, actor) as d
               where place <= 4) as expected
          from question as q,
               lateral (select (as_of at time zone 'UTC' - span) at time zone 'UTC',
                               (array[null, 'variable', 'scheduled'])[n % 3 + 1]) as w(start, category)
          where n % 3 = $1) as both_of_them
    where told is distinct from expected";

/// The document of each question against the functions.
const DOCUMENTS: &str = "
    select format('%s: %s, not %s', q, d, e)
    from question as q,
         lateral (select exa_billing.spend_evidence(q.kind, q.id, q.range, q.as_of) offset 0) as x(d),
         lateral (select min(bucket_start), max(bucket_end), sum(total_microdollars)::bigint, jsonb_agg(
                      to_jsonb(s) - array['bucket_start', 'bucket_end'] order by bucket_start)
                  from exa_billing.spend_series(q.kind, q.id, q.range, q.as_of) as s) as b(first, last, total, series),
         lateral (select jsonb_agg(to_jsonb(t) - 'spend_category' order by total_microdollars desc)
                  from exa_billing.top_spend_drivers(q.kind, q.id, first, greatest(as_of, first + interval '1us'), 'scheduled') as t) as t(top),
         lateral (select jsonb_build_object('series', series, 'top', coalesce(top, '[]'), 'total', total)) as e,
         lateral (select jsonb_build_object(
             'series', (select jsonb_agg(p - array['bucket_start', 'bucket_end'] order by p->>'bucket_start')
                        from jsonb_array_elements(d->'series') as p),
             'top', d->'top_drivers'->'scheduled', 'total', d->'totals'->'total_microdollars')) as g
    where n % 12 = $1 and as_of > first and (g::text <> e::text
       or (d->'window'->>'from_time')::timestamptz <> first or (d->'window'->>'to_time')::timestamptz <> last)";

const OWNERS: [(&str, &str); 4] =
    [("user", "u0"), ("user", "u1"), ("organization", "o0"), ("organization", "o1")];

/// Charges of four owners over a hundred days, some at the very hour, some together, and requests
/// that are partly free.
fn charge(client: &mut Client, dice: &mut Dice, count: usize) {
    let mut calls = Vec::new();
    for _ in 0..count {
        let (kind, id) = OWNERS[usize::try_from(dice.up_to(4)).unwrap()];
        let microseconds = match dice.up_to(8) {
            0 => dice.up_to(110 * 24) * 3_600_000_000,
            1 => dice.up_to(110 * 24) * 3_600_000_000 - 1,
            2 => 99 * 86_400_000_000 + dice.up_to(6 * 3_600) * 1_000_000,
            _ => dice.up_to(110 * 86_400) * 1_000_000 + dice.up_to(1_000_000),
        };
        let at = format!("at('-100 days') + {microseconds} * interval '1 microsecond'");
        let (amount, actor) = (1 + dice.up_to(5_000), dice.up_to(3));
        let organization = if kind == "user" { "null".into() } else { format!("'{id}'") };
        let user = if kind == "user" { id.to_owned() } else { format!("u{actor}") };
        calls.push(match dice.up_to(4) {
            3 => format!(
                "null; insert into ledger (user_id, org_id, amount, model, at)
                 values ('{user}', {organization}, {amount} - 500, 'm{}', {at})",
                dice.up_to(2)
            ),
            0 => {
                format!("record_exa_usage('{user}', '/search', {amount}, {organization}, created_at => {at})")
            }
            category => format!(
                "record_spend('{kind}', '{id}', {amount}, '{}', 'kiloclaw', 'p{}', model_or_plan_key => '{}',
                              actor_user_id => {}, created_at => {at})",
                if category == 1 { "variable" } else { "scheduled" },
                dice.up_to(3),
                ["a", "B"][usize::try_from(dice.up_to(2)).unwrap()],
                if kind == "user" || actor == 0 { "null".into() } else { format!("'u{actor}'") },
            ),
        });
    }
    for some in calls.chunks(100) {
        run_sql(client, &format!("begin; select {}; commit", some.join("; select ")));
    }
    run_sql(
        client,
        "update ledger set amount = amount + 7, at = at - interval '20 minutes' where n % 11 = 0",
    );
    run_sql(client, "delete from ledger where n % 7 = 0");
}

/// Past and future instants, at hours and between them; spans from a microsecond to four months.
fn ask(client: &mut Client, dice: &mut Dice, count: usize) {
    let questions: Vec<String> = (0..count)
        .map(|n| {
            let (kind, id) = OWNERS[usize::try_from(dice.up_to(4)).unwrap()];
            let whole = dice.up_to(3) == 0;
            let minutes = dice.up_to(125 * 24 * 60) - 5 * 24 * 60;
            let minutes = if whole { minutes - minutes % 60 } else { minutes };
            let fraction = if whole { 0 } else { dice.up_to(60_000_000) };
            let span = match dice.up_to(6) {
                0 => format!("{} months {} days", dice.up_to(4), 1 + dice.up_to(9)),
                1 => format!("{} microseconds", 1 + dice.up_to(7_200_000_000)),
                2 => format!("{} hours", 1 + dice.up_to(200)),
                3 => format!("{} days", 1 + dice.up_to(90)),
                _ => format!("{} minutes", 1 + dice.up_to(40_000)),
            };
            let range = ["1h", "24h", "24h", "7d", "7d", "30d", "90d"][usize::try_from(dice.up_to(7)).unwrap()];
            format!(
                "({n}, '{kind}', '{id}', at('-100 days') + interval '{minutes} minutes {fraction} microseconds',
                  interval '{span}', '{range}')"
            )
        })
        .collect();
    run_sql(client, &format!("insert into question values {}", questions.join(", ")));
}

/// All questions by rolling windows (a third of them in the midst of posting), a third of them by
/// the other functions.
#[track_caller]
fn assert_as_the_journals_say(client: &mut Client, third: i32, when: &str) {
    let copy = "drop table if exists public.journal;
                create table public.journal as select * from journals;
                create index on public.journal (kind, id, created_at); analyze public.journal";
    run_sql(client, copy);
    for (what, sql) in
        [("rolling", ROLLING), ("series", SERIES), ("drivers", DRIVERS), ("documents", DOCUMENTS)]
    {
        let wrong = client.query(sql, &[&third]).expect(what);
        let wrong: Vec<String> = wrong.iter().map(|row| row.get(0)).collect();
        assert!(wrong.is_empty(), "{when}: {} {what} differ, such as {}", wrong.len(), wrong[0]);
    }
}

#[test]
fn a_thousand_questions_are_answered_as_the_journals_say() {
    let (_db, mut c) = books();
    run_sql(&mut c, JOURNALS);
    run_sql(&mut c, "select set_free_allowance(20000, '2020-01-01', overage_rule => 'split')");
    let mut dice = Dice(20_261_122);
    charge(&mut c, &mut dice, 1_500);
    let attached = "select count(*) from journals where product = 'llm'";
    assert!(one::<i64>(&mut c, attached, &[]) > 200);
    ask(&mut c, &mut dice, 1_000);
    cover_from(&mut c, "-61 days 05:00");
    for (owner, from, to) in [
        ("'user', 'u0'", "-40 days", "-38 days 03:00"),
        ("'user', 'u0'", "-38 days 01:00", "-38 days 07:00"),
        ("null, null", "-10 days", "-9 days 13:00"),
        ("'organization', 'o1'", "-62 days", "-60 days"),
        ("'organization', 'o0'", "-1 day 02:00", "-1 day 03:00"),
        ("'organization', 'o0'", "-1 day 05:00", "-1 day 06:00"),
        ("'organization', 'o0'", "9 days", "20 days"),
    ] {
        degrade(&mut c, owner, from, to);
    }
    assert_as_the_journals_say(&mut c, 0, "before posting");

    assert_eq!(one::<i64>(&mut c, "select post_spend(700)", &[]), 700);
    charge(&mut c, &mut dice, 300);
    run_sql(&mut c, "analyze");
    assert_as_the_journals_say(&mut c, 1, "in the midst of posting");

    post_all(&mut c);
    assert_books_hold(&mut c);
    // Nobody may look at what the rollups hold of hours in which they are not to be trusted.
    for table in ["spend_hourly_totals", "spend_hourly_drivers"] {
        let damage = format!(
            "with damaged as (
                 update {table} as t set total_microdollars = total_microdollars + 1000000, spend_record_count = 99
                 where hour_start < (select known_from from known) or exists (
                     select from spend_degraded_intervals as d
                     where hour_start >= from_hour and hour_start < to_hour and (d.owner_kind is null
                        or d.owner_kind = t.owner_kind and d.owner_id = t.owner_id))
                 returning 1)
             select count(*) from damaged"
        );
        assert!(one::<i64>(&mut c, &damage, &[]) > 500, "{table}");
    }
    assert_as_the_journals_say(&mut c, 2, "after posting");
}
