//! How often those are evaluated who have no alerts: of them nothing but suggestions can come.

mod alerts_common;
mod common;
mod evidence_common;
mod usage_common;

use alerts_common::{USD, books, change, enable, events, queue, spend, summary};
use common::{Database, one, run_sql};
use evidence_common::post_all;
use postgres::error::SqlState;
use postgres::{Client, GenericClient};
use usage_common::assert_books_hold;

const DUE: &str = "evaluate_due_owners()";
const EVALUATED: (i64, i64, i64, i64, i64, bool) = (1, 0, 0, 0, 0, true);
/// Seconds until each row of the queue is due, and after the owner's last evaluation if it rests.
const SECONDS: &str = "select coalesce(string_agg(
        round(extract(epoch from q.due_at - case when q.due_at > clock_timestamp() + interval '1 min'
            then s.last_evaluated_at else clock_timestamp() end))::text, ' ' order by q.due_at), '')
    from evaluation_queue as q left join spend_alert_states as s using (owner_kind, owner_id)";

fn charge(c: &mut impl GenericClient, usd: i64) {
    spend(c, "u", usd * USD, "variable", "clock_timestamp() - interval '1 second'");
}

fn charge_and_post(c: &mut Client) {
    charge(c, 1);
    post_all(c);
}

fn seconds(c: &mut Client) -> String {
    one(c, SECONDS, &[])
}

/// As if so much time had passed.
fn let_pass(c: &mut Client, time: &str) {
    let sql = format!(
        "update evaluation_queue set due_at = due_at - interval '{time}';
         update spend_alert_states set last_evaluated_at = last_evaluated_at - interval '{time}'"
    );
    run_sql(c, &sql);
}

/// An owner without alerts who was charged and evaluated.
fn evaluated() -> (Database, Client) {
    let (db, mut c) = books();
    charge_and_post(&mut c);
    assert_eq!(seconds(&mut c), "10");
    let_pass(&mut c, "11 s");
    assert_eq!(summary(&mut c, DUE), EVALUATED);
    assert_eq!(seconds(&mut c), "300");
    (db, c)
}

#[test]
fn without_alerts_the_next_evaluation_is_five_minutes_after_the_last() {
    let (_db, mut c) = evaluated();
    for _ in 0..3 {
        charge_and_post(&mut c);
        assert_eq!(seconds(&mut c), "300");
        assert_eq!(summary(&mut c, DUE), (0, 0, 0, 0, 0, true));
    }
    let_pass(&mut c, "5 min");
    assert_eq!(summary(&mut c, DUE), EVALUATED);
    assert_eq!(queue(&mut c), [""; 0], "a rest is not followed by another");
    charge_and_post(&mut c);
    assert_eq!(seconds(&mut c), "10");
    assert_books_hold(&mut c);
}

#[test]
fn settings_without_alerts_change_nothing_of_that() {
    let (_db, mut c) = evaluated();
    change(&mut c, "u", r#"{"threshold_24h_usd": "5"}"#);
    charge_and_post(&mut c);
    assert_eq!(seconds(&mut c), "300");
}

#[test]
fn with_alerts_each_charge_is_due_after_the_delay() {
    let (_db, mut c) = books();
    enable(&mut c, "u", r#", "threshold_24h_usd": "50""#);
    for _ in 0..2 {
        charge_and_post(&mut c);
        assert_eq!(seconds(&mut c), "10");
        let_pass(&mut c, "11 s");
        assert_eq!(summary(&mut c, DUE), EVALUATED);
        assert_eq!(queue(&mut c), [""; 0]);
    }
}

#[test]
fn enabling_alerts_ends_a_rest() {
    let (_db, mut c) = evaluated();
    charge_and_post(&mut c);
    enable(&mut c, "u", r#", "threshold_24h_usd": "5""#);
    assert_eq!(seconds(&mut c), "10");
    charge(&mut c, 4);
    post_all(&mut c);
    let_pass(&mut c, "11 s");
    assert_eq!(summary(&mut c, DUE), (1, 1, 0, 0, 0, true));
    assert_eq!(queue(&mut c), [""; 0]);
    assert_eq!(events(&mut c, "u"), ["config_changed", "threshold_crossed threshold_24h"]);
}

#[test]
fn enabling_alerts_ends_no_pause_after_a_failure() {
    let (_db, mut c) = evaluated();
    run_sql(&mut c, "update evaluation_queue set failure_count = 3, last_error = 'broken'");
    enable(&mut c, "u", r#", "threshold_24h_usd": "50""#);
    assert_eq!(seconds(&mut c), "300");
}

#[test]
fn who_enables_alerts_on_a_snapshot_older_than_a_posting_has_to_try_again() {
    let (db, mut c) = evaluated();
    for isolation in ["repeatable read", "serializable"] {
        let mut other = db.client();
        let begin = format!("begin isolation level {isolation}; select from exa_billing.accounts");
        run_sql(&mut other, &begin);
        charge_and_post(&mut c);
        let enable = r#"select exa_billing.update_spend_alert_settings('user', 'u',
                            '{"spend_alerts_enabled": true, "threshold_24h_usd": "50"}', 'u')"#;
        let error = other.batch_execute(enable).unwrap_err();
        assert_eq!(error.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE));
        run_sql(&mut other, &format!("rollback; {enable}"));
        change(&mut c, "u", r#"{"spend_alerts_enabled": false}"#);
    }
}
