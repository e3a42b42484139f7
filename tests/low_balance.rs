//! Low balances: told once by whatever finds them, told again only after they were gone, and never
//! in the way of a charge.

mod common;
mod notifications_common;
mod sessions;

use common::{Database, one, run_sql};
use notifications_common::*;
use postgres::Client;
use sessions::{IMPATIENT, beside, books, in_sessions, posting_beside, verify};

/// Whatever waits for a lock that is never given up fails instead.
const NOT_PATIENT: &str = "-c statement_timeout=20s";

fn charge(client: &mut Client, kind: &str, id: &str, amount: i64) {
    let sql = "SELECT charged_microdollars FROM exa_billing.record_spend($1, $2, $3, 'variable', 'kiloclaw', 'p')";
    assert_eq!(one::<i64>(client, sql, &[&kind, &id, &amount]), amount);
}

fn post(client: &mut Client) -> i64 {
    one(client, "SELECT exa_billing.post_spend()", &[])
}

fn charge_and_post(client: &mut Client, id: &str, amount: i64) {
    charge(client, "user", id, amount);
    assert_eq!(post(client), 1);
}

fn adjust(client: &mut Client, id: &str, amount: i64) {
    run_sql(client, &format!("SELECT exa_billing.adjust_credit('user', '{id}', {amount}, 'why')"));
}

fn grant(client: &mut Client, id: &str, amount: i64) {
    run_sql(client, &format!("SELECT exa_billing.grant_credit('user', '{id}', {amount})"));
}

fn is_low(client: &mut Client, id: &str) -> bool {
    let sql = "SELECT low_balance_since IS NOT NULL FROM exa_billing.accounts WHERE owner_id = $1";
    one(client, sql, &[&id])
}

fn waiting(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM exa_billing.unposted_spend", &[])
}

#[test]
fn posting_tells_once_of_a_balance_below_the_minimum_and_not_of_one_at_it() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 5_000, 1_000);
    charge_and_post(&mut client, "ann", 4_000);
    assert_eq!(low_balances(&mut client), [""; 0]);
    assert!(!is_low(&mut client, "ann"));
    let clock = "SELECT clock_timestamp()";
    let before: chrono::DateTime<chrono::Utc> = one(&mut client, clock, &[]);
    charge_and_post(&mut client, "ann", 1);
    assert_eq!(low_balances(&mut client), ["user ann 999 1000"]);
    assert_eq!(deliveries(&mut client), ["user ann ann pending"]);
    let same = "SELECT count(*) FROM exa_billing.cost_insight_events AS e
                JOIN exa_billing.notification_deliveries AS d USING (event_id, owner_kind, owner_id, event_type)
                JOIN exa_billing.accounts AS a USING (owner_kind, owner_id)
                WHERE e.snapshot = d.payload AND e.occurred_at = d.occurred_at
                  AND a.low_balance_since = e.occurred_at AND d.next_attempt_at <= clock_timestamp()
                  AND e.occurred_at BETWEEN $1 AND clock_timestamp()";
    assert_eq!(one::<i64>(&mut client, same, &[&before]), 1);
    // It goes on falling, below zero too.
    for amount in [1, 998, 5_000] {
        charge_and_post(&mut client, "ann", amount);
    }
    assert_eq!(low_balances(&mut client), ["user ann 999 1000"]);
    verify(&mut client);
}

#[test]
fn an_owner_without_a_minimum_is_told_nothing() {
    let db = books();
    let mut client = db.client();
    grant(&mut client, "ann", 10);
    charge_and_post(&mut client, "ann", 5_000);
    adjust(&mut client, "ann", -7);
    assert_eq!(low_balances(&mut client), [""; 0]);
    assert!(!is_low(&mut client, "ann"));
}

#[test]
fn it_is_told_again_after_the_balance_has_risen() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 5_000, 1_000);
    charge_and_post(&mut client, "ann", 4_100);
    grant(&mut client, "ann", 99); // 999: not enough to be armed again
    charge_and_post(&mut client, "ann", 1);
    assert_eq!(low_balances(&mut client), ["user ann 900 1000"]);
    assert!(is_low(&mut client, "ann"));

    grant(&mut client, "ann", 2); // exactly 1000
    assert!(!is_low(&mut client, "ann"));
    charge_and_post(&mut client, "ann", 10);
    assert_eq!(low_balances(&mut client), ["user ann 900 1000", "user ann 990 1000"]);

    adjust(&mut client, "ann", 10);
    assert!(!is_low(&mut client, "ann"));
    adjust(&mut client, "ann", -20);
    let three = ["user ann 900 1000", "user ann 990 1000", "user ann 980 1000"];
    assert_eq!(low_balances(&mut client), three);
    assert!(is_low(&mut client, "ann"));
    verify(&mut client);
}

#[test]
fn another_minimum_is_another_matter() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 5_000, 1_000);
    charge_and_post(&mut client, "ann", 4_500);
    set_minimum(&mut client, "user", "ann", 400);
    charge_and_post(&mut client, "ann", 50);
    assert_eq!(low_balances(&mut client), ["user ann 500 1000"]);
    set_minimum(&mut client, "user", "ann", 800);
    charge_and_post(&mut client, "ann", 1);
    charge_and_post(&mut client, "ann", 1);
    assert_eq!(low_balances(&mut client), ["user ann 500 1000", "user ann 449 800"]);
}

#[test]
fn what_is_not_posted_yet_counts() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 5_000, 1_000);
    charge(&mut client, "user", "ann", 4_200);
    adjust(&mut client, "ann", 100);
    assert_eq!(low_balances(&mut client), ["user ann 900 1000"]);
    assert_eq!(post(&mut client), 1);
    assert_eq!(low_balances(&mut client), ["user ann 900 1000"]);
    // One batch that posts a part sees the rest as well.
    grant(&mut client, "ann", 1_000);
    for amount in [400, 300, 300] {
        charge(&mut client, "user", "ann", amount);
    }
    assert_eq!(one::<i64>(&mut client, "SELECT exa_billing.post_spend(1)", &[]), 1);
    assert_eq!(low_balances(&mut client), ["user ann 900 1000", "user ann 900 1000"]);
    assert_eq!(post(&mut client), 2);
    assert_eq!(low_balances(&mut client).len(), 2);
    verify(&mut client);
}

#[test]
fn an_expiration_tells() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 700, 1_000);
    with_minimum(&mut client, "user", "bob", 700, 1_000);
    for id in ["ann", "bob"] {
        run_sql(
            &mut client,
            &format!(
                "SELECT exa_billing.grant_credit('user', '{id}', 5000, now() - interval '1 hour',
                     created_at => now() - interval '2 hours')"
            ),
        );
    }
    assert_eq!(low_balances(&mut client), [""; 0]);
    run_sql(&mut client, "SELECT exa_billing.expire_credits('user', 'ann')");
    assert_eq!(low_balances(&mut client), ["user ann 700 1000"]);
    run_sql(&mut client, "SELECT exa_billing.expire_due_credits()");
    assert_eq!(low_balances(&mut client), ["user ann 700 1000", "user bob 700 1000"]);
    verify(&mut client);
}

#[test]
fn an_imported_balance_arms_anew() {
    let db = books();
    let mut client = db.client();
    run_sql(
        &mut client,
        "INSERT INTO exa_billing.accounts (owner_kind, owner_id, total_microdollars_acquired,
             microdollars_used, minimum_balance_microdollars, low_balance_since, opened_at)
         VALUES ('user', 'ann', 0, 0, 1000, now(), now());
         SELECT exa_billing.import_opening_balance('user', 'ann', 9000, 500, now(), 'k')",
    );
    assert!(!is_low(&mut client, "ann"));
    assert_eq!(post(&mut client), 1);
    assert_eq!(low_balances(&mut client), [""; 0]);
    charge_and_post(&mut client, "ann", 8_000);
    assert_eq!(low_balances(&mut client), ["user ann 500 1000"]);
}

#[test]
fn a_recompute_that_changes_the_balance_tells() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 5_000, 1_000);
    with_minimum(&mut client, "user", "bob", 5_000, 1_000);
    for id in ["ann", "bob"] {
        charge_and_post(&mut client, id, 4_500);
    }
    assert_eq!(low_balances(&mut client), ["user ann 500 1000", "user bob 500 1000"]);
    // The books forgot most of what was used, and nobody is low any more.
    run_sql(
        &mut client,
        "UPDATE exa_billing.accounts SET microdollars_used = 0, low_balance_since = NULL",
    );
    run_sql(
        &mut client,
        "SELECT exa_billing.recompute_user_balances('ann', keep_balance => false)",
    );
    run_sql(&mut client, "SELECT exa_billing.recompute_user_balances('bob', keep_balance => true)");
    // The visible balance of bob's stays, and so there is nothing to tell of it.
    assert_eq!(
        low_balances(&mut client),
        ["user ann 500 1000", "user ann 500 1000", "user bob 500 1000"]
    );
    assert!(is_low(&mut client, "ann") && !is_low(&mut client, "bob"));
    verify(&mut client);
}

#[test]
fn an_organizations_owners_and_billing_managers_are_told_and_no_plain_member() {
    let db = books();
    let mut client = db.client();
    for (user, role) in [("boss", "owner"), ("money", "billing_manager"), ("plain", "member")] {
        let sql = format!("SELECT exa_billing.set_organization_member('org', '{user}', '{role}')");
        run_sql(&mut client, &sql);
    }
    run_sql(&mut client, "SELECT exa_billing.set_organization_member('else', 'other', 'owner')");
    low(&mut client, "organization", "org");
    low(&mut client, "organization", "nobodys");
    low(&mut client, "user", "org");
    assert_eq!(
        deliveries(&mut client),
        ["organization org boss pending", "organization org money pending", "user org org pending"]
    );
    assert_eq!(low_balances(&mut client).len(), 3);
}

#[test]
fn what_is_rolled_back_is_not_told() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 5_000, 1_000);
    let mut open = client.transaction().unwrap();
    run_sql(
        &mut open,
        "SELECT exa_billing.record_spend('user', 'ann', 4500, 'variable', 'kiloclaw', 'p');
         SELECT exa_billing.post_spend()",
    );
    assert_eq!(low_balances(&mut open), ["user ann 500 1000"]);
    open.rollback().unwrap();
    assert_eq!(low_balances(&mut client), [""; 0]);
    assert_eq!(deliveries(&mut client), [""; 0]);
    charge_and_post(&mut client, "ann", 4_700);
    assert_eq!(low_balances(&mut client), ["user ann 300 1000"]);
}

#[test]
fn several_who_post_tell_once_for_all() {
    const OWNERS: i32 = 6;
    const SESSIONS: usize = 4;
    let db = books();
    let mut client = db.client();
    for n in 0..OWNERS {
        with_minimum(&mut client, "user", &format!("user-{n}"), 5_000, 2_000);
    }
    let post = |client: &mut Client| {
        let _: i64 = one(client, "SELECT exa_billing.post_spend(7)", &[]);
    };
    posting_beside(&db, || {
        beside(&db, &[&post, &post], || {
            in_sessions(&db, SESSIONS, IMPATIENT, |_, client| {
                for n in 0..300 {
                    charge(client, "user", &format!("user-{}", n % OWNERS), 10);
                }
            })
        })
    });
    assert_eq!(waiting(&mut client), 0);
    // Each was charged 2,000, beside each other down to 3,000; the next ones cross the minimum.
    assert_eq!(low_balances(&mut client), [""; 0]);
    posting_beside(&db, || {
        beside(&db, &[&post, &post], || {
            in_sessions(&db, SESSIONS, IMPATIENT, |_, client| {
                for n in 0..300 {
                    charge(client, "user", &format!("user-{}", n % OWNERS), 10);
                }
            })
        })
    });
    let told = "SELECT count(*), count(DISTINCT owner_id), bool_and((snapshot ->> 'balance_microdollars')::bigint < 2000)
                FROM exa_billing.cost_insight_events";
    let row = client.query_one(told, &[]).unwrap();
    let told = (row.get::<_, i64>(0), row.get::<_, i64>(1));
    assert_eq!(told, (i64::from(OWNERS), i64::from(OWNERS)));
    assert!(row.get::<_, bool>(2));
    verify(&mut client);
}

#[test]
fn a_balance_out_of_every_range_is_told_as_text() {
    let db = books();
    let mut client = db.client();
    with_minimum(&mut client, "user", "ann", 5, 1_000);
    run_sql(
        &mut client,
        "UPDATE exa_billing.accounts SET microdollars_used = 9223372036854775807,
             total_microdollars_acquired = -9223372036854775000",
    );
    adjust(&mut client, "ann", -5);
    assert_eq!(low_balances(&mut client), ["user ann -18446744073709550812 1000"]);
}

// Never in the way of a charge -------------------------------------------------------------------

#[test]
fn an_event_that_is_refused_stops_no_charge_and_no_event_of_others() {
    for (plant, remove) in [
        (
            "ALTER TABLE exa_billing.cost_insight_events ADD CONSTRAINT planted
                 CHECK (owner_id <> 'bad')",
            "ALTER TABLE exa_billing.cost_insight_events DROP CONSTRAINT planted",
        ),
        (
            "ALTER TABLE exa_billing.notification_deliveries ADD CONSTRAINT planted
                 CHECK (owner_id <> 'bad')",
            "ALTER TABLE exa_billing.notification_deliveries DROP CONSTRAINT planted",
        ),
    ] {
        let db = books();
        let mut client = db.client();
        let ids = ["ann", "bad", "carl", "dora", "eve"];
        for id in ids {
            with_minimum(&mut client, "user", id, 5_000, 1_000);
            charge(&mut client, "user", id, 4_500);
        }
        run_sql(&mut client, plant);
        assert_eq!(post(&mut client), 5, "{plant}");
        let told =
            ["user ann 500 1000", "user carl 500 1000", "user dora 500 1000", "user eve 500 1000"];
        assert_eq!(low_balances(&mut client), told, "{plant}");
        assert_eq!(deliveries(&mut client).len(), 4, "{plant}");
        assert!(!is_low(&mut client, "bad"), "what was not told is not noted");
        adjust(&mut client, "bad", -1);
        charge_and_post(&mut client, "bad", 9);
        assert_eq!(low_balances(&mut client), told, "{plant}");
        let blocked = "SELECT count(*) FROM exa_billing.unposted_spend";
        assert_eq!(one::<i64>(&mut client, blocked, &[]), 0);
        verify(&mut client);

        run_sql(&mut client, remove);
        charge_and_post(&mut client, "bad", 90);
        assert_eq!(low_balances(&mut client)[1], "user bad 400 1000");
        assert_eq!(low_balances(&mut client).len(), 5);
    }
}

/// Charges, posts, adjusts and expires beside a session that has locked a table for good.
fn assert_nobody_waits_for(db: &Database, table: &str) {
    let (mut client, mut holder) = (db.client_with(NOT_PATIENT), db.client());
    let mut held = holder.transaction().unwrap();
    run_sql(&mut held, &format!("LOCK TABLE exa_billing.{table} IN ACCESS EXCLUSIVE MODE"));
    for id in ["ann", "bob"] {
        charge(&mut client, "user", id, 4_500);
    }
    assert_eq!(post(&mut client), 2, "{table}");
    adjust(&mut client, "ann", -1);
    let expired = "SELECT exa_billing.expire_due_credits()";
    assert_eq!(one::<i64>(&mut client, expired, &[]), 1, "{table}");
    assert_eq!(waiting(&mut client), 0, "{table}");
    held.rollback().unwrap();
    assert_eq!(low_balances(&mut client), [""; 0], "{table}");
}

#[test]
fn nobody_waits_for_who_has_locked_the_tables_of_events() {
    for table in ["cost_insight_events", "notification_deliveries", "organization_members"] {
        let db = books();
        let mut client = db.client();
        for id in ["ann", "bob"] {
            with_minimum(&mut client, "user", id, 5_000, 1_000);
        }
        run_sql(
            &mut client,
            "SELECT exa_billing.grant_credit('user', 'bob', 50, now() - interval '1 hour',
                 created_at => now() - interval '2 hours')",
        );
        assert_nobody_waits_for(&db, table);
        // The next who finds it tells.
        charge_and_post(&mut client, "ann", 1);
        charge_and_post(&mut client, "bob", 1);
        assert_eq!(
            low_balances(&mut client),
            ["user ann 498 1000", "user bob 499 1000"],
            "{table}"
        );
        verify(&mut client);
    }
}
