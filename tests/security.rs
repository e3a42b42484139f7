//! Who may change the books: only the functions, for nobody but those they were granted to, and
//! not even they once somebody has put something of their own onto a table.

mod books_common;
mod common;

use books_common::{assert_no_violations, assert_same, contents, fill, texts};
use common::{Database, DbErrorSummary, Server, error_of, one, run_sql};
use postgres::Client;

/// A login role without any right, dropped with all that it owns.
struct Role {
    name: String,
    admin: Client,
}

impl Role {
    fn new(db: &Database, what: &str) -> Role {
        let role = Role { name: format!("{what}_{}", db.name()), admin: db.client() };
        let mut admin = db.client();
        run_sql(&mut admin, &format!("CREATE ROLE {} LOGIN", role.name));
        role
    }

    /// May call what charges and grants, and nothing else.
    fn application(db: &Database) -> Role {
        let mut role = Role::new(db, "app");
        let grants = "GRANT USAGE ON SCHEMA exa_billing TO $;
            GRANT EXECUTE ON FUNCTION
                exa_billing.record_exa_usage(text, text, bigint, text, text, timestamptz, text, text),
                exa_billing.grant_credit(text, text, bigint, timestamptz, text, text, boolean, text,
                                         timestamptz)
            TO $";
        run_sql(&mut role.admin, &grants.replace('$', &role.name));
        role
    }

    /// May call everything.
    fn operator(db: &Database) -> Role {
        let mut role = Role::new(db, "operator");
        let grants = "GRANT USAGE ON SCHEMA exa_billing TO $;
            GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA exa_billing TO $";
        run_sql(&mut role.admin, &grants.replace('$', &role.name));
        role
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let name = &self.name;
        let _ =
            self.admin.batch_execute(&format!("DROP OWNED BY {name} CASCADE; DROP ROLE {name}"));
    }
}

/// Every function that writes, with arguments that would do something.
const WRITING: &[(&str, &str)] = &[
    ("record_exa_usage", "'u', '/search', 5000"),
    ("record_exa_response", "'u', '/search', '{\"costDollars\": {\"total\": 0.005}}'"),
    (
        "record_exa_usage_batch",
        "'[{\"user_id\": \"u\", \"path\": \"/search\", \"cost_microdollars\": 5000}]'",
    ),
    ("record_spend", "'user', 'u', 5000, 'variable', 's', 'p'"),
    ("grant_credit", "'user', 'u', 5000"),
    ("adjust_credit", "'user', 'u', 5000, 'refund'"),
    ("import_opening_balance", "'user', 'new', 5000, 10, now(), 'k'"),
    ("expire_credits", "'user', 'u'"),
    ("expire_due_credits", ""),
    ("close_out_credits", "'user', 'u'"),
    ("recompute_user_balances", "'u'"),
    ("recompute_organization_balances", "'o'"),
    ("recompute_next_owner", "true, false, true"),
    ("record_degraded_interval", "'2026-11-20 10:00Z', '2026-11-22 10:00Z', 'restored'"),
    ("resolve_degraded_interval", "gen_random_uuid()"),
    ("rebuild_rollups", "'user', 'u', '2026-11-20 10:00Z', '2026-11-22 10:00Z'"),
    ("backfill_next_hours", "true, '2026-11-20 10:00Z', '2026-11-22 10:00Z', false"),
    ("set_free_allowance", "5000, '2030-01-01'"),
    ("set_organization_member", "'o', 'u', 'member'"),
    ("remove_organization_member", "'o', 'u'"),
    ("dismiss_cost_suggestion", "gen_random_uuid(), 'u'"),
    ("update_spend_alert_settings", "'user', 'u', '{\"spend_alerts_enabled\": true}', 'u'"),
    ("acknowledge_spend_alert", "gen_random_uuid(), 'u'"),
    ("erase_user", "'u'"),
    ("evaluate_spend_alerts", "'user', 'u'"),
    ("evaluate_due_owners", ""),
    ("run_spend_alert_sweep", ""),
    ("grant_application", "'pg_monitor'"),
    ("grant_operator", "'pg_monitor'"),
    ("grant_auditor", "'pg_monitor'"),
    ("grant_end_user", "'pg_monitor'"),
    ("enable_row_security", ""),
    ("maintain_partitions", ""),
    ("post_spend", ""),
    ("retry_blocked_spend", ""),
    ("claim_notifications", "5"),
    ("complete_notification", "gen_random_uuid(), gen_random_uuid()"),
    ("fail_notification", "gen_random_uuid(), gen_random_uuid(), 'why'"),
    ("delete_old_events", ""),
    ("run_maintenance_step", "1"),
    ("setup", ""),
    ("start_worker", ""),
    ("stop_worker", ""),
];

fn call(function: &str, arguments: &str) -> String {
    format!("SELECT exa_billing.{function}({arguments})")
}

fn tables(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT oid::regclass::text FROM pg_class
         WHERE relnamespace = 'exa_billing'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1",
    )
}

#[test]
fn no_writing_function_is_left_out_here() {
    let db = Server::shared().database();
    let mut expected: Vec<&str> = WRITING.iter().map(|(name, _)| *name).collect();
    expected.sort_unstable();
    // What triggers call is nobody's to call.
    let writing = texts(
        &mut db.client(),
        "SELECT proname::text FROM pg_proc
         WHERE pronamespace = 'exa_billing'::regnamespace AND prosecdef AND provolatile = 'v'
           AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
         ORDER BY proname COLLATE \"C\"",
    );
    assert_eq!(writing, expected);
}

// Rights ---------------------------------------------------------------------------------------

#[test]
fn a_role_without_rights_reaches_nothing() {
    let db = Server::shared().database();
    run_sql(&mut db.client(), "SELECT exa_billing.setup()");
    let nobody = Role::new(&db, "nobody");
    let mut client = db.client_as(&nobody.name);
    for (function, arguments) in WRITING.iter().copied().chain([("verify_books", "")]) {
        let error = error_of(&mut client, &call(function, arguments));
        assert_eq!(error.code, "42501", "{function}");
        assert!(error.message.contains("schema exa_billing"), "{}", error.message);
    }
}

#[test]
fn the_application_writes_through_its_functions_only() {
    let db = Server::shared().database();
    let mut admin = db.client();
    fill(&mut admin);
    let role = Role::application(&db);
    let mut client = db.client_as(&role.name);
    run_sql(&mut client, &call("record_exa_usage", "'user-1', '/search', 5000"));
    run_sql(&mut client, &call("grant_credit", "'user', 'user-1', 5000"));
    let before = contents(&mut admin);

    let names = tables(&mut admin);
    assert!(names.len() > 40, "{names:?}");
    for table in names {
        let column: String = one(
            &mut admin,
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum = 1",
            &[&table],
        );
        for statement in [
            format!("INSERT INTO {table} DEFAULT VALUES"),
            format!("UPDATE {table} SET {column} = {column}"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!("SELECT FROM {table}"),
            format!("SELECT FROM {table} FOR UPDATE"),
            format!("COPY {table} FROM STDIN"),
            format!("MERGE INTO {table} USING (SELECT) AS s ON true WHEN MATCHED THEN DELETE"),
            format!(
                "CREATE TRIGGER t BEFORE INSERT ON {table} FOR EACH ROW
                     EXECUTE FUNCTION suppress_redundant_updates_trigger()"
            ),
            format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
            format!("DROP TABLE {table}"),
        ] {
            assert_eq!(error_of(&mut client, &statement).code, "42501", "{statement}");
        }
    }
    let denied =
        ["setup", "post_spend", "retry_blocked_spend", "maintain_partitions", "verify_books"];
    for function in denied {
        let error = error_of(&mut client, &call(function, ""));
        assert_eq!(error.code, "42501", "{function}");
        assert!(error.message.contains(function), "{}", error.message);
    }
    assert_eq!(error_of(&mut client, "CREATE TABLE exa_billing.mine (n int)").code, "42501");
    assert_same("rows", &before, &contents(&mut admin));
    assert_no_violations(&mut admin);
}

// Guards ---------------------------------------------------------------------------------------

/// Each journal with a column, its unique key and the statements that would change it.
fn changes_of(table: &str, column: &str, key: &str) -> Vec<String> {
    let merge = format!("MERGE INTO {table} AS t USING {table} AS s ON false");
    vec![
        format!("UPDATE {table} SET {column} = {column}"),
        format!("UPDATE {table} SET {column} = {column} WHERE false"),
        format!("UPDATE ONLY {table} SET {column} = {column}"),
        format!("DELETE FROM {table}"),
        format!("DELETE FROM {table} WHERE false"),
        format!("TRUNCATE {table}"),
        format!("TRUNCATE {table} CASCADE"),
        format!("{merge} WHEN MATCHED THEN UPDATE SET {column} = s.{column}"),
        format!("{merge} WHEN MATCHED THEN DELETE"),
        format!(
            "INSERT INTO {table} SELECT * FROM {table}
             ON CONFLICT ({key}) DO UPDATE SET {column} = excluded.{column}"
        ),
        format!("WITH gone AS (DELETE FROM {table} RETURNING 1) SELECT count(*) FROM gone"),
    ]
}

#[test]
fn journals_refuse_every_change_to_everybody() {
    let db = Server::shared().database();
    let mut client = db.client();
    fill(&mut client);
    let before = contents(&mut client);
    let partitions = |client: &mut Client, journal: &str| {
        texts(
            client,
            &format!(
                "SELECT 'exa_billing.{journal}' UNION ALL
                 SELECT inhrelid::regclass::text FROM pg_inherits
                 WHERE inhparent = 'exa_billing.{journal}'::regclass"
            ),
        )
    };
    let mut changes = Vec::new();
    for (journal, column, key) in [
        ("exa_usage_log", "path", "usage_id, created_at"),
        ("spend_log", "source", "spend_id, created_at"),
    ] {
        for table in partitions(&mut client, journal) {
            changes.extend(changes_of(&table, column, key));
        }
    }
    changes.extend(changes_of("exa_billing.credit_transactions", "amount_microdollars", "id"));
    changes.extend(changes_of("exa_billing.credit_transactions", "description", "id"));
    let baseline = "original_baseline_microdollars_used";
    changes.extend(changes_of("exa_billing.credit_transactions", baseline, "id"));
    let key = "key_space, idempotency_key";
    changes.extend(changes_of("exa_billing.idempotency_keys", "payload_hash", key));
    let locked_in = "exa_billing.exa_monthly_allowance";
    changes.extend(changes_of(locked_in, "free_allowance_microdollars", "user_id, month"));
    changes.extend(changes_of(locked_in, "overage_rule", "user_id, month"));
    changes.push("TRUNCATE exa_billing.unposted_spend".to_owned());
    assert!(changes.len() > 300, "{}", changes.len());

    for whoever in [
        "RESET ROLE",
        "SET ROLE exa_billing_owner",
        "RESET ROLE; SET session_replication_role = replica",
    ] {
        run_sql(&mut client, whoever);
        for change in &changes {
            let error = error_of(&mut client, change);
            assert_eq!(error.code, "55000", "{whoever}: {change}: {}", error.message);
            assert!(error.hint.expect("what helps").contains("adjust_credit"), "{change}");
        }
    }
    run_sql(&mut client, "RESET session_replication_role");
    assert_same("rows", &before, &contents(&mut client));
    assert_no_violations(&mut client);
}

// Tampering ------------------------------------------------------------------------------------

/// What hostile code leaves behind: who it ran as.
const CANARY: &str = "
    CREATE SCHEMA hostile;
    CREATE TABLE hostile.canary (ran_as text, what text);
    GRANT ALL ON SCHEMA hostile TO PUBLIC;
    GRANT ALL ON hostile.canary TO PUBLIC;
    CREATE FUNCTION hostile.sing(what text) RETURNS bigint LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO hostile.canary VALUES (current_user, what);
        RETURN 1;
    END $$;
    CREATE FUNCTION hostile.on_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO hostile.canary VALUES (current_user, tg_name);
        RETURN coalesce(new, old);
    END $$;";

/// Two tables of a role, the first of them attached: what goes past the functions above.
fn give_ledgers(admin: &mut Client, role: &Role) {
    let name = &role.name;
    run_sql(
        admin,
        &format!(
            "CREATE TABLE ledger (u text, cost bigint, at timestamptz); CREATE TABLE other (LIKE ledger);
             ALTER TABLE ledger OWNER TO {name}; ALTER TABLE other OWNER TO {name}"
        ),
    );
    run_sql(admin, &attach("ledger"));
}

fn attach(table: &str) -> String {
    format!(
        "SELECT exa_billing.attach_spend_source('{table}', '{table}', 'variable', 's', '{{\"user_id\": \"u\",
             \"organization_id\": {{\"value\": null}}, \"amount\": \"cost\", \"created_at\": \"at\"}}')"
    )
}

/// Everything that writes says 42501 and names the table; nothing hostile ran, nothing was written.
#[track_caller]
fn assert_refused(client: &mut Client, admin: &mut Client, table: &str, what: &str) {
    let before = contents(admin);
    let refused = |error: DbErrorSummary, function: &str| {
        assert_eq!(error.code, "42501", "{what}: {function}: {}", error.message);
        let detail = error.detail.unwrap_or_default();
        assert!(detail.contains(table), "{what}: {function}: {detail}");
        assert!(error.hint.is_some(), "{what}: {function}");
    };
    for (function, arguments) in WRITING {
        refused(error_of(client, &call(function, arguments)), function);
    }
    for (statement, function) in [
        ("INSERT INTO ledger VALUES ('u', 5, now())", "capture_spend"),
        ("ALTER TABLE ledger RENAME cost TO price", "follow_altered_tables"),
        (&attach("other"), "attach_spend_source"),
        ("SELECT exa_billing.detach_spend_source('ledger')", "detach_spend_source"),
    ] {
        refused(error_of(client, statement), function);
    }
    let canary = texts(admin, "SELECT c::text FROM hostile.canary AS c");
    assert_eq!(canary, [""; 0], "{what}");
    assert_same(what, &before, &contents(admin));
}

#[test]
fn what_somebody_put_onto_a_table_stops_all_writing_until_it_is_gone() {
    let db = Server::shared().database();
    let mut admin = db.client();
    run_sql(&mut admin, &format!("{CANARY} SELECT exa_billing.setup()"));
    let role = Role::operator(&db);
    give_ledgers(&mut admin, &role);
    let mut client = db.client_as(&role.name);
    let charge = call("record_exa_usage", "'u', '/search', 5000");
    run_sql(&mut client, &charge);
    let partition: String = one(
        &mut admin,
        "SELECT to_char(now() AT TIME ZONE 'UTC', '\"exa_usage_log_\"YYYY_MM')",
        &[],
    );
    let trigger = |table: &str, when: &str| {
        (
            table.to_owned(),
            format!(
                "CREATE TRIGGER t {when} ON exa_billing.{table} FOR EACH ROW
                 EXECUTE FUNCTION hostile.on_row()"
            ),
            format!("DROP TRIGGER t ON exa_billing.{table}"),
        )
    };
    let default = |table: &str, column: &str, value: &str| {
        (
            table.to_owned(),
            format!("ALTER TABLE exa_billing.{table} ALTER {column} SET DEFAULT {value}"),
            format!("ALTER TABLE exa_billing.{table} ALTER {column} DROP DEFAULT"),
        )
    };
    let rule = |table: &str| {
        (
            table.to_owned(),
            format!(
                "CREATE RULE r AS ON INSERT TO exa_billing.{table}
                 DO ALSO SELECT hostile.sing('rule')"
            ),
            format!("DROP RULE r ON exa_billing.{table}"),
        )
    };
    let mut charges: i64 = 1;
    for (table, plant, remove) in [
        trigger("unposted_spend", "BEFORE INSERT"),
        trigger("exa_usage_log", "AFTER INSERT"),
        trigger(&partition, "BEFORE INSERT"),
        trigger("accounts", "AFTER INSERT OR UPDATE"),
        trigger("idempotency_keys", "BEFORE INSERT"),
        trigger("storage_migrations", "BEFORE INSERT"),
        trigger("spend_sources", "BEFORE UPDATE"),
        default("accounts", "minimum_balance_microdollars", "hostile.sing('default')"),
        default("credit_transactions", "description", "hostile.sing('default')::text"),
        default(&partition, "feature_id", "hostile.sing('default')::text"),
        rule("spend_log"),
        rule("organization_members"),
        (
            "unposted_spend".to_owned(),
            "CREATE CONSTRAINT TRIGGER t AFTER INSERT ON exa_billing.unposted_spend
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hostile.on_row()"
                .to_owned(),
            "DROP TRIGGER t ON exa_billing.unposted_spend".to_owned(),
        ),
        (
            "accounts".to_owned(),
            "ALTER TABLE exa_billing.accounts ADD extra bigint
                 GENERATED ALWAYS AS (microdollars_used + 1) STORED"
                .to_owned(),
            "ALTER TABLE exa_billing.accounts DROP extra".to_owned(),
        ),
    ] {
        run_sql(&mut admin, &plant);
        assert_refused(&mut client, &mut admin, &table, &plant);
        run_sql(&mut admin, &remove);
        run_sql(&mut client, &charge);
        charges += 1;
        let recorded: i64 = one(&mut admin, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]);
        assert_eq!(recorded, charges, "{plant}");
    }
    assert_no_violations(&mut admin);
}

/// A trigger in the very transaction that charges, before and after it was rolled back.
#[test]
fn tampering_in_the_same_transaction_is_noticed() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, &format!("{CANARY} SELECT exa_billing.setup()"));
    let charge = call("record_exa_usage", "'u', '/search', 5000");
    run_sql(&mut client, &charge);
    run_sql(
        &mut client,
        "BEGIN; SAVEPOINT s;
         CREATE TRIGGER t BEFORE INSERT ON exa_billing.unposted_spend FOR EACH ROW
             EXECUTE FUNCTION hostile.on_row()",
    );
    assert_eq!(error_of(&mut client, &charge).code, "42501");
    run_sql(&mut client, &format!("ROLLBACK TO s; {charge}; COMMIT"));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM hostile.canary", &[]), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]), 2);
    assert_no_violations(&mut client);
}

/// Somebody was trusted with the right TRIGGER and uses it to become the owner of the books.
#[test]
fn a_role_with_the_right_to_make_triggers_gains_nothing() {
    let db = Server::shared().database();
    let mut admin = db.client();
    run_sql(&mut admin, &format!("{CANARY} SELECT exa_billing.setup()"));
    let role = Role::application(&db);
    let name = &role.name;
    run_sql(&mut admin, &format!("GRANT TRIGGER ON exa_billing.unposted_spend TO {name}"));
    let mut client = db.client_as(name);
    let charge = call("record_exa_usage", "'u', '/search', 5000");
    run_sql(&mut client, &charge);

    let with_guard = "CREATE TRIGGER t BEFORE INSERT ON exa_billing.unposted_spend FOR EACH ROW
                      WHEN (hostile.sing('when') = 0) EXECUTE FUNCTION exa_billing.refuse_change()";
    assert_eq!(error_of(&mut client, with_guard).code, "42501");
    run_sql(
        &mut client,
        "CREATE TRIGGER t BEFORE INSERT ON exa_billing.unposted_spend FOR EACH ROW
         EXECUTE FUNCTION hostile.on_row()",
    );
    assert_eq!(error_of(&mut client, &charge).code, "42501");
    run_sql(&mut admin, "DROP TRIGGER t ON exa_billing.unposted_spend");
    run_sql(&mut client, &charge);
    assert_eq!(one::<i64>(&mut admin, "SELECT count(*) FROM hostile.canary", &[]), 0);
    assert_no_violations(&mut admin);
}

/// The condition of a trigger runs before its function, which is a guard here.
#[test]
fn a_guard_with_a_condition_of_somebody_else_is_refused() {
    let db = Server::shared().database();
    let mut admin = db.client();
    run_sql(&mut admin, &format!("{CANARY} SELECT exa_billing.setup()"));
    let role = Role::operator(&db);
    give_ledgers(&mut admin, &role);
    run_sql(
        &mut admin,
        "CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON exa_billing.unposted_spend
             FOR EACH ROW WHEN (hostile.sing('when') = 0)
             EXECUTE FUNCTION exa_billing.refuse_change();",
    );
    let mut client = db.client_as(&role.name);
    assert_refused(&mut client, &mut admin, "unposted_spend", "a condition");
    run_sql(&mut admin, "DROP TRIGGER t ON exa_billing.unposted_spend");
    run_sql(&mut client, &call("record_exa_usage", "'u', '/search', 5000"));
    assert_no_violations(&mut admin);
}
