//! Adds to figures that stand in rows of the books, past the executor, which looks for a row at its oldest
//! version: the versions of a row stand in an index in the order of their places, so that the newest is mostly
//! the last, and of a row that is added to again and again all others are in the way.

use super::count_of;
use super::kept::{Indexes, Kept, Purpose};
use super::lookup::{Comparison, scan_key};
use super::names::relation_oid;
use super::relation::Open;
use super::value::Value;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::ptr;

/// A table of figures. Always a `static`.
pub struct Sums {
    pub table: &'static str,
    /// All columns, in their order.
    pub columns: &'static [&'static str],
    /// The numbers of the columns of a unique index, in its order.
    pub key: &'static [i16],
    /// The numbers of the `bigint` columns that are added to.
    pub added: &'static [i16],
}

/// A key and what is added, in the order in which `Sums` names them.
pub type Addition = Vec<Value>;

impl Sums {
    /// Adds to the rows with these keys, which come once each; returns the places of those that have no row.
    /// None when it must be left to a statement; nothing was done then. For functions that run with the rights
    /// of the table's owner, which hold what keeps others from adding to the same rows: a row that somebody
    /// has changed meanwhile all the same is a serialization failure.
    ///
    /// Locks: the table, then its rows, as an UPDATE does.
    pub fn add(&'static self, additions: &[Addition]) -> Option<Vec<usize>> {
        // SAFETY: inside a transaction, which closes what an error leaves open.
        unsafe {
            let table = Open::table(relation_oid(self.table)?)?;
            let open = table.indexes();
            let index = open.iter().find(|index| index.is_key_over(self.key))?;
            let first = additions.first()?;
            let is_as_made = || self.is_as_made(&table, first);
            let kept = Kept::of(Purpose::Update, &table, &open, is_as_made)?;
            let indexes = Indexes::of(&open);
            pg_sys::CommandCounterIncrement();
            let mut rows = Rows::of(&table, index, self.key.len());
            let mut missing = Vec::new();
            for (place, addition) in additions.iter().enumerate() {
                pgrx::check_for_interrupts!();
                let (key, amounts) = addition.split_at(self.key.len());
                if rows.find(key) {
                    let next = rows.with_added(self.added, amounts);
                    (*kept).replace(&table, &indexes, &raw mut (*rows.found).tts_tid, next);
                    rows.clear_next();
                } else {
                    missing.push(place);
                }
            }
            rows.end();
            indexes.end();
            pg_sys::CommandCounterIncrement();
            Some(missing)
        }
    }

    fn is_as_made(&self, table: &Open, addition: &[Value]) -> bool {
        let mut given = self.key.iter().chain(self.added).zip(addition);
        table.has_columns_named(self.columns)
            && self.key.len() + self.added.len() == addition.len()
            && given.all(|(column, value)| table.compares_bytes(*column, value.oid))
            // SAFETY: what is compared is of the index's columns.
            && unsafe { scan_keys(&addition[..self.key.len()]) }.is_some()
    }
}

unsafe fn scan_keys(key: &[Value]) -> Option<Vec<pg_sys::ScanKeyData>> {
    let scan_key = |(column, value)| unsafe { scan_key(column, Comparison::Is, value) };
    (1..).zip(key).map(scan_key).collect()
}

/// Rows that are looked for by their keys.
struct Rows {
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::IndexScanDesc,
    /// What it looks for, which the scan may point to.
    keys: Vec<pg_sys::ScanKeyData>,
    columns: i32,
    found: *mut pg_sys::TupleTableSlot,
    next: *mut pg_sys::TupleTableSlot,
}

impl Rows {
    unsafe fn of(table: &Open, index: &Open, keys: usize) -> Self {
        unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot());
            let scan = pg_sys::index_beginscan(
                table.relation(),
                index.relation(),
                snapshot,
                #[cfg(feature = "pg18")]
                ptr::null_mut(),
                i32::try_from(keys).expect("keys have few columns"),
                0,
            );
            Self {
                snapshot,
                scan,
                keys: Vec::new(),
                columns: (*table.descriptor()).natts,
                found: pg_sys::table_slot_create(table.relation(), ptr::null_mut()),
                next: pg_sys::table_slot_create(table.relation(), ptr::null_mut()),
            }
        }
    }

    /// Whether there is a row with this key.
    unsafe fn find(&mut self, key: &[Value]) -> bool {
        self.keys = unsafe { scan_keys(key) }.expect("that keys can be compared was asked before");
        let backward = pg_sys::ScanDirection::BackwardScanDirection;
        unsafe {
            let (keys, count) = (self.keys.as_mut_ptr(), count_of(&self.keys));
            pg_sys::index_rescan(self.scan, keys, count, ptr::null_mut(), 0);
            pg_sys::index_getnext_slot(self.scan, backward, self.found)
        }
    }

    /// The row that was found, with so much more in these columns.
    unsafe fn with_added(&self, added: &[i16], amounts: &[Value]) -> *mut pg_sys::TupleTableSlot {
        unsafe {
            pg_sys::slot_getsomeattrs_int(self.found, self.columns);
            let count = usize::try_from(self.columns).unwrap_or_default();
            let (found, next) = (&*self.found, &*self.next);
            next.tts_values.copy_from_nonoverlapping(found.tts_values, count);
            next.tts_isnull.copy_from_nonoverlapping(found.tts_isnull, count);
            for (column, amount) in added.iter().zip(amounts) {
                let place = usize::try_from(*column - 1).unwrap_or_default();
                let value = next.tts_values.add(place);
                *value = sum(*value, amount.datum);
            }
            pg_sys::ExecStoreVirtualTuple(self.next)
        }
    }

    unsafe fn clear_next(&mut self) {
        unsafe {
            if let Some(clear) = (*(*self.next).tts_ops).clear {
                clear(self.next);
            }
        }
    }

    unsafe fn end(self) {
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.next);
            pg_sys::ExecDropSingleTupleTableSlot(self.found);
            pg_sys::index_endscan(self.scan);
            pg_sys::UnregisterSnapshot(self.snapshot);
        }
    }
}

/// As `bigint` adds, its error included.
fn sum(one: pg_sys::Datum, other: pg_sys::Datum) -> pg_sys::Datum {
    let number = |datum: pg_sys::Datum| datum.value() as i64;
    let Some(sum) = number(one).checked_add(number(other)) else {
        let code = PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
        ereport!(ERROR, code, "bigint out of range");
    };
    pg_sys::Datum::from(sum)
}
