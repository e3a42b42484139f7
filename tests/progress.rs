//! Long work tells how far it is: a notice every few seconds, and the view `progress`.

mod books_common;
mod common;

use books_common::{assert_no_violations, texts};
use common::{Database, Server, one, run_sql, wait_until};
use postgres::{Client, NoTls};
use std::sync::mpsc;
use std::thread;

/// A session that notes what it is told besides results.
fn listening(db: &Database) -> (Client, mpsc::Receiver<String>) {
    let (sender, told) = mpsc::channel();
    let mut config = db.config();
    config.notice_callback(move |notice| {
        let _ = sender.send(notice.message().to_owned());
    });
    (config.connect(NoTls).expect("a session"), told)
}

/// What a call tells that is held up by a lock in its first step for longer than notices are apart.
fn told_by(db: &Database, lock: &str, call: &str) -> Vec<String> {
    let (mut caller, told) = listening(db);
    let pid: i32 = one(&mut caller, "SELECT pg_backend_pid()", &[]);
    let mut holder = db.client();
    run_sql(&mut holder, &format!("BEGIN; {lock}"));
    thread::scope(|scope| {
        let run = scope.spawn(move || run_sql(&mut caller, call));
        let waits = "SELECT count(*) FROM pg_locks WHERE pid = $1 AND NOT granted";
        wait_until("the call is held up", || one::<i64>(&mut db.client(), waits, &[&pid]) == 1);
        run_sql(&mut holder, "SELECT pg_sleep(3.1); ROLLBACK");
        run.join().expect("the call");
    });
    told.try_iter().collect()
}

/// Owners with charges, posted, on the last three days.
fn books() -> (Database, Client) {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        "SELECT exa_billing.record_spend('user', 'u' || n % 4, 100, 'variable', 's', 'p',
             created_at => date_trunc('day', now(), 'UTC') - n * interval '1 day' / 4)
         FROM generate_series(1, 12) AS n;
         SELECT exa_billing.post_spend(1000)",
    );
    (db, client)
}

#[test]
fn recomputing_tells_how_many_owners_are_done() {
    let (db, mut client) = books();
    let first = "SELECT FROM exa_billing.accounts WHERE owner_id = 'u0' FOR UPDATE";
    let told = told_by(&db, first, "CALL exa_billing.recompute_all_balances(false)");
    assert_eq!(told, ["2 of 4 owners recomputed", "4 of 4 owners recomputed, 0 changed, 0 failed"]);
    let shown = "SELECT concat_ws(' ', procedure_name, done, total, changed, failed,
                     finished_at >= updated_at AND updated_at > started_at) FROM exa_billing.progress";
    assert_eq!(texts(&mut client, shown), ["recompute_all_balances 4 4 0 0 t"]);
    assert_no_violations(&mut client);
}

#[test]
fn a_backfill_tells_how_many_hours_are_done() {
    let (db, mut client) = books();
    run_sql(&mut client, "DELETE FROM exa_billing.spend_hourly_totals");
    let first = "SELECT FROM exa_billing.accounts WHERE owner_id = 'u1' FOR UPDATE";
    let call =
        "CALL exa_billing.backfill_rollups(date_trunc('day', now(), 'UTC') - interval '3 days',
                    date_trunc('day', now(), 'UTC'), false)";
    let told = told_by(&db, first, call);
    assert_eq!(told, ["48 of 72 hours done", "72 of 72 hours done, 12 owners put right, 0 failed"]);
    assert_no_violations(&mut client);
}

/// Functions that only read keep nothing, and tell all the same; held up before the first month, or in
/// it.
fn assert_tells_months(call: &str, what: &str) {
    let (db, mut client) = books();
    let partitions = "SELECT inhrelid::regclass::text COLLATE \"C\" FROM pg_inherits
                      WHERE inhparent = 'exa_billing.spend_log'::regclass ORDER BY 1";
    let months = texts(&mut client, partitions);
    let told = told_by(&db, &format!("LOCK TABLE {}", months[0]), call);
    let expected = [0, 1].map(|done| format!("{done} of {} months {what}", months.len()));
    assert!(told.len() == 1 && expected.contains(&told[0]), "{told:?}, not {expected:?}");
}

#[test]
fn verifying_tells_how_many_months_are_done() {
    assert_tells_months("SELECT * FROM exa_billing.verify_books()", "verified");
}

#[test]
fn reconciling_tells_how_many_months_are_done() {
    assert_tells_months(
        "SELECT * FROM exa_billing.reconcile_rollups(
             date_trunc('hour', now() - interval '1 year', 'UTC'),
             date_trunc('hour', now() + interval '2 years', 'UTC'))",
        "compared",
    );
}
