//! Rights of roles: the matrix of docs/ACCESS.md as the server has it, and what each kind of role
//! can and cannot do.

mod books_common;
mod common;

use books_common::{assert_no_violations, texts};
use common::{Database, Server, error_of, one, run_sql};
use postgres::Client;

const STAFF: [&str; 3] = ["application", "operator", "auditor"];
const KINDS: [&str; 4] = ["application", "operator", "auditor", "end_user"];

/// Roles belong to the whole server, so each test has names of its own.
fn role(db: &Database, kind: &str) -> String {
    format!("{}_{kind}", db.name())
}

/// Books with something in them and a role of each kind of staff, or with row security of every
/// kind; roles go with the test.
struct World {
    db: Database,
    client: Client,
}

impl World {
    fn new() -> Self {
        Self::of(&STAFF)
    }

    fn with_row_security() -> Self {
        Self::of(&KINDS)
    }

    fn of(kinds: &[&str]) -> Self {
        let db = Server::shared().database();
        let mut client = db.client();
        run_sql(
            &mut client,
            "SELECT exa_billing.grant_credit('user', 'user-1', 5000000);
             SELECT exa_billing.record_exa_usage('user-1', '/search', 12000000);
             SELECT exa_billing.record_exa_usage('user-1', '/search', 3000)",
        );
        if kinds.contains(&"end_user") {
            run_sql(&mut client, "SELECT exa_billing.enable_row_security()");
        }
        for kind in kinds {
            let role = role(&db, kind);
            run_sql(
                &mut client,
                &format!("CREATE ROLE {role} LOGIN; SELECT exa_billing.grant_{kind}('{role}')"),
            );
        }
        Self { db, client }
    }

    fn as_kind(&self, kind: &str) -> Client {
        self.db.client_as(&role(&self.db, kind))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for kind in KINDS {
            let role = role(&self.db, kind);
            let _ = self.client.batch_execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
        }
    }
}

/// The rows of the matrix as the document has them.
fn documented() -> Vec<String> {
    let text = include_str!("../docs/ACCESS.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut rows: Vec<String> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let may =
                cells[1..=KINDS.len()].iter().map(|cell| if *cell == "yes" { "t" } else { "f" });
            format!("{} {}", cells[0].trim_end_matches('`'), may.collect::<Vec<_>>().join(","))
        })
        .collect();
    rows.sort();
    rows
}

#[test]
fn every_function_has_its_place_in_the_documented_matrix() {
    let mut world = World::with_row_security();
    let may = KINDS.map(|kind| {
        format!("bool_and(has_function_privilege('{}', p.oid, 'EXECUTE'))", role(&world.db, kind))
    });
    let mut found = texts(
        &mut world.client,
        &format!(
            "SELECT p.proname || ' ' || concat_ws(',', {}) FROM pg_proc AS p
             WHERE p.pronamespace = 'exa_billing'::regnamespace GROUP BY p.proname",
            may.join(", ")
        ),
    );
    found.sort();
    assert_eq!(found, documented());
}

#[test]
fn no_role_writes_a_table_or_touches_a_partition() {
    let mut world = World::with_row_security();
    for kind in KINDS {
        let role = role(&world.db, kind);
        let writes = texts(
            &mut world.client,
            &format!(
                "SELECT c.relname || ' ' || privilege
                 FROM pg_class AS c,
                      unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'])
                          AS privilege
                 WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'p', 'v')
                   AND has_table_privilege('{role}', c.oid, privilege)
                 UNION ALL
                 SELECT c.relname || ' SELECT' FROM pg_class AS c
                 WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relispartition
                   AND has_table_privilege('{role}', c.oid, 'SELECT')"
            ),
        );
        assert_eq!(writes, [""; 0], "{kind}");
        let mut client = world.as_kind(kind);
        for statement in [
            "UPDATE exa_billing.accounts SET microdollars_used = 0",
            "DELETE FROM exa_billing.unposted_spend",
            "TRUNCATE exa_billing.spend_sources",
            "CREATE TABLE exa_billing.mine ()",
            "SELECT exa_billing.setup()",
            "SELECT exa_billing.grant_auditor(current_user::regrole)",
            "SELECT exa_billing.grant_end_user(current_user::regrole)",
            "SELECT exa_billing.enable_row_security()",
        ] {
            assert_eq!(error_of(&mut client, statement).code, "42501", "{kind}: {statement}");
        }
    }
}

fn asks_records_and_reads(world: World) {
    let mut client = world.as_kind("application");
    let allowed = "SELECT allowed FROM exa_billing.check_exa_usage('user-1')";
    assert!(one::<bool>(&mut client, allowed, &[]));
    run_sql(
        &mut client,
        "SELECT exa_billing.record_exa_usage('user-1', '/search', 2000);
         SELECT exa_billing.record_spend('user', 'user-1', 7, 'variable', 'other', 'p');
         SELECT exa_billing.grant_credit('user', 'user-1', 100)",
    );
    let balance = "SELECT balance_microdollars FROM exa_billing.account_balance('user', 'user-1')";
    assert_eq!(one::<i64>(&mut client, balance, &[]), 5_000_000 - 3_000 - 2_000 - 7 + 100);
    let spent = "SELECT total_microdollars
                 FROM exa_billing.rolling_spend('user', 'user-1', '1 day', clock_timestamp())";
    assert_eq!(one::<i64>(&mut client, spent, &[]), 5_007);
    for statement in [
        "SELECT exa_billing.adjust_credit('user', 'user-1', 5, 'mine')",
        "SELECT exa_billing.post_spend()",
        "SELECT exa_billing.set_free_allowance(0, '2020-01-01')",
        "SELECT * FROM exa_billing.verify_books()",
    ] {
        assert_eq!(error_of(&mut client, statement).code, "42501", "{statement}");
    }
}

#[test]
fn an_application_asks_records_and_reads() {
    asks_records_and_reads(World::new());
    asks_records_and_reads(World::with_row_security());
}

fn looks_after_the_books(mut world: World) {
    let mut client = world.as_kind("operator");
    run_sql(
        &mut client,
        "SELECT exa_billing.post_spend();
         SELECT exa_billing.maintain_partitions();
         SELECT exa_billing.adjust_credit('user', 'user-1', -5, 'a correction');
         SELECT exa_billing.recompute_user_balances('user-1');
         SELECT exa_billing.set_organization_member('org-1', 'user-1', 'owner')",
    );
    run_sql(&mut client, "CALL exa_billing.recompute_all_balances()");
    assert_eq!(texts(&mut client, "SELECT v::text FROM exa_billing.verify_books() AS v"), [""; 0]);
    for statement in [
        "SELECT exa_billing.record_exa_usage('user-1', '/search', 1)",
        "SELECT exa_billing.grant_credit('user', 'user-1', 1)",
    ] {
        assert_eq!(error_of(&mut client, statement).code, "42501", "{statement}");
    }
    assert_no_violations(&mut world.client);
}

#[test]
fn an_application_drives_notifications_and_an_operator_only_clears_them_away() {
    let mut world = World::new();
    run_sql(
        &mut world.client,
        "UPDATE exa_billing.accounts SET minimum_balance_microdollars = 6000000;
         SELECT exa_billing.post_spend(); SELECT exa_billing.start_worker()",
    );
    let mut client = world.as_kind("application");
    let completed = "SELECT exa_billing.complete_notification(delivery_id, claim_token)
                     FROM exa_billing.claim_notifications(5) WHERE recipient_user_id = 'user-1'";
    assert!(one::<bool>(&mut client, completed, &[]));
    let none = "SELECT exa_billing.fail_notification(delivery_id, claim_token, 'why')
                FROM exa_billing.claim_notifications(5)";
    run_sql(&mut client, none);
    let delete = "SELECT exa_billing.delete_old_events()";
    assert_eq!(error_of(&mut client, delete).code, "42501");
    let mut operator = world.as_kind("operator");
    assert_eq!(one::<i32>(&mut operator, delete, &[]), 0);
    for kind in ["operator", "auditor"] {
        let mut client = world.as_kind(kind);
        assert_eq!(error_of(&mut client, completed).code, "42501", "{kind}");
        let sent = "SELECT count(*) FROM exa_billing.notification_deliveries WHERE status = 'sent'";
        assert_eq!(one::<i64>(&mut client, sent, &[]), 1, "{kind}");
    }
    assert_no_violations(&mut world.client);
}

#[test]
fn an_operator_looks_after_the_books_and_charges_nobody() {
    looks_after_the_books(World::new());
    looks_after_the_books(World::with_row_security());
}

fn reads_everything(mut world: World) {
    let mut client = world.as_kind("auditor");
    let relations = texts(
        &mut world.client,
        "SELECT c.oid::regclass::text FROM pg_class AS c
         WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'p', 'v')
           AND NOT c.relispartition",
    );
    assert!(relations.len() > 20, "{}", relations.len());
    for relation in relations {
        run_sql(&mut client, &format!("SELECT count(*) FROM {relation}"));
    }
    assert_eq!(texts(&mut client, "SELECT v::text FROM exa_billing.verify_books() AS v"), [""; 0]);
    let statement =
        "SELECT balance_microdollars FROM exa_billing.account_statement('user', 'user-1',
                         now() - interval '1 day', now() + interval '1 day')
                     ORDER BY line_time DESC, kind DESC LIMIT 1";
    assert_eq!(one::<i64>(&mut client, statement, &[]), 4_997_000);
    let refused = "SELECT exa_billing.post_spend()";
    assert_eq!(error_of(&mut client, refused).code, "42501");
}

#[test]
fn an_auditor_reads_everything() {
    reads_everything(World::new());
    reads_everything(World::with_row_security());
}

#[test]
fn setup_gives_remembered_roles_what_they_lack_and_no_new_role_of_their_name() {
    let mut world = World::new();
    let (auditor, client) = (role(&world.db, "auditor"), &mut world.client);
    let may = format!("SELECT has_table_privilege('{auditor}', 'exa_billing.accounts', 'SELECT')");
    run_sql(client, &format!("REVOKE SELECT ON exa_billing.accounts FROM {auditor}"));
    assert!(!one::<bool>(client, &may, &[]));
    run_sql(client, "SELECT exa_billing.setup()");
    assert!(one::<bool>(client, &may, &[]));

    run_sql(
        client,
        &format!("DROP OWNED BY {auditor}; DROP ROLE {auditor}; CREATE ROLE {auditor}"),
    );
    run_sql(client, "SELECT exa_billing.setup()");
    assert!(!one::<bool>(client, &may, &[]));
}

#[test]
fn a_role_with_a_hostile_name_gets_its_rights_and_runs_nothing() {
    let mut world = World::new();
    let hostile = format!("{}; DROP TABLE \"x\"' -- \\", world.db.name());
    let quoted = format!("\"{}\"", hostile.replace('"', "\"\""));
    let client = &mut world.client;
    run_sql(client, &format!("CREATE ROLE {quoted}"));
    client
        .execute(
            "SELECT exa_billing.grant_auditor(oid::regrole) FROM pg_roles WHERE rolname = $1",
            &[&hostile],
        )
        .expect("the grant");
    let may = "SELECT has_table_privilege($1::text, 'exa_billing.accounts', 'SELECT')";
    assert!(one::<bool>(client, may, &[&hostile]));
    run_sql(client, &format!("DROP OWNED BY {quoted}; DROP ROLE {quoted}"));
}
