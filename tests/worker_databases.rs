//! The background worker and databases as wholes: it is in nobody's way who wants one for himself, serves
//! those with odd names, and what cannot be served is said once and holds back no other.

mod books_common;
mod common;
mod health_common;
mod worker_common;

use common::{Server, one, run_sql, wait_until};
use health_common::check;
use worker_common::*;

/// Each of these waits five seconds for others to leave, and then fails.
#[test]
fn a_served_database_can_be_dropped_copied_renamed_and_moved() {
    // However long the worker is told to rest.
    let server = Server::start("alone", &[("exa_billing.posting_interval", "1h")]);
    let mut admin = server.client("postgres");
    let mut app = create(&server, "app");
    serve(&server, "app");
    run_sql(&mut app, "SELECT exa_billing.start_worker()");
    run_sql(&mut app, &CHARGE.replace("$1", "'one'"));
    drop(app);
    let places = server.host().to_owned() + "/elsewhere";
    let made = server.run("mkdir", &[&places]);
    assert!(made.status.success());
    run_sql(&mut admin, &format!("CREATE TABLESPACE elsewhere LOCATION '{places}'"));
    for (statement, name) in [
        ("CREATE DATABASE copy TEMPLATE app", "app"),
        ("ALTER DATABASE app SET TABLESPACE elsewhere", "app"),
        ("ALTER DATABASE app SET TABLESPACE pg_default", "app"),
        ("ALTER DATABASE app RENAME TO other", "other"),
        ("ALTER DATABASE other RENAME TO app", "app"),
    ] {
        if name == "app" && !statement.contains("other") {
            wait_for_worker(&mut admin, "app");
        }
        run_sql(&mut admin, statement);
        // Those who have changed something do not have to be patient.
        server.reload();
    }
    // The copy is complete, and nobody has touched it.
    let mut copy = server.client("copy");
    assert_eq!(one::<i64>(&mut copy, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]), 1);
    drop(copy);

    let before = wait_for_worker(&mut admin, "app");
    run_sql(&mut admin, "DROP DATABASE app");
    assert!(!is_running(before));
    // Made again under its name, it is served without anybody's doing.
    server.set_conf(&[("exa_billing.posting_interval", "200ms")]);
    server.reload();
    assert_served(&mut create(&server, "app"));
    // It left by itself each time.
    assert_eq!(count_in_log(&server, "terminating background worker \"exa_billing worker"), 0);
    assert_eq!(count_in_log(&server, "ERROR"), 0);
}

/// A step that takes long: posting asks a constraint that sleeps.
const SLOW: &str = "ALTER TABLE exa_billing.accounts ADD CONSTRAINT slow
                        CHECK (pg_catalog.pg_sleep(600) IS NOT NULL) NOT VALID";
const SLEEPS: &str = "SELECT count(*) FROM pg_stat_activity
                      WHERE backend_type = 'exa_billing worker' AND wait_event = 'PgSleep'";

#[test]
fn a_worker_in_the_middle_of_a_long_step_is_in_nobodys_way() {
    let (server, mut app) = serving_app("long");
    let mut admin = server.client("postgres");
    let fall_asleep = |app: &mut postgres::Client, admin: &mut postgres::Client| {
        run_sql(app, &CHARGE.replace("$1", "gen_random_uuid()::text"));
        wait_until("posting sleeps", || one::<i64>(admin, SLEEPS, &[]) == 1);
    };
    assert_served(&mut app);
    run_sql(&mut app, SLOW);
    fall_asleep(&mut app, &mut admin);
    drop(app);
    run_sql(&mut admin, "CREATE DATABASE copy TEMPLATE app");
    server.reload();
    // Its charge waits still, so it sleeps again, and a fast shutdown ends it all the same.
    wait_until("posting sleeps", || one::<i64>(&mut admin, SLEEPS, &[]) == 1);
    let worker = wait_for_worker(&mut admin, "app");
    let launcher = launcher(&server).expect("a launcher");
    drop(admin);
    server.stop("fast");
    assert!(!is_running(worker) && !is_running(launcher));

    server.start_again();
    let mut admin = server.client("postgres");
    wait_until("posting sleeps", || one::<i64>(&mut admin, SLEEPS, &[]) == 1);
    run_sql(&mut admin, "DROP DATABASE app");
    assert!(!is_running(worker));
}

#[test]
fn odd_names_are_served_and_what_is_listed_twice_is_served_once() {
    let long = "n".repeat(62) + "!";
    let names = ["o'brien \"and\" sons", "we,ird ", long.as_str(), "ünïcode"];
    let server = Server::start("names", &[]);
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let list: Vec<String> = names.iter().chain(&names).map(|name| quoted(name)).collect();
    let too_long = "n".repeat(200);
    serve(&server, &format!("{too_long}, {}", list.join(" , ")));
    let mut admin = server.client("postgres");
    for name in names {
        run_sql(&mut admin, &format!("CREATE DATABASE {}", quoted(name)));
        let mut client = server.client(name);
        run_sql(&mut client, "CREATE EXTENSION exa_billing");
        assert_served(&mut client);
        wait_for_worker(&mut admin, name);
    }
    let all = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'exa_billing worker'";
    assert_eq!(one::<i64>(&mut admin, all, &[]), 4);
    assert_eq!(count_in_log(&server, &format!("cannot serve database \"{too_long}\": it")), 1);
}

#[test]
fn what_cannot_be_served_is_said_once_and_served_as_soon_as_it_can_be() {
    // PostgreSQL's own launcher takes one of these, ours another one.
    let server = Server::start("room", &[("max_worker_processes", "4")]);
    let mut admin = server.client("postgres");
    let mut first = create(&server, "first");
    let mut second = create(&server, "second");
    let mut third = create(&server, "third");
    run_sql(&mut third, "SELECT exa_billing.start_worker()");
    run_sql(&mut admin, "CREATE DATABASE closed ALLOW_CONNECTIONS false");
    serve(&server, "nowhere, closed, first, second, third");
    assert_served(&mut first);
    assert_served(&mut second);
    let no_room = "cannot serve database \"third\": no background worker is free";
    wait_until("it says so", || count_in_log(&server, no_room) == 1);
    let found = check(&mut third, "worker");
    assert!(found.is("critical"), "{found:?}");
    let found = check(&mut third, "databases");
    assert_eq!(found.figure, "2 served of 5 listed");
    let what_to_do = found.what_to_do.expect("what to do");
    assert!(what_to_do.contains("(nowhere)") && what_to_do.contains("max_worker_processes"));

    // Room is made, and the others can be entered.
    serve(&server, "nowhere, closed, third, first");
    assert_served(&mut third);
    assert_served(&mut first);
    serve(&server, "nowhere, closed");
    wait_until("all others are gone", || {
        workers(&mut admin, "first").is_empty() && workers(&mut admin, "third").is_empty()
    });
    run_sql(&mut admin, "ALTER DATABASE closed ALLOW_CONNECTIONS true");
    assert_served(&mut create(&server, "nowhere"));
    let mut closed = server.client("closed");
    run_sql(&mut closed, "CREATE EXTENSION exa_billing");
    assert_served(&mut closed);
    // In all these seconds the launcher has looked many times.
    for words in
        [no_room, "\"nowhere\": it does not exist", "\"closed\": it accepts no connections"]
    {
        assert_eq!(count_in_log(&server, words), 1, "{words}");
    }
    assert_eq!(count_in_log(&server, "FATAL"), count_in_log(&server, "terminating background"));
}

#[test]
fn a_server_in_binary_upgrade_has_no_launcher() {
    let (server, mut app) = serving_app("upgrade");
    assert_served(&mut app);
    run_sql(&mut app, "SELECT exa_billing.stop_worker()");
    run_sql(&mut app, &CHARGE.replace("$1", "'one'"));
    run_sql(&mut app, "SELECT exa_billing.start_worker()");
    drop(app);
    server.stop("fast");
    let start = format!(
        "{} start -w -s -o -b -D {} -l {}/server.log >/dev/null 2>&1",
        server.bin("pg_ctl").display(),
        server.data().display(),
        server.host()
    );
    assert!(server.run("sh", &["-c", &start]).status.success());
    // A server starts its workers before it lets anybody in.
    let mut app = server.client("app");
    let processes = "SELECT count(*) FROM pg_stat_activity WHERE backend_type ~ 'exa_billing'";
    assert_eq!((one::<i64>(&mut app, processes, &[]), launcher(&server)), (0, None));
    assert_eq!(one::<i64>(&mut app, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]), 4);
    drop(app);
    server.stop("fast");
    server.start_again();
    let mut app = server.client("app");
    assert_served(&mut app);
}
