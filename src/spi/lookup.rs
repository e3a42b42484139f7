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
    /// All columns, in their order; those of the key come first.
    pub columns: &'static [&'static str],
    /// The same columns of the same rows, where the table has others, or the caller may not see all.
    pub select: Statement,
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
            let mut keys = equalities(key)?;
            let snapshot = pg_sys::RegisterSnapshot(snapshot);
            let scan = pg_sys::systable_beginscan(
                table.relation(),
                index,
                true,
                snapshot,
                count_of(&keys),
                keys.as_mut_ptr(),
            );
            let mut rows = Ok(Vec::new());
            while let Ok(found) = &mut rows {
                pgrx::check_for_interrupts!();
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                match each(&Row::of(tuple, table.descriptor())) {
                    Ok(row) => found.push(row),
                    Err(error) => rows = Err(error),
                }
            }
            pg_sys::systable_endscan(scan);
            pg_sys::UnregisterSnapshot(snapshot);
            Some(rows)
        }
    }

    /// Whether the table has the columns that are expected, which is remembered.
    fn is_as_made(&self, table: &Open, key: &[Value]) -> bool {
        let seen = (self.table, names::changes());
        if GOOD.with_borrow(|good| good.contains(&seen)) {
            return true;
        }
        let is_as_made = table.has_columns_named(self.columns)
            && table.columns_are_of(key)
            && table.compares_bytes(key.len());
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
fn may_read_all(table: pg_sys::Oid) -> bool {
    let (as_current_user, no_error) = (pg_sys::InvalidOid, true);
    // SAFETY: both only read the catalog cache.
    unsafe {
        pg_sys::pg_class_aclcheck(table, pg_sys::GetUserId(), SELECT)
            == pg_sys::AclResult::ACLCHECK_OK
            && pg_sys::check_enable_rls(table, as_current_user, no_error)
                != pg_sys::CheckEnableRlsResult::RLS_ENABLED.cast_signed()
    }
}

/// Column by column from the first; none where a type has no equality here.
unsafe fn equalities(values: &[Value]) -> Option<Vec<pg_sys::ScanKeyData>> {
    let strategy = u16::try_from(pg_sys::BTEqualStrategyNumber).ok()?;
    let mut keys = Vec::with_capacity(values.len());
    for (value, number) in values.iter().zip(1..) {
        let equals = match value.oid {
            pg_sys::TEXTOID => pg_sys::F_TEXTEQ,
            pg_sys::DATEOID => pg_sys::F_DATE_EQ,
            _ => return None,
        };
        let mut key = pg_sys::ScanKeyData::default();
        unsafe { pg_sys::ScanKeyInit(&raw mut key, number, strategy, equals.into(), value.datum) };
        keys.push(key);
    }
    Some(keys)
}
