//! Every hour, day and month is UTC's, whatever the session's settings are.

mod common;
mod usage_common;

use common::{Server, one, run_sql};
use usage_common::{assert_books_hold, column};

/// What `search_path` puts before `pg_catalog` is not what the functions call.
const DECOYS: &str = "
    create schema decoy;
    create function decoy.now() returns timestamptz language sql
        as $$ select timestamptz '1999-01-01 00:00+00' $$;
    create function decoy.date_trunc(text, timestamptz, text) returns timestamptz language sql
        as $$ select timestamptz '1999-01-01 00:00+00' $$;
    create function decoy.timezone(text, timestamptz) returns timestamp language sql
        as $$ select timestamp '1999-01-01 00:00' $$;
    create table decoy.accounts (owner_kind text);
    create table decoy.unposted_spend (owner_kind text)";

/// Requests and charges around the instant `EDGE`, at which a month, a day and
/// an hour begin.
const CALLS: &str = "
    create extension exa_billing;
    select exa_billing.set_free_allowance(3000, '2020-01-01', null, 'split'),
           exa_billing.set_free_allowance(1000, (EDGE at time zone 'UTC')::date, null, 'split'),
           exa_billing.set_organization_member('org', 'u', 'member', 20000),
           exa_billing.grant_credit('organization', 'org', 50000,
                                    created_at => EDGE - interval '1 microsecond');
    select exa_billing.record_exa_usage('u', '/search', 5000, 'org',
                                        created_at => EDGE - interval '1 microsecond');
    select exa_billing.record_exa_usage('u', '/answer', 7000, 'org', created_at => EDGE);
    select exa_billing.record_spend('organization', 'org', 11, 'variable', 'shop', 'p',
               actor_user_id => 'u', created_at => EDGE - interval '1 hour');
    select exa_billing.record_spend('organization', 'org', 13, 'scheduled', 'shop', 'p',
               created_at => EDGE - interval '1 hour 1 microsecond');
    select exa_billing.post_spend();
    select exa_billing.record_exa_usage('u', '/search', 17,
                                        created_at => EDGE - interval '1 microsecond');
    select exa_billing.record_exa_usage_batch(jsonb_build_array(
        jsonb_build_object('user_id', 'u', 'path', '/x', 'cost_microdollars', 19, 'created_at',
            to_char(EDGE at time zone 'UTC' - interval '1 day', 'YYYY-MM-DD\"T23:59:59.999999Z\"')),
        jsonb_build_object('user_id', 'u', 'path', '/x', 'cost_microdollars', 23, 'created_at',
            to_char(EDGE at time zone 'UTC', 'YYYY-MM-DD\"T00:00:00+00:00\"'))))";

/// What functions, views and tables say of it; times in hours and days since
/// `EDGE`.
const QUESTIONS: [&str; 12] = [
    "select format('month %s: %s %s %s %s', ago, total_cost_microdollars,
            total_charged_microdollars, request_count, free_allowance_microdollars)
     from generate_series(0, 1) as ago, exa_billing.exa_monthly_usage('u', DAY - ago)",
    "select format('check %s: %s %s %s %s', ago, reason, month_used_microdollars,
            balance_microdollars, member_limit_remaining_microdollars)
     from generate_series(0, 1) as ago,
          exa_billing.check_exa_usage('u', 'org', EDGE - ago * interval '1 microsecond')",
    "select format('account %s %s', microdollars_used, balance_microdollars)
     from exa_billing.account_balance('organization', 'org')",
    "select format('balances %s %s %s', owner_kind, owner_id, balance_microdollars)
     from exa_billing.account_balances",
    "select format('counter %s %s: %s %s', coalesce(organization_id, '-'), month < DAY,
            total_cost_microdollars, total_charged_microdollars)
     from exa_billing.exa_monthly_usage_current",
    "select format('hour %s %s %s: %s', (extract(epoch from hour_start - EDGE) / 3600)::int,
            owner_id, spend_category, total_microdollars)
     from exa_billing.spend_hourly",
    "select format('driver %s %s %s %s: %s', (extract(epoch from hour_start - EDGE) / 3600)::int,
            owner_id, feature_key, actor_user_id, total_microdollars)
     from exa_billing.spend_drivers_hourly",
    "select format('log %s %s: %s in %s', extract(epoch from created_at - EDGE),
            charged_microdollars, organization_id, right(p.relname, 7) = to_char(DAY, 'YYYY_MM'))
     from exa_billing.exa_usage_log as l join pg_class as p on p.oid = l.tableoid",
    "select format('spend %s %s', extract(epoch from created_at - EDGE), amount_microdollars)
     from exa_billing.spend_log",
    "select format('allowance %s: %s', month < DAY, used_microdollars)
     from exa_billing.exa_monthly_allowance",
    "select format('member %s: %s', usage_date - DAY, microdollars_used)
     from exa_billing.organization_member_usage",
    // One more month than there is.
    "select format('partitions %s', count(*) filter (where created and error is null))
     from exa_billing.maintain_partitions(13)",
];

/// All answers of one database whose only sessions have the given settings.
fn answers(settings: &str, edge: &str) -> Vec<String> {
    let db = Server::shared().empty_database();
    run_sql(&mut db.client(), DECOYS);
    let mut odd = db.client_with(settings);
    let at_edge = |sql: &str| {
        sql.replace("EDGE", &format!("timestamptz '{edge}'"))
            .replace("DAY", &format!("date '{}'", &edge[..10]))
    };
    run_sql(&mut odd, &at_edge(CALLS));
    let mut answers = Vec::new();
    for when in ["before posting", "after posting"] {
        for question in QUESTIONS {
            for answer in column::<String>(&mut odd, &format!("{} order by 1", at_edge(question))) {
                answers.push(format!("{when}: {answer}"));
            }
        }
        assert_books_hold(&mut odd);
        run_sql(&mut odd, "select exa_billing.post_spend()");
    }
    answers
}

#[test]
fn the_edge_of_a_month_is_utcs_in_every_session() {
    let edge: String = one(
        &mut Server::shared().client("postgres"),
        "select to_char(date_trunc('month', now() at time zone 'UTC'), 'YYYY-MM-DD 00:00+00')",
        &[],
    );
    let utc = answers("-c timezone=UTC", &edge);
    for (question, expected) in [
        ("month", &["0: 7023 6023 2 1000", "1: 5036 2036 3 3000"][..]),
        (
            "check",
            &["0: credit_balance 1000 41976 14000", "1: credit_balance 3000 41976 17989"][..],
        ),
        ("account", &["8024 41976"]),
        ("balances", &["organization org 41976", "user u -59"]),
        ("counter", &["- f: 23 23", "- t: 36 36", "org f: 7000 6000", "org t: 5000 2000"]),
        ("allowance", &["f: 1000", "t: 3000"]),
    ] {
        for when in ["before", "after"] {
            let prefix = format!("{when} posting: {question} ");
            let told: Vec<&str> =
                utc.iter().filter_map(|line| line.strip_prefix(&prefix)).collect();
            assert_eq!(told, expected, "{prefix}");
        }
    }
    for posted in ["member -1: 2011", "member 0: 6000", "hour -1 u variable: 36"] {
        assert!(utc.contains(&format!("after posting: {posted}")), "{posted}: {utc:#?}");
    }

    for settings in [
        "-c timezone=Pacific/Auckland",
        "-c timezone=America/Los_Angeles -c datestyle=SQL,DMY",
        "-c search_path=decoy,pg_catalog -c timezone=Asia/Kathmandu",
        "-c search_path=nowhere -c datestyle=German -c intervalstyle=sql_standard",
    ] {
        assert_eq!(answers(settings, &edge), utc, "{settings}");
    }
}

#[test]
fn a_session_with_another_zone_makes_the_same_partitions() {
    let bounds = "select relname || ' ' || pg_get_expr(relpartbound, oid) from pg_class
                  where relispartition and relkind = 'r' order by relname";
    let made_under = |settings: &str| {
        let db = Server::shared().database();
        let mut odd = db.client_with(settings);
        run_sql(
            &mut odd,
            "select exa_billing.setup();
             set exa_billing.late_usage_limit = '200d';
             select exa_billing.record_exa_usage('u', '/search', 5,
                        created_at => now() - interval '150 days')",
        );
        column::<String>(&mut db.client_with("-c timezone=UTC"), bounds)
    };
    let utc = made_under("-c timezone=UTC");
    assert!(utc.len() >= 2 * (1 + 1 + 1 + 12), "{utc:#?}");
    let whole_months = |bound: &&String| bound.matches("-01 00:00:00+00'").count() == 2;
    assert_eq!(utc.iter().filter(whole_months).count(), utc.len(), "{utc:#?}");
    for settings in
        ["-c timezone=Pacific/Auckland -c datestyle=SQL,DMY", "-c timezone=America/Los_Angeles"]
    {
        assert_eq!(made_under(settings), utc, "{settings}");
    }
}
