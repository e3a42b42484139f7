//! Notifications one after the other: what a mailer gets, when it gets it again, when it ends.

mod common;
mod notifications_common;
mod sessions;

use chrono::{DateTime, Duration, Utc};
use common::{error_of, one, run_sql, sqlstate};
use notifications_common::*;
use postgres::{Client, IsolationLevel};
use sessions::verify;
use uuid::Uuid;

fn clock(client: &mut Client) -> DateTime<Utc> {
    one(client, "SELECT clock_timestamp()", &[])
}

fn column(client: &mut Client, column: &str, claimed: &Claimed) -> DateTime<Utc> {
    let sql =
        format!("SELECT {column} FROM exa_billing.notification_deliveries WHERE delivery_id = $1");
    one(client, &sql, &[&claimed.delivery])
}

#[test]
fn a_claim_hands_out_all_that_a_mailer_needs() {
    let db = served_books();
    let mut client = db.client_with("-c timezone=Asia/Kathmandu -c datestyle=German");
    let before = clock(&mut client);
    low(&mut client, "user", "ann");
    let between = clock(&mut client);
    let claimed = claim_one(&mut client, "5 minutes");
    let after = clock(&mut client);
    assert_eq!(claimed.recipient, "ann");
    assert_eq!(claimed.owner, ("user".to_owned(), "ann".to_owned()));
    assert_eq!((claimed.event_type.as_str(), &claimed.alert_kind), ("low_balance", &None));
    assert!(before < claimed.occurred_at && claimed.occurred_at < between, "{claimed:?}");
    assert_eq!(
        claimed.payload,
        serde_json::json!({ "balance_microdollars": 4, "minimum_balance_microdollars": 1000 })
    );
    assert_eq!(claimed.attempt, 1);
    let event: Uuid = one(&mut client, "SELECT event_id FROM exa_billing.cost_insight_events", &[]);
    assert_eq!(claimed.event, event);
    let lease = column(&mut client, "leased_until", &claimed);
    assert!(between + Duration::minutes(5) < lease && lease < after + Duration::minutes(5));
    assert_eq!(column(&mut client, "next_attempt_at", &claimed), lease);
    assert_eq!(status(&mut client, &claimed), ("sending".to_owned(), 1, None));
    // It is with a mailer now.
    assert_eq!(claim(&mut client, "10"), []);

    assert!(complete(&mut client, &claimed));
    assert_eq!(status(&mut client, &claimed), ("sent".to_owned(), 1, None));
    let finished = column(&mut client, "finished_at", &claimed);
    assert!(after < finished && finished < clock(&mut client));
    assert_eq!(claim(&mut client, "10"), []);
    verify(&mut client);
}

#[test]
fn those_that_wait_longest_come_first_and_no_more_than_asked() {
    let db = served_books();
    let mut client = db.client();
    for id in ["ann", "bob", "carl", "dora", "eve", "later"] {
        low(&mut client, "user", id);
    }
    run_sql(
        &mut client,
        "UPDATE exa_billing.notification_deliveries SET next_attempt_at = now() +
             (position(owner_id IN 'dora,bob,eve,carl,ann,....later') - 24) * interval '1 minute'",
    );
    assert_eq!(recipients(&claim(&mut client, "2")), ["dora", "bob"]);
    assert_eq!(recipients(&claim(&mut client, "10")), ["eve", "carl", "ann"]);
    assert_eq!(claim(&mut client, "1000"), []);
}

#[test]
fn a_lease_that_ran_out_is_given_again_with_a_new_token() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    let first = claim_one(&mut client, "1 microsecond");
    let second = claim_one(&mut client, "5 minutes");
    assert_eq!((second.delivery, second.attempt), (first.delivery, 2));
    assert_ne!(second.token, first.token);

    // The first mailer comes late: nothing changes.
    let lease = column(&mut client, "leased_until", &second);
    assert!(!complete(&mut client, &first));
    assert_eq!(fail(&mut client, &first, Some("late")), None);
    assert_eq!(status(&mut client, &second), ("sending".to_owned(), 2, None));
    assert_eq!(column(&mut client, "leased_until", &second), lease);
    let foreign = Claimed { token: Uuid::from_u128(7), ..second.clone() };
    assert!(!complete(&mut client, &foreign));
    assert_eq!(fail(&mut client, &foreign, None), None);

    assert!(complete(&mut client, &second));
    let finished = column(&mut client, "finished_at", &second);
    // Its answer may have been lost: asked again, it is the same; for all others it is not theirs.
    assert!(complete(&mut client, &second));
    assert_eq!(column(&mut client, "finished_at", &second), finished);
    assert!(!complete(&mut client, &first));
    assert!(!complete(&mut client, &foreign));
    assert_eq!(fail(&mut client, &second, Some("after all")), None);
    assert_eq!(status(&mut client, &second), ("sent".to_owned(), 2, None));
}

#[test]
fn a_mailer_that_is_late_but_was_not_replaced_still_completes() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    let mut claimed = claim_one(&mut client, "1 microsecond");
    for _ in 2..=5 {
        claimed = claim_one(&mut client, "1 microsecond");
    }
    assert!(complete(&mut client, &claimed));
    assert_eq!(status(&mut client, &claimed), ("sent".to_owned(), 5, None));
    assert_eq!(claim(&mut client, "10"), []);
}

#[test]
fn leases_that_run_out_five_times_end_it() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    let mut tokens = Vec::new();
    for attempt in 1..=5 {
        let claimed = claim_one(&mut client, "1 microsecond");
        assert_eq!(claimed.attempt, attempt);
        tokens.push(claimed);
    }
    assert_eq!(claim(&mut client, "10"), []);
    let reason = Some("the lease of the last attempt ran out".to_owned());
    assert_eq!(status(&mut client, &tokens[0]), ("dead".to_owned(), 5, reason.clone()));
    for claimed in &tokens {
        assert!(!complete(&mut client, claimed));
        assert_eq!(fail(&mut client, claimed, Some("too late")), None);
    }
    make_due(&mut client);
    assert_eq!(claim(&mut client, "10"), []);
    assert_eq!(status(&mut client, &tokens[0]), ("dead".to_owned(), 5, reason));
}

#[test]
fn failures_are_tried_again_after_longer_and_longer_pauses_and_the_fifth_is_the_last() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    for (attempt, minutes) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let claimed = claim_one(&mut client, "5 minutes");
        assert_eq!(claimed.attempt, attempt);
        let before = clock(&mut client);
        let said = format!("451 try {attempt}");
        assert_eq!(fail(&mut client, &claimed, Some(&said)), Some("pending".to_owned()));
        let next = column(&mut client, "next_attempt_at", &claimed);
        let pause = Duration::minutes(minutes);
        assert!(before + pause < next && next < clock(&mut client) + pause, "{attempt}: {next}");
        assert_eq!(status(&mut client, &claimed), ("pending".to_owned(), attempt, Some(said)));
        assert_eq!(claim(&mut client, "10"), []);
        // Its token is spent.
        assert!(!complete(&mut client, &claimed));
        assert_eq!(fail(&mut client, &claimed, Some("again")), None);
        make_due(&mut client);
    }
    let last = claim_one(&mut client, "5 minutes");
    assert_eq!(fail(&mut client, &last, Some("550 nobody")), Some("dead".to_owned()));
    let dead = ("dead".to_owned(), 5, Some("550 nobody".to_owned()));
    assert_eq!(status(&mut client, &last), dead);
    assert_eq!(fail(&mut client, &last, None), None);
    assert!(!complete(&mut client, &last));
    assert_eq!(claim(&mut client, "10"), []);
    assert_eq!(status(&mut client, &last), dead);
}

#[test]
fn no_text_is_a_reason_to_refuse_a_failure() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    let long = "𝄞".repeat(100_000);
    for (text, kept) in [
        (Some(long.as_str()), Some("𝄞".repeat(500))),
        (Some("\u{1}\t\n\u{7f} 'x' \\"), Some("\u{1}\t\n\u{7f} 'x' \\".to_owned())),
        (Some(""), Some(String::new())),
        (None, None),
    ] {
        let claimed = claim_one(&mut client, "1 minute");
        assert_eq!(fail(&mut client, &claimed, text), Some("pending".to_owned()));
        assert_eq!(status(&mut client, &claimed).2, kept);
        make_due(&mut client);
    }
}

#[test]
fn an_unknown_delivery_is_named() {
    let db = served_books();
    let mut client = db.client();
    let id = "00000000-0000-0000-0000-00000000000d";
    for call in [format!("complete_notification('{id}', '{id}')"), {
        format!("fail_notification('{id}', '{id}', 'why')")
    }] {
        let error = error_of(&mut client, &format!("SELECT exa_billing.{call}"));
        assert_eq!(error.code, "P0002", "{call}");
        assert!(error.detail.unwrap().contains(id), "{call}");
    }
}

#[test]
fn who_lost_the_right_to_hear_is_skipped_and_takes_nobodys_place() {
    let db = served_books();
    let mut client = db.client();
    for (user, role) in [
        ("boss", "owner"),
        ("removed", "billing_manager"),
        ("demoted", "owner"),
        ("promoted", "billing_manager"),
        ("plain", "member"),
    ] {
        let sql = format!("SELECT exa_billing.set_organization_member('org', '{user}', '{role}')");
        run_sql(&mut client, &sql);
    }
    low(&mut client, "organization", "org");
    low(&mut client, "user", "ann");
    run_sql(
        &mut client,
        "SELECT exa_billing.remove_organization_member('org', 'removed');
         SELECT exa_billing.set_organization_member('org', 'demoted', 'member');
         SELECT exa_billing.set_organization_member('org', 'promoted', 'owner');
         SELECT exa_billing.set_organization_member('org', 'new', 'owner');
         UPDATE exa_billing.notification_deliveries SET next_attempt_at = now() - interval '1 minute'
             * position(recipient_user_id IN 'ann,promoted,boss,removed,demoted')",
    );
    // The two that lost their right wait longest; one call goes past them.
    assert_eq!(recipients(&claim(&mut client, "2")), ["boss", "promoted"]);
    assert_eq!(
        deliveries(&mut client),
        [
            "organization org boss sending",
            "organization org demoted skipped",
            "organization org promoted sending",
            "organization org removed skipped",
            "user ann ann pending",
        ]
    );
    let skipped = "SELECT count(*) FROM exa_billing.notification_deliveries
                   WHERE status = 'skipped' AND attempt_count = 0 AND finished_at IS NOT NULL
                     AND claim_token IS NULL AND last_error LIKE '%may not hear%'";
    assert_eq!(one::<i64>(&mut client, skipped, &[]), 2);
    // Rights that come back later change nothing; those that go while it is being sent do.
    run_sql(
        &mut client,
        "SELECT exa_billing.set_organization_member('org', 'removed', 'owner');
         SELECT exa_billing.remove_organization_member('org', 'boss');
         UPDATE exa_billing.notification_deliveries SET next_attempt_at = now() WHERE status = 'sending'",
    );
    assert_eq!(recipients(&claim(&mut client, "10")), ["ann", "promoted"]);
    let boss = "SELECT status || ' ' || attempt_count FROM exa_billing.notification_deliveries
                WHERE recipient_user_id = 'boss'";
    assert_eq!(one::<String>(&mut client, boss, &[]), "skipped 1");
}

#[test]
fn many_that_are_ended_leave_room_for_those_that_are_not() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    // 500 that were given to mailers five times, and 500 whose recipients are gone.
    run_sql(
        &mut client,
        "INSERT INTO exa_billing.notification_deliveries
             (delivery_id, event_id, owner_kind, owner_id, recipient_user_id, event_type, payload,
              status, attempt_count, next_attempt_at, claim_token, leased_until, occurred_at, created_at)
         SELECT gen_random_uuid(), gen_random_uuid(), 'organization', 'org', 'gone', 'low_balance', '{}',
                CASE WHEN n > 500 THEN 'sending' ELSE 'pending' END, CASE WHEN n > 500 THEN 5 ELSE 0 END,
                at, CASE WHEN n > 500 THEN gen_random_uuid() END, CASE WHEN n > 500 THEN at END, at, at
         FROM generate_series(1, 1000) AS n, (SELECT now() - interval '1 hour' AS at) AS earlier",
    );
    assert_eq!(recipients(&claim(&mut client, "1")), ["ann"]);
    let ended = "SELECT string_agg(count::text || ' ' || status, ', ' ORDER BY status)
                 FROM (SELECT status, count(*) FROM exa_billing.notification_deliveries
                       WHERE owner_id = 'org' GROUP BY status) AS counted";
    assert_eq!(one::<String>(&mut client, ended, &[]), "500 dead, 500 skipped");
}

#[test]
fn a_claim_that_is_rolled_back_was_no_attempt() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    let mut open = client.transaction().unwrap();
    let lost = claim_one(&mut open, "5 minutes");
    open.rollback().unwrap();
    let claimed = claim_one(&mut client, "5 minutes");
    assert_eq!((claimed.delivery, claimed.attempt), (lost.delivery, 1));
    assert!(!complete(&mut client, &lost));
}

#[test]
fn an_old_snapshot_claims_nothing_that_another_session_has_claimed() {
    let db = served_books();
    let (mut client, mut other) = (db.client(), db.client());
    low(&mut client, "user", "ann");
    let level = IsolationLevel::RepeatableRead;
    let mut old = other.build_transaction().isolation_level(level).start().unwrap();
    run_sql(&mut old, "SELECT count(*) FROM exa_billing.accounts");
    let claimed = claim_one(&mut client, "5 minutes");
    assert_eq!(sqlstate(old.query("SELECT exa_billing.claim_notifications(5)", &[])), "40001");
    old.rollback().unwrap();
    assert_eq!(claim(&mut other, "5"), []);
    assert!(complete(&mut other, &claimed));
}

/// Nearly all rows are finished ones, and plans may be made while there are none at all.
#[test]
fn claims_planned_on_an_empty_outbox_go_by_index_when_it_is_full() {
    let db = served_books();
    let (mut client, mut other) = (db.client(), db.client());
    run_sql(&mut client, "VACUUM ANALYZE exa_billing.notification_deliveries");
    let none = Uuid::nil();
    let work = |client: &mut Client| {
        let claimed = claim(client, "1, '1 microsecond'");
        for claimed in &claimed {
            fail(client, claimed, None);
            complete(client, claimed);
        }
        let _ = client.query("SELECT exa_billing.delete_old_events()", &[]).unwrap();
        claimed.len()
    };
    for _ in 0..7 {
        assert_eq!(work(&mut client), 0);
        let sql = "SELECT exa_billing.complete_notification($1, $2)";
        assert_eq!(sqlstate(client.query(sql, &[&none, &none])), "P0002");
    }
    run_sql(
        &mut other,
        "INSERT INTO exa_billing.notification_deliveries
             (delivery_id, event_id, owner_kind, owner_id, recipient_user_id, event_type, payload,
              status, attempt_count, next_attempt_at, claim_token, occurred_at, created_at, finished_at)
         SELECT gen_random_uuid(), gen_random_uuid(), 'user', 'u', 'u', 'low_balance', '{}',
                'sent', 1, at, gen_random_uuid(), at, at, at
         FROM generate_series(1, 50000) AS n, (SELECT now() - interval '1 day' AS at) AS earlier",
    );
    low(&mut other, "user", "ann");
    let scans = "SELECT seq_scan, idx_tup_fetch FROM pg_stat_user_tables
                 WHERE relid = 'exa_billing.notification_deliveries'::regclass";
    let look = |client: &mut Client| {
        run_sql(client, "SELECT pg_stat_force_next_flush()");
        let row = client.query_one(scans, &[]).unwrap();
        (row.get::<_, i64>(0), row.get::<_, i64>(1))
    };
    look(&mut other);
    let before = look(&mut client);
    assert_eq!(work(&mut client), 1);
    let after = look(&mut client);
    assert_eq!(after.0, before.0, "no sequential scan");
    assert!(after.1 - before.1 < 50, "few rows were looked at: {before:?}, {after:?}");
}
