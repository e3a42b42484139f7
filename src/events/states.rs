//! The row under whose lock everything about an owner's alerts and suggestions is written.

use crate::accounts;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{Statement, values};

static LOCK: Statement = Statement::over_queue(
    "SELECT true FROM exa_billing.spend_alert_states WHERE owner_kind = $1 AND owner_id = $2 FOR UPDATE",
);
// Not the opening lock of accounts (seed 0): posting tries that one, and would leave out an owner
// whose settings are just being changed.
static LOCK_OPENING: Statement = Statement::kept(
    "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1 || '/' || $2, 1))",
);
static OPEN: Statement = Statement::kept(
    "INSERT INTO exa_billing.spend_alert_states
         (owner_kind, owner_id, last_evaluated_at, last_anomaly_hour)
     VALUES ($1, $2, NULL, NULL) ON CONFLICT DO NOTHING",
);

/// Locks the owner's row in spend_alert_states, making it when there is none: settings, evaluations,
/// acknowledgements and dismissals of one owner then come one after the other.
///
/// Locks: the opening lock of the owner's state (only when there is no row), then the row. Both
/// wait. They come after account rows and the queue.
pub fn lock_state(owner: &Owner) -> Result<()> {
    if lock_existing(owner)? {
        return Ok(());
    }
    let key = values![owner.kind.as_str(), &owner.id];
    LOCK_OPENING.execute(key)?;
    OPEN.execute(key)?;
    match lock_existing(owner)? {
        true => Ok(()),
        false => Err(BillingError::internal("the state of an owner vanished while it was made")),
    }
}

/// Locks the owner's row, if there is one, so that it can be deleted: nobody makes one meanwhile.
///
/// Locks: the opening lock of the owner's state, then the row. Both wait.
pub fn lock_state_to_delete(owner: &Owner) -> Result<()> {
    LOCK_OPENING.execute(values![owner.kind.as_str(), &owner.id])?;
    lock_existing(owner)?;
    Ok(())
}

fn lock_existing(owner: &Owner) -> Result<bool> {
    let found =
        LOCK.write_row(values![owner.kind.as_str(), &owner.id], |row| row.get::<bool>(1))?;
    Ok(found.is_some())
}

static OPEN_UNLESS_BUSY: Statement = Statement::over_queue(
    "WITH missing AS MATERIALIZED (
         SELECT o.owner_kind, o.owner_id FROM unnest($1, $2) AS o(owner_kind, owner_id)
         WHERE NOT EXISTS (
             SELECT FROM exa_billing.spend_alert_states AS s
             WHERE s.owner_kind = o.owner_kind AND s.owner_id = o.owner_id)
         LIMIT $3
     ), not_busy AS MATERIALIZED (
         SELECT owner_kind, owner_id FROM missing
         WHERE pg_catalog.pg_try_advisory_xact_lock(
             pg_catalog.hashtextextended(owner_kind || '/' || owner_id, 1))
     )
     INSERT INTO exa_billing.spend_alert_states
         (owner_kind, owner_id, last_evaluated_at, last_anomaly_hour)
     SELECT owner_kind, owner_id, NULL, NULL FROM not_busy
     ORDER BY owner_kind, owner_id
     ON CONFLICT DO NOTHING RETURNING owner_id",
);
static LOCK_UNLESS_BUSY: Statement = Statement::over_queue(
    "SELECT s.owner_kind, s.owner_id
     FROM exa_billing.spend_alert_states AS s
     JOIN unnest($1, $2) AS o(owner_kind, owner_id)
         ON s.owner_kind = o.owner_kind AND s.owner_id = o.owner_id
     ORDER BY s.owner_kind, s.owner_id
     FOR UPDATE OF s SKIP LOCKED",
);

/// Each row made takes one advisory lock until commit. The lock table is everybody's, charges
/// included: this many are few in any.
pub const MAX_STATES_OPENED: usize = 1000;

/// Locks the rows of those owners that nobody else has locked, in order, making rows that are
/// missing, at most so many; waits for nobody. Returns the owners, and how many rows it made.
///
/// Locks: opening locks (tried), then rows sorted by (owner_kind, owner_id), skipping locked ones.
pub fn lock_states_unless_busy(owners: &[Owner], max_opened: usize) -> Result<(Vec<Owner>, usize)> {
    let (kinds, ids) = accounts::columns(owners);
    let limit = i64::try_from(max_opened).unwrap_or(i64::MAX);
    let opened = OPEN_UNLESS_BUSY.write(values![kinds.clone(), ids.clone(), limit], |_| Ok(()))?;
    let locked = LOCK_UNLESS_BUSY.write(values![kinds, ids], |row| accounts::owner_of(row, 1))?;
    Ok((locked, opened.len()))
}
