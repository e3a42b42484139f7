//! `record_exa_usage`: one request, in the caller's transaction.

use super::allowance::{Allowance, Charge};
use super::allowance_rows;
use super::journal::{self, Entry};
use super::request::{Arguments, Recorded, Request};
use crate::error::{BillingError, Kind, Result};
use crate::idempotency::{self, KeySpace, Known};
use crate::partitions::{self, Journal};
use crate::spi::{self, Answer, Composite, values};
use crate::time::{self, Instant, Month};
use crate::{books, guc};
use pgrx::prelude::*;
use uuid::Uuid;

/// Records one request.
///
/// Locks, in this order: the partition lock (only when the month has no partition); the user's
/// allowance row (only while the allowance is not used up); the key's index entry. The allowance
/// comes before the key everywhere, so that two retries of one user cannot wait for each other.
pub fn record(request: &Request) -> Result<Recorded> {
    if let Some(replayed) = journal::replay(request)? {
        return Ok(replayed);
    }
    let clock = spi::clock();
    let created_at = happened_at(request.created_at, clock)?;
    let month = created_at.month()?;
    partitions::ensure(Journal::ExaUsageLog, month)?;

    let entry = Entry { usage_id: Uuid::now_v7(), created_at, recorded_at: clock };
    let Some((allowance, charge)) = decide_and_claim(request, &entry, month)? else {
        let replayed = journal::replay(request)?;
        return replayed.ok_or_else(|| BillingError::internal("a claimed key vanished"));
    };
    journal::append(request, &entry, charge)?;
    if charge.free > 0 {
        allowance_rows::count(request.user_id, month, &allowance)?;
    }
    Ok(Recorded {
        usage_id: entry.usage_id,
        created_at,
        cost: request.cost,
        charged: charge.charged,
        free_allowance: Some(allowance.free_microdollars),
        is_replay: false,
    })
}

/// When it happened: as the caller says, or now.
pub fn happened_at(given: Option<Instant>, clock: Instant) -> Result<Instant> {
    match given {
        Some(given) => time::event_time(given, clock, guc::late_usage_limit_seconds()),
        None => Ok(spi::transaction_time()),
    }
}

/// Decides what is free, then claims the key; none when another transaction recorded the key while
/// this one waited for it.
fn decide_and_claim(
    request: &Request,
    entry: &Entry,
    month: Month,
) -> Result<Option<(Allowance, Charge)>> {
    let seen = allowance_rows::read(request.user_id, month)?;
    let work = || {
        let decided = decide(request, month, seen)?;
        Ok(claim_key(request, entry)?.then_some(decided))
    };
    if seen.is_some() || request.key.is_none() {
        return work();
    }
    // The month's first request locks the allowance in; one that turns out to be a replay must
    // leave nothing of that behind.
    spi::in_subtransaction(|| work()?.ok_or_else(lost_key))
        .map(Some)
        .or_else(|failure| if failure.is_ours(&lost_key()) { Ok(None) } else { failure.raise() })
}

/// Only to leave the subtransaction by: nobody sees it.
pub fn lost_key() -> BillingError {
    BillingError::new(Kind::Retry, "the key was recorded by another transaction")
}

/// What is free of it. A used-up allowance is final and read without a lock: an exhausted user's
/// sessions never wait for each other.
fn decide(request: &Request, month: Month, seen: Option<Allowance>) -> Result<(Allowance, Charge)> {
    let mut allowance = match seen {
        Some(allowance) if allowance.is_used_up() => allowance,
        _ => allowance_rows::lock(request.user_id, month)?,
    };
    let charge = allowance.take(request.cost);
    Ok((allowance, charge))
}

fn claim_key(request: &Request, entry: &Entry) -> Result<bool> {
    let Some(key) = request.key else { return Ok(true) };
    let known = key_entry(request, entry);
    idempotency::claim(&KeySpace::exa(request.user_id), key, &known)
}

/// What the key of a request that is recorded now will say.
pub fn key_entry(request: &Request, entry: &Entry) -> Known {
    Known {
        entry_id: entry.usage_id,
        created_at: entry.created_at,
        created_at_given: request.created_at.is_some(),
        payload_hash: request.payload_hash().0.to_vec(),
    }
}

impl Recorded {
    pub fn into_row(self) -> Composite {
        Composite::new(values![
            self.usage_id,
            self.created_at,
            self.cost,
            self.cost - self.charged,
            self.charged,
            self.free_allowance,
            self.is_replay
        ])
    }
}

/// Records one Exa request; the decision free or charged is made here.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "the SQL signature is the contract")]
fn record_exa_usage(
    user_id: Option<&str>,
    path: Option<&str>,
    cost_microdollars: Option<i64>,
    organization_id: Option<&str>,
    idempotency_key: Option<&str>,
    created_at: Option<Instant>,
    feature_id: Option<&str>,
    request_type: Option<&str>,
) -> Answer<Composite> {
    let arguments = Arguments {
        user_id,
        path,
        cost_microdollars,
        organization_id,
        idempotency_key,
        created_at,
        feature_id,
        request_type,
    };
    let request = arguments.check()?;
    books::enter_for_writing("exa_billing.record_exa_usage()")?;
    Ok(record(&request)?.into_row())
}
