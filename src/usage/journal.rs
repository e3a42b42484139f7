//! The journal of Exa requests: what a charge writes, and reading back what a key recorded.

use super::allowance::Charge;
use super::request::{Journaled, Recorded, Request};
use crate::error::{BillingError, Result};
use crate::idempotency::{self, KeySpace, Known};
use crate::owner::Owner;
use crate::partitions::Journal;
use crate::sources::{self, EXA, Waiting, exa_dimension_id};
use crate::spi::{Appended, Statement, values};
use crate::time::Instant;
use uuid::Uuid;

/// Fresh, so that only the one partition is locked.
static RECORDED: Statement = Statement::fresh(
    "SELECT l.organization_id, l.path, l.cost_microdollars, l.charged_microdollars, l.feature_id,
            l.request_type, a.free_allowance_microdollars
     FROM exa_billing.exa_usage_log AS l
     LEFT JOIN exa_billing.exa_monthly_allowance AS a
         ON a.user_id = l.user_id
        AND a.month = date_trunc('month', l.created_at AT TIME ZONE 'UTC')::date
     WHERE l.usage_id = $1 AND l.created_at = $2",
);

/// Where a new journal row stands in time.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub usage_id: Uuid,
    pub created_at: Instant,
    pub recorded_at: Instant,
}

static JOURNAL: Appended = Appended::new(
    &[
        "usage_id",
        "user_id",
        "organization_id",
        "path",
        "cost_microdollars",
        "charged_microdollars",
        "charged_to_balance",
        "feature_id",
        "request_type",
        "created_at",
        "recorded_at",
    ],
    Statement::kept(
        "INSERT INTO exa_billing.exa_usage_log
             (usage_id, user_id, organization_id, path, cost_microdollars, charged_microdollars,
              charged_to_balance, feature_id, request_type, created_at, recorded_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    ),
);

/// Writes the whole of a charge: the journal row and its queue row. Nothing shared is touched; posting
/// does that later.
pub fn append(request: &Request, entry: &Entry, charge: Charge) -> Result<()> {
    let log = Journal::ExaUsageLog;
    JOURNAL.append(
        &log.partition(entry.created_at.month()?),
        Some(log.table()),
        values![
            entry.usage_id,
            request.user_id,
            request.organization_id,
            request.path,
            request.cost,
            charge.charged,
            charge.charged > 0,
            request.feature_id,
            request.request_type,
            entry.created_at,
            entry.recorded_at
        ],
    )?;
    sources::queue(&Waiting {
        owner: Owner::of_request(request.user_id, request.organization_id),
        entry_id: entry.usage_id,
        journal: EXA,
        actor_user_id: request.organization_id.map(|_| request.user_id),
        cost_microdollars: Some(request.cost),
        amount_microdollars: charge.charged,
        spend_record_count: i64::from(charge.charged > 0),
        dimension_id: exa_dimension_id(request.path),
        created_at: entry.created_at,
    })
}

/// The first result of the request's key, if the key is known; an error if it recorded
/// something else.
pub fn replay(request: &Request) -> Result<Option<Recorded>> {
    let Some(key) = request.key else { return Ok(None) };
    match idempotency::find(&KeySpace::exa(request.user_id), key)? {
        Some(known) => replay_of(request, key, &known).map(Some),
        None => Ok(None),
    }
}

pub fn replay_of(request: &Request, key: &str, known: &Known) -> Result<Recorded> {
    let journaled = RECORDED.write_row(values![known.entry_id, known.created_at], |row| {
        Ok(Journaled {
            organization_id: row.maybe(1)?,
            path: row.get(2)?,
            cost: row.get(3)?,
            charged: row.get(4)?,
            feature_id: row.maybe(5)?,
            request_type: row.maybe(6)?,
            free_allowance: row.maybe(7)?,
        })
    })?;
    let journaled = journaled
        .ok_or_else(|| BillingError::internal("a key names a journal row that is not there"))?;
    if !known.is_same_call(request.payload_hash(), request.created_at) {
        return Err(idempotency::reused(key, &request.compared_with(known, &journaled)));
    }
    Ok(Recorded {
        usage_id: known.entry_id,
        created_at: known.created_at,
        cost: journaled.cost,
        charged: journaled.charged,
        free_allowance: journaled.free_allowance,
        is_replay: true,
    })
}
