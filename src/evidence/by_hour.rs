//! `spend_by_hour`: one row per hour.

use super::reading::{self, amount_columns};
use super::window::Interval;
use crate::books;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::rollups::Hours;
use crate::spi::{Answer, Composite, RowSet, Value};
use crate::time::Instant;
use pgrx::prelude::*;

const MAX_HOURS: i64 = 90 * 24;

fn hours(from: Option<Instant>, to: Option<Instant>) -> Result<Interval> {
    let hours = Hours::parse(from, to)?;
    let count = hours.count();
    if count > MAX_HOURS {
        let apart = format!("They are {count} hours apart, at most {MAX_HOURS} are allowed.");
        return Err(BillingError::invalid("from_hour and to_hour are too far apart").detail(apart));
    }
    Ok(Interval { from: hours.from, to: hours.to })
}

/// Every hour from `from_hour` to `to_hour`, those without spend included.
#[pg_extern(sql = false)]
fn spend_by_hour(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    from_hour: Option<Instant>,
    to_hour: Option<Instant>,
) -> Answer<RowSet> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let window = hours(from_hour, to_hour)?;
    books::enter_for_reading("exa_billing.spend_by_hour()")?;
    let hourly = reading::hourly(&owner, window, window.to)?;
    let rows: Result<RowSet> = window
        .hours()
        .map(|from| {
            let amounts = hourly.amounts(Interval { from, to: from.plus_hours(1) })?;
            let [total, variable, scheduled, records] = amount_columns(amounts);
            let (hour, is_covered) = (Value::from(from), Value::from(hourly.covers(from)));
            Ok(Composite::new(&[hour, is_covered, total, variable, scheduled, records]))
        })
        .collect();
    Ok(rows?)
}
