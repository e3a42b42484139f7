//! Whose rows the next batch takes.
//!
//! The queue is read in owner order from where the last batch of this backend stopped, and from
//! the beginning again at its end. So a busy owner, or one whose account is locked for hours,
//! holds nobody else back.

use crate::error::Result;
use crate::owner::{Owner, OwnerKind};
use crate::spi::{Statement, values};
use std::cell::RefCell;
use std::collections::BTreeSet;

thread_local! {
    static RESUME_AFTER: RefCell<Option<Owner>> = const { RefCell::new(None) };
}

static NEXT_OWNERS: Statement = Statement::over_queue(
    "SELECT owner_kind, owner_id, count(*), bool_or(dimension IS NOT NULL)
     FROM (
         SELECT owner_kind, owner_id, dimension FROM exa_billing.unposted_spend
         WHERE (owner_kind, owner_id) > ($1, $2) AND blocked_reason IS NULL
         ORDER BY owner_kind, owner_id LIMIT $3
     ) AS next
     GROUP BY owner_kind, owner_id ORDER BY owner_kind, owner_id",
);

#[derive(Default)]
pub struct Candidates {
    pub owners: BTreeSet<Owner>,
    pub has_new_dimensions: bool,
}

pub fn next(max_rows: i64) -> Result<Candidates> {
    let mut candidates = Candidates::default();
    let resume_after = RESUME_AFTER.take();
    let mut rows_left = add_from(&mut candidates, resume_after.as_ref(), max_rows)?;
    if rows_left > 0 && resume_after.is_some() {
        rows_left = add_from(&mut candidates, None, rows_left)?;
    }
    // All rows seen: begin at the beginning next time.
    if rows_left > 0 {
        RESUME_AFTER.set(None);
    }
    Ok(candidates)
}

/// Adds the owners of the next rows; returns how many rows of the batch are still to be had.
fn add_from(candidates: &mut Candidates, after: Option<&Owner>, max_rows: i64) -> Result<i64> {
    let (kind, id) = after.map_or(("", ""), |owner| (owner.kind.as_str(), owner.id.as_str()));
    let mut rows_left = max_rows;
    let mut last = None;
    NEXT_OWNERS.write(values![kind, id, max_rows], |row| {
        let kind = OwnerKind::parse(Some(&row.get::<String>(1)?))?;
        let owner = Owner { kind, id: row.get(2)? };
        rows_left -= row.get::<i64>(3)?;
        candidates.has_new_dimensions |= row.get::<bool>(4)?;
        last = Some(owner.clone());
        candidates.owners.insert(owner);
        Ok(())
    })?;
    RESUME_AFTER.set(last);
    Ok(rows_left)
}
