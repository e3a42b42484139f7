//! health: what it says of background work, to whom, and on a standby.

mod books_common;
mod common;
mod health_common;

use books_common::{assert_no_violations, texts};
use common::{Server, error_of, one, run_sql, wait_until};
use health_common::*;
use postgres::Client;

#[test]
fn background_work_that_is_not_started_or_a_copy() {
    let (_db, mut client) = well();
    for fault in [
        "SELECT exa_billing.stop_worker()",
        "UPDATE exa_billing.worker_registration SET database_oid = 1",
        "UPDATE exa_billing.worker_registration SET system_identifier = 1",
        "UPDATE exa_billing.worker_registration SET table_oid = 1",
        "UPDATE exa_billing.worker_registration SET instance_name = 'staging'",
    ] {
        let found = turns(&mut client, "clone guard", "critical", fault);
        mends_itself(&mut client, "clone guard", &found);
    }
}

#[test]
fn jobs_that_fail_or_do_not_run() {
    let (_db, mut client) = well();
    let name = "job: prove the books";
    let failed = |times: i32| {
        format!(
            "UPDATE exa_billing.job_runs SET failures_in_a_row = {times}, last_error = 'it broke'
             WHERE job_name = 'prove the books'"
        )
    };
    turns(&mut client, name, "warning", &failed(1));
    let found = turns(&mut client, name, "critical", &failed(2));
    assert_eq!(found.figure, "2 failures in a row: it broke");
    mends_itself(&mut client, name, &found);
    for fault in [
        "UPDATE exa_billing.job_runs SET last_started_at = now() - interval '40 minutes' WHERE job_name = 'prove the books'",
        "DELETE FROM exa_billing.job_runs WHERE job_name = 'prove the books'",
    ] {
        let found = turns(&mut client, name, "warning", fault);
        mends_itself(&mut client, name, &found);
    }
    run_sql(
        &mut client,
        "UPDATE exa_billing.job_runs SET last_started_at = now() - interval '20 minutes'",
    );
    assert!(check(&mut client, "worker").is("warning"));
    run_sql(
        &mut client,
        "UPDATE exa_billing.job_runs SET last_started_at = now() - interval '2 hours'",
    );
    let found = check(&mut client, "worker");
    assert!(found.is("critical"), "{found:?}");
    mends_itself(&mut client, "worker", &found);
}

/// A job's row in worker_jobs, the times as differences.
fn row_of(client: &mut Client, job: &str) -> (Option<String>, i64, i64, i64) {
    let sql =
        "SELECT last_error, failures_in_a_row, run_count, row_count FROM exa_billing.worker_jobs
               WHERE job_name = $1";
    let row = client.query_one(sql, &[&job]).expect("the job's row");
    (row.get(0), row.get(1), row.get(2), row.get(3))
}

/// worker_jobs: when each began and ended well last, with what error, how often, over how many rows.
#[test]
fn the_log_of_jobs_has_runs_rows_and_errors() {
    let (_db, mut client) = well();
    let times = "SELECT count(*) FROM exa_billing.worker_jobs
                 WHERE last_started_at <= last_ended_at AND last_ended_at BETWEEN $1 AND now()";
    let began: std::time::SystemTime = one(&mut client, "SELECT now()", &[]);
    let (_, _, runs, rows) = row_of(&mut client, "post spend");
    run_sql(
        &mut client,
        "SELECT exa_billing.record_exa_usage('v', '/search', 5) FROM generate_series(1, 7)",
    );
    run_maintenance(&mut client);
    // One step, whose few rows say that nothing is left.
    assert_eq!(row_of(&mut client, "post spend"), (None, 0, runs + 1, rows + 7));
    assert_eq!(one::<i64>(&mut client, times, &[&began]), 8);

    let job = "prove the books";
    let (_, _, runs, rows) = row_of(&mut client, job);
    let ended =
        "SELECT last_ended_at FROM exa_billing.worker_jobs WHERE job_name = 'prove the books'";
    let last_end: std::time::SystemTime = one(&mut client, ended, &[]);
    run_sql(&mut client, "ALTER TABLE exa_billing.books_proof RENAME COLUMN owner_count TO owners");
    for failures in 1..=3 {
        run_maintenance(&mut client);
        let (error, in_a_row, run_count, row_count) = row_of(&mut client, job);
        assert!(error.is_some_and(|error| error.contains("owner_count")));
        assert_eq!((in_a_row, run_count, row_count), (failures, runs + failures, rows));
        assert_eq!(one::<std::time::SystemTime>(&mut client, ended, &[]), last_end);
    }
    let tried_since = "SELECT last_started_at > last_ended_at AND last_error_at >= last_started_at
                       FROM exa_billing.worker_jobs WHERE job_name = 'prove the books'";
    assert!(one::<bool>(&mut client, tried_since, &[]));
    run_sql(&mut client, "ALTER TABLE exa_billing.books_proof RENAME COLUMN owners TO owner_count");
    run_maintenance(&mut client);
    // What went wrong last is still to be seen; two owners were looked at.
    let (error, in_a_row, run_count, row_count) = row_of(&mut client, job);
    assert!(error.is_some());
    assert_eq!((in_a_row, run_count, row_count), (0, runs + 4, rows + 2));
    assert_no_violations(&mut client);
}

/// A job that really fails says so with the error.
#[test]
fn a_broken_job_shows_its_error() {
    let (_db, mut client) = well();
    let rename = |from: &str, to: &str| {
        format!("ALTER TABLE exa_billing.books_proof RENAME COLUMN {from} TO {to}")
    };
    run_sql(&mut client, &rename("owner_count", "owners"));
    for status in ["warning", "critical"] {
        run_maintenance(&mut client);
        let found = check(&mut client, "job: prove the books");
        assert!(found.is(status) && found.figure.contains("owner_count"), "{found:?}");
    }
    run_sql(&mut client, &rename("owners", "owner_count"));
    let found = check(&mut client, "job: prove the books");
    mends_itself(&mut client, "job: prove the books", &found);
    assert_no_violations(&mut client);
}

/// Operators, auditors and who acts for the books' owner see all of it, in row security too, as a
/// superuser does; nobody else may ask. Who was given only that gets rows that say what is missing.
#[test]
fn the_rights_are_those_of_the_access_list() {
    let (db, mut client) = well();
    let role = |what: &str| format!("{what}_{}", db.name());
    let all = ["operator", "auditor", "application", "end_user", "owner", "guest"].map(role);
    let [operator, auditor, application, end_user, owner, guest] = &all;
    for name in &all {
        run_sql(&mut client, &format!("CREATE ROLE {name} LOGIN"));
    }
    run_sql(
        &mut client,
        &format!(
            "SELECT exa_billing.enable_row_security(); SELECT exa_billing.grant_operator('{operator}');
             SELECT exa_billing.grant_auditor('{auditor}');
             SELECT exa_billing.grant_application('{application}');
             SELECT exa_billing.grant_end_user('{end_user}'); GRANT exa_billing_owner TO {owner};
             GRANT USAGE ON SCHEMA exa_billing TO {guest}; GRANT SELECT ON exa_billing.health TO {guest};
             GRANT EXECUTE ON FUNCTION exa_billing.health_checks() TO {guest}"
        ),
    );
    run_sql(
        &mut client,
        "SELECT exa_billing.record_exa_usage('u', '/search', 5);
         UPDATE exa_billing.unposted_spend SET blocked_reason = 'out of range';
         INSERT INTO exa_billing.evaluation_queue
             VALUES ('user', 'u', gen_random_uuid(), now() - interval '2 hours', 0, NULL)",
    );
    // Without the figures that are seconds.
    let seen = "SELECT name || status || coalesce(what_to_do, '') || CASE WHEN figure ~ '^[0-9]+ s' THEN '' ELSE figure END
                FROM exa_billing.health";
    let expected = texts(&mut client, seen);
    assert_eq!(unwell(&mut client), ["blocked rows: critical", "evaluation backlog: critical"]);
    for name in [operator, auditor, owner] {
        assert_eq!(texts(&mut db.client_as(name), seen), expected, "{name}");
    }
    for name in [application, end_user] {
        for from in ["exa_billing.health", "exa_billing.health_checks()"] {
            let error = error_of(&mut db.client_as(name), &format!("SELECT * FROM {from}"));
            assert_eq!(error.code, "42501", "{name}: {error:?}");
        }
    }
    let refused = check(&mut db.client_as(guest), "unposted rows");
    assert!(refused.is("critical") && refused.figure.contains("permission denied"), "{refused:?}");
    assert!(refused.what_to_do.unwrap().contains("grant_auditor"));
    assert!(check(&mut db.client_as(guest), "foreign hands").is("ok"));
    run_sql(&mut client, &format!("DROP OWNED BY {0}; DROP ROLE {0}", all.join(", ")));
}

/// Without a place for the launcher, without one for its worker, with a database that does not exist.
#[test]
fn a_server_without_room_for_the_worker_and_its_standby() {
    let server = Server::start(
        "health",
        &[("max_worker_processes", "1"), ("exa_billing.databases", "app, gone")],
    );
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    let mut client = server.client("app");
    run_sql(
        &mut client,
        "CREATE EXTENSION exa_billing; SELECT exa_billing.setup(); SELECT exa_billing.start_worker()",
    );
    drop(client);
    for places in ["1", "2"] {
        server.set_conf(&[("max_worker_processes", places)]);
        server.stop("fast");
        server.start_again();
        let mut client = server.client("app");
        let worker = check(&mut client, "worker");
        assert!(worker.is("critical"), "{places}: {worker:?}");
        assert_eq!(worker.figure, "no sign of life since the server's start");
        assert!(worker.what_to_do.unwrap().contains("raise max_worker_processes and restart"));
        let databases = check(&mut client, "databases");
        assert!(databases.is("critical"), "{places}: {databases:?}");
        assert_eq!(databases.figure, "0 served of 2 listed");
        let what_to_do = databases.what_to_do.unwrap();
        assert!(what_to_do.contains("does not exist (gone) out of exa_billing.databases"));
        assert!(what_to_do.contains("Without a worker: app."), "{what_to_do}");
    }
    // What it says to look for is there.
    wait_until("the log", || server.log().contains("raise max_worker_processes"));

    server.set_conf(&[("max_worker_processes", "8"), ("exa_billing.databases", "app")]);
    server.stop("fast");
    server.start_again();
    let mut client = server.client("app");
    wait_until("all is well", || unwell(&mut client).is_empty());
    assert_eq!(check(&mut client, "databases").figure, "1 served of 1 listed");
    assert!(check(&mut client, "worker").figure.ends_with(" s since the last sign of life"));

    let processes = "SELECT backend_type || ' ' || coalesce(datname, '') FROM pg_stat_activity
                     WHERE backend_type LIKE 'exa_billing%' ORDER BY 1";
    let shown = texts(&mut client, processes);
    assert_eq!(shown.last().map(String::as_str), Some("exa_billing worker app"), "{shown:?}");

    let standby = server.basebackup_standby("healthy");
    let mut reader = standby.client("app");
    let names = "SELECT count(*) FROM exa_billing.health";
    assert_eq!(one::<i64>(&mut reader, names, &[]), 18 + 8);
    // Its worker waits for promotion; what the primary's has done is to be seen here too.
    wait_until("all is well", || unwell(&mut reader).is_empty());
    assert!(check(&mut reader, "worker").figure.ends_with(" s since the last run of a job"));
    let in_transaction = "BEGIN READ ONLY; SELECT * FROM exa_billing.health; COMMIT";
    run_sql(&mut reader, in_transaction);
    // And what is wrong there.
    run_sql(
        &mut client,
        "SELECT exa_billing.stop_worker();
         INSERT INTO exa_billing.evaluation_queue
             VALUES ('user', 'u', gen_random_uuid(), now() - interval '2 hours', 0, NULL)",
    );
    wait_until("the standby shows it", || {
        unwell(&mut reader) == ["evaluation backlog: critical", "clone guard: critical"]
    });
}

/// Where the library is not preloaded, or this database is not on the list, the log of jobs tells.
#[test]
fn a_server_whose_settings_leave_the_worker_out() {
    let server = Server::start("leftout", &[("exa_billing.databases", "other")]);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    run_sql(&mut server.client("postgres"), "CREATE DATABASE other");
    let mut client = server.client("app");
    run_sql(
        &mut client,
        "CREATE EXTENSION exa_billing; SELECT exa_billing.setup(); SELECT exa_billing.start_worker()",
    );
    wait_until("the worker of the other one", || check(&mut client, "databases").is("ok"));
    assert_eq!(check(&mut client, "databases").figure, "1 served of 1 listed");
    let nothing = check(&mut client, "worker");
    assert!(nothing.is("critical") && nothing.figure == "nothing has ever run", "{nothing:?}");
    assert!(
        nothing.what_to_do.as_ref().unwrap().contains("this database into exa_billing.databases")
    );
    mends_itself(&mut client, "worker", &nothing);

    server.set_conf(&[("shared_preload_libraries", "")]);
    server.stop("fast");
    server.start_again();
    let mut client = server.client("app");
    let databases = check(&mut client, "databases");
    assert!(databases.is("critical"), "{databases:?}");
    assert_eq!(databases.figure, "0 served of 1 listed");
    let what_to_do = databases.what_to_do.unwrap();
    assert!(what_to_do.contains("Add exa_billing to shared_preload_libraries"), "{what_to_do}");
    assert_eq!(unwell(&mut client), ["databases: critical"]);
    server.set_conf(&[("exa_billing.databases", "")]);
    server.reload();
    wait_until("nothing is expected", || unwell(&mut client).is_empty());
}
