//! Owners of attached tables who hide code in them: it runs as themselves, whoever reads the books,
//! and leaves nothing in the reader's session.

mod books_common;
mod common;
mod ledger_ddl_common;

use books_common::{assert_no_violations, texts};
use common::{Database, Server, one, run_sql};
use ledger_ddl_common::{COLUMNS, Role, attaching, detach, spend, spending, used};
use postgres::Client;

/// Functions that note as whom they run, and try to become somebody else or to leave something
/// behind. `sing` may stand where PostgreSQL wants functions that have no effects.
const HOSTILE: &str = "
    CREATE TABLE hostile.canary (ran_as name, called_by name, what text);
    CREATE FUNCTION hostile.attempt(what text, statement text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE statement;
        INSERT INTO hostile.canary VALUES (current_user, session_user, what || ' worked: ' || statement);
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END $$;
    CREATE FUNCTION hostile.note(what text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO hostile.canary VALUES (current_user, session_user, what);
        PERFORM hostile.attempt(what, 'SET ROLE postgres');
        PERFORM hostile.attempt(what, 'RESET ROLE');
        PERFORM hostile.attempt(what, 'RESET SESSION AUTHORIZATION');
        PERFORM hostile.attempt(what, 'SET SESSION AUTHORIZATION postgres');
        PERFORM hostile.attempt(what, 'CREATE TEMPORARY TABLE accounts (n int)');
        PERFORM hostile.attempt(what, 'PREPARE later AS SELECT 1');
        PERFORM hostile.attempt(what, 'LISTEN later');
        PERFORM hostile.attempt(what, 'DECLARE later CURSOR WITH HOLD FOR SELECT 1');
        PERFORM hostile.attempt(what, 'INSERT INTO hostile.bait VALUES (1)');
        PERFORM hostile.attempt(what, 'ALTER ROLE postgres CONNECTION LIMIT 7');
        PERFORM set_config('search_path', 'hostile', false);
        PERFORM set_config('row_security', 'on', false);
        PERFORM hostile.attempt(what, 'SET session_replication_role = replica');
    END $$;
    CREATE FUNCTION hostile.sing(what text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM hostile.note(what);
        RETURN 1;
    END $$;
    CREATE FUNCTION hostile.sing(n bigint, what text) RETURNS bigint IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM hostile.note(what);
        RETURN n;
    END $$;
    CREATE FUNCTION hostile.on_bait() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO hostile.canary VALUES (current_user, session_user, 'deferred');
        RETURN new;
    END $$;
    CREATE TABLE hostile.bait (n int);
    CREATE CONSTRAINT TRIGGER later AFTER INSERT ON hostile.bait DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION hostile.on_bait();
    GRANT USAGE ON SCHEMA hostile TO PUBLIC;
    GRANT INSERT ON hostile.canary, hostile.bait TO PUBLIC;";

/// Everything PostgreSQL runs by itself while a table is written, planned or read; `$` is its schema.
const TRAPS: &str = "
    CREATE INDEX ON $.usage (hostile.sing(cost, 'index'));
    CREATE INDEX ON $.usage (user_id, at) WHERE hostile.sing('predicate') = 1;
    CREATE STATISTICS traps ON (hostile.sing(cost, 'statistics')), user_id FROM $.usage;
    ALTER TABLE $.usage ADD CONSTRAINT checked CHECK (hostile.sing('check') = 1 AND cost < 1000000);
    ALTER TABLE $.usage ADD made bigint GENERATED ALWAYS AS (hostile.sing(cost, 'generated')) STORED;
    ALTER TABLE $.usage ALTER id SET DEFAULT hostile.sing('default');
    ALTER TABLE $.usage ENABLE ROW LEVEL SECURITY;
    CREATE POLICY trap ON $.usage USING (hostile.sing('policy') = 1);
    CREATE FUNCTION hostile.on_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM hostile.note('trigger');
        RETURN new;
    END $$;
    CREATE TRIGGER trap AFTER INSERT ON $.usage FOR EACH ROW EXECUTE FUNCTION hostile.on_row();";

/// What a superuser calls; each in a session of its own, which plans anew.
const CALLS: [&str; 20] = [
    "SELECT * FROM exa_billing.verify_books()",
    "SELECT * FROM exa_billing.verify_books('user', 'u')",
    "SELECT exa_billing.setup()",
    "SELECT * FROM exa_billing.maintain_partitions()",
    "SELECT * FROM exa_billing.account_statement('user', 'u', '2024-05-01Z', '2024-06-01Z')",
    "SELECT exa_billing.recompute_user_balances('u', dry_run => true)",
    "SELECT exa_billing.recompute_user_balances('u')",
    "SELECT exa_billing.recompute_baselines('user', 'u')",
    "CALL exa_billing.recompute_all_balances(dry_run => false)",
    "SELECT exa_billing.grant_credit('user', 'u', 5, '2024-07-01Z', created_at => '2024-05-15 12:10Z')",
    "SELECT exa_billing.expire_credits('user', 'u')",
    "SELECT exa_billing.account_balance('user', 'u')",
    "SELECT * FROM exa_billing.reconcile_rollups('2024-05-15 00:00Z', '2024-05-16 00:00Z')",
    "SELECT exa_billing.rebuild_rollups('user', 'u', '2024-05-15 00:00Z', '2024-05-16 00:00Z')",
    "CALL exa_billing.backfill_rollups('2024-05-15 00:00Z', '2024-05-16 00:00Z', dry_run => false)",
    "SELECT * FROM exa_billing.rolling_spend('user', 'u', interval '45 minutes', '2024-05-15 12:45Z')",
    "SELECT exa_billing.spend_evidence('user', 'u', '24h', '2024-05-15 12:45Z')",
    "SELECT * FROM exa_billing.top_spend_drivers('user', 'u', '2024-05-15 12:05Z', '2024-05-15 12:55Z')",
    "SELECT exa_billing.post_spend()",
    "SELECT exa_billing.detach_spend_source('llm')",
];

fn trapped(partitioned: bool) -> (Database, Role, Client) {
    let db = Server::shared().database();
    let mut admin = db.client();
    let owner = Role::attacher(&db, "owner");
    run_sql(
        &mut admin,
        &format!("SELECT exa_billing.setup(); CREATE SCHEMA hostile AUTHORIZATION {}", owner.name),
    );
    let mut session = db.client_as(&owner.name);
    let partition_by = if partitioned {
        "PARTITION BY LIST (region);
         CREATE TABLE usage_a PARTITION OF usage FOR VALUES IN ('a');
         CREATE TABLE usage_b PARTITION OF usage FOR VALUES IN ('b')"
    } else {
        ""
    };
    run_sql(
        &mut session,
        &format!(
            "SET client_min_messages = error; {HOSTILE} CREATE TABLE usage ({COLUMNS}) {partition_by}"
        ),
    );
    (db, owner, session)
}

/// Nobody but the owner ran anything, and the session is as it was.
#[track_caller]
fn assert_contained(reader: &mut Client, owner: &str, what: &str) {
    let others = texts(
        reader,
        &format!(
            "SELECT c::text FROM hostile.canary AS c
             WHERE ran_as <> '{owner}' OR called_by <> '{owner}' AND what LIKE '%worked:%'
               AND what NOT LIKE '%bait%'"
        ),
    );
    assert_eq!(others, [""; 0], "{what}");
    let left = texts(
        reader,
        "SELECT current_setting('search_path') || current_setting('row_security')
                || current_setting('session_replication_role') || current_user
         UNION ALL SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema() AND relname = 'accounts'
         UNION ALL SELECT name FROM pg_prepared_statements WHERE name = 'later'
         UNION ALL SELECT name FROM pg_cursors WHERE name = 'later'
         UNION ALL SELECT pg_listening_channels()
         UNION ALL SELECT 'limit' FROM pg_roles WHERE rolname = 'postgres' AND rolconnlimit <> -1",
    );
    assert_eq!(left, ["\"$user\", publiconoriginpostgres"], "{what}");
}

fn code_in_a_table_runs_as_its_owner(partitioned: bool) {
    let (db, owner, mut session) = trapped(partitioned);
    let mut admin = db.client();
    let name = owner.name.as_str();
    let table = format!("{name}.usage");
    run_sql(&mut session, &TRAPS.replace("$.", &format!("{name}.")));
    run_sql(&mut session, &spending(&table, "a", "u", 7));
    // The superuser attaches it, with rows that are there.
    run_sql(&mut admin, "SET client_min_messages = error");
    run_sql(&mut admin, &attaching("llm", &table));
    assert_contained(&mut admin, name, "attach");
    run_sql(&mut session, "TRUNCATE hostile.canary");
    for n in 1..=3 {
        spend(&mut session, &table, "u", n * 10);
    }
    run_sql(&mut session, &format!("UPDATE {table} SET cost = cost + 1"));
    assert_eq!(used(&mut admin, "u"), 71);
    assert_contained(&mut admin, name, "capture");
    let sung = texts(
        &mut admin,
        "SELECT DISTINCT what FROM hostile.canary WHERE what NOT LIKE '%worked%' ORDER BY 1",
    );
    assert_eq!(
        sung,
        ["check", "default", "deferred", "generated", "index", "predicate", "trigger"]
    );

    let mut ran = 0;
    for call in CALLS {
        run_sql(&mut session, "TRUNCATE hostile.canary");
        let mut reader = db.client();
        run_sql(&mut reader, "SET client_min_messages = error; SET constraint_exclusion = on");
        run_sql(&mut reader, call);
        assert_contained(&mut reader, name, call);
        ran += i32::from(one::<i64>(&mut admin, "SELECT count(*) FROM hostile.canary", &[]) > 0);
    }
    // They did run, so that it means something that they gained nothing.
    assert!(ran >= 8, "{ran}");
    assert_eq!(used(&mut admin, "u"), 71);
    assert_no_violations(&mut admin);
}

#[test]
fn code_in_an_ordinary_table_runs_as_its_owner() {
    code_in_a_table_runs_as_its_owner(false);
}

#[test]
fn code_in_a_partitioned_table_runs_as_its_owner() {
    code_in_a_table_runs_as_its_owner(true);
}

/// A new partition gets its triggers from whoever calls setup().
#[test]
fn code_in_a_partition_that_is_looked_after_runs_as_its_owner() {
    let (db, owner, mut session) = trapped(true);
    let mut admin = db.client();
    run_sql(&mut session, &attaching("llm", "usage"));
    run_sql(
        &mut session,
        &format!(
            "CREATE TABLE usage_c ({COLUMNS}, CHECK (hostile.sing('check') = 1));
             CREATE INDEX ON usage_c (id) WHERE hostile.sing('predicate') = 1;
             ALTER TABLE usage ATTACH PARTITION usage_c FOR VALUES IN ('c');
             TRUNCATE hostile.canary"
        ),
    );
    run_sql(&mut admin, "SET client_min_messages = error; SELECT exa_billing.setup()");
    assert_contained(&mut admin, &owner.name, "setup");
    assert_no_violations(&mut admin);
    assert_contained(&mut admin, &owner.name, "verify");
    run_sql(&mut admin, "SELECT exa_billing.detach_spend_source('llm')");
    assert_contained(&mut admin, &owner.name, "detach");
}

/// Names the product uses, in front of the writer's search_path and among its temporary objects.
#[test]
fn names_of_the_writers_are_never_taken_for_those_of_the_books() {
    let (db, owner, mut session) = trapped(false);
    let mut admin = db.client();
    let lie = |kind: &str, schema: &str| {
        format!(
            "CREATE {kind} TABLE {schema}.exa_billing_new (user_id text, cost bigint);
             CREATE {kind} TABLE {schema}.exa_billing_old (user_id text, cost bigint);
             CREATE {kind} TABLE {schema}.unposted_spend (owner_kind text);
             CREATE {kind} TABLE {schema}.spend_sources (source_name text);
             CREATE {kind} TABLE {schema}.usage (user_id text);
             CREATE {kind} TABLE {schema}.pg_class (oid oid, relname name);
             CREATE {kind} TABLE {schema}.pg_trigger (oid oid, tgname name);
             INSERT INTO {schema}.exa_billing_new VALUES ('victim', 100);
             CREATE FUNCTION {schema}.date_trunc(text, timestamptz, text) RETURNS timestamptz LANGUAGE plpgsql
                 AS 'BEGIN PERFORM hostile.note(''date_trunc''); RETURN ''1999-01-01Z''; END';
             CREATE FUNCTION {schema}.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql
                 AS 'BEGIN PERFORM hostile.note(''clock''); RETURN ''1999-01-01Z''; END';
             CREATE FUNCTION {schema}.more(bigint, int) RETURNS boolean LANGUAGE plpgsql
                 AS 'BEGIN PERFORM hostile.note(''operator''); RETURN false; END';
             CREATE FUNCTION {schema}.same(text, text) RETURNS boolean LANGUAGE plpgsql
                 AS 'BEGIN PERFORM hostile.note(''operator''); RETURN true; END';
             CREATE OPERATOR {schema}.> (LEFTARG = bigint, RIGHTARG = int, FUNCTION = {schema}.more);
             CREATE OPERATOR {schema}.= (LEFTARG = text, RIGHTARG = text, FUNCTION = {schema}.same);"
        )
    };
    let schema = owner.name.clone();
    run_sql(&mut session, &format!("CREATE TABLE {schema}.\"the ledger\" ({COLUMNS})"));
    for (n, (kind, place, path)) in [
        ("", "hostile", "hostile, pg_temp, pg_catalog"),
        ("TEMPORARY", "pg_temp", "pg_temp, hostile, pg_catalog"),
    ]
    .into_iter()
    .enumerate()
    {
        run_sql(&mut session, &lie(kind, place));
        run_sql(&mut session, &format!("SET search_path = {path}"));
        let table = format!("{schema}.\"the ledger\"");
        run_sql(&mut session, &attaching("llm", &table));
        run_sql(
            &mut session,
            &format!(
                "INSERT INTO {table} (user_id, cost, at) VALUES ('u', 5, pg_catalog.clock_timestamp());
                 UPDATE {table} SET cost = 6; DELETE FROM {table} WHERE cost OPERATOR(pg_catalog.=) 7"
            ),
        );
        assert_eq!(detach(&mut session, "llm"), 1);
        run_sql(&mut session, &format!("DELETE FROM {table}; SET search_path = pg_catalog"));
        assert_eq!(
            (used(&mut admin, "u"), used(&mut admin, "victim")),
            (6 * (n as i64 + 1), 0),
            "{path}"
        );
    }
    assert_eq!(texts(&mut admin, "SELECT c::text FROM hostile.canary AS c"), [""; 0]);
    assert_no_violations(&mut admin);
}
