//! Partitioned tables as journals: rows count once, wherever they are written and wherever they
//! move, and no partition leaves with them.

mod books_common;
mod common;
mod ledger_ddl_common;

use books_common::assert_no_violations;
use common::{Database, Server, error_of, one, run_sql};
use ledger_ddl_common::{
    AT, COLUMNS, attach, detach, difference, spending, traces, unguarded, used, violations,
};
use postgres::Client;

/// Regions a and b, b with other columns in another order; c is partitioned once more.
fn partitioned() -> (Database, Client) {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        &format!(
            "CREATE TABLE usage ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE usage_a PARTITION OF usage FOR VALUES IN ('a');
             CREATE TABLE usage_b (at timestamptz, junk int, cost bigint, org_id text, model text,
                                   region text, junk_too text, user_id text, id int);
             ALTER TABLE usage_b DROP junk, DROP junk_too;
             ALTER TABLE usage ATTACH PARTITION usage_b FOR VALUES IN ('b');
             CREATE TABLE usage_c PARTITION OF usage FOR VALUES IN ('c') PARTITION BY LIST (user_id);
             CREATE TABLE usage_c1 PARTITION OF usage_c FOR VALUES IN ('u');
             CREATE TABLE usage_c2 PARTITION OF usage_c FOR VALUES IN ('v');"
        ),
    );
    attach(&mut client, "llm", "usage");
    (db, client)
}

#[track_caller]
fn write(client: &mut Client, table: &str, region: &str, user: &str, cost: i64) {
    run_sql(client, &spending(table, region, user, cost));
}

fn charged(client: &mut Client) -> (i64, i64) {
    (used(client, "u"), used(client, "v"))
}

#[test]
fn rows_count_whichever_table_they_are_written_to() {
    let (_db, mut client) = partitioned();
    run_sql(
        &mut client,
        &format!(
            "INSERT INTO usage (region, user_id, cost, at)
             SELECT r, u, 1, {AT} FROM unnest('{{a,b,c}}'::text[]) AS r, unnest('{{u,v}}'::text[]) AS u"
        ),
    );
    assert_eq!(charged(&mut client), (3, 3));
    let mut expected = 3;
    for (table, region, cost) in [
        ("usage_a", "a", 10),
        ("usage_b", "b", 200),
        ("usage_c", "c", 3_000),
        ("usage_c1", "c", 40_000),
        ("usage", "b", 500_000),
    ] {
        write(&mut client, table, region, "u", cost);
        expected += cost;
        assert_eq!(charged(&mut client), (expected, 3), "{table}");
    }
    write(&mut client, "usage_c2", "c", "v", 7);
    assert_eq!(charged(&mut client), (expected, 10));
    assert_no_violations(&mut client);
    assert_eq!(one::<i64>(&mut client, "SELECT exa_billing.post_spend()", &[]), 2 + 5 + 1);
    assert_eq!(charged(&mut client), (543_213, 10));
    assert_no_violations(&mut client);
}

/// The plans of the triggers are kept per table; each table's rows are laid out differently.
#[test]
fn a_partition_with_other_columns_is_read_by_its_own() {
    let (_db, mut client) = partitioned();
    for round in 1..=7 {
        for (table, region) in [("usage", "a"), ("usage_b", "b"), ("usage_a", "a"), ("usage", "b")]
        {
            write(&mut client, table, region, "u", 1);
        }
        run_sql(
            &mut client,
            "UPDATE usage_b SET cost = cost + 10; UPDATE usage_a SET cost = cost + 10;
             DELETE FROM usage_b WHERE cost > 40",
        );
        let expected: i64 = one(&mut client, "SELECT sum(cost)::bigint FROM usage", &[]);
        assert_eq!(used(&mut client, "u"), expected, "round {round}");
    }
    assert_no_violations(&mut client);
}

#[test]
fn rows_that_move_between_partitions_count_once() {
    let (_db, mut client) = partitioned();
    write(&mut client, "usage", "a", "u", 100);
    write(&mut client, "usage", "b", "u", 20);
    write(&mut client, "usage", "c", "v", 3);
    run_sql(&mut client, "UPDATE usage SET region = 'b' WHERE region = 'a'");
    assert_eq!(charged(&mut client), (120, 3));
    run_sql(&mut client, "UPDATE usage SET region = 'c', cost = cost * 2 WHERE region = 'b'");
    assert_eq!(charged(&mut client), (240, 3));
    // From one sub-partition into another, and to another owner with it.
    run_sql(&mut client, "UPDATE usage_c SET user_id = 'v' WHERE user_id = 'u' AND cost = 40");
    assert_eq!(charged(&mut client), (200, 43));
    run_sql(&mut client, "UPDATE usage SET region = 'a', user_id = 'u'");
    assert_eq!(charged(&mut client), (243, 0));
    run_sql(&mut client, "DELETE FROM usage WHERE cost = 200");
    assert_eq!(charged(&mut client), (43, 0));
    let rows: String =
        one(&mut client, "SELECT string_agg(tableoid::regclass::text, ',') FROM usage", &[]);
    assert_eq!(rows, "usage_a,usage_a");
    run_sql(&mut client, "SELECT exa_billing.post_spend()");
    assert_eq!(charged(&mut client), (43, 0));
    assert_no_violations(&mut client);
}

#[test]
fn a_new_partition_counts_through_the_root_at_once_and_itself_once_it_is_looked_after() {
    for look_after in ["SELECT exa_billing.maintain_partitions()", "SELECT exa_billing.setup()"] {
        let (_db, mut client) = partitioned();
        run_sql(
            &mut client,
            "CREATE TABLE usage_d PARTITION OF usage FOR VALUES IN ('d') PARTITION BY LIST (user_id);
             CREATE TABLE usage_d1 PARTITION OF usage_d FOR VALUES IN ('u')",
        );
        write(&mut client, "usage", "d", "u", 5);
        assert_eq!(used(&mut client, "u"), 5);
        let bare =
            [unguarded("public.usage_d", "llm"), unguarded("public.usage_d1", "llm")].concat();
        assert_eq!(violations(&mut client), bare);
        // Past the books, and found.
        write(&mut client, "usage_d1", "d", "u", 70);
        assert_eq!(used(&mut client, "u"), 5);
        assert_eq!(violations(&mut client), [bare, difference("u", "75", "5")].concat());
        run_sql(&mut client, "DELETE FROM usage_d1 WHERE cost = 70");

        run_sql(&mut client, look_after);
        write(&mut client, "usage_d1", "d", "u", 600);
        write(&mut client, "usage_d", "d", "u", 8_000);
        assert_eq!(used(&mut client, "u"), 8_605, "{look_after}");
        assert_no_violations(&mut client);
    }
}

#[test]
fn a_partition_of_an_attached_table_cannot_be_taken_out() {
    let (_db, mut client) = partitioned();
    run_sql(
        &mut client,
        "CREATE TABLE usage_d PARTITION OF usage FOR VALUES IN ('d') PARTITION BY LIST (user_id);
         CREATE TABLE usage_d1 PARTITION OF usage_d FOR VALUES IN ('u');",
    );
    for (table, region) in [("usage", "a"), ("usage", "c"), ("usage", "d")] {
        write(&mut client, table, region, "u", 10);
    }
    let out = [
        "ALTER TABLE usage DETACH PARTITION usage_a",
        "ALTER TABLE usage_c DETACH PARTITION usage_c1",
        "ALTER TABLE usage DETACH PARTITION usage_c",
        "DROP TABLE usage_a",
        "DROP TABLE usage_c1",
        "DROP TABLE usage_c",
        "DROP TABLE usage",
        "DROP TABLE usage CASCADE",
        // Those that came later, whether or not they have their triggers.
        "ALTER TABLE usage DETACH PARTITION usage_d",
        "ALTER TABLE usage_d DETACH PARTITION usage_d1",
        "DROP TABLE usage_d",
        "DROP TABLE usage_d1",
    ];
    for setup in ["SELECT 1", "SELECT exa_billing.setup()"] {
        run_sql(&mut client, setup);
        for statement in out {
            let error = error_of(&mut client, statement);
            assert_eq!(error.code, "55000", "{statement}");
            assert!(error.message.contains("usage"), "{}", error.message);
            assert!(error.hint.expect("what helps").contains("detach_spend_source()"));
        }
    }
    for table in ["usage", "usage_a", "usage_c", "usage_c1", "usage_d1"] {
        assert_eq!(error_of(&mut client, &format!("TRUNCATE {table}")).code, "55000", "{table}");
    }
    assert_eq!(used(&mut client, "u"), 30);
    assert_no_violations(&mut client);

    assert_eq!(detach(&mut client, "llm"), 1);
    assert_eq!(traces(&mut client), [""; 0]);
    run_sql(
        &mut client,
        "ALTER TABLE usage DETACH PARTITION usage_a; DROP TABLE usage_d1; TRUNCATE usage_c; DROP TABLE usage",
    );
    assert_eq!(used(&mut client, "u"), 30);
    assert_no_violations(&mut client);
}

/// DETACH … CONCURRENTLY commits half-way, so it must not even begin.
#[test]
fn a_partition_is_not_taken_out_concurrently_either() {
    let (_db, mut client) = partitioned();
    write(&mut client, "usage", "a", "u", 10);
    run_sql(
        &mut client,
        &format!(
            "CREATE SCHEMA other; CREATE TABLE other.usage ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE other.usage_a PARTITION OF other.usage FOR VALUES IN ('a');
             CREATE SCHEMA \"Odd; \"\"name\"; ALTER TABLE usage_c SET SCHEMA \"Odd; \"\"name\""
        ),
    );
    for (table, partition) in [
        ("usage", "usage_a"),
        ("public.usage", "usage_a"),
        ("ONLY usage", "usage_b"),
        ("\"Odd; \"\"name\".usage_c", "usage_c1"),
    ] {
        let detach = format!("ALTER TABLE {table} DETACH PARTITION {partition} CONCURRENTLY");
        let error = error_of(&mut client, &detach);
        assert_eq!(error.code, "55000", "{detach}");
        assert!(error.hint.expect("what helps").contains("detach_spend_source()"));
    }
    let pending = "SELECT count(*) FROM pg_inherits WHERE inhdetachpending";
    assert_eq!(one::<i64>(&mut client, pending, &[]), 0);
    write(&mut client, "usage", "a", "u", 3);
    assert_eq!(used(&mut client, "u"), 13);
    assert_no_violations(&mut client);

    // That of somebody else's table of the same name may go.
    run_sql(&mut client, "ALTER TABLE other.usage DETACH PARTITION other.usage_a CONCURRENTLY");
    assert_eq!(detach(&mut client, "llm"), 1);
    run_sql(&mut client, "ALTER TABLE usage DETACH PARTITION usage_a CONCURRENTLY");
    assert_eq!(used(&mut client, "u"), 13);
    assert_no_violations(&mut client);
}

#[test]
fn a_filled_partition_that_is_attached_is_found_and_can_be_taken_in() {
    let (_db, mut client) = partitioned();
    write(&mut client, "usage", "a", "u", 10);
    run_sql(
        &mut client,
        &format!(
            "CREATE TABLE filled ({COLUMNS});
             INSERT INTO filled (region, user_id, cost, at) VALUES ('f', 'u', 700, {AT});
             ALTER TABLE usage ATTACH PARTITION filled FOR VALUES IN ('f')"
        ),
    );
    assert_eq!(used(&mut client, "u"), 10);
    let found = difference("u", "710", "10");
    assert_eq!(
        violations(&mut client),
        [unguarded("public.filled", "llm"), found.clone()].concat()
    );
    run_sql(&mut client, "SELECT exa_billing.maintain_partitions()");
    assert_eq!(violations(&mut client), found);
    write(&mut client, "filled", "f", "u", 3);
    assert_eq!(used(&mut client, "u"), 13);
    assert_eq!(violations(&mut client), difference("u", "713", "13"));

    run_sql(
        &mut client,
        "SELECT exa_billing.rebuild_rollups('user', 'u', '2024-05-15 12:00Z', '2024-05-15 13:00Z');
         SELECT exa_billing.recompute_user_balances('u')",
    );
    assert_eq!(used(&mut client, "u"), 713);
    assert_no_violations(&mut client);
    assert_eq!(error_of(&mut client, "ALTER TABLE usage DETACH PARTITION filled").code, "55000");
}

#[test]
fn partitions_that_cannot_be_read_as_journals_are_refused() {
    let (_db, mut client) = partitioned();
    run_sql(
        &mut client,
        "CREATE FOREIGN DATA WRAPPER nowhere; CREATE SERVER away FOREIGN DATA WRAPPER nowhere",
    );
    let foreign = "CREATE FOREIGN TABLE usage_f PARTITION OF usage FOR VALUES IN ('f') SERVER away";
    let error = error_of(&mut client, foreign);
    assert_eq!(error.code, "55000");
    assert!(error.detail.expect("why").contains("foreign partitions"));
    run_sql(&mut client, &format!("CREATE FOREIGN TABLE far ({COLUMNS}) SERVER away"));
    let late = "ALTER TABLE usage ATTACH PARTITION far FOR VALUES IN ('f')";
    assert_eq!(error_of(&mut client, late).code, "55000");

    assert_eq!(detach(&mut client, "llm"), 0);
    run_sql(&mut client, foreign);
    let attach = ledger_ddl_common::attaching("llm", "usage");
    let error = error_of(&mut client, &attach);
    assert_eq!(error.code, "22023");
    assert!(error.detail.expect("why").contains("foreign partitions"));
    assert_eq!(traces(&mut client), [""; 0]);
    assert_no_violations(&mut client);
}
