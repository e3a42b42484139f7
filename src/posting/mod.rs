//! Posting: moves queue rows into balances, counters and rollups.

mod batch;
mod busy;
mod candidates;
mod figures;
mod gathering;
mod targets;

use crate::books;
use crate::error::{BillingError, Result};
use crate::spi::Answer;
use pgrx::prelude::*;

pub use batch::{DIMENSION_LOCK, post, post_owner};
pub use candidates::Whose;

/// More rows than this in one transaction would hold account locks for too long.
const MAX_ROWS: i32 = 1_000_000;

/// Posts up to `max_rows` queue rows; returns how many were posted.
#[pg_extern(sql = false)]
fn post_spend(max_rows: Option<i32>) -> Answer<i64> {
    let max_rows = max_rows.ok_or_else(|| BillingError::missing("max_rows"))?;
    if !(1..=MAX_ROWS).contains(&max_rows) {
        let range = format!("max_rows is {max_rows}; 1 … {MAX_ROWS} are allowed.");
        return Err(BillingError::invalid("max_rows is out of range").detail(range).into());
    }
    books::enter_for_writing("exa_billing.post_spend()")?;
    Ok(post(Whose::Everybody, i64::from(max_rows))?.rows)
}

/// Lets blocked rows be posted again, after what blocked them is mended.
#[pg_extern(sql = false)]
fn retry_blocked_spend() -> Answer<i64> {
    books::enter_for_writing("exa_billing.retry_blocked_spend()")?;
    let unblocked: Result<i64> = batch::unblock_all();
    Ok(unblocked?)
}
