//! The first calls in a database that has nothing but the extension, by many sessions at once;
//! and `setup()` in the middle of everything.

mod common;
mod sessions;

use std::thread;

use common::{Server, one, run_sql, wait_until};
use postgres::Client;
use sessions::*;

fn numbers(client: &mut Client, sql: &str) -> Vec<i64> {
    let row = client.query_one(sql, &[]).unwrap();
    (0..row.len()).map(|column| row.get(column)).collect()
}

#[test]
fn sixteen_first_calls_make_one_set_of_books_and_lose_no_charge() {
    let db = Server::shared().database();
    in_sessions(&db, 16, IMPATIENT, |session, client| {
        let call = match session % 4 {
            0 => "record_exa_usage($1, '/search', 7, idempotency_key => 'k')",
            1 => "record_spend('user', $1, 7, 'variable', 's', 'p', idempotency_key => 'k')",
            2 => "grant_credit('user', $1, 7, idempotency_key => 'k')",
            _ => {
                "record_exa_usage_batch(jsonb_build_array(jsonb_build_object(
                     'user_id', $1::text, 'path', '/search', 'cost_microdollars', 7,
                     'idempotency_key', 'k')))"
            }
        };
        let sql = format!("SELECT exa_billing.{call}");
        // Those that come second find the books while they are still being made up.
        for number in 0..3 {
            client.execute(&sql, &[&format!("user-{session}-{number}")]).unwrap();
        }
    });
    let mut client = db.client();
    assert_eq!(
        numbers(
            &mut client,
            "SELECT (SELECT count(*) FROM exa_billing.storage_migrations),
                    (SELECT count(*) FROM exa_billing.exa_usage_log),
                    (SELECT count(*) FROM exa_billing.spend_log),
                    (SELECT count(*) FROM exa_billing.credit_transactions),
                    (SELECT count(*) FROM exa_billing.unposted_spend),
                    (SELECT count(*) FROM exa_billing.idempotency_keys),
                    (SELECT sum(used_microdollars)::bigint FROM exa_billing.exa_monthly_allowance),
                    (SELECT sum(balance_microdollars)::bigint FROM exa_billing.account_balances)"
        ),
        [3, 24, 12, 12, 36, 48, 24 * 7, 0]
    );
    let versions = "SELECT count(*), max(version)::bigint, exa_billing.setup()::bigint
                    FROM exa_billing.storage_migrations";
    let versions = numbers(&mut client, versions);
    assert_eq!((versions[0], versions[1]), (versions[2], versions[2]));
    verify(&mut client);
    post_all(&mut client);
    verify(&mut client);
}

#[test]
fn a_first_call_that_is_rolled_back_leaves_the_making_to_the_next() {
    let db = Server::shared().database();
    let (mut first, mut second, mut watcher) = (db.client(), db.client(), db.client());
    let charge = "SELECT exa_billing.record_exa_usage('user-1', '/search', 7)";
    run_sql(&mut first, &format!("BEGIN; {charge}"));
    let waiting = pid(&mut second);
    thread::scope(|scope| {
        let second = scope.spawn(|| run_sql(&mut second, charge));
        wait_for_lock_of(&mut watcher, waiting);
        run_sql(&mut first, "ROLLBACK");
        second.join().unwrap();
    });
    let counts = "SELECT count(*), (SELECT count(*) FROM exa_billing.storage_migrations)
                  FROM exa_billing.exa_usage_log";
    assert_eq!(numbers(&mut watcher, counts), [1, 3]);
    verify(&mut watcher);
}

#[test]
fn a_first_call_with_an_old_snapshot_is_right_after_a_retry() {
    let db = Server::shared().database();
    let (mut first, mut second) = (db.client(), db.client());
    run_sql(&mut second, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    let charge = "SELECT charged_microdollars + free_microdollars
                  FROM exa_billing.record_exa_usage('user-1', '/search', 7)";
    assert_eq!(one::<i64>(&mut first, charge, &[]), 7);
    // Whether it can see the books that are new to it or must be retried, it counts once.
    if second.query_one(charge, &[]).is_ok() {
        run_sql(&mut second, "COMMIT");
    } else {
        run_sql(&mut second, "ROLLBACK");
        assert_eq!(one::<i64>(&mut second, charge, &[]), 7);
    }
    let counts = "SELECT count(*), sum(cost_microdollars)::bigint FROM exa_billing.exa_usage_log";
    assert_eq!(numbers(&mut first, counts), [2, 14]);
    verify(&mut first);
}

// A transaction that has granted and is about to charge holds what a careless setup() waits for,
// and then waits for what that has taken already.
#[test]
fn setup_beside_an_open_transaction_disturbs_nobody() {
    let db = books();
    let (mut open, mut other) = (db.client_with(IMPATIENT), db.client_with(IMPATIENT));
    run_sql(&mut open, "BEGIN; SELECT exa_billing.grant_credit('user', 'user-1', 7)");
    thread::scope(|scope| {
        let setup = scope.spawn(|| one::<i32>(&mut other, "SELECT exa_billing.setup()", &[]));
        // It may have finished by now, be at work, or wait for the open transaction.
        let mut watcher = db.client();
        let waits = "SELECT EXISTS (
            SELECT FROM pg_stat_activity
            WHERE datname = current_database() AND wait_event_type = 'Lock')";
        wait_until("setup() is done or waits", || {
            setup.is_finished() || one(&mut watcher, waits, &[])
        });
        run_sql(&mut open, "SELECT exa_billing.record_exa_usage('user-1', '/search', 7)");
        run_sql(&mut open, "COMMIT");
        assert_eq!(setup.join().unwrap(), 3);
    });
    let counts = "SELECT (SELECT count(*) FROM exa_billing.exa_usage_log),
                         (SELECT count(*) FROM exa_billing.credit_transactions)";
    assert_eq!(numbers(&mut other, counts), [1, 1]);
    verify(&mut other);
}

#[test]
fn setup_again_and_again_beside_charges_fails_none() {
    let db = books();
    in_sessions(&db, 6, IMPATIENT, |session, client| {
        for number in 0..25 {
            if session == 0 {
                run_sql(client, "SELECT exa_billing.setup()");
                continue;
            }
            let key = format!("{session}/{number}");
            let charge = "SELECT exa_billing.record_exa_usage('user-1', '/search', 7, idempotency_key => $1)";
            client.execute(charge, &[&key]).unwrap();
            let spend = "SELECT exa_billing.record_spend('user', 'user-1', 7, 'variable', 's', 'p', idempotency_key => $1)";
            client.execute(spend, &[&key]).unwrap();
            run_sql(client, "SELECT exa_billing.post_spend()");
        }
    });
    let mut client = db.client();
    post_all(&mut client);
    let used = "SELECT microdollars_used FROM exa_billing.account_balance('user', 'user-1')";
    assert_eq!(one::<i64>(&mut client, used, &[]), 5 * 25 * 7);
    verify(&mut client);
}
