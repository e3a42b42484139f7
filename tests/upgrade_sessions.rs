//! Others go on charging while setup() migrates: they wait for it, or it for them, and nobody fails.

mod books_common;
mod common;
mod sessions;
mod upgrade_common;

use books_common::{assert_no_violations, fill, texts};
use common::{Database, Server, one, run_sql, wait_until};
use postgres::Client;
use sessions::{IMPATIENT, beside, pid, post_all, wait_for_lock_of};
use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;
use upgrade_common::made_up;

const SETUP: &str = "SELECT exa_billing.setup()";
const CHARGE: &str =
    "SELECT charged_microdollars FROM exa_billing.record_exa_usage('user-1', '/search', 777)";
const NEWEST: i32 = 3;

/// Filled books of an older version under the newest functions.
fn books(storage: usize) -> Database {
    let db = made_up(storage).books(&Server::shared());
    let mut client = db.client();
    run_sql(&mut client, "ALTER EXTENSION exa_billing UPDATE");
    fill(&mut client);
    db
}

fn charge(client: &mut Client) {
    assert_eq!(one::<i64>(client, CHARGE, &[]), 777);
}

fn charges(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM exa_billing.exa_usage_log WHERE cost_microdollars = 777";
    one(client, sql, &[])
}

/// A session that calls setup(), and its process.
fn setup_in_a_thread(db: &Database) -> (i32, thread::JoinHandle<i32>) {
    let mut client = db.client_with(IMPATIENT);
    let pid = pid(&mut client);
    (pid, thread::spawn(move || one::<i32>(&mut client, SETUP, &[])))
}

#[test]
fn a_charge_waits_for_a_migration_and_reading_does_not() {
    let db = books(1);
    let (mut gate, mut reader) = (db.client(), db.client());
    let mut charger = db.client_with(IMPATIENT);
    // The migration stops in its middle for as long as the test holds a lock.
    run_sql(
        &mut gate,
        "CREATE FUNCTION public.stop() RETURNS event_trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                        WHERE object_identity = 'exa_billing.books_proof') THEN
                 PERFORM pg_advisory_xact_lock(5, 5);
             END IF;
         END $$;
         CREATE EVENT TRIGGER stop ON ddl_command_end WHEN tag IN ('CREATE TABLE')
             EXECUTE FUNCTION public.stop();
         SELECT pg_advisory_lock(5, 5)",
    );
    let (_, setup) = setup_in_a_thread(&db);
    wait_until("the migration is in its middle", || {
        let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 5
                       AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        one::<i64>(&mut reader, waiting, &[]) == 1
    });
    let charging = pid(&mut charger);
    let charged = thread::spawn(move || charge(&mut charger));
    wait_for_lock_of(&mut reader, charging);
    let allowed = "SELECT allowed FROM exa_billing.check_exa_usage('user-1')";
    assert!(one::<bool>(&mut reader, allowed, &[]));
    let balance = "SELECT balance_microdollars FROM exa_billing.account_balance('user', 'user-1')";
    let before: i64 = one(&mut reader, balance, &[]);
    assert!(
        one::<i64>(
            &mut reader,
            "SELECT sum(microdollars_used)::bigint FROM exa_billing.accounts",
            &[]
        ) > 0
    );

    run_sql(&mut gate, "SELECT pg_advisory_unlock(5, 5)");
    charged.join().expect("the charge");
    assert_eq!(setup.join().expect("setup"), NEWEST);
    assert_eq!(one::<i64>(&mut reader, balance, &[]), before - 777);
    assert_no_violations(&mut reader);
}

#[test]
fn everybody_charges_on_beside_a_migration() {
    for storage in [1, 2] {
        let db = books(storage);
        let count = AtomicI64::new(0);
        let charge_once = |client: &mut Client| {
            charge(client);
            count.fetch_add(1, Ordering::Relaxed);
        };
        // Reads first, so that it holds locks when it comes to write.
        let read_and_charge = |client: &mut Client| {
            run_sql(client, "BEGIN; SELECT * FROM exa_billing.account_balances");
            charge(client);
            run_sql(client, "SELECT * FROM exa_billing.spend_hourly; COMMIT");
            count.fetch_add(1, Ordering::Relaxed);
        };
        let post = |client: &mut Client| {
            let _: i64 = one(client, "SELECT exa_billing.post_spend(20)", &[]);
        };
        let grant = |client: &mut Client| {
            let grant =
                "SELECT exa_billing.grant_credit('user', 'user-' || (random() * 1e6)::int, 5)";
            run_sql(client, grant);
        };
        let maintain = |client: &mut Client| {
            run_sql(client, "SELECT * FROM exa_billing.maintain_partitions(14)");
        };
        let mut client = db.client();
        let reached = |more: i64| {
            let goal = count.load(Ordering::Relaxed) + more;
            wait_until("some charges", || count.load(Ordering::Relaxed) >= goal);
        };
        beside(&db, &[&charge_once, &read_and_charge, &post, &grant, &maintain], || {
            reached(20);
            assert_eq!(one::<i32>(&mut client, SETUP, &[]), NEWEST);
            reached(20);
        });
        assert_eq!(charges(&mut client), count.load(Ordering::Relaxed));
        post_all(&mut client);
        assert_no_violations(&mut client);
    }
}

/// The transaction holds a lock that the migration wants, and then wants one that the migration may
/// have: one of the two would have to fail if the migration waited with what it has.
#[test]
fn whoever_has_read_charges_on_while_a_migration_waits_for_them() {
    let db = books(1);
    let (mut reader, mut watcher) = (db.client_with(IMPATIENT), db.client());
    run_sql(&mut reader, "BEGIN; SELECT * FROM exa_billing.account_balances");
    let (setting_up, setup) = setup_in_a_thread(&db);
    for _ in 0..3 {
        wait_for_lock_of(&mut watcher, setting_up);
        charge(&mut reader);
    }
    assert!(!setup.is_finished());
    run_sql(&mut reader, "COMMIT");
    assert_eq!(setup.join().expect("setup"), NEWEST);
    assert_eq!(charges(&mut watcher), 3);
    assert_no_violations(&mut watcher);
}

/// Transactions that lock tables one after the other, in any order, leave no moment in which nobody
/// holds some and wants more: they are let out by a gate that each has come in by.
#[test]
fn transactions_without_a_pause_do_not_starve_a_migration() {
    let db = books(1);
    let count = AtomicI64::new(0);
    let charge_and_grant = |client: &mut Client| {
        let transaction = "BEGIN;
             SELECT exa_billing.record_exa_usage('user-' || pg_backend_pid(), '/search', 777, 'org-1');
             SELECT exa_billing.grant_credit('user', 'user-' || pg_backend_pid(), 5);
             SELECT count(*) FROM exa_billing.account_balances;
             SELECT exa_billing.record_exa_usage('user-' || pg_backend_pid(), '/search', 778);
             COMMIT";
        run_sql(client, transaction);
        count.fetch_add(1, Ordering::Relaxed);
    };
    let all: [&(dyn Fn(&mut Client) + Sync); 8] = [&charge_and_grant; 8];
    let mut client = db.client();
    let reached = |more: i64| {
        let goal = count.load(Ordering::Relaxed) + more;
        wait_until("some charges", || count.load(Ordering::Relaxed) >= goal);
    };
    beside(&db, &all, || {
        reached(20);
        assert_eq!(one::<i32>(&mut client, SETUP, &[]), NEWEST);
        reached(20);
    });
    assert_eq!(charges(&mut client), count.load(Ordering::Relaxed));
    post_all(&mut client);
    assert_no_violations(&mut client);
}

/// Whoever writes comes in by the gate, and there a migration waits until nobody is left.
#[test]
fn a_migration_waits_at_the_gate_for_everybody_who_writes() {
    let db = books(2);
    let (mut writer, mut watcher) = (db.client(), db.client());
    for writes in [
        CHARGE,
        "SELECT exa_billing.grant_credit('user', 'user-1', 5)",
        "SELECT exa_billing.record_spend('user', 'user-1', 5, 'variable', 'shop', 'thing')",
        "SELECT exa_billing.post_spend(1)",
        "SELECT exa_billing.set_organization_member('org-1', 'user-1', 'owner')",
        "SELECT exa_billing.recompute_user_balances('user-1')",
    ] {
        run_sql(&mut writer, &format!("BEGIN; {writes}"));
        let (setting_up, setup) = setup_in_a_thread(&db);
        let waits = format!(
            "SELECT coalesce(bool_or(relation = 'exa_billing.storage_migrations'::regclass), false)
             FROM pg_locks WHERE NOT granted AND locktype = 'relation' AND pid = {setting_up}"
        );
        wait_until("the migration waits", || one::<bool>(&mut watcher, &waits, &[]));
        run_sql(&mut watcher, &format!("SELECT pg_cancel_backend({setting_up})"));
        assert!(setup.join().is_err(), "{writes}");
        run_sql(&mut writer, "ROLLBACK");
    }
}

#[test]
fn an_open_charge_holds_up_a_migration_and_no_other_charge() {
    let db = books(2);
    let (mut open, mut other) = (db.client(), db.client_with(IMPATIENT));
    run_sql(&mut open, "BEGIN");
    charge(&mut open);
    let (setting_up, setup) = setup_in_a_thread(&db);
    for _ in 0..3 {
        wait_for_lock_of(&mut other, setting_up);
        charge(&mut other);
    }
    assert!(!setup.is_finished());
    run_sql(&mut open, "COMMIT");
    assert_eq!(setup.join().expect("setup"), NEWEST);
    assert_eq!(charges(&mut other), 4);
    assert_no_violations(&mut other);
}

#[test]
fn two_sessions_migrate_once() {
    let db = books(1);
    let threads = [setup_in_a_thread(&db), setup_in_a_thread(&db)];
    for (_, setup) in threads {
        assert_eq!(setup.join().expect("setup"), NEWEST);
    }
    let versions = texts(
        &mut db.client(),
        "SELECT version || ' ' || library_version FROM exa_billing.storage_migrations ORDER BY version",
    );
    let now = env!("CARGO_PKG_VERSION");
    assert_eq!(versions, ["1 0.0.9".to_owned(), format!("2 {now}"), format!("3 {now}")]);
    assert_no_violations(&mut db.client());
}

/// Where nothing is to be migrated nobody is held off, and nobody is waited for.
#[test]
fn finished_books_are_not_locked() {
    let db = books(2);
    let (mut open, mut client) = (db.client(), db.client());
    run_sql(&mut client, SETUP);
    run_sql(&mut open, "BEGIN");
    charge(&mut open);
    run_sql(&mut client, &format!("SET lock_timeout = '1s'; BEGIN; {SETUP}"));
    let locked = texts(
        &mut client,
        "SELECT relation::regclass || ' ' || mode FROM pg_locks
         WHERE pid = pg_backend_pid() AND locktype = 'relation'
           AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')
           AND relation IN (SELECT oid FROM pg_class WHERE relnamespace = 'exa_billing'::regnamespace)",
    );
    assert_eq!(locked, [""; 0]);
    run_sql(&mut client, "COMMIT");
    run_sql(&mut open, "COMMIT");
}
