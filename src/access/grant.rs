//! Giving rights to roles, and giving them again when the books have grown.

use super::matrix::Kind;
use super::{policies, row_security};
use crate::books;
use crate::error::{BillingError, Kind as ErrorKind, Result};
use crate::spi::{self, Answer, Statement, values};
use pgrx::pg_sys::Oid;
use pgrx::prelude::*;

/// Number of the advisory lock under which rights are given.
const RIGHTS_LOCK: i32 = 10;

/// Whether a role was itself given USAGE on the schema: who was not, or no longer is, has no rights
/// that would be given again.
macro_rules! holds_usage {
    ($role:literal) => {
        concat!(
            "EXISTS (
                 SELECT FROM pg_catalog.pg_namespace AS n, pg_catalog.aclexplode(n.nspacl) AS entry
                 WHERE n.nspname = 'exa_billing' AND entry.privilege_type = 'USAGE'
                   AND entry.grantee <> 0 AND entry.grantee = ",
            $role,
            ")"
        )
    };
}
pub(super) use holds_usage;

// $2 the functions.
static GRANTS_OF_CALLS: Statement = Statement::fresh(
    "SELECT pg_catalog.format('GRANT USAGE ON SCHEMA exa_billing TO %s', $1::regrole)
     UNION ALL
     SELECT pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %s', p.oid::regprocedure, $1::regrole)
     FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace = 'exa_billing'::regnamespace AND p.proname = ANY ($2)",
);
// The parents of partitions are enough; rights on a partition would go around their policies.
// $2 the relations, unless $3: all of them.
static GRANTS_OF_TABLES: Statement = Statement::fresh(
    "SELECT pg_catalog.format('GRANT SELECT ON TABLE %s TO %s', c.oid::regclass, $1::regrole)
     FROM pg_catalog.pg_class AS c
     WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind IN ('r', 'p', 'v')
       AND NOT c.relispartition AND ($3 OR c.relname = ANY ($2))",
);
// To say who anybody is belongs to whoever lets them in. What a superuser ($2) may give, those who may
// act for the books' owner can give from then on. Not given when the extension is made: what an
// extension's script grants on a parameter cannot be dropped with its role from PostgreSQL 17 on.
static GRANTS_OF_IDENTITY: Statement = Statement::fresh(
    "SELECT 'GRANT SET ON PARAMETER exa_billing.user_id TO exa_billing_owner WITH GRANT OPTION'
     WHERE $2 AND NOT pg_catalog.has_parameter_privilege(
         'exa_billing_owner', 'exa_billing.user_id', 'SET WITH GRANT OPTION')
     UNION ALL
     SELECT pg_catalog.format('GRANT SET ON PARAMETER exa_billing.user_id TO %s', $1::regrole)
     WHERE NOT pg_catalog.has_parameter_privilege($1, 'exa_billing.user_id', 'SET')
       AND ($2 OR pg_catalog.has_parameter_privilege(
           'exa_billing_owner', 'exa_billing.user_id', 'SET WITH GRANT OPTION'))",
);
static MAY_NAME_USERS: Statement = Statement::fresh(
    "SELECT pg_catalog.has_parameter_privilege($1, 'exa_billing.user_id', 'SET'), $1::regrole::text",
);
// A regrole that was given as a number need not be one.
static IS_ROLE: Statement =
    Statement::kept("SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE oid = $1)");
static REMEMBER: Statement = Statement::kept(
    "INSERT INTO exa_billing.access_grants (role_name, granted_as, granted_at)
     SELECT r.rolname, $2, pg_catalog.now() FROM pg_catalog.pg_roles AS r WHERE r.oid = $1
     ON CONFLICT (role_name, granted_as) DO NOTHING",
);
// A role that was dropped, or whose rights were taken away, has no USAGE any more; another one of
// the same name, or the same one with other rights later, does not inherit them.
static FORGET: Statement = Statement::kept(concat!(
    "DELETE FROM exa_billing.access_grants AS g
     WHERE NOT EXISTS (
         SELECT FROM pg_catalog.pg_roles AS r WHERE r.rolname = g.role_name AND ",
    holds_usage!("r.oid"),
    ")"
));
static REMEMBERED: Statement = Statement::kept(
    "SELECT r.oid FROM exa_billing.access_grants AS g
     JOIN pg_catalog.pg_roles AS r ON r.rolname = g.role_name
     WHERE g.granted_as = $1 ORDER BY r.rolname",
);
static VOUCHES: Statement = Statement::kept(concat!(
    "SELECT pg_catalog.pg_has_role($1, 'exa_billing_owner', 'USAGE') OR EXISTS (
         SELECT FROM exa_billing.access_grants AS g
         JOIN pg_catalog.pg_roles AS r ON r.rolname = g.role_name
         WHERE g.granted_as = $2 AND pg_catalog.pg_has_role($1, r.oid, 'USAGE') AND ",
    holds_usage!("r.oid"),
    ")"
));

/// Whether a role has, itself or as a member, the rights of an application or those of the books.
pub fn vouches(role: Oid) -> Result<bool> {
    let arguments = values![role, Kind::Application.as_str()];
    Ok(VOUCHES.write_row(arguments, |row| row.get(1))? == Some(true))
}

/// Takes the lock under which it is decided who has which rights, until the transaction ends.
pub(super) fn lock() -> Result<()> {
    spi::lock_until_commit(RIGHTS_LOCK)?;
    spi::see_what_others_committed();
    Ok(())
}

/// Who is remembered is in the policies from the next look at them on.
fn grant_calls(role: Oid, kind: Kind) -> Result<()> {
    let script =
        GRANTS_OF_CALLS.write(values![role, kind.functions()], |row| row.get::<String>(1))?;
    spi::run_script(&script.join(";\n"))?;
    if kind == Kind::Application {
        grant_identity(role)?;
    }
    REMEMBER.execute(values![role, kind.as_str()])
}

fn grant_tables(role: Oid, kind: Kind) -> Result<()> {
    let own = policies::OWN.iter().map(|(table, _)| *table);
    let relations: Vec<&str> = own.chain(policies::VIEWS).collect();
    let reads_all = kind != Kind::EndUser;
    let script =
        GRANTS_OF_TABLES.write(values![role, relations, reads_all], |row| row.get::<String>(1))?;
    spi::run_script(&script.join(";\n"))
}

/// Rights on parameters are the whole server's: somebody may be giving one in another database, and
/// PostgreSQL then refuses to wait. And one that the books' owner gives, a superuser's REVOKE and DROP
/// OWNED leave in place without a word.
fn grant_identity(role: Oid) -> Result<()> {
    const ATTEMPTS: u32 = 5;
    for attempt in 1.. {
        let given = spi::in_subtransaction(|| {
            let arguments = values![role, spi::caller_is_superuser()];
            let script = GRANTS_OF_IDENTITY.write(arguments, |row| row.get::<String>(1))?;
            spi::as_calling_superuser(|| {
                script.iter().try_for_each(|script| spi::run_script(script))
            })
        });
        match given {
            Ok(()) => break,
            Err(failure) if failure.is_interruption() || attempt == ATTEMPTS => {
                return failure.raise();
            }
            Err(_) => spi::see_what_others_committed(),
        }
    }
    let may =
        MAY_NAME_USERS.write_row(values![role], |row| Ok((row.get::<bool>(1)?, row.get(2)?)))?;
    if let Some((false, name)) = may {
        let name: String = name;
        pgrx::warning!(
            "role {name} cannot say whom a session serves before a superuser has called grant_application() for it"
        );
    }
    Ok(())
}

/// Gives every remembered role its rights again: an upgrade may have brought functions and tables
/// that it does not know of. Rights somebody gave besides stay.
///
/// Locks: that of rights, until the transaction ends.
pub fn grant_again() -> Result<()> {
    if !spi::relation_exists("access_grants") {
        return Ok(());
    }
    lock()?;
    FORGET.execute(&[])?;
    for kind in Kind::ALL {
        for role in REMEMBERED.write(values![kind.as_str()], |row| row.get::<Oid>(1))? {
            grant_calls(role, kind)?;
            grant_tables(role, kind)?;
        }
    }
    Ok(())
}

/// Locks: that of rights, until the transaction ends; what GRANT takes, briefly; and where row
/// security is enabled and the role is new to it, what putting it into the policies takes.
fn grant_to(role: Option<Oid>, kind: Kind) -> Answer<()> {
    let role = role.ok_or_else(|| BillingError::missing("role"))?;
    if IS_ROLE.read_row(values![role], |row| row.get::<bool>(1))? != Some(true) {
        return Err(BillingError::invalid("role must be one that exists")
            .hint("PUBLIC gets no rights.")
            .into());
    }
    books::enter_for_writing(&format!("exa_billing.grant_{}()", kind.as_str()))?;
    if kind == Kind::EndUser && !row_security::is_enabled()? {
        let error = BillingError::new(
            ErrorKind::WrongState,
            "row security is not enabled in the exa_billing books",
        );
        return Err(error
            .detail("Without it an end user would see everybody's rows.")
            .hint("Call SELECT exa_billing.enable_row_security(); first.")
            .into());
    }
    lock()?;
    // Who lost their rights leaves before somebody comes back under that name.
    FORGET.execute(&[])?;
    row_security::keep()?;
    grant_calls(role, kind)?;
    // Before the grants on tables: whoever has one open and notes something of it, as VACUUM and
    // ANALYZE do, waits for these until the transaction ends.
    row_security::keep()?;
    Ok(grant_tables(role, kind)?)
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

/// Lets a role see what belongs to the user it acts for.
#[pg_extern(sql = false)]
fn grant_end_user(role: Option<Oid>) -> Answer<()> {
    grant_to(role, Kind::EndUser)
}
