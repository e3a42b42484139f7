//! Degraded intervals: hours whose rollups are not trusted, so that reads take them from the
//! journals until somebody has resolved the interval.

use super::hours::{Hours, merged_with};
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::owner::{self, MAX_DESCRIPTION_CHARS, Owner};
use crate::spi::{self, Answer, Statement, values};
use crate::time::Instant;
use pgrx::prelude::*;
use uuid::Uuid;

const INTERVAL_LOCK: i32 = 4;

static OPEN_INTERVALS: Statement = Statement::kept(
    "SELECT interval_id, from_hour, to_hour FROM exa_billing.spend_degraded_intervals
     WHERE resolved_at IS NULL AND reason = $1
       AND owner_kind IS NOT DISTINCT FROM $2 AND owner_id IS NOT DISTINCT FROM $3
     ORDER BY detected_at, interval_id",
);
static ADD: Statement = Statement::kept(
    "INSERT INTO exa_billing.spend_degraded_intervals
         (interval_id, owner_kind, owner_id, from_hour, to_hour, reason, detected_at, resolved_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, NULL)",
);
static WIDEN: Statement = Statement::kept(
    "UPDATE exa_billing.spend_degraded_intervals SET from_hour = $2, to_hour = $3
     WHERE interval_id = $1 AND resolved_at IS NULL RETURNING true",
);
static REMOVE: Statement = Statement::kept(
    "DELETE FROM exa_billing.spend_degraded_intervals
     WHERE interval_id = ANY ($1) AND resolved_at IS NULL RETURNING true",
);
static RESOLVE: Statement = Statement::kept(
    "UPDATE exa_billing.spend_degraded_intervals SET resolved_at = $2
     WHERE interval_id = $1 AND resolved_at IS NULL RETURNING true",
);
static IS_RESOLVED: Statement = Statement::kept(
    "SELECT resolved_at IS NOT NULL FROM exa_billing.spend_degraded_intervals WHERE interval_id = $1",
);

/// Notes that the hours are not trusted. Open intervals of the same owner and reason that overlap
/// or touch become one, which keeps the oldest's id.
///
/// Locks: the lock of degraded intervals, until the transaction ends; then their rows.
pub fn record(owner: Option<&Owner>, hours: Hours, reason: &str) -> Result<Uuid> {
    spi::lock_until_commit(INTERVAL_LOCK)?;
    let kind = owner.map(|owner| owner.kind.as_str());
    let id = owner.map(|owner| owner.id.as_str());
    // Also a transaction with an older snapshot decides on what is there under the lock.
    let open = spi::on_latest_snapshot(|| {
        OPEN_INTERVALS.read(values![reason, kind, id], |row| {
            Ok((row.get::<Uuid>(1)?, Hours { from: row.get(2)?, to: row.get(3)? }))
        })
    })?;
    let present: Vec<Hours> = open.iter().map(|(_, hours)| *hours).collect();
    let (whole, met) = merged_with(hours, &present);
    let mut met = met.into_iter().map(|place| open[place].0);
    let Some(oldest) = met.next() else {
        let new = Uuid::now_v7();
        ADD.execute(values![new, kind, id, whole.from, whole.to, reason, spi::clock()])?;
        return Ok(new);
    };
    let others: Vec<Uuid> = met.collect();
    let expected = others.len();
    let removed = REMOVE.write(values![others], |_| Ok(()))?.len();
    let widened = WIDEN.write(values![oldest, whole.from, whole.to], |_| Ok(()))?.len();
    if removed != expected || widened != 1 {
        return Err(older_snapshot());
    }
    Ok(oldest)
}

/// True when the interval was open.
///
/// Locks: as `record`.
fn resolve(id: Uuid) -> Result<bool> {
    spi::lock_until_commit(INTERVAL_LOCK)?;
    if !RESOLVE.write(values![id, spi::clock()], |_| Ok(()))?.is_empty() {
        return Ok(true);
    }
    let found =
        spi::on_latest_snapshot(|| IS_RESOLVED.read_row(values![id], |row| row.get::<bool>(1)))?;
    match found {
        Some(true) => Ok(false),
        Some(false) => Err(older_snapshot()),
        None => Err(BillingError::new(Kind::Unknown, "there is no degraded interval with this id")
            .detail(format!("interval_id is {id}."))
            .hint("An interval that met an older one of the same reason has become part of it; SELECT * FROM exa_billing.spend_degraded_intervals.")),
    }
}

fn older_snapshot() -> BillingError {
    BillingError::new(Kind::Retry, "degraded intervals have changed since this transaction began")
        .hint("Retry the transaction.")
}

/// Notes hours whose rollups are not to be trusted, of one owner or of all; returns the interval.
#[pg_extern(sql = false)]
fn record_degraded_interval(
    from_hour: Option<Instant>,
    to_hour: Option<Instant>,
    reason: Option<&str>,
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
) -> Answer<pgrx::Uuid> {
    let hours = Hours::parse(from_hour, to_hour)?;
    let reason = reason.ok_or_else(|| BillingError::missing("reason"))?;
    if reason.trim().is_empty() {
        return Err(BillingError::invalid("reason must not be empty")
            .hint("Say why the rollups of these hours cannot be trusted.")
            .into());
    }
    let reason = owner::bounded("reason", reason, MAX_DESCRIPTION_CHARS)?;
    let owner = match (owner_kind, owner_id) {
        (None, None) => None,
        _ => Some(Owner::parse(owner_kind, owner_id)?),
    };
    books::enter_for_writing("exa_billing.record_degraded_interval()")?;
    Ok(spi::uuid(record(owner.as_ref(), hours, reason)?))
}

/// Ends a degraded interval; false when it had been ended before.
#[pg_extern(sql = false)]
fn resolve_degraded_interval(interval_id: Option<pgrx::Uuid>) -> Answer<bool> {
    let id = interval_id.ok_or_else(|| BillingError::missing("interval_id"))?;
    books::enter_for_writing("exa_billing.resolve_degraded_interval()")?;
    Ok(resolve(Uuid::from_bytes(*id.as_bytes()))?)
}
