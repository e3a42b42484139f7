//! What an owner wants to be told of: how it is read and written, and what a change leads to.

mod alerts_common;
mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use alerts_common::*;
use common::{error_of, one, run_sql};
use postgres::Client;
use usage_common::{assert_books_hold, assert_unchanged, column, state};

const DEFAULTS: &str = "f t t - - - -";
const NOW: &str = "at('200 hours')";
const LATER: &str = "at('201 hours')";

fn low_since(c: &mut Client, id: &str) -> Option<String> {
    one(c, "select low_balance_since::text from accounts where owner_id = $1", &[&id])
}

#[test]
fn an_owner_who_never_said_has_the_defaults_and_reading_writes_nothing() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    for id in ["u", "org"] {
        assert_eq!(settings(&mut c, id), DEFAULTS);
    }
    assert_unchanged(&mut c, &before, "reading settings");
    run_sql(&mut c, "begin read only");
    assert_eq!(settings(&mut c, "u"), DEFAULTS);
    run_sql(&mut c, "commit");
}

#[test]
fn every_key_is_written_in_both_units() {
    let (_db, mut c) = books();
    for (changes, expected) in [
        (r#"{"spend_alerts_enabled": true}"#, "t t t - - - -"),
        (r#"{"anomaly_alerts_enabled": false}"#, "t f t - - - -"),
        (r#"{"cost_suggestions_enabled": false}"#, "t f f - - - -"),
        (r#"{"threshold_24h_usd": " 25.50 "}"#, "t f f 25500000 - - -"),
        (r#"{"threshold_7d_microdollars": 1}"#, "t f f 25500000 1 - -"),
        (r#"{"threshold_30d_usd": "0.01"}"#, "t f f 25500000 1 10000 -"),
        (r#"{"minimum_balance_usd": "7"}"#, "t f f 25500000 1 10000 7000000"),
        (
            r#"{"threshold_24h_microdollars": 9007199254740991, "threshold_7d_usd": "2.5"}"#,
            "t f f 9007199254740991 2500000 10000 7000000",
        ),
        (
            r#"{"threshold_24h_usd": "", "threshold_7d_microdollars": null, "threshold_30d_usd": "  "}"#,
            "t f f - - - 7000000",
        ),
        (
            r#"{"threshold_30d_microdollars": 3, "minimum_balance_microdollars": 4}"#,
            "t f f - - 3 4",
        ),
        (r#"{"minimum_balance_usd": null, "threshold_30d_usd": null}"#, "t f f - - - -"),
        (
            r#"{"spend_alerts_enabled": false, "anomaly_alerts_enabled": true, "cost_suggestions_enabled": true}"#,
            DEFAULTS,
        ),
    ] {
        for id in ["u", "org"] {
            change(&mut c, id, changes);
            assert_eq!(settings(&mut c, id), expected, "{changes}");
        }
    }
    assert_books_hold(&mut c);
}

#[test]
fn the_row_returned_is_what_stands_now() {
    let (_db, mut c) = books();
    let sql = r#"select array_to_string(array[owner_kind, owner_id, spend_alerts_enabled::text,
        threshold_7d_microdollars::text, minimum_balance_microdollars::text, event_id::text, fired::text], ' ', '-')
        from update_spend_alert_settings('user', 'u', '{"threshold_7d_usd": "5", "minimum_balance_usd": "3.10"}', 'u')"#;
    assert_eq!(one::<String>(&mut c, sql, &[]), "user u false 5000000 3100000 - 0");
}

#[test]
fn an_unknown_key_or_a_bad_value_is_refused_before_anything_is_written() {
    let (_db, mut c) = books();
    enable(&mut c, "v", r#", "threshold_24h_usd": "5""#);
    let before = state(&mut c);
    for (fault, named) in [
        (r#""spend_alerts_enable": true"#, "unknown key"),
        (r#""threshold_24h": 5"#, "unknown key"),
        (r#""threshold_24h_eur": "5""#, "unknown key"),
        (r#""SPEND_ALERTS_ENABLED": true"#, "unknown key"),
        (r#""spend_alerts_enabled": "true""#, "spend_alerts_enabled"),
        (r#""anomaly_alerts_enabled": null"#, "anomaly_alerts_enabled"),
        (r#""threshold_24h_microdollars": 0"#, "threshold_24h_microdollars"),
        (r#""threshold_24h_microdollars": -5"#, "threshold_24h_microdollars"),
        (r#""threshold_24h_microdollars": 2.5"#, "threshold_24h_microdollars"),
        (r#""threshold_24h_microdollars": "5""#, "threshold_24h_microdollars"),
        (r#""threshold_24h_microdollars": 9007199254740992"#, "threshold_24h_microdollars"),
        (r#""threshold_24h_microdollars": 1e30"#, "threshold_24h_microdollars"),
        (r#""threshold_7d_usd": 25"#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "0""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "0.00""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "-1""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "+1""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "1,000""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "025""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "1.005""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": ".5""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "5.""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "1e3""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "$5""#, "threshold_7d_usd"),
        (r#""threshold_7d_usd": "9007199254.75""#, "threshold_7d_usd"),
        (r#""minimum_balance_usd": "ten""#, "minimum_balance_usd"),
        (r#""threshold_30d_usd": "5", "threshold_30d_microdollars": 5000000"#, "threshold_30d_usd"),
    ] {
        for id in ["u", "v"] {
            for good in ["", r#""cost_suggestions_enabled": false, "minimum_balance_usd": "1","#] {
                let call = format!(
                    "select update_spend_alert_settings('user', '{id}', '{{{good} {fault}}}', 'u')"
                );
                let error = error_of(&mut c, &call);
                assert_eq!(error.code, "22023", "{call}");
                assert!(error.message.contains("changes"), "{call}: {}", error.message);
                assert!(error.message.contains(named), "{call}: {}", error.message);
            }
        }
    }
    for changes in ["null", "'[]'", "'7'", "'\"x\"'", "'null'"] {
        let call = format!("select update_spend_alert_settings('user', 'u', {changes}, 'u')");
        assert_eq!(error_of(&mut c, &call).code, "22023", "{changes}");
    }
    assert_unchanged(&mut c, &before, "a refused change");
}

#[test]
fn enabling_evaluates_at_once() {
    let (_db, mut c) = books();
    spend_hours(&mut c, "u", &[(198, 20), (199, 10), (190, 1)]);
    let changed = change_as_of(
        &mut c,
        "u",
        r#"{"spend_alerts_enabled": true, "threshold_24h_usd": "31", "threshold_7d_usd": "31.01"}"#,
        NOW,
    );
    assert_eq!((changed.fired, changed.is_pending), (1, false));
    assert_eq!(events(&mut c, "u"), ["config_changed", "threshold_crossed threshold_24h"]);
    assert_eq!(episodes(&mut c, "u"), ["threshold_24h"]);
    let told = of_snapshot(&mut c, changed.event.unwrap(), "snapshot->'changed'");
    assert_eq!(
        told,
        r#"{"spend_alerts_enabled": {"new": true, "old": false}, "threshold_7d_microdollars": {"new": 31010000, "old": null}, "threshold_24h_microdollars": {"new": 31000000, "old": null}}"#
    );
    let actor = "select actor_user_id from cost_insight_events where event_type = 'config_changed'";
    assert_eq!(one::<String>(&mut c, actor, &[]), "actor");
    assert_books_hold(&mut c);
}

#[test]
fn an_evaluation_that_fails_at_enabling_leaves_the_settings_and_queues_the_owner() {
    for planted in [
        "alter table spend_alert_episodes add constraint planted check (alert_kind <> 'threshold_24h')",
        "alter table cost_insight_events add constraint planted check (event_type <> 'threshold_crossed')",
    ] {
        let (_db, mut c) = books();
        spend_hours(&mut c, "u", &[(199, 30)]);
        run_sql(&mut c, planted);
        let on = r#"{"spend_alerts_enabled": true, "threshold_24h_usd": "5"}"#;
        let changed = change_as_of(&mut c, "u", on, NOW);
        assert_eq!((changed.fired, changed.is_pending), (0, true), "{planted}");
        assert!(changed.event.is_some());
        assert_eq!(settings(&mut c, "u"), "t t t 5000000 - - -");
        assert_eq!(events(&mut c, "u"), ["config_changed"]);
        assert_eq!(episodes(&mut c, "u"), [""; 0]);
        assert_eq!(queue(&mut c), ["u 1 f"]);
        let error: String = one(&mut c, "select last_error from evaluation_queue", &[]);
        assert!(error.contains("planted"), "{error}");

        let table = planted.split(' ').nth(2).unwrap();
        run_sql(&mut c, &format!("alter table {table} drop constraint planted"));
        make_due(&mut c);
        let due = format!("evaluate_due_owners({LATER})");
        assert_eq!(summary(&mut c, &due), (1, 1, 0, 0, 0, true));
        assert_eq!(events(&mut c, "u"), ["config_changed", "threshold_crossed threshold_24h"]);
        assert_eq!(queue(&mut c), [""; 0]);
    }
}

#[test]
fn disabling_keeps_the_values_and_ends_what_is_amiss() {
    let (_db, mut c) = books();
    spend_hours(&mut c, "u", &[(199, 30)]);
    let on = r#"{"spend_alerts_enabled": true, "threshold_24h_usd": "5", "threshold_7d_usd": "6"}"#;
    let off = r#"{"spend_alerts_enabled": false}"#;
    assert_eq!(change_as_of(&mut c, "u", on, "at('199 hours 30 minutes')").fired, 3);
    assert_eq!(episodes(&mut c, "u"), ["anomaly", "threshold_24h", "threshold_7d"]);
    let changed = change_as_of(&mut c, "u", off, NOW);
    assert_eq!((changed.fired, changed.is_pending), (0, false));
    assert_eq!(settings(&mut c, "u"), "f t t 5000000 6000000 - -");
    assert_eq!(episodes(&mut c, "u"), [""; 0]);
    assert_eq!(events(&mut c, "u")[4..], ["disabled"]);
    let told = of_snapshot(&mut c, changed.event.unwrap(), "snapshot->'changed'");
    assert_eq!(told, r#"{"spend_alerts_enabled": {"new": false, "old": true}}"#);
    assert_eq!(evaluate(&mut c, "u", NOW), (0, 0));
    assert_eq!(events(&mut c, "u").len(), 5);

    // The thresholds fire anew; the anomaly was told of once.
    let again = change_as_of(&mut c, "u", r#"{"spend_alerts_enabled": true}"#, LATER);
    assert_eq!(again.fired, 2);
    assert_eq!(
        events(&mut c, "u")[5..],
        ["config_changed", "threshold_crossed threshold_24h", "threshold_crossed threshold_7d"]
    );
    assert_eq!(episodes(&mut c, "u"), ["threshold_24h", "threshold_7d"]);
}

#[test]
fn a_change_while_disabled_only_saves() {
    let (_db, mut c) = books();
    spend_hours(&mut c, "u", &[(199, 30)]);
    let others = ["evaluation_queue", "cost_insight_events", "spend_alert_episodes"];
    let before = state(&mut c);
    for changes in [
        r#"{"threshold_24h_usd": "5"}"#,
        r#"{"anomaly_alerts_enabled": false}"#,
        r#"{"minimum_balance_usd": "5", "threshold_24h_usd": "6"}"#,
        r#"{"spend_alerts_enabled": false, "threshold_7d_usd": "1"}"#,
    ] {
        let changed = change_as_of(&mut c, "u", changes, NOW);
        assert_eq!(changed, Changed { event: None, fired: 0, is_pending: false }, "{changes}");
    }
    assert_eq!(settings(&mut c, "u"), "f f t 6000000 1000000 - 5000000");
    let after = state(&mut c);
    assert!(others.iter().all(|table| before[*table] == after[*table]));
    let evaluated = "select count(last_evaluated_at) from spend_alert_states";
    assert_eq!(one::<i64>(&mut c, evaluated, &[]), 0);
}

#[test]
fn a_changed_threshold_is_a_new_alert_and_touches_no_other_window() {
    let (_db, mut c) = books();
    spend(&mut c, "u", 30 * USD, "scheduled", "at('199 hours')");
    let all = r#"{"spend_alerts_enabled": true, "threshold_24h_usd": "5", "threshold_7d_usd": "6",
                  "threshold_30d_usd": "7"}"#;
    assert_eq!(change_as_of(&mut c, "u", all, NOW).fired, 3);
    let of = "select string_agg(alert_kind || ' ' || event_id, ' ' order by alert_kind)
              from spend_alert_episodes where alert_kind <> 'threshold_7d'";
    let others: String = one(&mut c, of, &[]);
    let first = newest_of(&mut c, "threshold_7d");

    // Still above: its own event, and none that says it had been below.
    let raised = change_as_of(&mut c, "u", r#"{"threshold_7d_usd": "30"}"#, LATER);
    assert_eq!(raised.fired, 1);
    let second = newest_of(&mut c, "threshold_7d");
    assert_ne!(first, second);
    assert_eq!(events(&mut c, "u")[4..], ["config_changed", "threshold_crossed threshold_7d"]);
    let told = of_snapshot(&mut c, raised.event.unwrap(), "snapshot->'changed'");
    assert_eq!(told, r#"{"threshold_7d_microdollars": {"new": 30000000, "old": 6000000}}"#);
    assert_eq!(of_snapshot(&mut c, second, "snapshot->'threshold_microdollars'"), "30000000");

    // Not reached any more, then none at all: it ends without a word.
    assert_eq!(change_as_of(&mut c, "u", r#"{"threshold_7d_usd": "30.01"}"#, LATER).fired, 0);
    assert_eq!(episodes(&mut c, "u"), ["threshold_24h", "threshold_30d"]);
    assert_eq!(change_as_of(&mut c, "u", r#"{"threshold_7d_usd": "8"}"#, LATER).fired, 1);
    assert_eq!(change_as_of(&mut c, "u", r#"{"threshold_7d_usd": ""}"#, LATER).fired, 0);
    assert_eq!(episodes(&mut c, "u"), ["threshold_24h", "threshold_30d"]);
    assert_eq!(one::<String>(&mut c, of, &[]), others);
    assert!(!events(&mut c, "u").iter().any(|event| event.starts_with("recovered")));
    assert_books_hold(&mut c);
}

fn newest_of(c: &mut Client, kind: &str) -> uuid::Uuid {
    one(c, "select event_id from spend_alert_episodes where alert_kind = $1", &[&kind])
}

#[test]
fn the_minimum_balance_does_not_depend_on_alerts_and_is_armed_again_only_when_it_changes() {
    let (_db, mut c) = books();
    let five = r#"{"minimum_balance_usd": "5"}"#;
    assert_eq!(change(&mut c, "u", five).event, None);
    spend(&mut c, "u", 1, "variable", "now()");
    evidence_common::post_all(&mut c);
    assert_eq!(events(&mut c, "u"), ["low_balance"]);
    let since = low_since(&mut c, "u");
    assert!(since.is_some());

    for changes in [five, r#"{"minimum_balance_microdollars": 5000000, "threshold_24h_usd": "9"}"#]
    {
        change(&mut c, "u", changes);
        assert_eq!(low_since(&mut c, "u"), since, "{changes}");
    }
    change(&mut c, "u", r#"{"spend_alerts_enabled": true}"#);
    change(&mut c, "u", r#"{"spend_alerts_enabled": false}"#);
    assert_eq!(low_since(&mut c, "u"), since);

    change(&mut c, "u", r#"{"minimum_balance_usd": "6"}"#);
    assert_eq!(low_since(&mut c, "u"), None);
    spend(&mut c, "u", 1, "variable", "now()");
    evidence_common::post_all(&mut c);
    let low = events(&mut c, "u").iter().filter(|event| *event == "low_balance").count();
    assert_eq!(low, 2);
    change(&mut c, "u", r#"{"minimum_balance_usd": ""}"#);
    assert_eq!(settings(&mut c, "u"), "f t t 9000000 - - -");
    assert_eq!(low_since(&mut c, "u"), None);
    assert_books_hold(&mut c);
}

#[test]
fn the_same_document_twice_changes_nothing() {
    let (_db, mut c) = books();
    spend_hours(&mut c, "u", &[(199, 30)]);
    for changes in [
        "{}",
        r#"{"spend_alerts_enabled": true, "threshold_24h_usd": "5", "minimum_balance_usd": "1"}"#,
        r#"{"threshold_24h_usd": null, "cost_suggestions_enabled": false}"#,
        r#"{"spend_alerts_enabled": false}"#,
    ] {
        change_as_of(&mut c, "u", changes, NOW);
        let before = state(&mut c);
        let again = change_as_of(&mut c, "u", changes, LATER);
        assert_eq!(again, Changed { event: None, fired: 0, is_pending: false }, "{changes}");
        assert_unchanged(&mut c, &before, changes);
    }
}

#[test]
fn an_instant_ahead_of_the_clock_is_refused_and_an_older_one_is_no_step_back() {
    let (_db, mut c) = books();
    spend_hours(&mut c, "u", &[(199, 30)]);
    let call =
        "select update_spend_alert_settings('user', 'u', '{\"spend_alerts_enabled\": true}', 'u',
                clock_timestamp() + interval '1 minute')";
    assert_eq!(error_of(&mut c, call).code, "22023");
    assert_eq!(evaluate(&mut c, "u", NOW), (0, 0));
    let on = r#"{"spend_alerts_enabled": true, "threshold_24h_usd": "30"}"#;
    // At the earlier instant nothing had been spent yet.
    assert_eq!(change_as_of(&mut c, "u", on, "at('150 hours')").fired, 1);
    let evaluated = "select last_evaluated_at = at('200 hours') from spend_alert_states";
    assert!(one::<bool>(&mut c, evaluated, &[]));
    assert_eq!(column::<String>(&mut c, "select owner_id from spend_alert_settings"), ["u"]);
}
