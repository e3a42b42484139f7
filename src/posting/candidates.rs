//! Whose rows the next batch takes.
//!
//! The queue is read in the order of its owners, from where the last batch of this backend stopped. So
//! each owner is come to once in a turn, with all that has gathered meanwhile: the more there is to do,
//! the less each row of it costs. One whose account is locked for hours holds nobody else back. Where rows
//! are let gather, so are turns put off, for each reads all that waits; and busy owners are come to between
//! the others, a batch at most each time.

use super::busy::Busy;
use super::gathering::{Gathered, Patience};
use crate::error::Result;
use crate::owner::{Owner, OwnerKind};
use crate::spi::{self, Guide, Row, Statement, values};
use crate::time::Instant;
use crate::transaction::TransactionId;
use crate::{accounts, sources};
use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::time;

/// A turn that was begun.
struct Turn {
    whose: Whose,
    resume_after: Owner,
    patience: Option<Patience>,
}

thread_local! {
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
    static BUSY: RefCell<Busy> = const { RefCell::new(Busy::new()) };
    /// Before then no rows are worth another turn.
    static PAUSE_UNTIL: Cell<Option<time::Instant>> = const { Cell::new(None) };
}

/// Where the queue is not as it was made, and cannot be walked.
static NEXT_ROWS: Statement = Statement::over_queue(
    "SELECT owner_kind, owner_id, count(*), min(created_at), max(created_at)
     FROM (
         SELECT owner_kind, owner_id, created_at FROM exa_billing.unposted_spend
         WHERE (owner_kind, owner_id) > ($1, $2) AND blocked_reason IS NULL
         ORDER BY owner_kind, owner_id, transaction_id LIMIT $3
     ) AS next
     GROUP BY owner_kind, owner_id ORDER BY owner_kind, owner_id",
);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Everybody,
    /// Only those that are worth coming to.
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
    if whose == Whose::Gathered {
        if turn.is_none() && is_pause() {
            return Ok(Candidates { owners: Vec::new(), are_first: true, are_last: true });
        }
        let busy = BUSY.with_borrow_mut(|busy| busy.due(spi::clock()));
        if turn.is_some() && !busy.is_empty() {
            TURN.set(turn);
            return Ok(Candidates { owners: busy, are_first: false, are_last: false });
        }
    }
    let mut found = owners_after(turn.as_ref().map(|turn| &turn.resume_after), max_rows)?;
    let rows: i64 = found.iter().map(|(_, gathered)| gathered.rows).sum();
    let patience = match (whose, &turn) {
        (Whose::Everybody, _) => None,
        (Whose::Gathered, Some(turn)) => turn.patience,
        (Whose::Gathered, None) if rows == 0 => None,
        (Whose::Gathered, None) => Some(Patience::of(rows, kept_microseconds()?)),
    };
    let are_last = rows < max_rows;
    if !are_last {
        let last = found.last().map(|(owner, _)| owner.clone());
        TURN.set(last.map(|resume_after| Turn { whose, resume_after, patience }));
    }
    PAUSE_UNTIL.set(match patience {
        Some(patience) if are_last => {
            let pause = patience.pause_microseconds().unsigned_abs();
            Some(time::Instant::now() + time::Duration::from_micros(pause))
        }
        _ => None,
    });
    let clock = spi::clock();
    if let Some(patience) = patience {
        note_busy(&found, patience, clock);
        found.retain(|(_, gathered)| gathered.is_enough(patience, clock));
    }
    let owners = found.into_iter().map(|(owner, _)| owner).collect();
    Ok(Candidates { owners, are_first: turn.is_none(), are_last })
}

fn note_busy(found: &[(Owner, Gathered)], patience: Patience, clock: Instant) {
    BUSY.with_borrow_mut(|busy| {
        for (owner, gathered) in found {
            busy.note(owner, gathered, patience, clock);
        }
    });
}

fn is_pause() -> bool {
    PAUSE_UNTIL.get().is_some_and(|until| time::Instant::now() < until)
}

/// How long a transaction of somebody else has been holding deleted rows in their places.
fn kept_microseconds() -> Result<i64> {
    Ok(spi::rows_kept_since()?.map_or(0, |since| spi::clock().microseconds_since(since)))
}

/// The kinds of owners in the order of the queue.
const KINDS: [OwnerKind; 2] = [OwnerKind::Organization, OwnerKind::User];

fn owners_after(after: Option<&Owner>, max_rows: i64) -> Result<Vec<(Owner, Gathered)>> {
    let mut gathering =
        Gathering { kind: OwnerKind::Organization, found: Vec::new(), rows_left: max_rows };
    for kind in KINDS {
        let after_id = match after {
            Some(owner) if owner.kind > kind => continue,
            Some(owner) if owner.kind == kind => owner.id.as_str(),
            _ => "",
        };
        gathering.kind = kind;
        match sources::walk(kind, after_id, &mut gathering)? {
            Some(ControlFlow::Continue(())) => {}
            Some(ControlFlow::Break(())) => break,
            None => return select_after(after, max_rows),
        }
    }
    Ok(gathering.found)
}

/// Adds up the rows that are come past.
struct Gathering {
    kind: OwnerKind,
    found: Vec<(Owner, Gathered)>,
    rows_left: i64,
}

impl Guide for Gathering {
    fn begin_of(&mut self, id: &str) -> Result<TransactionId> {
        accounts::begin_of_unposted(&Owner { kind: self.kind, id: id.to_owned() })
    }

    fn row(&mut self, id: &str, row: &Row) -> Result<ControlFlow<()>> {
        let (is_blocked, created_at) = sources::blocked_and_time(row)?;
        if is_blocked {
            return Ok(ControlFlow::Continue(()));
        }
        match self.found.last_mut() {
            Some((owner, gathered)) if owner.id == id && owner.kind == self.kind => {
                gathered.add(created_at);
            }
            _ => {
                let owner = Owner { kind: self.kind, id: id.to_owned() };
                self.found.push((owner, Gathered::first(created_at)));
            }
        }
        self.rows_left -= 1;
        Ok(if self.rows_left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    }
}

fn select_after(after: Option<&Owner>, max_rows: i64) -> Result<Vec<(Owner, Gathered)>> {
    let (kind, id) = after.map_or(("", ""), |owner| (owner.kind.as_str(), owner.id.as_str()));
    NEXT_ROWS.write(values![kind, id, max_rows], |row| {
        let gathered = Gathered { rows: row.get(3)?, oldest: row.get(4)?, newest: row.get(5)? };
        Ok((accounts::owner_of(row, 1)?, gathered))
    })
}
