//! The clone guard: a copy of a database charges exactly and does nothing by itself until somebody
//! starts it, while the original goes on.

mod books_common;
mod common;
mod copies_common;
mod dump_common;
mod health_common;

use books_common::{assert_no_violations, assert_same, figures};
use common::{Server, error_of, one, run_sql, sqlstate, wait_until};
use copies_common::*;
use dump_common::{Dump, succeeds, tool};
use health_common::check;
use postgres::Client;

/// A server with a database `app`, where background work was started and the worker has left with
/// things undone.
fn original(name: &str) -> (Server, Client) {
    let conf = [("exa_billing.instance", "production"), ("exa_billing.evaluation_delay", "0")];
    let server = Server::start(name, &conf);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    let mut client = server.client("app");
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    fill_all(&mut client, "app_role");
    assert!(check(&mut client, "clone guard").is("ok"));
    (server, client)
}

/// A restored or copied database is as it was, charges are in every figure at once, and a worker that
/// looks at it does nothing.
fn assert_quiet(server: &Server, database: &str, before: &[String]) {
    let mut copy = server.client(database);
    assert_same("rows", before, &rows(&mut copy));
    let waiting = queue(&mut copy);
    let used = used_by_user_1(&mut copy);
    run_sql(&mut copy, "INSERT INTO shop.llm VALUES (1001, 'user-1', NULL, 20, now())");
    let charge = "SELECT charged_microdollars
                  FROM exa_billing.record_exa_usage('user-1', '/search', 4321, NULL, 'in the copy')";
    assert_eq!(one::<i64>(&mut copy, charge, &[]), 4321);
    let charged = rows(&mut copy);
    wait_for_a_round(server, database);
    assert_same("rows", &charged, &rows(&mut copy));
    assert_eq!(queue(&mut copy), waiting + 2);
    assert!(evaluations(&mut copy) > 0 && pending(&mut copy) > 0);
    assert_eq!(used_by_user_1(&mut copy), used + 4341);
    assert_no_violations(&mut copy);

    for refused in
        ["SELECT * FROM exa_billing.claim_notifications(5)", "CALL exa_billing.run_maintenance()"]
    {
        let error = error_of(&mut copy, refused);
        assert_eq!(error.code, "55000", "{refused}");
        assert!(error.hint.expect("what helps").contains("start_worker()"), "{refused}");
    }
    let guard = check(&mut copy, "clone guard");
    assert!(guard.is("critical") && guard.figure.starts_with("a copy"), "{guard:?}");
    assert_eq!(guard.statements(), ["SELECT exa_billing.start_worker()"]);
    // It is the guard that keeps it quiet: the worker is there.
    assert!(check(&mut copy, "worker").is("ok"));

    // What is called by hand is done.
    assert_eq!(one::<i64>(&mut copy, "SELECT exa_billing.post_spend(10)", &[]), 10);
    assert_eq!(used_by_user_1(&mut copy), used + 4341);
    assert_no_violations(&mut copy);
}

fn used_by_user_1(client: &mut Client) -> i64 {
    let sql = "SELECT microdollars_used::bigint FROM exa_billing.account_balances
               WHERE owner_id = 'user-1'";
    one(client, sql, &[])
}

/// What waited is done.
fn assert_goes_on(client: &mut Client) {
    wait_until("it is posted", || queue(client) == 0);
    wait_until("it is evaluated", || evaluations(client) == 0);
    assert!(check(client, "clone guard").is("ok"));
    assert_no_violations(client);
}

fn assert_can_be_started(server: &Server, database: &str) {
    let mut copy = server.client(database);
    let shown = figures_but_posted(&mut copy);
    run_sql(&mut copy, "SELECT exa_billing.start_worker()");
    assert_goes_on(&mut copy);
    assert_same("figures", &shown, &figures_but_posted(&mut copy));
    let waiting = pending(&mut copy);
    let claimed = "SELECT count(*) FROM exa_billing.claim_notifications(100)";
    assert_eq!(one::<i64>(&mut copy, claimed, &[]), waiting);
    assert!(waiting > 0);
    run_sql(&mut copy, "CALL exa_billing.run_maintenance()");
}

/// Figures that no posting may change.
fn figures_but_posted(client: &mut Client) -> Vec<String> {
    let is_posted = |line: &String| ["posted ", "day "].iter().any(|word| line.starts_with(word));
    figures(client).into_iter().filter(|line| !is_posted(line)).collect()
}

fn assert_stays_quiet_until_started(server: &Server, database: &str, before: &[String]) {
    assert_quiet(server, database, before);
    assert_can_be_started(server, database);
}

#[test]
fn a_restored_dump_and_a_copy_of_a_template_stay_quiet_until_they_are_started() {
    let (server, mut client) = original("guard");
    let (before, shown) = (rows(&mut client), figures_but_posted(&mut client));
    let dump = Dump::of(&server, "app", &["-Fc"]);
    drop(client);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE restored");
    run_sql(&mut server.client("postgres"), "CREATE DATABASE templated TEMPLATE app");
    // A worker watches all of the restore.
    serve(&server, "app, restored, templated");
    succeeds(&tool(&server, "pg_restore", "restored", &["-j2", "-e", dump.path()]));

    for copy in ["restored", "templated"] {
        assert_stays_quiet_until_started(&server, copy, &before);
    }
    let mut client = server.client("app");
    assert_goes_on(&mut client);
    assert_same("figures", &shown, &figures_but_posted(&mut client));
    assert!(pending(&mut client) > 0);
}

#[test]
fn a_copy_of_the_disks_that_is_called_otherwise_stays_quiet_until_it_is_started() {
    let (server, mut client) = original("disks");
    let (before, shown) = (rows(&mut client), figures_but_posted(&mut client));
    let conf = [("exa_billing.databases", "app"), ("exa_billing.instance", "staging")];
    let staging = server.base_backup("staging", &[], &conf);
    serve(&server, "app");
    assert_stays_quiet_until_started(&staging, "app", &before);
    assert_goes_on(&mut client);
    assert_same("figures", &shown, &figures_but_posted(&mut client));
}

/// The database is the same, but nothing may go on between the rows that come back.
#[test]
fn books_that_are_restored_where_they_were_stay_quiet_until_they_are_started() {
    let (server, mut client) = original("again");
    let before = rows(&mut client);
    let dump = Dump::of(&server, "app", &["-Fc"]);
    serve(&server, "app");
    // The worker goes on meanwhile; of two that wait for each other PostgreSQL ends one.
    let gone = "DROP EXTENSION exa_billing CASCADE; DROP SCHEMA exa_billing, shop CASCADE";
    while let Err(error) = client.batch_execute(gone) {
        assert_eq!(sqlstate::<()>(Err(error)), "40P01");
    }
    succeeds(&tool(&server, "pg_restore", "app", &["-e", dump.path()]));
    assert_stays_quiet_until_started(&server, "app", &before);
}
