//! Charges for a month that has no partition: each is recorded, and the month is made once,
//! whatever else is going on.

mod common;
mod partitioned;
mod sessions;

use std::thread;

use common::{Database, Server, one, run_sql, sqlstate, wait_until};
use partitioned::*;
use postgres::Client;
use sessions::*;

/// A server in which no further background worker can be had.
fn without_workers(slots: &str) -> Server {
    Server::start("noworker", &[("max_worker_processes", slots)])
}

/// Books in which nothing is free, without the month of [`LONG_AGO`].
fn books_in(server: &Server) -> Database {
    let db = server.database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.set_free_allowance(0, '2020-01-01')");
    assert_eq!(late_partitions(&mut client), NONE);
    db
}

/// Charges that were recorded in the month of [`LONG_AGO`] and their sum, in both journals.
fn late_charges(client: &mut Client) -> (i64, i64) {
    let sql = format!(
        "SELECT count(*), coalesce(sum(amount), 0)::bigint
         FROM (SELECT charged_microdollars AS amount, created_at FROM exa_billing.exa_usage_log
               UNION ALL
               SELECT amount_microdollars, created_at FROM exa_billing.spend_log) AS charges
         WHERE created_at = {LONG_AGO}"
    );
    let row = client.query_one(&sql, &[]).unwrap();
    (row.get(0), row.get(1))
}

/// All is as it must be in the end: `count` charges of 5 microdollars, one month, sound books.
fn assert_recorded(db: &Database, count: i64) {
    let mut client = db.client();
    assert_eq!(late_charges(&mut client), (count, 5 * count));
    assert_eq!(late_partitions(&mut client), BOTH);
    assert_eq!(badly_made(&mut client), Vec::<String>::new());
    assert_eq!(advisory_locks(&mut client), 0);
    verify(&mut client);
    post_all(&mut client);
    verify(&mut client);
}

fn advisory_locks(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
               WHERE d.datname = current_database() AND l.locktype = 'advisory'";
    one(client, sql, &[])
}

/// Sixteen sessions charge the missing month, in one journal or the other, once each.
fn sixteen_charge(db: &Database) {
    in_sessions(db, 16, LATE, |session, client| {
        let user = format!("user-{session}");
        match session % 3 {
            0 => run_sql(client, &late_spend(&user)),
            1 => run_sql(client, &late_request(&user)),
            _ => run_sql(client, &late_batch(&user)),
        }
    });
}

fn wait_for_sessions(db: &Database, count: i64, waiting_for: &str) {
    let mut watcher = db.client();
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND backend_type = 'client backend'
           AND wait_event_type IN ({waiting_for})"
    );
    wait_until("the sessions wait", || one::<i64>(&mut watcher, &sql, &[]) == count);
}

#[test]
fn sixteen_sessions_make_a_missing_month_once() {
    let db = books_in(&Server::shared());
    sixteen_charge(&db);
    assert_recorded(&db, 16);
}

#[test]
fn sixteen_sessions_make_a_missing_month_once_without_workers() {
    // Without a single slot, and with two that the launchers have taken.
    for slots in ["0", "2"] {
        let server = without_workers(slots);
        let db = books_in(&server);
        sixteen_charge(&db);
        assert_recorded(&db, 16);
    }
}

// ANALYZE and attaching a partition exclude each other.
#[test]
fn an_open_analyze_delays_the_missing_month_and_nothing_else() {
    let db = books_in(&Server::shared());
    let mut open = db.client();
    run_sql(&mut open, "BEGIN; ANALYZE exa_billing.exa_usage_log; ANALYZE exa_billing.spend_log");
    thread::scope(|scope| {
        let late = scope.spawn(|| sixteen_charge(&db));
        wait_for_sessions(&db, 16, "'Lock'");
        let now = "SELECT exa_billing.record_exa_usage('user-1', '/search', 5)";
        run_sql(&mut db.client_with(IMPATIENT), now);
        run_sql(&mut open, "COMMIT");
        late.join().expect("all sessions");
    });
    assert_recorded(&db, 16);
}

#[test]
fn an_analyze_of_the_charging_transaction_itself_stops_no_charge() {
    let db = books_in(&Server::shared());
    let mut client = db.client_with(LATE);
    run_sql(&mut client, "BEGIN; ANALYZE exa_billing.exa_usage_log; ANALYZE exa_billing.spend_log");
    run_sql(&mut client, &late_request("user-1"));
    run_sql(&mut client, &late_spend("user-1"));
    run_sql(&mut client, "COMMIT");
    assert_recorded(&db, 2);
}

#[test]
fn a_prepared_transaction_that_charged_stops_no_charge() {
    let db = books_in(&Server::shared());
    let mut client = db.client();
    let prepared = db.name();
    run_sql(
        &mut client,
        &format!(
            "BEGIN; SELECT exa_billing.record_exa_usage('user-1', '/search', 5);
             SELECT exa_billing.record_spend('user', 'user-1', 5, 'variable', 's', 'p');
             PREPARE TRANSACTION '{prepared}'"
        ),
    );
    sixteen_charge(&db);
    assert_eq!(late_partitions(&mut client), BOTH);
    run_sql(&mut client, &format!("COMMIT PREPARED '{prepared}'"));
    let all = "SELECT sum(microdollars_used)::bigint FROM exa_billing.account_balances";
    assert_eq!(one::<i64>(&mut client, all, &[]), 18 * 5);
    assert_recorded(&db, 16);
}

#[test]
fn a_charge_in_a_savepoint_goes_with_it() {
    let shared = Server::shared();
    let own = without_workers("0");
    for (server, made_by_worker) in [(&shared, true), (&own, false)] {
        let db = books_in(server);
        let (mut client, mut other) = (db.client_with(LATE), db.client_with(LATE));
        run_sql(&mut client, "BEGIN; SAVEPOINT s");
        run_sql(&mut client, &late_request("user-1"));
        run_sql(&mut client, "ROLLBACK TO s");
        let expected = if made_by_worker { BOTH } else { NONE };
        assert_eq!(late_partitions(&mut other), expected);
        // Nothing is held any more, so that somebody else may make the month.
        run_sql(&mut other, &late_request("user-2"));
        run_sql(&mut client, &late_request("user-1"));
        run_sql(&mut client, &late_spend("user-1"));
        run_sql(&mut client, "RELEASE s; COMMIT");
        assert_recorded(&db, 3);
    }
}

/// The first session makes the month in its own transaction and then does `end`; the second waits
/// for it meanwhile.
fn beside_the_maker(end: &str) {
    let server = without_workers("0");
    let db = books_in(&server);
    let mut maker = db.client_with(LATE);
    run_sql(&mut maker, "BEGIN");
    run_sql(&mut maker, &late_request("user-1"));
    assert_eq!(late_partitions(&mut maker), BOTH);
    thread::scope(|scope| {
        let second = scope.spawn(|| run_sql(&mut db.client_with(LATE), &late_spend("user-2")));
        wait_for_sessions(&db, 1, "'Lock'");
        for statement in end.split(';') {
            run_sql(&mut maker, statement);
        }
        second.join().expect("the second session");
    });
    assert_recorded(&db, if end == "ROLLBACK" { 1 } else { 2 });
}

#[test]
fn when_the_maker_rolls_back_another_makes_the_month() {
    beside_the_maker("ROLLBACK");
}

#[test]
fn when_the_maker_commits_the_others_use_its_month() {
    beside_the_maker("COMMIT");
}

#[test]
fn when_the_maker_is_prepared_the_others_wait_for_its_end() {
    beside_the_maker("PREPARE TRANSACTION 'maker';COMMIT PREPARED 'maker'");
}

#[test]
fn a_charge_with_an_old_snapshot_makes_its_month_too() {
    let shared = Server::shared();
    let own = without_workers("0");
    for server in [&shared, &own] {
        let db = books_in(server);
        for (number, isolation) in ["REPEATABLE READ", "SERIALIZABLE"].into_iter().enumerate() {
            let mut client = db.client_with(LATE);
            run_sql(&mut client, &format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1"));
            run_sql(&mut client, &late_request(&format!("user-{number}")));
            run_sql(&mut client, "COMMIT");
        }
        assert_recorded(&db, 2);
    }
}

/// A query that keeps the journal open, and not only its partitions, while it runs: which of them
/// it needs is known only then.
const READING: &str =
    "SELECT * FROM exa_billing.exa_usage_log WHERE created_at > now() - interval '3 days'";

/// Three requests in the journal, and a statement that charges late while it reads them.
fn charge_while_reading(db: &Database) -> String {
    run_sql(
        &mut db.client(),
        "SELECT count(exa_billing.record_exa_usage('user-' || n, '/search', 5)) FROM generate_series(1, 3) AS n;
         CREATE TABLE copies (charged bigint)",
    );
    format!(
        "INSERT INTO copies SELECT r.charged_microdollars FROM ({READING}) AS l,
         exa_billing.record_exa_usage(l.user_id, l.path, l.cost_microdollars, created_at => {LONG_AGO}) AS r"
    )
}

#[test]
fn a_statement_that_reads_the_journal_may_charge_a_missing_month() {
    let db = books_in(&Server::shared());
    let insert = charge_while_reading(&db);
    run_sql(&mut db.client_with(LATE), &insert);
    assert_eq!(one::<i64>(&mut db.client(), "SELECT sum(charged)::bigint FROM copies", &[]), 15);
    assert_recorded(&db, 3);

    // So may a transaction with an open cursor over it.
    let db = books_in(&Server::shared());
    charge_while_reading(&db);
    let mut client = db.client_with(LATE);
    run_sql(&mut client, &format!("BEGIN; DECLARE c CURSOR FOR {READING}; FETCH c"));
    run_sql(&mut client, &late_request("user-1"));
    assert_eq!(client.query("FETCH ALL FROM c", &[]).unwrap().len(), 2);
    run_sql(&mut client, "COMMIT");
    assert_recorded(&db, 1);
}

#[test]
fn without_workers_a_statement_that_reads_the_journal_is_told_what_to_call() {
    let server = without_workers("2");
    let db = books_in(&server);
    let insert = charge_while_reading(&db);
    let mut client = db.client_with(LATE);
    for statement in
        [insert.clone(), format!("DECLARE c CURSOR FOR {READING}; {}", late_request("user-1"))]
    {
        let error = common::error_of(&mut client, &statement);
        assert_eq!(error.code, "55000", "{}", error.message);
        assert!(
            error.message.starts_with("exa_usage_log has no partition for "),
            "{}",
            error.message
        );
        let hint = error.hint.unwrap_or_default();
        assert!(hint.contains("exa_billing.maintain_partitions()"), "{hint}");
        assert_eq!(advisory_locks(&mut client), 0);
        assert_eq!(late_charges(&mut client), (0, 0));
    }
    run_sql(&mut client, "SELECT exa_billing.maintain_partitions()");
    run_sql(&mut client, &insert);
    assert_recorded(&db, 3);
}

// Waiting for the worker, or for the lock itself, whichever it is at that moment.
#[test]
fn a_charge_that_is_cancelled_while_it_waits_leaves_no_lock() {
    let db = books_in(&Server::shared());
    let (mut open, mut client, mut watcher) = (db.client(), db.client_with(LATE), db.client());
    let cancelled = pid(&mut client);
    run_sql(&mut open, "BEGIN; ANALYZE exa_billing.exa_usage_log; ANALYZE exa_billing.spend_log");
    for waiting_for in ["'IPC'", "'Lock'"] {
        thread::scope(|scope| {
            let late = scope.spawn(|| sqlstate(client.batch_execute(&late_request("user-1"))));
            wait_for_sessions(&db, 1, waiting_for);
            run_sql(&mut watcher, &format!("SELECT pg_cancel_backend({cancelled})"));
            assert_eq!(late.join().expect("the session"), "57014");
        });
        // The error arrives before its transaction has ended; the next answer comes after.
        run_sql(&mut client, "SELECT");
        let held = "SELECT count(*) FROM pg_locks WHERE pid = $1 AND locktype = 'advisory'";
        assert_eq!(one::<i64>(&mut watcher, held, &[&cancelled]), 0, "{waiting_for}");
    }
    assert_eq!(late_partitions(&mut watcher), NONE);
    run_sql(&mut open, "ROLLBACK");
    run_sql(&mut client, &late_request("user-1"));
    assert_recorded(&db, 1);
}

#[test]
fn a_role_without_rights_to_the_tables_makes_its_month_by_charging() {
    let shared = Server::shared();
    let own = without_workers("0");
    for server in [&shared, &own] {
        let db = books_in(server);
        let mut admin = db.client();
        let role = format!("app_{}", db.name());
        run_sql(
            &mut admin,
            &format!(
                "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA exa_billing TO {role};
                 GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA exa_billing TO {role};
                 ALTER ROLE {role} SET exa_billing.late_usage_limit = '200d'"
            ),
        );
        let mut client = db.client_as(&role);
        run_sql(&mut client, &late_request("user-1"));
        let refused = client.batch_execute("SELECT FROM exa_billing.exa_usage_log");
        assert_eq!(sqlstate(refused), "42501");
        assert_recorded(&db, 1);
        run_sql(&mut admin, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}
