//! Appends single rows to tables of the books past the executor.
//!
//! An INSERT of one row compiles the table's CHECK constraints and its indexes' predicates anew each
//! time, which costs more than all the rest of it. Here what is compiled is kept for as long as
//! PostgreSQL tells of no change of the table. All that an INSERT promises holds: not null, checks,
//! the partition's bounds, unique indexes, each with the error that an INSERT has.
//!
//! What the books' tables never have of themselves (triggers on INSERT, indexes other than plain
//! B-trees, columns in another order) is left to an INSERT.

use super::names::{self, relation_oid};
use super::relation::Open;
use super::value::Value;
use super::{Statement, count_of};
use crate::error::Result;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::ptr;

/// A table that rows are appended to. Always a `static`.
pub struct Appended {
    /// All columns, in their order and that of the INSERT.
    columns: &'static [&'static str],
    insert: Statement,
}

/// What was compiled for a table, in the memory of its executor state.
struct Kept {
    table: pg_sys::Oid,
    /// As of how many changes.
    changes: u64,
    state: *mut pg_sys::EState,
    checks: *mut *mut pg_sys::ExprState,
    bounds: *mut pg_sys::ExprState,
    indexes: Vec<pg_sys::Oid>,
    infos: Vec<*mut pg_sys::IndexInfo>,
}

thread_local! {
    /// Behind pointers, as none may be borrowed while PostgreSQL works and perhaps tells of a change.
    static KEPT: RefCell<Vec<*mut Kept>> = const { RefCell::new(Vec::new()) };
}

/// More tables than a backend appends to by turns.
const MOST_KEPT: usize = 16;

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
            let kept = Kept::of(oid, &indexes)
                .or_else(|| Kept::make(oid, &table, &indexes, self.columns, values))?;
            (*kept).append(&table, &indexes, values);
        }
        Some(())
    }
}

impl Kept {
    /// What is kept for the table, if it still holds.
    unsafe fn of(table: pg_sys::Oid, indexes: &[Open]) -> Option<*mut Kept> {
        let changes = names::changes();
        let found = KEPT.with_borrow(|all| {
            all.iter().copied().find(|kept| unsafe { (**kept).table } == table)
        })?;
        let kept = unsafe { &*found };
        let is_same = kept.changes == changes
            && kept.indexes.len() == indexes.len()
            && kept.indexes.iter().zip(indexes).all(|(kept, index)| *kept == index.oid());
        if is_same {
            return Some(found);
        }
        unsafe { Self::forget(found) };
        None
    }

    /// None for a table that only an INSERT does justice to.
    unsafe fn make(
        oid: pg_sys::Oid,
        table: &Open,
        indexes: &[Open],
        columns: &[&str],
        values: &[Value],
    ) -> Option<*mut Kept> {
        unsafe {
            if !(table.is_plain() && table.has_columns(columns, values)) {
                return None;
            }
            let state =
                PgMemoryContexts::TopMemoryContext.switch_to(|_| pg_sys::CreateExecutorState());
            let infos: Vec<_> = PgMemoryContexts::For((*state).es_query_cxt).switch_to(|_| {
                indexes.iter().map(|index| pg_sys::BuildIndexInfo(index.relation())).collect()
            });
            let is_plain = |(index, info): (&Open, &*mut pg_sys::IndexInfo)| {
                index.is_plain_index() && (**info).ii_Expressions.is_null()
            };
            if !indexes.iter().zip(&infos).all(is_plain) {
                pg_sys::FreeExecutorState(state);
                return None;
            }
            let kept = Box::into_raw(Box::new(Kept {
                table: oid,
                changes: names::changes(),
                state,
                checks: ptr::null_mut(),
                bounds: ptr::null_mut(),
                indexes: indexes.iter().map(Open::oid).collect(),
                infos,
            }));
            let oldest = KEPT.with_borrow(|all| (all.len() >= MOST_KEPT).then(|| all[0]));
            oldest.into_iter().for_each(|oldest| Self::forget(oldest));
            KEPT.with_borrow_mut(|all| all.push(kept));
            Some(kept)
        }
    }

    unsafe fn forget(kept: *mut Kept) {
        KEPT.with_borrow_mut(|all| all.retain(|other| *other != kept));
        unsafe { pg_sys::FreeExecutorState(Box::from_raw(kept).state) };
    }

    /// As the executor does it: constraints, row, index entries.
    unsafe fn append(&mut self, table: &Open, indexes: &[Open], values: &[Value]) {
        let mut relations: Vec<_> = indexes.iter().map(Open::relation).collect();
        unsafe {
            let mut target = pg_sys::ResultRelInfo {
                type_: pg_sys::NodeTag::T_ResultRelInfo,
                ri_RelationDesc: table.relation(),
                ri_NumIndices: count_of(indexes),
                ri_IndexRelationDescs: relations.as_mut_ptr(),
                ri_IndexRelationInfo: self.infos.as_mut_ptr(),
                ri_PartitionCheckExpr: self.bounds,
                ..Default::default()
            };
            *checks_of(&mut target) = self.checks;
            for (index, info) in indexes.iter().zip(&self.infos) {
                (**info).ii_ReadyForInserts = index.is_ready();
            }
            let slot = table.slot(values);
            self.forget_last_row();
            pg_sys::ExecConstraints(&raw mut target, slot, self.state);
            self.checks = *checks_of(&mut target);
            if table.is_partition() {
                pg_sys::ExecPartitionCheck(&raw mut target, slot, self.state, true);
                self.bounds = target.ri_PartitionCheckExpr;
            }
            pg_sys::simple_table_tuple_insert(table.relation(), slot);
            if !indexes.is_empty() {
                add_to_indexes(&mut target, slot, self.state);
            }
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            pg_sys::CommandCounterIncrement();
        }
    }

    /// The memory in which the checks of the row before were worked out.
    unsafe fn forget_last_row(&mut self) {
        unsafe {
            let context = (*self.state).es_per_tuple_exprcontext;
            if !context.is_null() {
                pg_sys::MemoryContextReset((*context).ecxt_per_tuple_memory);
            }
        }
    }
}

#[cfg(not(feature = "pg18"))]
fn checks_of(target: &mut pg_sys::ResultRelInfo) -> &mut *mut *mut pg_sys::ExprState {
    &mut target.ri_ConstraintExprs
}

#[cfg(feature = "pg18")]
fn checks_of(target: &mut pg_sys::ResultRelInfo) -> &mut *mut *mut pg_sys::ExprState {
    &mut target.ri_CheckConstraintExprs
}

/// Adds the row in the slot to all indexes, or raises what a duplicate key raises.
unsafe fn add_to_indexes(
    target: &mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
) {
    let (is_update, may_be_duplicate) = (false, false);
    unsafe {
        pg_sys::ExecInsertIndexTuples(
            target,
            slot,
            state,
            is_update,
            may_be_duplicate,
            ptr::null_mut(),
            ptr::null_mut(),
            #[cfg(not(feature = "pg15"))]
            false, // all indexes, not only those that summarize
        );
    }
}
