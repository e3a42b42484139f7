//! `check_exa_usage`: may this request be made? It only reads, and it never refuses to answer.

use super::allowance::{Allowance, OverageRule, PolicyEntry, in_force};
use super::allowance_rows::policy_entry;
use super::members::Role;
use crate::error::{BillingError, Result};
use crate::owner::{self, Owner};
use crate::spi::{Answer, Composite, Row, Statement, values};
use crate::time::{self, Day, Instant};
use crate::{books, credits};
use pgrx::prelude::*;

static FACTS: Statement =
    Statement::over_queue(include_str!("../../sql/statements/check_usage.sql"));

/// What the decision depends on, in microdollars.
#[derive(Debug, Clone, Copy)]
struct Facts {
    allowance: Allowance,
    balance: i64,
    next_expiration: Option<Instant>,
    context: Context,
}

#[derive(Debug, Clone, Copy)]
enum Context {
    Personal,
    NotAMember,
    Member { role: Role, daily_limit: Option<i64>, used_today: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decision {
    allowed: bool,
    reason: &'static str,
    is_paid: bool,
    member_limit_remaining: Option<i64>,
}

impl Facts {
    /// Membership and limit matter only for paid requests.
    fn decide(&self) -> Decision {
        let is_paid = self.allowance.is_used_up();
        let remaining = self.limit_remaining();
        let denied = if !is_paid {
            None
        } else if !self.may_spend() {
            Some("not_a_member")
        } else if self.balance <= 0 {
            Some("no_credit_balance")
        } else if remaining.is_some_and(|amount| amount <= 0) {
            Some("member_daily_limit")
        } else {
            None
        };
        let granted = if is_paid { "credit_balance" } else { "free_allowance" };
        Decision {
            allowed: denied.is_none(),
            reason: denied.unwrap_or(granted),
            is_paid,
            member_limit_remaining: remaining,
        }
    }

    fn may_spend(&self) -> bool {
        match self.context {
            Context::Personal => true,
            Context::NotAMember => false,
            Context::Member { role, .. } => role.may_spend(),
        }
    }

    /// What the member may still spend today: within the limit and the organization's balance.
    fn limit_remaining(&self) -> Option<i64> {
        match self.context {
            Context::Member { daily_limit: Some(limit), used_today, .. } => {
                Some(limit.saturating_sub(used_today).min(self.balance))
            }
            _ => None,
        }
    }
}

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
    let today = as_of.day()?;
    let tomorrow = Day(today.0.saturating_add(1));
    let arguments = values![
        user_id,
        as_of.month()?.first_day(),
        owner.kind.as_str(),
        &owner.id,
        today,
        today.start(),
        tomorrow.start()
    ];
    let facts = FACTS.read_row(arguments, facts)?;
    let mut facts = facts.ok_or_else(|| BillingError::internal("no facts for a decision"))?;
    if organization_id.is_none() {
        facts.context = Context::Personal;
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const USED_UP: Allowance =
        Allowance { free_microdollars: 10, rule: OverageRule::Whole, used_microdollars: 10 };
    const UNUSED: Allowance = Allowance { used_microdollars: 0, ..USED_UP };

    fn member(role: Role, daily_limit: Option<i64>, used_today: i64) -> Context {
        Context::Member { role, daily_limit, used_today }
    }

    fn reason(allowance: Allowance, balance: i64, context: Context) -> (bool, &'static str) {
        let decision = Facts { allowance, balance, next_expiration: None, context }.decide();
        (decision.allowed, decision.reason)
    }

    #[test]
    fn free_requests_ask_for_nothing_else() {
        let nobody = Context::NotAMember;
        assert_eq!(reason(UNUSED, -5, Context::Personal), (true, "free_allowance"));
        assert_eq!(reason(UNUSED, 0, nobody), (true, "free_allowance"));
        assert_eq!(reason(UNUSED, 0, member(Role::Member, Some(0), 9)), (true, "free_allowance"));
    }

    #[test]
    fn reasons_come_in_their_order() {
        let limited = member(Role::Member, Some(5), 5);
        assert_eq!(reason(USED_UP, 0, Context::NotAMember), (false, "not_a_member"));
        assert_eq!(reason(USED_UP, 9, Context::NotAMember), (false, "not_a_member"));
        let manager = member(Role::BillingManager, None, 0);
        assert_eq!(reason(USED_UP, 9, manager), (false, "not_a_member"));
        assert_eq!(reason(USED_UP, 0, limited), (false, "no_credit_balance"));
        assert_eq!(reason(USED_UP, 9, limited), (false, "member_daily_limit"));
        assert_eq!(reason(USED_UP, 9, member(Role::Member, Some(6), 5)), (true, "credit_balance"));
        assert_eq!(reason(USED_UP, 9, member(Role::Owner, None, 5)), (true, "credit_balance"));
        assert_eq!(reason(USED_UP, 1, Context::Personal), (true, "credit_balance"));
        assert_eq!(reason(USED_UP, 0, Context::Personal), (false, "no_credit_balance"));
    }

    #[test]
    fn the_limit_leaves_no_more_than_the_balance() {
        let remaining = |balance, context| {
            Facts { allowance: USED_UP, balance, next_expiration: None, context }
                .decide()
                .member_limit_remaining
        };
        assert_eq!(remaining(100, member(Role::Member, Some(50), 20)), Some(30));
        assert_eq!(remaining(10, member(Role::Member, Some(50), 20)), Some(10));
        assert_eq!(remaining(100, member(Role::Member, Some(50), 70)), Some(-20));
        assert_eq!(remaining(100, member(Role::Member, None, 70)), None);
        assert_eq!(remaining(100, Context::Personal), None);
    }
}
