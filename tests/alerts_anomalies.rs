//! Anomalies: hours that cost much more than an owner's hours use to.

mod alerts_common;
mod common;
mod evidence_common;
mod usage_common;

use alerts_common::*;
use common::{one, run_sql};
use evidence_common::cover_from;
use postgres::Client;
use usage_common::{assert_books_hold, assert_unchanged, column, state};

/// Hour 200 of the books is the one that most tests look at.
const AS_OF: &str = "at('200 hours 30 minutes')";
const FIGURES: &str = "concat_ws(' ', snapshot->>'mode', snapshot->'history_hours', snapshot->'baseline_microdollars',
    snapshot->'threshold_microdollars', snapshot->'hour_variable_microdollars')";

/// Mode, hours of history, baseline, threshold and amount of the newest anomaly.
fn figures(c: &mut Client, id: &str) -> String {
    let event = newest(c, id, "anomaly_alert");
    of_snapshot(c, event, FIGURES)
}

/// Spends up to one microdollar below an amount, then that one too: told at the second only.
#[track_caller]
fn assert_told_from(c: &mut Client, id: &str, amount: i64) {
    spend(c, id, amount - 1, "variable", "at('200 hours 10 minutes')");
    assert_eq!(evaluate(c, id, AS_OF), (0, 0), "{id} below {amount}");
    spend(c, id, 1, "variable", "at('200 hours 11 minutes')");
    assert_eq!(evaluate(c, id, AS_OF), (1, 0), "{id} at {amount}");
    assert_eq!(episodes(c, id), ["anomaly"]);
}

/// The hours in which anomalies were found, in the order in which they were told.
fn hours_told(c: &mut Client, id: &str) -> Vec<String> {
    column(
        c,
        &format!(
            "select to_char((snapshot->>'hour_start')::timestamptz - at('0 hours'), 'DD HH24')
             from cost_insight_events
             where owner_id = '{id}' and event_type = 'anomaly_alert' order by recorded_at, event_id"
        ),
    )
}

/// The hour of the anomaly that lasts.
fn hour_of_episode(c: &mut Client, id: &str) -> Option<String> {
    let sql = format!(
        "select to_char(hour_start - at('0 hours'), 'DD HH24') from spend_alert_episodes
         where owner_id = '{id}' and alert_kind = 'anomaly'"
    );
    column(c, &sql).into_iter().next()
}

#[test]
fn three_times_the_95th_percentile_is_unusual() {
    let (_db, mut c) = books();
    for id in ["u", "org"] {
        enable(&mut c, id, "");
        // 1 … 100 USD in the last 100 completed hours, in no order; 7 and 100 have no common factor.
        let hours: Vec<(i64, i64)> = (1..=100).map(|usd| (100 + usd * 7 % 100, usd)).collect();
        spend_hours(&mut c, id, &hours);
        assert_told_from(&mut c, id, 285 * USD);
        assert_eq!(figures(&mut c, id), "history 100 95000000 285000000 285000000");
    }
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn only_the_last_168_completed_hours_count() {
    let (_db, mut c) = books();
    enable(&mut c, "u", "");
    // 169 hours ago much; then eight hours of 20 USD, which are less than five of a hundred.
    spend_hours(&mut c, "u", &[(31, 900), (32, 20)]);
    let hours: Vec<(i64, i64)> = (193..200).map(|hour| (hour, 20)).collect();
    spend_hours(&mut c, "u", &hours);
    assert_told_from(&mut c, "u", 10 * USD);
    assert_eq!(figures(&mut c, "u"), "history 168 0 10000000 10000000");

    // A ninth one is the 160th in order.
    enable(&mut c, "v", "");
    spend_hours(&mut c, "v", &[(31, 900), (32, 20), (100, 21)]);
    spend_hours(&mut c, "v", &hours);
    assert_told_from(&mut c, "v", 60 * USD);
    assert_eq!(figures(&mut c, "v"), "history 168 20000000 60000000 60000000");
    assert_books_hold(&mut c);
}

#[test]
fn a_new_owner_has_a_floor_of_25_usd_and_a_quiet_old_one_of_10() {
    let (_db, mut c) = books();
    for (id, first_hour, floor, expected) in [
        ("new", 200, 25, "starter 0 0 25000000 25000000"),
        ("u23", 177, 25, "starter 23 0 25000000 25000000"),
        ("u24", 176, 10, "history 24 0 10000000 10000000"),
        ("u-old", 2, 10, "history 168 0 10000000 10000000"),
    ] {
        enable(&mut c, id, "");
        // What is scheduled is never unusual, but an owner's history begins with it.
        spend(&mut c, id, 1, "scheduled", &format!("at('{first_hour} hours')"));
        assert_told_from(&mut c, id, floor * USD);
        assert_eq!(figures(&mut c, id), expected);
    }
    assert_books_hold(&mut c);
}

#[test]
fn scheduled_spend_is_no_anomaly() {
    let (_db, mut c) = books();
    enable(&mut c, "u", "");
    spend(&mut c, "u", 9_000 * USD, "scheduled", "at('200 hours')");
    spend(&mut c, "u", 9_000 * USD, "scheduled", "at('199 hours')");
    assert_eq!(evaluate(&mut c, "u", AS_OF), (0, 0));
    let sweep = format!("run_spend_alert_sweep({AS_OF})");
    assert_eq!(summary(&mut c, &sweep), (1, 0, 0, 0, 0, true));
    // Nor does it make dear hours usual.
    for hour in 100..200 {
        spend(&mut c, "u", 90 * USD, "scheduled", &format!("at('{hour} hours')"));
    }
    assert_told_from(&mut c, "u", 10 * USD);
}

#[test]
fn hours_of_which_nothing_is_known_are_left_out() {
    for (covered, expected) in [
        ("150 hours", "history 53 0 10000000 10000000"),
        ("190 hours", "starter 13 0 25000000 25000000"),
        // The hour is not over, but what it cost so far is known.
        ("200 hours", "starter 3 0 25000000 25000000"),
    ] {
        for posted in [true, false] {
            let (_db, mut c) = books();
            cover_from(&mut c, covered);
            enable(&mut c, "u", "");
            // Known all the same, since they have rows; one of them only what is scheduled.
            spend_hours(&mut c, "u", &[(20, 1), (110, 1), (121, 1)]);
            spend(&mut c, "u", 1, "scheduled", "at('130 hours')");
            if posted {
                evidence_common::post_all(&mut c);
            }
            let amount = if expected.starts_with("history") { 10 } else { 25 };
            assert_told_from(&mut c, "u", amount * USD);
            assert_eq!(figures(&mut c, "u"), expected, "{covered}");
            assert_told_right(&mut c);
        }
    }
}

#[test]
fn the_rollups_of_hours_before_they_cover_are_not_asked() {
    let (_db, mut c) = books();
    cover_from(&mut c, "150 hours");
    for id in ["u", "v"] {
        enable(&mut c, id, r#", "threshold_7d_microdollars": 10000024"#);
        spend(&mut c, id, 7, "variable", "at('20 hours')");
        spend(&mut c, id, 7, "variable", "at('110 hours')");
        spend(&mut c, id, 7, "scheduled", "at('130 hours')");
        spend(&mut c, id, 10, "variable", "at('160 hours')");
    }
    evidence_common::post_all(&mut c);
    run_sql(&mut c, "delete from spend_hourly_totals where hour_start < at('150 hours')");
    run_sql(&mut c, "delete from spend_hourly_drivers where hour_start < at('150 hours')");
    for id in ["u", "v"] {
        spend(&mut c, id, 10 * USD, "variable", "at('200 hours')");
    }
    assert_eq!(evaluate(&mut c, "u", AS_OF), (2, 0));
    assert_eq!(figures(&mut c, "u"), "history 52 0 10000000 10000000");
    let sweep = format!("run_spend_alert_sweep({AS_OF})");
    assert_eq!(summary(&mut c, &sweep), (2, 2, 0, 0, 0, true));
    assert_eq!(figures(&mut c, "v"), "history 52 0 10000000 10000000");
    assert_told_right(&mut c);
}

#[test]
fn a_charge_that_was_taken_back_begins_no_history() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "create table public.llm (who text, cost bigint, at timestamptz); create index on public.llm (who, at);
         select attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway', '{\"user_id\": \"who\",
             \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}', true);
         update spend_sources set covered_from = at('-100 days');
         insert into public.llm values ('u', 5, at('10 hours')), ('u', 5, at('150 hours')), ('v', 5, at('10 hours'))",
    );
    evidence_common::post_all(&mut c);
    run_sql(&mut c, "delete from public.llm");
    // And one that was never posted.
    run_sql(
        &mut c,
        "insert into public.llm values ('v', 5, at('150 hours')); delete from public.llm",
    );
    for id in ["u", "v"] {
        enable(&mut c, id, "");
        assert_told_from(&mut c, id, 25 * USD);
        assert_eq!(figures(&mut c, id), "starter 0 0 25000000 25000000");
    }
    assert_books_hold(&mut c);
}

#[test]
fn an_hour_is_told_of_once_whatever_happens() {
    let (_db, mut c) = books();
    enable(&mut c, "u", "");
    spend_hours(&mut c, "u", &[(200, 30)]);
    let at = |minute: i64| format!("at('200 hours {minute} minutes')");
    assert_eq!(evaluate(&mut c, "u", &at(10)), (1, 0));
    spend_hours(&mut c, "u", &[(200, 300)]);
    assert_eq!(evaluate(&mut c, "u", &at(11)), (0, 0));
    let unusual = newest(&mut c, "u", "anomaly_alert");
    assert!(acknowledge(&mut c, unusual));
    assert_eq!(episodes(&mut c, "u"), [""; 0]);
    spend_hours(&mut c, "u", &[(200, 3_000)]);
    assert_eq!(evaluate(&mut c, "u", &at(12)), (0, 0));
    for changes in [
        r#"{"spend_alerts_enabled": false}"#,
        r#"{"spend_alerts_enabled": true}"#,
        r#"{"anomaly_alerts_enabled": false}"#,
        r#"{"anomaly_alerts_enabled": true}"#,
    ] {
        assert_eq!(change_as_of(&mut c, "u", changes, &at(13)).fired, 0, "{changes}");
    }
    assert_eq!(evaluate(&mut c, "u", &at(14)), (0, 0));
    let sweep = "run_spend_alert_sweep(at('201 hours 5 minutes'))";
    assert_eq!(summary(&mut c, sweep), (1, 0, 0, 0, 0, true));
    assert_eq!(hours_told(&mut c, "u"), ["08 08"]);
    assert_eq!(episodes(&mut c, "u"), [""; 0]);
    let deliveries = "select count(*) from notification_deliveries";
    assert_eq!(one::<i64>(&mut c, deliveries, &[]), 1);
}

#[test]
fn it_ends_when_a_later_hour_was_calm() {
    let (_db, mut c) = books();
    for (id, next, is_calm) in [("u", 25 * USD, false), ("v", 25 * USD - 1, true), ("w", 0, true)] {
        enable(&mut c, id, "");
        spend_hours(&mut c, id, &[(200, 25)]);
        assert_eq!(evaluate(&mut c, id, AS_OF), (1, 0));
        // Its own hour is no later one, and the next is not over.
        for as_of in ["at('201 hours')", "at('201 hours 59 minutes')"] {
            assert_eq!(evaluate(&mut c, id, as_of), (0, 0));
            assert_eq!(hour_of_episode(&mut c, id).as_deref(), Some("08 08"), "{id}");
        }
        // After the evaluation: found unusual by none, and yet not calm.
        if next > 0 {
            spend(&mut c, id, next, "variable", "at('201 hours 30 minutes')");
        }
        assert_eq!(evaluate(&mut c, id, "at('202 hours')"), (0, 0));
        assert_eq!(hour_of_episode(&mut c, id).is_none(), is_calm, "{id}");
        assert_eq!(evaluate(&mut c, id, "at('203 hours')"), (0, 0));
        assert_eq!(hour_of_episode(&mut c, id), None, "{id}");
        // Nobody is told of that.
        assert_eq!(events(&mut c, id), ["config_changed", "anomaly_alert anomaly"]);
    }
}

#[test]
fn an_unknown_hour_is_not_a_calm_one() {
    let (_db, mut c) = books();
    enable(&mut c, "u", "");
    spend_hours(&mut c, "u", &[(200, 25)]);
    assert_eq!(evaluate(&mut c, "u", AS_OF), (1, 0));
    cover_from(&mut c, "204 hours");
    assert_eq!(evaluate(&mut c, "u", "at('204 hours 30 minutes')"), (0, 0));
    assert_eq!(episodes(&mut c, "u"), ["anomaly"]);
    assert_eq!(evaluate(&mut c, "u", "at('205 hours')"), (0, 0));
    assert_eq!(episodes(&mut c, "u"), [""; 0]);
}

#[test]
fn opting_out_or_disabling_ends_it() {
    let (_db, mut c) = books();
    for (id, changes) in
        [("u", r#"{"anomaly_alerts_enabled": false}"#), ("v", r#"{"spend_alerts_enabled": false}"#)]
    {
        enable(&mut c, id, r#", "threshold_24h_usd": "40""#);
        spend_hours(&mut c, id, &[(200, 25)]);
        assert_eq!(evaluate(&mut c, id, AS_OF), (1, 0));
        change_as_of(&mut c, id, changes, AS_OF);
        assert_eq!(episodes(&mut c, id), [""; 0]);
        spend_hours(&mut c, id, &[(201, 25)]);
        let told = if id == "u" { (1, 0) } else { (0, 0) };
        assert_eq!(evaluate(&mut c, id, "at('201 hours 30 minutes')"), told);
        assert_eq!(hours_told(&mut c, id), ["08 08"]);
    }
    assert_eq!(episodes(&mut c, "u"), ["threshold_24h"]);
}

#[test]
fn the_sweep_finds_the_hour_just_completed() {
    let (_db, mut c) = books();
    enable(&mut c, "u", "");
    spend(&mut c, "u", 24 * USD, "variable", "at('200 hours')");
    assert_eq!(evaluate(&mut c, "u", AS_OF), (0, 0));
    spend(&mut c, "u", USD, "variable", "at('201 hours') - interval '1 microsecond'");
    post_and_make_due(&mut c);
    let due = "evaluate_due_owners(at('201 hours'))";
    assert_eq!(summary(&mut c, due), (1, 0, 0, 0, 0, true));
    let sweep = "run_spend_alert_sweep(at('201 hours 59 minutes'))";
    assert_eq!(summary(&mut c, sweep), (1, 1, 0, 0, 0, true));
    assert_eq!(figures(&mut c, "u"), "starter 0 0 25000000 25000000");
    assert_eq!(hour_of_episode(&mut c, "u").as_deref(), Some("08 08"));
    let before = state(&mut c);
    let sweep = "run_spend_alert_sweep(at('201 hours 59 minutes'))";
    assert_eq!(summary(&mut c, sweep), (1, 0, 0, 0, 0, true));
    let after = state(&mut c);
    let written: Vec<_> = before.keys().filter(|name| before[*name] != after[*name]).collect();
    assert_eq!(written, ["procedure_progress"]);
    assert_told_right(&mut c);
}

#[test]
fn an_older_hour_is_told_of_but_takes_no_newer_ones_place() {
    let (_db, mut c) = books();
    let sweep = "run_spend_alert_sweep(at('201 hours 6 minutes'))";
    for id in ["u", "v"] {
        enable(&mut c, id, "");
        spend_hours(&mut c, id, &[(200, 30), (201, 400)]);
    }
    assert_eq!(evaluate(&mut c, "u", "at('201 hours 5 minutes')"), (1, 0));
    let episode = newest(&mut c, "u", "anomaly_alert");
    // The one was told of the newer hour before, the other of neither.
    assert_eq!(summary(&mut c, sweep), (2, 3, 0, 0, 0, true));
    assert_eq!(hours_told(&mut c, "u"), ["08 09", "08 08"]);
    assert_eq!(hours_told(&mut c, "v"), ["08 08", "08 09"]);
    for id in ["u", "v"] {
        assert_eq!(hour_of_episode(&mut c, id).as_deref(), Some("08 09"), "{id}");
    }
    let standing = "select event_id from spend_alert_episodes where owner_id = 'u'";
    assert_eq!(column::<uuid::Uuid>(&mut c, standing), [episode]);
    assert_told_right(&mut c);
    // An older one that comes after a newer one is over begins nothing.
    assert!(acknowledge(&mut c, episode));
    run_sql(
        &mut c,
        "delete from cost_insight_events where event_type = 'anomaly_alert' and owner_id = 'u'",
    );
    assert_eq!(summary(&mut c, sweep), (2, 1, 0, 0, 0, true));
    assert_eq!(hours_told(&mut c, "u"), ["08 08"]);
    assert_eq!(hour_of_episode(&mut c, "u"), None);
}

#[test]
fn a_newer_hour_takes_an_older_ones_place() {
    let (_db, mut c) = books();
    enable(&mut c, "u", "");
    spend_hours(&mut c, "u", &[(200, 30), (201, 50), (202, 60)]);
    for (as_of, hour) in [(200, "08 08"), (201, "08 09"), (202, "08 10")] {
        assert_eq!(evaluate(&mut c, "u", &format!("at('{as_of} hours 30 minutes')")), (1, 0));
        assert_eq!(hour_of_episode(&mut c, "u").as_deref(), Some(hour));
    }
    let before = state(&mut c);
    // What was told of an hour whose place is taken can be acknowledged, and changes nothing.
    let first = "select event_id from cost_insight_events where event_type = 'anomaly_alert'
                 order by event_id limit 1";
    let first = one(&mut c, first, &[]);
    assert!(!acknowledge(&mut c, first));
    assert_unchanged(&mut c, &before, "a stale acknowledgement");
}
