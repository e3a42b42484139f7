//! `check_exa_usage`: may this request be made? It only reads, and it never refuses to answer.

use super::allowance::{Allowance, OverageRule, PolicyEntry, in_force};
use super::allowance_rows::{self, policy_entry};
use super::decision::{Context, Facts, Role};
use crate::error::{BillingError, Result};
use crate::owner::{self, Owner};
use crate::spi::{Answer, Composite, Row, Statement, values};
use crate::time::{self, Day, Instant};
use crate::{accounts, books, credits};
use pgrx::prelude::*;

static FACTS: Statement =
    Statement::over_queue(include_str!("../../sql/statements/check_usage.sql"));

fn facts(row: &Row) -> Result<Facts> {
    let rule = row.maybe::<String>(2)?.as_deref().map(OverageRule::parse).transpose()?;
    let allowance = match (row.maybe(1)?, rule, row.maybe(3)?) {
        (Some(free_microdollars), Some(rule), Some(used_microdollars)) => {
            Allowance { free_microdollars, rule, used_microdollars }
        }
        _ => in_force(found_entry(row, 4)?, found_entry(row, 7)?),
    };
    let role = row.maybe::<String>(10)?.as_deref().map(Role::parse).transpose()?;
    let context = match role {
        Some(role) => {
            Context::Member { role, daily_limit: row.maybe(11)?, used_today: row.get(12)? }
        }
        None => Context::NotAMember,
    };
    Ok(Facts { allowance, balance: row.get(13)?, next_expiration: row.maybe(14)?, context })
}

fn found_entry(row: &Row, first_column: usize) -> Result<Option<PolicyEntry>> {
    match row.maybe::<bool>(first_column)? {
        Some(true) => policy_entry(row, first_column + 1).map(Some),
        _ => Ok(None),
    }
}

/// Of a request that users make for themselves. The statement of all facts would look for memberships
/// and policies that do not matter to most of them.
fn personal_facts(user_id: &str, owner: &Owner, as_of: Instant) -> Result<Facts> {
    let context = Context::Personal;
    let Some(allowance) = allowance_rows::look(user_id, as_of.month()?)? else {
        return Ok(Facts { context, ..all_facts(user_id, owner, as_of)? });
    };
    let (balance, next_expiration) = credits::left(owner)?;
    Ok(Facts { allowance, balance, next_expiration, context })
}

fn all_facts(user_id: &str, owner: &Owner, as_of: Instant) -> Result<Facts> {
    let today = as_of.day()?;
    let tomorrow = Day(today.0.saturating_add(1));
    let arguments = values![
        user_id,
        as_of.month()?.first_day(),
        owner.kind.as_str(),
        &owner.id,
        today,
        today.start(),
        tomorrow.start(),
        accounts::place_of_queue()
    ];
    let facts = FACTS.read_row(arguments, facts)?;
    facts.ok_or_else(|| BillingError::internal("no facts for a decision"))
}

/// Whether the user may make a request now, and why.
#[pg_extern(sql = false)]
fn check_exa_usage(
    user_id: Option<&str>,
    organization_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<Composite> {
    let user_id = owner::identifier("user_id", user_id)?;
    let organization_id = owner::optional_identifier("organization_id", organization_id)?;
    let as_of = time::as_of(as_of)?;
    books::enter_for_reading("exa_billing.check_exa_usage()")?;
    let owner = Owner::of_request(user_id, organization_id);
    let mut facts = match organization_id {
        None => personal_facts(user_id, &owner, as_of)?,
        Some(_) => all_facts(user_id, &owner, as_of)?,
    };
    // Credit whose expiry has passed is gone, whether or not it has been closed yet.
    if facts.next_expiration.is_some_and(|next| next <= as_of) {
        facts.balance = facts
            .balance
            .checked_sub(credits::expired_by(&owner, as_of)?)
            .ok_or_else(|| BillingError::out_of_range("the balance is out of range"))?;
    }
    let decision = facts.decide();
    // This row becomes the answer to the user, and a stranger has no business with the balance.
    let balance = (!matches!(facts.context, Context::NotAMember)).then_some(facts.balance);
    Ok(Composite::new(values![
        decision.allowed,
        decision.reason,
        decision.is_paid,
        facts.allowance.used_microdollars,
        facts.allowance.free_microdollars,
        balance,
        decision.member_limit_remaining
    ]))
}
