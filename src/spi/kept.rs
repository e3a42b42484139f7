//! What is compiled for a table of the books to which rows are written past the executor: kept for as long as
//! PostgreSQL tells of no change of the table.

use super::count_of;
use super::names;
use super::relation::Open;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ptr;

/// What is done to the rows of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Append,
    Update,
}

/// What was compiled, in the memory of its executor state.
pub struct Kept {
    purpose: Purpose,
    table: pg_sys::Oid,
    /// As of how many changes.
    changes: u64,
    state: *mut pg_sys::EState,
    checks: *mut *mut pg_sys::ExprState,
    bounds: *mut pg_sys::ExprState,
    indexes: Vec<pg_sys::Oid>,
    infos: Vec<*mut pg_sys::IndexInfo>,
}

/// The indexes of a table while rows are written to it, with what PostgreSQL keeps for each. Of an index that
/// summarizes pages that is a page it holds, so it is kept no longer than until the rows are written.
pub struct Indexes<'a> {
    open: &'a [Open],
    infos: Vec<*mut pg_sys::IndexInfo>,
}

impl<'a> Indexes<'a> {
    /// # Safety
    /// Inside a transaction.
    pub unsafe fn of(open: &'a [Open]) -> Self {
        let info = |index: &Open| unsafe { pg_sys::BuildIndexInfo(index.relation()) };
        Self { open, infos: open.iter().map(info).collect() }
    }

    /// Lets go of what is held. After an error the transaction does.
    ///
    /// # Safety
    /// Inside the same transaction.
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    pub unsafe fn end(self) {
        for (index, info) in self.open.iter().zip(self.infos) {
            unsafe { pg_sys::index_insert_cleanup(index.relation(), info) };
        }
    }

    /// # Safety
    /// As above.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    pub unsafe fn end(self) {
        drop(self.infos);
    }
}

thread_local! {
    /// Behind pointers, as none may be borrowed while PostgreSQL works and perhaps tells of a change.
    static KEPT: RefCell<Vec<*mut Kept>> = const { RefCell::new(Vec::new()) };
}

/// More tables than a backend writes to by turns.
const MOST_KEPT: usize = 16;

impl Kept {
    /// What is kept for the table, or made for it if it is as it was made. None for one that only a statement
    /// does justice to.
    ///
    /// # Safety
    /// Inside a transaction; these are all indexes of the table.
    pub unsafe fn of(
        purpose: Purpose,
        table: &Open,
        indexes: &[Open],
        is_as_made: impl FnOnce() -> bool,
    ) -> Option<*mut Kept> {
        unsafe {
            Self::find(purpose, table, indexes)
                .or_else(|| is_as_made().then(|| Self::make(purpose, table, indexes)).flatten())
        }
    }

    /// What is kept, if it still holds.
    unsafe fn find(purpose: Purpose, table: &Open, indexes: &[Open]) -> Option<*mut Kept> {
        let is_it = |kept: &Kept| kept.table == table.oid() && kept.purpose == purpose;
        let found =
            KEPT.with_borrow(|all| all.iter().copied().find(|kept| is_it(unsafe { &**kept })))?;
        let kept = unsafe { &*found };
        let is_same = kept.changes == names::changes()
            && kept.indexes.len() == indexes.len()
            && kept.indexes.iter().zip(indexes).all(|(kept, index)| *kept == index.oid());
        if is_same {
            return Some(found);
        }
        unsafe { Self::forget(found) };
        None
    }

    unsafe fn make(purpose: Purpose, table: &Open, indexes: &[Open]) -> Option<*mut Kept> {
        unsafe {
            if !table.is_plain(purpose) {
                return None;
            }
            let state =
                PgMemoryContexts::TopMemoryContext.switch_to(|_| pg_sys::CreateExecutorState());
            let infos: Vec<_> = PgMemoryContexts::For((*state).es_query_cxt).switch_to(|_| {
                indexes.iter().map(|index| pg_sys::BuildIndexInfo(index.relation())).collect()
            });
            let is_plain = |(index, info): (&Open, &*mut pg_sys::IndexInfo)| {
                (index.is_btree() || purpose == Purpose::Update && index.is_summary())
                    && index.is_immediate()
                    && (**info).ii_Expressions.is_null()
            };
            if !indexes.iter().zip(&infos).all(is_plain) {
                pg_sys::FreeExecutorState(state);
                return None;
            }
            let kept = Box::into_raw(Box::new(Kept {
                purpose,
                table: table.oid(),
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

    /// As the executor does it: constraints, row, index entries. All indexes are B-trees.
    ///
    /// # Safety
    /// The slot holds a row of the table, and these are all indexes of it.
    pub unsafe fn append(
        &mut self,
        table: &Open,
        indexes: &[Open],
        slot: *mut pg_sys::TupleTableSlot,
    ) {
        unsafe {
            let mut relations = relations_of(indexes);
            let mut target = self.target(table, indexes, &mut relations, &self.infos);
            self.check(&mut target, table, slot);
            pg_sys::simple_table_tuple_insert(table.relation(), slot);
            if !indexes.is_empty() {
                add_to_indexes(&mut target, slot, self.state, Entries::New);
            }
        }
    }

    /// The same for a new version of the row at this place. A row that another transaction has changed since
    /// it was read is a serialization failure.
    ///
    /// # Safety
    /// The slot holds a row of the table, a row was read at the place, and these are all indexes.
    pub unsafe fn replace(
        &mut self,
        table: &Open,
        indexes: &Indexes,
        place: pg_sys::ItemPointer,
        slot: *mut pg_sys::TupleTableSlot,
    ) {
        unsafe {
            let mut relations = relations_of(indexes.open);
            let mut target = self.target(table, indexes.open, &mut relations, &indexes.infos);
            self.check(&mut target, table, slot);
            if let Some(entries) = update(table, place, slot) {
                add_to_indexes(&mut target, slot, self.state, entries);
            }
        }
    }

    unsafe fn target(
        &self,
        table: &Open,
        indexes: &[Open],
        relations: &mut [pg_sys::Relation],
        infos: &[*mut pg_sys::IndexInfo],
    ) -> pg_sys::ResultRelInfo {
        let mut target = pg_sys::ResultRelInfo {
            type_: pg_sys::NodeTag::T_ResultRelInfo,
            ri_RelationDesc: table.relation(),
            ri_NumIndices: count_of(indexes),
            ri_IndexRelationDescs: relations.as_mut_ptr(),
            ri_IndexRelationInfo: infos.as_ptr().cast_mut(),
            ri_PartitionCheckExpr: self.bounds,
            ..Default::default()
        };
        *checks_of(&mut target) = self.checks;
        for (index, info) in indexes.iter().zip(infos) {
            unsafe { (**info).ii_ReadyForInserts = index.is_ready() };
        }
        target
    }

    unsafe fn check(
        &mut self,
        target: &mut pg_sys::ResultRelInfo,
        table: &Open,
        slot: *mut pg_sys::TupleTableSlot,
    ) {
        unsafe {
            self.forget_last_row();
            pg_sys::ExecConstraints(target, slot, self.state);
            self.checks = *checks_of(target);
            if table.is_partition() {
                pg_sys::ExecPartitionCheck(target, slot, self.state, true);
                self.bounds = target.ri_PartitionCheckExpr;
            }
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

fn relations_of(indexes: &[Open]) -> Vec<pg_sys::Relation> {
    indexes.iter().map(Open::relation).collect()
}

#[cfg(not(feature = "pg18"))]
fn checks_of(target: &mut pg_sys::ResultRelInfo) -> &mut *mut *mut pg_sys::ExprState {
    &mut target.ri_ConstraintExprs
}

#[cfg(feature = "pg18")]
fn checks_of(target: &mut pg_sys::ResultRelInfo) -> &mut *mut *mut pg_sys::ExprState {
    &mut target.ri_CheckConstraintExprs
}

/// Which entries of indexes a row needs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Entries {
    New,
    /// Of a new version for which its page had no room.
    OfVersion,
    /// Of a new version on the same page: only of indexes that summarize pages.
    #[cfg_attr(feature = "pg15", expect(dead_code))]
    OfSummaries,
}

/// Adds the row in the slot to indexes, or raises what a duplicate key raises.
unsafe fn add_to_indexes(
    target: &mut pg_sys::ResultRelInfo,
    slot: *mut pg_sys::TupleTableSlot,
    state: *mut pg_sys::EState,
    entries: Entries,
) {
    let (is_update, may_be_duplicate) = (entries != Entries::New, false);
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
            (entries == Entries::OfSummaries),
        );
    }
}

/// Writes the new version; which entries it needs in indexes.
unsafe fn update(
    table: &Open,
    place: pg_sys::ItemPointer,
    slot: *mut pg_sys::TupleTableSlot,
) -> Option<Entries> {
    let (mut failure, mut mode) = (pg_sys::TM_FailureData::default(), 0);
    let (wait, mut is_copy) = (true, false);
    #[cfg(not(feature = "pg15"))]
    let mut indexes = pg_sys::TU_UpdateIndexes::TU_None;
    unsafe {
        let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, true, &raw mut is_copy);
        (*tuple).t_tableOid = table.oid();
        (*slot).tts_tableOid = table.oid();
        let result = pg_sys::heap_update(
            table.relation(),
            place,
            tuple,
            pg_sys::GetCurrentCommandId(true),
            ptr::null_mut(),
            wait,
            &raw mut failure,
            &raw mut mode,
            #[cfg(not(feature = "pg15"))]
            &raw mut indexes,
        );
        if result != pg_sys::TM_Result::TM_Ok {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent update"
            );
        }
        (*slot).tts_tid = (*tuple).t_self;
        #[cfg(feature = "pg15")]
        let entries = {
            let is_on_same_page =
                u32::from((*(*tuple).t_data).t_infomask2) & pg_sys::HEAP_ONLY_TUPLE != 0;
            (!is_on_same_page).then_some(Entries::OfVersion)
        };
        #[cfg(not(feature = "pg15"))]
        let entries = match indexes {
            pg_sys::TU_UpdateIndexes::TU_All => Some(Entries::OfVersion),
            pg_sys::TU_UpdateIndexes::TU_Summarizing => Some(Entries::OfSummaries),
            _ => None,
        };
        if is_copy {
            pg_sys::heap_freetuple(tuple);
        }
        entries
    }
}
