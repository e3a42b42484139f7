//! Posted totals of hours and of days, read past the executor where that is possible.

use super::stretches::Stretches;
use super::window::Interval;
use crate::error::Result;
use crate::owner::Owner;
use crate::sources::Category;
use crate::spi::{Range, Statement, values};
use crate::time::Instant;
use std::collections::BTreeMap;

/// Totals are not partitioned.
const ANY_TIME: (Instant, Instant) = (Instant(i64::MIN), Instant(i64::MAX));

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
pub static DAYS: Totals = Totals {
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

    /// The same of many owners: what was asked, beginning, category and amount of each row.
    fn each_of(
        &'static self,
        parts: &[Part],
        mut each: impl FnMut(&Part, Instant, Category, i64) -> Result<()>,
    ) -> Result<()> {
        let asked = parts.iter().map(|Part { owner, within, .. }| {
            ([owner.kind.as_str(), owner.id.as_str()], (within.from, within.to))
        });
        let is_read = self.range.read_many(ANY_TIME, asked, |number, row| {
            let category = Category::parse(Some(row.text(4)?))?;
            each(&parts[number], row.get(3)?, category, row.get(5)?)
        })?;
        if !is_read {
            for part in parts {
                self.select(part.owner, part.within, |start, category, amount, _| {
                    each(part, start, category, amount)
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
    stretches: &'a Stretches,
}

/// The posted totals of whole hours of many owners: the place of the owner, and a category and amount that
/// belong to the time from this start on, as far as to the next of the cuts or the end. Amounts may be
/// negative and starts come more than once: what belongs together adds up. The totals hold all from
/// `known_from` on.
pub fn each_total(
    asked: &[(&Owner, Interval)],
    cuts: &[Instant],
    known_from: Instant,
    mut each: impl FnMut(usize, Instant, Category, i128) -> Result<()>,
) -> Result<()> {
    let mut known: BTreeMap<Interval, Stretches> = BTreeMap::new();
    for &(_, whole) in asked {
        known.entry(whole).or_insert_with(|| Stretches::of(whole, cuts, known_from));
    }
    let (mut hours, mut days) = (Vec::new(), Vec::new());
    for (place, &(owner, whole)) in asked.iter().enumerate() {
        let stretches = &known[&whole];
        let part = |&within: &Interval| Part { place, owner, within, stretches };
        hours.extend(stretches.hours.iter().map(part));
        days.extend(stretches.days.iter().map(part));
    }
    HOURS.each_of(&hours, |part, start, category, amount| {
        part.stretches
            .hour(start, amount.into(), |start, amount| each(part.place, start, category, amount))
    })?;
    DAYS.each_of(&days, |part, start, category, amount| {
        each(part.place, part.stretches.day(start), category, amount.into())
    })
}
