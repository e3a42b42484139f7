//! The balance: acquired minus used, posted and unposted, in one statement on one snapshot.

use crate::books;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{Answer, Composite, Row, Statement, values};
use crate::time::{self, Instant};
use pgrx::prelude::*;

/// An owner's credits, in microdollars. An owner without any row has zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    pub acquired: i64,
    pub used: i64,
    pub left: i64,
}

// The sums are numeric; leaving the range of bigint is 22003, for this owner only.
static BALANCE: Statement = Statement::over_queue(
    "SELECT acquired::bigint, used::bigint, (acquired - used)::bigint
     FROM (
         SELECT coalesce(max(a.total_microdollars_acquired), 0)::numeric AS acquired,
                coalesce(max(a.microdollars_used), 0)::numeric + (
                    SELECT coalesce(sum(q.amount_microdollars), 0)
                    FROM exa_billing.unposted_spend AS q
                    WHERE q.owner_kind = $1 AND q.owner_id = $2) AS used
         FROM exa_billing.accounts AS a
         WHERE a.owner_kind = $1 AND a.owner_id = $2
     ) AS figures",
);

/// As the caller's snapshot shows it.
pub fn read(owner: &Owner) -> Result<Balance> {
    let rows = BALANCE.read_row(values![owner.kind.as_str(), &owner.id], from_row)?;
    Ok(rows.unwrap_or(Balance { acquired: 0, used: 0, left: 0 }))
}

/// As it is now, for decisions made under the account's lock.
pub fn read_locked(owner: &Owner) -> Result<Balance> {
    let rows = BALANCE.write_row(values![owner.kind.as_str(), &owner.id], from_row)?;
    Ok(rows.unwrap_or(Balance { acquired: 0, used: 0, left: 0 }))
}

fn from_row(row: &Row) -> Result<Balance> {
    Ok(Balance { acquired: row.get(1)?, used: row.get(2)?, left: row.get(3)? })
}

/// How the owner's credits stand.
#[pg_extern(sql = false)]
fn account_balance(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<Composite> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    time::as_of(as_of)?;
    books::enter_for_reading()?;
    let balance = read(&owner)?;
    let no_expiration: (Option<Instant>, Option<i64>) = (None, None);
    Ok(Composite::new(values![
        balance.acquired,
        balance.used,
        balance.left,
        no_expiration.0,
        no_expiration.1
    ]))
}
