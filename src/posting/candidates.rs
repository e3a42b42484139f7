//! Whose rows the next batch takes.
//!
//! The queue's owners are stepped through in order, one index probe each whatever the length of
//! their queues, from where the last batch of this backend stopped, and from the beginning again at
//! the end. So a busy owner, or one whose account is locked for hours, holds nobody else back.

use crate::accounts;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{Statement, values};
use std::cell::RefCell;
use std::collections::BTreeSet;

thread_local! {
    static RESUME_AFTER: RefCell<Option<Owner>> = const { RefCell::new(None) };
}

static NEXT_OWNERS: Statement = Statement::over_queue(
    "WITH RECURSIVE owners AS (
         (SELECT owner_kind, owner_id FROM exa_billing.unposted_spend
          WHERE (owner_kind, owner_id) > ($1, $2) AND blocked_reason IS NULL
          ORDER BY owner_kind, owner_id LIMIT 1)
         UNION ALL
         SELECT next.owner_kind, next.owner_id
         FROM owners
         CROSS JOIN LATERAL (
             SELECT u.owner_kind, u.owner_id FROM exa_billing.unposted_spend AS u
             WHERE (u.owner_kind, u.owner_id) > (owners.owner_kind, owners.owner_id)
               AND u.blocked_reason IS NULL
             ORDER BY u.owner_kind, u.owner_id LIMIT 1
         ) AS next
     )
     SELECT owner_kind, owner_id FROM owners LIMIT $3",
);

/// Up to `max_owners` owners that have rows to post.
pub fn next(max_owners: i64) -> Result<Vec<Owner>> {
    let resume_after = RESUME_AFTER.take();
    let mut owners: BTreeSet<Owner> = owners_after(resume_after.as_ref(), max_owners)?;
    let found = i64::try_from(owners.len()).unwrap_or(i64::MAX);
    let reached_the_end = found < max_owners;
    if reached_the_end && resume_after.is_some() {
        owners.extend(owners_after(None, max_owners - found)?);
    } else if !reached_the_end {
        RESUME_AFTER.set(owners.last().cloned());
    }
    Ok(owners.into_iter().collect())
}

fn owners_after(after: Option<&Owner>, max_owners: i64) -> Result<BTreeSet<Owner>> {
    let (kind, id) = after.map_or(("", ""), |owner| (owner.kind.as_str(), owner.id.as_str()));
    let owners =
        NEXT_OWNERS.write(values![kind, id, max_owners], |row| accounts::owner_of(row, 1))?;
    Ok(owners.into_iter().collect())
}
