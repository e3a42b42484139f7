//! Appends single rows to tables of the books past the executor.
//!
//! An INSERT of one row compiles the table's CHECK constraints and its indexes' predicates anew each
//! time, which costs more than all the rest of it. Here what is compiled is kept for as long as
//! PostgreSQL tells of no change of the table. All that an INSERT promises holds: not null, checks,
//! the partition's bounds, unique indexes, each with the error that an INSERT has.
//!
//! What the books' tables never have of themselves (triggers on INSERT, indexes other than plain
//! B-trees, columns in another order) is left to an INSERT.

use super::Statement;
use super::kept::{Kept, Purpose};
use super::names::relation_oid;
use super::relation::Open;
use super::value::Value;
use crate::error::Result;
use pgrx::pg_sys;

/// A table that rows are appended to. Always a `static`.
pub struct Appended {
    /// All columns, in their order and that of the INSERT.
    columns: &'static [&'static str],
    insert: Statement,
}

impl Appended {
    pub const fn new(columns: &'static [&'static str], insert: Statement) -> Self {
        Self { columns, insert }
    }

    /// Appends a row to a table, which is a partition if `parent` is given.
    ///
    /// Locks: the parent, then the table, both as an INSERT does.
    pub fn append(
        &'static self,
        table: &str,
        parent: Option<&str>,
        values: &[Value],
    ) -> Result<()> {
        // SAFETY: inside a transaction, which closes what an error leaves open.
        if unsafe { self.append_directly(table, parent, values) }.is_some() {
            return Ok(());
        }
        self.insert.execute(values)
    }

    /// None when it must be left to an INSERT; nothing was done then.
    unsafe fn append_directly(
        &self,
        table: &str,
        parent: Option<&str>,
        values: &[Value],
    ) -> Option<()> {
        let oid = relation_oid(table)?;
        unsafe {
            let _parent = match parent {
                Some(parent) => {
                    let parent = Open::table(relation_oid(parent)?)?;
                    if !parent.has_partition(oid) {
                        return None;
                    }
                    Some(parent)
                }
                None => None,
            };
            let table = Open::table(oid)?;
            let indexes = table.indexes();
            let is_as_made = || table.has_columns(self.columns, values);
            let kept = Kept::of(Purpose::Append, &table, &indexes, is_as_made)?;
            let slot = table.slot(values);
            (*kept).append(&table, &indexes, slot);
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::CommandCounterIncrement();
        }
        Some(())
    }
}
