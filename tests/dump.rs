//! pg_dump and restore: every row, figure, right and guard comes back by itself, and charging
//! goes on at once.

mod books_common;
mod common;
mod dump_common;

use books_common::{assert_no_violations, assert_same, catalog, contents, figures, fill};
use common::{Database, Server, one, run_sql};
use dump_common::{Dump, said, succeeds, tool};
use postgres::Client;
use std::path::PathBuf;

/// Books with rights and policies that somebody gave, which a dump has to carry along.
fn filled(server: &Server) -> (Database, String) {
    let db = server.database();
    let role = format!("app_{}", db.name());
    let mut client = db.client();
    fill(&mut client);
    run_sql(
        &mut client,
        &format!(
            "CREATE ROLE {role};
             GRANT USAGE ON SCHEMA exa_billing TO {role};
             GRANT EXECUTE ON FUNCTION exa_billing.post_spend(int) TO {role};
             GRANT SELECT ON exa_billing.account_balances TO {role};
             ALTER TABLE exa_billing.accounts ENABLE ROW LEVEL SECURITY;
             CREATE POLICY own ON exa_billing.accounts FOR SELECT TO {role} USING (owner_id = 'user-1');
             COMMENT ON TABLE exa_billing.accounts IS 'ours';"
        ),
    );
    (db, role)
}

/// What the catalog says, but for the text of views: PostgreSQL spells the names of columns that
/// have none differently once it has read its own spelling. What the views show is compared.
fn described(client: &mut Client) -> Vec<String> {
    catalog(client).into_iter().filter(|line| !line.contains("\"_RETURN\"")).collect()
}

/// Everything is as it was, and goes on.
fn assert_restored(source: &mut Client, restored: &mut Client) {
    assert_same("rows", &contents(source), &contents(restored));
    assert_same("figures", &figures(source), &figures(restored));
    assert_same("catalog", &described(source), &described(restored));
    assert_goes_on(restored);
}

fn assert_goes_on(restored: &mut Client) {
    assert_no_violations(restored);
    let waiting: i64 = one(restored, "SELECT count(*) FROM exa_billing.unposted_spend", &[]);
    let charged = "SELECT charged_microdollars
                   FROM exa_billing.record_exa_usage('user-1', '/search', 777, NULL, 'new')";
    assert_eq!(one::<i64>(restored, charged, &[]), 777);
    let replayed = "SELECT is_replay FROM exa_billing.record_exa_usage('user-1', '/contents', 1001,
                        'org-1', 'key-1')";
    assert!(one::<bool>(restored, replayed, &[]));
    let posted: i64 = one(restored, "SELECT exa_billing.post_spend()", &[]);
    assert_eq!(posted, waiting + 1);
    assert_eq!(one::<i32>(restored, "SELECT exa_billing.setup()", &[]), 3);
    assert_no_violations(restored);
}

fn drop_role(role: &str, databases: &[&Database]) {
    for db in databases {
        run_sql(&mut db.client(), &format!("DROP OWNED BY {role}"));
    }
    run_sql(&mut databases[0].client(), &format!("DROP ROLE {role}"));
}

#[test]
fn a_plain_dump_restores_the_books() {
    let server = Server::shared();
    let (source, role) = filled(&server);
    let dump = Dump::of(&server, source.name(), &[]);
    let target = server.empty_database();
    let arguments = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump.path()];
    succeeds(&tool(&server, "psql", target.name(), &arguments));
    assert_restored(&mut source.client(), &mut target.client());
    drop_role(&role, &[&source, &target]);
}

#[test]
fn a_custom_dump_restores_the_books_in_one_transaction() {
    let server = Server::shared();
    let (source, role) = filled(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["--single-transaction", dump.path()]));
    assert_restored(&mut source.client(), &mut target.client());
    drop_role(&role, &[&source, &target]);
}

#[test]
fn a_directory_dump_restores_the_books_in_parallel() {
    let server = Server::shared();
    let (source, role) = filled(&server);
    let dump = Dump::of(&server, source.name(), &["-Fd", "-j2"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-j2", "-e", dump.path()]));
    assert_restored(&mut source.client(), &mut target.client());
    drop_role(&role, &[&source, &target]);
}

/// A dump is one snapshot; neither an open charge nor later ones get into it.
#[test]
fn a_dump_beside_an_open_charge_is_of_one_moment() {
    let server = Server::shared();
    let (source, role) = filled(&server);
    let mut client = source.client();
    let (rows, shown) = (contents(&mut client), figures(&mut client));
    let mut open = source.client();
    run_sql(&mut open, "BEGIN; SELECT exa_billing.record_exa_usage('user-1', '/search', 5)");
    let dump = Dump::of(&server, source.name(), &["-Fc"]);
    run_sql(&mut open, "COMMIT");

    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-e", dump.path()]));
    let mut restored = target.client();
    assert_same("rows", &rows, &contents(&mut restored));
    assert_same("figures", &shown, &figures(&mut restored));
    assert_goes_on(&mut restored);
    drop_role(&role, &[&source, &target]);
}

#[test]
fn a_dump_of_the_schema_only_is_a_fresh_start() {
    let server = Server::shared();
    let (source, role) = filled(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc", "--schema-only"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-e", dump.path()]));

    let mut client = target.client();
    assert_same("catalog", &described(&mut source.client()), &described(&mut client));
    assert_eq!(figures(&mut client), [""; 0]);
    assert_no_violations(&mut client);
    // Without its rows nothing is known of the books' version and of the dimensions.
    let charged = "SELECT charged_microdollars
                   FROM exa_billing.record_exa_usage('user-1', '/search', 20000000)";
    assert_eq!(one::<i64>(&mut client, charged, &[]), 0);
    assert_eq!(one::<i32>(&mut client, "SELECT exa_billing.setup()", &[]), 3);
    assert_eq!(one::<i64>(&mut client, charged, &[]), 20_000_000);
    assert_eq!(one::<i64>(&mut client, "SELECT exa_billing.post_spend()", &[]), 2);
    let used = "SELECT microdollars_used FROM exa_billing.accounts WHERE owner_id = 'user-1'";
    assert_eq!(one::<i64>(&mut client, used, &[]), 20_000_000);
    assert_no_violations(&mut client);
    drop_role(&role, &[&source, &target]);
}

/// Somebody restores the schema first, then the data, with triggers off, as pg_dump offers.
#[test]
fn schema_and_data_can_be_restored_one_after_the_other() {
    let server = Server::shared();
    let (source, role) = filled(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc"]);
    let target = server.empty_database();
    for part in [["--section=pre-data"], ["--section=data"], ["--section=post-data"]] {
        let arguments = [part[0], "-e", dump.path()];
        succeeds(&tool(&server, "pg_restore", target.name(), &arguments));
    }
    assert_restored(&mut source.client(), &mut target.client());
    drop_role(&role, &[&source, &target]);
}

#[test]
fn a_new_cluster_with_its_roles_takes_the_books() {
    let (old, new) = (Server::start("old", &[]), Server::start("new", &[]));
    let (source, _) = filled(&old);
    let globals = PathBuf::from(old.host()).join("globals.sql").display().to_string();
    let port = old.port().to_string();
    succeeds(&old.run(
        old.bin("pg_dumpall"),
        &["-h", old.host(), "-p", &port, "-U", "postgres", "--globals-only", "-f", &globals],
    ));
    let dump = Dump::of(&old, source.name(), &["-Fc"]);

    // The superuser is there already, which is the only thing psql may stumble over.
    let output = tool(&new, "psql", "postgres", &["-X", "-q", "-f", &globals]);
    let errors: Vec<String> =
        said(&output).lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("role \"postgres\" already exists"), "{errors:?}");

    let target = new.empty_database();
    succeeds(&tool(&new, "pg_restore", target.name(), &["-e", dump.path()]));
    assert_restored(&mut source.client(), &mut target.client());
}

/// Only the schema's ownership comes before the extension, which then makes the role.
#[test]
fn a_new_cluster_without_the_role_takes_the_books_all_the_same() {
    let (old, new) = (Server::start("old", &[]), Server::start("new", &[]));
    let source = old.database();
    fill(&mut source.client());
    let dump = Dump::of(&old, source.name(), &["-Fc"]);
    let target = new.empty_database();
    let output = tool(&new, "pg_restore", target.name(), &[dump.path()]);
    let errors: Vec<String> =
        said(&output).lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert_eq!(errors.len(), 1, "{}", said(&output));
    assert!(errors[0].contains("role \"exa_billing_owner\" does not exist"), "{errors:?}");
    assert_restored(&mut source.client(), &mut target.client());
}
