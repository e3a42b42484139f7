//! Dumps of whole books and of parts of them: everything filled, row security on, a table attached;
//! single schemas; the rows alone; books of an older library.

mod books_common;
mod common;
mod copies_common;
mod dump_common;

use books_common::{assert_no_violations, assert_same, catalog, figures, texts};
use common::{Database, Server, error_of, one, run_sql};
use copies_common::*;
use dump_common::{Dump, said, succeeds, tool};
use postgres::Client;

/// Books with something in every table, and a role that has rights on them; it is dropped at the end.
struct Source {
    db: Database,
    role: String,
}

fn source(server: &Server) -> (Source, Client) {
    let db = server.database();
    let role = format!("app_{}", db.name());
    let mut client = db.client();
    fill_all(&mut client, &role);
    (Source { db, role }, client)
}

impl Source {
    fn name(&self) -> &str {
        self.db.name()
    }

    fn end(self, target: Database) {
        drop(target);
        let mut admin = Server::shared().client("postgres");
        let role = self.role.clone();
        drop(self);
        // Its right on a parameter is the whole server's.
        run_sql(&mut admin, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
    }
}

/// What the catalog says, but for the text of views: PostgreSQL spells the names of columns that
/// have none differently once it has read its own spelling.
fn described(client: &mut Client) -> Vec<String> {
    catalog(client).into_iter().filter(|line| !line.contains("\"_RETURN\"")).collect()
}

fn used(client: &mut Client) -> i64 {
    let sql = "SELECT microdollars_used::bigint FROM exa_billing.account_balances
               WHERE owner_id = 'user-1'";
    one(client, sql, &[])
}

/// Charges a request and a row of the attached table.
fn charge(client: &mut Client) {
    let before = used(client);
    run_sql(client, "SELECT exa_billing.record_exa_usage('user-1', '/search', 4000)");
    run_sql(
        client,
        "INSERT INTO shop.llm VALUES ((SELECT 1 + max(id) FROM shop.llm), 'user-1', NULL, 321, now())",
    );
    assert_eq!(used(client), before + 4321);
    assert_no_violations(client);
}

fn assert_restored(source: &mut Client, restored: &mut Client) {
    assert_same("rows", &rows(source), &rows(restored));
    assert_same("figures", &figures(source), &figures(restored));
    assert_same("catalog", &described(source), &described(restored));
    assert_no_violations(restored);
    charge(restored);
    run_sql(restored, "SELECT exa_billing.post_spend()");
    assert_eq!(queue(restored), 0);
    assert_no_violations(restored);
}

#[test]
fn everything_comes_back_with_row_security_and_attached_tables() {
    let server = Server::shared();
    let (source, mut client) = source(&server);
    let dump = Dump::of(&server, source.name(), &["-Fd", "-j2"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-j2", "-e", dump.path()]));
    assert_restored(&mut client, &mut target.client());
    source.end(target);
}

#[test]
fn the_books_schema_alone_is_dumped_with_its_extension() {
    let server = Server::shared();
    let (source, mut client) = source(&server);
    run_sql(&mut client, "SELECT exa_billing.detach_spend_source('llm')");
    let (shown, before) = (figures(&mut client), rows(&mut client));
    let check = |target: Database| {
        let mut restored = target.client();
        assert_same("rows", &before, &rows(&mut restored));
        assert_same("figures", &shown, &figures(&mut restored));
        assert_no_violations(&mut restored);
        run_sql(&mut restored, "SELECT exa_billing.record_exa_usage('user-1', '/search', 4000)");
        run_sql(&mut restored, "SELECT exa_billing.post_spend()");
        assert_no_violations(&mut restored);
        target
    };
    // The extension by its name: -n alone leaves it out.
    let dump = Dump::of(&server, source.name(), &["-n", "exa_billing", "-e", "exa_billing"]);
    let target = server.empty_database();
    let psql = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump.path()];
    succeeds(&tool(&server, "psql", target.name(), &psql));
    drop(check(target));
    drop(dump);

    // Out of a whole dump, or of one without it, into a database that has the extension.
    for options in [&["-Fc"][..], &["-Fc", "-n", "exa_billing"]] {
        let dump = Dump::of(&server, source.name(), options);
        let target = server.database();
        let part = ["-n", "exa_billing", "-e", dump.path()];
        succeeds(&tool(&server, "pg_restore", target.name(), &part));
        drop(check(target));
    }
    source.end(server.empty_database());
}

/// Its triggers come along; nothing is charged until the table is attached to the books of its new
/// database.
#[test]
fn the_schema_of_an_attached_table_alone_wants_to_be_attached() {
    let server = Server::shared();
    let (source, mut client) = source(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc", "-n", "shop"]);
    let target = server.database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-e", dump.path()]));
    let mut restored = target.client();
    let ids = "SELECT array_agg(id ORDER BY id)::text FROM shop.llm";
    assert_eq!(one::<String>(&mut restored, ids, &[]), one::<String>(&mut client, ids, &[]));
    let insert = "INSERT INTO shop.llm VALUES ((SELECT 1 + max(id) FROM shop.llm), 'user-1', NULL, 321, now())";
    let error = error_of(&mut restored, insert);
    assert_eq!(error.code, "55000");
    assert!(error.hint.expect("what helps").contains("attach_spend_source()"));
    run_sql(&mut restored, ATTACH);
    run_sql(&mut restored, insert);
    let spent = "SELECT sum(cost)::bigint FROM shop.llm WHERE who = 'user-1' AND org IS NULL";
    assert_eq!(used(&mut restored), one::<i64>(&mut restored, spent, &[]));
    assert_no_violations(&mut restored);

    // Without the extension the triggers are what does not come back.
    let bare = server.empty_database();
    let output = tool(&server, "pg_restore", bare.name(), &[dump.path()]);
    let errors: Vec<String> =
        said(&output).lines().filter(|line| line.contains("ERROR")).map(str::to_owned).collect();
    assert!(
        !errors.is_empty() && errors.iter().all(|line| line.contains("exa_billing")),
        "{errors:?}"
    );
    assert_eq!(one::<String>(&mut bare.client(), ids, &[]), one::<String>(&mut client, ids, &[]));
    drop(bare);
    source.end(target);
}

/// The rows alone, after the schema, want their triggers off: a table that is attached would charge what
/// it is given.
#[test]
fn rows_alone_are_restored_with_triggers_off() {
    let server = Server::shared();
    let (source, mut client) = source(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["--schema-only", "-e", dump.path()]));
    let data = ["--data-only", "--disable-triggers", "-e", dump.path()];
    succeeds(&tool(&server, "pg_restore", target.name(), &data));
    let mut restored = target.client();
    assert_same("rows", &rows(&mut client), &rows(&mut restored));
    assert_same("figures", &figures(&mut client), &figures(&mut restored));
    charge_without_proof(&mut restored);
    // What switched the triggers on again did it for origins only.
    let violations = texts(&mut restored, VIOLATIONS);
    assert!(
        !violations.is_empty()
            && violations.iter().all(|line| line.contains("guard") || line.contains("trigger")),
        "{violations:#?}"
    );
    run_sql(&mut restored, "SELECT exa_billing.setup()");
    assert_no_violations(&mut restored);
    assert_same("catalog", &described(&mut client), &described(&mut restored));

    let other = server.empty_database();
    succeeds(&tool(&server, "pg_restore", other.name(), &["--schema-only", "-e", dump.path()]));
    succeeds(&tool(&server, "pg_restore", other.name(), &["--data-only", "-e", dump.path()]));
    let violations = texts(&mut other.client(), VIOLATIONS);
    assert!(
        violations.iter().any(|line| line.contains("1 records in the journals, 2 counted")),
        "{violations:#?}"
    );
    drop(other);
    source.end(target);
}

const VIOLATIONS: &str = "SELECT v::text FROM exa_billing.verify_books() AS v";

fn charge_without_proof(client: &mut Client) {
    let before = used(client);
    run_sql(client, "SELECT exa_billing.record_exa_usage('user-1', '/search', 4000)");
    run_sql(
        client,
        "INSERT INTO shop.llm VALUES ((SELECT 1 + max(id) FROM shop.llm), 'user-1', NULL, 321, now())",
    );
    assert_eq!(used(client), before + 4321);
}

/// Takes books back to what the library before the background jobs made.
const OLDER: &str = "
    DROP VIEW exa_billing.health, exa_billing.worker_jobs;
    DROP TABLE exa_billing.worker_registration, exa_billing.job_runs, exa_billing.books_proof;
    DELETE FROM exa_billing.storage_migrations WHERE version = 3;
    UPDATE exa_billing.applied_scripts SET content_hash = 'older' WHERE script_name = 'views'";

#[test]
fn books_of_an_older_library_are_restored_into_a_newer_one() {
    let server = Server::shared();
    let (source, mut client) = source(&server);
    let newest = described(&mut client);
    run_sql(&mut client, OLDER);
    let dump = Dump::of(&server, source.name(), &["-Fc"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-j2", "-e", dump.path()]));
    let mut restored = target.client();
    assert_same("rows", &rows(&mut client), &rows(&mut restored));
    assert_same("figures", &figures(&mut client), &figures(&mut restored));
    charge(&mut restored);
    assert_eq!(one::<i64>(&mut restored, "SELECT exa_billing.post_spend(5)", &[]), 5);
    assert_no_violations(&mut restored);

    let (shown, balance) = (figures(&mut restored), used(&mut restored));
    assert_eq!(one::<i32>(&mut restored, "SELECT exa_billing.setup()", &[]), 3);
    assert_same("figures", &shown, &figures(&mut restored));
    assert_eq!(used(&mut restored), balance);
    assert_same("catalog", &newest, &described(&mut restored));
    run_sql(&mut restored, "SELECT exa_billing.start_worker()");
    run_sql(&mut restored, "CALL exa_billing.run_maintenance()");
    assert_eq!(queue(&mut restored), 0);
    charge_without_proof(&mut restored);
    assert_no_violations(&mut restored);
    source.end(target);
}
