//! Reads what tables of the books hold of a time, past the executor, in the order of an index: sums over
//! a million rows, and over two minutes of them, for which no statement need be planned.

use super::count_of;
use super::lookup::{Comparison, may_read_all, scan_key};
use super::names::{self, relation_oid};
use super::relation::Open;
use super::row::Column;
use super::value::Value;
use crate::error::{BillingError, Result};
use crate::time::Instant;
use pgrx::{FromDatum, pg_sys, varlena};
use std::cell::RefCell;
use std::ptr;

/// A table with an index over some texts and a time. Always a `static`.
pub struct Range {
    pub table: &'static str,
    /// By the time, which comes last in the key.
    pub is_partitioned: bool,
    /// All columns, in their order.
    pub columns: &'static [&'static str],
    /// The numbers of the texts that are given, in the order of the index.
    pub key: &'static [i16],
    /// The number of the time, which comes next.
    pub time: i16,
}

/// A table or partition that is as expected, and its index.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Known {
    range: *const Range,
    table: pg_sys::Oid,
    index: pg_sys::Oid,
    /// As of how many changes.
    changes: u64,
}

thread_local! {
    static KNOWN: RefCell<Vec<Known>> = const { RefCell::new(Vec::new()) };
}

impl Range {
    /// The rows with this key and a time in `[from, to)`, in the order of their times, on the caller's
    /// snapshot and with the caller's rights. False when only a statement can tell, as it is of more than
    /// one partition: nothing was read then.
    ///
    /// Locks: the table and the partition, as a SELECT does.
    pub fn read(
        &'static self,
        key: &[&str],
        (from, to): (Instant, Instant),
        mut each: impl FnMut(&Cells) -> Result<()>,
    ) -> Result<bool> {
        // SAFETY: inside a transaction, which closes what an error leaves open.
        unsafe {
            let Some((table, index)) = self.open(from, to) else {
                return Ok(false);
            };
            let mut scan = Scan::over(&table, &index, count_of(self.key) + 2);
            scan.seek(self.keys(key, from, to));
            let outcome = scan.each(&mut each);
            scan.end();
            outcome.map(|()| true)
        }
    }

    /// The rows of many keys, each with a range of its own that lies in `within`: what is asked by its
    /// place, in the order in which rows lie. So of keys whose rows lie on the same pages each page is read
    /// once. False and the locks as above.
    pub fn read_many<'a, const KEYS: usize>(
        &'static self,
        within: (Instant, Instant),
        asked: impl Iterator<Item = ([&'a str; KEYS], (Instant, Instant))>,
        mut each: impl FnMut(usize, &Cells) -> Result<()>,
    ) -> Result<bool> {
        // SAFETY: as above. A row that an index entry told of and that has gone before it is fetched was
        // visible to nobody, nor is to this snapshot what may have come into its place.
        unsafe {
            let Some((table, index)) = self.open(within.0, within.1) else {
                return Ok(false);
            };
            let mut scan = Scan::over(&table, &index, count_of(self.key) + 2);
            let mut places = Vec::new();
            for (number, (key, (from, to))) in asked.enumerate() {
                scan.seek(self.keys(&key, from, to));
                scan.add_places(number, &mut places);
            }
            places.sort_unstable();
            let outcome = scan.fetch(&places, &mut each);
            scan.end();
            outcome.map(|()| true)
        }
    }

    /// Whether `read` can; what it reads is locked then and stays as it is.
    pub fn is_readable(&'static self, (from, to): (Instant, Instant)) -> bool {
        // SAFETY: as above.
        unsafe { self.open(from, to) }.is_some()
    }

    unsafe fn open(&self, from: Instant, to: Instant) -> Option<(Open, Open)> {
        let whole = relation_oid(self.table)?;
        if !may_read_all(whole) {
            return None;
        }
        unsafe {
            let parent = Open::table_for_reading(whole)?;
            let table = if self.is_partitioned {
                Open::table_for_reading(parent.partition_over(from, to)?)?
            } else {
                parent
            };
            let index = self.known_index(&table).or_else(|| self.find_index(&table))?;
            Some((table, Open::index_for_reading(index)))
        }
    }

    fn known_index(&self, table: &Open) -> Option<pg_sys::Oid> {
        let (range, table, changes) = (ptr::from_ref(self), table.oid(), names::changes());
        KNOWN.with_borrow(|known| {
            let is_this = |known: &&Known| {
                known.range == range && known.table == table && known.changes == changes
            };
            known.iter().find(is_this).map(|known| known.index)
        })
    }

    /// None where the table is not as it was made.
    unsafe fn find_index(&self, table: &Open) -> Option<pg_sys::Oid> {
        let texts = self.key.iter().map(|column| (*column, pg_sys::TEXTOID));
        let mut compared = texts.chain([(self.time, pg_sys::TIMESTAMPTZOID)]);
        let is_as_made = table.has_columns_named(self.columns)
            && compared.all(|(column, kind)| table.compares_bytes(column, kind));
        if !is_as_made {
            return None;
        }
        let columns: Vec<i16> = self.key.iter().copied().chain([self.time]).collect();
        let index = unsafe { table.index_over(&columns)? };
        let known = Known {
            range: ptr::from_ref(self),
            table: table.oid(),
            index,
            changes: names::changes(),
        };
        KNOWN.with_borrow_mut(|all| {
            all.retain(|other| other.changes == known.changes);
            all.push(known);
        });
        Some(index)
    }

    unsafe fn keys(&self, key: &[&str], from: Instant, to: Instant) -> Vec<pg_sys::ScanKeyData> {
        let mut keys = Vec::new();
        let mut column = 0;
        let mut add = |column, comparison, value: Value| {
            // SAFETY: texts and times can be compared so.
            keys.extend(unsafe { scan_key(column, comparison, &value) });
        };
        for text in key {
            column += 1;
            add(column, Comparison::Is, Value::from(*text));
        }
        add(column + 1, Comparison::IsAtLeast, Value::from(from));
        add(column + 1, Comparison::IsBefore, Value::from(to));
        keys
    }
}

/// The columns of the row that the scan is at.
pub struct Cells {
    slot: *mut pg_sys::TupleTableSlot,
    types: Vec<pg_sys::Oid>,
}

impl Cells {
    /// A column that is never null. Columns count from 1.
    pub fn get<T: Column>(&self, column: usize) -> Result<T> {
        let datum = self.value(column, T::OID)?;
        // SAFETY: the value is there, and of this type.
        unsafe { T::read(datum) }
    }

    /// The same of a text, which is not copied.
    pub fn text(&self, column: usize) -> Result<&str> {
        let datum = self.value(column, pg_sys::TEXTOID)?;
        // SAFETY: as above; the row stays where it is for as long as it is looked at. A text of a few
        // bytes, with a header of one byte, is read where it lies.
        let text = unsafe {
            let pointer = datum.cast_mut_ptr::<pg_sys::varlena>();
            if varlena::varatt_is_1b(pointer) && !varlena::varatt_is_1b_e(pointer) {
                std::str::from_utf8(varlena::varlena_to_byte_slice(pointer)).ok()
            } else {
                <&str>::from_datum(datum, false)
            }
        };
        text.ok_or_else(|| BillingError::internal(format!("column {column} of a row is no text")))
    }

    pub fn is_null(&self, column: usize) -> bool {
        let number = i16::try_from(column).expect("tables have few columns");
        // SAFETY: the slot holds a row; its columns are taken apart as far as they are asked for, all at
        // once, for each call of PostgreSQL costs more than a column.
        unsafe {
            if (*self.slot).tts_nvalid < number {
                pg_sys::slot_getsomeattrs_int(self.slot, count_of(&self.types));
            }
            *(*self.slot).tts_isnull.add(column - 1)
        }
    }

    fn value(&self, column: usize, kind: pg_sys::Oid) -> Result<pg_sys::Datum> {
        if self.types.get(column - 1) != Some(&kind) || self.is_null(column) {
            let what = format!("column {column} of a row is null or of another type");
            return Err(BillingError::internal(what));
        }
        // SAFETY: looking whether it is null has put the value there.
        Ok(unsafe { *(*self.slot).tts_values.add(column - 1) })
    }
}

/// Where a row lies, its page first, and which of those that were asked for it is of.
type Place = (u32, u16, usize);

struct Scan {
    snapshot: pg_sys::Snapshot,
    scan: pg_sys::IndexScanDesc,
    /// What it looks for, which the scan may point to.
    keys: Vec<pg_sys::ScanKeyData>,
    cells: Cells,
}

impl Scan {
    unsafe fn over(table: &Open, index: &Open, keys: i32) -> Self {
        unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetActiveSnapshot());
            let scan = pg_sys::index_beginscan(
                table.relation(),
                index.relation(),
                snapshot,
                #[cfg(feature = "pg18")]
                ptr::null_mut(),
                keys,
                0,
            );
            let slot = pg_sys::table_slot_create(table.relation(), ptr::null_mut());
            let cells = Cells { slot, types: table.column_types() };
            Self { snapshot, scan, keys: Vec::new(), cells }
        }
    }

    unsafe fn seek(&mut self, keys: Vec<pg_sys::ScanKeyData>) {
        self.keys = keys;
        let (keys, count) = (self.keys.as_mut_ptr(), count_of(&self.keys));
        unsafe { pg_sys::index_rescan(self.scan, keys, count, ptr::null_mut(), 0) };
    }

    unsafe fn add_places(&mut self, number: usize, places: &mut Vec<Place>) {
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        loop {
            pgrx::check_for_interrupts!();
            let place = unsafe { pg_sys::index_getnext_tid(self.scan, forward) };
            if place.is_null() {
                return;
            }
            let (page, row) = pgrx::itemptr::item_pointer_get_both(unsafe { *place });
            places.push((page, row, number));
        }
    }

    unsafe fn fetch(
        &mut self,
        places: &[Place],
        each: &mut impl FnMut(usize, &Cells) -> Result<()>,
    ) -> Result<()> {
        for &(page, row, number) in places {
            pgrx::check_for_interrupts!();
            let is_visible = unsafe {
                pgrx::itemptr::item_pointer_set_all(&mut (*self.scan).xs_heaptid, page, row);
                pg_sys::index_fetch_heap(self.scan, self.cells.slot)
            };
            if is_visible {
                each(number, &self.cells)?;
            }
        }
        Ok(())
    }

    unsafe fn each(&mut self, each: &mut impl FnMut(&Cells) -> Result<()>) -> Result<()> {
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        while unsafe { pg_sys::index_getnext_slot(self.scan, forward, self.cells.slot) } {
            pgrx::check_for_interrupts!();
            each(&self.cells)?;
        }
        Ok(())
    }

    unsafe fn end(self) {
        unsafe {
            pg_sys::ExecDropSingleTupleTableSlot(self.cells.slot);
            pg_sys::index_endscan(self.scan);
            pg_sys::UnregisterSnapshot(self.snapshot);
        }
    }
}
