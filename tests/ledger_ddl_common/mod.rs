//! What the tests of attached tables share: tables to attach, what they charge, and what attaching
//! leaves in the catalog.
#![allow(dead_code)] // each test program uses a part of it

use crate::books_common::texts;
use crate::common::{Database, one, run_sql};
use postgres::Client;

pub const COLUMNS: &str =
    "id int, region text, user_id text, org_id text, cost bigint, at timestamptz, model text";

pub const MAP: &str = r#"{"user_id": "user_id", "organization_id": "org_id", "amount": "cost",
    "created_at": "at", "model_or_plan_key": "model"}"#;

/// When everything is charged: in one hour, so that no test depends on the clock's.
pub const AT: &str = "timestamptz '2024-05-15 12:30Z'";

/// The call that attaches a table with the columns above; all its rows count.
pub fn attaching(source: &str, table: &str) -> String {
    format!(
        "SELECT exa_billing.attach_spend_source('{source}', '{table}', 'variable', 'ai_gateway',
                    '{MAP}', backfill => true)"
    )
}

pub fn detaching(source: &str) -> String {
    format!("SELECT exa_billing.detach_spend_source('{source}')")
}

#[track_caller]
pub fn attach(client: &mut Client, source: &str, table: &str) {
    run_sql(client, &format!("SET client_min_messages = error; {}", attaching(source, table)));
}

#[track_caller]
pub fn detach(client: &mut Client, source: &str) -> i64 {
    one(client, &detaching(source), &[])
}

/// The insert of a charge.
pub fn spending(table: &str, region: &str, user: &str, cost: i64) -> String {
    format!(
        "INSERT INTO {table} (region, user_id, cost, at)
         VALUES ('{region}', '{user}', {cost}, {AT})"
    )
}

#[track_caller]
pub fn spend(client: &mut Client, table: &str, user: &str, cost: i64) {
    run_sql(client, &spending(table, "a", user, cost));
}

/// What a user has been charged, posted and not.
#[track_caller]
pub fn used(client: &mut Client, user: &str) -> i64 {
    let sql = "SELECT coalesce(sum(microdollars_used), 0)::bigint FROM exa_billing.account_balances
               WHERE owner_kind = 'user' AND owner_id = $1";
    one(client, sql, &[&user])
}

/// The violations, shortened to what does not depend on the clock.
pub fn violations(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT concat_ws(' ', invariant, owner_id, expected_microdollars, actual_microdollars,
                    CASE invariant WHEN 'I10' THEN detail ELSE split_part(detail, ' ', 1) END)
         FROM exa_billing.verify_books() ORDER BY 1",
    )
}

/// What verify_books() says of one user whose hour, of one driver, is not as the journals have it.
pub fn difference(user: &str, in_journals: &str, counted: &str) -> Vec<String> {
    let figures: Vec<&str> =
        [user, in_journals, counted].into_iter().filter(|text| !text.is_empty()).collect();
    ["daily", "driver", "total"].map(|what| format!("I5 {} {what}", figures.join(" "))).to_vec()
}

/// What verify_books() says of a table without any of its triggers.
pub fn unguarded(table: &str, source: &str) -> Vec<String> {
    ["capture_delete", "capture_insert", "capture_update", "refuse_truncate"]
        .map(|trigger| {
            format!(
                "I10 table {table} has no enabled trigger \"exa_billing_{trigger}\" of spend source {source}; call setup()"
            )
        })
        .to_vec()
}

/// Everything that attaching leaves outside the books, and in the registry.
pub fn traces(client: &mut Client) -> Vec<String> {
    texts(
        client,
        "SELECT 'trigger ' || tgname || ' on ' || tgrelid::regclass FROM pg_trigger AS t
         JOIN pg_class AS c ON c.oid = tgrelid
         WHERE tgname LIKE 'exa\\_billing%' AND relnamespace <> 'exa_billing'::regnamespace
         UNION ALL
         SELECT 'right on ' || attrelid::regclass || '.' || attname
         FROM pg_attribute, aclexplode(attacl) AS a WHERE a.grantee = 'exa_billing_owner'::regrole
         UNION ALL
         SELECT 'right on ' || c.oid::regclass FROM pg_class AS c, aclexplode(relacl) AS a
         WHERE a.grantee = 'exa_billing_owner'::regrole
           AND relnamespace <> 'exa_billing'::regnamespace
         UNION ALL
         SELECT 'source ' || source_name FROM exa_billing.spend_sources
         WHERE NOT is_own AND detached_at IS NULL
         ORDER BY 1",
    )
}

/// The columns of a table that exa_billing_owner may read.
pub fn readable(client: &mut Client, table: &str) -> Vec<String> {
    texts(
        client,
        &format!(
            "SELECT attname || ' ' || privilege_type FROM pg_attribute, aclexplode(attacl) AS a
             WHERE attrelid = '{table}'::regclass AND a.grantee = 'exa_billing_owner'::regrole
             UNION ALL
             SELECT privilege_type FROM pg_class AS c, aclexplode(relacl) AS a
             WHERE c.oid = '{table}'::regclass AND a.grantee = 'exa_billing_owner'::regrole
             ORDER BY 1"
        ),
    )
}

/// A login role, dropped with all that it owns.
pub struct Role {
    pub name: String,
    admin: Client,
}

impl Role {
    pub fn new(db: &Database, what: &str) -> Role {
        let role = Role { name: format!("{what}_{}", db.name()), admin: db.client() };
        let mut admin = db.client();
        run_sql(&mut admin, &format!("CREATE ROLE {} LOGIN", role.name));
        role
    }

    /// Owns a schema of its own name and may attach its tables, and nothing else of the books.
    pub fn attacher(db: &Database, what: &str) -> Role {
        let mut role = Role::new(db, what);
        role.grant(
            "USAGE ON SCHEMA exa_billing TO $;
             GRANT EXECUTE ON FUNCTION exa_billing.attach_spend_source, exa_billing.detach_spend_source,
                 exa_billing.capture_spend, exa_billing.refuse_truncate TO $;
             CREATE SCHEMA $ AUTHORIZATION $",
        );
        role
    }

    /// `GRANT …`; `$` is the role's name.
    #[track_caller]
    pub fn grant(&mut self, what: &str) {
        run_sql(&mut self.admin, &format!("GRANT {what}").replace('$', &self.name));
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let name = &self.name;
        // Its tables may be attached: nothing may be dropped then.
        let _ = self.admin.batch_execute(&format!(
            "ALTER EVENT TRIGGER exa_billing_guard_dropped_objects DISABLE;
             DROP OWNED BY {name} CASCADE; DROP ROLE {name};
             ALTER EVENT TRIGGER exa_billing_guard_dropped_objects ENABLE ALWAYS"
        ));
    }
}
