//! Account rows: one per spend owner, and the lock under which all posted state of the owner is
//! written.

use crate::error::{BillingError, Result};
use crate::owner::{Owner, OwnerKind};
use crate::spi::{self, Key, Lookup, Row, Statement, values};
use crate::time::Instant;
use crate::transaction::TransactionId;
use std::collections::BTreeSet;

/// An owner whose account row this transaction has locked.
#[derive(Debug, Clone)]
pub struct Locked {
    pub owner: Owner,
    /// Rows of the queue that transactions before this one have queued are posted.
    pub posted_before: TransactionId,
}

/// What an account says; unposted spend is not in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub acquired: i64,
    pub used: i64,
    pub next_expiration: Option<Instant>,
    /// Rows of the queue that transactions before this one have queued are posted.
    pub posted_before: TransactionId,
}

static READ: Lookup = Lookup {
    table: "accounts",
    primary_key: "accounts_pkey",
    columns: &[
        "owner_kind",
        "owner_id",
        "total_microdollars_acquired",
        "microdollars_used",
        "next_credit_expiration_at",
        "minimum_balance_microdollars",
        "low_balance_since",
        "opened_at",
        "posted_before",
        "posted_where",
    ],
    key: &[Key::Is(1), Key::Is(2)],
    select: Statement::kept(
        "SELECT owner_kind, owner_id, total_microdollars_acquired, microdollars_used,
                next_credit_expiration_at, minimum_balance_microdollars, low_balance_since, opened_at,
                posted_before, posted_where
         FROM exa_billing.accounts WHERE owner_kind = $1 AND owner_id = $2",
    ),
};
static LOCK: Statement = Statement::kept(
    "SELECT true FROM exa_billing.accounts WHERE owner_kind = $1 AND owner_id = $2 FOR UPDATE",
);
// A row that is being inserted cannot be skipped by SKIP LOCKED, only waited for. So whoever
// opens an account holds this lock, and posting, which must never wait for an open transaction,
// tries it first.
static LOCK_OPENING: Statement = Statement::kept(
    "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended($1 || '/' || $2, 0))",
);
static OPEN: Statement = Statement::kept(
    "INSERT INTO exa_billing.accounts
         (owner_kind, owner_id, total_microdollars_acquired, microdollars_used, opened_at)
     VALUES ($1, $2, 0, 0, pg_catalog.now()) ON CONFLICT DO NOTHING",
);
static RENEW: Statement = Statement::kept(
    "UPDATE exa_billing.accounts SET opened_at = opened_at
     WHERE owner_kind = $1 AND owner_id = $2",
);
static OPEN_UNLESS_BUSY: Statement = Statement::kept(
    "WITH missing AS MATERIALIZED (
         SELECT o.owner_kind, o.owner_id FROM unnest($1, $2) AS o(owner_kind, owner_id)
         WHERE NOT EXISTS (
             SELECT FROM exa_billing.accounts AS a
             WHERE a.owner_kind = o.owner_kind AND a.owner_id = o.owner_id)
         LIMIT $3
     ), not_busy AS MATERIALIZED (
         SELECT owner_kind, owner_id FROM missing
         WHERE pg_catalog.pg_try_advisory_xact_lock(
             pg_catalog.hashtextextended(owner_kind || '/' || owner_id, 0))
     )
     INSERT INTO exa_billing.accounts
         (owner_kind, owner_id, total_microdollars_acquired, microdollars_used, opened_at)
     SELECT owner_kind, owner_id, 0, 0, pg_catalog.now() FROM not_busy
     ORDER BY owner_kind, owner_id
     ON CONFLICT DO NOTHING
     RETURNING owner_kind, owner_id, posted_before, posted_where",
);
static LOCK_UNLESS_BUSY: Statement = Statement::kept(
    "SELECT a.owner_kind, a.owner_id, a.posted_before, a.posted_where
     FROM exa_billing.accounts AS a
     JOIN unnest($1, $2) AS o(owner_kind, owner_id)
         ON a.owner_kind = o.owner_kind AND a.owner_id = o.owner_id
     ORDER BY a.owner_kind, a.owner_id
     FOR UPDATE OF a SKIP LOCKED",
);

/// Each account opened takes one advisory lock until commit; this many fit any lock table.
const MAX_OPENED_AT_ONCE: i64 = 500;

/// As the caller's snapshot shows it; zeros where there is no account.
pub fn read(owner: &Owner) -> Result<Figures> {
    let found = READ.read(values![owner.kind.as_str(), &owner.id], |row| {
        Ok(Figures {
            acquired: row.get(3)?,
            used: row.get(4)?,
            next_expiration: row.maybe(5)?,
            posted_before: posted_before(row, 9)?,
        })
    })?;
    Ok(found.first().copied().unwrap_or_default())
}

/// Where the rows of an owner begin in the queue that are not posted; read by posting, on a fresh snapshot.
pub fn begin_of_unposted(owner: &Owner) -> Result<TransactionId> {
    let found = READ.find(values![owner.kind.as_str(), &owner.id], |row| posted_before(row, 9))?;
    Ok(found.unwrap_or_default())
}

/// Zero, which leaves out none, where the number is of another queue.
fn posted_before(row: &Row, column: usize) -> Result<TransactionId> {
    let is_of_here = row.maybe(column + 1)? == Some(place_of_queue());
    Ok(if is_of_here { row.maybe(column)?.unwrap_or_default() } else { TransactionId::default() })
}

/// What `posted_where` says of this server's queue.
pub fn place_of_queue() -> i64 {
    spi::place_of("unposted_spend")
}

/// Locks the owner's account row, opening the account when there is none.
///
/// Locks: the opening lock of the owner (only when there is no account), then the row.
pub fn lock(owner: &Owner) -> Result<()> {
    if lock_existing(owner)? {
        return Ok(());
    }
    let key = values![owner.kind.as_str(), &owner.id];
    LOCK_OPENING.execute(key)?;
    OPEN.execute(key)?;
    match lock_existing(owner)? {
        true => Ok(()),
        false => Err(BillingError::internal("an account vanished while it was being opened")),
    }
}

/// Locks the owner's account row; false when there is no account.
pub fn lock_existing(owner: &Owner) -> Result<bool> {
    let found =
        LOCK.write_row(values![owner.kind.as_str(), &owner.id], |row| row.get::<bool>(1))?;
    Ok(found.is_some())
}

/// Locks the owner's account row for a decision on the balance, and writes it anew: a
/// transaction with an older snapshot, which cannot see what is decided here, then fails with
/// 40001 instead of deciding the same once more.
pub fn lock_for_decision(owner: &Owner) -> Result<()> {
    lock(owner)?;
    RENEW.execute(values![owner.kind.as_str(), &owner.id])
}

/// Locks the account rows of those owners that nobody else has locked, opening accounts that are
/// missing; waits for nobody. Returns them sorted.
///
/// Locks: rows sorted by (owner_kind, owner_id), skipping locked ones; then opening locks (tried).
pub fn lock_unless_busy(owners: &[Owner]) -> Result<Vec<Locked>> {
    let (kinds, ids) = columns(owners);
    let mut locked = LOCK_UNLESS_BUSY.write(values![kinds, ids], locked_of)?;
    if locked.len() < owners.len() {
        let found: BTreeSet<&Owner> = locked.iter().map(|locked| &locked.owner).collect();
        let others: BTreeSet<&Owner> = owners.iter().collect();
        let others: Vec<Owner> = others.difference(&found).copied().cloned().collect();
        let (kinds, ids) = columns(&others);
        let opened = values![kinds, ids, MAX_OPENED_AT_ONCE];
        locked.extend(OPEN_UNLESS_BUSY.write(opened, locked_of)?);
        locked.sort_unstable_by(|one, other| one.owner.cmp(&other.owner));
    }
    Ok(locked)
}

fn locked_of(row: &Row) -> Result<Locked> {
    Ok(Locked { owner: owner_of(row, 1)?, posted_before: posted_before(row, 3)? })
}

/// Owners as two array arguments.
pub fn columns(owners: &[Owner]) -> (Vec<&str>, Vec<&str>) {
    owners.iter().map(|owner| (owner.kind.as_str(), owner.id.as_str())).unzip()
}

/// An owner out of two columns.
pub fn owner_of(row: &Row, kind_column: usize) -> Result<Owner> {
    let kind = OwnerKind::parse(Some(&row.get::<String>(kind_column)?))?;
    Ok(Owner { kind, id: row.get(kind_column + 1)? })
}
