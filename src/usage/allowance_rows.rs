//! Allowance rows: read without a lock, locked, counted; and the policy they are locked in with.

use super::allowance::{Allowance, OverageRule, PolicyEntry, in_force};
use crate::books;
use crate::error::{BillingError, Result};
use crate::money;
use crate::owner;
use crate::spi::{self, Answer, Key, Lookup, Row, Statement, values};
use crate::time::{self, Day, Month};
use pgrx::prelude::*;
use uuid::Uuid;

static READ: Lookup = Lookup {
    table: "exa_monthly_allowance",
    primary_key: "exa_monthly_allowance_pkey",
    columns: &[
        "user_id",
        "month",
        "free_allowance_microdollars",
        "overage_rule",
        "used_microdollars",
    ],
    key: &[Key::Is(1), Key::Is(2)],
    select: Statement::kept(
        "SELECT user_id, month, free_allowance_microdollars, overage_rule, used_microdollars
         FROM exa_billing.exa_monthly_allowance WHERE user_id = $1 AND month = $2",
    ),
};
static LOCK: Statement = Statement::kept(
    "SELECT user_id, month, free_allowance_microdollars, overage_rule, used_microdollars
     FROM exa_billing.exa_monthly_allowance WHERE user_id = $1 AND month = $2 FOR NO KEY UPDATE",
);
static LOCK_IN: Statement = Statement::kept(
    "INSERT INTO exa_billing.exa_monthly_allowance
         (user_id, month, free_allowance_microdollars, overage_rule, used_microdollars)
     VALUES ($1, $2, $3, $4, 0) ON CONFLICT DO NOTHING",
);
static COUNT: Statement = Statement::kept(
    "UPDATE exa_billing.exa_monthly_allowance SET used_microdollars = $3
     WHERE user_id = $1 AND month = $2",
);
static POLICY: Statement = Statement::kept(
    "(SELECT true AS is_own, free_allowance_microdollars, overage_rule
      FROM exa_billing.free_allowances WHERE user_id = $1 AND effective_month <= $2
      ORDER BY effective_month DESC LIMIT 1)
     UNION ALL
     (SELECT false, free_allowance_microdollars, overage_rule
      FROM exa_billing.free_allowances WHERE user_id IS NULL AND effective_month <= $2
      ORDER BY effective_month DESC LIMIT 1)",
);
static SET_POLICY: Statement = Statement::kept(
    "INSERT INTO exa_billing.free_allowances AS f
         (id, user_id, effective_month, free_allowance_microdollars, overage_rule, set_at)
     VALUES ($1, $2, $3, $4, $5, $6)
     ON CONFLICT ON CONSTRAINT free_allowances_entry_key DO UPDATE
     SET free_allowance_microdollars = excluded.free_allowance_microdollars,
         overage_rule = excluded.overage_rule, set_at = excluded.set_at",
);

/// The locked-in allowance, without taking a lock. Once it is used up it never changes again, so
/// what this says then is final; before that it only says that the row must be locked to decide.
pub fn read(user_id: &str, month: Month) -> Result<Option<Allowance>> {
    READ.find(values![user_id, month.first_day()], from_row)
}

/// The same as the caller's snapshot shows it and the caller may see it.
pub fn look(user_id: &str, month: Month) -> Result<Option<Allowance>> {
    Ok(READ.read(values![user_id, month.first_day()], from_row)?.pop())
}

/// Locks the row, locking the allowance in first when this is the month's first request.
///
/// Locks: the allowance row, until the transaction ends.
pub fn lock(user_id: &str, month: Month) -> Result<Allowance> {
    if let Some(allowance) = try_lock(user_id, month)? {
        return Ok(allowance);
    }
    let policy = policy(user_id, month)?;
    LOCK_IN.execute(values![
        user_id,
        month.first_day(),
        policy.free_microdollars,
        policy.rule.as_str()
    ])?;
    try_lock(user_id, month)?
        .ok_or_else(|| BillingError::internal("an allowance row vanished while it was locked in"))
}

fn try_lock(user_id: &str, month: Month) -> Result<Option<Allowance>> {
    LOCK.write_row(values![user_id, month.first_day()], from_row)
}

/// Writes what is counted now; the row is locked.
pub fn count(user_id: &str, month: Month, allowance: &Allowance) -> Result<()> {
    COUNT.execute(values![user_id, month.first_day(), allowance.used_microdollars])
}

fn policy(user_id: &str, month: Month) -> Result<Allowance> {
    let entries = POLICY.write(values![user_id, month.first_day()], |row| {
        Ok((row.get::<bool>(1)?, policy_entry(row, 2)?))
    })?;
    let find = |own| entries.iter().find(|(is_own, _)| *is_own == own).map(|(_, entry)| *entry);
    Ok(in_force(find(true), find(false)))
}

pub fn policy_entry(row: &Row, first_column: usize) -> Result<PolicyEntry> {
    let rule = row.maybe::<String>(first_column + 1)?;
    Ok(PolicyEntry {
        free_microdollars: row.maybe(first_column)?,
        rule: rule.as_deref().map(OverageRule::parse).transpose()?,
    })
}

fn from_row(row: &Row) -> Result<Allowance> {
    Ok(Allowance {
        free_microdollars: row.get(3)?,
        rule: OverageRule::parse(&row.get::<String>(4)?)?,
        used_microdollars: row.get(5)?,
    })
}

/// Sets the allowance that new months are locked in with, from a month on.
#[pg_extern(sql = false)]
fn set_free_allowance(
    free_allowance_microdollars: Option<i64>,
    effective_month: Option<Day>,
    user_id: Option<&str>,
    overage_rule: Option<&str>,
) -> Answer<()> {
    let month = time::first_of_month("effective_month", effective_month)?;
    let user_id = owner::optional_identifier("user_id", user_id)?;
    let rule = overage_rule.map(OverageRule::parse).transpose()?;
    if let Some(amount) = free_allowance_microdollars {
        money::cost("free_allowance_microdollars", Some(amount))?;
    } else if rule.is_some() {
        return Err(BillingError::invalid("an entry without an amount has no overage_rule")
            .hint("A null amount ends the entry; leave overage_rule out.")
            .into());
    }
    books::enter_for_writing("exa_billing.set_free_allowance()")?;
    SET_POLICY.execute(values![
        Uuid::now_v7(),
        user_id,
        month.first_day(),
        free_allowance_microdollars,
        rule.map(OverageRule::as_str),
        spi::clock()
    ])?;
    Ok(())
}
