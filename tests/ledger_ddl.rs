//! DDL on attached tables: what only changes names goes on, what would take away what was charged
//! is refused, and after detaching everything is allowed again.

mod books_common;
mod common;
mod ledger_ddl_common;

use books_common::{assert_no_violations, texts};
use common::{Database, DbErrorSummary, Server, error_of, one, run_sql};
use ledger_ddl_common::{
    AT, COLUMNS, Role, attach, attaching, detach, difference, readable, spend, spending, traces,
    unguarded, used, violations,
};
use postgres::Client;

/// One attached table with one charge of 100 of user u.
fn attached() -> (Database, Client) {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, &format!("CREATE TABLE llm_usage ({COLUMNS}, note text)"));
    attach(&mut client, "llm", "llm_usage");
    spend(&mut client, "llm_usage", "u", 100);
    (db, client)
}

/// Refused with a hint, and nothing has changed.
#[track_caller]
fn refused(client: &mut Client, statement: &str) -> DbErrorSummary {
    let error = error_of(client, statement);
    assert_eq!(error.code, "55000", "{statement}: {}", error.message);
    let hint = error.hint.clone().expect("what helps");
    assert!(hint.contains("exa_billing.detach_spend_source()"), "{statement}: {hint}");
    error
}

/// Everything that reads the table by its columns.
#[track_caller]
fn assert_reads(client: &mut Client, expected: i64) {
    assert_eq!(used(client, "u"), expected);
    assert_no_violations(client);
    let change: i64 = one(
        client,
        "SELECT new_microdollars_used - previous_microdollars_used
         FROM exa_billing.recompute_user_balances('u', dry_run => true)",
        &[],
    );
    assert_eq!(change, 0);
    let stated: i64 = one(
        client,
        "SELECT -sum(amount_microdollars)::bigint
         FROM exa_billing.account_statement('user', 'u', '2024-05-01Z', '2024-06-01Z')
         WHERE kind = 'spend'",
        &[],
    );
    assert_eq!(stated, expected);
}

#[test]
fn renamed_columns_are_followed() {
    let (_db, mut client) = attached();
    let mut expected = 100;
    // The last ones swap two columns of the same type.
    for (rename, insert) in [
        ("RENAME cost TO price", "(user_id, price, at)"),
        ("RENAME user_id TO \"who; is\"", "(\"who; is\", price, at)"),
        ("RENAME at TO \"when\"", "(\"who; is\", price, \"when\")"),
        ("RENAME org_id TO spare", "(\"who; is\", price, \"when\")"),
        ("RENAME \"who; is\" TO org_id", "(org_id, price, \"when\")"),
        ("RENAME spare TO user_id", "(org_id, price, \"when\")"),
    ] {
        run_sql(&mut client, &format!("ALTER TABLE llm_usage {rename}"));
        run_sql(&mut client, &format!("INSERT INTO llm_usage {insert} VALUES ('u', 1, {AT})"));
        expected += 1;
        assert_reads(&mut client, expected);
    }
    let registered: String = one(
        &mut client,
        "SELECT concat_ws(',', column_map #>> '{user_id,columns,0,name}',
                    column_map #>> '{organization_id,columns,0,name}', column_map #>> '{amount,name}')
         FROM exa_billing.spend_sources WHERE source_name = 'llm'",
        &[],
    );
    assert_eq!(registered, "org_id,user_id,price");
    run_sql(
        &mut client,
        "UPDATE llm_usage SET price = price + 1; DELETE FROM llm_usage WHERE price > 100",
    );
    assert_reads(&mut client, 12);
    assert_eq!(readable(&mut client, "llm_usage").len(), 5);
    assert_eq!(detach(&mut client, "llm"), 1);
    assert_eq!(readable(&mut client, "llm_usage"), [""; 0]);
    assert_reads(&mut client, 12);
}

#[test]
fn other_columns_come_and_go() {
    let (_db, mut client) = attached();
    for change in [
        "ADD extra int DEFAULT 5",
        "DROP note",
        "RENAME extra TO more",
        "ALTER more TYPE text",
        "ADD stamp timestamptz DEFAULT clock_timestamp()",
        "ADD double bigint GENERATED ALWAYS AS (cost * 2) STORED",
        "ALTER cost SET NOT NULL",
        "ADD PRIMARY KEY (at, cost)",
        "SET (fillfactor = 50)",
        "ALTER user_id SET STATISTICS 5",
        "ADD CHECK (cost < 1000)",
        "DROP more, DROP stamp",
    ] {
        let before = used(&mut client, "u");
        run_sql(&mut client, &format!("ALTER TABLE llm_usage {change}"));
        let at = format!("{AT} + interval '1 second' * {before}");
        run_sql(
            &mut client,
            &format!("INSERT INTO llm_usage (user_id, cost, at) VALUES ('u', 1, {at})"),
        );
        assert_eq!(used(&mut client, "u"), before + 1, "{change}");
    }
    run_sql(&mut client, "VACUUM FULL llm_usage");
    run_sql(
        &mut client,
        "CLUSTER llm_usage USING llm_usage_pkey; UPDATE llm_usage SET cost = cost + 1",
    );
    assert_reads(&mut client, 112 + 13);
}

#[test]
fn mapped_columns_stay_what_they_are() {
    let (_db, mut client) = attached();
    run_sql(
        &mut client,
        "CREATE FUNCTION doubled(bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
         CREATE TABLE made (user_id text, cost bigint,
             twice bigint GENERATED ALWAYS AS (doubled(cost)) STORED, at timestamptz)",
    );
    let made =
        attaching("made", "made").replace("\"cost\"", "\"twice\"").replace("org_id\"", "user_id\"");
    run_sql(&mut client, &made.replace(", \"model_or_plan_key\": \"model\"", ""));
    for change in [
        "DROP cost",
        "DROP cost CASCADE",
        "DROP user_id, DROP org_id",
        "DROP model",
        "DROP at, ADD at timestamptz",
        "ALTER cost TYPE int",
        "ALTER cost TYPE numeric",
        "ALTER user_id TYPE varchar(40)",
        "ALTER user_id TYPE char(40)",
        "ALTER org_id TYPE uuid USING org_id::uuid",
        "ALTER at TYPE timestamp",
        "ALTER at TYPE date",
    ] {
        refused(&mut client, &format!("ALTER TABLE llm_usage {change}"));
    }
    // A column that goes with something else.
    let error = refused(&mut client, "DROP FUNCTION doubled CASCADE");
    assert!(error.message.contains("twice"), "{}", error.message);
    assert_reads(&mut client, 100);

    for source in ["llm", "made"] {
        detach(&mut client, source);
    }
    run_sql(
        &mut client,
        "ALTER TABLE llm_usage ALTER cost TYPE numeric; ALTER TABLE llm_usage DROP user_id;
         DROP FUNCTION doubled CASCADE",
    );
    assert_reads(&mut client, 100);
}

/// No trigger sees a table being rewritten.
#[test]
fn amounts_that_a_rewrite_changes_are_found() {
    let (_db, mut client) = attached();
    run_sql(&mut client, "ALTER TABLE llm_usage ALTER cost TYPE bigint USING cost * 3");
    assert_eq!(used(&mut client, "u"), 100);
    assert_eq!(violations(&mut client), difference("u", "300", "100"));
    run_sql(&mut client, "ALTER TABLE llm_usage ALTER cost TYPE bigint USING cost / 3");
    assert_reads(&mut client, 100);
}

#[test]
fn tables_and_schemas_may_have_other_names() {
    let (_db, mut client) = attached();
    let mut expected = 100;
    for (change, table) in [
        ("ALTER TABLE llm_usage RENAME TO \"Ledger; of: all\"", "public.\"Ledger; of: all\""),
        ("ALTER TABLE \"Ledger; of: all\" RENAME TO ledger", "public.ledger"),
        ("CREATE SCHEMA billing; ALTER TABLE ledger SET SCHEMA billing", "billing.ledger"),
        ("ALTER SCHEMA billing RENAME TO \"a.b\"", "\"a.b\".ledger"),
        // Somebody else's table takes the old name.
        ("CREATE TABLE public.ledger (n int); ALTER SCHEMA \"a.b\" RENAME TO c", "c.ledger"),
        ("DROP TABLE public.ledger; ALTER TABLE c.ledger SET SCHEMA public", "public.ledger"),
    ] {
        run_sql(&mut client, change);
        spend(&mut client, table, "u", 1);
        expected += 1;
        assert_reads(&mut client, expected);
        let registered: String = one(
            &mut client,
            "SELECT format('%I.%I', relation_schema, relation_name)
             FROM exa_billing.spend_sources WHERE source_name = 'llm'",
            &[],
        );
        assert_eq!(registered, table);
    }
    assert_eq!(detach(&mut client, "llm"), 1);
    assert_reads(&mut client, expected);
}

#[test]
fn an_attached_table_cannot_be_dropped() {
    let (db, mut client) = attached();
    let owner = Role::attacher(&db, "owner");
    let name = &owner.name;
    run_sql(
        &mut client,
        &format!(
            "CREATE SCHEMA app; CREATE TABLE app.parent (id int PRIMARY KEY);
             ALTER TABLE llm_usage SET SCHEMA app;
             ALTER TABLE app.llm_usage ADD CONSTRAINT parent FOREIGN KEY (id) REFERENCES app.parent;
             ALTER TABLE app.llm_usage OWNER TO {name}; GRANT USAGE ON SCHEMA app TO {name}"
        ),
    );
    for statement in [
        "DROP TABLE app.llm_usage".to_owned(),
        "DROP TABLE app.llm_usage CASCADE".to_owned(),
        "DROP SCHEMA app CASCADE".to_owned(),
        format!("DROP OWNED BY {name}"),
        format!("DROP OWNED BY {name} CASCADE"),
    ] {
        let error = refused(&mut client, &statement);
        assert!(error.message.contains("llm_usage"), "{}", error.message);
    }
    for trigger in ["capture_insert", "capture_update", "capture_delete", "refuse_truncate"] {
        let drop = format!("DROP TRIGGER exa_billing_{trigger} ON app.llm_usage");
        refused(&mut client, &drop);
    }
    for statement in ["TRUNCATE app.llm_usage", "TRUNCATE app.parent CASCADE"] {
        refused(&mut client, statement);
    }
    // What others have can go.
    run_sql(&mut client, "CREATE TABLE app.other (n int); DROP TABLE app.other");
    run_sql(
        &mut client,
        "CREATE VIEW app.seen AS SELECT cost FROM app.llm_usage; DROP VIEW app.seen",
    );
    run_sql(&mut client, "ALTER TABLE app.llm_usage DROP CONSTRAINT parent");
    spend(&mut client, "app.llm_usage", "u", 5);
    assert_reads(&mut client, 105);

    assert_eq!(detach(&mut client, "llm"), 1);
    assert_eq!(traces(&mut client), [""; 0]);
    run_sql(&mut client, "TRUNCATE app.llm_usage; DROP SCHEMA app CASCADE");
    assert_reads(&mut client, 105);
}

#[test]
fn a_table_stays_one_that_can_be_attached() {
    let (_db, mut client) = attached();
    run_sql(
        &mut client,
        &format!(
            "CREATE TABLE parent ({COLUMNS}, note text);
             CREATE TABLE child ({COLUMNS}, note text);
             CREATE TABLE root ({COLUMNS}, note text) PARTITION BY LIST (region)"
        ),
    );
    let changes = [
        ("ALTER TABLE llm_usage SET UNLOGGED", "it is unlogged"),
        ("CREATE TABLE heir () INHERITS (llm_usage)", "it takes part in inheritance"),
        ("ALTER TABLE child INHERIT llm_usage", "it takes part in inheritance"),
        ("ALTER TABLE llm_usage INHERIT parent", "it takes part in inheritance"),
        ("ALTER TABLE root ATTACH PARTITION llm_usage DEFAULT", "it is a partition"),
        ("ALTER TABLE llm_usage FORCE ROW LEVEL SECURITY", "its owner is subject to row security"),
        ("ALTER TABLE llm_usage SET SCHEMA exa_billing", "it belongs to the books"),
        // The books are looked at again after a change of theirs, when the table is among them.
        (
            "ANALYZE exa_billing.spend_sources; ALTER TABLE llm_usage SET SCHEMA exa_billing",
            "it belongs to the books",
        ),
    ];
    for (change, why) in changes {
        let detail = refused(&mut client, change).detail.expect("why");
        assert!(detail.contains(why), "{change}: {detail}");
    }
    spend(&mut client, "llm_usage", "u", 1);
    assert_reads(&mut client, 101);
    assert_eq!(detach(&mut client, "llm"), 1);
    for (change, why) in changes {
        run_sql(&mut client, &format!("BEGIN; {change}"));
        let refused = error_of(&mut client, &attaching("llm", "llm_usage")).detail;
        assert!(
            refused.is_some_and(|detail| detail.contains(why)) || change.contains("SCHEMA"),
            "{change}"
        );
        run_sql(&mut client, "ROLLBACK");
    }
    assert_reads(&mut client, 101);
}

#[test]
fn row_security_hides_nothing_from_the_books() {
    let (db, mut client) = attached();
    let mut writer = Role::new(&db, "writer");
    writer.grant("INSERT, SELECT, UPDATE ON llm_usage TO $");
    run_sql(
        &mut client,
        "ALTER TABLE llm_usage ENABLE ROW LEVEL SECURITY;
         CREATE POLICY written ON llm_usage FOR INSERT WITH CHECK (true);
         CREATE POLICY changed ON llm_usage FOR UPDATE USING (cost = 7) WITH CHECK (true);
         CREATE POLICY mine ON llm_usage FOR SELECT USING (user_id = 'w')",
    );
    let mut session = db.client_as(&writer.name);
    run_sql(&mut session, &spending("llm_usage", "a", "u", 7));
    run_sql(&mut session, &spending("llm_usage", "a", "w", 7));
    assert_eq!(one::<i64>(&mut session, "SELECT count(*) FROM llm_usage", &[]), 1);
    run_sql(&mut session, "UPDATE llm_usage SET cost = 8 WHERE cost = 7");
    assert_eq!(used(&mut client, "w"), 8);
    assert_reads(&mut client, 107);
    for setting in ["row_security = off", "row_security = on", "session_replication_role = replica"]
    {
        run_sql(&mut client, &format!("SET {setting}"));
        spend(&mut client, "llm_usage", "u", 1);
        run_sql(&mut client, "RESET ALL");
    }
    assert_reads(&mut client, 110);
}

#[test]
fn triggers_that_are_off_or_changed_are_reported_and_put_right() {
    let (_db, mut client) = attached();
    let insert = "exa_billing_capture_insert";
    let is_missing = unguarded("public.llm_usage", "llm").into_iter().nth(1).expect("the insert");
    for damage in [
        format!("ALTER TABLE llm_usage DISABLE TRIGGER {insert}"),
        format!("ALTER TABLE llm_usage ENABLE TRIGGER {insert}"),
        format!("ALTER TABLE llm_usage ENABLE REPLICA TRIGGER {insert}"),
        format!(
            "CREATE OR REPLACE TRIGGER {insert} AFTER INSERT ON llm_usage
                 REFERENCING NEW TABLE AS exa_billing_new FOR EACH STATEMENT WHEN (false)
                 EXECUTE FUNCTION exa_billing.capture_spend('llm');
             ALTER TABLE llm_usage ENABLE ALWAYS TRIGGER {insert}"
        ),
        format!(
            "CREATE OR REPLACE TRIGGER {insert} AFTER DELETE ON llm_usage
                 REFERENCING OLD TABLE AS exa_billing_old FOR EACH STATEMENT
                 EXECUTE FUNCTION exa_billing.capture_spend('llm');
             ALTER TABLE llm_usage ENABLE ALWAYS TRIGGER {insert}"
        ),
        format!(
            "CREATE OR REPLACE TRIGGER {insert} AFTER INSERT ON llm_usage FOR EACH STATEMENT
                 EXECUTE FUNCTION exa_billing.refuse_truncate('llm');
             ALTER TABLE llm_usage ENABLE ALWAYS TRIGGER {insert}"
        ),
        format!("ALTER TRIGGER {insert} ON llm_usage RENAME TO renamed"),
    ] {
        run_sql(&mut client, &damage);
        assert_eq!(violations(&mut client), [is_missing.as_str()], "{damage}");
        run_sql(&mut client, "SELECT exa_billing.maintain_partitions()");
        assert_no_violations(&mut client);
    }
    run_sql(&mut client, "DROP TRIGGER renamed ON llm_usage");
    run_sql(&mut client, "ALTER TABLE llm_usage DISABLE TRIGGER ALL");
    assert_eq!(violations(&mut client), unguarded("public.llm_usage", "llm"));
    spend(&mut client, "llm_usage", "u", 9);
    run_sql(&mut client, "SELECT exa_billing.setup()");
    assert_eq!(violations(&mut client), difference("u", "109", "100"));
    run_sql(
        &mut client,
        "DELETE FROM llm_usage WHERE cost = 9; INSERT INTO llm_usage SELECT * FROM llm_usage",
    );
    // What was never counted has been taken back.
    assert_eq!(used(&mut client, "u"), 100 - 9 + 100);
}

#[test]
fn no_row_is_captured_twice() {
    let (_db, mut client) = attached();
    let second = |name: &str, each: &str| {
        format!(
            "CREATE TRIGGER {name} AFTER INSERT ON llm_usage REFERENCING NEW TABLE AS exa_billing_new
             FOR EACH {each} EXECUTE FUNCTION exa_billing.capture_spend('llm')"
        )
    };
    for (create, drop) in [
        (second("mine", "STATEMENT"), "DROP TRIGGER mine ON llm_usage"),
        (second("mine", "ROW"), "DROP TRIGGER mine ON llm_usage"),
        (
            second("exa_billing_capture_insert", "ROW").replace("CREATE", "CREATE OR REPLACE"),
            "SELECT exa_billing.setup()",
        ),
    ] {
        run_sql(&mut client, &create);
        let error = error_of(&mut client, &spending("llm_usage", "a", "u", 1));
        assert_eq!(error.code, "55000", "{create}");
        assert!(error.hint.expect("what helps").contains("exa_billing.setup()"));
        assert_eq!(used(&mut client, "u"), 100);
        run_sql(&mut client, drop);
    }
    spend(&mut client, "llm_usage", "u", 1);
    assert_reads(&mut client, 101);
}

#[test]
fn rules_charge_what_is_really_written() {
    let (_db, mut client) = attached();
    run_sql(
        &mut client,
        &format!(
            "CREATE TABLE copy ({COLUMNS}, note text);
             CREATE RULE less AS ON INSERT TO llm_usage WHERE new.cost > 50 DO INSTEAD NOTHING;
             CREATE RULE too AS ON INSERT TO copy DO ALSO INSERT INTO llm_usage VALUES (new.*);
             CREATE RULE kept AS ON DELETE TO llm_usage WHERE old.cost = 5 DO INSTEAD NOTHING"
        ),
    );
    for (table, cost) in [("llm_usage", 5), ("llm_usage", 60), ("copy", 7), ("copy", 70)] {
        spend(&mut client, table, "u", cost);
    }
    assert_reads(&mut client, 112);
    run_sql(&mut client, "DELETE FROM llm_usage");
    assert_reads(&mut client, 5);
    let rules = texts(
        &mut client,
        "SELECT rulename::text FROM pg_rules WHERE schemaname = 'public' ORDER BY 1",
    );
    assert_eq!(rules, ["kept", "less", "too"].map(str::to_owned));
}
