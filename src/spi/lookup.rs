//! Reads rows of the books by their primary key, past the executor, whose start and end cost several
//! times what reading a row costs.

use super::names::{self, relation_oid};
use super::relation::Open;
use super::row::Row;
use super::value::Value;
use super::{Statement, count_of};
use crate::error::Result;
use pgrx::pg_sys;
use std::cell::RefCell;

/// A table and its primary key. Always a `static`.
pub struct Lookup {
    pub table: &'static str,
    pub primary_key: &'static str,
    /// All columns, in their order.
    pub columns: &'static [&'static str],
    /// What the values that are given are compared with, in the order of the primary key: all of it, or as
    /// far as to a comparison.
    pub key: &'static [Key],
    /// The same columns of the same rows, where the table has others, or the caller may not see all.
    pub select: Statement,
}

/// A column by its number, which counts from 1.
#[derive(Clone, Copy)]
pub enum Key {
    Is(i16),
    IsAtLeast(i16),
}

impl Key {
    fn column(self) -> i16 {
        match self {
            Key::Is(column) | Key::IsAtLeast(column) => column,
        }
    }
}

thread_local! {
    /// Tables that were as expected, as of how many changes.
    static GOOD: RefCell<Vec<(&'static str, u64)>> = const { RefCell::new(Vec::new()) };
}

impl Lookup {
    /// The row with this key, on a fresh snapshot, without a lock on it. For functions that run with the
    /// rights of the table's owner.
    ///
    /// Locks: the table, as a SELECT does.
    pub fn find<T>(
        &'static self,
        key: &[Value],
        mut each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Option<T>> {
        // SAFETY: inside a transaction, which closes what an error leaves open.
        let found = unsafe {
            pg_sys::CommandCounterIncrement();
            self.scan(key, pg_sys::GetTransactionSnapshot(), &mut each)
        };
        match found {
            Some(rows) => Ok(rows?.pop()),
            None => self.select.write_row(key, each),
        }
    }

    /// All rows whose keys begin with this one, on the caller's snapshot and with the caller's rights.
    ///
    /// Locks: the table, as a SELECT does.
    pub fn read<T>(
        &'static self,
        key: &[Value],
        mut each: impl FnMut(&Row) -> Result<T>,
    ) -> Result<Vec<T>> {
        if relation_oid(self.table).is_some_and(may_read_all) {
            // SAFETY: as above.
            let found = unsafe { self.scan(key, pg_sys::GetActiveSnapshot(), &mut each) };
            if let Some(rows) = found {
                return rows;
            }
        }
        self.select.read(key, each)
    }

    /// None when only the statement can tell.
    ///
    /// The versions of a row stand in the index in the order of their places, so that the newest is mostly
    /// the last: read backwards, those that a snapshot somebody holds open keeps are not stepped over.
    unsafe fn scan<T>(
        &self,
        key: &[Value],
        snapshot: pg_sys::Snapshot,
        each: &mut impl FnMut(&Row) -> Result<T>,
    ) -> Option<Result<Vec<T>>> {
        let index = relation_oid(self.primary_key)?;
        unsafe {
            let table = Open::table_for_reading(relation_oid(self.table)?)?;
            if !self.is_as_made(&table, key) {
                return None;
            }
            let index = Open::index_for_reading(index);
            let mut keys = self.scan_keys(key)?;
            let snapshot = pg_sys::RegisterSnapshot(snapshot);
            let scan = pg_sys::systable_beginscan_ordered(
                table.relation(),
                index.relation(),
                snapshot,
                count_of(&keys),
                keys.as_mut_ptr(),
            );
            let mut rows = Ok(Vec::new());
            while let Ok(found) = &mut rows {
                pgrx::check_for_interrupts!();
                if self.is_whole_key() && !found.is_empty() {
                    break;
                }
                let tuple = pg_sys::systable_getnext_ordered(
                    scan,
                    pg_sys::ScanDirection::BackwardScanDirection,
                );
                if tuple.is_null() {
                    break;
                }
                match each(&Row::of(tuple, table.descriptor())) {
                    Ok(row) => found.push(row),
                    Err(error) => rows = Err(error),
                }
            }
            pg_sys::systable_endscan_ordered(scan);
            pg_sys::UnregisterSnapshot(snapshot);
            Some(rows)
        }
    }

    /// Whether there is one row at most.
    fn is_whole_key(&self) -> bool {
        self.key.iter().all(|key| matches!(key, Key::Is(_)))
    }

    unsafe fn scan_keys(&self, values: &[Value]) -> Option<Vec<pg_sys::ScanKeyData>> {
        let comparison = |(key, value): (&Key, &Value)| match key {
            Key::Is(column) => unsafe { scan_key(*column, Comparison::Is, value) },
            Key::IsAtLeast(column) => unsafe { scan_key(*column, Comparison::IsAtLeast, value) },
        };
        self.key.iter().zip(values).map(comparison).collect()
    }

    /// Whether the table has the columns that are expected, which is remembered.
    pub(super) fn is_as_made(&self, table: &Open, key: &[Value]) -> bool {
        let seen = (self.table, names::changes());
        if GOOD.with_borrow(|good| good.contains(&seen)) {
            return true;
        }
        let mut key = self.key.iter().zip(key);
        let is_as_made = table.has_columns_named(self.columns)
            && key.all(|(key, value)| table.compares_bytes(key.column(), value.oid));
        if is_as_made {
            GOOD.with_borrow_mut(|good| {
                good.retain(|(_, changes)| *changes == seen.1);
                good.push(seen);
            });
        }
        is_as_made
    }
}

/// ACL_SELECT, whose width is not that of the type on every server.
const SELECT: pg_sys::AclMode = 1 << 1;

/// Whether the current user may read the table, and row security hides nothing of it.
pub(super) fn may_read_all(table: pg_sys::Oid) -> bool {
    let (as_current_user, no_error) = (pg_sys::InvalidOid, true);
    // SAFETY: both only read the catalog cache.
    unsafe {
        pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), SELECT)
            == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(table, as_current_user, no_error)
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED.cast_signed()
    }
}

#[derive(Clone, Copy)]
pub(super) enum Comparison {
    Is,
    IsAfter,
    IsAtLeast,
    IsBefore,
}

/// None where there is no such comparison of the type here. Texts are compared byte by byte, and null is null.
pub(super) unsafe fn scan_key(
    column: i16,
    comparison: Comparison,
    value: &Value,
) -> Option<pg_sys::ScanKeyData> {
    let mut key = pg_sys::ScanKeyData::default();
    if value.is_null {
        let is_null = (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL).cast_signed();
        let (none, nothing) = (pg_sys::InvalidOid, pg_sys::Datum::null());
        let no_strategy = 0;
        unsafe {
            pg_sys::ScanKeyEntryInitialize(
                &raw mut key,
                is_null,
                column,
                no_strategy,
                none,
                none,
                none,
                nothing,
            );
        }
        return matches!(comparison, Comparison::Is).then_some(key);
    }
    let (strategy, procedure) = match (value.oid, comparison) {
        (pg_sys::TEXTOID, Comparison::Is) => (pg_sys::BTEqualStrategyNumber, pg_sys::F_TEXTEQ),
        (pg_sys::TEXTOID, Comparison::IsAfter) => {
            (pg_sys::BTGreaterStrategyNumber, pg_sys::F_TEXT_GT)
        }
        (pg_sys::DATEOID, Comparison::Is) => (pg_sys::BTEqualStrategyNumber, pg_sys::F_DATE_EQ),
        (pg_sys::UUIDOID, Comparison::Is) => (pg_sys::BTEqualStrategyNumber, pg_sys::F_UUID_EQ),
        (pg_sys::TIMESTAMPTZOID, Comparison::Is) => {
            (pg_sys::BTEqualStrategyNumber, pg_sys::F_TIMESTAMPTZ_EQ)
        }
        (pg_sys::XID8OID, Comparison::IsAtLeast) => {
            (pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_XID8GE)
        }
        (pg_sys::TIMESTAMPTZOID, Comparison::IsAtLeast) => {
            (pg_sys::BTGreaterEqualStrategyNumber, pg_sys::F_TIMESTAMPTZ_GE)
        }
        (pg_sys::TIMESTAMPTZOID, Comparison::IsBefore) => {
            (pg_sys::BTLessStrategyNumber, pg_sys::F_TIMESTAMPTZ_LT)
        }
        _ => return None,
    };
    let strategy = u16::try_from(strategy).ok()?;
    unsafe {
        pg_sys::ScanKeyInit(&raw mut key, column, strategy, procedure.into(), value.datum);
    }
    Some(key)
}
