//! Attached tables that take another place: in a tree of partitions, under policies, beside
//! upkeep. What counted once counts once.

mod books_common;
mod common;
mod ledger_ddl_common;
mod sessions;

use books_common::{assert_no_violations, texts};
use common::{Server, error_of, one, run_sql};
use ledger_ddl_common::{AT, COLUMNS, attach, attaching, detach, spend, used};
use sessions::{IMPATIENT, pid, wait_for_lock_of};
use std::thread;

#[test]
fn a_partition_taken_out_after_detaching_does_not_count_again() {
    let db = Server::shared().database();
    let mut c = db.client();
    run_sql(
        &mut c,
        &format!(
            "CREATE TABLE root ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE part PARTITION OF root FOR VALUES IN ('a')"
        ),
    );
    attach(&mut c, "root", "root");
    spend(&mut c, "root", "u", 100);
    assert_eq!(detach(&mut c, "root"), 1);
    run_sql(&mut c, "ALTER TABLE root DETACH PARTITION part");
    attach(&mut c, "part", "part");
    assert_eq!(used(&mut c, "u"), 100);
    assert_no_violations(&mut c);
}

#[test]
fn a_table_that_became_a_partition_after_detaching_does_not_count_again() {
    let db = Server::shared().database();
    let mut c = db.client();
    run_sql(&mut c, &format!("CREATE TABLE ledger ({COLUMNS})"));
    attach(&mut c, "ledger", "ledger");
    spend(&mut c, "ledger", "u", 100);
    detach(&mut c, "ledger");
    run_sql(
        &mut c,
        &format!(
            "CREATE TABLE root ({COLUMNS}) PARTITION BY LIST (region);
             ALTER TABLE root ATTACH PARTITION ledger FOR VALUES IN ('a')"
        ),
    );
    attach(&mut c, "root", "root");
    assert_eq!(used(&mut c, "u"), 100);
    // From now on everything counts.
    run_sql(&mut c, "INSERT INTO root (region, user_id, cost, at) VALUES ('a', 'u', 7, now())");
    assert_eq!(used(&mut c, "u"), 107);
    assert_no_violations(&mut c);
}

#[test]
fn tables_that_only_bear_the_same_names_are_left_alone() {
    let db = Server::shared().database();
    let mut c = db.client();
    run_sql(&mut c, &format!("CREATE TABLE ledger ({COLUMNS})"));
    attach(&mut c, "ledger", "ledger");
    run_sql(
        &mut c,
        "CREATE SCHEMA other;
         CREATE TABLE other.ledger (cost int, other text);
         CREATE FUNCTION other.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
         CREATE TRIGGER exa_billing_capture_insert AFTER INSERT ON other.ledger
             FOR EACH STATEMENT EXECUTE FUNCTION other.nothing();
         ALTER TABLE other.ledger DROP COLUMN cost;
         DROP TRIGGER exa_billing_capture_insert ON other.ledger;
         DROP TABLE other.ledger",
    );
    assert_eq!(error_of(&mut c, "DROP TABLE ledger").code, "55000");
}

#[test]
fn a_policy_that_hides_an_owner_hides_them_in_attached_tables_too() {
    let db = Server::shared().database();
    let (mut c, role) = (db.client(), format!("{}_tenant", db.name()));
    run_sql(&mut c, &format!("CREATE TABLE ledger ({COLUMNS}); CREATE ROLE {role} LOGIN"));
    attach(&mut c, "ledger", "ledger");
    for user in ["mine", "theirs"] {
        spend(&mut c, "ledger", user, 100);
        run_sql(&mut c, &format!("SELECT exa_billing.grant_credit('user', '{user}', 1000)"));
    }
    run_sql(&mut c, &format!("SELECT exa_billing.grant_auditor('{role}')"));
    let spent = |user: &str| {
        format!(
            "SELECT total_microdollars FROM exa_billing.rolling_spend('user', '{user}', '20 minutes',
                 {AT} + interval '10 minutes')"
        )
    };
    let mut tenant = db.client_as(&role);
    assert_eq!(one::<Option<i64>>(&mut tenant, &spent("theirs"), &[]), Some(100));
    let tables = texts(
        &mut c,
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'p')
           AND NOT c.relispartition AND a.attname = 'owner_id'",
    );
    for table in &tables {
        run_sql(
            &mut c,
            &format!(
                "ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
                 CREATE POLICY own ON {table} FOR SELECT TO {role} USING (owner_id = 'mine')"
            ),
        );
    }
    // Nobody's registry is a reason to count less.
    run_sql(&mut c, "ALTER TABLE exa_billing.spend_sources ENABLE ROW LEVEL SECURITY");
    assert_eq!(one::<Option<i64>>(&mut tenant, &spent("mine"), &[]), Some(100));
    assert_eq!(one::<Option<i64>>(&mut tenant, &spent("theirs"), &[]), None);
    let all = error_of(&mut tenant, "SELECT * FROM exa_billing.verify_books()");
    assert_eq!(all.code, "42501", "{}", all.message);
    drop(tenant);
    run_sql(&mut c, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn deleting_from_a_ledger_that_keeps_does_not_deadlock_with_upkeep() {
    let db = Server::shared().database();
    let mut c = db.client();
    run_sql(
        &mut c,
        &format!(
            "CREATE TABLE root ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE old PARTITION OF root FOR VALUES IN ('a');
             INSERT INTO root (region, user_id, cost, at) VALUES ('a', 'u', 5, '2015-03-01 10:00Z')"
        ),
    );
    let keeping =
        attaching("root", "root").replace("backfill => true", "true, on_delete => 'keep'");
    run_sql(&mut c, &format!("SET client_min_messages = error; {keeping}"));
    run_sql(&mut c, "CREATE TABLE new PARTITION OF root FOR VALUES IN ('b')");
    let (mut writer, mut keeper) = (db.client_with(IMPATIENT), db.client_with(IMPATIENT));
    let upkeep = pid(&mut keeper);
    run_sql(
        &mut writer,
        "BEGIN; INSERT INTO new (region, user_id, cost, at) VALUES ('b', 'u', 7, now())",
    );
    thread::scope(|scope| {
        let tending =
            scope.spawn(|| run_sql(&mut keeper, "SELECT exa_billing.maintain_partitions()"));
        wait_for_lock_of(&mut c, upkeep);
        // Its closing row wants a month of 2015, which has no partition.
        run_sql(&mut writer, "DELETE FROM root WHERE at < '2016-01-01 00:00Z'; COMMIT");
        tending.join().expect("the upkeep");
    });
    // The old row goes on counting. The new one was written straight into a partition that had no
    // triggers yet, and is found.
    assert_eq!(used(&mut c, "u"), 5);
    let found = texts(&mut c, "SELECT DISTINCT v.invariant FROM exa_billing.verify_books() AS v");
    assert_eq!(found, ["I5"]);
}

#[test]
fn one_owners_overflow_is_nobody_elses() {
    let db = Server::shared().database();
    let mut c = db.client();
    run_sql(&mut c, &format!("CREATE TABLE ledger ({COLUMNS})"));
    attach(&mut c, "ledger", "ledger");
    spend(&mut c, "ledger", "u", 100);
    // A thousand of the largest amounts in one hour, twice: beyond what an hour's figure can hold.
    for _ in 0..2 {
        run_sql(
            &mut c,
            &format!(
                "INSERT INTO ledger (region, user_id, cost, at)
                 SELECT 'a', 'rich', 9007199254740991, {AT} FROM generate_series(1, 1000)"
            ),
        );
    }
    let spent = |user: &str| {
        format!(
            "SELECT total_microdollars FROM exa_billing.rolling_spend('user', '{user}', '1 hour',
                 {AT} + interval '10 minutes')"
        )
    };
    assert_eq!(one::<Option<i64>>(&mut c, &spent("u"), &[]), Some(100));
    let blamed = texts(
        &mut c,
        "SELECT DISTINCT owner_id FROM exa_billing.verify_books() WHERE owner_id IS NOT NULL",
    );
    assert_eq!(blamed, ["rich"]);
    // Detaching would have to leave it out; it is refused instead.
    let refused = error_of(&mut c, &ledger_ddl_common::detaching("ledger"));
    assert_eq!(refused.code, "22003", "{}", refused.message);
}
