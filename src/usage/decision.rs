//! May a request be made? The rule behind `check_exa_usage`.

use super::allowance::Allowance;
use crate::error::{BillingError, Result};
use crate::owner::quoted;
use crate::time::Instant;

/// What a member may do. A billing manager hears about spend but does not spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Owner,
    BillingManager,
    Member,
}

impl Role {
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "owner" => Ok(Role::Owner),
            "billing_manager" => Ok(Role::BillingManager),
            "member" => Ok(Role::Member),
            other => Err(BillingError::invalid("role is not known")
                .detail(format!("role is {}.", quoted(other)))
                .hint("Give 'owner', 'billing_manager' or 'member'.")),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Role::Owner => "owner",
            Role::BillingManager => "billing_manager",
            Role::Member => "member",
        }
    }

    pub fn may_spend(self) -> bool {
        self != Role::BillingManager
    }
}

/// What the decision depends on, in microdollars.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    pub allowance: Allowance,
    pub balance: i64,
    pub next_expiration: Option<Instant>,
    pub context: Context,
}

#[derive(Debug, Clone, Copy)]
pub enum Context {
    Personal,
    NotAMember,
    Member { role: Role, daily_limit: Option<i64>, used_today: i64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: &'static str,
    pub is_paid: bool,
    pub member_limit_remaining: Option<i64>,
}

impl Facts {
    /// Membership and limit matter only for paid requests.
    pub fn decide(&self) -> Decision {
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

#[cfg(test)]
mod tests {
    use super::super::allowance::OverageRule;
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
    fn roles_are_told_by_their_names() {
        for role in [Role::Owner, Role::BillingManager, Role::Member] {
            assert_eq!(Role::parse(role.as_str()), Ok(role));
        }
        assert_eq!(Role::parse("member").map(Role::as_str), Ok("member"));
        assert!(Role::parse("").is_err() && Role::parse("Owner").is_err());
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
