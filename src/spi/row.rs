//! Rows of a result, read by column number and Rust type.

use super::failed_code;
use super::value::Json;
use crate::error::{BillingError, Result};
use crate::time::{Day, Instant};
use crate::transaction::TransactionId;
use pgrx::FromDatum;
use pgrx::pg_sys;
use pgrx::pg_sys::Datum;
use uuid::Uuid;

/// One row, while the statement's result is at hand.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// A row of a table, for as long as its page is held.
    pub(super) fn of(tuple: pg_sys::HeapTuple, descriptor: pg_sys::TupleDesc) -> Self {
        Self { tuple, descriptor }
    }

    /// A column that the statement never leaves null. Columns count from 1.
    pub fn get<T: Column>(&self, column: usize) -> Result<T> {
        self.maybe(column)?
            .ok_or_else(|| BillingError::internal(format!("result column {column} is null")))
    }

    pub fn maybe<T: Column>(&self, column: usize) -> Result<Option<T>> {
        let number = i32::try_from(column).expect("results have few columns");
        let mut is_null = false;
        // SAFETY: tuple and descriptor belong to the result that is being read.
        unsafe {
            let found = pg_sys::SPI_gettypeid(self.descriptor, number);
            if found != T::OID {
                return Err(BillingError::internal(format!(
                    "result column {column} has type {found:?}, expected {:?}",
                    T::OID
                )));
            }
            let datum =
                pg_sys::SPI_getbinval(self.tuple, self.descriptor, number, &raw mut is_null);
            if is_null { Ok(None) } else { T::read(datum).map(Some) }
        }
    }
}

/// A Rust type that copies itself out of a datum of exactly one PostgreSQL type.
pub trait Column: Sized {
    const OID: pg_sys::Oid;
    /// # Safety
    /// The datum is a non-null value of the type `OID`.
    unsafe fn read(datum: Datum) -> Result<Self>;
}

macro_rules! column {
    ($rust:ty, $oid:ident, $inner:ty, $wrap:expr) => {
        impl Column for $rust {
            const OID: pg_sys::Oid = pg_sys::$oid;
            unsafe fn read(datum: Datum) -> Result<Self> {
                // SAFETY: the caller vouches for type and presence.
                let inner = unsafe { <$inner>::from_datum(datum, false) };
                inner.map($wrap).ok_or_else(|| BillingError::internal("unreadable column"))
            }
        }
    };
}

column!(i64, INT8OID, i64, std::convert::identity);
column!(i32, INT4OID, i32, std::convert::identity);
column!(bool, BOOLOID, bool, std::convert::identity);
column!(String, TEXTOID, String, std::convert::identity);
column!(Instant, TIMESTAMPTZOID, i64, Instant);
column!(Day, DATEOID, i32, Day);
column!(pg_sys::Oid, OIDOID, pg_sys::Oid, std::convert::identity);
column!(Vec<u8>, BYTEAOID, Vec<u8>, std::convert::identity);

impl Column for TransactionId {
    const OID: pg_sys::Oid = pg_sys::XID8OID;
    unsafe fn read(datum: Datum) -> Result<Self> {
        Ok(TransactionId(datum.value() as u64))
    }
}

/// A `jsonb` value, copied, to be handed on as it is.
impl Column for Json {
    const OID: pg_sys::Oid = pg_sys::JSONBOID;
    unsafe fn read(datum: Datum) -> Result<Self> {
        // SAFETY: a jsonb datum is a varlena; the copy lives in the caller's memory.
        let copy = unsafe { pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr()) };
        Ok(Json(Datum::from(copy)))
    }
}

impl Column for Uuid {
    const OID: pg_sys::Oid = pg_sys::UUIDOID;
    unsafe fn read(datum: Datum) -> Result<Self> {
        // SAFETY: a uuid datum points to its 16 bytes.
        Ok(Uuid::from_bytes(unsafe { *datum.cast_mut_ptr::<[u8; 16]>() }))
    }
}

/// Reads all rows of the statement that has just run. `each` runs in the caller's memory context:
/// a datum it makes would otherwise go with the connection.
pub(super) fn collect<T>(
    code: i32,
    callers_memory: pg_sys::MemoryContext,
    mut each: impl FnMut(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    if code < 0 {
        return Err(failed_code("run", code));
    }
    // SAFETY: still inside the SPI connection that ran the statement; SPI_tuptable is its result.
    // An error that passes through restores the memory context by itself.
    unsafe {
        let table = pg_sys::SPI_tuptable;
        if table.is_null() {
            return Ok(Vec::new());
        }
        let count = usize::try_from((*table).numvals).unwrap_or_default();
        let tuples = std::slice::from_raw_parts((*table).vals, count);
        let descriptor = (*table).tupdesc;
        let connections_memory = pg_sys::MemoryContextSwitchTo(callers_memory);
        let rows = tuples.iter().map(|&tuple| each(&Row::of(tuple, descriptor))).collect();
        pg_sys::MemoryContextSwitchTo(connections_memory);
        rows
    }
}
