//! Logical replication: with a publication of all tables the books go on as ever, and a subscriber that
//! takes over has the same figures and goes on from there.

mod books_common;
mod common;
mod copies_common;
mod dump_common;
mod health_common;

use books_common::{assert_no_violations, assert_same, figures, texts};
use common::{Server, one, run_sql, wait_until};
use copies_common::*;
use dump_common::{Dump, succeeds, tool};
use health_common::check;
use postgres::Client;

/// Filled books in a database `app`, everything in it published, and the worker at work.
fn publisher() -> (Server, Client) {
    let server = Server::start(
        "publisher",
        &[("wal_level", "logical"), ("exa_billing.evaluation_delay", "0")],
    );
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    let mut client = server.client("app");
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    fill_all(&mut client, "app_role");
    run_sql(
        &mut client,
        "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)",
    );
    serve(&server, "app");
    wait_until("it is posted", || queue(&mut client) == 0);
    (server, client)
}

/// The same tables without rows, in a database `app` whose worker looks at it too.
fn subscriber(publisher: &Server) -> (Server, Client) {
    let conf = [("wal_level", "logical"), ("wal_retrieve_retry_interval", "100ms")];
    let server = Server::start("subscriber", &conf);
    let dump = Dump::of(publisher, "app", &["-Fc", "--schema-only", "--no-publications"]);
    for statement in
        ["CREATE ROLE exa_billing_owner", "CREATE ROLE app_role", "CREATE DATABASE app"]
    {
        run_sql(&mut server.client("postgres"), statement);
    }
    succeeds(&tool(&server, "pg_restore", "app", &["-e", dump.path()]));
    serve(&server, "app");
    let mut client = server.client("app");
    let source =
        format!("host={} port={} user=postgres dbname=app", publisher.host(), publisher.port());
    run_sql(
        &mut client,
        &format!("CREATE SUBSCRIPTION books CONNECTION '{source}' PUBLICATION everything"),
    );
    wait_until("all tables are copied", || {
        one(&mut client, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel", &[])
    });
    (server, client)
}

/// Waits until the subscriber has everything, while nothing is written.
fn wait_until_equal(from: &mut Client, to: &mut Client) {
    let written: String = one(from, "SELECT pg_current_wal_lsn()::text", &[]);
    let applied = format!(
        "SELECT coalesce(bool_and(replay_lsn >= '{written}'), false) FROM pg_stat_replication
         WHERE application_name = 'books'"
    );
    wait_until("everything is applied", || one(from, &applied, &[]));
    assert_same("rows", &rows(from), &rows(to));
    assert_same("figures", &figures(from), &figures(to));
}

#[test]
fn a_subscriber_takes_over_from_books_that_are_all_published() {
    let (publisher, mut client) = publisher();
    let (subscriber, mut copy) = subscriber(&publisher);
    let keyless = "SELECT c.oid::regclass::text FROM pg_class AS c
                   WHERE relnamespace = 'exa_billing'::regnamespace AND relkind IN ('r', 'p')
                     AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)";
    assert_eq!(texts(&mut client, keyless), [""; 0]);

    // All kinds of changes: posted rows go, baselines and descriptions change, keys are kept.
    run_sql(&mut client, &CHARGES.replace("(1000", "(2000"));
    run_sql(
        &mut client,
        "UPDATE shop.llm SET cost = cost + 5 WHERE id = 3; DELETE FROM shop.llm WHERE id = 4;
         SELECT exa_billing.grant_credit('user', 'user-1', 400, now() + interval '1 day');
         SELECT exa_billing.recompute_user_balances('user-1');
         SELECT exa_billing.erase_user('user-0');
         SELECT exa_billing.maintain_partitions(14)",
    );
    wait_until("it is posted", || queue(&mut client) == 0);
    wait_until("it is evaluated", || evaluations(&mut client) == 0);
    // Only the rows come along; months that the publisher has made later are its own.
    let months =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'exa_billing.spend_log'::regclass";
    let ahead: i64 = one(&mut client, months, &[]);
    assert_eq!(one::<i64>(&mut copy, months, &[]), ahead - 2);
    run_sql(&mut copy, "SELECT exa_billing.maintain_partitions(14)");
    assert_eq!(one::<i64>(&mut copy, months, &[]), ahead);
    serve(&publisher, "");
    wait_until_left(&publisher, "app");
    run_sql(&mut client, &CHARGES.replace("(1000", "(3000"));
    wait_until_equal(&mut client, &mut copy);
    assert_eq!(queue(&mut copy), 21);
    assert_no_violations(&mut client);
    assert_no_violations(&mut copy);
    let log = format!("{}{}", publisher.log(), subscriber.log());
    assert!(!log.contains("ERROR"), "{log}");

    // The worker that looks at it waits until it is told to take over.
    wait_for_a_round(&subscriber, "app");
    assert_eq!(queue(&mut copy), 21);
    let guard = check(&mut copy, "clone guard");
    assert!(guard.is("critical") && guard.figure.starts_with("a copy"), "{guard:?}");

    drop(client);
    publisher.stop("immediate");
    run_sql(&mut copy, "ALTER SUBSCRIPTION books DISABLE");
    run_sql(&mut copy, "ALTER SUBSCRIPTION books SET (slot_name = NONE)");
    run_sql(&mut copy, "DROP SUBSCRIPTION books");
    let used = "SELECT microdollars_used::bigint FROM exa_billing.account_balances WHERE owner_id = 'user-1'";
    let before: i64 = one(&mut copy, used, &[]);
    run_sql(&mut copy, "SELECT exa_billing.record_exa_usage('user-1', '/search', 4000)");
    run_sql(&mut copy, "INSERT INTO shop.llm VALUES (4000, 'user-1', NULL, 321, now())");
    assert_eq!(one::<i64>(&mut copy, used, &[]), before + 4321);
    let replayed = "SELECT is_replay FROM exa_billing.record_exa_usage('user-1', '/contents', 1001,
                        'org-1', 'key-1')";
    assert!(one::<bool>(&mut copy, replayed, &[]));
    assert_eq!(one::<i32>(&mut copy, "SELECT exa_billing.setup()", &[]), 3);
    run_sql(&mut copy, "SELECT exa_billing.start_worker()");
    wait_until("it is posted", || queue(&mut copy) == 0);
    assert_eq!(one::<i64>(&mut copy, used, &[]), before + 4321);
    assert!(check(&mut copy, "clone guard").is("ok"));
    assert_no_violations(&mut copy);
}
