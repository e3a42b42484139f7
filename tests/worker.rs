//! The background worker: it posts and makes partitions by itself, and whatever happens to the
//! database, the extension or the server, it goes on afterwards.

mod books_common;
mod common;
mod worker_common;

use books_common::{assert_no_violations, texts};
use common::{Server, one, run_sql, wait_until};
use postgres::NoTls;
use worker_common::*;

#[test]
fn it_serves_a_database_from_its_first_charge_on() {
    let server = Server::start("first", &[]);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    let mut client = server.client("app");
    serve(&server, "app");
    wait_until("the worker runs", || workers(&mut client, "app").len() == 1);
    let worker = workers(&mut client, "app");
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    assert_served(&mut client);
    assert_eq!(workers(&mut client, "app"), worker);
    // Autovacuum learns of the queue's dead rows.
    wait_until("the deleted rows are counted", || {
        let deleted = "SELECT n_tup_del FROM pg_stat_user_tables
                       WHERE schemaname = 'exa_billing' AND relname = 'unposted_spend'";
        one::<i64>(&mut client, deleted, &[]) >= 3
    });
}

#[test]
fn it_lets_rows_gather_under_load_and_posts_them_all_the_same() {
    let (_server, mut client) = serving_app("gathering");
    assert_served(&mut client);
    // Many owners with one row each, two with one row dated ahead or long ago, one with many.
    run_sql(
        &mut client,
        "SELECT count(exa_billing.record_spend('user', 'u' || n, 7, 'variable', 'kiloclaw', 'p',
                    created_at => now() + CASE n WHEN 1 THEN interval '3 seconds'
                                          WHEN 2 THEN interval '-3 hours' ELSE interval '0' END))
         FROM generate_series(1, 700) AS n;
         SELECT count(exa_billing.record_spend('organization', 'busy', 7, 'variable', 'kiloclaw', 'p'))
         FROM generate_series(1, 80)",
    );
    let posted = "SELECT coalesce(sum(microdollars_used), 0)::bigint FROM exa_billing.accounts
                  WHERE owner_id = 'busy' OR owner_id ~ '^u[0-9]+$'";
    wait_until("all of it is posted", || one::<i64>(&mut client, posted, &[]) == 780 * 7);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.unposted_spend", &[]), 0);
    assert_no_violations(&mut client);
}

#[test]
fn it_makes_the_partitions_that_are_missing() {
    let (_server, mut client) = serving_app("months");
    assert_served(&mut client);
    let newest = "SELECT max(relname)::text FROM pg_class WHERE relname ~ '^exa_usage_log_20'
                  AND relkind = 'r'";
    let partition: String = one(&mut client, newest, &[]);
    run_sql(&mut client, &format!("DROP TABLE exa_billing.{partition}"));
    // A new worker looks at once, an old one every hour.
    run_sql(
        &mut client,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'exa_billing worker'",
    );
    wait_until("the partition is back", || one::<String>(&mut client, newest, &[]) == partition);
    assert_served(&mut client);
}

#[test]
fn it_outlives_the_extension() {
    let (_server, mut client) = serving_app("extension");
    assert_served(&mut client);
    run_sql(&mut client, "DROP EXTENSION exa_billing CASCADE");
    run_sql(&mut client, "CREATE EXTENSION exa_billing; SELECT exa_billing.setup()");
    assert_served(&mut client);
    // And once more with the books.
    run_sql(&mut client, "DROP EXTENSION exa_billing CASCADE; DROP SCHEMA exa_billing CASCADE");
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    assert_served(&mut client);
}

#[test]
fn it_is_started_again_when_it_is_terminated() {
    let (_server, mut client) = serving_app("terminated");
    assert_served(&mut client);
    let before = workers(&mut client, "app");
    run_sql(&mut client, &format!("SELECT pg_terminate_backend({})", before[0]));
    wait_until("a new worker runs", || {
        let now = workers(&mut client, "app");
        now.len() == 1 && now != before
    });
    assert_served(&mut client);
}

#[test]
fn the_launcher_is_started_again_when_it_is_terminated() {
    let (server, mut client) = serving_app("launcher");
    assert_served(&mut client);
    let worker = wait_for_worker(&mut client, "app");
    let before: i32 = one(
        &mut client,
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'exa_billing launcher'",
        &[],
    );
    assert_eq!(launcher(&server), Some(before));
    run_sql(&mut client, &format!("SELECT pg_terminate_backend({before})"));
    wait_until("a new launcher runs", || launcher(&server).is_some_and(|pid| pid != before));
    // The one of the launcher that is gone leaves, and makes room for another one; nobody looked after
    // it any more.
    let worker = wait_for_another_worker(&mut client, "app", worker);
    assert_served(&mut client);
    run_sql(&mut client, &format!("SELECT pg_terminate_backend({worker})"));
    wait_for_another_worker(&mut client, "app", worker);
    assert_served(&mut client);
}

#[test]
fn a_reload_adds_and_removes_databases() {
    let server = Server::start("reload", &[]);
    let mut first = create(&server, "first");
    let mut second = create(&server, "Second one");
    serve(&server, "first");
    assert_served(&mut first);
    serve(&server, "first, Second one");
    assert_served(&mut second);
    assert_served(&mut first);

    serve(&server, "Second one");
    wait_until("the worker is gone", || workers(&mut second, "first").is_empty());
    run_sql(&mut first, &CHARGE.replace("$1", "'unserved'"));
    assert_served(&mut second);
    assert_eq!(queue(&mut first), 1);
    assert_no_violations(&mut first);
}

#[test]
fn a_database_that_does_not_exist_holds_back_no_other() {
    let (server, mut app) = serving_app("missing");
    serve(&server, "nowhere,app");
    wait_until("the worker fails", || {
        server.log().contains("cannot serve database \"nowhere\": it does not exist")
    });
    assert_served(&mut app);
    let mut nowhere = create(&server, "nowhere");
    assert_served(&mut nowhere);
    assert_served(&mut app);
}

#[test]
fn a_served_database_can_be_dropped_by_force_and_made_again() {
    let (server, mut client) = serving_app("dropped");
    assert_served(&mut client);
    drop(client);
    run_sql(&mut server.client("postgres"), "DROP DATABASE app WITH (FORCE)");
    let mut client = create(&server, "app");
    assert_served(&mut client);
}

/// Charges that were acknowledged are all posted, each once, however the server ends.
#[test]
fn it_goes_on_after_a_shutdown_and_after_a_crash() {
    let (server, mut client) = serving_app("shutdown");
    assert_served(&mut client);
    let many = "SELECT exa_billing.record_exa_usage('u' || n % 50, '/search', 700)
                FROM generate_series(1, 8000) AS n";
    let cost = "SELECT sum(total_cost_microdollars)::bigint FROM exa_billing.exa_monthly_usage";
    let mut expected = 1500;
    for round in 0..2 {
        run_sql(&mut client, many);
        expected += 8000 * 700;
        if round == 0 {
            server.stop("fast")
        } else {
            server.kill9()
        }
        server.start_again();
        client = server.client("app");
        assert_no_violations(&mut client);
        wait_until("all is posted", || queue(&mut client) == 0);
        assert_eq!(one::<i64>(&mut client, cost, &[]), expected);
        assert_no_violations(&mut client);
    }
    server.stop("fast");
    let log = server.log();
    let failures = log.lines().filter(|line| line.contains("ERROR") || line.contains("PANIC"));
    assert_eq!(failures.count(), 0, "{log}");
}

#[test]
fn it_waits_on_a_standby_until_promotion() {
    let primary = Server::start("primary", &[]);
    let mut writer = create(&primary, "app");
    // Who takes the primary's place goes on with what it did.
    run_sql(&mut writer, "SELECT exa_billing.start_worker()");
    run_sql(&mut writer, &CHARGE.replace("$1", "'one'"));
    let standby = primary.basebackup_standby("standby");
    standby.set_conf(&[("exa_billing.databases", "app")]);
    standby.stop("fast");
    standby.start_again();
    let mut reader = standby.client("app");
    wait_until("the launcher runs", || launcher(&standby).is_some());
    for key in ["'two'", "'three'"] {
        run_sql(&mut writer, &CHARGE.replace("$1", key));
    }
    wait_until("the charges have arrived", || queue(&mut reader) == 3);
    let seen = "SELECT request_count FROM exa_billing.exa_monthly_usage('u')";
    assert_eq!(one::<i64>(&mut reader, seen, &[]), 3);
    assert_no_violations(&mut reader);
    assert!(!standby.log().contains("ERROR"), "{}", standby.log());

    standby.promote();
    wait_until("the charges are posted", || queue(&mut reader) == 0);
    assert_served(&mut reader);
    assert_eq!(one::<i64>(&mut reader, seen, &[]), 6);
}

#[test]
fn defaults_of_the_database_do_not_stop_it() {
    let server = Server::start("defaults", &[]);
    let mut admin = server.client("postgres");
    run_sql(&mut admin, "CREATE DATABASE app");
    run_sql(
        &mut admin,
        "ALTER DATABASE app SET default_transaction_read_only = on;
         ALTER DATABASE app SET default_transaction_isolation = 'serializable';
         ALTER DATABASE app SET default_transaction_deferrable = on;
         ALTER DATABASE app SET search_path = evil, pg_catalog;
         ALTER DATABASE app SET row_security = off;
         ALTER DATABASE app SET timezone = 'Pacific/Kiritimati';
         ALTER DATABASE app SET statement_timeout = '1ms';
         ALTER DATABASE app SET datestyle = 'German';",
    );
    let mut client = server
        .config("app")
        .options("-c default_transaction_read_only=off -c statement_timeout=0")
        .connect(NoTls)
        .expect("a connection");
    run_sql(
        &mut client,
        "CREATE SCHEMA evil; CREATE TABLE evil.accounts (n int);
         CREATE FUNCTION evil.unnest(text[], text[]) RETURNS TABLE (a text, b text)
             LANGUAGE sql AS 'SELECT NULL, NULL';
         CREATE EXTENSION exa_billing",
    );
    serve(&server, "app");
    assert_served(&mut client);
}

/// The owner of a database is no superuser, and the worker is connected as one.
#[test]
fn names_in_the_search_path_of_the_database_run_nothing() {
    let server = Server::start("names", &[]);
    let mut admin = server.client("postgres");
    run_sql(&mut admin, "CREATE ROLE tenant LOGIN");
    run_sql(&mut admin, "CREATE DATABASE app OWNER tenant");
    run_sql(&mut server.client("app"), "CREATE EXTENSION exa_billing");
    let mut tenant = server.config("app").user("tenant").connect(NoTls).expect("a connection");
    run_sql(&mut tenant, LIES);
    run_sql(&mut tenant, "ALTER DATABASE app SET search_path = lies, pg_catalog");
    serve(&server, "app");
    let mut client = server.config("app").options("-c search_path=public").connect(NoTls);
    let client = client.as_mut().expect("a connection");
    assert_served(client);
    run_sql(
        client,
        "SELECT exa_billing.grant_credit('user', 'u', 5, clock_timestamp() + interval '50 ms')",
    );
    wait_until("the credit has expired", || {
        let expired = "SELECT count(*) FROM exa_billing.credit_transactions
                       WHERE original_transaction_id IS NOT NULL";
        one::<i64>(client, expired, &[]) == 1
    });
    assert_served(client);
    assert_eq!(texts(client, "SELECT DISTINCT c::text FROM lies.canary AS c"), [""; 0]);
}

/// Operators and functions of the kind that looks at the catalog and at the books.
const LIES: &str = r"
    CREATE SCHEMA lies;
    GRANT USAGE ON SCHEMA lies TO PUBLIC;
    CREATE TABLE lies.canary (ran_as text, what text);
    GRANT INSERT, SELECT ON lies.canary TO PUBLIC;
    CREATE FUNCTION lies.sing(what text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog
        AS 'BEGIN INSERT INTO lies.canary VALUES (current_user, what); RETURN true; END';
    CREATE FUNCTION lies.same(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT lies.sing(''name'')';
    CREATE FUNCTION lies.same(int, int) RETURNS boolean LANGUAGE sql AS 'SELECT lies.sing(''int'')';
    CREATE FUNCTION lies.same(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT lies.sing(''oid'')';
    CREATE FUNCTION lies.same(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT lies.sing(''text'')';
    CREATE FUNCTION lies.same(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql
        AS 'SELECT lies.sing(''timestamptz'')';
    CREATE OPERATOR lies.= (LEFTARG = name, RIGHTARG = name, FUNCTION = lies.same);
    CREATE OPERATOR lies.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = lies.same);
    CREATE OPERATOR lies.= (LEFTARG = text, RIGHTARG = text, FUNCTION = lies.same);
    CREATE OPERATOR lies.<> (LEFTARG = int, RIGHTARG = int, FUNCTION = lies.same);
    CREATE OPERATOR lies.<= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = lies.same);
    CREATE VIEW lies.pg_stat_activity AS SELECT now() AS xact_start WHERE lies.sing('view');
";

/// What somebody put onto the books does not run with the worker's rights either.
#[test]
fn it_posts_nothing_onto_tampered_books_until_they_are_mended() {
    let (server, mut client) = serving_app("tampered");
    assert_served(&mut client);
    run_sql(
        &mut client,
        "CREATE TABLE public.canary (ran_as text);
         CREATE FUNCTION public.sing() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN INSERT INTO public.canary VALUES (current_user); RETURN new; END';
         BEGIN;
         SELECT exa_billing.record_exa_usage('u', '/search', 500);
         CREATE TRIGGER t BEFORE UPDATE ON exa_billing.accounts FOR EACH ROW
             EXECUTE FUNCTION public.sing();
         COMMIT;",
    );
    wait_until("the worker says why", || server.log().contains("have been tampered with"));
    assert_eq!(queue(&mut client), 1);
    run_sql(&mut client, "DROP TRIGGER t ON exa_billing.accounts");
    assert_served(&mut client);
    assert_eq!(texts(&mut client, "SELECT ran_as FROM public.canary"), [""; 0]);
}
