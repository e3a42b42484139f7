//! `exa_monthly_usage()`: a user's month, over all contexts.

use crate::books;
use crate::error::BillingError;
use crate::owner;
use crate::spi::{self, Answer, Composite, Statement, values};
use crate::time::{self, Day};
use pgrx::prelude::*;

static MONTH: Statement =
    Statement::over_queue(include_str!("../../sql/statements/monthly_usage.sql"));

/// Cost, charges, requests and locked allowance of one user and month.
#[pg_extern(sql = false)]
fn exa_monthly_usage(user_id: Option<&str>, month: Option<Day>) -> Answer<Composite> {
    let user_id = owner::identifier("user_id", user_id)?;
    let day = month.map_or_else(|| spi::transaction_time().day(), Ok)?;
    let month = time::month_of("month", day)?;
    books::enter_for_reading("exa_billing.exa_monthly_usage()")?;
    let (from, to) = (month.start(), month.next()?.start());
    let row = MONTH.read_row(values![user_id, month.first_day(), from, to], |row| {
        let counts = [row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<i64>(3)?];
        Ok((counts, row.maybe::<i64>(4)?))
    })?;
    let ([cost, charged, requests], allowance) =
        row.ok_or_else(|| BillingError::internal("no figures for a month"))?;
    Ok(Composite::new(values![user_id, month.first_day(), cost, charged, requests, allowance]))
}
