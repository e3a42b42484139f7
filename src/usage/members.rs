//! Who may spend for an organization, and how much a day.

use super::decision::Role;
use crate::error::BillingError;
use crate::owner;
use crate::spi::{Answer, Statement, values};
use crate::{books, money};
use pgrx::prelude::*;

static SET: Statement = Statement::kept(
    "INSERT INTO exa_billing.organization_members (organization_id, user_id, role, daily_limit_microdollars)
     VALUES ($1, $2, $3, $4)
     ON CONFLICT (organization_id, user_id) DO UPDATE
     SET role = excluded.role, daily_limit_microdollars = excluded.daily_limit_microdollars",
);
static REMOVE: Statement = Statement::kept(
    "DELETE FROM exa_billing.organization_members WHERE organization_id = $1 AND user_id = $2",
);

/// Adds a member, or changes role and daily limit.
#[pg_extern(sql = false)]
fn set_organization_member(
    organization_id: Option<&str>,
    user_id: Option<&str>,
    role: Option<&str>,
    daily_limit_microdollars: Option<i64>,
) -> Answer<()> {
    let organization_id = owner::identifier("organization_id", organization_id)?;
    let user_id = owner::identifier("user_id", user_id)?;
    let role = Role::parse(role.ok_or_else(|| BillingError::missing("role"))?)?;
    if daily_limit_microdollars.is_some() {
        money::cost("daily_limit_microdollars", daily_limit_microdollars)?;
    }
    books::enter_for_writing("exa_billing.set_organization_member()")?;
    SET.execute(values![organization_id, user_id, role.as_str(), daily_limit_microdollars])?;
    Ok(())
}

/// Removes a member; what they have spent stays. Removing nobody is no error.
#[pg_extern(sql = false)]
fn remove_organization_member(organization_id: Option<&str>, user_id: Option<&str>) -> Answer<()> {
    let organization_id = owner::identifier("organization_id", organization_id)?;
    let user_id = owner::identifier("user_id", user_id)?;
    books::enter_for_writing("exa_billing.remove_organization_member()")?;
    REMOVE.execute(values![organization_id, user_id])?;
    Ok(())
}
