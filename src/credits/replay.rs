//! The rules of recomputing: what every baseline should be, from the journals and the closures
//! that were recorded.
//!
//! A closed grant claimed what its closing row left over. Replaying that, and never today's usage,
//! is what keeps later grants from being pushed too far.

use crate::time::Instant;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A credit transaction as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transaction {
    pub id: Uuid,
    pub amount: i64,
    pub created_at: Instant,
    pub recorded_at: Instant,
    pub expiry: Option<Instant>,
    pub original_baseline: i64,
    pub expiration_baseline: Option<i64>,
    /// On a closing row: the grant it closes.
    pub closes: Option<Uuid>,
}

/// What a transaction's baselines should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baselines {
    pub original: i64,
    pub expiration: Option<i64>,
}

/// The baselines of all transactions, in their order. `usage_before[i]` is the journals' usage
/// strictly before transaction `i`.
pub fn baselines(transactions: &[Transaction], usage_before: &[i64]) -> Vec<Baselines> {
    let mut result: Vec<Baselines> = transactions
        .iter()
        .zip(usage_before)
        .map(|(transaction, &original)| Baselines {
            original,
            expiration: transaction.expiry.map(|_| original),
        })
        .collect();
    let position: BTreeMap<Uuid, usize> = transactions
        .iter()
        .enumerate()
        .map(|(index, transaction)| (transaction.id, index))
        .collect();

    let closed = closures_in_order(transactions, &position);
    let open_ended = (0..transactions.len())
        .filter(|&index| transactions[index].expiry.is_some())
        .filter(|index| !closed.iter().any(|(grant, _)| grant == index));
    let still_open: Vec<usize> = open_ended.collect();
    for (place, &(grant, closing)) in closed.iter().enumerate() {
        let claimed = transactions[grant].amount + transactions[closing].amount;
        let end = result[grant].expiration.unwrap_or_default().saturating_add(claimed);
        let closed_later = closed[place + 1..].iter().map(|&(other, _)| other);
        for other in closed_later.chain(still_open.iter().copied()) {
            if transactions[other].created_at > transactions[closing].created_at {
                continue;
            }
            if let Some(baseline) = &mut result[other].expiration {
                *baseline += claimed.min(end.saturating_sub(*baseline)).max(0);
            }
        }
    }
    result
}

/// Pairs of grant and closing row, in the order in which they were closed.
fn closures_in_order(
    transactions: &[Transaction],
    position: &BTreeMap<Uuid, usize>,
) -> Vec<(usize, usize)> {
    let mut closures: Vec<(usize, usize)> = transactions
        .iter()
        .enumerate()
        .filter_map(|(closing, transaction)| {
            let grant = *position.get(&transaction.closes?)?;
            transactions[grant].expiry.map(|_| (grant, closing))
        })
        .collect();
    closures.sort_by_key(|&(grant, closing)| {
        let grant = &transactions[grant];
        (transactions[closing].created_at, grant.expiry, grant.created_at, grant.id)
    });
    closures
}

/// Closure dates in order, and for each the earliest instant at which that closure or a later
/// dated one was recorded: a charge dated before the one and recorded after the other came late.
pub fn late_marks(transactions: &[Transaction]) -> (Vec<Instant>, Vec<Instant>) {
    let mut closures: Vec<(Instant, Instant)> = transactions
        .iter()
        .filter(|transaction| transaction.closes.is_some())
        .map(|transaction| (transaction.created_at, transaction.recorded_at))
        .collect();
    closures.sort_unstable();
    let mut earliest = Instant(i64::MAX);
    for (_, recorded_at) in closures.iter_mut().rev() {
        earliest = earliest.min(*recorded_at);
        *recorded_at = earliest;
    }
    closures.into_iter().unzip()
}

/// Adds usage up between instants, and counts what came late. Instants and closures are sorted, the
/// latter as `late_marks` gives them.
pub struct Tally<'a> {
    instants: &'a [Instant],
    closed_at: &'a [Instant],
    closed_by: &'a [Instant],
    /// `slots[i]` is what lies before instant `i` and not before the one in front of it.
    slots: Vec<i128>,
    pub late_arrivals: i64,
}

impl<'a> Tally<'a> {
    pub fn new(
        instants: &'a [Instant],
        closed_at: &'a [Instant],
        closed_by: &'a [Instant],
    ) -> Self {
        let slots = vec![0; instants.len() + 1];
        Self { instants, closed_at, closed_by, slots, late_arrivals: 0 }
    }

    /// A charge at an instant counts as after it.
    pub fn charge(&mut self, created_at: Instant, recorded_at: Instant, amount: i64) {
        let slot = self.instants.partition_point(|instant| *instant <= created_at);
        self.slots[slot] += i128::from(amount);
        let next_closure = self.closed_at.partition_point(|closed| *closed <= created_at);
        if self.closed_by.get(next_closure).is_some_and(|by| recorded_at > *by) {
            self.late_arrivals += 1;
        }
    }

    /// What was added up elsewhere; `slot` counts the instants that it does not lie before.
    pub fn add(&mut self, slot: usize, amount: i64) {
        self.slots[slot] += i128::from(amount);
    }

    /// The usage strictly before each instant, and all of it.
    pub fn sums(self) -> (Vec<i128>, i128) {
        let mut sum = 0;
        let mut sums: Vec<i128> = self
            .slots
            .into_iter()
            .map(|amount| {
                sum += amount;
                sum
            })
            .collect();
        sums.pop();
        (sums, sum)
    }
}

/// When the next open grant expires.
pub fn next_expiration(transactions: &[Transaction]) -> Option<Instant> {
    let closed: std::collections::BTreeSet<Uuid> =
        transactions.iter().filter_map(|transaction| transaction.closes).collect();
    transactions
        .iter()
        .filter(|transaction| !closed.contains(&transaction.id))
        .filter_map(|transaction| transaction.expiry)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credits::expiration::{self, OpenGrant};
    use proptest::prelude::*;

    fn transaction(number: u128, amount: i64, day: i64, expiry: Option<i64>) -> Transaction {
        Transaction {
            id: Uuid::from_u128(number),
            amount,
            created_at: Instant(day),
            recorded_at: Instant(day),
            expiry: expiry.map(Instant),
            original_baseline: 0,
            expiration_baseline: expiry.map(|_| 0),
            closes: None,
        }
    }

    fn closing(number: u128, amount: i64, day: i64, grant: u128) -> Transaction {
        Transaction {
            closes: Some(Uuid::from_u128(grant)),
            ..transaction(number, amount, day, None)
        }
    }

    fn usage_before(transactions: &[Transaction], usage: &[(i64, i64)]) -> Vec<i64> {
        transactions
            .iter()
            .map(|transaction| {
                let before = usage.iter().filter(|(day, _)| Instant(*day) < transaction.created_at);
                before.map(|(_, amount)| amount).sum()
            })
            .collect()
    }

    fn recomputed(transactions: &[Transaction], usage: &[(i64, i64)]) -> Vec<(i64, Option<i64>)> {
        baselines(transactions, &usage_before(transactions, usage))
            .into_iter()
            .map(|baselines| (baselines.original, baselines.expiration))
            .collect()
    }

    #[test]
    fn closed_grants_claim_what_was_recorded_not_todays_usage() {
        // A 10 on day 1, expired with 3 left on day 20; B 10 on day 8; C 5 on day 25.
        let history = [
            transaction(1, 10, 1, Some(20)),
            transaction(2, 10, 8, Some(60)),
            closing(3, -3, 20, 1),
            transaction(4, 5, 25, Some(90)),
        ];
        let usage = [(3, 2), (6, 4), (15, 1), (26, 2), (28, 1)];
        assert_eq!(
            recomputed(&history, &usage),
            [(0, Some(0)), (6, Some(7)), (7, None), (7, Some(7))]
        );
    }

    #[test]
    fn usage_at_the_very_instant_counts_as_after_it() {
        let history = [
            transaction(1, 500, 2, Some(10)),
            transaction(2, 300, 3, Some(15)),
            closing(3, -100, 10, 1),
            closing(4, -300, 15, 2),
            transaction(5, 200, 20, None),
        ];
        let usage = [(1, 100), (3, 400)];
        assert_eq!(
            recomputed(&history, &usage),
            [(100, Some(100)), (100, Some(500)), (500, None), (500, None), (500, None)]
        );
    }

    #[test]
    fn a_grant_closed_out_early_does_not_pull_in_what_expires_later() {
        // 10 expiring on day 900 closed out with -9 on day 5, at usage 1; two more follow.
        let history = [
            transaction(1, 10, 0, Some(900)),
            closing(2, -9, 5, 1),
            transaction(3, 9, 6, Some(60)),
            transaction(4, 10, 6, Some(120)),
        ];
        let usage = [(1, 1), (30, 2)];
        assert_eq!(
            recomputed(&history, &usage),
            [(0, Some(0)), (1, None), (1, Some(1)), (1, Some(1))]
        );
    }

    /// Usage that an attached table has taken back, so that what was claimed is no longer there.
    #[test]
    fn a_closing_row_raises_no_grant_that_came_after_it() {
        for (granted, baseline) in [(9, 10), (10, 10), (11, 0)] {
            let history = [
                transaction(1, 10, 0, Some(10)),
                closing(2, 0, 10, 1),
                transaction(3, 10, granted, Some(30)),
            ];
            let found = recomputed(&history, &[])[2];
            assert_eq!(found, (0, Some(baseline)), "granted on day {granted}");
        }
    }

    #[test]
    fn the_next_expiry_is_that_of_an_open_grant() {
        let history = [
            transaction(1, 10, 0, Some(10)),
            transaction(2, 10, 1, Some(30)),
            transaction(3, 10, 2, Some(20)),
            transaction(4, 10, 3, None),
            closing(5, -10, 10, 1),
        ];
        assert_eq!(next_expiration(&history), Some(Instant(20)));
        assert_eq!(next_expiration(&history[..1]), Some(Instant(10)));
        assert_eq!(next_expiration(&history[3..]), None);
    }

    #[test]
    fn late_marks_look_to_all_later_dated_closures() {
        let late =
            |day, recorded| Transaction { recorded_at: Instant(recorded), ..closing(1, 0, day, 9) };
        let (dates, marks) = late_marks(&[late(10, 50), late(20, 21), late(30, 31)]);
        assert_eq!(dates, [Instant(10), Instant(20), Instant(30)]);
        assert_eq!(marks, [Instant(21), Instant(21), Instant(31)]);
    }

    proptest! {
        #[test]
        fn a_tally_is_what_adding_up_for_each_instant_would_be(
            mut instants in prop::collection::vec(0..20_i64, 0..8),
            closures in prop::collection::vec((0..20_i64, 0..40_i64), 0..6),
            charges in prop::collection::vec((0..22_i64, 0..45_i64, -9..9_i64), 0..30),
        ) {
            instants.sort_unstable();
            let instants: Vec<Instant> = instants.into_iter().map(Instant).collect();
            let recorded = |&(day, at)| Transaction { recorded_at: Instant(at), ..closing(1, 0, day, 9) };
            let closures: Vec<Transaction> = closures.iter().map(recorded).collect();
            let (closed_at, closed_by) = late_marks(&closures);
            let mut tally = Tally::new(&instants, &closed_at, &closed_by);
            for &(at, recorded_at, amount) in &charges {
                tally.charge(Instant(at), Instant(recorded_at), amount);
            }
            let late = charges.iter().filter(|&&(at, recorded_at, _)| {
                closures.iter().any(|closing| {
                    closing.created_at > Instant(at) && closing.recorded_at < Instant(recorded_at)
                })
            });
            prop_assert_eq!(tally.late_arrivals, i64::try_from(late.count()).unwrap());
            let sum = |end: i64| -> i128 {
                let before = charges.iter().filter(|(at, ..)| *at < end);
                before.map(|(.., amount)| i128::from(*amount)).sum()
            };
            let (before, total) = tally.sums();
            prop_assert_eq!(before, instants.iter().map(|instant| sum(instant.0)).collect::<Vec<_>>());
            prop_assert_eq!(total, sum(i64::MAX));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Grants and usage at random, expired at random moments as the product does it: replaying
        /// the recorded closures gives exactly the baselines that are stored.
        #[test]
        fn recomputing_an_undamaged_history_changes_nothing(
            grants in prop::collection::vec((0..30_i64, 1..40_i64, 1..500_i64), 1..8),
            usage in prop::collection::vec((0..60_i64, 1..200_i64), 0..30),
            stops in prop::collection::vec(1..60_i64, 0..6),
        ) {
            let used_before = |day: i64| -> i64 {
                usage.iter().filter(|(at, _)| *at < day).map(|(_, amount)| amount).sum()
            };
            let mut history: Vec<Transaction> = Vec::new();
            let mut open: Vec<OpenGrant> = Vec::new();
            let mut grants: Vec<(i64, i64, i64)> = grants;
            grants.sort_unstable();
            let mut stops = stops;
            stops.sort_unstable();
            stops.push(70);
            let mut waiting = grants.into_iter().zip(1_u128..).peekable();
            for stop in stops {
                while let Some(((day, lifetime, amount), number)) = waiting.next_if(|((day, ..), _)| *day <= stop) {
                    let baseline = used_before(day);
                    let mut granted = transaction(number, amount, day, Some(day + lifetime));
                    (granted.original_baseline, granted.expiration_baseline) = (baseline, Some(baseline));
                    history.push(granted);
                    open.push(OpenGrant {
                        id: granted.id, amount, baseline,
                        expiry: Instant(day + lifetime), created_at: Instant(day),
                    });
                }
                expiration::sort(&mut open);
                let due = expiration::due_count(&open, Instant(stop));
                let at: Vec<_> = open.iter().map(|grant| (grant.expiry, used_before(grant.expiry.0))).collect();
                let step = expiration::close(&open, due, &at);
                open.drain(..due);
                for grant in &mut open {
                    grant.baseline = step.raised.get(&grant.id).copied().unwrap_or(grant.baseline);
                }
                for stored in &mut history {
                    if let Some(raised) = step.raised.get(&stored.id) {
                        stored.expiration_baseline = Some(*raised);
                    }
                }
                for closure in &step.closures {
                    let number = 1_000 + closure.grant.as_u128();
                    let mut row = closing(number, -closure.expired, closure.at.0, closure.grant.as_u128());
                    row.original_baseline = closure.usage_before;
                    history.push(row);
                }
            }
            history.sort_by_key(|transaction| transaction.created_at);
            let stored: Vec<_> = history
                .iter()
                .map(|t| (t.original_baseline, t.expiration_baseline))
                .collect();
            prop_assert_eq!(recomputed(&history, &usage), stored);
        }
    }
}
