//! Which parts of a window the rollups answer for, and which are read from the journals.

use crate::rollups::Coverage;
use crate::time::{Instant, MICROSECONDS_PER_HOUR};

/// `[from, to)`; empty when they are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval {
    pub from: Instant,
    pub to: Instant,
}

impl Interval {
    /// The starts of the UTC hours it touches.
    pub fn hours(self) -> impl Iterator<Item = Instant> {
        let first = self.from.hour_start();
        (0..self.hour_count()).map(move |hour| first.plus_hours(hour))
    }

    /// How many UTC hours it touches.
    pub fn hour_count(self) -> i64 {
        let (first, end) = (self.from.hour_start(), self.to.hour_ceiling());
        if self.from < self.to { (end.0 - first.0) / MICROSECONDS_PER_HOUR } else { 0 }
    }

    /// The UTC days that lie in it whole; empty, at its end, where there is none.
    pub fn whole_days(self) -> Interval {
        let (from, to) = (self.from.day_ceiling(), self.to.day_start());
        if from < to { Interval { from, to } } else { Interval { from: self.to, to: self.to } }
    }

    pub fn cut_to(self, other: Interval) -> Interval {
        let from = self.from.max(other.from);
        Interval { from, to: self.to.min(other.to).max(from) }
    }
}

/// A window, taken apart: both kinds together are the window, each instant once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    /// Whole hours that are covered, in order; they do not touch.
    pub rolled: Vec<Interval>,
    /// The rest, in order: partial hours at the ends, hours before coverage, degraded hours.
    pub direct: Vec<Interval>,
}

impl Parts {
    pub fn of(window: Interval, coverage: &Coverage) -> Self {
        let mut rolled = Vec::new();
        let mut take = |from: Instant, to: Instant| {
            if from < to {
                rolled.push(Interval { from, to });
            }
        };
        let mut at = window.from.max(coverage.known_from).hour_ceiling();
        let end = window.to.hour_start();
        for degraded in &coverage.degraded {
            take(at, degraded.from.min(end));
            at = at.max(degraded.to);
        }
        take(at, end);
        let direct = gaps(window, &rolled);
        Self { rolled, direct }
    }

    /// What of them lies in these whole hours.
    pub fn cut_to(&self, hours: Interval) -> Self {
        let cut = |parts: &[Interval]| {
            let parts = parts.iter().map(|part| part.cut_to(hours));
            parts.filter(|part| part.from < part.to).collect()
        };
        Self { rolled: cut(&self.rolled), direct: cut(&self.direct) }
    }

    /// The rolled hours as one ascending list of instants: what lies behind an odd number of them
    /// is inside.
    pub fn edges(&self) -> Vec<Instant> {
        self.rolled.iter().flat_map(|hours| [hours.from, hours.to]).collect()
    }
}

/// What is left of the window between the parts that were taken.
fn gaps(window: Interval, taken: &[Interval]) -> Vec<Interval> {
    let starts = std::iter::once(window.from).chain(taken.iter().map(|part| part.to));
    let ends = taken.iter().map(|part| part.from).chain(std::iter::once(window.to));
    starts
        .zip(ends)
        .map(|(from, to)| Interval { from, to })
        .filter(|gap| gap.from < gap.to)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollups::Hours;
    use crate::time::utc;
    use proptest::prelude::*;

    const MINUTE: i64 = MICROSECONDS_PER_HOUR / 60;

    fn interval(from: i64, to: i64) -> Interval {
        Interval { from: Instant(from * MINUTE), to: Instant(to * MINUTE) }
    }

    fn coverage(known_from: Instant, degraded: &[(i64, i64)]) -> Coverage {
        let hour = |hour: i64| Instant(0).plus_hours(hour);
        let degraded = degraded.iter().map(|&(from, to)| Hours { from: hour(from), to: hour(to) });
        Coverage { known_from, degraded: degraded.collect() }
    }

    #[test]
    fn whole_days_are_those_of_utc() {
        let day = |day| utc(2026, 6, day, 0, 0);
        let of = |from, to| Interval { from, to }.whole_days();
        let days = Interval { from: day(2), to: day(4) };
        assert_eq!(of(utc(2026, 6, 1, 1, 0), utc(2026, 6, 4, 23, 0)), days);
        assert_eq!(of(day(2), day(4)), days);
        let (noon, night) = (utc(2026, 6, 1, 12, 0), utc(2026, 6, 2, 12, 0));
        assert_eq!(of(noon, night), Interval { from: night, to: night });
    }

    #[test]
    fn partial_hours_at_both_ends_are_read_from_the_journals() {
        let day_before = Interval { from: utc(2026, 6, 1, 12, 30), to: utc(2026, 6, 2, 12, 30) };
        let parts = Parts::of(day_before, &coverage(utc(2026, 1, 1, 0, 0), &[]));
        let (one, two) = (utc(2026, 6, 1, 13, 0), utc(2026, 6, 2, 12, 0));
        assert_eq!(parts.rolled, [Interval { from: one, to: two }]);
        let (head, tail) = (
            Interval { from: day_before.from, to: one },
            Interval { from: two, to: day_before.to },
        );
        assert_eq!(parts.direct, [head, tail]);
    }

    #[test]
    fn what_is_not_covered_joins_the_partial_hours() {
        let parts = |known, degraded: &[(i64, i64)]| {
            Parts::of(interval(30, 270), &coverage(Instant(known * MINUTE), degraded))
        };
        let both = |rolled: &[Interval], direct: &[Interval]| Parts {
            rolled: rolled.to_vec(),
            direct: direct.to_vec(),
        };
        let hour = |from: i64, to: i64| interval(from * 60, to * 60);
        assert_eq!(parts(120, &[]), both(&[hour(2, 4)], &[interval(30, 120), interval(240, 270)]));
        assert_eq!(
            parts(0, &[(0, 3)]),
            both(&[hour(3, 4)], &[interval(30, 180), interval(240, 270)])
        );
        assert_eq!(parts(0, &[(-5, 99)]), both(&[], &[interval(30, 270)]));
        assert_eq!(parts(i64::MAX / MINUTE, &[]), both(&[], &[interval(30, 270)]));
        let nothing = Coverage { known_from: Instant(i64::MAX), degraded: Vec::new() };
        assert_eq!(Parts::of(interval(0, 60), &nothing), both(&[], &[interval(0, 60)]));
        assert_eq!(Parts::of(interval(30, 30), &nothing), both(&[], &[]));
        assert_eq!(
            Parts::of(interval(70, 80), &coverage(Instant(0), &[])),
            both(&[], &[interval(70, 80)])
        );
    }

    #[test]
    fn behind_an_odd_number_of_edges_lies_what_is_rolled_up() {
        let hour = |hour: i64| Instant(0).plus_hours(hour);
        let parts = Parts::of(interval(30, 570), &coverage(hour(2), &[(4, 6)]));
        assert_eq!(parts.edges(), [2, 4, 6, 9].map(hour));
        assert_eq!(Parts::of(interval(30, 50), &coverage(hour(0), &[])).edges(), []);
    }

    #[test]
    fn hours_are_those_a_window_touches() {
        let starts =
            |from, to| interval(from, to).hours().map(|hour| hour.0 / MINUTE).collect::<Vec<_>>();
        assert_eq!(starts(30, 121), [0, 60, 120]);
        assert_eq!(starts(60, 120), [60]);
        assert_eq!(starts(-1, 1), [-60, 0]);
        assert!(starts(30, 30).is_empty());
    }

    proptest! {
        #[test]
        fn parts_are_the_window_and_rolled_ones_are_whole_covered_hours(
            from in -2_000..2_000_i64,
            minutes in 0..3_000_i64,
            known in -50..50_i64,
            mut degraded in prop::collection::vec(-40..80_i64, 0..8),
        ) {
            let window = interval(from, from + minutes);
            degraded.sort_unstable();
            degraded.dedup();
            let degraded: Vec<_> = degraded.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
            let coverage = coverage(Instant(0).plus_hours(known), &degraded);
            let parts = Parts::of(window, &coverage);

            let mut all: Vec<_> = parts.rolled.iter().chain(&parts.direct).copied().collect();
            all.sort_unstable();
            let mut at = window.from;
            for part in &all {
                prop_assert_eq!(part.from, at);
                prop_assert!(part.from < part.to);
                at = part.to;
            }
            prop_assert_eq!(at, window.to);
            prop_assert!(parts.rolled.is_sorted() && parts.direct.is_sorted());
            for hours in &parts.rolled {
                prop_assert_eq!((hours.from, hours.to), (hours.from.hour_start(), hours.to.hour_start()));
                prop_assert!(hours.hours().all(|hour| coverage.covers(hour)));
            }
            let inner = Interval { from: window.from.hour_ceiling(), to: window.to.hour_start() };
            if inner.from < inner.to {
                prop_assert_eq!(parts.cut_to(inner), Parts::of(inner, &coverage));
            }
            // Nothing is read from the journals that the rollups could have told.
            for part in &parts.direct {
                let whole = Interval { from: part.from.hour_ceiling(), to: part.to.hour_start() };
                prop_assert!(whole.hours().all(|hour| !coverage.covers(hour)));
            }
            prop_assert!(parts.edges().is_sorted_by(|a, b| a < b));
        }
    }
}
