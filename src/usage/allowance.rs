//! The rules of the monthly free allowance: which one is in force, and what of a request is free.

use crate::error::{BillingError, Result};
use crate::owner::quoted;

/// In force from the start for everyone, until a policy says otherwise: 10 USD.
pub const DEFAULT_ALLOWANCE_MICRODOLLARS: i64 = 10_000_000;

/// What happens to the request that crosses the allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverageRule {
    /// A request that starts under the allowance is wholly free, any later one wholly charged.
    Whole,
    /// Exactly the part beyond the allowance is charged.
    Split,
}

impl OverageRule {
    pub fn as_str(self) -> &'static str {
        match self {
            OverageRule::Whole => "whole",
            OverageRule::Split => "split",
        }
    }

    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "whole" => Ok(OverageRule::Whole),
            "split" => Ok(OverageRule::Split),
            other => Err(BillingError::invalid("overage_rule is not known")
                .detail(format!("overage_rule is {}.", quoted(other)))
                .hint("Give 'whole' or 'split'.")),
        }
    }
}

/// The allowance a month is locked in with, and what has been counted against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    pub free_microdollars: i64,
    pub rule: OverageRule,
    pub used_microdollars: i64,
}

/// How one request's cost is borne. `free` is also what is counted against the allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charge {
    pub free: i64,
    pub charged: i64,
}

impl Allowance {
    pub fn is_used_up(&self) -> bool {
        self.used_microdollars >= self.free_microdollars
    }

    /// Decides a request of `cost` microdollars (0 … 2^53 − 1).
    pub fn decide(&self, cost: i64) -> Charge {
        let free = if self.is_used_up() {
            0
        } else {
            match self.rule {
                OverageRule::Whole => cost,
                OverageRule::Split => cost.min(self.free_microdollars - self.used_microdollars),
            }
        };
        Charge { free, charged: cost - free }
    }

    /// Decides a request and counts it.
    pub fn take(&mut self, cost: i64) -> Charge {
        let charge = self.decide(cost);
        self.used_microdollars += charge.free;
        charge
    }
}

/// One entry of the policy table; a null amount ends what was set before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PolicyEntry {
    pub free_microdollars: Option<i64>,
    pub rule: Option<OverageRule>,
}

/// The allowance of a month that has no request yet: the user's own entry goes before
/// everyone's, which goes before the default. A rule left open is everyone's, or `whole`.
pub fn in_force(own: Option<PolicyEntry>, everyone: Option<PolicyEntry>) -> Allowance {
    let everyone = everyone.filter(|entry| entry.free_microdollars.is_some()).unwrap_or_default();
    let own = own.filter(|entry| entry.free_microdollars.is_some()).unwrap_or_default();
    Allowance {
        free_microdollars: own
            .free_microdollars
            .or(everyone.free_microdollars)
            .unwrap_or(DEFAULT_ALLOWANCE_MICRODOLLARS),
        rule: own.rule.or(everyone.rule).unwrap_or(OverageRule::Whole),
        used_microdollars: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::MAX_AMOUNT_MICRODOLLARS;
    use proptest::prelude::*;

    fn allowance(free: i64, rule: OverageRule, used: i64) -> Allowance {
        Allowance { free_microdollars: free, rule, used_microdollars: used }
    }

    #[test]
    fn the_fixed_figures() {
        let mut month = allowance(10_000_000, OverageRule::Whole, 9_990_000);
        assert_eq!(month.take(5_000_000), Charge { free: 5_000_000, charged: 0 });
        assert_eq!(month.used_microdollars, 14_990_000);
        assert_eq!(month.take(5_000), Charge { free: 0, charged: 5_000 });
        assert_eq!(month.used_microdollars, 14_990_000);

        let mut split = allowance(10_000_000, OverageRule::Split, 9_990_000);
        assert_eq!(split.take(5_000_000), Charge { free: 10_000, charged: 4_990_000 });
        assert!(split.is_used_up());
    }

    #[test]
    fn an_allowance_of_nothing_makes_the_first_request_paid() {
        for rule in [OverageRule::Whole, OverageRule::Split] {
            assert_eq!(allowance(0, rule, 0).take(1), Charge { free: 0, charged: 1 });
        }
    }

    #[test]
    fn policies_go_from_narrow_to_wide() {
        let entry = |amount, rule| Some(PolicyEntry { free_microdollars: amount, rule });
        let (whole, split) = (Some(OverageRule::Whole), Some(OverageRule::Split));
        let force = |own, everyone| {
            let allowance = in_force(own, everyone);
            (allowance.free_microdollars, allowance.rule.as_str())
        };
        assert_eq!(force(None, None), (10_000_000, "whole"));
        assert_eq!(force(None, entry(Some(5), split)), (5, "split"));
        assert_eq!(force(entry(Some(7), None), entry(Some(5), split)), (7, "split"));
        assert_eq!(force(entry(Some(7), whole), entry(Some(5), split)), (7, "whole"));
        assert_eq!(force(entry(None, None), entry(Some(5), None)), (5, "whole"));
        assert_eq!(force(entry(Some(0), None), None), (0, "whole"));
    }

    fn any_rule() -> impl Strategy<Value = OverageRule> {
        prop_oneof![Just(OverageRule::Whole), Just(OverageRule::Split)]
    }

    proptest! {
        #[test]
        fn free_and_charged_are_the_cost(
            free in 0..=MAX_AMOUNT_MICRODOLLARS, used in 0..=MAX_AMOUNT_MICRODOLLARS,
            cost in 0..=MAX_AMOUNT_MICRODOLLARS, rule in any_rule(),
        ) {
            let charge = allowance(free, rule, used).decide(cost);
            prop_assert!(charge.free >= 0 && charge.charged >= 0);
            prop_assert_eq!(charge.free + charge.charged, cost);
        }

        #[test]
        fn split_gives_exactly_the_allowance(costs in prop::collection::vec(0..10_000_i64, 0..100), free in 0..100_000_i64) {
            let mut month = allowance(free, OverageRule::Split, 0);
            let given: i64 = costs.iter().map(|&cost| month.take(cost).free).sum();
            prop_assert_eq!(given, free.min(costs.iter().sum()));
        }

        #[test]
        fn whole_exceeds_the_allowance_by_less_than_one_request(costs in prop::collection::vec(0..10_000_i64, 0..100), free in 0..100_000_i64) {
            let mut month = allowance(free, OverageRule::Whole, 0);
            for cost in costs {
                let was_used_up = month.is_used_up();
                let charge = month.take(cost);
                prop_assert_eq!(charge.free, if was_used_up { 0 } else { cost });
                if !was_used_up {
                    prop_assert!(month.used_microdollars < free + cost.max(1));
                }
            }
        }
    }
}
