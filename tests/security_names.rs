//! Names that lie: tables, functions, operators and types of a caller's own, found before the
//! real ones in whatever search_path the caller has.

mod books_common;
mod common;

use books_common::{assert_no_violations, assert_same, figures, texts};
use common::{Database, Server, one, run_sql};
use postgres::Client;

/// Functions and operators under the names the books use; each leaves a trace when it runs.
/// `$` is the schema. Volatile ones could not be inlined away; the strict ones are not skipped,
/// since no argument is null.
const LIES: &str = r"
    CREATE FUNCTION $.trace(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog
        AS 'BEGIN INSERT INTO canary.trace VALUES (current_user, what); END';
    CREATE FUNCTION $.same(a text, b text) RETURNS boolean LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''text =''); RETURN true; END';
    CREATE FUNCTION $.same(a bigint, b bigint) RETURNS boolean LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''bigint =''); RETURN true; END';
    CREATE FUNCTION $.same(a timestamptz, b timestamptz) RETURNS boolean LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''timestamptz <''); RETURN true; END';
    CREATE FUNCTION $.plus(a bigint, b bigint) RETURNS bigint LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''bigint +''); RETURN 0; END';
    CREATE FUNCTION $.plus(a numeric, b numeric) RETURNS numeric LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''numeric -''); RETURN 0; END';
    CREATE FUNCTION $.glue(a text, b text) RETURNS text LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''||''); RETURN a; END';
    CREATE OPERATOR $.= (LEFTARG = text, RIGHTARG = text, FUNCTION = $.same);
    CREATE OPERATOR $.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = $.same);
    CREATE OPERATOR $.<> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = $.same);
    CREATE OPERATOR $.> (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = $.same);
    CREATE OPERATOR $.>= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = $.same);
    CREATE OPERATOR $.< (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = $.same);
    CREATE OPERATOR $.+ (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = $.plus);
    CREATE OPERATOR $.- (LEFTARG = numeric, RIGHTARG = numeric, FUNCTION = $.plus);
    CREATE OPERATOR $.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = $.glue);
    CREATE FUNCTION $.now() RETURNS timestamptz LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''now''); RETURN ''1999-01-01Z''; END';
    CREATE FUNCTION $.date_trunc(text, timestamptz, text) RETURNS timestamptz LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''date_trunc''); RETURN ''1999-01-01Z''; END';
    CREATE FUNCTION $.gen_random_uuid() RETURNS uuid LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''uuid''); RETURN ''00000000-0000-0000-0000-000000000000''; END';
    CREATE FUNCTION $.pg_advisory_xact_lock(int, int) RETURNS void LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''lock''); END';
    CREATE FUNCTION $.format(text, text) RETURNS text LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''format''); RETURN ''''; END';
    CREATE FUNCTION $.jsonb_typeof(jsonb) RETURNS text LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''jsonb''); RETURN ''null''; END';
    CREATE FUNCTION $.refuse_change() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''trigger''); RETURN new; END';
    CREATE TYPE $.recorded_usage AS (n int);
    CREATE TYPE $.recompute_step AS (n int);
    CREATE TYPE $.backfill_step AS (n int);
    CREATE TYPE $.rollup_mismatch AS (n int);
    CREATE DOMAIN $.bool AS pg_catalog.bool CHECK ($.now() IS NULL);
    CREATE DOMAIN $.uuid AS pg_catalog.uuid CHECK ($.now() IS NULL);
";

/// Tables under the names of the books, with a trigger each.
const FALSE_BOOKS: &str = r"
    CREATE FUNCTION $.caught() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM $.trace(''table''); RETURN new; END';
    CREATE $kind TABLE $.accounts (owner_kind text, owner_id text, microdollars_used bigint);
    CREATE $kind TABLE $.unposted_spend (owner_kind text, owner_id text, entry_id pg_catalog.uuid);
    CREATE $kind TABLE $.exa_usage_log (usage_id pg_catalog.uuid, user_id text);
    CREATE $kind TABLE $.storage_migrations (version int);
    CREATE $kind TABLE $.pg_class (oid oid, relname name, relnamespace oid);
    CREATE TRIGGER t BEFORE INSERT ON $.accounts FOR EACH ROW EXECUTE FUNCTION $.caught();
    CREATE TRIGGER t BEFORE INSERT ON $.unposted_spend FOR EACH ROW EXECUTE FUNCTION $.caught();
    CREATE TRIGGER t BEFORE INSERT ON $.exa_usage_log FOR EACH ROW EXECUTE FUNCTION $.caught();
    CREATE TRIGGER t BEFORE INSERT ON $.storage_migrations FOR EACH ROW EXECUTE FUNCTION $.caught();
";

/// Every function once, writing and reading, with figures that do not depend on the clock's hour.
const CALLS: &str = "
    SELECT exa_billing.setup();
    SELECT exa_billing.set_free_allowance(6000, '2020-01-01', NULL, 'split');
    SELECT exa_billing.set_organization_member('o', 'u', 'member', 100000);
    SELECT exa_billing.grant_credit('organization', 'o', 50000, idempotency_key => 'g');
    SELECT exa_billing.record_exa_usage('u', '/search', 5000, NULL, 'k');
    SELECT exa_billing.record_exa_usage('u', '/search', 5000, NULL, 'k');
    SELECT exa_billing.record_exa_usage('u', '/answer', 5000, 'o');
    SELECT exa_billing.record_exa_response('u', '/search',
        '{\"requestId\": \"r\", \"costDollars\": {\"total\": 0.003}}', 'o');
    SELECT exa_billing.record_exa_usage_batch(
        '[{\"user_id\": \"u\", \"path\": \"/contents\", \"cost_microdollars\": 100}]');
    SELECT exa_billing.record_spend('organization', 'o', 700, 'variable', 's', 'p',
        actor_user_id => 'u', require_balance => true);
    CREATE TABLE lies.ledger (who text, cost pg_catalog.int8, at pg_catalog.timestamptz);
    SELECT exa_billing.attach_spend_source('ledger', 'lies.ledger', 'variable', 's', '{\"user_id\": \"who\",
        \"organization_id\": {\"value\": \"o\"}, \"amount\": \"cost\", \"created_at\": \"at\",
        \"where\": [{\"column\": \"cost\", \"op\": \">\", \"value\": 5}]}', on_delete => 'keep');
    INSERT INTO lies.ledger SELECT 'u', n, pg_catalog.clock_timestamp()
        FROM pg_catalog.generate_series(1, 9) AS n;
    UPDATE lies.ledger SET at = at;
    DELETE FROM lies.ledger WHERE cost OPERATOR(pg_catalog.=) 9;
    SELECT exa_billing.verify_books();
    SELECT exa_billing.post_spend(3);
    SELECT exa_billing.maintain_partitions();
    SELECT exa_billing.retry_blocked_spend();
    SELECT exa_billing.record_exa_usage('u', '/answer', 11, 'o');
    SELECT exa_billing.check_exa_usage('u', 'o');
    SELECT exa_billing.account_balance('organization', 'o');
    SELECT exa_billing.exa_monthly_usage('u');
    SELECT exa_billing.credit_blocks('organization', 'o');
    SELECT exa_billing.account_statement('organization', 'o', pg_catalog.now() - interval '1 day', pg_catalog.now());
    SELECT exa_billing.spend_by_hour('organization', 'o', '2026-01-01 00:00Z', '2026-01-02 00:00Z');
    SELECT exa_billing.spend_series('organization', 'o', '7d');
    SELECT exa_billing.rolling_spend('organization', 'o', '1 day');
    SELECT exa_billing.top_spend_drivers('organization', 'o', pg_catalog.now() - interval '1 day', pg_catalog.now());
    SELECT exa_billing.spend_evidence('organization', 'o', '24h');
    SELECT exa_billing.cost_insight_activity('organization', 'o');
    SELECT exa_billing.cost_insights_attention('organization', 'o');
    SELECT exa_billing.cost_insights_overview('organization', 'o');
    SELECT exa_billing.recompute_baselines('organization', 'o');
    SELECT exa_billing.current_user_id(), exa_billing.managed_organizations();
    SELECT exa_billing.import_opening_balance('user', 'w', 900, 100, pg_catalog.now(), 'w');
    SELECT exa_billing.grant_credit('user', 'w', 77, pg_catalog.now() + interval '1 day');
    SELECT exa_billing.adjust_credit('user', 'w', -3, 'why');
    SELECT exa_billing.expire_credits('user', 'w');
    SELECT exa_billing.expire_due_credits();
    SELECT exa_billing.close_out_credits('user', 'w');
    SELECT exa_billing.recompute_user_balances('u');
    SELECT exa_billing.recompute_organization_balances('o', dry_run => true);
    SELECT exa_billing.resolve_degraded_interval(exa_billing.record_degraded_interval(
        '2020-01-01Z', '2020-01-02Z', 'r', 'user', 'u'));
    SELECT exa_billing.rebuild_rollups('organization', 'o', '2020-01-01Z', '2040-01-01Z');
    SELECT exa_billing.reconcile_rollups('2020-01-01Z', '2040-01-01Z');
    SELECT exa_billing.detach_spend_source('ledger');
    SELECT exa_billing.attach_spend_source('ledger', 'lies.ledger', 'variable', 's', '{\"user_id\": \"who\",
        \"organization_id\": {\"value\": \"o\"}, \"amount\": \"cost\", \"created_at\": \"at\"}',
        backfill => true);
    ALTER TABLE lies.ledger RENAME cost TO price;
    SELECT exa_billing.rebuild_rollups('organization', 'o', '2024-05-15 12:00Z', '2024-05-15 13:00Z');
    SELECT exa_billing.reconcile_rollups('2024-05-15 12:00Z', '2024-05-15 13:00Z');
    SELECT exa_billing.spend_evidence('organization', 'o', '24h', pg_catalog.now());
    SELECT exa_billing.detach_spend_source('ledger');
    SELECT exa_billing.update_spend_alert_settings('organization', 'o', '{\"spend_alerts_enabled\": true,
        \"threshold_24h_microdollars\": 100, \"minimum_balance_usd\": \"0.50\"}', 'u');
    SELECT exa_billing.spend_alert_settings('organization', 'o');
    SELECT exa_billing.acknowledge_spend_alert(event_id, 'u') FROM exa_billing.spend_alert_episodes;
    SELECT exa_billing.evaluate_spend_alerts('organization', 'o');
    SELECT exa_billing.evaluate_due_owners();
    SELECT exa_billing.run_spend_alert_sweep();
    SELECT exa_billing.start_worker();
    SELECT exa_billing.run_maintenance_step(n) FROM pg_catalog.generate_series(1, 8) AS n;
    SELECT exa_billing.complete_notification(delivery_id, claim_token) FROM exa_billing.claim_notifications(1);
    SELECT exa_billing.fail_notification(delivery_id, claim_token, 'why')
        FROM exa_billing.claim_notifications(5, interval '1 minute');
    SELECT exa_billing.delete_old_events();
    SELECT exa_billing.erase_user('w');
    SELECT exa_billing.stop_worker();
    SELECT exa_billing.health_checks();
    SELECT * FROM exa_billing.health;
    SELECT exa_billing.verify_books();";

/// The figures of the calls, made by a role that is no superuser in the given search_path. The
/// first of them also makes the books.
fn figures_under(db: &Database, lies: &str, search_path: &str) -> (Vec<String>, Vec<String>) {
    let mut admin = db.client();
    let role = format!("liar_{}", db.name());
    run_sql(
        &mut admin,
        &format!(
            "CREATE SCHEMA canary; CREATE TABLE canary.trace (ran_as text, what text);
             CREATE SCHEMA lies; CREATE ROLE {role} LOGIN; GRANT CREATE, USAGE ON SCHEMA lies TO {role};
             GRANT USAGE ON SCHEMA canary TO PUBLIC; GRANT ALL ON canary.trace TO PUBLIC;
             GRANT USAGE ON SCHEMA exa_billing TO {role};
             GRANT EXECUTE ON ALL ROUTINES IN SCHEMA exa_billing TO {role};"
        ),
    );
    let mut client = db.client_as(&role);
    run_sql(&mut client, &format!("{lies}; GRANT USAGE ON SCHEMA lies TO PUBLIC"));
    run_sql(&mut client, &format!("SET search_path = {search_path}"));
    let (first, rest) = CALLS.split_once(';').expect("several calls");
    run_sql(&mut client, first);
    // Reading functions have the caller's rights.
    run_sql(&mut admin, &format!("GRANT SELECT ON ALL TABLES IN SCHEMA exa_billing TO {role}"));
    // Who acts for a user is an application.
    run_sql(&mut admin, &format!("SELECT exa_billing.grant_application('{role}')"));
    run_sql(&mut client, rest);
    // They commit, so they are called alone.
    run_sql(&mut client, "CALL exa_billing.recompute_all_balances(dry_run => false)");
    run_sql(&mut client, "CALL exa_billing.backfill_rollups('2020-01-01Z', '2040-01-01Z', false)");
    let shown = shown_to(&mut client);

    let traces = texts(&mut admin, "SELECT DISTINCT t::text FROM canary.trace AS t");
    assert_no_violations(&mut admin);
    assert_same("to others", &shown, &shown_to(&mut admin));
    drop(client);
    run_sql(
        &mut admin,
        &format!(
            "REVOKE SET ON PARAMETER exa_billing.user_id FROM {role};
             DROP OWNED BY {role} CASCADE; DROP ROLE {role}"
        ),
    );
    (shown, traces)
}

/// What the views show, without instants and what is derived from them.
fn shown_to(client: &mut Client) -> Vec<String> {
    run_sql(client, "SET search_path = pg_catalog");
    figures(client)
        .into_iter()
        .filter(|line| line.starts_with("balance") || line.starts_with("month"))
        .collect()
}

fn honest() -> Vec<String> {
    let db = Server::shared().database();
    let (shown, _) = figures_under(&db, "SELECT 1", "pg_catalog");
    assert_eq!(shown.len(), 5, "{shown:?}");
    shown
}

#[test]
fn lies_in_the_search_path_run_nothing_and_change_nothing() {
    let db = Server::shared().database();
    let lies = [LIES, FALSE_BOOKS].concat().replace("$kind", "").replace("$.", "lies.");
    let (shown, traces) =
        figures_under(&db, &lies, "lies, pg_temp, public, exa_billing, pg_catalog");
    assert_same("figures", &honest(), &shown);
    assert_eq!(traces, [""; 0]);
}

#[test]
fn lies_among_temporary_objects_run_nothing_and_change_nothing() {
    let db = Server::shared().database();
    let lies = [LIES, FALSE_BOOKS].concat().replace("$kind", "TEMPORARY").replace("$.", "pg_temp.");
    let (shown, traces) = figures_under(&db, &lies, "pg_temp, exa_billing, pg_catalog");
    assert_same("figures", &honest(), &shown);
    assert_eq!(traces, [""; 0]);
}

/// The lies are good ones: under the same search_path they do run where nothing is pinned.
#[test]
fn the_lies_work_where_nothing_is_pinned() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        "CREATE SCHEMA canary; CREATE TABLE canary.trace (ran_as text, what text); CREATE SCHEMA lies",
    );
    run_sql(&mut client, &[LIES, FALSE_BOOKS].concat().replace("$kind", "").replace("$.", "lies."));
    run_sql(
        &mut client,
        "SET search_path = lies, pg_catalog;
         SELECT now(), 1::bigint + 2::bigint, 'a'::text = 'b'::text, gen_random_uuid();
         INSERT INTO accounts VALUES ('user', 'u', 1)",
    );
    let traces: i64 = one(&mut client, "SELECT count(*) FROM canary.trace", &[]);
    assert_eq!(traces, 5);
}
