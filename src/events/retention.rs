//! Events and finished deliveries are kept for 90 days.

use super::tables;
use crate::books;
use crate::error::{BillingError, Result};
use crate::spi::{self, Answer, Statement, values};
use crate::time::{self, Instant, MICROSECONDS_PER_HOUR};
use pgrx::prelude::*;

/// 90 days of 24 hours: nobody reads what is older.
pub const KEPT_MICROSECONDS: i64 = 90 * 24 * MICROSECONDS_PER_HOUR;
const MAX_ROWS: i32 = 100_000;

// Both tables are empty at first, when plans may be made: index scans only.
static DELETE_EVENTS: Statement = Statement::over_queue(
    "WITH gone AS (
         DELETE FROM exa_billing.cost_insight_events
         WHERE event_id = ANY (ARRAY(
             SELECT event_id FROM exa_billing.cost_insight_events
             WHERE occurred_at < $1 ORDER BY occurred_at LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING 1
     )
     SELECT count(*) FROM gone",
);
static DELETE_DELIVERIES: Statement = Statement::over_queue(
    "WITH gone AS (
         DELETE FROM exa_billing.notification_deliveries
         WHERE delivery_id = ANY (ARRAY(
             SELECT delivery_id FROM exa_billing.notification_deliveries
             WHERE finished_at < $1 ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED))
         RETURNING 1
     )
     SELECT count(*) FROM gone",
);

/// Deletes up to `max_rows` rows, oldest first: events of more than 90 days before `as_of`, then
/// deliveries that were finished so long ago. What lasts (episodes, suggestions) and what is still to
/// be sent has its own copy of the figures and stays.
///
/// Locks: the rows it deletes, skipping those somebody else holds.
pub fn delete_old(as_of: Instant, max_rows: i64) -> Result<i64> {
    let oldest = as_of.plus_microseconds(-KEPT_MICROSECONDS);
    let mut deleted = 0;
    for statement in [&DELETE_EVENTS, &DELETE_DELIVERIES] {
        let counted =
            statement.write_row(values![oldest, max_rows - deleted], |row| row.get::<i64>(1))?;
        deleted += counted.unwrap_or_default();
    }
    Ok(deleted)
}

/// The same for background work, which waits for nobody who has locked the tables.
pub fn delete_old_without_waiting(max_rows: i64) -> Result<i64> {
    tables::lock_or_fail()?;
    delete_old(spi::clock(), max_rows)
}

/// Deletes what is older than anybody reads; returns how many rows.
#[pg_extern(sql = false)]
fn delete_old_events(as_of: Option<Instant>, max_rows: Option<i32>) -> Answer<i32> {
    let as_of = time::as_of_past(as_of, spi::clock())?;
    let max_rows = max_rows.ok_or_else(|| BillingError::missing("max_rows"))?;
    if !(1..=MAX_ROWS).contains(&max_rows) {
        let range = format!("max_rows is {max_rows}; 1 … {MAX_ROWS} are allowed.");
        return Err(BillingError::invalid("max_rows is out of range").detail(range).into());
    }
    books::enter_for_writing("exa_billing.delete_old_events()")?;
    let deleted = delete_old(as_of, i64::from(max_rows))?;
    Ok(i32::try_from(deleted).unwrap_or(max_rows))
}
