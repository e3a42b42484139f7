//! A migration that fails leaves everything as it was: contents, catalog and figures; charging goes on,
//! and when what was amiss is gone setup() succeeds.

mod books_common;
mod common;
mod upgrade_common;

use books_common::{assert_no_violations, assert_same, catalog, contents, figures, fill};
use common::{Database, Server, error_of, one, run_sql};
use postgres::Client;
use upgrade_common::made_up;

const SETUP: &str = "SELECT exa_billing.setup()";
const NEWEST: i32 = 3;
const CHARGE: &str =
    "SELECT charged_microdollars FROM exa_billing.record_exa_usage('user-1', '/search', 777)";

/// Filled books of an older version under the newest functions.
fn books(storage: usize) -> (Database, Client) {
    let db = made_up(storage).books(&Server::shared());
    let mut client = db.client();
    run_sql(&mut client, "ALTER EXTENSION exa_billing UPDATE");
    fill(&mut client);
    if storage > 1 {
        run_sql(
            &mut client,
            "SELECT exa_billing.update_spend_alert_settings('user', 'user-1',
                 '{\"threshold_24h_microdollars\": 5000000}', 'user-1')",
        );
    }
    (db, client)
}

/// Everything that can be said of the books.
fn all_of(client: &mut Client) -> [Vec<String>; 3] {
    [catalog(client), contents(client), figures(client)]
}

#[track_caller]
fn assert_as_it_was(before: &[Vec<String>; 3], client: &mut Client, after_what: &str) {
    for (was, is) in before.iter().zip(&all_of(client)) {
        assert_same(after_what, was, is);
    }
}

#[track_caller]
fn assert_charging_goes_on(client: &mut Client) {
    run_sql(client, "BEGIN");
    assert_eq!(one::<i64>(client, CHARGE, &[]), 777);
    assert!(one::<i64>(client, "SELECT exa_billing.post_spend()", &[]) > 0);
    run_sql(client, "ROLLBACK");
}

/// Has an event trigger do something in the middle of the last migration.
fn plant(client: &mut Client, what: &str) {
    run_sql(
        client,
        &format!(
            "CREATE OR REPLACE FUNCTION public.shake() RETURNS event_trigger LANGUAGE plpgsql AS $shake$
             BEGIN
                 IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands()
                            WHERE object_identity = 'exa_billing.books_proof') THEN
                     {what};
                 END IF;
             END $shake$;
             DROP EVENT TRIGGER IF EXISTS shake;
             CREATE EVENT TRIGGER shake ON ddl_command_end WHEN tag IN ('CREATE TABLE')
                 EXECUTE FUNCTION public.shake()"
        ),
    );
}

#[test]
fn a_table_in_the_way_stops_all_migrations() {
    for storage in [1, 2] {
        let (_db, mut client) = books(storage);
        run_sql(
            &mut client,
            "SET ROLE exa_billing_owner; CREATE TABLE exa_billing.job_runs (n int); RESET ROLE",
        );
        let before = all_of(&mut client);
        assert_eq!(error_of(&mut client, SETUP).code, "42P07");
        assert_as_it_was(&before, &mut client, "setup");
        assert_charging_goes_on(&mut client);

        run_sql(&mut client, "DROP TABLE exa_billing.job_runs");
        assert_eq!(one::<i32>(&mut client, SETUP, &[]), NEWEST);
        assert_no_violations(&mut client);
    }
}

/// Whatever moves in the middle of a migration is found, named and undone.
#[test]
fn a_migration_that_moves_a_figure_is_undone() {
    let of_month = |statement: &str| {
        format!(
            "EXECUTE replace($do${statement}$do$, 'JOURNAL',
                 to_char(now() AT TIME ZONE 'UTC', '\"exa_billing.exa_usage_log_\"YYYY_MM'))"
        )
    };
    let unguarded = |table: &str, statement: &str| {
        format!(
            "ALTER TABLE {table} DISABLE TRIGGER append_only; {statement};
             ALTER TABLE {table} ENABLE ALWAYS TRIGGER append_only"
        )
    };
    let move_one = |table: &str, column: &str| {
        format!(
            "UPDATE exa_billing.{table} SET {column} = {column} + 1
             WHERE ctid = (SELECT min(ctid) FROM exa_billing.{table} WHERE {column} IS NOT NULL)"
        )
    };
    let cases = [
        (move_one("accounts", "microdollars_used"), "credits used: "),
        (move_one("accounts", "total_microdollars_acquired"), "credits acquired: "),
        (
            "UPDATE exa_billing.accounts
             SET microdollars_used = microdollars_used + CASE owner_id WHEN 'user-1' THEN 5 ELSE -5 END
             WHERE owner_id IN ('user-1', 'org-1')"
                .to_owned(),
            "hash of the accounts: ",
        ),
        (
            "DELETE FROM exa_billing.unposted_spend
             WHERE ctid = (SELECT min(ctid) FROM exa_billing.unposted_spend)"
                .to_owned(),
            "unposted rows: 23 before, 22 after",
        ),
        (move_one("spend_hourly_totals", "total_microdollars"), "a violation that was not there: I3 "),
        (move_one("spend_daily_totals", "total_microdollars"), "hash of the days: "),
        (move_one("spend_hourly_drivers", "total_microdollars"), "spend of the drivers: "),
        (move_one("exa_monthly_usage", "request_count"), "requests of the months: "),
        (move_one("exa_monthly_allowance", "used_microdollars"), "free allowances used: "),
        (move_one("organization_member_usage", "microdollars_used"), "spend of the members' days: "),
        (move_one("organization_members", "daily_limit_microdollars"), "hash of the members: "),
        (
            "UPDATE exa_billing.unposted_spend SET actor_user_id = 'nobody' WHERE actor_user_id IS NOT NULL"
                .to_owned(),
            "hash of the queue: ",
        ),
        (
            "UPDATE exa_billing.spend_dimensions SET provider_key = provider_key || '2'".to_owned(),
            "dimension ",
        ),
        (
            "DELETE FROM exa_billing.spend_sources WHERE NOT is_own".to_owned(),
            "hash of the attached tables: ",
        ),
        (
            "UPDATE exa_billing.spend_degraded_intervals SET resolved_at = now()".to_owned(),
            "untrusted hours ",
        ),
        (
            move_one("free_allowances", "free_allowance_microdollars"),
            "hash of the free allowances set: ",
        ),
        (
            move_one("spend_alert_settings", "threshold_24h_microdollars"),
            "hash of the alert settings: ",
        ),
        (
            unguarded(
                "exa_billing.credit_transactions",
                "DELETE FROM exa_billing.credit_transactions WHERE owner_id = 'user-9'",
            ),
            "credit transactions: ",
        ),
        (
            of_month(&unguarded("JOURNAL", "DELETE FROM JOURNAL WHERE user_id = 'user-1'")),
            " deleted before, file ",
        ),
        (
            of_month(&unguarded("JOURNAL", "UPDATE JOURNAL SET recorded_at = recorded_at")),
            " deleted before, file ",
        ),
        (
            "INSERT INTO exa_billing.idempotency_keys SELECT 'new', idempotency_key, entry_id,
                 entry_created_at, created_at_given, payload_hash FROM exa_billing.idempotency_keys"
                .to_owned(),
            "what was done to idempotency_keys: file ",
        ),
        (of_month(&unguarded("JOURNAL", "TRUNCATE JOURNAL")), "what was done to exa_usage_log_"),
        (of_month("DROP TABLE JOURNAL"), " deleted before, gone after"),
        (
            "ALTER TABLE exa_billing.exa_usage_log DROP COLUMN feature_id".to_owned(),
            "column feature_id of exa_usage_log: number 8, text before, gone after",
        ),
    ];
    let (_db, mut client) = books(2);
    run_sql(
        &mut client,
        "CREATE TABLE public.llm (id bigint PRIMARY KEY, who text, cost bigint, at timestamptz);
         CREATE INDEX ON public.llm (who, at);
         SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway',
             '{\"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}');
         SELECT exa_billing.record_degraded_interval('2020-01-01Z', '2020-01-02Z', 'a test')",
    );
    plant(&mut client, "NULL");
    let before = all_of(&mut client)[1..].to_vec();
    // Rows are counted also where the server was told not to.
    run_sql(&mut client, "SET track_counts = off");
    for (what, told) in cases {
        plant(&mut client, &what);
        let error = error_of(&mut client, SETUP);
        assert_eq!(error.code, "55000", "{what}: {error:?}");
        assert_eq!(error.message, "the migration has moved figures of the books", "{what}");
        let detail = error.detail.expect("the figure");
        assert!(detail.contains(told), "{what}: {detail}");
        assert_same(&what, &before[0], &contents(&mut client));
        assert_same(&what, &before[1], &figures(&mut client));
    }
    let before = all_of(&mut client);
    error_of(&mut client, SETUP);
    assert_as_it_was(&before, &mut client, "setup");
    assert_charging_goes_on(&mut client);

    run_sql(&mut client, "DROP EVENT TRIGGER shake");
    assert_eq!(one::<i32>(&mut client, SETUP, &[]), NEWEST);
    assert_no_violations(&mut client);
}

/// What is wrong already need not be mended first: it must not get worse.
#[test]
fn books_with_a_violation_are_migrated_with_it() {
    let (_db, mut client) = books(1);
    run_sql(
        &mut client,
        "UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + 1 WHERE owner_id = 'user-1'",
    );
    assert_eq!(one::<i32>(&mut client, SETUP, &[]), NEWEST);
    let violations = "SELECT count(*) FROM exa_billing.verify_books() WHERE owner_id = 'user-1'";
    assert!(one::<i64>(&mut client, violations, &[]) > 0);
}

#[test]
fn a_transaction_that_keeps_its_snapshot_may_migrate() {
    let (_db, mut client) = books(1);
    for part in ["BEGIN ISOLATION LEVEL REPEATABLE READ", CHARGE, SETUP, CHARGE, "COMMIT"] {
        run_sql(&mut client, part);
    }
    assert_no_violations(&mut client);
    let kept = "SELECT count(*) FROM exa_billing.exa_usage_log WHERE cost_microdollars = 777";
    assert_eq!(one::<i64>(&mut client, kept, &[]), 2);
}
