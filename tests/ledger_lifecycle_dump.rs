//! pg_dump and restore of databases with attached tables: figures, guards and rights come back, and
//! capture goes on at once, although oids and the numbers of columns are others.

mod books_common;
mod common;
mod dump_common;
mod ledger_ddl_common;

use books_common::{assert_no_violations, assert_same, contents, figures, texts};
use common::{Database, Server, error_of, one, run_sql};
use dump_common::{Dump, succeeds, tool};
use ledger_ddl_common::{
    AT, COLUMNS, Role, attach, attaching, detach, readable, spend, spending, traces, used,
    violations,
};
use postgres::Client;

/// A plain and a partitioned table in a schema exa_billingowner cannot enter, of an owner of their
/// own; columns were dropped, renamed and swapped and the tables renamed since they were attached.
/// A third one was detached. User u was charged 100 + 20 + 5 by them.
fn source(server: &Server) -> (Database, Role) {
    let db = server.database();
    let owner = Role::new(&db, "owner");
    let (mut client, name) = (db.client(), &owner.name);
    run_sql(
        &mut client,
        &format!(
            "SELECT exa_billing.setup(); CREATE SCHEMA app AUTHORIZATION {name};
             GRANT USAGE ON SCHEMA exa_billing TO {name};
             GRANT EXECUTE ON FUNCTION exa_billing.capture_spend, exa_billing.refuse_truncate TO {name};
             SET ROLE {name};
             CREATE TABLE app.plain (junk int, more text, {COLUMNS}, late int);
             CREATE TABLE app.gone ({COLUMNS});
             CREATE TABLE app.parts (junk int, {COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE app.parts_a PARTITION OF app.parts FOR VALUES IN ('a');
             CREATE TABLE app.parts_b (cost bigint, at timestamptz, model text, user_id text, org_id text,
                 region text, id int, junk int);
             ALTER TABLE app.parts ATTACH PARTITION app.parts_b FOR VALUES IN ('b');
             RESET ROLE"
        ),
    );
    for table in ["plain", "gone", "parts"] {
        attach(&mut client, table, &format!("app.{table}"));
    }
    spend(&mut client, "app.gone", "u", 5);
    detach(&mut client, "gone");
    run_sql(
        &mut client,
        "ALTER TABLE app.plain DROP junk, DROP more; ALTER TABLE app.parts DROP junk;
         ALTER TABLE app.plain RENAME TO \"Plain; Ledger\";
         ALTER TABLE app.\"Plain; Ledger\" RENAME cost TO swap;
         ALTER TABLE app.\"Plain; Ledger\" RENAME region TO cost;
         ALTER TABLE app.\"Plain; Ledger\" RENAME swap TO region;
         ALTER SCHEMA app RENAME TO shop",
    );
    run_sql(&mut client, &plain("u", 100));
    run_sql(&mut client, "SELECT exa_billing.post_spend()");
    run_sql(&mut client, &spending("shop.parts", "b", "u", 20));
    assert_eq!(used(&mut client, "u"), 125);
    assert_no_violations(&mut client);
    (db, owner)
}

/// The insert of a charge into the plain table, whose region holds the amounts now.
fn plain(user: &str, cost: i64) -> String {
    format!(
        "INSERT INTO shop.\"Plain; Ledger\" (user_id, region, at) VALUES ('{user}', {cost}, {AT})"
    )
}

fn charge(client: &mut Client) {
    run_sql(client, &plain("u", 1_000));
    run_sql(client, &spending("shop.parts", "a", "u", 20_000));
    run_sql(client, &spending("shop.parts_b", "b", "u", 300_000));
}

/// Everything is as it was and goes on, at once and after setup().
fn assert_restored(source: &mut Client, restored: &mut Client) {
    let rows = |client: &mut Client| {
        // The registry follows while the triggers are restored: its oids are the new ones.
        let all = contents(client).into_iter();
        all.filter(|line| !line.contains("spend_sources")).collect::<Vec<_>>()
    };
    assert_same("rows", &rows(source), &rows(restored));
    assert_same("figures", &figures(source), &figures(restored));
    assert_same("guards and rights", &traces(source), &traces(restored));
    let numbers = "SELECT attnum::int FROM pg_attribute
                   WHERE attrelid = 'shop.\"Plain; Ledger\"'::regclass AND attname = 'region'";
    let number: i32 = one(source, numbers, &[]);
    assert_eq!(one::<i32>(restored, numbers, &[]), number - 2);

    assert_no_violations(restored);
    charge(restored);
    assert_eq!(used(restored, "u"), 321_125);
    assert_no_violations(restored);
    for (statement, refused) in [
        ("DROP TABLE shop.\"Plain; Ledger\"", true),
        ("ALTER TABLE shop.\"Plain; Ledger\" DROP region", true),
        ("ALTER TABLE shop.\"Plain; Ledger\" ALTER at TYPE date", true),
        ("TRUNCATE shop.parts_b", true),
        ("ALTER TABLE shop.parts DETACH PARTITION shop.parts_a", true),
        ("ALTER TABLE shop.\"Plain; Ledger\" DROP late", false),
        ("DROP TABLE shop.gone", false),
    ] {
        if refused {
            assert_eq!(error_of(restored, statement).code, "55000", "{statement}");
        } else {
            run_sql(restored, statement);
        }
    }
    run_sql(restored, "SELECT exa_billing.setup()");
    let registered = texts(
        restored,
        "SELECT concat_ws(' ', source_name, relation_oid::regclass, cardinality(partition_oids),
                    (SELECT count(*) FROM unnest(partition_oids) AS p JOIN pg_class AS c ON c.oid = p),
                    (SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute
                     WHERE attrelid = relation_oid AND attnum IN (
                         SELECT n::int FROM jsonb_path_query(column_map, 'strict $.**.number') AS n)))
         FROM exa_billing.spend_sources WHERE NOT is_own AND detached_at IS NULL ORDER BY 1",
    );
    assert_eq!(
        registered,
        [
            "parts shop.parts 3 3 user_id,org_id,cost,at,model",
            "plain shop.\"Plain; Ledger\" 1 1 user_id,org_id,region,at,model"
        ]
    );
    charge(restored);
    assert_eq!(used(restored, "u"), 642_125);
    run_sql(
        restored,
        "ALTER TABLE shop.parts RENAME cost TO price; DELETE FROM shop.parts WHERE price = 20000",
    );
    assert_eq!(used(restored, "u"), 602_125);
    assert_eq!(
        error_of(restored, "ALTER TABLE shop.parts DETACH PARTITION shop.parts_b").code,
        "55000"
    );
    assert_no_violations(restored);
    let change = "SELECT new_microdollars_used - previous_microdollars_used
                  FROM exa_billing.recompute_user_balances('u')";
    assert_eq!(one::<i64>(restored, change, &[]), 0);
    for source in ["plain", "parts"] {
        detach(restored, source);
    }
    assert_eq!(traces(restored), [""; 0]);
    assert_eq!(used(restored, "u"), 602_125);
    assert_no_violations(restored);
}

#[test]
fn a_plain_dump_restores_attached_tables() {
    let server = Server::shared();
    let (source, owner) = source(&server);
    let dump = Dump::of(&server, source.name(), &[]);
    let target = server.empty_database();
    let arguments = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", dump.path()];
    succeeds(&tool(&server, "psql", target.name(), &arguments));
    assert_restored(&mut source.client(), &mut target.client());
    run_sql(&mut target.client(), "DROP SCHEMA shop CASCADE; DROP EXTENSION exa_billing CASCADE");
    run_sql(&mut target.client(), &format!("DROP OWNED BY {}", owner.name));
}

#[test]
fn a_custom_dump_restores_attached_tables_in_parallel() {
    let server = Server::shared();
    let (source, owner) = source(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-j2", "-e", dump.path()]));
    assert_restored(&mut source.client(), &mut target.client());
    run_sql(&mut target.client(), &format!("DROP OWNED BY {} CASCADE", owner.name));
}

/// Without the rows of the registry nothing is attached, and the triggers that came along say so.
#[test]
fn a_dump_of_the_schema_only_wants_its_tables_attached_again() {
    let server = Server::shared();
    let (source, owner) = source(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc", "--schema-only"]);
    let target = server.empty_database();
    succeeds(&tool(&server, "pg_restore", target.name(), &["-e", dump.path()]));
    let mut client = target.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    assert_no_violations(&mut client);
    for insert in [plain("u", 7), spending("shop.parts", "a", "u", 7)] {
        let error = error_of(&mut client, &insert);
        assert_eq!(error.code, "55000");
        assert!(error.hint.expect("what helps").contains("attach_spend_source()"));
    }
    // Who does not want them drops the triggers; nothing is attached that would mind.
    run_sql(
        &mut client,
        "DROP TRIGGER exa_billing_capture_insert ON shop.parts; DROP TABLE shop.parts_a;
         ALTER TABLE shop.parts DETACH PARTITION shop.parts_b",
    );
    run_sql(
        &mut client,
        &spending("shop.parts_b", "b", "u", 7).replace("shop.parts_b", "shop.gone"),
    );
    attach(&mut client, "again", "shop.gone");
    run_sql(&mut client, "ALTER TABLE shop.\"Plain; Ledger\" RENAME region TO price");
    let call = attaching("plain", "shop.\"Plain; Ledger\"").replace("\"cost\"", "\"price\"");
    run_sql(&mut client, &call);
    run_sql(&mut client, &plain("u", 30).replace("region", "price"));
    assert_eq!(used(&mut client, "u"), 37);
    assert_no_violations(&mut client);
    for source in ["again", "plain"] {
        detach(&mut client, source);
    }
    assert_eq!(used(&mut client, "u"), 37);
    run_sql(&mut client, &format!("DROP OWNED BY {} CASCADE", owner.name));
}

/// A dump of the application's schema alone has the triggers but not the function's schema.
#[test]
fn rows_are_restored_into_a_database_of_their_own_without_being_charged() {
    let server = Server::shared();
    let (source, owner) = source(&server);
    let dump = Dump::of(&server, source.name(), &["-Fc"]);
    let target = server.empty_database();
    for part in ["--section=pre-data", "--section=data", "--section=post-data"] {
        succeeds(&tool(&server, "pg_restore", target.name(), &[part, "-e", dump.path()]));
    }
    let mut client = target.client();
    assert_eq!(used(&mut client, "u"), 125);
    assert_eq!(violations(&mut client), [""; 0]);
    assert_eq!(readable(&mut client, "shop.parts").len(), 5);
    charge(&mut client);
    assert_eq!(used(&mut client, "u"), 321_125);
    assert_no_violations(&mut client);
    for source in ["plain", "parts"] {
        detach(&mut client, source);
    }
    run_sql(&mut client, &format!("DROP OWNED BY {} CASCADE", owner.name));
}
