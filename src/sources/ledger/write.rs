//! What captured charges write: queue rows, and the rows of `spend_log` that close a ledger.

use super::read::{self, Group};
use super::registry::Ledger;
use crate::error::Result;
use crate::partitions::{self, Journal};
use crate::sources::{Charge, columns};
use crate::spi::{Statement, Value, values};
use crate::time::Instant;
use std::collections::BTreeSet;
use uuid::Uuid;

static QUEUE: Statement =
    Statement::kept(include_str!("../../../sql/statements/queue_charges.sql"));
static CLOSE: Statement =
    Statement::kept(include_str!("../../../sql/statements/close_charges.sql"));
// Whose they are does not matter: no group of charges reaches across any of them.
static CUTS: Statement = Statement::kept(
    "SELECT at FROM (
         SELECT created_at AS at FROM exa_billing.credit_transactions
         WHERE created_at >= $1 AND created_at < $2
         UNION
         SELECT expiry_date FROM exa_billing.credit_transactions
         WHERE expiry_date >= $1 AND expiry_date < $2
     ) AS cuts
     ORDER BY at",
);

/// Queues charges for posting; negative ones take back what was queued before.
pub fn queue(journal: &str, charges: &[Charge]) -> Result<()> {
    if charges.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = charges.iter().map(|_| Uuid::now_v7()).collect();
    let mut arguments = vec![Value::from(ids)];
    arguments.extend(columns(charges));
    arguments.push(Value::from(journal));
    QUEUE.execute(&arguments)
}

/// The instants in `[from, to)` that no closing row may reach across: credit entries and expiries
/// ask for the usage before them.
pub fn cuts((from, to): (Instant, Instant)) -> Result<Vec<Instant>> {
    CUTS.write(values![from, to], |row| row.get(1))
}

/// Writes closing rows; returns how many.
///
/// Locks: the partition lock, where a month has no partition.
pub fn close(ledger: &Ledger, groups: Vec<Group>) -> Result<i64> {
    let groups = read::merged(groups)?;
    if groups.is_empty() {
        return Ok(0);
    }
    let months: Result<BTreeSet<_>> = groups.iter().map(|group| group.last_at.month()).collect();
    for month in months? {
        partitions::ensure(Journal::SpendLog, month)?;
    }
    let last_at: Vec<Instant> = groups.iter().map(|group| group.last_at).collect();
    let charges: Vec<Charge> = groups.into_iter().map(|group| group.charge).collect();
    let ids: Vec<Uuid> = charges.iter().map(|_| Uuid::now_v7()).collect();
    let mut arguments = vec![Value::from(ids)];
    arguments.extend(columns(&charges));
    arguments.push(Value::from(last_at));
    arguments.push(Value::from(ledger.source.as_str()));
    CLOSE.execute(&arguments)?;
    Ok(i64::try_from(charges.len()).unwrap_or(i64::MAX))
}
