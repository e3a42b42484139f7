//! Tables and indexes of the books, opened for appending and looking up rows.

use super::value::Value;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::{ptr, slice, thread};

/// An open relation.
pub struct Open {
    relation: pg_sys::Relation,
    is_index: bool,
}

/// The lock that an INSERT has.
const LOCK: pg_sys::LOCKMODE = pg_sys::RowExclusiveLock.cast_signed();
/// The lock stays until the transaction ends.
const KEEP_LOCK: pg_sys::LOCKMODE = pg_sys::NoLock.cast_signed();

impl Open {
    /// None when it was dropped meanwhile.
    ///
    /// # Safety
    /// Inside a transaction.
    pub unsafe fn table(oid: pg_sys::Oid) -> Option<Open> {
        unsafe { Self::table_with(oid, LOCK) }
    }

    /// The same with the lock that a SELECT has.
    ///
    /// # Safety
    /// Inside a transaction.
    pub unsafe fn table_for_reading(oid: pg_sys::Oid) -> Option<Open> {
        unsafe { Self::table_with(oid, pg_sys::AccessShareLock.cast_signed()) }
    }

    unsafe fn table_with(oid: pg_sys::Oid, lock: pg_sys::LOCKMODE) -> Option<Open> {
        let relation = unsafe { pg_sys::try_table_open(oid, lock) };
        (!relation.is_null()).then_some(Open { relation, is_index: false })
    }

    pub fn relation(&self) -> pg_sys::Relation {
        self.relation
    }

    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: it is open, here and below.
        unsafe { (*self.relation).rd_id }
    }

    /// All of its indexes.
    ///
    /// # Safety
    /// Of a table.
    pub unsafe fn indexes(&self) -> Vec<Open> {
        unsafe {
            let list = pg_sys::RelationGetIndexList(self.relation);
            if list.is_null() {
                return Vec::new();
            }
            let length = usize::try_from((*list).length).unwrap_or_default();
            let oids = slice::from_raw_parts((*list).elements, length);
            let open = |cell: &pg_sys::ListCell| Open {
                relation: pg_sys::index_open(cell.oid_value, LOCK),
                is_index: true,
            };
            let indexes = oids.iter().map(open).collect();
            pg_sys::list_free(list);
            indexes
        }
    }

    pub fn is_partition(&self) -> bool {
        unsafe { (*(*self.relation).rd_rel).relispartition }
    }

    /// Whether it has this partition and nobody is detaching it.
    pub fn has_partition(&self, oid: pg_sys::Oid) -> bool {
        unsafe {
            if u8::try_from((*(*self.relation).rd_rel).relkind)
                != Ok(pg_sys::RELKIND_PARTITIONED_TABLE)
            {
                return false;
            }
            let partitions = pg_sys::RelationGetPartitionDesc(self.relation, true);
            let count = usize::try_from((*partitions).nparts).unwrap_or_default();
            count > 0 && slice::from_raw_parts((*partitions).oids, count).contains(&oid)
        }
    }

    /// A table of rows, and nothing happens at an INSERT but the INSERT.
    pub fn is_plain(&self) -> bool {
        unsafe {
            let class = (*self.relation).rd_rel;
            let triggers = (*self.relation).trigdesc;
            let fires = !triggers.is_null()
                && ((*triggers).trig_insert_before_row
                    || (*triggers).trig_insert_after_row
                    || (*triggers).trig_insert_before_statement
                    || (*triggers).trig_insert_after_statement);
            u8::try_from((*class).relkind) == Ok(pg_sys::RELKIND_RELATION)
                && !fires
                && (*self.relation).rd_rules.is_null()
                && !(*(*self.relation).rd_att).constr.is_null()
        }
    }

    /// Whether these are its columns, and the values of their types.
    pub fn has_columns(&self, columns: &[&str], values: &[Value]) -> bool {
        columns.len() == values.len()
            && self.has_columns_named(columns)
            && self.columns_are_of(values)
    }

    /// Whether these are its columns, in this order and no others.
    pub fn has_columns_named(&self, columns: &[&str]) -> bool {
        unsafe {
            let count = usize::try_from((*(*self.relation).rd_att).natts).unwrap_or_default();
            count == columns.len()
                && columns.iter().zip(1..).all(|(name, number)| {
                    let found = pg_sys::get_attname(self.oid(), number, true);
                    !found.is_null() && CStr::from_ptr(found).to_bytes() == name.as_bytes()
                })
        }
    }

    /// Whether its first columns are of the types of the values.
    pub fn columns_are_of(&self, values: &[Value]) -> bool {
        values.iter().zip(1..).all(|(value, number)| self.column_type(number).0 == value.oid)
    }

    /// Whether texts among its first columns are compared byte by byte, as those of the books' keys are.
    pub fn compares_bytes(&self, first_columns: usize) -> bool {
        (1..).take(first_columns).all(|number| {
            let collation = self.column_type(number).1;
            collation == pg_sys::InvalidOid || collation == pg_sys::C_COLLATION_OID
        })
    }

    fn column_type(&self, number: i16) -> (pg_sys::Oid, pg_sys::Oid) {
        let (mut kind, mut modifier, mut collation) = Default::default();
        unsafe {
            pg_sys::get_atttypetypmodcoll(
                self.oid(),
                number,
                &raw mut kind,
                &raw mut modifier,
                &raw mut collation,
            );
        }
        (kind, collation)
    }

    /// How its rows are laid out.
    pub fn descriptor(&self) -> pg_sys::TupleDesc {
        unsafe { (*self.relation).rd_att }
    }

    /// A B-tree that takes its entries at once, for good and one for each row.
    pub fn is_plain_index(&self) -> bool {
        unsafe {
            let index = (*self.relation).rd_index;
            (*(*self.relation).rd_rel).relam == pg_sys::BTREE_AM_OID
                && (*index).indimmediate
                && !(*index).indisexclusion
        }
    }

    /// Whether it takes entries already; one that is being made may not.
    pub fn is_ready(&self) -> bool {
        unsafe { (*(*self.relation).rd_index).indisready }
    }

    /// A row with these values, for this table.
    ///
    /// # Safety
    /// They are of its columns.
    pub unsafe fn slot(&self, values: &[Value]) -> *mut pg_sys::TupleTableSlot {
        unsafe {
            let slot = pg_sys::table_slot_create(self.relation, ptr::null_mut());
            for (place, value) in values.iter().enumerate() {
                *(*slot).tts_values.add(place) = value.datum;
                *(*slot).tts_isnull.add(place) = value.is_null;
            }
            pg_sys::ExecStoreVirtualTuple(slot)
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // After an error, the transaction closes what is open.
        if thread::panicking() {
            return;
        }
        // SAFETY: it was opened here and is closed once.
        unsafe {
            if self.is_index {
                pg_sys::index_close(self.relation, KEEP_LOCK);
            } else {
                pg_sys::table_close(self.relation, KEEP_LOCK);
            }
        }
    }
}
