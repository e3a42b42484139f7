//! Amounts and record counts, added up without losing what no `bigint` can hold.

use super::window::Interval;
use crate::error::{BillingError, Result};
use crate::rollups::Coverage;
use crate::sources::Category;
use crate::time::Instant;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    variable: i128,
    scheduled: i128,
    records: i128,
}

/// Figures that are an answer: each within the range of `bigint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    pub total: i64,
    pub variable: i64,
    pub scheduled: i64,
    pub records: i64,
}

impl Figures {
    pub fn add(&mut self, category: Category, amount: i64, records: i64) {
        match category {
            Category::Variable => self.variable += i128::from(amount),
            Category::Scheduled => self.scheduled += i128::from(amount),
        }
        self.records += i128::from(records);
    }

    fn plus(self, other: &Figures) -> Self {
        Self {
            variable: self.variable + other.variable,
            scheduled: self.scheduled + other.scheduled,
            records: self.records + other.records,
        }
    }

    pub fn amounts(self) -> Result<Amounts> {
        Ok(Amounts {
            total: in_range("total_microdollars", self.variable + self.scheduled)?,
            variable: in_range("variable_microdollars", self.variable)?,
            scheduled: in_range("scheduled_microdollars", self.scheduled)?,
            records: in_range("spend_record_count", self.records)?,
        })
    }
}

pub fn in_range(figure: &str, sum: i128) -> Result<i64> {
    i64::try_from(sum).map_err(|_| {
        BillingError::out_of_range(format!("{figure} is out of range"))
            .detail(format!("The sum is {sum}."))
            .hint("Ask for a shorter time.")
    })
}

/// What was spent in each hour of a window, and which of its hours are known.
pub struct Hourly {
    coverage: Coverage,
    /// Hours with rows, in order. They are mostly added in order too.
    hours: Vec<(Instant, Figures)>,
}

impl Hourly {
    pub fn new(coverage: Coverage) -> Self {
        Self { coverage, hours: Vec::new() }
    }

    pub fn add(&mut self, hour_start: Instant, category: Category, amount: i64, records: i64) {
        let is_later = self.hours.last().is_none_or(|(last, _)| *last < hour_start);
        let place = match is_later {
            true => self.hours.len(),
            false => self.hours.partition_point(|(hour, _)| *hour < hour_start),
        };
        if self.hours.get(place).is_none_or(|(hour, _)| *hour != hour_start) {
            self.hours.insert(place, (hour_start, Figures::default()));
        }
        self.hours[place].1.add(category, amount, records);
    }

    /// The same without what is known of one hour, for somebody who knows better.
    pub fn without(&self, hour_start: Instant) -> Self {
        let mut hours = self.hours.clone();
        hours.retain(|(hour, _)| *hour != hour_start);
        Self { coverage: self.coverage.clone(), hours }
    }

    /// The sum of the hours that are known, which may be zero; None when no hour is known.
    pub fn amounts(&self, window: Interval) -> Result<Option<Amounts>> {
        let is_known = window.from < window.to && self.coverage.known_from < window.to;
        if !is_known && self.with_rows(window).next().is_none() {
            return Ok(None);
        }
        self.with_rows(window).fold(Figures::default(), Figures::plus).amounts().map(Some)
    }

    /// Whether every hour is known: at or after the beginning of coverage, or with rows.
    pub fn is_complete(&self, window: Interval) -> bool {
        let uncertain = Interval { from: window.from, to: window.to.min(self.coverage.known_from) };
        i64::try_from(self.with_rows(uncertain).count()) == Ok(uncertain.hour_count())
    }

    pub fn covers(&self, hour_start: Instant) -> bool {
        self.coverage.covers(hour_start)
    }

    pub fn covered_hours(&self, window: Interval) -> i64 {
        window.hours().filter(|&hour| self.covers(hour)).map(|_| 1).sum()
    }

    fn with_rows(&self, window: Interval) -> impl Iterator<Item = &Figures> {
        // A window may begin in the midst of its first hour.
        let first = if window.from < window.to { window.from.hour_start() } else { window.to };
        let place = |instant| self.hours.partition_point(|(hour, _)| *hour < instant);
        let (start, end) = (place(first), place(window.to));
        self.hours[start..end.max(start)].iter().map(|(_, figures)| figures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollups::Hours;
    use crate::time::MICROSECONDS_PER_HOUR;

    fn minutes(from: i64, to: i64) -> Interval {
        let minute = MICROSECONDS_PER_HOUR / 60;
        Interval { from: Instant(from * minute), to: Instant(to * minute) }
    }

    fn hour(number: i64) -> Instant {
        Instant(0).plus_hours(number)
    }

    /// Known from hour 4 on, degraded in hour 6, with rows in hours 1, 2 and 5.
    fn hourly() -> Hourly {
        let degraded = vec![Hours { from: hour(6), to: hour(7) }];
        let mut hourly = Hourly::new(Coverage { known_from: hour(4), degraded });
        hourly.add(hour(1), Category::Variable, 10, 1);
        hourly.add(hour(2), Category::Scheduled, 20, 2);
        hourly.add(hour(5), Category::Variable, 500, 5);
        hourly
    }

    #[test]
    fn zero_and_unknown_are_told_apart() {
        let hourly = hourly();
        let total = |from, to| {
            hourly
                .amounts(minutes(from, to))
                .unwrap()
                .map(|amounts| (amounts.total, amounts.records))
        };
        assert_eq!(total(0, 60), None);
        assert_eq!(total(180, 240), None);
        assert_eq!(total(240, 300), Some((0, 0)));
        assert_eq!(total(360, 420), Some((0, 0)));
        assert_eq!(total(0, 180), Some((30, 3)));
        assert_eq!(total(180, 241), Some((0, 0)));
        assert_eq!(total(0, 420), Some((530, 8)));
        assert_eq!(total(90, 90), None);
        assert_eq!(total(300, 300), None);
    }

    #[test]
    fn a_window_is_complete_when_each_of_its_hours_is_known() {
        let hourly = hourly();
        let complete = |from, to| hourly.is_complete(minutes(from, to));
        assert!(!complete(0, 60) && !complete(0, 120) && !complete(90, 200) && !complete(59, 180));
        assert!(complete(60, 180) && complete(90, 150) && complete(240, 900) && complete(330, 340));
        assert!(!complete(180, 300));
    }

    #[test]
    fn degraded_hours_are_not_covered() {
        let hourly = hourly();
        assert_eq!(hourly.covered_hours(minutes(0, 600)), 5);
        assert_eq!([3, 4, 6].map(|number| hourly.covers(hour(number))), [false, true, false]);
    }

    #[test]
    fn sums_beyond_bigint_are_errors_and_those_that_come_back_are_not() {
        let mut figures = Figures::default();
        figures.add(Category::Variable, i64::MAX, 1);
        figures.add(Category::Variable, i64::MAX, 1);
        assert!(figures.amounts().is_err());
        figures.add(Category::Scheduled, i64::MIN, 1);
        assert!(figures.amounts().is_err());
        figures.add(Category::Variable, -i64::MAX, 1);
        let amounts = figures.amounts().unwrap();
        assert_eq!((amounts.total, amounts.variable, amounts.records), (-1, i64::MAX, 4));
    }
}
