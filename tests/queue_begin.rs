//! Readers of a balance, and posting, begin in the queue where the owner's account says that nothing
//! waits before. Whatever is left behind, and whoever began earlier and ends later, is never passed over.

mod common;
mod sessions;

use common::{Server, one, run_sql};
use postgres::Client;
use sessions::*;

const SPEND: &str = "SELECT exa_billing.record_spend('organization', 'acme', 10, 'variable', 'kiloclaw', 'product')";

fn private_books(name: &str) -> (Server, Client) {
    let server = Server::start(name, &[("max_prepared_transactions", "2")]);
    let mut client = server.client("postgres");
    run_sql(
        &mut client,
        "CREATE EXTENSION exa_billing; SELECT exa_billing.set_free_allowance(0, '2020-01-01')",
    );
    (server, client)
}

fn charge(client: &mut Client, count: i32) {
    run_sql(client, &format!("{SPEND} FROM generate_series(1, {count})"));
}

fn post(client: &mut Client, max_rows: i32) -> i64 {
    one(client, "SELECT exa_billing.post_spend($1)", &[&max_rows])
}

/// What the organization has used, by the two ways there are to ask: from where its account says, and of
/// all rows.
fn used(client: &mut Client) -> i64 {
    let balance =
        "SELECT -(exa_billing.account_balance('organization', 'acme')).balance_microdollars";
    let view = "SELECT microdollars_used::bigint FROM exa_billing.account_balances
                WHERE owner_kind = 'organization' AND owner_id = 'acme'";
    let (balance, view) = (one::<i64>(client, balance, &[]), one::<i64>(client, view, &[]));
    assert_eq!(balance, view);
    balance
}

/// The transaction that the account says rows begin with, and the first that has a row waiting.
fn begins(client: &mut Client) -> (i64, Option<i64>) {
    let row = client
        .query_one(
            "SELECT posted_before::text::bigint,
                    (SELECT min(transaction_id)::text::bigint FROM exa_billing.unposted_spend
                     WHERE owner_kind = 'organization' AND owner_id = 'acme')
             FROM exa_billing.accounts WHERE owner_kind = 'organization' AND owner_id = 'acme'",
            &[],
        )
        .expect("an account");
    (row.get(0), row.get(1))
}

fn assert_none_is_passed_over(client: &mut Client) -> i64 {
    let (begin, first) = begins(client);
    assert!(first.is_none_or(|first| begin <= first), "{begin}, but {first:?} waits");
    verify(client);
    begin
}

#[test]
fn it_moves_on_with_each_posting() {
    // Where nobody else's transactions are running.
    let (_server, mut client) = private_books("queue-moves");
    charge(&mut client, 3);
    assert_eq!(post(&mut client, 100), 3);
    let begin = assert_none_is_passed_over(&mut client);
    for _ in 0..5 {
        charge(&mut client, 1);
    }
    assert_eq!((post(&mut client, 100), used(&mut client)), (5, 80));
    assert!(assert_none_is_passed_over(&mut client) >= begin + 5);
    // Free requests alone move it too.
    run_sql(
        &mut client,
        "SELECT exa_billing.set_free_allowance(1000000, '2020-01-01');
         SELECT exa_billing.set_organization_member('acme', 'ann', 'member');
         SELECT exa_billing.record_exa_usage('ann', '/search', 5, 'acme')",
    );
    let before = begins(&mut client).0;
    assert_eq!(post(&mut client, 100), 1);
    assert!(assert_none_is_passed_over(&mut client) > before);
    assert_eq!(used(&mut client), 80);
}

#[test]
fn who_began_earlier_and_ends_later_is_waited_for() {
    let db = books();
    let (mut early, mut client) = (db.client(), db.client());
    run_sql(&mut early, "BEGIN");
    charge(&mut early, 2);
    for sum in [10, 20] {
        charge(&mut client, 1);
        assert_eq!((post(&mut client, 100), used(&mut client)), (1, sum));
    }
    run_sql(&mut early, "SAVEPOINT s");
    charge(&mut early, 1);
    run_sql(&mut early, "COMMIT");
    assert_eq!(used(&mut client), 50);
    assert_none_is_passed_over(&mut client);
    assert_eq!((post(&mut client, 100), used(&mut client)), (3, 50));
    assert_none_is_passed_over(&mut client);
}

#[test]
fn a_transaction_that_posts_what_it_charged_goes_on_charging() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, "BEGIN");
    for sum in [20, 40] {
        charge(&mut client, 2);
        assert_eq!((post(&mut client, 100), used(&mut client)), (2, sum));
    }
    charge(&mut client, 1);
    run_sql(&mut client, "COMMIT");
    assert_eq!(used(&mut client), 50);
    assert_none_is_passed_over(&mut client);
    assert_eq!(post(&mut client, 100), 1);
    assert_none_is_passed_over(&mut client);
}

#[test]
fn rows_that_a_batch_has_no_room_for_wait() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, 10);
    charge(&mut client, 10);
    for left in [13, 6, 0] {
        assert_eq!(post(&mut client, 7), if left == 0 { 6 } else { 7 });
        assert_eq!(
            one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.unposted_spend", &[]),
            left
        );
        assert_eq!(used(&mut client), 200);
        assert_none_is_passed_over(&mut client);
    }
}

#[test]
fn blocked_rows_wait() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, 2);
    run_sql(&mut client, "UPDATE exa_billing.unposted_spend SET blocked_reason = 'out of range'");
    for sum in [30, 40] {
        charge(&mut client, 1);
        assert_eq!((post(&mut client, 100), used(&mut client)), (1, sum));
        assert_none_is_passed_over(&mut client);
    }
    assert_eq!(one::<i64>(&mut client, "SELECT exa_billing.retry_blocked_spend()", &[]), 2);
    assert_eq!((post(&mut client, 100), used(&mut client)), (2, 40));
    assert_none_is_passed_over(&mut client);
}

#[test]
fn rows_of_a_new_dimension_wait_while_another_transaction_adds_dimensions() {
    let db = books();
    let (mut adding, mut client) = (db.client(), db.client());
    charge(&mut client, 1);
    assert_eq!(post(&mut client, 100), 1);
    let of_new = SPEND.replace("'product'", "'new-product'");
    run_sql(&mut adding, &format!("BEGIN; {of_new}"));
    assert_eq!(post(&mut adding, 100), 1);
    run_sql(&mut client, &of_new);
    charge(&mut client, 1);
    // The account is locked by whoever posts; somebody else's charges bring dimensions too.
    assert_eq!(post(&mut client, 100), 0);
    run_sql(&mut adding, "ROLLBACK");
    assert_eq!(used(&mut client), 30);
    let mut locking = db.client();
    run_sql(&mut locking, "BEGIN");
    let other = SPEND.replace("acme", "other").replace("'product'", "'newer-product'");
    run_sql(&mut locking, &other);
    assert!(post(&mut locking, 1) <= 1);
    post(&mut client, 100);
    assert_eq!(used(&mut client), 30);
    run_sql(&mut locking, "ROLLBACK");
    post_all(&mut client);
    assert_eq!(used(&mut client), 30);
    assert_none_is_passed_over(&mut client);
}

#[test]
fn an_older_snapshot_shows_what_it_showed() {
    let db = books();
    let (mut old, mut client) = (db.client(), db.client());
    charge(&mut client, 5);
    run_sql(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(used(&mut old), 50);
    assert_eq!(post(&mut client, 100), 5);
    // More deleted rows of one owner than are stepped over one by one, and others around it.
    for round in 1..4 {
        charge(&mut client, 50);
        run_sql(
            &mut client,
            "SELECT count(exa_billing.record_spend(kind, id, 1, 'variable', 'kiloclaw', 'product'))
             FROM (VALUES ('organization', 'a'), ('organization', 'zz'), ('user', 'acme')) AS o(kind, id)",
        );
        assert_eq!((post(&mut client, 1000), used(&mut client)), (53, 40 + 510 * round));
        assert_eq!(used(&mut old), 50);
        charge(&mut client, 1);
        run_sql(
            &mut client,
            "SELECT exa_billing.record_spend('user', 'zoe', 1, 'variable', 'kiloclaw', 'p')",
        );
        assert_eq!((post(&mut client, 1000), post(&mut client, 1000)), (2, 0));
    }
    assert_eq!(used(&mut old), 50);
    run_sql(&mut old, "COMMIT");
    assert_none_is_passed_over(&mut client);
}

#[test]
fn what_another_server_or_table_says_counts_nothing() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, 2);
    assert_eq!(post(&mut client, 100), 2);
    charge(&mut client, 2);
    // As a dump brings it along from a server with more transactions.
    run_sql(
        &mut client,
        "UPDATE exa_billing.accounts SET posted_before = '4000000000', posted_where = posted_where + 1",
    );
    assert_eq!(used(&mut client), 40);
    verify(&mut client);
    assert_eq!((post(&mut client, 100), used(&mut client)), (2, 40));
    assert_none_is_passed_over(&mut client);
}

#[test]
fn a_wrong_begin_is_found_and_repaired() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, 2);
    assert_eq!(post(&mut client, 100), 2);
    charge(&mut client, 2);
    run_sql(&mut client, "UPDATE exa_billing.accounts SET posted_before = '4000000000'");
    let found = "SELECT invariant FROM exa_billing.verify_books()";
    assert_eq!(one::<String>(&mut client, found, &[]), "I3");
    run_sql(&mut client, "SELECT exa_billing.recompute_organization_balances('acme')");
    assert_eq!(used(&mut client), 40);
    post_all(&mut client);
    assert_eq!(used(&mut client), 40);
    verify(&mut client);
}

#[test]
fn a_prepared_transaction_is_waited_for() {
    let (_server, mut client) = private_books("queue-begin");
    run_sql(&mut client, "BEGIN");
    charge(&mut client, 1);
    run_sql(&mut client, "PREPARE TRANSACTION 'early'");
    charge(&mut client, 1);
    assert_eq!((post(&mut client, 100), used(&mut client)), (1, 10));
    run_sql(&mut client, "COMMIT PREPARED 'early'");
    assert_eq!(used(&mut client), 20);
    assert_none_is_passed_over(&mut client);
    assert_eq!((post(&mut client, 100), used(&mut client)), (1, 20));
    assert_none_is_passed_over(&mut client);
}
