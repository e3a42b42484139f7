//! The view `health`: each check is ok in good books, turns when something is wrong, and is ok again
//! when it was mended.

mod books_common;
mod common;

use books_common::{assert_no_violations, fill};
use common::{Server, one, run_sql};
use postgres::Client;

/// What a check says: its status and its figure.
fn check(client: &mut Client, name: &str) -> (String, String) {
    let sql = "SELECT status, figure FROM exa_billing.health WHERE name = $1";
    let row = client.query_one(sql, &[&name]).expect("one row per check");
    (row.get(0), row.get(1))
}

#[track_caller]
fn turns(client: &mut Client, name: &str, plant: &str, status: &str, figure: &str, mend: &str) {
    assert_eq!(check(client, name).0, "ok", "{name}");
    run_sql(client, plant);
    assert_eq!(check(client, name), (status.to_owned(), figure.to_owned()), "{name}");
    run_sql(client, mend);
    assert_eq!(check(client, name).0, "ok", "{name}");
}

const DELIVERY: &str = "
    INSERT INTO exa_billing.notification_deliveries
        (delivery_id, event_id, owner_kind, owner_id, recipient_user_id, event_type, payload, status,
         attempt_count, next_attempt_at, occurred_at, created_at)
    VALUES (gen_random_uuid(), gen_random_uuid(), 'user', 'u', 'u', 'low_balance', '{}', 'pending', 0,
            now() - interval '7 hours', now(), now())";

#[test]
fn all_is_well_in_good_books() {
    let db = Server::shared().database();
    let mut client = db.client();
    fill(&mut client);
    let unwell = "SELECT count(*) FROM exa_billing.health WHERE status <> 'ok'";
    assert_eq!(one::<i64>(&mut client, unwell, &[]), 0);
    let said = "SELECT count(*) FROM exa_billing.health WHERE what_to_do = '' OR figure IS NULL";
    assert_eq!(one::<i64>(&mut client, said, &[]), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.health", &[]), 5);
}

#[test]
fn each_check_turns_and_is_ok_again_once_it_is_mended() {
    let db = Server::shared().database();
    let mut client = db.client();
    fill(&mut client);
    turns(
        &mut client,
        "blocked rows",
        "UPDATE exa_billing.unposted_spend SET blocked_reason = 'planted'
         WHERE entry_id IN (SELECT entry_id FROM exa_billing.unposted_spend LIMIT 2)",
        "critical",
        "2",
        "SELECT exa_billing.retry_blocked_spend()",
    );
    turns(
        &mut client,
        "evaluation backlog",
        "UPDATE exa_billing.evaluation_queue SET due_at = now() - interval '2 hours'",
        "critical",
        "7200 seconds overdue",
        "SELECT exa_billing.evaluate_due_owners()",
    );
    let entry = "DELETE FROM exa_billing.evaluation_queue;
         INSERT INTO exa_billing.evaluation_queue
             (owner_kind, owner_id, entry_id, due_at, failure_count, last_error)
         VALUES ('user', 'user-1', gen_random_uuid(), now() - interval '1 minute', ";
    for (failures, status) in [(1, "warning"), (5, "critical")] {
        turns(
            &mut client,
            "failing evaluations",
            &format!("{entry}{failures}, 'planted')"),
            status,
            "1",
            "SELECT exa_billing.evaluate_due_owners()",
        );
    }
    turns(
        &mut client,
        "deliveries pending",
        DELIVERY,
        "critical",
        "25200 seconds overdue",
        "SELECT exa_billing.complete_notification(delivery_id, claim_token)
         FROM exa_billing.claim_notifications(1)",
    );
    assert_no_violations(&mut client);
}

#[test]
fn a_delivery_that_died_is_told_for_a_day() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    run_sql(&mut client, DELIVERY);
    // The fifth failure is the last.
    for _ in 0..5 {
        assert_eq!(check(&mut client, "deliveries dead").0, "ok");
        run_sql(
            &mut client,
            "UPDATE exa_billing.notification_deliveries SET next_attempt_at = now();
             SELECT exa_billing.fail_notification(delivery_id, claim_token, 'no such address')
             FROM exa_billing.claim_notifications(1)",
        );
    }
    let died = ("critical".to_owned(), "1 in the last day".to_owned());
    assert_eq!(check(&mut client, "deliveries dead"), died);
    run_sql(
        &mut client,
        "UPDATE exa_billing.notification_deliveries SET finished_at = now() - interval '25 hours'",
    );
    assert_eq!(check(&mut client, "deliveries dead").0, "ok");
}
