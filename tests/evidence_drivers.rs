//! What the money went on; all of it as one document; and what is read for that, and what is not.

mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use common::{one, run_sql};
use evidence_common::{books, charge, cover_from, degrade, post_all, rows, session};
use postgres::Client;
use serde_json::{Value as Json, json};
use sessions::beside;
use usage_common::assert_books_hold;

const DRIVER: &str = "spend_category, source, product_key, feature_key, model_or_plan_key,
    provider_key, actor_user_id, total_microdollars::text, spend_record_count::text";

/// The drivers of organization `o`, each as its parts; `-` is nobody.
fn top(client: &mut Client, from: &str, to: &str, more: &str) -> Vec<String> {
    let call = format!("top_spend_drivers('organization', 'o', at('{from}'), at('{to}'){more})");
    rows(client, DRIVER, &call)
}

/// A charge of organization `o`: amount, then what follows in the call of `record_spend`.
fn spend(client: &mut Client, amount: i64, more: &str, at: &str) {
    run_sql(
        client,
        &format!(
            "select record_spend('organization', 'o', {amount}, {more}, created_at => at('{at}'))"
        ),
    );
}

#[test]
fn drivers_of_whole_and_partial_hours_are_added_up_and_ranked() {
    let (_db, mut c) = books();
    let model = |name: &str| {
        format!("'variable', 'ai_gateway', 'direct-gateway', 'chat', '{name}', 'p', 'u'")
    };
    spend(&mut c, 4, &model("model-6"), "00:59:59.999999"); // before
    spend(&mut c, 6, &model("model-6"), "01:30");
    spend(&mut c, 100, &model("model-6"), "02:00");
    spend(&mut c, 4, &model("model-6"), "04:29:59.999999");
    spend(&mut c, 900, &model("model-6"), "04:30"); // after
    for (amount, name) in
        [(60, "model-2"), (60, "model-1"), (40, "model-4"), (30, "model-5"), (20, "model-3")]
    {
        spend(&mut c, amount, &model(name), "03:15");
    }
    let mut told = Vec::new();
    for _ in ["before posting", "after posting"] {
        told.push(top(&mut c, "01:00", "04:30", ""));
        post_all(&mut c);
    }
    assert_eq!(told[0], told[1]);
    let expected = [("6", 110, 3), ("1", 60, 1), ("2", 60, 1), ("4", 40, 1), ("5", 30, 1)].map(
        |(name, amount, records)| {
            format!("variable ai_gateway direct-gateway chat model-{name} p u {amount} {records}")
        },
    );
    assert_eq!(told[0], expected);
    assert_eq!(top(&mut c, "01:00", "04:30", ", max_drivers => 2"), expected[..2]);
    assert_eq!(top(&mut c, "01:00", "04:30", ", max_drivers => 1000").len(), 6);
    assert_eq!(top(&mut c, "05:00", "06:00", ""), [""; 0]);
    assert_books_hold(&mut c);
}

#[test]
fn equal_amounts_are_in_the_order_of_bytes_with_nobody_first() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(0, '2020-01-01')");
    for more in [
        "'variable', 'kiloclaw', 'b', actor_user_id => 'a'",
        "'variable', 'kiloclaw', 'b'",
        "'variable', 'kiloclaw', 'B', actor_user_id => 'Z'",
        "'variable', 'kiloclaw', 'b', actor_user_id => 'Z'",
        "'variable', 'my-shop', 'a'",
        "'scheduled', 'coding_plan', 'z', 'z', 'z', 'z', 'z'",
        "'variable', 'other', 'exa', 'Search', provider_key => 'exa'",
    ] {
        spend(&mut c, 7, more, "02:15");
    }
    run_sql(&mut c, "select record_exa_usage('u', '/search', 7, 'o', created_at => at('02:15'))");
    let ranked = [
        "scheduled coding_plan z z z z z 7 1",
        "variable kiloclaw B other other other Z 7 1",
        "variable kiloclaw b other other other - 7 1",
        "variable kiloclaw b other other other Z 7 1",
        "variable kiloclaw b other other other a 7 1",
        "variable other a other other other - 7 1",
        "variable other exa Search other exa - 7 1",
        "variable other exa search other exa u 7 1",
    ];
    let all = ", max_drivers => 100";
    assert_eq!(top(&mut c, "02:00", "03:00", all), ranked);
    assert_eq!(top(&mut c, "02:10", "02:20", all), ranked);
    post_all(&mut c);
    assert_eq!(top(&mut c, "02:00", "03:00", all), ranked);
    assert_eq!(top(&mut c, "02:00", "03:00", ", 'scheduled'"), ranked[..1]);
    assert_eq!(
        top(&mut c, "02:00", "03:00", ", spend_category => 'variable', max_drivers => 2"),
        ranked[1..3]
    );
    cover_from(&mut c, "1 day");
    assert_eq!(top(&mut c, "02:00", "03:00", all), ranked);
    assert_books_hold(&mut c);
}

#[test]
fn a_driver_that_was_taken_back_does_not_appear() {
    let (_db, mut c) = books();
    spend(&mut c, 7, "'variable', 'kiloclaw', 'p'", "02:15");
    spend(&mut c, 9, "'variable', 'kiloclaw', 'q'", "02:15");
    post_all(&mut c);
    // As a row of an attached table that is deleted.
    run_sql(
        &mut c,
        "insert into unposted_spend
             (owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars, amount_microdollars,
              spend_record_count, dimension_id, dimension, blocked_reason, created_at, transaction_id)
         select 'organization', 'o', gen_random_uuid(), 'test', null, null, -7, -1, dimension_id, null, null, at('02:20'),
                pg_current_xact_id()
         from spend_dimensions where product_key = 'p'",
    );
    let left = ["variable kiloclaw q other other other - 9 1"];
    assert_eq!(top(&mut c, "02:00", "03:00", ""), left);
    let sum = rows(
        &mut c,
        "total_microdollars::text, spend_record_count::text",
        "rolling_spend('organization', 'o', '1 hour', at('03:00'))",
    );
    assert_eq!(sum, ["9 1"]);
    post_all(&mut c);
    assert_eq!(top(&mut c, "02:00", "03:00", ""), left);
}

#[test]
fn the_document_says_all_of_it() {
    let (_db, mut c) = books();
    cover_from(&mut c, "-2 days");
    run_sql(&mut c, "update midnight set at = '2026-03-10 00:00Z'");
    run_sql(&mut c, "update spend_sources set covered_from = '2026-03-09 20:00Z'");
    run_sql(&mut c, "set exa_billing.late_usage_limit = '9999d'");
    charge(&mut c, 5_000_000_000, "scheduled", "'2026-03-09 18:20Z'");
    charge(&mut c, 70, "variable", "'2026-03-10 09:15:00.5Z'");
    charge(&mut c, 80, "variable", "'2026-03-10 09:45Z'"); // not yet
    degrade(&mut c, "null, null", "-3 days", "-2 hours");
    degrade(&mut c, "'user', 'u'", "03:00", "04:00");
    run_sql(&mut c, "set timezone = 'Asia/Tokyo'");
    let document: Json =
        one(&mut c, "select spend_evidence('user', 'u', '24h', '2026-03-10 09:30:00.25Z')", &[]);
    let mut shown = document.clone();
    let series = shown.as_object_mut().unwrap().remove("series").unwrap();
    let driver = |model: &str, amount: i64| {
        json!([{
            "source": "kiloclaw", "product_key": "p", "feature_key": "other", "model_or_plan_key": model,
            "provider_key": "other", "actor_user_id": "u", "total_microdollars": amount, "spend_record_count": 1
        }])
    };
    assert_eq!(
        shown,
        json!({
            "owner": {"owner_kind": "user", "owner_id": "u"},
            "range": "24h",
            "as_of": "2026-03-10T09:30:00.250Z",
            "window": {"from_time": "2026-03-09T10:00:00Z", "to_time": "2026-03-10T10:00:00Z"},
            "is_complete": false,
            "totals": {"total_microdollars": 5_000_000_070_i64, "variable_microdollars": 70,
                       "scheduled_microdollars": 5_000_000_000_i64, "spend_record_count": 2},
            "top_drivers": {"variable": driver("other", 70), "scheduled": driver("other", 5_000_000_000)},
            "degraded_intervals": [
                {"from_hour": "2026-03-09T10:00:00Z", "to_hour": "2026-03-09T22:00:00Z"},
                {"from_hour": "2026-03-10T03:00:00Z", "to_hour": "2026-03-10T04:00:00Z"}]
        })
    );
    let point = |hour: usize| {
        let point = &series[hour];
        let text = |name: &str| point[name].as_str().unwrap().to_owned();
        (
            text("bucket_start"),
            text("bucket_end"),
            point["covered_hours"].as_i64(),
            point["total_microdollars"].as_i64(),
        )
    };
    let expected = |from: &str, to: &str, covered, total| {
        (from.to_owned(), to.to_owned(), Some(covered), total)
    };
    assert_eq!(series.as_array().unwrap().len(), 24);
    assert_eq!(point(0), expected("2026-03-09T10:00:00Z", "2026-03-09T11:00:00Z", 0, None));
    assert_eq!(
        point(8),
        expected("2026-03-09T18:00:00Z", "2026-03-09T19:00:00Z", 0, Some(5_000_000_000))
    );
    assert_eq!(point(10), expected("2026-03-09T20:00:00Z", "2026-03-09T21:00:00Z", 0, Some(0)));
    assert_eq!(point(12), expected("2026-03-09T22:00:00Z", "2026-03-09T23:00:00Z", 1, Some(0)));
    assert_eq!(point(17), expected("2026-03-10T03:00:00Z", "2026-03-10T04:00:00Z", 0, Some(0)));
    assert_eq!(point(23), expected("2026-03-10T09:00:00Z", "2026-03-10T10:00:00Z", 1, Some(70)));
    // Of an owner nobody knows, before anything was kept: null is not zero.
    let nobody: Json =
        one(&mut c, "select spend_evidence('user', 'nobody', '7d', '2026-02-01 00:00Z')", &[]);
    assert_eq!(nobody["totals"]["total_microdollars"], Json::Null);
    assert_eq!(
        (nobody["is_complete"].as_bool(), nobody["series"].as_array().unwrap().len()),
        (Some(false), 8)
    );
    assert_eq!(nobody["top_drivers"], json!({"variable": [], "scheduled": []}));
    assert_books_hold(&mut c);
}

/// Everything at once, of both owners, so that two readings that differ are seen.
const ALL: &str = "select jsonb_build_array(
    exa_billing.spend_evidence('user', 'u', '7d', public.at('1 day 11:40')),
    exa_billing.spend_evidence('user', 'u', '90d', public.at('1 day 11:40')),
    (select jsonb_agg(h) from exa_billing.spend_by_hour('user', 'u', public.at('0'), public.at('2 days')) as h),
    (select to_jsonb(r) from exa_billing.rolling_spend('user', 'u', '30 hours', public.at('1 day 11:40')) as r))::text";

#[test]
fn every_reading_is_of_one_snapshot_while_posting_goes_on() {
    let (db, mut c) = books();
    let fill = |client: &mut Client| {
        run_sql(
            client,
            "select record_spend('user', 'u', 1 + n, (array['variable', 'scheduled'])[1 + n % 2], 'kiloclaw',
                                 'p' || n % 5, created_at => at('0') + n * interval '7 minutes')
             from generate_series(1, 300) as n",
        );
    };
    fill(&mut c);
    degrade(&mut c, "'user', 'u'", "05:00", "08:00");
    let before: String = one(&mut c, ALL, &[]);
    let post = |client: &mut Client| {
        let _: i64 = one(client, "select exa_billing.post_spend(20)", &[]);
    };
    // Each statement has a snapshot of its own, and posting goes on between and within them.
    let told: Vec<String> =
        beside(&db, &[&post], || (0..30).map(|_| one(&mut session(&db), ALL, &[])).collect());
    assert!(told.iter().all(|told| *told == before));
    post_all(&mut c);

    let mut old = session(&db);
    run_sql(&mut old, "begin transaction isolation level repeatable read");
    assert_eq!(one::<String>(&mut old, ALL, &[]), before);
    fill(&mut c);
    assert_eq!(one::<String>(&mut old, ALL, &[]), before);
    post_all(&mut c);
    run_sql(&mut c, "update spend_degraded_intervals set resolved_at = now()");
    assert_eq!(one::<String>(&mut old, ALL, &[]), before);
    run_sql(&mut old, "commit");
    let after: String = one(&mut old, ALL, &[]);
    assert_ne!(after, before);
    assert_books_hold(&mut c);
}

#[test]
fn own_charges_count_in_the_transaction_that_makes_them() {
    let (_db, mut c) = books();
    run_sql(&mut c, "begin");
    for (at, told) in [("02:00", "7 1"), ("03:15", "14 2"), ("03:16", "21 3")] {
        charge(&mut c, 7, "variable", &format!("at('{at}')"));
        let sum = rows(
            &mut c,
            "total_microdollars::text, spend_record_count::text",
            "rolling_spend('user', 'u', '2 hours', at('03:30'))",
        );
        assert_eq!(sum, [told]);
        post_all(&mut c);
    }
    run_sql(&mut c, "rollback");
    let sum = rows(
        &mut c,
        "total_microdollars::text",
        "rolling_spend('user', 'u', '2 hours', at('03:30'))",
    );
    assert_eq!(sum, ["0"]);
    assert_books_hold(&mut c);
}

/// How often the journals, and how often the queue was read from front to end.
fn scans(client: &mut Client) -> (i64, i64) {
    run_sql(client, "select pg_stat_force_next_flush()");
    let journals = "select sum(seq_scan + coalesce(idx_scan, 0))::bigint from pg_stat_user_tables
                    where relname ~ '^(exa_usage|spend)_log'";
    let queue = "select seq_scan from pg_stat_user_tables where relname = 'unposted_spend'";
    (one(client, journals, &[]), one(client, queue, &[]))
}

#[test]
fn covered_whole_hours_are_told_without_a_look_at_the_journals() {
    let (_db, mut c) = books();
    charge(&mut c, 7, "variable", "at('02:00')");
    charge(&mut c, 8, "scheduled", "at('-20 days 02:00')");
    post_all(&mut c);
    charge(&mut c, 9, "variable", "at('2 days')");
    run_sql(&mut c, "vacuum analyze exa_billing.unposted_spend");
    let readings = "select concat_ws(' ',
        (select sum(total_microdollars) from spend_by_hour('user', 'u', at('-80 days'), at('9 days'))),
        (select sum(total_microdollars) from spend_series('user', 'u', '90d', at('9 days'))),
        (select total_microdollars from rolling_spend('user', 'u', '30 days', at('9 days'))),
        (select sum(total_microdollars) from top_spend_drivers('user', 'u', at('-80 days'), at('9 days'))),
        spend_evidence('user', 'u', '90d', at('9 days'))->'totals'->>'total_microdollars')";
    let before = scans(&mut c);
    for _ in 0..8 {
        assert_eq!(one::<String>(&mut c, readings, &[]), "24 24 24 24 24");
    }
    assert_eq!(scans(&mut c).0, before.0, "reads of the journals");

    // The plans that were made with one row in the queue are good for many.
    run_sql(
        &mut c,
        "insert into unposted_spend
             (owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars, amount_microdollars,
              spend_record_count, dimension_id, dimension, blocked_reason, created_at, transaction_id)
         select 'user', case when n % 1000 = 0 then 'u' else 'u' || n % 100 end, gen_random_uuid(), 'test', null, null,
                3, 1, '00000000-0000-8000-8000-657861000001', null, null, at('3 days'),
                pg_current_xact_id()
         from generate_series(1, 100000) as n",
    );
    let before = scans(&mut c);
    assert_eq!(one::<String>(&mut c, readings, &[]), "324 324 324 324 324");
    assert_eq!(scans(&mut c), before, "reads of the journals, and whole reads of the queue");
}
