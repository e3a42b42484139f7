//! pg_upgrade from an older release of PostgreSQL, with the library preloaded in both: the books come
//! along whole, charging goes on by itself, background work once it was started.
//!
//! scripts/test.sh provides the older releases where the newest one is tested, and leaves these tests
//! out elsewhere.

mod books_common;
mod common;
mod copies_common;
mod dump_common;
mod health_common;

use books_common::{assert_no_violations, assert_same, catalog, contents, figures};
use common::{Server, one, run_sql, tested_bin, wait_until};
use copies_common::*;
use dump_common::Dump;
use health_common::check;
use postgres::Client;
use std::fs;
use std::path::PathBuf;

/// The programs of the releases to upgrade from.
fn old_releases() -> Vec<PathBuf> {
    let list = std::env::var("EXA_BILLING_OLD_PG_BINS").unwrap_or_default();
    assert!(
        !list.is_empty(),
        "no older release at hand: run `scripts/test.sh 18 -- --test pg_upgrade`"
    );
    list.split(':').map(PathBuf::from).collect()
}

/// Filled books in a database `app`, which the worker has left with things undone.
fn old_server(bin: &std::path::Path) -> Server {
    // Checksums as in the newest release, where initdb switches them on by itself.
    let old = Server::of_release(bin, "old", &["--data-checksums"], &[]);
    old.start_again();
    run_sql(&mut old.client("postgres"), "CREATE DATABASE app");
    let mut client = old.client("app");
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    fill_all(&mut client, "app_role");
    serve(&old, "app");
    wait_until("it is posted", || queue(&mut client) == 0);
    serve(&old, "");
    wait_until_left(&old, "app");
    run_sql(&mut client, &CHARGES.replace("(1000", "(2000"));
    old
}

/// Runs pg_upgrade in the new server's directory, and returns what the new server has logged meanwhile.
fn upgrade(old: &Server, new: &Server) -> String {
    let [from, to] = [old, new].map(|server| server.data().display().to_string());
    let [old_bin, new_bin] = [old, new].map(|server| server.bin("").display().to_string());
    let program = new.bin("pg_upgrade").display().to_string();
    let here = new.host();
    let arguments = [
        "-c",
        "cd \"$0\" && exec \"$@\"",
        here,
        &program,
        "-b",
        &old_bin,
        "-B",
        &new_bin,
        "-d",
        &from,
        "-D",
        &to,
        "-s",
        here,
        "-U",
        "postgres",
        "--retain",
    ];
    let output = new.run("sh", &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let runs = fs::read_dir(new.data().join("pg_upgrade_output.d")).expect("pg_upgrade's output");
    let logs = runs.map(|run| run.expect("a run").path().join("log/pg_upgrade_server.log"));
    logs.map(|log| String::from_utf8_lossy(&fs::read(log).expect("a log")).into_owned()).collect()
}

/// What the catalog says, but for what each release spells in its own way: views, columns that are not
/// null, which the newest one lists as constraints, the types of arrays, which pg_upgrade makes members
/// of the extension, and the right to maintain that owners have since 17.
fn described(client: &mut Client) -> Vec<String> {
    let is_spelt = |line: &String| {
        line.contains("\"_RETURN\"")
            || line.contains("| NOT NULL ")
            || line.starts_with("member | type ") && line.ends_with("[]")
    };
    let lines = catalog(client).into_iter().filter(|line| !is_spelt(line));
    lines.map(|line| line.replace("=arwdDxtm/", "=arwdDxt/")).collect()
}

fn assert_upgrades(bin: &std::path::Path) {
    let old = old_server(bin);
    let mut client = old.client("app");
    let (before, shown) = (contents(&mut client), figures(&mut client));
    let said = described(&mut client);
    let waiting = queue(&mut client);
    let role =
        "SELECT rolsuper || ' ' || rolcanlogin FROM pg_roles WHERE rolname = 'exa_billing_owner'";
    let owner: String = one(&mut client, role, &[]);
    drop(client);
    old.stop("fast");

    let conf = [("exa_billing.databases", "app"), ("log_min_messages", "debug1")];
    let new = Server::of_release(&tested_bin(), "new", &[], &conf);
    let log = upgrade(&old, &new);
    // At this level a background worker that is registered is told of too.
    assert!(log.contains("DEBUG:  loaded library \"exa_billing\""), "{log}");
    assert!(!log.contains("exa_billing launcher"), "{log}");
    new.start_again();
    assert!(new.log().contains("exa_billing launcher"));

    let mut client = new.client("app");
    assert_same("rows", &before, &contents(&mut client));
    assert_same("figures", &shown, &figures(&mut client));
    assert_same("catalog", &said, &described(&mut client));
    assert_eq!(one::<String>(&mut client, role, &[]), owner);
    assert_no_violations(&mut client);

    // The server is another one.
    let guard = check(&mut client, "clone guard");
    assert!(guard.is("critical") && guard.figure.starts_with("a copy"), "{guard:?}");
    assert_eq!(guard.statements(), ["SELECT exa_billing.start_worker()"]);
    let used = "SELECT microdollars_used::bigint FROM exa_billing.account_balances WHERE owner_id = 'user-1'";
    let before: i64 = one(&mut client, used, &[]);
    let charge =
        "SELECT charged_microdollars FROM exa_billing.record_exa_usage('user-1', '/search', 777)";
    assert_eq!(one::<i64>(&mut client, charge, &[]), 777);
    run_sql(&mut client, "INSERT INTO shop.llm VALUES (3000, 'user-1', NULL, 50, now())");
    wait_for_a_round(&new, "app");
    assert_eq!(
        (queue(&mut client), one::<i64>(&mut client, used, &[])),
        (waiting + 2, before + 827)
    );
    let replayed = "SELECT is_replay FROM exa_billing.record_exa_usage('user-1', '/contents', 1001,
                        'org-1', 'key-1')";
    assert!(one::<bool>(&mut client, replayed, &[]));
    assert_no_violations(&mut client);

    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    wait_until("it is posted", || queue(&mut client) == 0);
    assert!(check(&mut client, "clone guard").is("ok"));
    assert_eq!(one::<i64>(&mut client, used, &[]), before + 827);
    let setup = described(&mut client);
    assert_eq!(one::<i32>(&mut client, "SELECT exa_billing.setup()", &[]), 3);
    assert_same("catalog after setup()", &setup, &described(&mut client));
    assert_no_violations(&mut client);

    // And it can be dumped with the newer release's programs.
    drop(Dump::of(&new, "app", &["-Fc"]));
}

#[test]
fn pg_upgrade_brings_the_books_along() {
    for bin in old_releases() {
        assert_upgrades(&bin);
    }
}
