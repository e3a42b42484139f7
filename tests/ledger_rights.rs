//! Who may attach, who is charged through whom, and what exa_billing_owner may read of a table:
//! roles that are no superusers.

mod books_common;
mod common;
mod ledger_ddl_common;

use books_common::{assert_no_violations, texts};
use common::{Database, Server, error_of, one, run_sql};
use ledger_ddl_common::{
    AT, COLUMNS, Role, attaching, detach, detaching, difference, readable, spend, spending, traces,
    unguarded, used, violations,
};
use postgres::Client;

/// A database with books, a role that may attach, and a table `usage` in a schema of its own.
fn with_owner() -> (Database, Role, Client) {
    let db = Server::shared().database();
    run_sql(&mut db.client(), "SELECT exa_billing.setup()");
    let owner = Role::attacher(&db, "owner");
    let mut session = db.client_as(&owner.name);
    run_sql(
        &mut session,
        &format!("SET client_min_messages = error; CREATE TABLE usage ({COLUMNS}, secret text)"),
    );
    (db, owner, session)
}

#[test]
fn the_owner_of_a_table_attaches_and_detaches_it() {
    let (db, _owner, mut session) = with_owner();
    let mut admin = db.client();
    run_sql(&mut session, &spending("usage", "a", "u", 40));
    assert_eq!(one::<i64>(&mut session, &attaching("llm", "usage"), &[]), 1);
    spend(&mut session, "usage", "u", 2);
    run_sql(&mut session, "UPDATE usage SET cost = cost * 10; DELETE FROM usage WHERE cost = 20");
    assert_eq!(used(&mut admin, "u"), 400);
    assert_no_violations(&mut admin);
    assert_eq!(error_of(&mut session, "DROP TABLE usage").code, "55000");
    assert_eq!(error_of(&mut session, "SELECT FROM exa_billing.spend_sources").code, "42501");
    assert_eq!(detach(&mut session, "llm"), 1);
    run_sql(&mut session, "DROP TABLE usage");
    assert_eq!(used(&mut admin, "u"), 400);
    assert_eq!(traces(&mut admin), [""; 0]);
    assert_no_violations(&mut admin);
}

#[test]
fn each_of_the_rights_is_needed_and_nothing_is_left_without() {
    let (db, owner, mut session) = with_owner();
    let mut admin = db.client();
    let name = owner.name.clone();
    for function in ["attach_spend_source", "capture_spend", "refuse_truncate"] {
        let right = format!("EXECUTE ON FUNCTION exa_billing.{function}");
        run_sql(&mut admin, &format!("REVOKE {right} FROM {name}"));
        let error = error_of(&mut session, &attaching("llm", "usage"));
        assert_eq!(error.code, "42501", "{function}");
        let said = format!("{} {}", error.message, error.hint.unwrap_or_default());
        assert!(said.contains(function), "{said}");
        assert_eq!(traces(&mut admin), [""; 0], "{function}");
        run_sql(&mut admin, &format!("GRANT {right} TO {name}"));
    }
    run_sql(&mut session, &attaching("llm", "usage"));
    run_sql(
        &mut admin,
        &format!("REVOKE EXECUTE ON FUNCTION exa_billing.detach_spend_source FROM {name}"),
    );
    assert_eq!(error_of(&mut session, &detaching("llm")).code, "42501");
    // Capturing does not ask for rights that were needed for making the triggers.
    run_sql(
        &mut admin,
        &format!(
            "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA exa_billing FROM {name};
                  REVOKE USAGE ON SCHEMA exa_billing FROM {name}"
        ),
    );
    spend(&mut session, "usage", "u", 3);
    assert_eq!(used(&mut admin, "u"), 3);
    assert_no_violations(&mut admin);
}

#[test]
fn nobody_attaches_or_detaches_the_table_of_somebody_else() {
    let (db, owner, mut session) = with_owner();
    let mut admin = db.client();
    let mut other = Role::attacher(&db, "other");
    let table = format!("{}.usage", owner.name);
    run_sql(
        &mut session,
        &format!(
            "GRANT ALL ON SCHEMA {} TO {other}; GRANT ALL ON usage TO {other}",
            owner.name,
            other = other.name
        ),
    );
    let mut others = db.client_as(&other.name);
    let error = error_of(&mut others, &attaching("llm", &table));
    assert_eq!(error.code, "42501");
    assert!(error.message.contains("must be owner of table"), "{}", error.message);
    assert_eq!(traces(&mut admin), [""; 0]);

    run_sql(&mut session, &attaching("llm", "usage"));
    assert_eq!(error_of(&mut others, &detaching("llm")).code, "42501");
    assert_eq!(error_of(&mut others, &attaching("mine", &table)).code, "42501");
    spend(&mut others, &table, "u", 3);
    assert_eq!(used(&mut admin, "u"), 3);
    // A member of the owning role has its rights; so has the next owner.
    other.grant(&format!("{} TO $", owner.name));
    assert_eq!(detach(&mut others, "llm"), 1);
    run_sql(&mut others, &attaching("llm", &table));
    run_sql(
        &mut admin,
        &format!(
            "REVOKE {} FROM {other}; ALTER TABLE {table} OWNER TO {other}",
            owner.name,
            other = other.name
        ),
    );
    assert_eq!(error_of(&mut session, &detaching("llm")).code, "42501");
    spend(&mut others, &table, "u", 1);
    run_sql(
        &mut others,
        &format!("INSERT INTO {table} (user_id, cost, at) VALUES ('u', 5, clock_timestamp())"),
    );
    assert_eq!(used(&mut admin, "u"), 8);
    assert_no_violations(&mut admin);
    assert_eq!(detach(&mut others, "llm"), 1);
    assert_eq!(traces(&mut admin), [""; 0]);
    assert_no_violations(&mut admin);
}

#[test]
fn writers_need_no_right_on_the_books() {
    let (db, owner, mut session) = with_owner();
    let mut admin = db.client();
    let writer = Role::new(&db, "writer");
    run_sql(
        &mut session,
        &format!(
            "GRANT USAGE ON SCHEMA {} TO {writer}; GRANT INSERT ON usage TO {writer}",
            owner.name,
            writer = writer.name
        ),
    );
    run_sql(&mut session, &attaching("llm", "usage"));
    let mut writing = db.client_as(&writer.name);
    let table = format!("{}.usage", owner.name);
    spend(&mut writing, &table, "u", 7);
    assert_eq!(used(&mut admin, "u"), 7);
    for statement in [
        "SELECT * FROM exa_billing.unposted_spend".to_owned(),
        "SELECT exa_billing.capture_spend()".to_owned(),
        format!("SELECT * FROM {table}"),
        format!("DELETE FROM {table}"),
        format!("UPDATE {table} SET cost = 0"),
    ] {
        assert_eq!(error_of(&mut writing, &statement).code, "42501", "{statement}");
    }
    // What fails leaves neither row nor charge.
    let nobody = format!("INSERT INTO {table} (cost, at) VALUES (5, {AT})");
    assert_eq!(error_of(&mut writing, &nobody).code, "22023");
    assert_eq!(used(&mut admin, "u"), 7);
    assert_no_violations(&mut admin);
}

#[test]
fn exactly_the_mapped_columns_can_be_read() {
    let (db, owner, mut session) = with_owner();
    let mut admin = db.client();
    let table = format!("{}.usage", owner.name);
    let call = attaching("llm", "usage").replace(
        "\"model_or_plan_key\": \"model\"",
        "\"feature_key\": {\"value\": \"id\"}, \"where\": [{\"column\": \"region\", \"op\": \"is_not_null\"}]",
    );
    run_sql(&mut session, &call);
    let read = ["at SELECT", "cost SELECT", "org_id SELECT", "region SELECT", "user_id SELECT"];
    assert_eq!(readable(&mut admin, &table), read);
    let may = |admin: &mut Client, column: &str| -> bool {
        one(
            admin,
            "SELECT has_column_privilege('exa_billing_owner', $1::text::regclass, $2, 'SELECT')",
            &[&table, &column],
        )
    };
    for (column, expected) in [("cost", true), ("id", false), ("model", false), ("secret", false)] {
        assert_eq!(may(&mut admin, column), expected, "{column}");
    }
    run_sql(
        &mut session,
        "ALTER TABLE usage RENAME cost TO price; ALTER TABLE usage ADD cost text",
    );
    assert!(may(&mut admin, "price") && !may(&mut admin, "cost"));
    detach(&mut session, "llm");
    assert_eq!(readable(&mut admin, &table), [""; 0]);
    assert_no_violations(&mut admin);
}

#[test]
fn triggers_of_ones_own_charge_nobody() {
    let (db, owner, mut session) = with_owner();
    let mut admin = db.client();
    let mut victim = Role::attacher(&db, "victim");
    victim.grant(&format!("USAGE ON SCHEMA $ TO {}", owner.name));
    let mut theirs = db.client_as(&victim.name);
    run_sql(
        &mut theirs,
        &format!("SET client_min_messages = error; CREATE TABLE ledger ({COLUMNS})"),
    );
    run_sql(&mut theirs, &attaching("real", "ledger"));
    spend(&mut theirs, "ledger", "u", 5);

    let make = |name: &str, event: &str, rows: &str, argument: &str| {
        format!(
            "CREATE TRIGGER {name} AFTER {event} ON usage REFERENCING {rows} FOR EACH STATEMENT
             EXECUTE FUNCTION exa_billing.capture_spend({argument})"
        )
    };
    let new = "NEW TABLE AS exa_billing_new";
    for name in ["mine", "exa_billing_capture_insert"] {
        for argument in ["", "'real'", "'none'", "'exa'", "'spend'", "'usage'"] {
            run_sql(&mut session, &make(name, "INSERT", new, argument));
            let error = error_of(&mut session, &spending("usage", "a", "u", 1));
            assert_eq!(error.code, "55000", "{name} {argument}");
            // While something is attached, its names are not to be dropped.
            run_sql(&mut session, &format!("ALTER TRIGGER {name} ON usage RENAME TO gone"));
            run_sql(&mut session, "DROP TRIGGER gone ON usage");
        }
    }
    let deletes =
        make("exa_billing_capture_delete", "DELETE", "OLD TABLE AS exa_billing_old", "'real'");
    run_sql(&mut session, &spending("usage", "a", "u", 1));
    run_sql(&mut session, &deletes);
    assert_eq!(error_of(&mut session, "DELETE FROM usage").code, "55000");
    assert_eq!(error_of(&mut session, "SELECT exa_billing.capture_spend()").code, "55000");

    // Nor does a table that takes the place, or pretends to be a partition, of the attached one.
    run_sql(
        &mut session,
        "ALTER TRIGGER exa_billing_capture_delete ON usage RENAME TO gone; DROP TRIGGER gone ON usage",
    );
    run_sql(&mut session, "ALTER TABLE usage RENAME TO ledger");
    run_sql(
        &mut session,
        &make("exa_billing_capture_insert", "INSERT", new, "'real'")
            .replace("ON usage", "ON ledger"),
    );
    assert_eq!(error_of(&mut session, &spending("ledger", "a", "u", 1)).code, "55000");
    assert_eq!(used(&mut admin, "u"), 5);
    // Nor do they stand in the way of the table they pretend to belong to.
    run_sql(
        &mut theirs,
        "ALTER TABLE ledger RENAME cost TO price; ALTER TABLE ledger ADD more int",
    );
    assert_eq!(detach(&mut theirs, "real"), 1);
    assert_no_violations(&mut admin);
}

#[test]
fn partitions_of_other_owners_want_their_owners_consent() {
    let (db, owner, mut session) = with_owner();
    let mut admin = db.client();
    let other = Role::attacher(&db, "other");
    run_sql(
        &mut session,
        &format!(
            "CREATE TABLE root ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE root_a PARTITION OF root FOR VALUES IN ('a');
             CREATE TABLE root_b PARTITION OF root FOR VALUES IN ('b')"
        ),
    );
    let (schema, name) = (&owner.name, &other.name);
    run_sql(&mut admin, &format!("ALTER TABLE {schema}.root_b OWNER TO {name}"));
    let error = error_of(&mut session, &attaching("llm", "root"));
    assert_eq!(error.code, "42501");
    assert!(error.message.contains("root_b"), "{}", error.message);
    assert_eq!(traces(&mut admin), [""; 0]);

    run_sql(&mut admin, &format!("ALTER TABLE {schema}.root_b OWNER TO {schema}"));
    run_sql(&mut session, &attaching("llm", "root"));
    run_sql(&mut session, "CREATE TABLE root_c PARTITION OF root FOR VALUES IN ('c')");
    run_sql(&mut admin, &format!("ALTER TABLE {schema}.root_c OWNER TO {name}"));
    let bare = unguarded(&format!("{schema}.root_c"), "llm");
    assert_eq!(violations(&mut admin), bare);
    // Its owner may make these triggers, once the schema can be entered.
    run_sql(&mut admin, "SELECT exa_billing.maintain_partitions()");
    assert_eq!(violations(&mut admin), bare);
    run_sql(&mut admin, &format!("GRANT USAGE ON SCHEMA {schema} TO {name}"));
    run_sql(&mut admin, "SELECT exa_billing.maintain_partitions()");
    for (table, region, cost) in [("root", "a", 1), ("root", "c", 20), ("root_c", "c", 300)] {
        run_sql(&mut admin, &spending(&format!("{schema}.{table}"), region, "u", cost));
    }
    assert_eq!(used(&mut admin, "u"), 321);
    assert_no_violations(&mut admin);
    let made: Vec<String> = texts(
        &mut admin,
        "SELECT DISTINCT count(*)::text FROM pg_trigger WHERE tgname LIKE 'exa\\_billing\\_%' GROUP BY tgrelid",
    );
    assert_eq!(made, ["4"]);
    assert_eq!(error_of(&mut session, &detaching("llm")).code, "42501");
    assert_eq!(detach(&mut admin, "llm"), 1);
    assert_eq!(traces(&mut admin), [""; 0]);
}

/// A superuser attaches the table of a role that has no right on the books.
#[test]
fn a_superuser_attaches_for_others() {
    let db = Server::shared().database();
    let mut admin = db.client();
    run_sql(&mut admin, "SELECT exa_billing.setup()");
    let owner = Role::new(&db, "owner");
    let name = &owner.name;
    run_sql(&mut admin, &format!("CREATE SCHEMA {name} AUTHORIZATION {name}"));
    let mut session = db.client_as(name);
    run_sql(
        &mut session,
        &format!(
            "CREATE TABLE root ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE root_a PARTITION OF root FOR VALUES IN ('a')"
        ),
    );
    run_sql(&mut session, &spending("root", "a", "u", 1));
    // Its later partitions get their triggers with the rights of their owner, so that one needs some.
    let call = attaching("llm", &format!("{name}.root"));
    for _ in 0..3 {
        let error = error_of(&mut admin, &call);
        assert_eq!(error.code, "42501");
        assert!(error.message.contains("lacks a right"), "{}", error.message);
        assert_eq!(traces(&mut admin), [""; 0]);
        run_sql(&mut admin, &error.hint.expect("the right"));
    }
    run_sql(&mut admin, &format!("SET client_min_messages = error; {call}"));
    for table in ["root", "root_a"] {
        spend(&mut session, table, "u", 10);
    }
    assert_eq!(used(&mut admin, "u"), 21);
    assert_no_violations(&mut admin);

    // Taken away again, the next partition stays without, and verify_books() tells.
    let right = format!("EXECUTE ON FUNCTION exa_billing.capture_spend() {{}} {name}");
    run_sql(&mut admin, &format!("REVOKE {}", right.replace("{}", "FROM")));
    run_sql(&mut session, "CREATE TABLE root_b PARTITION OF root FOR VALUES IN ('b')");
    run_sql(&mut admin, "SELECT exa_billing.setup()");
    assert_eq!(violations(&mut admin), unguarded(&format!("{name}.root_b"), "llm"));
    run_sql(
        &mut admin,
        &format!("GRANT {}; SELECT exa_billing.setup()", right.replace("{}", "TO")),
    );
    assert_no_violations(&mut admin);
    run_sql(&mut session, &spending("root_b", "b", "u", 300));
    assert_eq!(used(&mut admin, "u"), 321);
    assert_eq!(detach(&mut admin, "llm"), 1);
    assert_no_violations(&mut admin);
}

/// Nothing is silently less: who cannot read says so.
#[test]
fn an_owner_without_rights_on_the_own_table_makes_reading_fail() {
    let (db, owner, mut session) = with_owner();
    let mut admin = db.client();
    run_sql(&mut session, &attaching("llm", "usage"));
    spend(&mut session, "usage", "u", 5);
    run_sql(&mut session, &format!("REVOKE SELECT ON usage FROM {}", owner.name));
    for reading in [
        "SELECT * FROM exa_billing.verify_books()",
        "SELECT exa_billing.recompute_user_balances('u')",
        "SELECT * FROM exa_billing.account_statement('user', 'u', now() - interval '9 years', now())",
    ] {
        assert_eq!(error_of(&mut admin, reading).code, "42501", "{reading}");
    }
    // Charging does not read it.
    spend(&mut session, "usage", "u", 5);
    run_sql(
        &mut admin,
        "SELECT exa_billing.record_exa_usage('u', '/search', 3), exa_billing.post_spend()",
    );
    run_sql(&mut session, &format!("GRANT SELECT ON usage TO {}", owner.name));
    assert_eq!(used(&mut admin, "u"), 10);
    assert_no_violations(&mut admin);
    assert_eq!(violations(&mut admin), [""; 0]);
    run_sql(&mut session, "ALTER TABLE usage DISABLE TRIGGER exa_billing_capture_delete");
    run_sql(&mut session, "DELETE FROM usage WHERE ctid = (SELECT min(ctid) FROM usage)");
    let found = violations(&mut admin);
    assert!(found[0].contains("exa_billing_capture_delete"), "{found:?}");
    assert_eq!(found[1..], difference("u", "5", "10"));
}
