//! The rules of expiration: each expiring grant claims a range of the owner's lifetime usage.
//!
//! A grant of amount `a` with baseline `b` claims the usage in `[b, b + a)` that happened before
//! its expiry; what it could not claim expires. Where the ranges of two grants overlap, the one
//! that is closed first keeps the overlap, and the later one's baseline is raised by it.

use crate::error::{BillingError, Result};
use crate::time::Instant;
use std::collections::BTreeMap;
use uuid::Uuid;

/// An expiring grant without a closing row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenGrant {
    pub id: Uuid,
    pub amount: i64,
    pub baseline: i64,
    pub expiry: Instant,
    pub created_at: Instant,
}

/// The end of a grant. `claimed + expired` is its amount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closure {
    pub grant: Uuid,
    pub at: Instant,
    pub usage_before: i64,
    pub claimed: i64,
    pub expired: i64,
}

/// Grants that are closed, and the baselines of all grants that were raised on the way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closing {
    pub closures: Vec<Closure>,
    pub raised: BTreeMap<Uuid, i64>,
}

impl Closing {
    pub fn expired(&self) -> Result<i64> {
        sum(self.closures.iter().map(|closure| closure.expired))
    }
}

/// A sum of amounts; leaving the range of the books is an error, never a wrap.
pub fn sum(amounts: impl Iterator<Item = i64>) -> Result<i64> {
    let sum: i128 = amounts.map(i128::from).sum();
    i64::try_from(sum).map_err(|_| BillingError::out_of_range("the expired credit is out of range"))
}

/// The order in which grants are closed; statements that read them sort the same way.
#[cfg(test)]
pub fn sort(grants: &mut [OpenGrant]) {
    grants.sort_by_key(|grant| (grant.expiry, grant.created_at, grant.id));
}

/// Closes the first `count` of the sorted grants. `at` says when each is closed and the owner's
/// usage before that instant.
pub fn close(grants: &[OpenGrant], count: usize, at: &[(Instant, i64)]) -> Closing {
    let mut baselines: Vec<i64> = grants.iter().map(|grant| grant.baseline).collect();
    let mut closing = Closing::default();
    for (index, (grant, &(instant, usage_before))) in grants.iter().zip(at).take(count).enumerate()
    {
        let baseline = baselines[index];
        let end = baseline.saturating_add(grant.amount).min(usage_before);
        let claimed = end.saturating_sub(baseline).max(0);
        for (later, other) in grants.iter().enumerate().skip(index + 1) {
            let overlap = claimed.min(end.saturating_sub(baselines[later]));
            if overlap > 0 {
                baselines[later] += overlap;
                closing.raised.insert(other.id, baselines[later]);
            }
        }
        closing.closures.push(Closure {
            grant: grant.id,
            at: instant,
            usage_before,
            claimed,
            expired: grant.amount - claimed,
        });
    }
    closing
}

/// How many of the sorted grants are due: expiry at or before `as_of`.
pub fn due_count(grants: &[OpenGrant], as_of: Instant) -> usize {
    grants.iter().take_while(|grant| grant.expiry <= as_of).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn grant(number: u128, expiry_day: i64, baseline: i64, amount: i64) -> OpenGrant {
        OpenGrant {
            id: Uuid::from_u128(number),
            amount,
            baseline,
            expiry: Instant(expiry_day),
            created_at: Instant(0),
        }
    }

    /// Closes what is due at `as_of`, with all usage before the first expiry.
    fn expire(grants: &[OpenGrant], used: i64, as_of: i64) -> Closing {
        let mut sorted = grants.to_vec();
        sort(&mut sorted);
        let at: Vec<_> = sorted.iter().map(|grant| (grant.expiry, used)).collect();
        close(&sorted, due_count(&sorted, Instant(as_of)), &at)
    }

    fn expired(closing: &Closing) -> Vec<i64> {
        closing.closures.iter().map(|closure| closure.expired).collect()
    }

    fn raised(closing: &Closing, number: u128) -> Option<i64> {
        closing.raised.get(&Uuid::from_u128(number)).copied()
    }

    #[test]
    fn three_overlapping_grants() {
        let closing = expire(
            &[grant(1, 10, 100, 100), grant(2, 11, 80, 100), grant(3, 12, 50, 100)],
            150,
            15,
        );
        assert_eq!(expired(&closing), [50, 80, 70]);
        assert_eq!((raised(&closing, 2), raised(&closing, 3)), (Some(130), Some(120)));
    }

    #[test]
    fn a_later_grant_with_a_lower_baseline_has_breathing_room() {
        let closing =
            expire(&[grant(1, 12, 2, 3), grant(2, 14, 4, 10), grant(3, 10, 10, 5)], 15, 15);
        assert_eq!(expired(&closing), [0, 0, 5]);
        assert_eq!((raised(&closing, 1), raised(&closing, 2)), (Some(7), Some(10)));
    }

    #[test]
    fn what_is_not_due_stays_open_but_is_raised() {
        let grants = [
            grant(1, 10, 0, 1000),
            grant(2, 12, 100, 2000),
            grant(3, 14, 300, 6000),
            grant(4, 24, 500, 3000),
        ];
        let closing = expire(&grants, 4000, 15);
        assert_eq!(expired(&closing), [0, 0, 5000]);
        assert_eq!(
            (raised(&closing, 2), raised(&closing, 3), raised(&closing, 4)),
            (Some(1000), Some(3000), Some(4000))
        );
    }

    #[test]
    fn one_long_grant_and_many_short_ones() {
        let grants = [
            grant(1, 14, 0, 1000),
            grant(2, 1, 100, 100),
            grant(3, 2, 300, 100),
            grant(4, 3, 500, 100),
            grant(5, 4, 700, 100),
        ];
        let closing = expire(&grants, 1000, 15);
        assert_eq!(expired(&closing), [0, 0, 0, 0, 400]);
        assert_eq!(raised(&closing, 1), Some(400));
    }

    #[test]
    fn a_tie_is_split_by_its_order_and_sums_the_same() {
        let tie = |first, second| expire(&[first, second, grant(3, 20, 60, 100)], 120, 15);
        let one = tie(grant(1, 10, 0, 100), grant(2, 10, 50, 100));
        let other = tie(grant(2, 10, 0, 100), grant(1, 10, 50, 100));
        assert_eq!(expired(&one), [0, 80]);
        assert_eq!(expired(&other), [30, 50]);
        assert_eq!((raised(&one, 3), raised(&other, 3)), (Some(120), Some(120)));
    }

    #[test]
    fn usage_after_an_expiry_does_not_count_for_it() {
        let grants = [grant(1, 10, 2, 10), grant(2, 20, 5, 5)];
        let at = [(Instant(10), 7), (Instant(20), 8)];
        let closing = close(&grants, 2, &at);
        assert_eq!(expired(&closing), [5, 4]);
        assert_eq!(raised(&closing, 2), Some(7));
    }

    #[test]
    fn what_expired_is_added_up_and_never_wraps() {
        let closing = expire(&[grant(1, 10, 0, 100), grant(2, 11, 0, 40)], 30, 15);
        assert_eq!((expired(&closing), closing.expired()), (vec![70, 40], Ok(110)));
        assert_eq!(Closing::default().expired(), Ok(0));
        assert_eq!(sum([i64::MAX, 1, -1].into_iter()), Ok(i64::MAX));
        assert!(sum([i64::MAX, 1].into_iter()).is_err());
    }

    #[test]
    fn a_baseline_that_is_not_moved_is_not_written() {
        // The first claims [0, 50), just up to where the second begins.
        let closing = expire(&[grant(1, 10, 0, 50), grant(2, 20, 50, 100)], 60, 10);
        assert_eq!((expired(&closing), raised(&closing, 2)), (vec![0], None));
        let closing = expire(&[grant(1, 10, 0, 51), grant(2, 20, 50, 100)], 60, 10);
        assert_eq!((expired(&closing), raised(&closing, 2)), (vec![0], Some(51)));
    }

    prop_compose! {
        fn any_grants()(
            parts in prop::collection::vec((0..40_i64, 0..2_000_i64, 1..1_000_i64), 1..12)
        ) -> Vec<OpenGrant> {
            let mut grants: Vec<_> = parts
                .into_iter()
                .zip(1..)
                .map(|((expiry, baseline, amount), number)| grant(number, expiry, baseline, amount))
                .collect();
            sort(&mut grants);
            grants
        }
    }

    /// Usage before each day, growing from day to day.
    fn any_usage() -> impl Strategy<Value = Vec<i64>> {
        prop::collection::vec(0..200_i64, 41).prop_map(|days| {
            days.iter()
                .scan(0, |sum, day| {
                    *sum += day;
                    Some(*sum)
                })
                .collect()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]
        #[test]
        fn one_run_or_many_give_the_same_closures(
            grants in any_grants(), usage in any_usage(), stops in prop::collection::vec(0..40_i64, 0..6)
        ) {
            let at = |grants: &[OpenGrant]| -> Vec<(Instant, i64)> {
                grants.iter().map(|grant| (grant.expiry, usage[grant.expiry.0 as usize])).collect()
            };
            let late = close(&grants, due_count(&grants, Instant(40)), &at(&grants));

            let (mut open, mut closures) = (grants.clone(), Vec::new());
            let mut stops = stops;
            stops.sort_unstable();
            stops.push(40);
            for stop in stops {
                let due = due_count(&open, Instant(stop));
                let step = close(&open, due, &at(&open));
                open.drain(..due);
                for grant in &mut open {
                    grant.baseline = step.raised.get(&grant.id).copied().unwrap_or(grant.baseline);
                }
                closures.extend(step.closures);
            }
            prop_assert_eq!(closures, late.closures);
        }

        #[test]
        fn no_grant_expires_more_than_its_amount(grants in any_grants(), usage in any_usage()) {
            let at: Vec<_> = grants.iter().map(|grant| (grant.expiry, usage[grant.expiry.0 as usize])).collect();
            for (closure, grant) in close(&grants, grants.len(), &at).closures.iter().zip(&grants) {
                prop_assert!((0..=grant.amount).contains(&closure.expired));
                prop_assert_eq!(closure.claimed + closure.expired, grant.amount);
            }
        }

        #[test]
        fn no_usage_is_claimed_twice(grants in any_grants(), used in 0..3_000_i64) {
            let at: Vec<_> = grants.iter().map(|grant| (grant.expiry, used)).collect();
            let claimed: i64 = close(&grants, grants.len(), &at).closures.iter().map(|c| c.claimed).sum();
            prop_assert!(claimed <= used);
        }
    }
}
