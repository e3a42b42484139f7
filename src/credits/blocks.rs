//! `credit_blocks`: what is left of every open grant.

use super::balance;
use super::expiration;
use super::ledger;
use crate::books;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{Answer, Composite, RowSet, Statement, values};
use crate::time::{self, Instant};
use pgrx::prelude::*;
use std::collections::BTreeMap;
use uuid::Uuid;

static OPEN: Statement = Statement::kept(
    "SELECT g.id, g.amount_microdollars, g.expiry_date, g.created_at, g.credit_category, g.description, g.is_free
     FROM exa_billing.credit_transactions AS g
     WHERE g.owner_kind = $1 AND g.owner_id = $2 AND g.amount_microdollars > 0
       AND NOT EXISTS (SELECT FROM exa_billing.credit_transactions AS c
                       WHERE c.original_transaction_id = g.id)
       AND (g.expiry_date IS NULL OR g.expiry_date > $3)
     ORDER BY g.expiry_date NULLS LAST, g.created_at, g.id",
);

struct Block {
    id: Uuid,
    amount: i64,
    expiry: Option<Instant>,
    created_at: Instant,
    category: Option<String>,
    description: Option<String>,
    is_free: bool,
}

/// How much of each of `amounts` is used up when `used` is taken from them in order.
fn taken_in_order(amounts: &[i64], used: i128) -> Vec<i64> {
    let mut left = used.max(0);
    amounts
        .iter()
        .map(|&amount| {
            let taken = i64::try_from(left).map_or(amount, |left| amount.min(left));
            left -= i128::from(taken);
            taken
        })
        .collect()
}

/// What each open expiring grant has claimed so far, by the rule of its expiration.
fn claims(owner: &Owner, as_of: Instant, used: i64) -> Result<BTreeMap<Uuid, i64>> {
    let grants = ledger::open_grants(owner)?;
    let past = expiration::due_count(&grants, as_of);
    let expiries = grants.iter().take(past).map(|grant| grant.expiry);
    let mut at = ledger::usage_before_each(owner, expiries)?;
    at.resize(grants.len(), (as_of, used));
    let closing = expiration::close(&grants, grants.len(), &at);
    Ok(closing.closures.iter().map(|closure| (closure.grant, closure.claimed)).collect())
}

fn open_blocks(owner: &Owner, as_of: Instant) -> Result<Vec<Block>> {
    OPEN.read(values![owner.kind.as_str(), &owner.id, as_of], |row| {
        Ok(Block {
            id: row.get(1)?,
            amount: row.get(2)?,
            expiry: row.maybe(3)?,
            created_at: row.get(4)?,
            category: row.maybe(5)?,
            description: row.maybe(6)?,
            is_free: row.get(7)?,
        })
    })
}

/// Every open grant with what is claimed of it and what is left. Expiring grants claim usage by
/// their ranges; what they leave uncovered is taken from the others, oldest first.
#[pg_extern(sql = false)]
fn credit_blocks(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<RowSet> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let as_of = time::as_of(as_of)?;
    books::enter_for_reading("exa_billing.credit_blocks()")?;
    let balance = balance::read(&owner, as_of)?;
    let claims = claims(&owner, as_of, balance.used)?;
    let blocks = open_blocks(&owner, as_of)?;
    let claim = |block: &Block| claims.get(&block.id).copied().unwrap_or_default();

    let (expiring, lasting): (Vec<&Block>, Vec<&Block>) =
        blocks.iter().partition(|block| block.expiry.is_some());
    let left_of_expiring: i128 =
        expiring.iter().map(|block| i128::from(block.amount - claim(block))).sum();
    let amounts: Vec<i64> = lasting.iter().map(|block| block.amount).collect();
    let granted: i128 = amounts.iter().copied().map(i128::from).sum();
    let lasting_used = granted + left_of_expiring - i128::from(balance.left()?);
    let taken = taken_in_order(&amounts, lasting_used);
    let claimed = expiring.iter().map(|block| claim(block)).chain(taken);
    let rows = expiring.iter().chain(&lasting).zip(claimed).map(|(block, claimed)| {
        Composite::new(values![
            block.id,
            block.amount,
            claimed,
            block.amount - claimed,
            block.expiry,
            block.is_free,
            block.created_at,
            block.category.as_deref(),
            block.description.as_deref()
        ])
    });
    Ok(rows.collect())
}

#[cfg(test)]
mod tests {
    use super::taken_in_order;

    #[test]
    fn older_credit_is_taken_first() {
        assert_eq!(taken_in_order(&[10, 20, 30], 25), [10, 15, 0]);
        assert_eq!(taken_in_order(&[10, 20], 99), [10, 20]);
        assert_eq!(taken_in_order(&[10, 20], -5), [0, 0]);
        assert!(taken_in_order(&[], 5).is_empty());
    }
}
