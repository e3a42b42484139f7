//! Thresholds over 24 hours, 7 and 30 days: told of once, and again only after recovery.

mod alerts_common;
mod common;
mod evidence_common;
mod usage_common;

use alerts_common::*;
use common::{error_of, one, run_sql};
use usage_common::{assert_books_hold, assert_unchanged, column, state};
use uuid::Uuid;

/// So long before the instant at which most of these tests evaluate.
fn ago(interval: &str) -> String {
    format!("at('200 hours 30 minutes') - interval '{interval}'")
}

const AS_OF: &str = "at('200 hours 30 minutes')";

#[test]
fn a_threshold_is_crossed_at_its_very_amount() {
    let (_db, mut c) = books();
    for id in ["u", "org"] {
        enable(&mut c, id, r#", "threshold_24h_usd": "25.50""#);
        spend(&mut c, id, 25_499_999, "scheduled", &ago("2 hours"));
        assert_eq!(evaluate(&mut c, id, &ago("1 hour")), (0, 0));
        assert_eq!(episodes(&mut c, id), [""; 0]);
        spend(&mut c, id, 1, "variable", &ago("30 minutes"));
        assert_eq!(evaluate(&mut c, id, &ago("20 minutes")), (1, 0));
        assert_eq!(episodes(&mut c, id), ["threshold_24h"]);
        assert_eq!(events(&mut c, id), ["config_changed", "threshold_crossed threshold_24h"]);
        let event = newest(&mut c, id, "threshold_crossed");
        let figures = "concat_ws(' ', snapshot->>'window', snapshot->'total_microdollars',
                                 snapshot->'threshold_microdollars')";
        assert_eq!(of_snapshot(&mut c, event, figures), "24h 25500000 25500000");
    }
    assert_books_hold(&mut c);
}

#[test]
fn it_is_told_once_however_often_it_is_evaluated_and_again_after_recovery() {
    let (_db, mut c) = books();
    enable(&mut c, "u", r#", "threshold_24h_usd": "5""#);
    let mut told = vec!["config_changed".to_owned()];
    for (day, crossing) in [(0, "first"), (2, "second")] {
        let at = |hours: i64| format!("at('{} hours')", day * 24 + hours);
        let second_hour = at(2);
        spend(&mut c, "u", 5 * USD, "scheduled", &at(1));
        assert_eq!(evaluate(&mut c, "u", &at(2)), (1, 0), "{crossing}");
        told.push("threshold_crossed threshold_24h".to_owned());
        for hours in 2..25 {
            spend(&mut c, "u", 1, "scheduled", &second_hour);
            assert_eq!(evaluate(&mut c, "u", &at(hours)), (0, 0), "{crossing}, {hours}");
        }
        // The 5 USD were spent at the window's first microsecond, then before it.
        assert_eq!(evaluate(&mut c, "u", &at(25)), (0, 0), "{crossing}");
        let crossed = newest(&mut c, "u", "threshold_crossed");
        let just_after = format!("{} + interval '1 microsecond'", at(25));
        assert_eq!(evaluate(&mut c, "u", &just_after), (0, 1), "{crossing}");
        told.push("recovered threshold_24h".to_owned());
        assert_eq!(evaluate(&mut c, "u", &just_after), (0, 0), "{crossing}");
        assert_eq!(events(&mut c, "u"), told);
        let recovered = newest(&mut c, "u", "recovered");
        let about = "select about_id from cost_insight_events where event_id = $1";
        assert_eq!(one::<Uuid>(&mut c, about, &[&recovered]), crossed);
        let figures = "concat_ws(' ', snapshot->>'window', snapshot->'total_microdollars',
                                 snapshot->'threshold_microdollars')";
        assert_eq!(of_snapshot(&mut c, recovered, figures), "24h 23 5000000");
    }
    assert_eq!(episodes(&mut c, "u"), [""; 0]);
    assert_books_hold(&mut c);
}

#[test]
fn the_windows_are_independent() {
    let (_db, mut c) = books();
    let all = r#", "threshold_24h_usd": "1", "threshold_7d_usd": "2", "threshold_30d_usd": "3""#;
    enable(&mut c, "u", all);
    let (day, week, month) = ("threshold_24h", "threshold_7d", "threshold_30d");
    for (usd, hours, counts, lasting) in [
        (1, 0, (0, 0), vec![]),
        (0, 1, (1, 0), vec![day]),
        (1, 48, (0, 1), vec![]),
        (0, 49, (2, 0), vec![day, week]),
        (0, 192, (0, 2), vec![]),
        (1, 240, (0, 0), vec![]),
        (0, 241, (2, 0), vec![day, month]),
        (2, 288, (0, 1), vec![month]),
        (0, 289, (2, 0), vec![day, month, week]),
        (0, 720, (0, 2), vec![month]),
        (0, 768, (0, 0), vec![month]),
        (0, 961, (0, 1), vec![]),
    ] {
        let at = format!("at('-40 days') + interval '{hours} hours'");
        assert_eq!(evaluate(&mut c, "u", &at), counts, "{hours}");
        let mut lasting = lasting;
        lasting.sort_unstable();
        assert_eq!(episodes(&mut c, "u"), lasting, "{hours}");
        if usd > 0 {
            spend(&mut c, "u", usd * USD, "scheduled", &at);
        }
    }
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn what_was_free_is_no_spend() {
    let (_db, mut c) = books();
    enable(&mut c, "u", r#", "threshold_24h_usd": "5""#);
    run_sql(&mut c, "select set_free_allowance(6000000, '2020-01-01', overage_rule => 'split')");
    let usage = |amount: i64| {
        format!(
            "select record_exa_usage('u', '/search', {amount}, created_at => {})",
            ago("1 hour")
        )
    };
    run_sql(&mut c, &usage(10_999_999));
    assert_eq!(evaluate(&mut c, "u", &ago("30 minutes")), (0, 0));
    run_sql(&mut c, &usage(1));
    assert_eq!(evaluate(&mut c, "u", AS_OF), (1, 0));
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn evaluations_go_forward_in_time() {
    let (_db, mut c) = books();
    enable(&mut c, "u", r#", "threshold_24h_usd": "5""#);
    enable(&mut c, "v", r#", "threshold_24h_usd": "5""#);
    spend_hours(&mut c, "u", &[(190, 5)]);
    spend_hours(&mut c, "v", &[(190, 5)]);
    assert_eq!(evaluate(&mut c, "u", AS_OF), (1, 0));
    post_and_make_due(&mut c);
    let before = state(&mut c);
    let call = format!("select evaluate_spend_alerts('user', 'u', {})", ago("1 microsecond"));
    let error = error_of(&mut c, &call);
    assert_eq!(error.code, "55000", "{}", error.message);
    assert!(error.hint.is_some() && error.detail.is_some());
    assert_unchanged(&mut c, &before, "an evaluation that was refused");

    // Sets leave such owners out without a word, and leave them in the queue.
    let due = format!("evaluate_due_owners({})", ago("1 microsecond"));
    assert_eq!(summary(&mut c, &due), (1, 1, 0, 0, 1, false));
    assert_eq!(queue(&mut c), ["u 0 t"]);
    let sweep = format!("run_spend_alert_sweep({})", ago("1 microsecond"));
    assert_eq!(summary(&mut c, &sweep), (1, 0, 0, 0, 1, true));
    // The same instant again is no step back.
    assert_eq!(evaluate(&mut c, "u", AS_OF), (0, 0));
    assert_eq!(queue(&mut c), [""; 0]);
    let ahead =
        "select evaluate_spend_alerts('user', 'u', clock_timestamp() + interval '1 minute')";
    assert_eq!(error_of(&mut c, ahead).code, "22023");
}

#[test]
fn each_recipient_gets_one_delivery() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select set_organization_member('org', 'ann', 'owner'), set_organization_member('org', 'bob', 'billing_manager'),
                set_organization_member('org', 'cy', 'member'), set_organization_member('org2', 'dan', 'owner')",
    );
    let deliveries = |c: &mut _, id: &str| -> Vec<String> {
        column(
            c,
            &format!(
                "select concat_ws(' ', d.event_type, d.alert_kind, d.recipient_user_id, d.status, d.attempt_count,
                                  d.payload = e.snapshot, d.occurred_at = e.occurred_at)
                 from notification_deliveries as d join cost_insight_events as e using (event_id)
                 where d.owner_id = '{id}' order by recipient_user_id, d.alert_kind"
            ),
        )
    };
    for id in ["u", "org", "org3"] {
        enable(&mut c, id, r#", "threshold_24h_usd": "5", "threshold_7d_usd": "10""#);
        spend_hours(&mut c, id, &[(190, 5)]);
        for _ in 0..3 {
            evaluate(&mut c, id, AS_OF);
        }
    }
    let one_of = |user: &str| format!("threshold_crossed threshold_24h {user} pending 0 t t");
    assert_eq!(deliveries(&mut c, "u"), [one_of("u")]);
    assert_eq!(deliveries(&mut c, "org"), [one_of("ann"), one_of("bob")]);
    // Nobody to tell: the event is there all the same.
    assert_eq!(deliveries(&mut c, "org3"), [""; 0]);
    assert_eq!(episodes(&mut c, "org3"), ["threshold_24h"]);
    // Neither a recovery nor a change of settings is sent to anybody.
    assert_eq!(evaluate(&mut c, "org", "at('230 hours')"), (0, 1));
    change_as_of(&mut c, "org", r#"{"spend_alerts_enabled": false}"#, "at('230 hours')");
    assert_eq!(deliveries(&mut c, "org").len(), 2);
}

#[test]
fn acknowledging_is_done_once_and_changes_nothing_that_is_over() {
    let (_db, mut c) = books();
    enable(&mut c, "u", r#", "threshold_24h_usd": "5""#);
    spend_hours(&mut c, "u", &[(199, 25)]);
    assert_eq!(evaluate(&mut c, "u", "at('199 hours 30 minutes')"), (2, 0));
    let (crossed, unusual) =
        (newest(&mut c, "u", "threshold_crossed"), newest(&mut c, "u", "anomaly_alert"));
    assert!(acknowledge(&mut c, crossed));
    assert!(acknowledge(&mut c, unusual));
    // A threshold stays crossed until the spend has fallen; an anomaly is over.
    assert_eq!(episodes(&mut c, "u"), ["threshold_24h"]);
    let reviewed =
        "select reviewed_by_user_id from spend_alert_episodes where reviewed_at is not null";
    assert_eq!(column::<String>(&mut c, reviewed), ["actor"]);
    let about = "select about_id from cost_insight_events where event_type = 'alert_reviewed'";
    let mut told = column::<Uuid>(&mut c, about);
    told.sort();
    let mut expected = [crossed, unusual];
    expected.sort();
    assert_eq!(told, expected);

    let before = state(&mut c);
    let config = newest(&mut c, "u", "config_changed");
    for event in [crossed, unusual, config] {
        assert!(!acknowledge(&mut c, event));
    }
    assert_unchanged(&mut c, &before, "acknowledging again");
    let call = "select acknowledge_spend_alert(gen_random_uuid(), 'actor')";
    assert_eq!(error_of(&mut c, call).code, "P0002");
    // It goes on being one and the same crossing.
    assert_eq!(evaluate(&mut c, "u", AS_OF), (0, 0));
    assert_eq!(evaluate(&mut c, "u", "at('224 hours')"), (0, 1));
    assert!(!acknowledge(&mut c, crossed));
    assert_eq!(
        events(&mut c, "u")[3..],
        ["alert_reviewed threshold_24h", "alert_reviewed anomaly", "recovered threshold_24h"]
    );
}

#[test]
fn an_episode_outlives_its_event() {
    let (_db, mut c) = books();
    enable(&mut c, "u", r#", "threshold_24h_usd": "5""#);
    spend_hours(&mut c, "u", &[(190, 5)]);
    assert_eq!(evaluate(&mut c, "u", AS_OF), (1, 0));
    let crossed = newest(&mut c, "u", "threshold_crossed");
    run_sql(&mut c, "delete from cost_insight_events");
    assert_eq!(evaluate(&mut c, "u", AS_OF), (0, 0));
    assert!(acknowledge(&mut c, crossed));
    assert!(!acknowledge(&mut c, crossed));
    assert_eq!(evaluate(&mut c, "u", "at('230 hours')"), (0, 1));
    assert_eq!(events(&mut c, "u"), ["alert_reviewed threshold_24h", "recovered threshold_24h"]);
}
