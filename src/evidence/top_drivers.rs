//! `top_spend_drivers`: what most of the money went on.

use super::drivers::Ranked;
use super::reading::Spend;
use super::window::Interval;
use crate::books;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::sources::Category;
use crate::spi::{Answer, Composite, RowSet, values};
use crate::time::{self, Instant};
use pgrx::prelude::*;

const MAX_DRIVERS: i32 = 1_000;

fn window(from: Option<Instant>, to: Option<Instant>) -> Result<Interval> {
    let bound = |argument, value: Option<Instant>| {
        time::finite(argument, value.ok_or_else(|| BillingError::missing(argument))?)
    };
    let window = Interval { from: bound("from_time", from)?, to: bound("to_time", to)? };
    if window.to <= window.from {
        return Err(BillingError::invalid("to_time must be after from_time"));
    }
    Ok(window)
}

fn count(max_drivers: Option<i32>) -> Result<usize> {
    let given = max_drivers.ok_or_else(|| BillingError::missing("max_drivers"))?;
    usize::try_from(given).ok().filter(|_| (1..=MAX_DRIVERS).contains(&given)).ok_or_else(|| {
        BillingError::invalid("max_drivers is out of range")
            .detail(format!("max_drivers is {given}; 1 … {MAX_DRIVERS} are allowed."))
    })
}

fn row(ranked: &Ranked) -> Composite {
    let dimension = &ranked.driver.dimension;
    Composite::new(values![
        dimension.category,
        dimension.source,
        &dimension.product,
        &dimension.feature,
        &dimension.model_or_plan,
        &dimension.provider,
        ranked.driver.actor_user_id.as_deref(),
        ranked.amount,
        ranked.records,
    ])
}

/// The drivers of `[from_time, to_time)` with the largest amounts.
#[pg_extern(sql = false)]
fn top_spend_drivers(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    from_time: Option<Instant>,
    to_time: Option<Instant>,
    spend_category: Option<&str>,
    max_drivers: Option<i32>,
) -> Answer<RowSet> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let window = window(from_time, to_time)?;
    let category = spend_category.map(|text| Category::parse(Some(text))).transpose()?;
    let count = count(max_drivers)?;
    books::enter_for_reading("exa_billing.top_spend_drivers()")?;
    let drivers = Spend::read(&owner, window, window.to)?.drivers()?;
    Ok(drivers.top(category, count)?.iter().map(row).collect())
}
