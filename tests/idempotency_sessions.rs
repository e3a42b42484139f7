//! One key in several sessions at once.

mod common;
mod usage_common;

use common::{Database, error_of, one, run_sql, sqlstate, wait_until};
use postgres::{Client, Error, Row};
use std::sync::Barrier;
use std::thread;
use usage_common::{
    assert_books_hold, assert_unchanged, balance, books, decision, no_free_allowance, recorded,
    session, state,
};
use uuid::Uuid;

/// One call of each function that takes a key, where it returns the id.
const CALLS: [&str; 6] = [
    "select usage_id, is_replay from record_exa_usage('free', '/search', 5, null, 'KEY')",
    "select usage_id, is_replay from record_exa_usage('paid', '/search', 5, 'org', 'KEY')",
    "select usage_id, is_replay from record_exa_usage_batch(
         '[{\"user_id\": \"paid\", \"path\": \"/x\", \"cost_microdollars\": 5,
           \"idempotency_key\": \"KEY\"}]')",
    "select usage_id, is_replay
     from record_spend('user', 'paid', 5, 'variable', 'shop', 'p', idempotency_key => 'KEY')",
    "select usage_id, is_replay from record_spend('user', 'rich', 5, 'scheduled', 'shop', 'p',
         idempotency_key => 'KEY', require_balance => true)",
    "select grant_credit('user', 'paid', 5, idempotency_key => 'KEY')",
];

/// The calls, each with a key of its own.
fn calls(key: &str) -> Vec<String> {
    (0..).zip(CALLS).map(|(n, call)| call.replace("KEY", &format!("{key} {n}"))).collect()
}

/// Books in which user `paid` has no allowance left and user `rich` has credit.
fn prepared() -> (Database, Client) {
    let (db, mut c) = books();
    run_sql(
        &mut c,
        "select set_free_allowance(0, '2020-01-01', 'paid'), grant_credit('user', 'rich', 5000);
         select record_exa_usage('paid', '/search', 1), record_exa_usage('free', '/search', 1)",
    );
    (db, c)
}

/// What a call returned: the id, and whether it says that it is a replay (a
/// grant does not say).
type Answer = (Uuid, Option<bool>);

fn result(row: &Row) -> Answer {
    (row.get(0), row.try_get(1).ok())
}

fn entries(c: &mut Client) -> i64 {
    one(
        c,
        "select (select count(*) from exa_usage_log) + (select count(*) from spend_log)
              + (select count(*) from credit_transactions)",
        &[],
    )
}

/// Starts `begin; CALL` in one session, the same call in another, and ends the
/// first one's transaction once the second waits for it.
fn second_of_two(
    db: &Database,
    first: &mut Client,
    call: &str,
    second_call: &str,
    end: &str,
) -> (Answer, Result<Answer, Error>) {
    run_sql(first, "begin");
    let of_first = result(&first.query_one(call, &[]).expect(call));
    let mut second = session(db);
    let pid: i32 = one(&mut second, "select pg_backend_pid()", &[]);
    let of_second = thread::scope(|scope| {
        let waiting =
            scope.spawn(move || second.query_one(second_call, &[]).map(|row| result(&row)));
        let mut observer = session(db);
        wait_until("the second session waits for the first", || {
            one(
                &mut observer,
                "select exists (select from pg_locks where pid = $1 and not granted)",
                &[&pid],
            )
        });
        run_sql(first, end);
        waiting.join().expect("the second session")
    });
    (of_first, of_second)
}

#[test]
fn of_two_sessions_one_records_and_the_other_waits_and_replays() {
    let (db, mut c) = prepared();
    for call in calls("k") {
        let before = entries(&mut c);
        let (first, second) = second_of_two(&db, &mut c, &call, &call, "commit");
        let second = second.unwrap_or_else(|error| panic!("{call}\n{error:?}"));
        assert_eq!(second.0, first.0, "{call}");
        assert!(first.1 != Some(true) && second.1 != Some(false), "{call}");
        assert_eq!(entries(&mut c), before + 1, "{call}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_batch_that_waited_for_another_call_replays_that_element_and_records_the_rest() {
    let (db, mut c) = prepared();
    let call = "select usage_id, is_replay from record_exa_usage('paid', '/x', 5, null, 'k')";
    let batch = r#"select usage_id, is_replay from record_exa_usage_batch('[
        {"user_id": "paid", "path": "/x", "cost_microdollars": 5, "idempotency_key": "k"},
        {"user_id": "paid", "path": "/x", "cost_microdollars": 7, "idempotency_key": "l"},
        {"user_id": "free", "path": "/x", "cost_microdollars": 9, "idempotency_key": "k"},
        {"user_id": "paid", "path": "/x", "cost_microdollars": 5, "idempotency_key": "k"}]')"#;
    // The row of its first element is what this returns.
    let (first, second) = second_of_two(&db, &mut c, call, &format!("{batch} limit 1"), "commit");
    assert_eq!(second.expect("the batch"), (first.0, Some(true)));
    let costs = "select array_agg(cost_microdollars order by cost_microdollars) from exa_usage_log";
    assert_eq!(one::<Vec<i64>>(&mut c, costs, &[]), [1, 1, 5, 7, 9]);
    let again = c.query(batch, &[]).expect("the batch again");
    assert!(again.iter().all(|row| result(row).1 == Some(true)));
    assert_eq!(result(&again[3]).0, first.0);
    assert_eq!(balance(&mut c, "user", "paid"), -13);
    assert_books_hold(&mut c);
}

/// All the credit goes into the one purchase that both sessions ask for.
#[test]
fn a_purchase_that_waited_for_its_own_first_call_replays() {
    let (db, mut c) = books();
    run_sql(&mut c, "select grant_credit('user', 'u', 600)");
    let call = "select usage_id, is_replay from record_spend('user', 'u', 600, 'scheduled', 'shop',
                    'p', idempotency_key => 'k', require_balance => true)";
    let (first, second) = second_of_two(&db, &mut c, call, call, "commit");
    assert_eq!(second.expect("a replay"), (first.0, Some(true)));
    assert_eq!(balance(&mut c, "user", "u"), 0);
    assert_books_hold(&mut c);
}

#[test]
fn when_the_first_session_rolls_back_the_second_records() {
    let (db, mut c) = prepared();
    for call in calls("k") {
        let before = entries(&mut c);
        let (first, second) = second_of_two(&db, &mut c, &call, &call, "rollback");
        let second = second.unwrap_or_else(|error| panic!("{call}\n{error:?}"));
        assert_ne!(second.0, first.0, "{call}");
        assert_ne!(second.1, Some(true), "{call}");
        assert_eq!(entries(&mut c), before + 1, "{call}");
        let again = result(&c.query_one(&call, &[]).expect(&call));
        assert_eq!(again.0, second.0, "{call}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn something_else_under_the_key_of_another_session_is_told_what_differs() {
    let (db, mut c) = prepared();
    for call in calls("k") {
        // The amount is the only 5 that stands before a comma.
        let other = call.replacen("5,", "6,", 1);
        assert_ne!(other, call);
        let (_, second) = second_of_two(&db, &mut c, &call, &other, "commit");
        let error = second.expect_err(&call).as_db_error().expect("the server's error").clone();
        assert_eq!(error.code().code(), "23505", "{call}");
        let detail = error.detail().unwrap_or_default();
        assert!(detail.ends_with(r#"_microdollars was "5", is now "6"."#), "{call}: {detail}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn above_read_committed_the_second_fails_to_serialize_and_its_retry_replays() {
    let (db, mut c) = prepared();
    for isolation in ["repeatable read", "serializable"] {
        for call in calls(isolation) {
            let mut second = session(&db);
            // Its snapshot is older than the first session's commit.
            run_sql(
                &mut second,
                &format!("begin isolation level {isolation}; select 1 from accounts"),
            );
            let first = result(&c.query_one(&call, &[]).expect(&call));
            let before = state(&mut c);
            assert_eq!(sqlstate(second.query_one(&call, &[])), "40001", "{isolation}: {call}");
            run_sql(&mut second, "rollback");

            run_sql(&mut second, &format!("begin isolation level {isolation}"));
            let retried = result(&second.query_one(&call, &[]).expect(&call));
            run_sql(&mut second, "commit");
            assert_eq!(retried.0, first.0, "{isolation}: {call}");
            assert_ne!(retried.1, Some(false), "{isolation}: {call}");
            assert_unchanged(&mut c, &before, &call);
        }
    }
    assert_books_hold(&mut c);
}

#[test]
fn of_many_sessions_at_once_one_records() {
    const SESSIONS: usize = 8;
    let (db, mut c) = prepared();
    for call in calls("k") {
        let before = entries(&mut c);
        let start = Barrier::new(SESSIONS);
        let results: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..SESSIONS)
                .map(|_| {
                    let mut client = session(&db);
                    let (start, call) = (&start, &call);
                    scope.spawn(move || {
                        start.wait();
                        result(&client.query_one(call, &[]).expect(call))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("a session")).collect()
        });
        assert!(results.iter().all(|(id, _)| *id == results[0].0), "{call}: {results:?}");
        let news = results.iter().filter(|(_, is_replay)| *is_replay == Some(false)).count();
        assert!(news == 1 || call.contains("grant_credit"), "{call}: {results:?}");
        assert_eq!(entries(&mut c), before + 1, "{call}");
    }
    assert_books_hold(&mut c);
}

/// The retry does not know when the request happened, so it looks like one of
/// this month. It is none: this month has no request yet and no allowance.
#[test]
fn a_replay_that_waited_locks_no_allowance_in() {
    for retry in [
        "select usage_id, is_replay from record_exa_usage('u', '/x', 5, null, 'k')",
        r#"select usage_id, is_replay from record_exa_usage_batch(
           '[{"user_id": "u", "path": "/x", "cost_microdollars": 5, "idempotency_key": "k"}]')"#,
    ] {
        let (db, mut c) = books();
        let first = "select usage_id, is_replay from record_exa_usage('u', '/x', 5, null, 'k',
                         date_trunc('month', now(), 'UTC') - interval '1 hour')";
        let (recorded, replayed) = second_of_two(&db, &mut c, first, retry, "commit");
        assert_eq!(replayed.expect("a replay"), (recorded.0, Some(true)), "{retry}");
        run_sql(&mut c, "select set_free_allowance(77, '2020-01-01')");
        assert_eq!(decision(&mut c, "'u'").allowance, 77, "{retry}");
        let locked_in = "select count(*) from exa_monthly_allowance";
        assert_eq!(one::<i64>(&mut c, locked_in, &[]), 1, "{retry}");
        assert_books_hold(&mut c);
    }
}

/// A queue of a user's requests is written in one transaction, and one of them
/// is sent again by somebody else before it is its turn.
#[test]
fn a_retry_beside_a_transaction_of_several_calls_waits_and_replays() {
    let (db, mut c) = books();
    let retry = "select usage_id, is_replay from record_exa_usage('u', '/x', 5, null, 'k')";
    let first = "select usage_id, is_replay from record_exa_usage('u', '/x', 1)";
    let (_, replayed) = second_of_two(&db, &mut c, first, retry, &format!("{retry}; commit"));
    assert_eq!(replayed.expect("a replay").1, Some(true));
    assert_eq!(decision(&mut c, "'u'").month_used, 6);
    assert_books_hold(&mut c);
}

#[test]
fn a_key_is_free_again_after_the_savepoint_it_was_used_in() {
    let (db, mut c) = books();
    no_free_allowance(&mut c);
    let call = "record_exa_usage('u', '/x', 5, null, 'k')";
    run_sql(&mut c, &format!("begin; savepoint s; select {call}; rollback to s"));
    // Nobody has to wait for the rest of that transaction.
    let mut other = session(&db);
    run_sql(&mut other, "set lock_timeout = '10s'");
    let first = recorded(&mut other, call);
    assert!(!first.is_replay);
    assert_eq!(recorded(&mut c, call), first.replayed());
    run_sql(&mut c, "commit");
    let dearer = error_of(&mut c, "select record_exa_usage('u', '/x', 6, null, 'k')");
    assert_eq!(dearer.code, "23505");
    assert_books_hold(&mut c);
}
