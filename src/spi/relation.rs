//! Tables and indexes of the books, opened for appending and looking up rows.

use super::kept::Purpose;
use super::value::Value;
use crate::time::Instant;
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

    /// # Safety
    /// Inside a transaction.
    pub unsafe fn index_for_reading(oid: pg_sys::Oid) -> Open {
        let lock = pg_sys::AccessShareLock.cast_signed();
        Open { relation: unsafe { pg_sys::index_open(oid, lock) }, is_index: true }
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
        unsafe { self.indexes_with(pg_sys::RowExclusiveLock) }
    }

    unsafe fn indexes_with(&self, lock: u32) -> Vec<Open> {
        unsafe {
            let list = pg_sys::RelationGetIndexList(self.relation);
            if list.is_null() {
                return Vec::new();
            }
            let length = usize::try_from((*list).length).unwrap_or_default();
            let oids = slice::from_raw_parts((*list).elements, length);
            let open = |cell: &pg_sys::ListCell| Open {
                relation: pg_sys::index_open(cell.oid_value, lock.cast_signed()),
                is_index: true,
            };
            let indexes = oids.iter().map(open).collect();
            pg_sys::list_free(list);
            indexes
        }
    }

    /// An index that begins with these columns and has all rows in which they are not null.
    ///
    /// # Safety
    /// Of a table.
    pub unsafe fn index_over(&self, columns: &[i16]) -> Option<pg_sys::Oid> {
        let is_it = |index: &&Open| {
            index.is_btree()
                && index.is_immediate()
                && index.begins_with(columns)
                && index.leaves_out_only_nulls(columns)
        };
        unsafe { self.indexes_with(pg_sys::AccessShareLock) }.iter().find(is_it).map(Open::oid)
    }

    /// Whether it is valid for reading, and over these columns before others, texts byte by byte.
    fn begins_with(&self, columns: &[i16]) -> bool {
        unsafe {
            let index = (*self.relation).rd_index;
            let keys = usize::try_from((*index).indnkeyatts).unwrap_or_default();
            if !(*index).indisvalid || keys < columns.len() {
                return false;
            }
            let collations = slice::from_raw_parts((*self.relation).rd_indcollation, columns.len());
            let families = slice::from_raw_parts((*self.relation).rd_opfamily, columns.len());
            let is_plain = |(collation, family): (&pg_sys::Oid, &pg_sys::Oid)| match *collation {
                pg_sys::InvalidOid => true,
                pg_sys::C_COLLATION_OID => *family == pg_sys::TEXT_BTREE_FAM_OID,
                _ => false,
            };
            (*index).indkey.values.as_slice(columns.len()) == columns
                && collations.iter().zip(families).all(is_plain)
        }
    }

    /// Whether it has all rows, or all in which one of the columns is not null.
    fn leaves_out_only_nulls(&self, columns: &[i16]) -> bool {
        unsafe {
            let predicate = pg_sys::RelationGetIndexPredicate(self.relation);
            if predicate.is_null() {
                return true;
            }
            let first = (*(*predicate).elements).ptr_value.cast::<pg_sys::NullTest>();
            if (*predicate).length != 1 || (*first).xpr.type_ != pg_sys::NodeTag::T_NullTest {
                return false;
            }
            let tested = (*first).arg.cast::<pg_sys::Var>();
            (*first).nulltesttype == pg_sys::NullTestType::IS_NOT_NULL
                && (*tested).xpr.type_ == pg_sys::NodeTag::T_Var
                && columns.contains(&(*tested).varattno)
        }
    }

    pub fn is_partition(&self) -> bool {
        unsafe { (*(*self.relation).rd_rel).relispartition }
    }

    /// Whether it has this partition and nobody is detaching it.
    pub fn has_partition(&self, oid: pg_sys::Oid) -> bool {
        unsafe {
            if u8::try_from(self.kind()) != Ok(pg_sys::RELKIND_PARTITIONED_TABLE) {
                return false;
            }
            let partitions = pg_sys::RelationGetPartitionDesc(self.relation, true);
            let count = usize::try_from((*partitions).nparts).unwrap_or_default();
            count > 0 && slice::from_raw_parts((*partitions).oids, count).contains(&oid)
        }
    }

    /// The partition that has all rows of `[from, to)`, for a table partitioned by ranges of one time. None
    /// where there is none, or who has the rows depends on the snapshot.
    pub fn partition_over(&self, from: Instant, to: Instant) -> Option<pg_sys::Oid> {
        let is_partitioned = u8::try_from(self.kind()) == Ok(pg_sys::RELKIND_PARTITIONED_TABLE);
        unsafe {
            let partitions =
                &*is_partitioned.then(|| pg_sys::RelationGetPartitionDesc(self.relation, true))?;
            if partitions.nparts == 0 || partitions.detached_exist {
                return None;
            }
            let bounds = &*partitions.boundinfo;
            let count = usize::try_from(bounds.ndatums).ok()?;
            let is_of_ranges = u32::try_from(bounds.strategy) == Ok(u32::from(b'r'));
            if !is_of_ranges || bounds.default_index != -1 {
                return None;
            }
            // Partition number n, if there is one, ends at bound number n.
            let ends = slice::from_raw_parts(bounds.datums, count);
            let kinds = slice::from_raw_parts(bounds.kind, count);
            let end = |place: usize| match *kinds[place] {
                pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MINVALUE => i64::MIN,
                pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MAXVALUE => i64::MAX,
                _ => (*ends[place]).value().cast_signed() as i64,
            };
            let place = (0..count).find(|place| end(*place) > from.0)?;
            let number = usize::try_from(*bounds.indexes.add(place)).ok()?;
            (to.0 <= end(place)).then(|| *partitions.oids.add(number))
        }
    }

    fn kind(&self) -> std::ffi::c_char {
        unsafe { (*(*self.relation).rd_rel).relkind }
    }

    /// A table of rows in PostgreSQL's own heap, and nothing happens at an INSERT but the INSERT, or at an
    /// UPDATE but the UPDATE.
    pub fn is_plain(&self, purpose: Purpose) -> bool {
        unsafe {
            let triggers = (*self.relation).trigdesc.as_ref();
            let fires = triggers.is_some_and(|triggers| match purpose {
                Purpose::Append => {
                    triggers.trig_insert_before_row
                        || triggers.trig_insert_after_row
                        || triggers.trig_insert_before_statement
                        || triggers.trig_insert_after_statement
                }
                Purpose::Update => {
                    triggers.trig_update_before_row
                        || triggers.trig_update_after_row
                        || triggers.trig_update_before_statement
                        || triggers.trig_update_after_statement
                }
            });
            u8::try_from(self.kind()) == Ok(pg_sys::RELKIND_RELATION)
                && (*(*self.relation).rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID
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

    /// Whether the column is of the type, and compared byte by byte if it is a text, as those of the
    /// books' keys are.
    pub fn compares_bytes(&self, column: i16, kind: pg_sys::Oid) -> bool {
        let (found, collation) = self.column_type(column);
        found == kind && [pg_sys::InvalidOid, pg_sys::C_COLLATION_OID].contains(&collation)
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

    pub fn column_types(&self) -> Vec<pg_sys::Oid> {
        let descriptor = self.descriptor();
        let count = unsafe { (*descriptor).natts };
        (1..=count).map(|number| unsafe { pg_sys::SPI_gettypeid(descriptor, number) }).collect()
    }

    /// How its rows are laid out.
    pub fn descriptor(&self) -> pg_sys::TupleDesc {
        unsafe { (*self.relation).rd_att }
    }

    pub fn is_btree(&self) -> bool {
        unsafe { (*(*self.relation).rd_rel).relam == pg_sys::BTREE_AM_OID }
    }

    pub fn is_summary(&self) -> bool {
        unsafe { (*(*self.relation).rd_rel).relam == pg_sys::BRIN_AM_OID }
    }

    /// Whether an entry that is a duplicate is refused at once, and others are not.
    pub fn is_immediate(&self) -> bool {
        unsafe {
            let index = (*self.relation).rd_index;
            (*index).indimmediate && !(*index).indisexclusion
        }
    }

    /// Whether it is unique and over exactly these columns.
    pub fn is_key_over(&self, columns: &[i16]) -> bool {
        let index = unsafe { (*self.relation).rd_index };
        let (is_unique, keys) = unsafe { ((*index).indisunique, (*index).indnkeyatts) };
        is_unique
            && usize::try_from(keys) == Ok(columns.len())
            && self.is_btree()
            && self.begins_with(columns)
            && unsafe { pg_sys::RelationGetIndexPredicate(self.relation).is_null() }
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
