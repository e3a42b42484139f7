//! `rolling_spend`: one sum over a window that ends at an instant.

use super::reading::{self, amount_columns};
use super::window::Interval;
use crate::books;
use crate::owner::Owner;
use crate::spi::{Answer, Composite, Value};
use crate::time::{self, Instant, Span};
use pgrx::prelude::*;

/// What was spent in `[as_of - span, as_of)`.
#[pg_extern(sql = false)]
fn rolling_spend(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    span: Option<Span>,
    as_of: Option<Instant>,
) -> Answer<Composite> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let as_of = time::as_of(as_of)?;
    let window = Interval { from: time::start_of_span(span, as_of)?, to: as_of };
    books::enter_for_reading("exa_billing.rolling_spend()")?;
    let spent = reading::daily(&owner, window, as_of)?;
    let [total, variable, scheduled, records] = amount_columns(spent.amounts(window)?);
    let is_complete = Value::from(spent.is_complete(window));
    Ok(Composite::new(&[total, variable, scheduled, records, is_complete]))
}
