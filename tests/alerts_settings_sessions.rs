//! Changes of settings by several sessions at once.

mod alerts_common;
mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use alerts_common::*;
use common::{error_of, one, run_sql};
use sessions::{IMPATIENT, in_sessions, pid, wait_for_lock_of};
use std::thread;
use usage_common::{assert_books_hold, column};

const ROUNDS: i64 = 20;

const AMOUNTS: [&str; 4] = ["threshold_24h", "threshold_7d", "threshold_30d", "minimum_balance"];

fn call(id: &str, changes: &str) -> String {
    format!(
        "select exa_billing.update_spend_alert_settings('{}', '{id}', '{changes}', 'actor')",
        kind(id)
    )
}

#[test]
fn changes_of_different_keys_at_once_lose_nothing() {
    let (db, mut c) = books();
    enable(&mut c, "u", "");
    in_sessions(&db, 6, IMPATIENT, |session, client| {
        for round in 1..=ROUNDS {
            let changes = match session {
                0..4 => format!("{{\"{}_microdollars\": {round}}}", AMOUNTS[session]),
                4 => format!("{{\"anomaly_alerts_enabled\": {}}}", round % 2 == 0),
                _ => format!("{{\"cost_suggestions_enabled\": {}}}", round % 2 == 0),
            };
            run_sql(client, &call("u", &changes));
        }
    });
    assert_eq!(settings(&mut c, "u"), format!("t t t {ROUNDS} {ROUNDS} {ROUNDS} {ROUNDS}"));
    // Each change was made to what the one before it had left.
    let changes = "select format('%s %s', key, string_agg(coalesce(value->>'old', '-') || '>' || (value->>'new'), ' ' order by event_id))
                   from cost_insight_events, jsonb_each(snapshot->'changed')
                   where key like '%microdollars' group by key order by key";
    let steps: Vec<String> = (1..=ROUNDS)
        .map(|round| match round {
            1 => "->1".to_owned(),
            _ => format!("{}>{round}", round - 1),
        })
        .collect();
    let mut expected: Vec<String> =
        AMOUNTS.iter().map(|key| format!("{key}_microdollars {}", steps.join(" "))).collect();
    expected.sort();
    assert_eq!(column::<String>(&mut c, changes), expected);
    let count = "select count(*) from cost_insight_events where event_type = 'config_changed'";
    // Switching anomalies off and on again, both switches were on at first.
    assert_eq!(one::<i64>(&mut c, count, &[]), 1 + 6 * ROUNDS);
    assert_books_hold(&mut c);
}

#[test]
fn first_changes_at_once_make_one_row() {
    let (db, mut c) = books();
    for id in ["u", "org"] {
        in_sessions(&db, 4, IMPATIENT, |session, client| {
            let changes = format!("{{\"{}_usd\": \"{}\"}}", AMOUNTS[session], session + 1);
            run_sql(client, &call(id, &changes));
        });
        assert_eq!(settings(&mut c, id), "f t t 1000000 2000000 3000000 4000000");
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_change_waits_for_one_that_is_not_committed_and_builds_on_it() {
    for end in ["commit", "rollback"] {
        let (db, mut c) = books();
        let (mut open, mut second) = (db.client_with(IMPATIENT), db.client_with(IMPATIENT));
        run_sql(&mut open, "begin");
        run_sql(&mut open, &call("u", r#"{"threshold_24h_usd": "1"}"#));
        let waiting = pid(&mut second);
        thread::scope(|scope| {
            let changed =
                scope.spawn(|| run_sql(&mut second, &call("u", r#"{"threshold_7d_usd": "2"}"#)));
            wait_for_lock_of(&mut c, waiting);
            run_sql(&mut open, end);
            changed.join().unwrap();
        });
        let day = if end == "commit" { "1000000" } else { "-" };
        assert_eq!(settings(&mut c, "u"), format!("f t t {day} 2000000 - -"), "{end}");
    }
}

#[test]
fn a_change_on_an_old_snapshot_gives_way_to_a_newer_one() {
    for isolation in ["repeatable read", "serializable"] {
        for (first, theirs, ours) in [
            // Nobody said anything before; somebody did; both write the account.
            (r#"{}"#, r#"{"threshold_7d_usd": "2"}"#, r#"{"threshold_24h_usd": "1"}"#),
            (
                r#"{"threshold_30d_usd": "9"}"#,
                r#"{"threshold_7d_usd": "2"}"#,
                r#"{"threshold_24h_usd": "1"}"#,
            ),
            (
                r#"{"threshold_30d_usd": "9"}"#,
                r#"{"minimum_balance_usd": "2"}"#,
                r#"{"minimum_balance_usd": "1"}"#,
            ),
            (
                r#"{"spend_alerts_enabled": true}"#,
                r#"{"spend_alerts_enabled": false}"#,
                r#"{"threshold_24h_usd": "1"}"#,
            ),
        ] {
            let (db, mut c) = books();
            run_sql(&mut c, &call("u", first));
            let mut old = db.client_with(IMPATIENT);
            run_sql(&mut old, &format!("begin isolation level {isolation}; select now()"));
            run_sql(&mut old, "select from exa_billing.accounts");
            run_sql(&mut c, &call("u", theirs));
            let before = (settings(&mut c, "u"), events(&mut c, "u"));
            let error = error_of(&mut old, &call("u", ours));
            assert_eq!(error.code, "40001", "{isolation}, {theirs}: {}", error.message);
            run_sql(&mut old, "rollback");
            assert_eq!((settings(&mut c, "u"), events(&mut c, "u")), before);
            run_sql(&mut old, &call("u", ours));
            assert_ne!(settings(&mut c, "u"), before.0);
            assert_books_hold(&mut c);
        }
    }
}
