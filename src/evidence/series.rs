//! `spend_series`: a range in the buckets of a chart.

use super::figures::{Amounts, Hourly};
use super::range::Range;
use super::reading::{self, amount_columns};
use super::window::Interval;
use crate::books;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{Answer, Composite, RowSet, Value};
use crate::time::{self, Instant};
use pgrx::prelude::*;

pub struct Point {
    pub bucket: Interval,
    pub covered_hours: i64,
    pub amounts: Option<Amounts>,
}

/// The buckets of a range with what is known of each.
pub fn points(range: Range, window: Interval, hourly: &Hourly) -> Result<Vec<Point>> {
    let point = |bucket| {
        let amounts = hourly.amounts(bucket)?;
        Ok(Point { bucket, covered_hours: hourly.covered_hours(bucket), amounts })
    };
    range.buckets(window).into_iter().map(point).collect()
}

fn row(point: &Point) -> Composite {
    // At most 2160 of them.
    let count = |hours: i64| Value::from(i32::try_from(hours).unwrap_or(i32::MAX));
    let [total, variable, scheduled, records] = amount_columns(point.amounts);
    Composite::new(&[
        Value::from(point.bucket.from),
        Value::from(point.bucket.to),
        count(point.covered_hours),
        count(point.bucket.hour_count()),
        total,
        variable,
        scheduled,
        records,
    ])
}

/// A range that ends with the hour of `as_of`, charges before `as_of` counted.
#[pg_extern(sql = false)]
fn spend_series(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    range: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<RowSet> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let range = Range::parse(range)?;
    let as_of = time::as_of(as_of)?;
    let window = range.window(as_of)?;
    books::enter_for_reading("exa_billing.spend_series()")?;
    let read = if range.is_by_days() { reading::daily } else { reading::hourly };
    let hourly = read(&owner, window, as_of)?;
    Ok(points(range, window, &hourly)?.iter().map(row).collect())
}
