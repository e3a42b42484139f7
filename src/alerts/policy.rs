//! When an hour is unusual, and when a window is above its threshold.

use crate::time::Instant;
use std::collections::BTreeMap;

/// So many completed hours make the picture of what is usual.
pub const HISTORY_HOURS: i64 = 168;
/// With fewer hours of an owner's own there is no picture yet.
const MINIMUM_HISTORY_HOURS: i64 = 24;
const PERCENTILE: i64 = 95;
const MULTIPLIER: i64 = 3;
/// Below this no hour is unusual, whatever came before it.
pub const FLOOR_MICRODOLLARS: i64 = 10_000_000;
const STARTER_FLOOR_MICRODOLLARS: i64 = 25_000_000;

/// What is known of an owner's completed hours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// The hour of the first spend of either category.
    pub first_spend_hour: Option<Instant>,
    /// An hour without rows is zero from here on, and unknown before.
    pub known_from: Option<Instant>,
    /// Variable spend of the hours that have rows of either category.
    pub variable: BTreeMap<Instant, i64>,
}

/// How much an hour may cost before it is unusual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnomalyPolicy {
    pub history_hours: i64,
    pub baseline: i64,
    pub threshold: i64,
}

impl AnomalyPolicy {
    pub fn mode(self) -> &'static str {
        if self.history_hours < MINIMUM_HISTORY_HOURS { "starter" } else { "history" }
    }
}

impl History {
    /// An hour's variable spend; None when nothing is known of it.
    pub fn variable_of(&self, hour: Instant) -> Option<i64> {
        let is_known = self.known_from.is_some_and(|known_from| known_from <= hour);
        self.variable.get(&hour).copied().or(is_known.then_some(0))
    }

    /// What is usual before an hour: the 95th percentile, by nearest rank, of the owner's known
    /// hours among the 168 before it.
    pub fn policy_for(&self, hour: Instant) -> AnomalyPolicy {
        let first = hour.plus_hours(-HISTORY_HOURS).max(self.first_spend_hour.unwrap_or(hour));
        let with_rows = || self.variable.range(first..hour.max(first));
        let known_from =
            self.known_from.unwrap_or(hour).clamp(first, hour.max(first)).hour_ceiling();
        let unknown_with_rows = with_rows().filter(|(at, _)| **at < known_from).count();
        let history_hours = hours_between(known_from, hour) + count(unknown_with_rows);
        if history_hours < MINIMUM_HISTORY_HOURS {
            return AnomalyPolicy {
                history_hours,
                baseline: 0,
                threshold: STARTER_FLOOR_MICRODOLLARS,
            };
        }
        let mut amounts: Vec<i64> = with_rows().map(|(_, amount)| *amount).collect();
        amounts.sort_unstable();
        let baseline = nearest_rank(&amounts, history_hours);
        let threshold = baseline.saturating_mul(MULTIPLIER).max(FLOOR_MICRODOLLARS);
        AnomalyPolicy { history_hours, baseline, threshold }
    }

    /// Whether some hour after `hour` and before `until` is known and was not unusual.
    pub fn has_calmed_down(&self, hour: Instant, until: Instant) -> bool {
        (1..=hours_between(hour, until) - 1)
            .map(|hours| hour.plus_hours(hours))
            .filter_map(|later| Some((later, self.variable_of(later)?)))
            .any(|(later, amount)| {
                amount < FLOOR_MICRODOLLARS || amount < self.policy_for(later).threshold
            })
    }
}

/// The percentile of `hours` amounts, of which those that are not listed are zero. The list is
/// sorted; nothing in it is negative.
fn nearest_rank(amounts: &[i64], hours: i64) -> i64 {
    let rank = (PERCENTILE * hours + 99) / 100;
    let zeros = hours - count(amounts.len());
    usize::try_from(rank - zeros - 1)
        .ok()
        .and_then(|place| amounts.get(place))
        .map_or(0, |&amount| amount)
}

fn hours_between(from: Instant, to: Instant) -> i64 {
    ((to.0 - from.0) / crate::time::MICROSECONDS_PER_HOUR).max(0)
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// What an evaluation of one window leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Nothing,
    Fire,
    Recover,
}

/// One window's state machine: it fires on the way up, and can do so again once the total has been
/// seen below. A window that was never evaluated counts as below.
pub fn step(total: i64, threshold: i64, is_active: bool) -> Step {
    match (total >= threshold, is_active) {
        (true, false) => Step::Fire,
        (false, true) => Step::Recover,
        _ => Step::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    const USD: i64 = 1_000_000;

    fn noon() -> Instant {
        utc(2026, 6, 15, 12, 0)
    }

    /// The hours before noon, oldest first, all of them known.
    fn hours(amounts: &[i64]) -> History {
        let first = noon().plus_hours(-count(amounts.len()));
        let variable: BTreeMap<Instant, i64> = (0..)
            .zip(amounts)
            .filter(|(_, amount)| **amount != 0)
            .map(|(hour, &amount)| (first.plus_hours(hour), amount))
            .collect();
        History { first_spend_hour: Some(first), known_from: Some(Instant(0)), variable }
    }

    fn policy(amounts: &[i64]) -> (i64, i64, i64) {
        let policy = hours(amounts).policy_for(noon());
        (policy.history_hours, policy.baseline / USD, policy.threshold / USD)
    }

    #[test]
    fn the_baseline_is_the_95th_percentile_by_nearest_rank() {
        let rising = |hours: i64| (1..=hours).map(|usd| usd * USD).collect::<Vec<_>>();
        assert_eq!(policy(&rising(100)), (100, 95, 285));
        assert_eq!(policy(&rising(24)), (24, 23, 69));
        assert_eq!(policy(&rising(25)), (25, 24, 72));
        assert_eq!(policy(&rising(167)), (167, 159, 477));
        assert_eq!(policy(&rising(168)), (168, 160, 480));
        // Of 200 hours only the last 168 count: 33 … 200.
        assert_eq!(policy(&rising(200)), (168, 192, 576));
    }

    #[test]
    fn a_new_owner_has_one_floor_and_a_quiet_old_one_another() {
        assert_eq!(policy(&[USD; 23]), (23, 0, 25));
        assert_eq!(policy(&[USD; 24]), (24, 1, 10));
        assert_eq!(policy(&[]), (0, 0, 25));
        let mut quiet = vec![0; 168];
        quiet[0] = 500 * USD;
        assert_eq!(policy(&quiet), (168, 0, 10));
        assert_eq!(hours(&[USD; 23]).policy_for(noon()).mode(), "starter");
        assert_eq!(hours(&quiet).policy_for(noon()).mode(), "history");
        assert_eq!(hours(&[USD; 24]).policy_for(noon()).mode(), "history");
    }

    #[test]
    fn zeros_count_and_unknown_hours_do_not() {
        // 100 hours of the owner's own, 40 of them with 7 USD.
        let amounts: Vec<i64> =
            (0..100).map(|hour| if hour % 5 < 2 { 7 * USD } else { 0 }).collect();
        let mut history = hours(&amounts);
        assert_eq!(history.policy_for(noon()).history_hours, 100);
        // Known only from the last 30 on; before that, only hours with rows are.
        history.known_from = Some(noon().plus_hours(-30));
        assert_eq!(history.policy_for(noon()).history_hours, 30 + 28);
        assert_eq!(history.variable_of(noon().plus_hours(-1)), Some(0));
        assert_eq!(history.variable_of(noon().plus_hours(-31)), None);
        history.known_from = None;
        assert_eq!(history.policy_for(noon()).history_hours, 40);
    }

    #[test]
    fn the_evaluated_hour_is_no_part_of_its_own_history() {
        let mut history = hours(&[USD; 30]);
        history.variable.insert(noon(), 900 * USD);
        assert_eq!(history.policy_for(noon()).baseline, USD);
        assert_eq!(history.policy_for(noon().plus_hours(1)).history_hours, 31);
    }

    #[test]
    fn an_episode_ends_with_the_first_hour_that_is_not_unusual() {
        let mut history = hours(&[USD; 30]);
        history.variable.insert(noon(), 50 * USD);
        let calmed =
            |history: &History, hours| history.has_calmed_down(noon(), noon().plus_hours(hours));
        assert!(!calmed(&history, 1));
        assert!(calmed(&history, 2));
        history.variable.insert(noon().plus_hours(1), 10 * USD);
        assert!(!calmed(&history, 2));
        history.variable.insert(noon().plus_hours(1), 10 * USD - 1);
        assert!(calmed(&history, 2));
        // An hour of which nothing is known does not end it.
        history.variable.remove(&noon().plus_hours(1));
        history.known_from = Some(noon().plus_hours(2));
        assert!(!calmed(&history, 2));
        assert!(calmed(&history, 3));
    }

    #[test]
    fn a_window_fires_once_until_it_was_below() {
        assert_eq!(step(25_499_999, 25_500_000, false), Step::Nothing);
        assert_eq!(step(25_500_000, 25_500_000, false), Step::Fire);
        assert_eq!(step(99_000_000, 25_500_000, true), Step::Nothing);
        assert_eq!(step(25_499_999, 25_500_000, true), Step::Recover);
    }

    proptest! {
        #[test]
        fn the_percentile_is_that_of_the_whole_sorted_list(
            amounts in prop::collection::vec(0..300_i64, 24..168)
        ) {
            let in_usd: Vec<i64> = amounts.iter().map(|usd| usd * USD).collect();
            let mut sorted = in_usd.clone();
            sorted.sort_unstable();
            let rank = (sorted.len() * 95).div_ceil(100);
            let found = hours(&in_usd).policy_for(noon());
            prop_assert_eq!(found.baseline, sorted[rank - 1]);
            prop_assert_eq!(found.threshold, (3 * found.baseline).max(10 * USD));
        }

        #[test]
        fn nothing_panics_at_the_ends_of_time(
            first in prop::option::of(-200_000_000_000_000_000..i64::MAX - 1),
            known in prop::option::of(any::<i64>()),
            amount: i64,
        ) {
            let history = History {
                first_spend_hour: first.map(Instant),
                known_from: known.map(Instant),
                variable: first.map(|first| (Instant(first), amount)).into_iter().collect(),
            };
            let policy = history.policy_for(noon());
            prop_assert!((0..=HISTORY_HOURS).contains(&policy.history_hours));
            prop_assert!(policy.threshold >= FLOOR_MICRODOLLARS);
        }
    }
}
