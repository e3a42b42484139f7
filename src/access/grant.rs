//! Giving rights to roles, and giving them again when the books have grown.

use super::matrix::Kind;
use crate::books;
use crate::error::{BillingError, Result};
use crate::spi::{self, Answer, Statement, values};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

// The parents of partitions are enough; rights on a partition would go around their policies.
static GRANTS: Statement = Statement::fresh(
    "SELECT pg_catalog.format('GRANT USAGE ON SCHEMA exa_billing TO %s', $1::regrole)
     UNION ALL
     SELECT pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %s', p.oid::regprocedure, $1::regrole)
     FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace = 'exa_billing'::regnamespace AND p.proname = ANY ($2)
     UNION ALL
     SELECT pg_catalog.format('GRANT SELECT ON TABLE %s TO %s', c.oid::regclass, $1::regrole)
     FROM pg_catalog.pg_class AS c
     WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'p', 'v')
       AND NOT c.relispartition",
);
static REMEMBER: Statement = Statement::kept(
    "INSERT INTO exa_billing.access_grants (role_name, granted_as, granted_at)
     SELECT r.rolname, $2, pg_catalog.now() FROM pg_catalog.pg_roles AS r WHERE r.oid = $1
     ON CONFLICT (role_name, granted_as) DO NOTHING",
);
// A role that was dropped, or whose rights were taken away, has no USAGE any more; another one of
// the same name does not inherit them.
static REMEMBERED: Statement = Statement::kept(
    "SELECT r.oid FROM exa_billing.access_grants AS g
     JOIN pg_catalog.pg_roles AS r ON r.rolname = g.role_name
     WHERE g.granted_as = $1 AND EXISTS (
         SELECT FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS entry
         WHERE n.nspname = 'exa_billing' AND entry.grantee = r.oid AND entry.privilege_type = 'USAGE')
     ORDER BY r.rolname",
);

/// Locks: what GRANT takes, briefly; none that charging waits for.
fn grant(role: Oid, kind: Kind) -> Result<()> {
    let script = GRANTS.write(values![role, kind.functions()], |row| row.get::<String>(1))?;
    spi::run_script(&script.join(";\n"))?;
    REMEMBER.execute(values![role, kind.as_str()])
}

/// Gives every remembered role its rights again: an upgrade may have brought functions and tables
/// that it does not know of. Rights somebody gave besides stay.
pub fn grant_again() -> Result<()> {
    if !spi::relation_exists("access_grants") {
        return Ok(());
    }
    for kind in Kind::ALL {
        for role in REMEMBERED.write(values![kind.as_str()], |row| row.get::<Oid>(1))? {
            grant(role, kind)?;
        }
    }
    Ok(())
}

fn grant_to(role: Option<Oid>, kind: Kind) -> Answer<()> {
    let role = role.ok_or_else(|| BillingError::missing("role"))?;
    if role == pg_sys::InvalidOid {
        return Err(BillingError::invalid("role must be one that exists")
            .hint("PUBLIC gets no rights.")
            .into());
    }
    books::enter_for_writing(&format!("exa_billing.grant_{}()", kind.as_str()))?;
    Ok(grant(role, kind)?)
}

/// Lets a role ask, record, grant credit and read.
#[pg_extern(sql = false)]
fn grant_application(role: Option<Oid>) -> Answer<()> {
    grant_to(role, Kind::Application)
}

/// Lets a role look after the books.
#[pg_extern(sql = false)]
fn grant_operator(role: Option<Oid>) -> Answer<()> {
    grant_to(role, Kind::Operator)
}

/// Lets a role read everything and change nothing.
#[pg_extern(sql = false)]
fn grant_auditor(role: Option<Oid>) -> Answer<()> {
    grant_to(role, Kind::Auditor)
}
