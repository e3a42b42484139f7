//! One batch of posting, in the caller's transaction.

use super::bisect::attempt_or_bisect;
use super::candidates;
use crate::accounts;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{self, Failure, Statement, values};

static POST: Statement = Statement::over_queue(include_str!("../../sql/statements/post_batch.sql"));
static ADD_DIMENSIONS: Statement = Statement::over_queue(
    "INSERT INTO exa_billing.spend_dimensions
         (dimension_id, spend_category, source, product_key, feature_key, model_or_plan_key, provider_key)
     SELECT gen_random_uuid(), new.dimension[1], new.dimension[2], new.dimension[3],
            new.dimension[4], new.dimension[5], new.dimension[6]
     FROM (
         SELECT DISTINCT u.dimension
         FROM unnest($1, $2) AS o(owner_kind, owner_id)
         JOIN exa_billing.unposted_spend AS u
             ON u.owner_kind = o.owner_kind AND u.owner_id = o.owner_id
         WHERE u.dimension IS NOT NULL AND u.blocked_reason IS NULL
     ) AS new
     ORDER BY new.dimension
     ON CONFLICT DO NOTHING",
);
static BLOCK: Statement = Statement::over_queue(
    "UPDATE exa_billing.unposted_spend SET blocked_reason = $3
     WHERE owner_kind = $1 AND owner_id = $2 AND blocked_reason IS NULL",
);
static UNBLOCK: Statement = Statement::kept(
    "WITH unblocked AS (
         UPDATE exa_billing.unposted_spend SET blocked_reason = NULL
         WHERE blocked_reason IS NOT NULL RETURNING 1
     )
     SELECT count(*) FROM unblocked",
);

const ROWS_AT_ONCE: i64 = 10_000;

/// Posts up to `max_rows` rows and returns how many were posted.
///
/// Locks, in this order: account rows sorted by (owner_kind, owner_id), skipping those somebody
/// else holds; then their queue rows; then the figures of these owners. Owners whose account is
/// busy keep their rows in the queue, where every read counts them.
pub fn post(max_rows: i64) -> Result<i64> {
    let candidates = candidates::next(max_rows)?;
    let wanted: Vec<Owner> = candidates.owners.into_iter().collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let owners = accounts::lock_unless_busy(&wanted)?;
    if candidates.has_new_dimensions {
        let (kinds, ids) = accounts::columns(&owners);
        ADD_DIMENSIONS.execute(values![kinds, ids])?;
    }
    let mut rows_left = max_rows;
    attempt_or_bisect(
        &owners,
        &mut |owners| {
            let posted = spi::in_subtransaction(|| post_owners(owners, rows_left))?;
            rows_left -= posted;
            Ok(posted)
        },
        &mut block,
    )
}

/// Posts everything of one owner that can be posted.
///
/// Locks: the owner's account row, which the caller has taken; then queue rows and figures.
pub fn post_owner(owner: &Owner) -> Result<()> {
    let owners = std::slice::from_ref(owner);
    let (kinds, ids) = accounts::columns(owners);
    ADD_DIMENSIONS.execute(values![kinds, ids])?;
    loop {
        match spi::in_subtransaction(|| post_owners(owners, ROWS_AT_ONCE)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(failure) => return block(owner, failure),
        }
    }
}

fn post_owners(owners: &[Owner], max_rows: i64) -> Result<i64> {
    if max_rows == 0 {
        return Ok(0);
    }
    let (kinds, ids) = accounts::columns(owners);
    let counts = POST.write_row(values![kinds, ids, max_rows], |row| {
        Ok((row.get::<i64>(1)?, row.get::<i64>(2)?))
    })?;
    match counts {
        Some((entries, deleted)) if entries == deleted => Ok(deleted),
        _ => Err(BillingError::internal("a queue row names a dimension that does not exist")),
    }
}

/// An owner whose data cannot be posted is set aside, counted by every read; anything else (a
/// cancelled statement, a serialization failure) is the caller's to hear.
fn block(owner: &Owner, failure: Failure) -> Result<()> {
    if !failure.is_of_data() {
        return failure.raise();
    }
    let reason = failure.message();
    pgrx::warning!("spend of {} {} cannot be posted: {reason}", owner.kind.as_str(), owner.id);
    BLOCK.execute(values![owner.kind.as_str(), &owner.id, &reason])
}

pub fn unblock_all() -> Result<i64> {
    Ok(UNBLOCK.write_row(&[], |row| row.get::<i64>(1))?.unwrap_or_default())
}
