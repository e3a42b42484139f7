//! Attached tables while the extension goes and comes back, setup() is called again, a standby
//! reads, a worker looks after them and a subscriber gets their rows.

mod books_common;
mod common;
mod ledger_ddl_common;

use books_common::{assert_no_violations, assert_same, catalog, contents, figures, texts};
use common::{Database, Server, error_of, one, run_sql, wait_until};
use ledger_ddl_common::{
    AT, COLUMNS, Role, attach, attaching, detach, difference, spend, spending, traces, unguarded,
    used, violations,
};
use postgres::Client;

/// Two attached tables in a schema that exa_billing_owner cannot enter: `app.usage`, with a column
/// dropped, and `app.parts`, partitioned. User u was charged 100 and 20 by them, 3 otherwise.
fn fill(client: &mut Client, owner: &str) {
    run_sql(
        client,
        &format!(
            "SELECT exa_billing.setup(); CREATE SCHEMA app AUTHORIZATION {owner};
             CREATE TABLE app.usage (junk int, {COLUMNS}); ALTER TABLE app.usage DROP junk;
             CREATE TABLE app.parts ({COLUMNS}) PARTITION BY LIST (region);
             CREATE TABLE app.parts_a PARTITION OF app.parts FOR VALUES IN ('a');
             ALTER TABLE app.usage OWNER TO {owner}; ALTER TABLE app.parts OWNER TO {owner};
             ALTER TABLE app.parts_a OWNER TO {owner};
             GRANT USAGE ON SCHEMA exa_billing TO {owner};
             GRANT EXECUTE ON FUNCTION exa_billing.capture_spend, exa_billing.refuse_truncate TO {owner}"
        ),
    );
    for table in ["usage", "parts"] {
        attach(client, table, &format!("app.{table}"));
    }
    spend(client, "app.usage", "u", 100);
    run_sql(client, "SELECT exa_billing.post_spend()");
    spend(client, "app.parts_a", "u", 20);
    run_sql(client, "SELECT exa_billing.record_spend('user', 'u', 3, 'variable', 's', 'p')");
}

fn filled() -> (Database, Role, Client) {
    let db = Server::shared().database();
    let owner = Role::new(&db, "owner");
    let mut client = db.client();
    fill(&mut client, &owner.name);
    assert_eq!(used(&mut client, "u"), 123);
    assert_no_violations(&mut client);
    (db, owner, client)
}

const WITHOUT: &str = "DROP EXTENSION exa_billing CASCADE";
const AGAIN: &str = "CREATE EXTENSION exa_billing";

fn guards(client: &mut Client) -> Vec<String> {
    let all = traces(client).into_iter();
    all.filter(|line| line.starts_with("trigger")).collect()
}

#[test]
fn a_dropped_extension_comes_back_to_its_attached_tables() {
    let (_db, owner, mut client) = filled();
    let guarded = guards(&mut client);
    assert_eq!(guarded.len(), 12);
    let error = error_of(&mut client, "DROP EXTENSION exa_billing");
    assert_eq!(error.code, "2BP01");
    run_sql(&mut client, WITHOUT);
    assert_eq!(guards(&mut client), [""; 0]);
    run_sql(&mut client, AGAIN);
    let owners_rights = format!(
        "GRANT EXECUTE ON FUNCTION exa_billing.capture_spend, exa_billing.refuse_truncate TO {}",
        owner.name
    );
    run_sql(&mut client, &owners_rights);
    run_sql(&mut client, "SELECT exa_billing.setup()");
    assert_eq!(guards(&mut client), guarded);
    assert_eq!(used(&mut client, "u"), 123);
    assert_no_violations(&mut client);
    for (table, cost) in [("app.usage", 1_000), ("app.parts", 20_000), ("app.parts_a", 300_000)] {
        spend(&mut client, table, "u", cost);
    }
    run_sql(&mut client, "DELETE FROM app.usage WHERE cost = 100");
    assert_eq!(used(&mut client, "u"), 321_023);
    run_sql(&mut client, "SELECT exa_billing.post_spend()");
    assert_no_violations(&mut client);
    for source in ["usage", "parts"] {
        detach(&mut client, source);
    }
    assert_eq!(used(&mut client, "u"), 321_023);
    assert_no_violations(&mut client);
}

#[test]
fn what_was_written_meanwhile_is_found_exactly_and_can_be_taken_in() {
    let (_db, owner, mut client) = filled();
    run_sql(&mut client, WITHOUT);
    spend(&mut client, "app.usage", "u", 4_000);
    spend(&mut client, "app.parts_a", "v", 50_000);
    run_sql(&mut client, "DELETE FROM app.usage WHERE cost = 100");
    run_sql(&mut client, AGAIN);
    let both = [difference("u", "4020", "120"), difference("v", "50000", "")].concat();
    let mut expected =
        [unguarded("app.parts", "parts"), unguarded("app.parts_a", "parts")].concat();
    expected.extend(unguarded("app.usage", "usage"));
    expected.extend(both.clone());
    let mut found = violations(&mut client);
    found.retain(|line| !line.starts_with("I10 table exa_") && !line.contains("enabled guard"));
    assert_same("before setup", &expected, &found);
    run_sql(
        &mut client,
        &format!(
            "GRANT EXECUTE ON FUNCTION exa_billing.capture_spend, exa_billing.refuse_truncate TO {};
             SELECT exa_billing.setup()",
            owner.name
        ),
    );
    assert_same("after setup", &both, &violations(&mut client));
    let reconciled = texts(
        &mut client,
        "SELECT concat_ws(' ', mismatch_type, owner_id)
         FROM exa_billing.reconcile_rollups('2024-05-15 00:00Z', '2024-05-16 00:00Z')
         WHERE mismatch_type IN ('missing_total', 'amount_difference') ORDER BY 1",
    );
    assert_eq!(reconciled, ["amount_difference u", "missing_total v"]);
    run_sql(
        &mut client,
        "CALL exa_billing.backfill_rollups('2024-05-15 00:00Z', '2024-05-16 00:00Z', dry_run => false)",
    );
    run_sql(
        &mut client,
        "SELECT exa_billing.recompute_user_balances('u'), exa_billing.recompute_user_balances('v')",
    );
    assert_eq!((used(&mut client, "u"), used(&mut client, "v")), (4_023, 50_000));
    assert_no_violations(&mut client);
}

/// Nothing keeps the table there while the extension is away.
#[test]
fn a_table_that_was_lost_meanwhile_can_be_given_up() {
    let (_db, _owner, mut client) = filled();
    run_sql(&mut client, WITHOUT);
    run_sql(&mut client, "DROP TABLE app.usage; ALTER TABLE app.parts RENAME TO moved");
    run_sql(&mut client, AGAIN);
    run_sql(&mut client, "SELECT exa_billing.setup()");
    let reading = [
        "SELECT * FROM exa_billing.verify_books()",
        "SELECT * FROM exa_billing.account_statement('user', 'u', '2024-05-01Z', '2024-06-01Z')",
        "SELECT exa_billing.recompute_user_balances('u')",
    ];
    for statement in reading {
        let error = error_of(&mut client, statement);
        assert_eq!(error.code, "55000", "{statement}");
        assert!(error.message.contains("does not exist"), "{}", error.message);
        assert!(error.hint.expect("what helps").contains("detach_spend_source"));
    }
    // Charging and other DDL go on.
    run_sql(
        &mut client,
        "SELECT exa_billing.record_exa_usage('u', '/search', 5), exa_billing.post_spend()",
    );
    run_sql(
        &mut client,
        "CREATE TABLE other (n int); ALTER TABLE other ADD m int; DROP TABLE other",
    );
    assert_eq!(used(&mut client, "u"), 123);
    // One is found again under its name; without the other the journals lack 100.
    run_sql(&mut client, "ALTER TABLE app.moved RENAME TO parts");
    assert_eq!(detach(&mut client, "usage"), 0);
    let bare = [unguarded("app.parts", "parts"), unguarded("app.parts_a", "parts")].concat();
    assert_eq!(violations(&mut client), [bare, difference("u", "20", "120")].concat());
    run_sql(&mut client, "DROP TABLE app.parts");
    assert_eq!(detach(&mut client, "parts"), 0);
    assert_eq!(violations(&mut client), difference("u", "120", ""));
}

/// The books go with their schema, and the application's tables stay what they are.
#[test]
fn books_can_be_thrown_away_with_tables_attached() {
    let (_db, _owner, mut client) = filled();
    run_sql(&mut client, "DROP SCHEMA exa_billing CASCADE");
    let left = texts(
        &mut client,
        "SELECT tgname::text FROM pg_trigger WHERE NOT tgisinternal
         UNION ALL SELECT evtname FROM pg_event_trigger
         UNION ALL SELECT extname FROM pg_extension WHERE extname = 'exa_billing'",
    );
    assert_eq!(left, [""; 0]);
    spend(&mut client, "app.usage", "u", 1);
    run_sql(
        &mut client,
        "ALTER TABLE app.usage DROP cost; DROP TABLE app.parts; CREATE EXTENSION exa_billing",
    );
    run_sql(&mut client, "SELECT exa_billing.setup()");
    assert_no_violations(&mut client);
}

#[test]
fn setup_leaves_the_registry_alone() {
    let (_db, _owner, mut client) = filled();
    run_sql(&mut client, "ALTER TABLE app.usage RENAME cost TO price");
    let registry =
        "SELECT concat_ws(' | ', xmin, s) FROM exa_billing.spend_sources AS s ORDER BY 1";
    let (rows, described, registered) =
        (contents(&mut client), catalog(&mut client), texts(&mut client, registry));
    assert_eq!(registered.len(), 4);
    let guarded = "SELECT concat_ws(' ', xmin, oid, tgname) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1";
    let triggers = texts(&mut client, guarded);
    for _ in 0..2 {
        run_sql(&mut client, "SELECT exa_billing.setup(), exa_billing.maintain_partitions()");
    }
    assert_same("rows", &rows, &contents(&mut client));
    assert_same("catalog", &described, &catalog(&mut client));
    assert_eq!(registered, texts(&mut client, registry));
    assert_eq!(triggers, texts(&mut client, guarded));
    assert_no_violations(&mut client);
}

/// A database half restored, or half destroyed, is no reason to refuse DDL everywhere.
#[test]
fn ddl_goes_on_without_a_registry() {
    let (_db, _owner, mut client) = filled();
    run_sql(&mut client, "ALTER TABLE exa_billing.spend_sources RENAME TO away");
    run_sql(
        &mut client,
        "CREATE TABLE other (n int); ALTER TABLE other ADD m int; DROP TABLE other; CREATE SCHEMA s; DROP SCHEMA s",
    );
    assert_eq!(error_of(&mut client, &spending("app.usage", "a", "u", 1)).code, "42P01");
    run_sql(&mut client, "ALTER TABLE exa_billing.away RENAME TO spend_sources");
    spend(&mut client, "app.usage", "u", 1);
    assert_eq!(used(&mut client, "u"), 124);
    assert_no_violations(&mut client);
}

#[test]
fn a_standby_reads_what_attached_tables_say() {
    let primary = Server::start("ledger", &[]);
    let db = primary.database();
    let mut client = db.client();
    fill(&mut client, "postgres");
    let standby = primary.basebackup_standby("ledger_standby");
    let mut reader = standby.client(db.name());
    spend(&mut client, "app.usage", "u", 4_000);
    run_sql(&mut client, "ALTER TABLE app.usage RENAME cost TO price");
    wait_until("the standby has it", || {
        let sql = "SELECT pg_current_wal_lsn()::text";
        let sent: String = one(&mut client, sql, &[]);
        one(&mut reader, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&sent])
    });
    assert_eq!(used(&mut reader, "u"), 4_123);
    assert_no_violations(&mut reader);
    assert_same("figures", &figures(&mut client), &figures(&mut reader));
    for reading in [
        "account_statement('user', 'u', '2024-05-01Z', '2024-06-01Z')",
        "rolling_spend('user', 'u', interval '45 minutes', '2024-05-15 12:45Z')",
        "top_spend_drivers('user', 'u', '2024-05-15 12:05Z', '2024-05-15 12:55Z')",
        "recompute_user_balances('u', dry_run => true)",
    ] {
        let sql = format!("SELECT r::text FROM exa_billing.{reading} AS r");
        let (expected, found) = (texts(&mut client, &sql), texts(&mut reader, &sql));
        assert!(!expected.is_empty(), "{reading}");
        assert_eq!(expected, found, "{reading}");
    }
    for writing in
        [attaching("other", "app.usage"), "SELECT exa_billing.detach_spend_source('usage')".into()]
    {
        assert_eq!(error_of(&mut reader, &writing).code, "25006");
    }
    standby.promote();
    spend(&mut reader, "app.parts", "u", 1);
    assert_eq!(used(&mut reader, "u"), 4_124);
    assert_no_violations(&mut reader);
}

#[test]
fn the_worker_gives_new_partitions_their_triggers() {
    let server = Server::start("ledger_worker", &[]);
    let db = server.database();
    let mut client = db.client();
    fill(&mut client, "postgres");
    run_sql(&mut client, "CREATE TABLE app.parts_b PARTITION OF app.parts FOR VALUES IN ('b')");
    run_sql(&mut client, &spending("app.parts", "b", "u", 1_000));
    assert_eq!(violations(&mut client), unguarded("app.parts_b", "parts"));
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    // It looks after partitions as soon as it serves a database, and every hour from then on.
    server.set_conf(&[("exa_billing.databases", db.name())]);
    server.reload();
    wait_until("the partition has its triggers", || violations(&mut client).is_empty());
    run_sql(&mut client, &spending("app.parts_b", "b", "u", 20_000));
    wait_until("everything is posted", || {
        one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.unposted_spend", &[]) == 0
    });
    let posted = "SELECT microdollars_used FROM exa_billing.accounts WHERE owner_id = 'u'";
    assert_eq!(one::<i64>(&mut client, posted, &[]), 21_123);
    assert_no_violations(&mut client);
    // A served database can be dropped once it is not served any more.
    server.set_conf(&[("exa_billing.databases", "")]);
    server.reload();
}

/// The publisher has charged what it publishes.
#[test]
fn a_subscriber_captures_only_what_is_written_to_it() {
    let server = Server::start("ledger_sub", &[("wal_level", "logical")]);
    let (source, target) = (server.database(), server.database());
    let (mut publisher, mut subscriber) = (source.client(), target.client());
    for client in [&mut publisher, &mut subscriber] {
        run_sql(
            client,
            &format!("CREATE TABLE usage ({COLUMNS}); ALTER TABLE usage ADD PRIMARY KEY (id)"),
        );
        attach(client, "llm", "usage");
    }
    let row = |id: i32, cost: i64| {
        format!("INSERT INTO usage (id, user_id, cost, at) VALUES ({id}, 'u', {cost}, {AT})")
    };
    run_sql(&mut publisher, &row(1, 5));
    run_sql(&mut publisher, "CREATE PUBLICATION p FOR TABLE usage");
    run_sql(&mut publisher, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
    run_sql(
        &mut subscriber,
        &format!(
            "CREATE SUBSCRIPTION s CONNECTION 'host={} port={} user=postgres dbname={}' PUBLICATION p
             WITH (create_slot = false, slot_name = 's')",
            server.host(),
            server.port(),
            source.name()
        ),
    );
    let sum = "SELECT coalesce(sum(cost), 0)::bigint FROM usage";
    wait_until("the first copy", || one::<i64>(&mut subscriber, sum, &[]) == 5);
    run_sql(&mut publisher, &row(2, 60));
    run_sql(&mut publisher, "UPDATE usage SET cost = cost + 1; DELETE FROM usage WHERE id = 1");
    wait_until("what came later", || one::<i64>(&mut subscriber, sum, &[]) == 61);
    assert_eq!((used(&mut publisher, "u"), used(&mut subscriber, "u")), (61, 0));
    assert_no_violations(&mut publisher);
    run_sql(&mut subscriber, &row(3, 700));
    assert_eq!(used(&mut subscriber, "u"), 700);
    assert_eq!(violations(&mut subscriber), difference("u", "761", "700"));
    run_sql(&mut subscriber, "DROP SUBSCRIPTION s");
}
