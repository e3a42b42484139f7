//! What cannot be attached says so and leaves nothing behind; what has a hostile name can, and
//! nothing of the name is run.

mod books_common;
mod common;
mod ledger_ddl_common;

use books_common::{assert_no_violations, texts};
use common::{DbErrorSummary, Server, error_of, one, run_sql};
use ledger_ddl_common::{
    AT, COLUMNS, MAP, attach, attaching, detach, spend, spending, traces, unguarded, used,
    violations,
};
use postgres::Client;
use std::sync::mpsc;
use std::thread;

/// Refused, and no trigger, right or source is there that was not there before.
#[track_caller]
fn refused(client: &mut Client, statement: &str, code: &str) -> DbErrorSummary {
    let before = traces(client);
    let error = error_of(client, statement);
    assert_eq!(error.code, code, "{statement}: {}", error.message);
    assert_eq!(traces(client), before, "{statement}");
    error
}

#[test]
fn only_permanent_tables_of_the_application_are_attached() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        &format!(
            "SET client_min_messages = error;
             CREATE TABLE plain ({COLUMNS}); CREATE TABLE parent ({COLUMNS}); CREATE TABLE child () INHERITS (parent);
             CREATE TABLE root ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE branch PARTITION OF root DEFAULT PARTITION BY LIST (region);
             CREATE TABLE leaf PARTITION OF branch DEFAULT;
             CREATE INDEX root_idx ON root (id); CREATE INDEX plain_idx ON plain (id);
             CREATE UNLOGGED TABLE unlogged ({COLUMNS}); CREATE TEMPORARY TABLE temporary ({COLUMNS});
             CREATE VIEW seen AS SELECT * FROM plain; CREATE MATERIALIZED VIEW stored AS SELECT * FROM plain;
             CREATE SEQUENCE counter; CREATE TYPE pair AS ({});
             CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER away FOREIGN DATA WRAPPER nowhere;
             CREATE FOREIGN TABLE far ({COLUMNS}) SERVER away;
             CREATE TABLE forced ({COLUMNS}); ALTER TABLE forced FORCE ROW LEVEL SECURITY;
             SELECT exa_billing.setup();",
            COLUMNS
        ),
    );
    let month: String = one(
        &mut client,
        "SELECT to_char(now() AT TIME ZONE 'UTC', '\"exa_billing.spend_log_\"YYYY_MM')",
        &[],
    );
    for (relation, why) in [
        ("seen", "no ordinary or partitioned table"),
        ("stored", "no ordinary or partitioned table"),
        ("far", "no ordinary or partitioned table"),
        ("counter", "no ordinary or partitioned table"),
        ("plain_idx", "no ordinary or partitioned table"),
        ("root_idx", "no ordinary or partitioned table"),
        ("pair", "no ordinary or partitioned table"),
        ("temporary", "temporary"),
        ("unlogged", "unlogged"),
        ("branch", "partition"),
        ("leaf", "partition"),
        ("parent", "inheritance"),
        ("child", "inheritance"),
        ("forced", "row security"),
        ("exa_billing.spend_log", "the books"),
        ("exa_billing.accounts", "the books"),
        (&month, "the books"),
        ("pg_catalog.pg_class", "the system"),
        ("information_schema.sql_features", "the system"),
    ] {
        let error = refused(&mut client, &attaching("s", relation), "22023");
        assert!(error.message.ends_with("cannot be attached"), "{relation}: {}", error.message);
        assert!(error.detail.expect("why").contains(why), "{relation}");
        assert!(error.hint.is_some(), "{relation}");
    }
    refused(&mut client, &attaching("s", "missing"), "42P01");
    let error = refused(&mut client, &attaching("s", "4000000000"), "22023");
    assert_eq!(error.message, "relation does not exist");
    let toast: String = one(
        &mut client,
        "SELECT reltoastrelid::regclass::text FROM pg_class WHERE relname = 'plain'",
        &[],
    );
    refused(&mut client, &attaching("s", &toast), "22023");
    for table in ["plain", "root"] {
        attach(&mut client, table, table);
        spend(&mut client, table, "u", 1);
    }
    assert_eq!(used(&mut client, "u"), 2);
    assert_no_violations(&mut client);
}

#[test]
fn columns_that_are_not_there_or_of_another_type_are_named() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        &format!(
            "CREATE TYPE mood AS ENUM ('fine'); CREATE DOMAIN name_of AS text; CREATE DOMAIN money_of AS bigint;
             CREATE TABLE bare (n int);
             CREATE TABLE odd ({COLUMNS}, e mood, d name_of, dm money_of, f float8, nu numeric, m money, s smallint,
                 j jsonb, ts timestamp, da date, c char(9), nm name, a text[], gone bigint, b bytea);
             ALTER TABLE odd DROP gone;
             SELECT exa_billing.setup()"
        ),
    );
    let with = |key: &str, column: &str| {
        let map = MAP.replace('\n', " ");
        let map = match key {
            "amount" => map.replace("\"cost\"", &format!("\"{column}\"")),
            "created_at" => map.replace("\"at\"", &format!("\"{column}\"")),
            _ => map.replace(&format!("\"{key}\": \"{key}\""), &format!("\"{key}\": \"{column}\"")),
        };
        attaching("s", "odd").replace(MAP, &map)
    };
    for (key, column) in [
        ("user_id", "e"),
        ("user_id", "d"),
        ("user_id", "id"),
        ("user_id", "c"),
        ("user_id", "nm"),
        ("user_id", "a"),
        ("user_id", "b"),
        ("amount", "f"),
        ("amount", "nu"),
        ("amount", "m"),
        ("amount", "s"),
        ("amount", "dm"),
        ("amount", "user_id"),
        ("created_at", "ts"),
        ("created_at", "da"),
        ("created_at", "user_id"),
    ] {
        let error = refused(&mut client, &with(key, column), "22023");
        let expected = format!("column_map: {key}: column \"{column}\" has the wrong type");
        assert_eq!(error.message, expected);
        assert!(error.detail.expect("the types").contains("wanted is"));
    }
    for (key, column) in [
        ("user_id", "gone"),
        ("amount", "gone"),
        ("amount", "COST"),
        ("created_at", "ctid"),
        ("amount", "cost; DROP TABLE odd"),
        ("amount", "........pg.dropped.22........"),
    ] {
        let error = refused(&mut client, &with(key, column), "22023");
        assert!(error.message.starts_with(&format!("column_map: {key}: the table has no column")));
    }
    let error = refused(&mut client, &attaching("s", "bare"), "22023");
    assert!(error.message.contains("no column"), "{}", error.message);
    assert_no_violations(&mut client);
}

#[test]
fn a_table_is_attached_once_and_a_name_is_given_once() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, &format!("CREATE TABLE one ({COLUMNS}); CREATE TABLE two ({COLUMNS})"));
    attach(&mut client, "first", "one");
    spend(&mut client, "one", "u", 5);
    for (source, table, message) in [
        ("first", "one", "spend source \"first\" is attached already"),
        ("other", "one", "table \"public\".\"one\" is attached already"),
        ("first", "two", "spend source \"first\" is attached already"),
    ] {
        let error = refused(&mut client, &attaching(source, table), "55000");
        assert_eq!(error.message, message);
        assert!(error.detail.expect("which").contains("\"first\""));
        assert!(error.hint.expect("what helps").contains("detach_spend_source"));
    }
    run_sql(&mut client, "ALTER TABLE one RENAME TO three; CREATE TABLE one (LIKE three)");
    refused(&mut client, &attaching("other", "three"), "55000");
    attach(&mut client, "new", "one");
    spend(&mut client, "one", "u", 20);
    assert_eq!(used(&mut client, "u"), 25);

    detach(&mut client, "first");
    let error = refused(&mut client, &attaching("first", "two"), "55000");
    assert!(error.message.contains("was another table"), "{}", error.message);
    let error = refused(&mut client, "SELECT exa_billing.detach_spend_source('first')", "P0002");
    assert!(error.message.contains("\"first\""), "{}", error.message);
    attach(&mut client, "first", "three");
    assert_eq!(used(&mut client, "u"), 25);
    assert_no_violations(&mut client);
}

/// The second waits for the first and then finds the name taken.
#[test]
fn two_sessions_cannot_give_one_name_to_two_tables() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        &format!(
            "CREATE TABLE one ({COLUMNS}); CREATE TABLE two ({COLUMNS}); SELECT exa_billing.setup()"
        ),
    );
    let mut first = db.client();
    run_sql(&mut first, &format!("BEGIN; {}", attaching("same", "one")));
    let mut second = db.client();
    let waiting: i32 = one(&mut second, "SELECT pg_backend_pid()", &[]);
    let (said, hear) = mpsc::channel();
    let session = thread::spawn(move || {
        said.send(error_of(&mut second, &attaching("same", "two"))).expect("somebody listens");
    });
    common::wait_until("the second session waits for the first", || {
        one(
            &mut client,
            "SELECT count(*) > 0 FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'",
            &[&waiting],
        )
    });
    run_sql(&mut first, "COMMIT");
    let error = hear.recv().expect("its error");
    session.join().expect("the second session");
    assert_eq!(error.code, "55000", "{}", error.message);
    spend(&mut client, "one", "u", 5);
    spend(&mut client, "two", "u", 70);
    assert_eq!(used(&mut client, "u"), 5);
    assert_eq!(traces(&mut client).iter().filter(|line| line.starts_with("trigger")).count(), 4);
    assert_no_violations(&mut client);
}

#[test]
fn names_of_sources() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, &format!("CREATE TABLE usage ({COLUMNS}); SELECT exa_billing.setup()"));
    for name in ["exa", "spend", "", " padded", "padded ", "tab\there", &"x".repeat(129)] {
        let error = refused(&mut client, &attaching(name, "usage"), "22023");
        assert!(error.message.starts_with("source_name"), "{}", error.message);
    }
    for name in [
        "a",
        "EXA",
        "'); DROP TABLE usage; --",
        "$1",
        "\\",
        "\\000",
        "\\'; DROP TABLE usage; --",
        "%s %I {rows}",
        "\"quoted\"",
        "Größe 𝄞 表",
        &"ü".repeat(128),
    ] {
        let quoted = name.replace('\'', "''");
        attach(&mut client, &quoted, "usage");
        spend(&mut client, "usage", "u", 1);
        let registered = texts(
            &mut client,
            "SELECT source_name FROM exa_billing.spend_sources WHERE NOT is_own AND detached_at IS NULL",
        );
        assert_eq!(registered, [name]);
        assert_no_violations(&mut client);
        run_sql(&mut client, "ALTER TABLE usage DISABLE TRIGGER USER");
        assert_eq!(violations(&mut client), unguarded("public.usage", name), "{name}");
        run_sql(&mut client, "SELECT exa_billing.setup()");
        spend(&mut client, "usage", "u", 1);
        assert_eq!(detach(&mut client, &quoted), 1, "{name}");
        assert_eq!(traces(&mut client), [""; 0]);
        run_sql(
            &mut client,
            "DELETE FROM usage; DELETE FROM exa_billing.spend_sources WHERE NOT is_own",
        );
    }
    assert_eq!(used(&mut client, "u"), 22);
    assert_no_violations(&mut client);
}

/// Names that would do harm if any of them were spliced into a statement.
const NAMES: [&str; 14] = [
    "Plain Name",
    "select",
    "a\"b",
    "\"; DROP TABLE canary; --",
    "'; DROP TABLE canary; --",
    "$1",
    "$tag$",
    "\\",
    "\\'; DROP TABLE canary; --",
    "{rows}",
    "{cuts}",
    "%I %s",
    "Größe 表 𝄞",
    "r.amount, r.at /*",
];

#[test]
fn hostile_names_of_schemas_tables_and_columns_are_only_names() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "CREATE TABLE canary (n int); SELECT exa_billing.setup()");
    let longest = ["x".repeat(63), "ü".repeat(31)];
    let names = NAMES.into_iter().chain(longest.iter().map(String::as_str));
    for (n, name) in names.enumerate() {
        // Half of them under settings that read text otherwise.
        let setting = if n % 2 == 0 { "off" } else { "on" };
        run_sql(
            &mut client,
            &format!("SET standard_conforming_strings = {setting}; SET backslash_quote = on"),
        );
        let cut = |prefix: &str| -> String {
            let mut cut = format!("{prefix}{name}");
            while cut.len() > 63 {
                cut.pop();
            }
            cut
        };
        let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        let columns = ["u", "o", "c", "t", "m", "w"].map(cut);
        let [user, org, cost, at, model, wanted] = columns.each_ref().map(|column| quoted(column));
        let table = format!("{}.{}", quoted(name), quoted(name));
        run_sql(
            &mut client,
            &format!(
                "CREATE SCHEMA {};
                 CREATE TABLE {table} ({user} text, {org} text, {cost} bigint, {at} timestamptz, {model} text,
                                       {wanted} text);
                 CREATE INDEX ON {table} ({user}, {at}); CREATE INDEX ON {table} ({org}, {at})",
                quoted(name)
            ),
        );
        let json = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let [user_key, org_key, cost_key, at_key, model_key, wanted_key] =
            columns.each_ref().map(|column| json(column));
        let map = format!(
            "{{\"user_id\": {{\"columns\": [{user_key}, {model_key}]}}, \"organization_id\": {org_key},
               \"amount\": {cost_key}, \"created_at\": {at_key}, \"model_or_plan_key\": {model_key},
               \"product_key\": {{\"value\": {value}}},
               \"where\": [{{\"column\": {wanted_key}, \"op\": \"in\", \"value\": [{value}, \"x\"]}}]}}",
            value = json(name)
        );
        client
            .query(
                "SELECT exa_billing.attach_spend_source($1, $2::text::regclass, 'variable', 'x', $3::text::jsonb, true)",
                &[&format!("s{n}"), &table, &map],
            )
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        client
            .execute(
                &format!("INSERT INTO {table} VALUES ('u', NULL, 10, {AT}, $1, $1), ('u', NULL, 900, {AT}, $1, $1 || '!')"),
                &[&name],
            )
            .expect("a charge");
        run_sql(&mut client, &format!("UPDATE {table} SET {cost} = {cost} + 1"));
        assert_eq!(used(&mut client, "u"), 11 * (i64::try_from(n).expect("small") + 1), "{name}");
        let source = format!("s{n}");
        if n % 3 == 0 {
            assert_eq!(detach(&mut client, &source), 1, "{name}");
        } else {
            run_sql(&mut client, "SELECT exa_billing.maintain_partitions()");
            refused(&mut client, &format!("DROP TABLE {table}"), "55000");
            refused(&mut client, &format!("ALTER TABLE {table} DROP {cost}"), "55000");
        }
    }
    assert_no_violations(&mut client);
    let change = "SELECT new_microdollars_used - previous_microdollars_used
                  FROM exa_billing.recompute_user_balances('u')";
    assert_eq!(one::<i64>(&mut client, change, &[]), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM canary", &[]), 0);
}

/// Ids are told apart by their bytes. Columns may have collations of their own.
#[test]
fn collations_of_columns_neither_fail_nor_merge_owners() {
    let db = Server::shared().database();
    let mut client = db.client();
    let has_icu = "SELECT EXISTS (SELECT FROM pg_collation WHERE collname = 'en-x-icu')";
    if !one::<bool>(&mut client, has_icu, &[]) {
        return; // a server built without ICU has no collation that takes other texts for equal
    }
    run_sql(
        &mut client,
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TABLE usage (id int, region text, user_id text COLLATE blind, org_id text COLLATE \"POSIX\",
             second text COLLATE \"C\", cost bigint, at timestamptz, model text COLLATE blind)",
    );
    let two = attaching("llm", "usage").replace(
        "\"user_id\": \"user_id\"",
        "\"user_id\": {\"columns\": [\"user_id\", \"second\"]}",
    );
    let mut expected = 0;
    for call in [attaching("llm", "usage"), two] {
        run_sql(&mut client, &call);
        run_sql(
            &mut client,
            &format!(
                "INSERT INTO usage (user_id, cost, at, model) VALUES
                     ('ada', 1, {AT}, 'm'), ('Ada', 20, {AT}, 'M'), ('ADA', 300, {AT}, 'm')"
            ),
        );
        expected += 1;
        for (user, cost) in [("ada", 1), ("Ada", 20), ("ADA", 300)] {
            assert_eq!(used(&mut client, user), cost * expected, "{user}");
            let owner = format!("SELECT count(*) FROM exa_billing.verify_books('user', '{user}')");
            assert_eq!(one::<i64>(&mut client, &owner, &[]), 0, "{user}");
            let change = format!(
                "SELECT new_microdollars_used - previous_microdollars_used
                 FROM exa_billing.recompute_user_balances('{user}')"
            );
            assert_eq!(one::<i64>(&mut client, &change, &[]), 0, "{user}");
        }
        assert_no_violations(&mut client);
        assert_eq!(detach(&mut client, "llm"), 3);
        run_sql(
            &mut client,
            "DELETE FROM usage; DELETE FROM exa_billing.spend_sources WHERE NOT is_own",
        );
    }
    assert_no_violations(&mut client);
    assert_eq!(error_of(&mut client, &spending("nowhere", "a", "u", 1)).code, "42P01");
}
