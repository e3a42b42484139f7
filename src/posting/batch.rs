//! One batch of posting, in the caller's transaction.

use super::candidates::{self, Whose};
use super::figures::{Entry, Figures};
use super::targets;
use crate::accounts::Locked;
use crate::bisect::attempt_or_bisect;
use crate::error::Result;
use crate::owner::Owner;
use crate::sources::Category;
use crate::spi::{self, Failure, Statement, values};
use crate::transaction::TransactionId;
use crate::{accounts, books, events};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

static TAKE: Statement = Statement::over_queue(include_str!("../../sql/statements/take_batch.sql"));
static CATEGORIES: Statement = Statement::kept(
    "SELECT dimension_id, spend_category FROM exa_billing.spend_dimensions
     WHERE dimension_id = ANY ($1)",
);
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

/// What a batch has done.
pub struct Posted {
    pub rows: i64,
    /// Whether everybody in the queue was come to in this turn.
    pub is_end_of_turn: bool,
}

/// Posts up to `max_rows` rows: none only when there is none that could be.
///
/// Locks, in this order: account rows sorted by (owner_kind, owner_id), skipping those somebody
/// else holds; the dimension lock (tried, only for new dimensions); then their queue rows; then
/// the figures of these owners. Owners whose account is busy keep their rows in the queue, where
/// every read counts them.
pub fn post(whose: Whose, max_rows: i64) -> Result<Posted> {
    let mut posted = 0;
    let mut was_at_end = whose == Whose::Gathered;
    loop {
        let candidates = candidates::next(whose, max_rows - posted)?;
        let rows = post_candidates(&candidates.owners, max_rows - posted)?;
        posted += rows;
        // For everybody the queue is read on from its beginning, to its end once more.
        let is_end_of_turn = candidates.are_last && (candidates.are_first || was_at_end);
        was_at_end |= candidates.are_last;
        let is_enough = posted >= max_rows || whose == Whose::Gathered && rows > 0;
        if is_end_of_turn || is_enough {
            return Ok(Posted { rows: posted, is_end_of_turn });
        }
    }
}

fn post_candidates(owners: &[Owner], max_rows: i64) -> Result<i64> {
    if owners.is_empty() {
        return Ok(0);
    }
    let locked = accounts::lock_unless_busy(owners)?;
    add_dimensions(locked.iter().map(|locked| &locked.owner))?;
    post_or_block(&locked, max_rows)
}

/// How many rows were posted. An owner whose figures cannot be written is set aside.
fn post_or_block(owners: &[Locked], max_rows: i64) -> Result<i64> {
    let mut posted = 0;
    attempt_or_bisect(
        owners,
        &mut |owners| match spi::in_subtransaction(|| post_owners(owners, max_rows - posted)) {
            Ok(rows) => {
                posted += rows;
                Ok(Ok(rows))
            }
            Err(failure) if failure.is_of_data() => Ok(Err(failure)),
            // A cancelled statement, a serialization failure: the caller's to hear.
            Err(failure) => failure.raise(),
        },
        &mut |locked, failure| block(&locked.owner, &failure),
    )?;
    Ok(posted)
}

/// Makes the dimensions known that these owners' rows bring along. When another transaction is
/// doing that, the rows wait for a later batch.
fn add_dimensions<'a>(owners: impl Iterator<Item = &'a Owner>) -> Result<()> {
    if ANY_NEW.write_row(&[], |row| row.get::<bool>(1))? != Some(true) {
        return Ok(());
    }
    if !spi::try_lock_until_commit(DIMENSION_LOCK)? {
        return Ok(());
    }
    let (kinds, ids) = targets::columns(owners);
    ADD_DIMENSIONS.execute(values![kinds, ids])
}

/// Posts everything of one owner that can be posted.
///
/// Locks: the owner's account row, which the caller has taken; then queue rows and figures.
pub fn post_owner(owner: &Owner) -> Result<()> {
    add_dimensions(std::iter::once(owner))?;
    loop {
        let posted_before = accounts::begin_of_unposted(owner)?;
        let locked = [Locked { owner: owner.clone(), posted_before }];
        match spi::in_subtransaction(|| post_owners(&locked, ROWS_AT_ONCE)) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(failure) if failure.is_of_data() => return block(owner, &failure),
            Err(failure) => return failure.raise(),
        }
    }
}

fn post_owners(owners: &[Locked], max_rows: i64) -> Result<i64> {
    if max_rows == 0 {
        return Ok(0);
    }
    let entries = take(owners, max_rows)?;
    let rows = entries.iter().map(|entry| entry.rows).sum();
    let figures = Figures::of(&entries, &categories(&entries)?)?;
    targets::add_to_months(&figures)?;
    let has_minimum = targets::add_to_accounts(&figures)?;
    if figures.accounts.is_empty() {
        return Ok(rows);
    }
    if books::have_reached(books::WITH_ALERTS) {
        targets::queue_evaluations(&figures)?;
    }
    targets::add_to_member_days(&figures)?;
    targets::add_to_totals(&figures)?;
    targets::add_to_drivers(&figures)?;
    if has_minimum {
        let owners: Vec<Owner> = owners.iter().map(|locked| locked.owner.clone()).collect();
        events::check_low_balances(&owners)?;
    }
    Ok(rows)
}

/// Takes rows out of the queue. What they add up to must be added to the figures by this same
/// (sub)transaction.
fn take(owners: &[Locked], max_rows: i64) -> Result<Vec<Entry>> {
    let (kinds, ids) = targets::columns(owners.iter().map(|locked| &locked.owner));
    let from: Vec<TransactionId> = owners.iter().map(|locked| locked.posted_before).collect();
    TAKE.write(values![kinds, ids, from, max_rows], |row| {
        Ok(Entry {
            owner: accounts::owner_of(row, 1)?,
            actor_user_id: row.get(3)?,
            dimension_id: row.get(4)?,
            hour_start: row.get(5)?,
            rows: row.get(6)?,
            requests: row.get(7)?,
            cost_microdollars: row.get(8)?,
            charged_microdollars: row.get(9)?,
            amount_microdollars: row.get(10)?,
            spend_record_count: row.get(11)?,
            may_be_own: row.get(12)?,
            posted_before: row.get(13)?,
        })
    })
}

fn categories(entries: &[Entry]) -> Result<BTreeMap<Uuid, Category>> {
    let named: BTreeSet<Uuid> = entries.iter().map(|entry| entry.dimension_id).collect();
    let named: Vec<Uuid> = named.into_iter().collect();
    let known = CATEGORIES.write(values![named], |row| {
        Ok((row.get(1)?, Category::parse(Some(&row.get::<String>(2)?))?))
    })?;
    Ok(known.into_iter().collect())
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
