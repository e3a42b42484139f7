//! The ranges of a series, and the buckets they are shown in.

use super::window::Interval;
use crate::error::{BillingError, Result};
use crate::owner::quoted;
use crate::time::{self, Instant};

/// A range ends with the hour its instant lies in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub name: &'static str,
    hours: i64,
    bucket: Bucket,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bucket {
    Hour,
    /// So many UTC days in a row, counted from the range's first, which may be a part of a day.
    Days(i64),
}

/// The shortest first.
pub const RANGES: [Range; 5] = [
    Range { name: "1h", hours: 1, bucket: Bucket::Hour },
    Range { name: "24h", hours: 24, bucket: Bucket::Hour },
    Range { name: "7d", hours: 7 * 24, bucket: Bucket::Days(1) },
    Range { name: "30d", hours: 30 * 24, bucket: Bucket::Days(1) },
    Range { name: "90d", hours: 90 * 24, bucket: Bucket::Days(7) },
];

impl Range {
    pub fn parse(text: Option<&str>) -> Result<Self> {
        let text = text.ok_or_else(|| BillingError::missing("range"))?;
        RANGES.into_iter().find(|range| range.name == text).ok_or_else(|| {
            BillingError::invalid("range is not known")
                .detail(format!("range is {}.", quoted(text)))
                .hint("Give '1h', '24h', '7d', '30d' or '90d'.")
        })
    }

    /// Whole hours, the last of them the one `as_of` lies in.
    pub fn window(self, as_of: Instant) -> Result<Interval> {
        let to = as_of.hour_start().plus_hours(1);
        Ok(Interval { from: time::hours_before("as_of", self.hours, to)?, to })
    }

    pub fn is_by_days(self) -> bool {
        matches!(self.bucket, Bucket::Days(_))
    }

    pub fn buckets(self, window: Interval) -> Vec<Interval> {
        let end_of = |from: Instant| match self.bucket {
            Bucket::Hour => from.plus_hours(1),
            Bucket::Days(days) => from.day_start().plus_hours(24 * days),
        };
        let mut buckets = Vec::new();
        let mut from = window.from;
        while from < window.to {
            let to = end_of(from).min(window.to);
            buckets.push(Interval { from, to });
            from = to;
        }
        buckets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    fn buckets(range: &str, as_of: Instant) -> Vec<Interval> {
        let range = Range::parse(Some(range)).unwrap();
        range.buckets(range.window(as_of).unwrap())
    }

    #[test]
    fn a_range_ends_with_the_hour_of_its_instant() {
        let noon = utc(2026, 6, 15, 12, 0);
        for (as_of, to) in [
            (noon, utc(2026, 6, 15, 13, 0)),
            (utc(2026, 6, 15, 12, 59), utc(2026, 6, 15, 13, 0)),
            (noon.plus_microseconds(-1), noon),
        ] {
            for range in RANGES {
                let window = range.window(as_of).unwrap();
                assert_eq!((window.to, window.hour_count()), (to, range.hours), "{}", range.name);
            }
        }
        assert_eq!(buckets("1h", noon), [Interval { from: noon, to: noon.plus_hours(1) }]);
        assert_eq!(buckets("24h", noon).len(), 24);
    }

    #[test]
    fn days_are_those_of_the_calendar_and_the_first_and_last_may_be_partial() {
        let week = buckets("7d", utc(2026, 6, 15, 12, 30));
        assert_eq!(week.len(), 8);
        assert_eq!(week[0], Interval { from: utc(2026, 6, 8, 13, 0), to: utc(2026, 6, 9, 0, 0) });
        assert_eq!(week[7], Interval { from: utc(2026, 6, 15, 0, 0), to: utc(2026, 6, 15, 13, 0) });
        assert_eq!(buckets("7d", utc(2026, 6, 15, 23, 0)).len(), 7);
        assert_eq!(buckets("30d", utc(2026, 6, 15, 22, 59)).len(), 31);
    }

    #[test]
    fn ninety_days_are_groups_of_seven_counted_from_the_first_day() {
        let groups = buckets("90d", utc(2026, 6, 15, 12, 30));
        assert_eq!(groups.len(), 13);
        assert_eq!(
            groups[0],
            Interval { from: utc(2026, 3, 17, 13, 0), to: utc(2026, 3, 24, 0, 0) }
        );
        assert_eq!(
            groups[12],
            Interval { from: utc(2026, 6, 9, 0, 0), to: utc(2026, 6, 15, 13, 0) }
        );
        let whole = buckets("90d", utc(2026, 6, 15, 23, 0));
        assert_eq!((whole.len(), whole[12].hour_count()), (13, 6 * 24));
    }

    #[test]
    fn other_words_and_times_without_a_past_are_refused() {
        for text in [None, Some(""), Some("7D"), Some("1 h"), Some("60d")] {
            assert!(Range::parse(text).is_err(), "{text:?}");
        }
        let ninety = Range::parse(Some("90d")).unwrap();
        let first = Instant(-211_813_488_000_000_000);
        assert!(ninety.window(first).is_err());
        assert!(ninety.window(first.plus_hours(2_159)).is_ok());
    }

    proptest! {
        #[test]
        fn buckets_are_whole_hours_one_after_the_other(
            range in 0..RANGES.len(),
            as_of in -60_000_000_000_000_000..200_000_000_000_000_000_i64,
        ) {
            let range = RANGES[range];
            let window = range.window(Instant(as_of)).unwrap();
            let buckets = range.buckets(window);
            prop_assert_eq!(buckets.first().unwrap().from, window.from);
            prop_assert_eq!(buckets.last().unwrap().to, window.to);
            prop_assert!(buckets.windows(2).all(|pair| pair[0].to == pair[1].from));
            prop_assert_eq!(buckets.iter().map(|b| b.hour_count()).sum::<i64>(), range.hours);
            prop_assert!(buckets.iter().all(|b| b.from < b.to && b.to == b.to.hour_start()));
        }
    }
}
