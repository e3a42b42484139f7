//! The queue's rows of single charges: added by whoever charges, added up by whoever reads. Posting takes
//! them out.

use crate::error::Result;
use crate::owner::{Owner, OwnerKind};
use crate::spi::{self, Appended, Guide, Key, Lookup, Row, Statement, Value, values};
use crate::time::Instant;
use crate::transaction::TransactionId;
use std::ops::ControlFlow;
use uuid::Uuid;

/// One journal row that waits to be posted.
pub struct Waiting<'a> {
    pub owner: Owner,
    pub entry_id: Uuid,
    pub journal: &'a str,
    /// Whoever acted, where that is not the owner.
    pub actor_user_id: Option<&'a str>,
    /// The whole cost of an Exa request.
    pub cost_microdollars: Option<i64>,
    pub amount_microdollars: i64,
    pub spend_record_count: i64,
    pub dimension_id: Uuid,
    pub created_at: Instant,
}

const COLUMNS: &[&str] = &[
    "owner_kind",
    "owner_id",
    "entry_id",
    "journal",
    "actor_user_id",
    "cost_microdollars",
    "amount_microdollars",
    "spend_record_count",
    "dimension_id",
    "dimension",
    "blocked_reason",
    "created_at",
    "transaction_id",
];

static QUEUE: Appended = Appended::new(
    COLUMNS,
    Statement::kept(
        "INSERT INTO exa_billing.unposted_spend
             (owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars,
              amount_microdollars, spend_record_count, dimension_id, dimension, blocked_reason, created_at,
              transaction_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
    ),
);

/// Adds a row to the queue.
pub fn queue(row: &Waiting) -> Result<()> {
    QUEUE.append(
        "unposted_spend",
        None,
        values![
            row.owner.kind.as_str(),
            &row.owner.id,
            row.entry_id,
            row.journal,
            row.actor_user_id,
            row.cost_microdollars,
            row.amount_microdollars,
            row.spend_record_count,
            row.dimension_id,
            Value::no_array::<&str>(),
            None::<&str>,
            row.created_at,
            spi::own_transaction_id(),
        ],
    )
}

static OF_OWNER: Lookup = Lookup {
    table: "unposted_spend",
    primary_key: "unposted_spend_pkey",
    columns: COLUMNS,
    key: &[Key::Is(1), Key::Is(2), Key::IsAtLeast(13)],
    select: Statement::over_queue(
        "SELECT owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars,
                amount_microdollars
         FROM exa_billing.unposted_spend
         WHERE owner_kind = $1 AND owner_id = $2 AND transaction_id >= $3",
    ),
};

/// Shows the waiting rows of one kind of owners to the guide in the order of these, from after an owner
/// on. None when only a statement can tell.
pub fn walk(
    kind: OwnerKind,
    after: &str,
    guide: &mut impl Guide,
) -> Result<Option<ControlFlow<()>>> {
    OF_OWNER.walk(kind.as_str(), after, guide)
}

/// Whether a row of the queue is set aside, and when it was charged.
pub fn blocked_and_time(row: &Row) -> Result<(bool, Instant)> {
    Ok((row.maybe::<String>(11)?.is_some(), row.get(12)?))
}

/// What the owner has spent that is not posted, as the caller's snapshot shows it; `from` is what its
/// account says of rows that are posted, on the same snapshot.
pub fn unposted_microdollars(owner: &Owner, from: TransactionId) -> Result<i128> {
    let mut sum = 0;
    OF_OWNER.read(values![owner.kind.as_str(), &owner.id, from], |row| {
        sum += i128::from(row.get::<i64>(7)?);
        Ok(())
    })?;
    Ok(sum)
}
