//! The harness itself: servers and databases come, do what they are told, and go.

mod common;

use common::{Server, error_of, one, run_sql, sqlstate, wait_until};

#[test]
fn a_database_has_the_extension_and_goes() {
    let server = Server::shared();
    let name;
    {
        let db = server.database();
        name = db.name().to_owned();
        let version: String = one(
            &mut db.client(),
            "select extversion from pg_extension where extname = 'exa_billing'",
            &[],
        );
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        // Neither an open session nor a prepared transaction keeps it.
        let mut open = db.client();
        run_sql(
            &mut open,
            "create table t (n int); begin; insert into t values (1); prepare transaction 'p'",
        );
    }
    let left: i64 = one(
        &mut server.client("postgres"),
        "select count(*) from pg_database where datname = $1",
        &[&name],
    );
    assert_eq!(left, 0);
}

#[test]
fn clients_have_the_role_and_the_settings_asked_for() {
    let db = Server::shared().empty_database();
    let extensions: i64 = one(
        &mut db.client(),
        "select count(*) from pg_extension where extname = 'exa_billing'",
        &[],
    );
    assert_eq!(extensions, 0);

    let role = format!("role_of_{}", db.name());
    run_sql(&mut db.client(), &format!("create role {role} login"));
    let user: String = one(&mut db.client_as(&role), "select current_user::text", &[]);
    assert_eq!(user, role);
    run_sql(&mut db.client(), &format!("drop role {role}"));

    let zone: String = one(
        &mut db.client_with("-c timezone=Pacific/Auckland"),
        "select current_setting('timezone')",
        &[],
    );
    assert_eq!(zone, "Pacific/Auckland");
}

#[test]
fn errors_are_told() {
    let db = Server::shared().empty_database();
    let mut client = db.client();
    let error = error_of(
        &mut client,
        "do $$ begin raise 'no' using errcode = 'EX001', detail = 'd', hint = 'h'; end $$",
    );
    assert_eq!(error.code, "EX001");
    assert_eq!(error.message, "no");
    assert_eq!((error.detail.as_deref(), error.hint.as_deref()), (Some("d"), Some("h")));
    assert_eq!(sqlstate(client.query("select 1 / 0", &[])), "22012");
}

#[test]
#[should_panic(expected = "an error was expected")]
fn a_statement_that_succeeds_is_not_an_error() {
    error_of(&mut Server::shared().client("postgres"), "select 1");
}

#[test]
fn a_server_of_its_own_survives_a_crash() {
    let server = Server::start("crash", &[("work_mem", "5MB")]);
    let db = server.database();
    let mut client = db.client();
    assert_eq!(one::<String>(&mut client, "select current_setting('work_mem')", &[]), "5MB");
    run_sql(&mut client, "create table t (n int); insert into t values (1)");

    server.kill9();
    assert!(client.is_closed() || client.batch_execute("select 1").is_err());
    server.start_again();
    assert_eq!(one::<i32>(&mut db.client(), "select n from t", &[]), 1);
    assert!(server.log().contains("was not properly shut down"));

    server.set_conf(&[("work_mem", "6MB"), ("harness.quoted", "it's")]);
    server.reload();
    assert_eq!(one::<String>(&mut db.client(), "select current_setting('work_mem')", &[]), "6MB");
    assert_eq!(
        one::<String>(&mut db.client(), "select current_setting('harness.quoted')", &[]),
        "it's"
    );

    server.stop("fast");
    server.start_again();
    let output = server.run(
        server.bin("pg_dump"),
        &["-h", server.host(), "-p", &server.port().to_string(), "-U", "postgres", db.name()],
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("CREATE EXTENSION"));

    let data = server.data();
    drop(server);
    assert!(!data.exists());
}

#[test]
fn a_standby_follows_and_can_be_promoted() {
    let primary = Server::start("primary", &[]);
    let standby = primary.basebackup_standby("standby");
    run_sql(&mut primary.client("postgres"), "create table t (n int); insert into t values (1)");
    let mut client = standby.client("postgres");
    wait_until("the standby has the row", || {
        client.query("select n from t", &[]).is_ok_and(|rows| rows.len() == 1)
    });
    assert_eq!(error_of(&mut client, "insert into t values (2)").code, "25006");
    standby.promote();
    run_sql(&mut client, "insert into t values (2)");
}
