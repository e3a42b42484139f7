//! Reads a table in the order of its primary key and leaps over rows that are deleted, of which a
//! snapshot that somebody holds open may keep millions in their places.

use super::lookup::{Comparison, scan_key};
use super::names::relation_oid;
use super::relation::Open;
use super::row::Row;
use super::value::Value;
use super::{Lookup, count_of};
use crate::error::Result;
use crate::transaction::TransactionId;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ops::ControlFlow;
use std::ptr;

/// After so many deleted rows of an owner it is asked where those begin that are not: at most, and at
/// least where that was so of the owners before. Asking costs about as much as stepping over the most.
const MOST_DELETED: usize = 16;
const LEAST_DELETED: usize = 2;

/// Kind, owner and transaction, and what else makes the key unique.
const COLUMNS: usize = 4;

/// What the one who walks knows of the rows.
pub trait Guide {
    /// Where the rows of this owner begin that are not deleted.
    fn begin_of(&mut self, id: &str) -> Result<TransactionId>;
    /// A row that is there; whether to go on.
    fn row(&mut self, id: &str, row: &Row) -> Result<ControlFlow<()>>;
}

impl Lookup {
    /// Shows the rows of one kind of owners to the guide, from after an owner on, on a fresh snapshot. For
    /// tables whose primary key begins with kind, owner and transaction, and functions that run with the
    /// rights of the table's owner. None when only a statement can tell.
    ///
    /// Locks: the table, as a SELECT does.
    pub fn walk(
        &'static self,
        kind: &str,
        after: &str,
        guide: &mut impl Guide,
    ) -> Result<Option<ControlFlow<()>>> {
        // SAFETY: inside a transaction, which closes what an error leaves open.
        unsafe {
            pg_sys::CommandCounterIncrement();
            let Some((table, index)) = self.open(kind) else {
                return Ok(None);
            };
            let mut walk = Walk::begin(&table, &index, kind);
            let outcome = walk.go(after, guide);
            walk.end();
            outcome.map(Some)
        }
    }

    unsafe fn open(&self, kind: &str) -> Option<(Open, Open)> {
        let key = [Value::from(kind), Value::from(""), Value::from(TransactionId::default())];
        unsafe {
            let table = Open::table_for_reading(relation_oid(self.table)?)?;
            let index = Open::index_for_reading(relation_oid(self.primary_key)?);
            let is_as_made = self.is_as_made(&table, &key)
                && usize::try_from((*index.descriptor()).natts) == Ok(COLUMNS);
            is_as_made.then_some((table, index))
        }
    }
}

struct Walk<'a> {
    kind: &'a str,
    descriptor: pg_sys::TupleDesc,
    index: &'a Open,
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::IndexScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
}

impl<'a> Walk<'a> {
    unsafe fn begin(table: &Open, index: &'a Open, kind: &'a str) -> Self {
        unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot());
            let scan = pg_sys::index_beginscan(
                table.relation(),
                index.relation(),
                snapshot,
                #[cfg(feature = "pg18")]
                ptr::null_mut(),
                3,
                0,
            );
            // Whose a deleted row was stands in the index; the row itself is looked at only for whether
            // it is there.
            (*scan).xs_want_itup = true;
            let slot = pg_sys::table_slot_create(table.relation(), ptr::null_mut());
            Self { kind, descriptor: table.descriptor(), index, snapshot, scan, slot }
        }
    }

    unsafe fn end(self) {
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            pg_sys::index_endscan(self.scan);
            pg_sys::UnregisterSnapshot(self.snapshot);
        }
    }

    unsafe fn go(&mut self, after: &str, guide: &mut impl Guide) -> Result<ControlFlow<()>> {
        let mut owner = after.to_owned();
        let mut enough = MOST_DELETED;
        let (mut deleted, mut has_asked, mut has_leapt) = (0, false, false);
        unsafe {
            self.seek(Comparison::IsAfter, &owner, TransactionId::default());
            loop {
                pgrx::check_for_interrupts!();
                let place = pg_sys::index_getnext_tid(
                    self.scan,
                    pg_sys::ScanDirection::ForwardScanDirection,
                );
                if place.is_null() && has_leapt {
                    has_leapt = false;
                    self.seek(Comparison::IsAfter, &owner, TransactionId::default());
                    continue;
                }
                if place.is_null() {
                    return Ok(ControlFlow::Continue(()));
                }
                let found = self.owner();
                if found != owner {
                    let next = if has_asked { enough / 2 } else { enough * 2 };
                    enough = next.clamp(LEAST_DELETED, MOST_DELETED);
                    owner = found.to_owned();
                    (deleted, has_asked) = (0, false);
                }
                if pg_sys::index_fetch_heap(self.scan, self.slot) {
                    // Where one of an owner is there, what follows was queued after the last posting.
                    deleted = MOST_DELETED;
                    if guide.row(&owner, &self.row())?.is_break() {
                        return Ok(ControlFlow::Break(()));
                    }
                } else {
                    deleted += 1;
                    if deleted == enough && !has_asked {
                        (has_asked, has_leapt) = (true, true);
                        let begin = guide.begin_of(&owner)?;
                        self.seek(Comparison::Is, &owner, begin);
                    }
                }
            }
        }
    }

    /// Goes on with the rows of this owner, or of those after it.
    unsafe fn seek(&mut self, comparison: Comparison, owner: &str, from: TransactionId) {
        let keys = unsafe {
            [
                scan_key(1, Comparison::Is, &Value::from(self.kind)),
                scan_key(2, comparison, &Value::from(owner)),
                scan_key(3, Comparison::IsAtLeast, &Value::from(from)),
            ]
        };
        let mut keys = keys.map(|key| key.expect("texts and transactions are compared"));
        unsafe {
            pg_sys::index_rescan(self.scan, keys.as_mut_ptr(), count_of(&keys), ptr::null_mut(), 0);
        }
    }

    /// Whose row the scan is at.
    unsafe fn owner(&self) -> &str {
        let mut values = [pg_sys::Datum::null(); COLUMNS];
        let mut nulls = [true; COLUMNS];
        unsafe {
            pg_sys::index_deform_tuple(
                (*self.scan).xs_itup,
                self.index.descriptor(),
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
            <&str>::from_datum(values[1], nulls[1]).unwrap_or_default()
        }
    }

    unsafe fn row(&self) -> Row {
        let mut must_free = false;
        unsafe {
            let tuple = pg_sys::ExecFetchSlotHeapTuple(self.slot, false, &raw mut must_free);
            Row::of(tuple, self.descriptor)
        }
    }
}
