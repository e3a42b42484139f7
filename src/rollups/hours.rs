//! Whole UTC hours: ranges given as arguments, how they meet, and how a long one is cut up.

use crate::error::{BillingError, Result};
use crate::time::{self, Day, Instant, MICROSECONDS_PER_HOUR, Month};
use std::collections::BTreeSet;

/// Whole UTC hours `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hours {
    pub from: Instant,
    pub to: Instant,
}

impl Hours {
    /// Out of the arguments `from_hour` and `to_hour`: exact UTC hours, at least one.
    pub fn parse(from_hour: Option<Instant>, to_hour: Option<Instant>) -> Result<Self> {
        let from = time::exact_hour("from_hour", from_hour)?;
        let hours = Self { from, to: time::exact_hour("to_hour", to_hour)? };
        if hours.to <= hours.from {
            return Err(BillingError::invalid("to_hour must be after from_hour")
                .detail(format!("from_hour is {}, to_hour is {}.", hours.from, hours.to)));
        }
        Ok(hours)
    }

    pub fn count(self) -> i64 {
        // Each for itself: the difference may be beyond the range of numbers.
        self.to.0 / MICROSECONDS_PER_HOUR - self.from.0 / MICROSECONDS_PER_HOUR
    }

    pub fn contains(self, hour_start: Instant) -> bool {
        self.from <= hour_start && hour_start < self.to
    }

    /// Whether the two overlap or touch.
    pub fn meets(self, other: Self) -> bool {
        self.from <= other.to && other.from <= self.to
    }

    /// Both, and whatever lies between them.
    pub fn joined(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.max(other.to) }
    }

    /// The hours of both; None when there are none.
    pub fn common(self, other: Self) -> Option<Self> {
        let common = Self { from: self.from.max(other.from), to: self.to.min(other.to) };
        (common.from < common.to).then_some(common)
    }

    pub fn of_month(month: Month) -> Result<Self> {
        Ok(Self { from: month.start(), to: month.next()?.start() })
    }

    /// The whole UTC days that these hours touch.
    pub fn whole_days(self) -> Result<Self> {
        let (first, last) = (self.from.day()?, self.last_day()?);
        Ok(Self { from: first.start(), to: Day(last.0.saturating_add(1)).start() })
    }

    /// The day of the last of these hours.
    fn last_day(self) -> Result<Day> {
        self.to.plus_microseconds(-1).day()
    }
}

/// Sorted ranges, those that overlap or touch made one.
pub fn merged(sorted: Vec<Hours>) -> Vec<Hours> {
    let mut merged: Vec<Hours> = Vec::new();
    for hours in sorted {
        match merged.last_mut() {
            Some(last) if last.meets(hours) => *last = last.joined(hours),
            _ => merged.push(hours),
        }
    }
    merged
}

/// A new range as one with all those it meets, directly or by way of others; and which they are.
pub fn merged_with(new: Hours, present: &[Hours]) -> (Hours, BTreeSet<usize>) {
    let mut whole = new;
    let mut met = BTreeSet::new();
    loop {
        let before = met.len();
        for (place, hours) in present.iter().enumerate() {
            if whole.meets(*hours) {
                whole = whole.joined(*hours);
                met.insert(place);
            }
        }
        if met.len() == before {
            return (whole, met);
        }
    }
}

/// The next piece of work of a run that goes from the newest hour to the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    pub hours: Hours,
    /// False for a stretch that neither journals nor rollups have anything of.
    pub has_entries: bool,
}

/// The last day of what remains, or as much of it as remains; or, between the months that have
/// anything, all hours back to the one before: a range of centuries is not walked day by day.
pub fn newest_chunk(remaining: Hours, months: &BTreeSet<Month>) -> Result<Chunk> {
    let last_day = remaining.last_day()?;
    let last_month = last_day.month()?;
    let has_entries = months.contains(&last_month);
    let start = if has_entries {
        last_day.start()
    } else {
        match months.range(..last_month).next_back() {
            Some(earlier) => earlier.next()?.start(),
            None => remaining.from,
        }
    };
    let hours = Hours { from: start.max(remaining.from), to: remaining.to };
    Ok(Chunk { hours, has_entries })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    fn hours(from: i64, to: i64) -> Hours {
        Hours {
            from: Instant(from * MICROSECONDS_PER_HOUR),
            to: Instant(to * MICROSECONDS_PER_HOUR),
        }
    }

    #[test]
    fn a_range_is_made_of_exact_hours() {
        let (from, to) = (utc(2026, 11, 22, 5, 0), utc(2026, 11, 22, 7, 0));
        assert_eq!(Hours::parse(Some(from), Some(to)).unwrap().count(), 2);
        for (from, to, named) in [
            (None, Some(to), "from_hour"),
            (Some(from), None, "to_hour"),
            (Some(utc(2026, 11, 22, 5, 1)), Some(to), "from_hour"),
            (Some(from), Some(to.plus_microseconds(-1)), "to_hour"),
            (Some(from), Some(from), "to_hour"),
            (Some(to), Some(from), "to_hour"),
            (Some(from), Some(Instant(i64::MAX)), "to_hour"),
        ] {
            let error = Hours::parse(from, to).unwrap_err();
            assert!(error.message.contains(named), "{}", error.message);
        }
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        let given = vec![hours(1, 3), hours(3, 5), hours(4, 4), hours(7, 9), hours(8, 8)];
        assert_eq!(merged(given), [hours(1, 5), hours(7, 9)]);
    }

    #[test]
    fn a_new_range_takes_in_all_it_meets() {
        let present = [hours(10, 12), hours(1, 3), hours(20, 22), hours(5, 6)];
        let merged = |from, to| merged_with(hours(from, to), &present);
        assert_eq!(merged(3, 5), (hours(1, 6), BTreeSet::from([1, 3])));
        assert_eq!(merged(7, 9), (hours(7, 9), BTreeSet::new()));
        assert_eq!(merged(6, 20), (hours(5, 22), BTreeSet::from([0, 2, 3])));
        // What was kept by other hands may meet only by way of another.
        let chain = [hours(4, 6), hours(2, 4)];
        assert_eq!(merged_with(hours(1, 2), &chain), (hours(1, 6), BTreeSet::from([0, 1])));
    }

    #[test]
    fn ranges_that_only_touch_have_nothing_in_common() {
        assert_eq!(hours(1, 3).common(hours(3, 5)), None);
        assert_eq!(hours(1, 4).common(hours(3, 5)), Some(hours(3, 4)));
    }

    #[test]
    fn days_are_whole() {
        let part = Hours { from: utc(2026, 11, 22, 5, 0), to: utc(2026, 11, 23, 0, 0) };
        let day = Hours { from: utc(2026, 11, 22, 0, 0), to: utc(2026, 11, 23, 0, 0) };
        assert_eq!(part.whole_days().unwrap(), day);
        assert_eq!(day.whole_days().unwrap(), day);
    }

    proptest! {
        #[test]
        fn chunks_tile_a_range_from_its_end(
            from in 0_i64..2_000, count in 1_i64..9_000, with_entries in proptest::collection::btree_set(0_u32..18, 0..6)
        ) {
            let first = Instant(0).month().unwrap();
            let months: BTreeSet<Month> =
                with_entries.into_iter().map(|number| first.plus(number).unwrap()).collect();
            let all = hours(from, from + count);
            let mut remaining = all;
            while remaining.from < remaining.to {
                let chunk = newest_chunk(remaining, &months).unwrap();
                prop_assert!(chunk.hours.to == remaining.to && chunk.hours.from >= all.from);
                prop_assert!(chunk.hours.count() >= 1);
                let touched = chunk.hours.from.month().unwrap().through(
                    chunk.hours.to.plus_microseconds(-1).month().unwrap()).unwrap();
                if chunk.has_entries {
                    prop_assert!(chunk.hours.count() <= 24 && months.contains(&touched[0]));
                } else {
                    prop_assert!(touched.iter().all(|month| !months.contains(month)));
                }
                remaining.to = chunk.hours.from;
            }
        }

        #[test]
        fn what_two_ranges_have_in_common_is_in_both(a in 0_i64..20, b in 1_i64..9, c in 0_i64..20, d in 1_i64..9) {
            let (one, other) = (hours(a, a + b), hours(c, c + d));
            for hour in 0..30 {
                let hour = Instant(hour * MICROSECONDS_PER_HOUR);
                let common = one.common(other).is_some_and(|common| common.contains(hour));
                prop_assert_eq!(common, one.contains(hour) && other.contains(hour));
            }
        }
    }
}
