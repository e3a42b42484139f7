//! Purchases out of credits (`record_spend` with `require_balance`) by several sessions at once:
//! nobody buys with credit that somebody else has spent already.

mod common;
mod sessions;

use std::thread;

use common::{one, run_sql, sqlstate};
use postgres::Client;
use sessions::*;

const BUY: &str = "SELECT charged_microdollars FROM exa_billing.record_spend(
    'user', 'buyer', 1000, 'scheduled', 'coding_plan', 'plan', require_balance => true)";

fn balance(client: &mut Client) -> i64 {
    let sql = "SELECT balance_microdollars FROM exa_billing.account_balance('user', 'buyer')";
    one(client, sql, &[])
}

fn grant(client: &mut Client, amount: i64) {
    let sql = "SELECT exa_billing.grant_credit('user', 'buyer', $1) IS NOT NULL";
    assert!(one::<bool>(client, sql, &[&amount]));
}

/// The first purchase is made in an open transaction that ends with `end` when the second one is
/// waiting for it. Returns the second's result.
fn second_of_two(end: &str) -> Result<i64, String> {
    let db = books();
    let (mut first, mut second, mut watcher) = (db.client(), db.client(), db.client());
    grant(&mut first, 1_999);
    run_sql(&mut first, "BEGIN");
    assert_eq!(one::<i64>(&mut first, BUY, &[]), 1_000);
    let waiting = pid(&mut second);
    let result = thread::scope(|scope| {
        let second = scope.spawn(|| match second.query_one(BUY, &[]) {
            Ok(row) => Ok(row.get(0)),
            Err(error) => Err(sqlstate(Err::<(), _>(error))),
        });
        wait_for_lock_of(&mut watcher, waiting);
        run_sql(&mut first, end);
        second.join().unwrap()
    });
    assert_eq!(balance(&mut watcher), 999);
    post_all(&mut watcher);
    assert_eq!(balance(&mut watcher), 999);
    assert_eq!(one::<i64>(&mut watcher, "SELECT count(*) FROM exa_billing.spend_log", &[]), 1);
    verify(&mut watcher);
    result
}

#[test]
fn of_two_purchases_with_credit_for_one_the_second_is_refused() {
    assert_eq!(second_of_two("COMMIT"), Err("53400".to_owned()));
}

#[test]
fn a_purchase_that_is_taken_back_leaves_its_credit_to_the_next() {
    assert_eq!(second_of_two("ROLLBACK"), Ok(1_000));
}

#[test]
fn sixteen_purchases_with_credit_for_five_are_five() {
    let db = books();
    let mut client = db.client();
    grant(&mut client, 5_500);
    let passed = posting_beside(&db, || {
        in_sessions(&db, 16, IMPATIENT, |_, client| match client.query_one(BUY, &[]) {
            Ok(_) => true,
            Err(error) => {
                let error = error.as_db_error().expect("the server's answer");
                assert_eq!(error.code().code(), "53400");
                let detail = error.detail().unwrap_or_default();
                assert!(detail.ends_with(" is 500 microdollars, the amount is 1000."), "{detail}");
                false
            }
        })
    });
    assert_eq!(passed.into_iter().filter(|passed| *passed).count(), 5);
    assert_eq!(balance(&mut client), 500);
    verify(&mut client);
}

/// A second purchase whose snapshot was taken before the first one was committed.
fn with_an_old_snapshot(isolation: &str) {
    let db = books();
    let (mut first, mut second) = (db.client(), db.client());
    grant(&mut first, 1_999);
    for client in [&mut first, &mut second] {
        run_sql(client, &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1"));
    }
    assert_eq!(balance(&mut second), 1_999);
    assert_eq!(one::<i64>(&mut first, BUY, &[]), 1_000);
    run_sql(&mut first, "COMMIT");

    // It cannot know of the first one, so it must not decide.
    assert_eq!(sqlstate(second.query_one(BUY, &[])), "40001");
    run_sql(&mut second, "ROLLBACK");
    assert_eq!(sqlstate(second.query_one(BUY, &[])), "53400");
    assert_eq!(balance(&mut second), 999);
    verify(&mut second);
}

#[test]
fn a_purchase_at_repeatable_read_does_not_spend_what_is_spent() {
    with_an_old_snapshot("REPEATABLE READ");
}

#[test]
fn a_purchase_at_serializable_does_not_spend_what_is_spent() {
    with_an_old_snapshot("SERIALIZABLE");
}

// The first purchase may have been posted meanwhile, which writes the account's row.
#[test]
fn a_purchase_at_repeatable_read_sees_no_credit_that_a_posted_one_has_spent() {
    let db = books();
    let (mut first, mut second) = (db.client(), db.client());
    grant(&mut first, 1_999);
    run_sql(&mut second, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(balance(&mut second), 1_999);
    assert_eq!(one::<i64>(&mut first, BUY, &[]), 1_000);
    post_all(&mut first);
    assert_eq!(sqlstate(second.query_one(BUY, &[])), "40001");
    run_sql(&mut second, "ROLLBACK");
    assert_eq!(balance(&mut second), 999);
    verify(&mut second);
}

#[test]
fn a_purchase_counts_every_charge_that_is_committed() {
    let db = books();
    let (mut charger, mut buyer) = (db.client(), db.client());
    grant(&mut charger, 1_999);
    let charge = "SELECT exa_billing.record_spend('user', 'buyer', 1000, 'variable', 's', 'p')";
    run_sql(&mut charger, &format!("BEGIN; {charge}"));
    assert_eq!(balance(&mut buyer), 1_999);
    run_sql(&mut charger, "COMMIT");
    assert_eq!(sqlstate(buyer.query_one(BUY, &[])), "53400");
    assert_eq!(balance(&mut buyer), 999);
    verify(&mut buyer);
}
