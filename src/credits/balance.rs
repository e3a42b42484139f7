//! The balance: acquired minus used, posted and unposted, with the expirations that are due
//! counted as processed.

use super::expiration::{self, Closing, OpenGrant};
use super::ledger;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{Answer, Composite, values};
use crate::time::{self, Instant};
use crate::{accounts, books, sources};
use pgrx::prelude::*;

/// An owner's credits, in microdollars. An owner without any row has zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    pub acquired: i64,
    pub used: i64,
    pub next_expiration: Option<Instant>,
}

impl Balance {
    pub fn left(&self) -> Result<i64> {
        self.acquired.checked_sub(self.used).ok_or_else(|| {
            let figures =
                format!("Acquired {} and used {} microdollars.", self.acquired, self.used);
            BillingError::out_of_range("the balance is out of range").detail(figures)
        })
    }
}

/// As the snapshot shows it; expirations only as far as they were processed. Leaving the range of bigint
/// is an error of this owner only.
fn recorded(owner: &Owner) -> Result<Balance> {
    let posted = accounts::read(owner)?;
    let used =
        i128::from(posted.used) + sources::unposted_microdollars(owner, posted.posted_before)?;
    Ok(Balance {
        acquired: posted.acquired,
        used: in_range(used)?,
        next_expiration: posted.next_expiration,
    })
}

fn in_range(sum: i128) -> Result<i64> {
    i64::try_from(sum).map_err(|_| BillingError::out_of_range("bigint out of range"))
}

/// Acquired minus used, posted and unposted, and when the next credit expires; expirations only as far as
/// they were processed.
pub fn left(owner: &Owner) -> Result<(i64, Option<Instant>)> {
    let posted = accounts::read(owner)?;
    let left = i128::from(posted.acquired)
        - i128::from(posted.used)
        - sources::unposted_microdollars(owner, posted.posted_before)?;
    Ok((in_range(left)?, posted.next_expiration))
}

/// With the expirations that are due at `as_of`.
pub fn read(owner: &Owner, as_of: Instant) -> Result<Balance> {
    let recorded = recorded(owner)?;
    if recorded.next_expiration.is_none_or(|next| next > as_of) {
        return Ok(recorded);
    }
    let grants = ledger::open_grants(owner)?;
    let closing = due(owner, &grants, as_of)?;
    Ok(Balance {
        acquired: recorded
            .acquired
            .checked_sub(closing.expired()?)
            .ok_or_else(|| BillingError::out_of_range("the balance is out of range"))?,
        next_expiration: grants.get(closing.closures.len()).map(|grant| grant.expiry),
        ..recorded
    })
}

/// What of an owner's credit has expired by `as_of` and is not yet processed.
pub fn expired_by(owner: &Owner, as_of: Instant) -> Result<i64> {
    due(owner, &ledger::open_grants(owner)?, as_of)?.expired()
}

/// How the grants that are due at `as_of` close.
pub fn due(owner: &Owner, grants: &[OpenGrant], as_of: Instant) -> Result<Closing> {
    let count = expiration::due_count(grants, as_of);
    let expiries = grants.iter().take(count).map(|grant| grant.expiry);
    let at = ledger::usage_before_each(owner, expiries)?;
    Ok(expiration::close(grants, count, &at))
}

/// What would expire at the next expiry after `as_of` if nothing more were used.
fn next_to_expire(owner: &Owner, as_of: Instant, balance: &Balance) -> Result<Option<i64>> {
    let Some(next) = balance.next_expiration else { return Ok(None) };
    let grants = ledger::open_grants(owner)?;
    let already = expiration::due_count(&grants, as_of);
    let count = expiration::due_count(&grants, next);
    let past = grants.iter().take(already).map(|grant| grant.expiry);
    let mut at = ledger::usage_before_each(owner, past)?;
    at.resize(count, (next, balance.used));
    let closing = expiration::close(&grants, count, &at);
    expiration::sum(closing.closures.iter().skip(already).map(|closure| closure.expired)).map(Some)
}

/// How the owner's credits stand.
#[pg_extern(sql = false)]
fn account_balance(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<Composite> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let as_of = time::as_of(as_of)?;
    books::enter_for_reading("exa_billing.account_balance()")?;
    let balance = read(&owner, as_of)?;
    let next_amount = next_to_expire(&owner, as_of, &balance)?;
    Ok(Composite::new(values![
        balance.acquired,
        balance.used,
        balance.left()?,
        balance.next_expiration,
        next_amount
    ]))
}
