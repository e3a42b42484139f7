//! Posted totals of hours and of days, read past the executor where that is possible.

use super::window::Interval;
use crate::error::Result;
use crate::owner::Owner;
use crate::sources::Category;
use crate::spi::{Range, Statement, values};
use crate::time::Instant;

/// Where totals are kept, of hours or of days.
pub struct Totals {
    range: Range,
    select: Statement,
}

pub static HOURS: Totals = Totals {
    range: Range {
        table: "spend_hourly_totals",
        is_partitioned: false,
        columns: &[
            "owner_kind",
            "owner_id",
            "hour_start",
            "spend_category",
            "total_microdollars",
            "spend_record_count",
        ],
        key: &[1, 2],
        time: 3,
    },
    select: Statement::kept(
        "SELECT owner_kind, owner_id, hour_start, spend_category, total_microdollars, spend_record_count
         FROM exa_billing.spend_hourly_totals
         WHERE owner_kind = $1 AND owner_id = $2 AND hour_start >= $3 AND hour_start < $4",
    ),
};
static DAYS: Totals = Totals {
    range: Range {
        table: "spend_daily_totals",
        is_partitioned: false,
        columns: &[
            "owner_kind",
            "owner_id",
            "day_start",
            "spend_category",
            "total_microdollars",
            "spend_record_count",
        ],
        key: &[1, 2],
        time: 3,
    },
    select: Statement::kept(
        "SELECT owner_kind, owner_id, day_start, spend_category, total_microdollars, spend_record_count
         FROM exa_billing.spend_daily_totals
         WHERE owner_kind = $1 AND owner_id = $2 AND day_start >= $3 AND day_start < $4",
    ),
};

impl Totals {
    /// Beginning, category, amount and records of each row.
    pub fn each(
        &'static self,
        owner: &Owner,
        within: Interval,
        mut each: impl FnMut(Instant, Category, i64, i64) -> Result<()>,
    ) -> Result<()> {
        let (kind, id) = (owner.kind.as_str(), owner.id.as_str());
        let is_read = self.range.read(&[kind, id], (within.from, within.to), |row| {
            let category = Category::parse(Some(row.text(4)?))?;
            each(row.get(3)?, category, row.get(5)?, row.get(6)?)
        })?;
        if is_read { Ok(()) } else { self.select(owner, within, each) }
    }

    /// The same of many owners: the place, beginning, category and amount of each row.
    fn each_of(
        &'static self,
        parts: &[Part],
        mut each: impl FnMut(usize, Instant, Category, i64) -> Result<()>,
    ) -> Result<()> {
        let asked = parts.iter().map(|Part { owner, within, .. }| {
            ([owner.kind.as_str(), owner.id.as_str()], (within.from, within.to))
        });
        let is_read = self.range.read_many(asked, |number, row| {
            let category = Category::parse(Some(row.text(4)?))?;
            each(parts[number].place, row.get(3)?, category, row.get(5)?)
        })?;
        if !is_read {
            for &Part { place, owner, within } in parts {
                self.select(owner, within, |start, category, amount, _| {
                    each(place, start, category, amount)
                })?;
            }
        }
        Ok(())
    }

    fn select(
        &'static self,
        owner: &Owner,
        within: Interval,
        mut each: impl FnMut(Instant, Category, i64, i64) -> Result<()>,
    ) -> Result<()> {
        let arguments = values![owner.kind.as_str(), &owner.id, within.from, within.to];
        self.select.read(arguments, |row| {
            let category = Category::parse(Some(&row.get::<String>(4)?))?;
            each(row.get(3)?, category, row.get(5)?, row.get(6)?)
        })?;
        Ok(())
    }
}

/// Whole hours or days that are read of an owner.
struct Part<'a> {
    place: usize,
    owner: &'a Owner,
    within: Interval,
}

/// Whole UTC hours, taken apart at some of them.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stretches {
    /// To be read by hours; they do not touch.
    hours: Vec<Interval>,
    /// Whole days that none of the cuts lies inside of.
    days: Vec<Interval>,
}

impl Stretches {
    fn of(whole: Interval, cuts: &[Instant]) -> Self {
        let mut ends: Vec<Instant> =
            cuts.iter().copied().filter(|cut| whole.from < *cut && *cut < whole.to).collect();
        ends.push(whole.to);
        ends.sort_unstable();
        let mut stretches = Self::default();
        let mut from = whole.from;
        for to in ends {
            let (first, last) = (from.day_ceiling(), to.day_start());
            if first < last {
                stretches.add_hours(from, first);
                stretches.days.push(Interval { from: first, to: last });
                stretches.add_hours(last, to);
            } else {
                stretches.add_hours(from, to);
            }
            from = to;
        }
        stretches
    }

    fn add_hours(&mut self, from: Instant, to: Instant) {
        match self.hours.last_mut() {
            Some(last) if last.to == from => last.to = to,
            _ if from < to => self.hours.push(Interval { from, to }),
            _ => {}
        }
    }
}

/// The posted totals of whole hours of many owners, those of whole days where no cut needs them told
/// apart: the place of the owner, the beginning, category and amount of each.
pub fn each_total(
    asked: &[(&Owner, Interval)],
    cuts: &[Instant],
    mut each: impl FnMut(usize, Instant, Category, i64) -> Result<()>,
) -> Result<()> {
    let (mut hours, mut days) = (Vec::new(), Vec::new());
    for (place, &(owner, whole)) in asked.iter().enumerate() {
        let stretches = Stretches::of(whole, cuts);
        let part = |within| Part { place, owner, within };
        hours.extend(stretches.hours.into_iter().map(part));
        days.extend(stretches.days.into_iter().map(part));
    }
    HOURS.each_of(&hours, &mut each)?;
    DAYS.each_of(&days, &mut each)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    fn hours(from: i64, to: i64) -> Interval {
        let at = |hour| utc(2026, 2, 27, 0, 0).plus_hours(hour);
        Interval { from: at(from), to: at(to) }
    }

    fn cuts(at: &[i64]) -> Vec<Instant> {
        at.iter().map(|&hour| hours(hour, hour).from).collect()
    }

    #[test]
    fn days_that_no_cut_divides_are_read_as_one() {
        let stretches = Stretches::of(hours(5, 100), &cuts(&[60]));
        assert_eq!(stretches.hours, [hours(5, 24), hours(48, 72), hours(96, 100)]);
        assert_eq!(stretches.days, [hours(24, 48), hours(72, 96)]);
    }

    #[test]
    fn cuts_between_days_divide_none() {
        let stretches = Stretches::of(hours(0, 96), &cuts(&[0, 48, 96, 200]));
        assert_eq!(stretches.hours, []);
        assert_eq!(stretches.days, [hours(0, 48), hours(48, 96)]);
    }

    #[test]
    fn of_less_than_a_day_hours_are_read() {
        let stretches = Stretches::of(hours(5, 30), &cuts(&[7, 24]));
        assert_eq!(stretches, Stretches { hours: vec![hours(5, 30)], days: vec![] });
        assert_eq!(Stretches::of(hours(5, 5), &[]), Stretches::default());
    }

    proptest! {
        #[test]
        fn each_hour_is_read_once_and_on_one_side_of_each_cut(
            from in 0_i64..200, count in 0_i64..200, at in prop::collection::vec(0_i64..400, 0..5)
        ) {
            let whole = hours(from, from + count);
            let cuts = cuts(&at);
            let stretches = Stretches::of(whole, &cuts);
            let mut read: Vec<Instant> = stretches.hours.iter().flat_map(|part| part.hours()).collect();
            for days in &stretches.days {
                prop_assert_eq!((days.from.day_start(), days.to.day_start()), (days.from, days.to));
                prop_assert!(!cuts.iter().any(|cut| days.from < *cut && *cut < days.to && cut.day_start() != *cut));
                read.extend(days.hours());
            }
            read.sort_unstable();
            prop_assert_eq!(read, whole.hours().collect::<Vec<_>>());
        }
    }
}
