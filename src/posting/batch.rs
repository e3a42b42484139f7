//! One batch of posting, in the caller's transaction.

use super::candidates;
use crate::bisect::attempt_or_bisect;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{self, Failure, Statement, values};
use crate::{accounts, books, events, guc};

static POST: Statement = Statement::over_queue(concat!(
    include_str!("../../sql/statements/post_batch.sql"),
    include_str!("../../sql/statements/post_evaluations.sql"),
    include_str!("../../sql/statements/post_figures.sql"),
));
/// On books that have no alerts yet: nobody is evaluated.
static POST_ONLY: Statement = Statement::over_queue(concat!(
    include_str!("../../sql/statements/post_batch.sql"),
    include_str!("../../sql/statements/post_figures.sql"),
));
static ANY_NEW: Statement = Statement::over_queue(
    "SELECT EXISTS (SELECT FROM exa_billing.unposted_spend WHERE dimension IS NOT NULL)",
);
static ADD_DIMENSIONS: Statement = Statement::over_queue(
    "INSERT INTO exa_billing.spend_dimensions
         (dimension_id, spend_category, source, product_key, feature_key, model_or_plan_key, provider_key)
     SELECT gen_random_uuid(), new.dimension[1], new.dimension[2], new.dimension[3],
            new.dimension[4], new.dimension[5], new.dimension[6]
     FROM (
         SELECT DISTINCT waiting.dimension
         FROM unnest($1, $2) AS o(owner_kind, owner_id)
         CROSS JOIN LATERAL (
             SELECT u.dimension FROM exa_billing.unposted_spend AS u
             WHERE u.owner_kind = o.owner_kind AND u.owner_id = o.owner_id
               AND u.dimension IS NOT NULL AND u.blocked_reason IS NULL
         ) AS waiting
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

/// A row that another transaction is inserting cannot be skipped, only waited for, and posting waits for
/// nobody: whoever adds dimensions holds this lock, and tries it first.
pub const DIMENSION_LOCK: i32 = 3;
const ROWS_AT_ONCE: i64 = 10_000;

/// Posts up to `max_rows` rows and returns how many were posted.
///
/// Locks, in this order: account rows sorted by (owner_kind, owner_id), skipping those somebody
/// else holds; the dimension lock (tried, only for new dimensions); then their queue rows; then
/// the figures of these owners. Owners whose account is busy keep their rows in the queue, where
/// every read counts them.
pub fn post(max_rows: i64) -> Result<i64> {
    let wanted = candidates::next(max_rows)?;
    if wanted.is_empty() {
        return Ok(0);
    }
    let owners = accounts::lock_unless_busy(&wanted)?;
    if owners.is_empty() {
        return Ok(0);
    }
    add_dimensions(&owners)?;
    // Everybody gets a share first; only then do those with more to post get the rest.
    let count = i64::try_from(owners.len()).unwrap_or(i64::MAX);
    let share = (max_rows / count).max(1);
    let first = post_or_block(&owners, max_rows, share)?;
    if first.moved == max_rows || first.most_of_one_owner < share {
        return Ok(first.moved);
    }
    let rest = max_rows - first.moved;
    Ok(first.moved + post_or_block(&owners, rest, rest)?.moved)
}

/// What one statement has moved.
#[derive(Default, Clone, Copy)]
struct Moved {
    moved: i64,
    most_of_one_owner: i64,
}

fn post_or_block(owners: &[Owner], max_rows: i64, share: i64) -> Result<Moved> {
    let mut total = Moved::default();
    attempt_or_bisect(
        owners,
        &mut |owners| {
            let rows_left = max_rows - total.moved;
            match spi::in_subtransaction(|| post_owners(owners, rows_left, share)) {
                Ok(moved) => {
                    total.moved += moved.moved;
                    total.most_of_one_owner = total.most_of_one_owner.max(moved.most_of_one_owner);
                    Ok(Ok(moved.moved))
                }
                Err(failure) if failure.is_of_data() => Ok(Err(failure)),
                // A cancelled statement, a serialization failure: the caller's to hear.
                Err(failure) => failure.raise(),
            }
        },
        &mut |owner, failure| block(owner, &failure),
    )?;
    Ok(total)
}

/// Makes the dimensions known that these owners' rows bring along. When another transaction is
/// doing that, the rows wait for a later batch.
fn add_dimensions(owners: &[Owner]) -> Result<()> {
    if ANY_NEW.write_row(&[], |row| row.get::<bool>(1))? != Some(true) {
        return Ok(());
    }
    if !spi::try_lock_until_commit(DIMENSION_LOCK)? {
        return Ok(());
    }
    let (kinds, ids) = accounts::columns(owners);
    ADD_DIMENSIONS.execute(values![kinds, ids])
}

/// Posts everything of one owner that can be posted.
///
/// Locks: the owner's account row, which the caller has taken; then queue rows and figures.
pub fn post_owner(owner: &Owner) -> Result<()> {
    let owners = std::slice::from_ref(owner);
    add_dimensions(owners)?;
    loop {
        match spi::in_subtransaction(|| post_owners(owners, ROWS_AT_ONCE, ROWS_AT_ONCE)) {
            Ok(Moved { moved: 0, .. }) => return Ok(()),
            Ok(_) => {}
            Err(failure) if failure.is_of_data() => return block(owner, &failure),
            Err(failure) => return failure.raise(),
        }
    }
}

fn post_owners(owners: &[Owner], max_rows: i64, share: i64) -> Result<Moved> {
    if max_rows == 0 {
        return Ok(Moved::default());
    }
    let (kinds, ids) = accounts::columns(owners);
    let delay = guc::evaluation_delay_microseconds();
    let post = if books::have_reached(books::WITH_ALERTS) { &POST } else { &POST_ONLY };
    let counts = post.write_row(values![kinds, ids, max_rows, share, delay], |row| {
        Ok((row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<i64>(3)?, row.get::<bool>(4)?))
    })?;
    let Some((entries, moved, most_of_one_owner, has_minimum)) = counts else {
        return Err(BillingError::internal("posting told nothing"));
    };
    if entries != moved {
        return Err(BillingError::internal("a queue row names a dimension that does not exist"));
    }
    if has_minimum {
        events::check_low_balances(owners)?;
    }
    Ok(Moved { moved, most_of_one_owner })
}

/// Sets an owner's rows aside; every read goes on counting them.
fn block(owner: &Owner, failure: &Failure) -> Result<()> {
    let reason = failure.message();
    let kind = owner.kind.as_str();
    spi::warn(&format!("spend of {kind} {} cannot be posted: {reason}", owner.id));
    BLOCK.execute(values![kind, &owner.id, &reason])
}

pub fn unblock_all() -> Result<i64> {
    Ok(UNBLOCK.write_row(&[], |row| row.get::<i64>(1))?.unwrap_or_default())
}
