//! Expiration: closing the grants that are due, and closing out all of them.

use super::balance::due;
use super::expiration::{self, Closing, OpenGrant};
use super::ledger;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{self, Answer, Statement, values};
use crate::time::{self, Instant};
use crate::{accounts, books};
use pgrx::prelude::*;
use std::cell::RefCell;

const MAX_OWNERS: i32 = 100_000;

static DUE_OWNERS: Statement = Statement::kept(
    "SELECT owner_kind, owner_id FROM exa_billing.accounts
     WHERE next_credit_expiration_at <= $1
       AND NOT EXISTS (
           SELECT FROM unnest($3, $4) AS failed(owner_kind, owner_id)
           WHERE failed.owner_kind = accounts.owner_kind AND failed.owner_id = accounts.owner_id)
     ORDER BY next_credit_expiration_at LIMIT $2 FOR UPDATE SKIP LOCKED",
);

thread_local! {
    /// Owners that failed in this backend's last rounds. They stand at the head of the queue, so
    /// they are left out until everybody else had a turn.
    static FAILED: RefCell<Vec<Owner>> = const { RefCell::new(Vec::new()) };
}

/// Closes the owner's grants that are due at `as_of`; returns what expired, in microdollars.
/// However late and in however many steps this runs, the rows are the same.
///
/// Locks: the account row, which the caller has taken.
fn expire_locked(owner: &Owner, as_of: Instant, clock: Instant) -> Result<i64> {
    let (grants, closing) = spi::on_fresh_snapshot(|| {
        let grants = ledger::open_grants(owner)?;
        let closing = due(owner, &grants, as_of)?;
        Ok((grants, closing))
    })?;
    write(owner, &grants, &closing, clock)
}

fn write(owner: &Owner, grants: &[OpenGrant], closing: &Closing, clock: Instant) -> Result<i64> {
    if closing.closures.is_empty() {
        return Ok(0);
    }
    let expired = closing.expired()?;
    ledger::write_closing(closing, clock)?;
    let next = grants.get(closing.closures.len()).map(|grant| grant.expiry);
    ledger::change_account(owner, -expired, next)?;
    Ok(expired)
}

/// Closes what is due of up to `max_owners` owners; returns how many were processed. One that
/// fails is reported and stops no other; one whose account is busy is left to the next run.
///
/// Locks: account rows, skipping those somebody else holds.
pub fn expire_due(as_of: Instant, max_owners: i32) -> Result<i64> {
    let clock = spi::clock();
    let due = lock_due_owners(as_of, max_owners)?;
    let mut processed = 0;
    for owner in due {
        match spi::in_subtransaction(|| expire_locked(&owner, as_of, clock)) {
            Ok(_) => processed += 1,
            Err(failure) if failure.is_of_data() => {
                let (kind, reason) = (owner.kind.as_str(), failure.message());
                spi::warn(&format!("credit of {kind} {} could not expire: {reason}", owner.id));
                FAILED.with_borrow_mut(|failed| failed.push(owner));
            }
            Err(failure) => return failure.raise(),
        }
    }
    Ok(processed)
}

/// Nobody is waited for, so the order in which rows are locked cannot make a circle.
fn lock_due_owners(as_of: Instant, max_owners: i32) -> Result<Vec<Owner>> {
    let failed = FAILED.take();
    let (kinds, ids) = accounts::columns(&failed);
    let due = DUE_OWNERS.write(values![as_of, i64::from(max_owners), kinds, ids], |row| {
        accounts::owner_of(row, 1)
    })?;
    let more_are_due = i32::try_from(due.len()).is_ok_and(|found| found == max_owners);
    if more_are_due {
        FAILED.set(failed);
    }
    Ok(due)
}

/// Closes every open expiring grant: those that are due as always, the others as of `as_of`.
fn close_out(owner: &Owner, as_of: Instant, clock: Instant) -> Result<i64> {
    if let Some(settled) = spi::on_fresh_snapshot(|| ledger::last_closure(owner))?
        && as_of < settled
    {
        return Err(BillingError::invalid("as_of is before the owner's last expiration")
            .detail(format!("as_of is {as_of}; credit expired at {settled}.")));
    }
    let expired = expire_locked(owner, as_of, clock)?;
    let (grants, closing) = spi::on_fresh_snapshot(|| {
        let mut grants = ledger::open_grants(owner)?;
        // Grants of a later moment are none of this one's business; they go to the end.
        let (mut now, later): (Vec<_>, Vec<_>) =
            grants.drain(..).partition(|grant| grant.created_at <= as_of);
        let used = ledger::usage_before(owner, as_of)?;
        let at = vec![(as_of, used); now.len()];
        let count = now.len();
        now.extend(later);
        let closing = expiration::close(&now, count, &at);
        Ok((now, closing))
    })?;
    expiration::sum([expired, write(owner, &grants, &closing, clock)?].into_iter())
}

/// The part both single-owner functions share. Nothing to do for an owner without an account.
fn with_locked_account(
    function: &str,
    (owner_kind, owner_id): (Option<&str>, Option<&str>),
    as_of: Option<Instant>,
    work: impl FnOnce(&Owner, Instant, Instant) -> Result<i64>,
) -> Result<i64> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let clock = spi::clock();
    let as_of = time::as_of_past(as_of, clock)?;
    books::enter_for_writing(function)?;
    if accounts::lock_existing(&owner)? { work(&owner, as_of, clock) } else { Ok(0) }
}

/// Processes the owner's expirations that are due; returns microdollars expired.
#[pg_extern(sql = false)]
fn expire_credits(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<i64> {
    let owner = (owner_kind, owner_id);
    Ok(with_locked_account("exa_billing.expire_credits()", owner, as_of, expire_locked)?)
}

/// Processes due expirations of many owners; returns how many owners.
#[pg_extern(sql = false)]
fn expire_due_credits(as_of: Option<Instant>, max_owners: Option<i32>) -> Answer<i64> {
    let as_of = time::as_of_past(as_of, spi::clock())?;
    let max_owners = max_owners.ok_or_else(|| BillingError::missing("max_owners"))?;
    if !(1..=MAX_OWNERS).contains(&max_owners) {
        let range = format!("max_owners is {max_owners}; 1 … {MAX_OWNERS} are allowed.");
        return Err(BillingError::invalid("max_owners is out of range").detail(range).into());
    }
    books::enter_for_writing("exa_billing.expire_due_credits()")?;
    Ok(expire_due(as_of, max_owners)?)
}

/// Ends all expiring credit of an owner; returns microdollars expired.
#[pg_extern(sql = false)]
fn close_out_credits(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<i64> {
    let owner = (owner_kind, owner_id);
    Ok(with_locked_account("exa_billing.close_out_credits()", owner, as_of, close_out)?)
}
