//! Row security: staff see everything, end users what is theirs, and whoever was only given SELECT by
//! hand sees nothing. Installed on request, since it is a decision of the database's owner, and then
//! kept by `setup()` and by every grant.

use super::grant::{self, lock};
use super::matrix::Kind;
use super::policies::{self, OWN_ROWS, Present, Roles, STAFF, Table};
use crate::books::{self, scripts};
use crate::error::Result;
use crate::spi::{self, Answer, Row, Statement, values};
use pgrx::prelude::*;

/// The name under which is remembered that row security is enabled, and with which words.
const SCRIPT: &str = "row_security";

// In the order in which charging and posting take their tables, so that who alters one after the
// other meets nobody crosswise.
static TABLES: Statement = Statement::fresh(
    "SELECT pg_catalog.quote_ident(c.relname), c.relispartition, c.relrowsecurity,
            staff.roles, staff.is_ours, own.roles, own.is_ours
     FROM pg_catalog.pg_class AS c
     LEFT JOIN LATERAL (
         SELECT p.polcmd = 'r' AND p.polpermissive AS is_ours, (
             SELECT pg_catalog.string_agg(member::regrole::text, ', ' ORDER BY member::regrole::text COLLATE \"C\")
             FROM unnest(p.polroles) AS member) AS roles
         FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = $1::name
     ) AS staff ON true
     LEFT JOIN LATERAL (
         SELECT p.polcmd = 'r' AND p.polpermissive AS is_ours, (
             SELECT pg_catalog.string_agg(member::regrole::text, ', ' ORDER BY member::regrole::text COLLATE \"C\")
             FROM unnest(p.polroles) AS member) AS roles
         FROM pg_catalog.pg_policy AS p WHERE p.polrelid = c.oid AND p.polname = $2::name
     ) AS own ON true
     WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'p')
     ORDER BY coalesce(array_position(
         ARRAY['exa_monthly_allowance', 'idempotency_keys', 'exa_usage_log', 'spend_log', 'accounts',
               'unposted_spend', 'spend_dimensions'], c.relname::text), 99), c.relname",
);

// Who is in our policy on every table stays, also under a new name, for as long as they have USAGE on
// the schema; who is in one table's only was put there by hand.
static ROLES: Statement = Statement::fresh(concat!(
    "WITH present AS (
         SELECT p.polroles FROM pg_catalog.pg_policy AS p
         JOIN pg_catalog.pg_class AS c ON c.oid = p.polrelid
         WHERE c.relnamespace = 'exa_billing'::regnamespace AND p.polname = $2::name
     )
     SELECT coalesce(pg_catalog.string_agg(role::regrole::text, ', ' ORDER BY role::regrole::text COLLATE \"C\"), '')
     FROM (
         SELECT r.oid FROM exa_billing.access_grants AS g
         JOIN pg_catalog.pg_roles AS r ON r.rolname = g.role_name
         WHERE g.granted_as = ANY ($1)
         UNION
         SELECT role FROM present, unnest(present.polroles) AS role
         GROUP BY role HAVING count(*) = (SELECT count(*) FROM present)
     ) AS known(role)
     WHERE ",
    grant::holds_usage!("role")
));

static IS_COMPLETE: Statement = Statement::fresh(
    "SELECT NOT EXISTS (
         SELECT FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'p')
           AND NOT c.relrowsecurity)",
);

fn table(row: &Row) -> Result<Table> {
    let policy = |column: usize| -> Result<Option<Present>> {
        let Some(roles) = row.maybe::<String>(column)? else { return Ok(None) };
        Ok(Some(Present { roles, is_ours: row.get(column + 1)? }))
    };
    Ok(Table {
        name: row.get(1)?,
        is_partition: row.get(2)?,
        has_row_security: row.get(3)?,
        staff: policy(4)?,
        own_rows: policy(6)?,
    })
}

fn roles() -> Result<Roles> {
    let of = |kinds: Vec<&str>, policy| {
        let names = ROLES.read_row(values![kinds, policy], |row| row.get::<String>(1))?;
        Ok(names.unwrap_or_default())
    };
    Ok(Roles {
        staff: of(Kind::STAFF.map(Kind::as_str).to_vec(), STAFF)?,
        end_users: of(vec![Kind::EndUser.as_str()], OWN_ROWS)?,
    })
}

/// Whether row security was asked for and every table and partition has it.
pub fn is_enabled() -> Result<bool> {
    Ok(scripts::applied(SCRIPT)?.is_some()
        && spi::on_latest_snapshot(|| IS_COMPLETE.read_row(&[], |row| row.get(1)))? == Some(true))
}

/// Puts policies where they lack, in the words of this library, for the roles of now.
///
/// Locks: those of rights, until the transaction ends; then, where something has to change, the table
/// exclusively. Charging waits for that until the transaction ends, and it for the charges under way.
fn install() -> Result<()> {
    lock()?;
    let hash = scripts::hash(&policies::text());
    let is_new_text = scripts::applied(SCRIPT)?.as_ref() != Some(&hash);
    let script = spi::on_latest_snapshot(|| {
        let roles = roles()?;
        let tables = TABLES.read(values![STAFF, OWN_ROWS], table)?;
        let statements =
            tables.iter().flat_map(|table| policies::statements(table, &roles, is_new_text));
        Ok(statements.collect::<Vec<_>>())
    })?;
    if !script.is_empty() {
        spi::run_script(&script.join(";\n"))?;
    }
    if is_new_text { scripts::note(SCRIPT, &hash) } else { Ok(()) }
}

/// Where row security is enabled: puts back what is missing of it.
///
/// Locks: as `install`; none where it is not enabled.
pub fn keep() -> Result<()> {
    if spi::relation_exists("applied_scripts") && scripts::applied(SCRIPT)?.is_some() {
        return install();
    }
    Ok(())
}

/// Lets every role see only what its kind may see.
#[pg_extern(sql = false)]
fn enable_row_security() -> Answer<()> {
    books::enter_for_writing("exa_billing.enable_row_security()")?;
    Ok(install()?)
}
