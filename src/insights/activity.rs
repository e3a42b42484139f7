//! `cost_insight_activity`: what happened, a page at a time.

use super::filter;
use super::page::{self, Place};
use crate::books;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{self, Answer, RowSet};
use pgrx::prelude::*;
use uuid::Uuid;

const MAX_PAGE_SIZE: i32 = 100;

fn page_size(given: Option<i32>) -> Result<i64> {
    let given = given.ok_or_else(|| BillingError::missing("page_size"))?;
    if (1..=MAX_PAGE_SIZE).contains(&given) {
        return Ok(i64::from(given));
    }
    Err(BillingError::invalid("page_size is out of range")
        .detail(format!("page_size is {given}; 1 … {MAX_PAGE_SIZE} are allowed.")))
}

/// The events of an owner that come after `before_event` in the order of newest first.
#[pg_extern(sql = false)]
fn cost_insight_activity(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    filter: Option<&str>,
    before_event: Option<pgrx::Uuid>,
    page_size: Option<i32>,
) -> Answer<RowSet> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let types = filter::parse(filter)?;
    let count = self::page_size(page_size)?;
    books::enter_for_reading("exa_billing.cost_insight_activity()")?;
    let after = match before_event {
        Some(id) => Place::of(&owner, Uuid::from_bytes(*id.as_bytes()))?,
        None => Place::START,
    };
    let shown_from = page::shown_from(spi::transaction_time());
    let events = page::read(&owner, types, shown_from, after, count)?;
    Ok(events.iter().map(page::Event::row).collect())
}
