//! Whose rows the next batch takes.
//!
//! The queue is read in the order of its owners, from where the last batch of this backend stopped. So
//! each owner is come to once in a turn, with all that has
//! gathered meanwhile: the more there is to do, the less each row of it costs. A busy owner takes one
//! batch of a turn at most, and one whose account is locked for hours holds nobody else back.

use super::gathering::{self, Gathered};
use crate::accounts;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{self, Statement, values};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// A turn that was begun.
struct Turn {
    whose: Whose,
    resume_after: Owner,
    is_load: bool,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

static NEXT_ROWS: Statement = Statement::over_queue(
    "SELECT owner_kind, owner_id, count(*), min(created_at), max(created_at)
     FROM (
         SELECT owner_kind, owner_id, created_at FROM exa_billing.unposted_spend
         WHERE (owner_kind, owner_id) > ($1, $2) AND blocked_reason IS NULL
         ORDER BY owner_kind, owner_id LIMIT $3
     ) AS next
     GROUP BY owner_kind, owner_id",
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Everybody,
    /// Under load only those that are worth coming to.
    Gathered,
}

/// Some owners that have rows to post, in order.
pub struct Candidates {
    pub owners: Vec<Owner>,
    /// Whether they are the first of the queue.
    pub are_first: bool,
    /// Whether nobody comes after them.
    pub are_last: bool,
}

/// Of the owners of the next `max_rows` rows.
pub fn next(whose: Whose, max_rows: i64) -> Result<Candidates> {
    let turn = TURN.take().filter(|turn| turn.whose == whose);
    let mut found = owners_after(turn.as_ref().map(|turn| &turn.resume_after), max_rows)?;
    let rows: i64 = found.values().map(|gathered| gathered.rows).sum();
    let is_load = turn.as_ref().map_or(gathering::is_load(rows), |turn| turn.is_load);
    let are_last = rows < max_rows;
    if !are_last {
        let last = found.last_key_value().map(|(owner, _)| owner.clone());
        TURN.set(last.map(|resume_after| Turn { whose, resume_after, is_load }));
    }
    let clock = spi::clock();
    let are_all = whose == Whose::Everybody || !is_load;
    found.retain(|_, gathered| are_all || gathered.is_enough(clock));
    Ok(Candidates { owners: found.into_keys().collect(), are_first: turn.is_none(), are_last })
}

fn owners_after(after: Option<&Owner>, max_rows: i64) -> Result<BTreeMap<Owner, Gathered>> {
    let (kind, id) = after.map_or(("", ""), |owner| (owner.kind.as_str(), owner.id.as_str()));
    let found = NEXT_ROWS.write(values![kind, id, max_rows], |row| {
        let gathered = Gathered { rows: row.get(3)?, oldest: row.get(4)?, newest: row.get(5)? };
        Ok((accounts::owner_of(row, 1)?, gathered))
    })?;
    Ok(found.into_iter().collect())
}
