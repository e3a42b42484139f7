//! Rust values as PostgreSQL datums: statement arguments and result columns.

use crate::time::{Day, Instant};
use crate::transaction::TransactionId;
use pgrx::pg_sys;
use pgrx::pg_sys::Datum;
use std::ffi::c_char;
use uuid::Uuid;

/// One datum with its type. By-reference values are allocated in the current memory context.
#[derive(Clone, Copy)]
pub struct Value {
    pub(super) datum: Datum,
    pub(super) is_null: bool,
    pub(super) oid: pg_sys::Oid,
}

/// A Rust type with exactly one PostgreSQL type, and how arrays of it are laid out.
pub trait SqlType {
    const OID: pg_sys::Oid;
    const ARRAY_OID: pg_sys::Oid;
    const LENGTH: i32;
    const BY_VALUE: bool;
    const ALIGN: u8;
    fn datum(self) -> Datum;
}

macro_rules! sql_type {
    ($rust:ty, $oid:ident, $array:ident, $length:literal, $by_value:literal, $align:literal,
     |$value:ident| $datum:expr) => {
        impl SqlType for $rust {
            const OID: pg_sys::Oid = pg_sys::$oid;
            const ARRAY_OID: pg_sys::Oid = pg_sys::$array;
            const LENGTH: i32 = $length;
            const BY_VALUE: bool = $by_value;
            const ALIGN: u8 = $align;
            fn datum(self) -> Datum {
                let $value = self;
                $datum
            }
        }
    };
}

sql_type!(&str, TEXTOID, TEXTARRAYOID, -1, false, b'i', |text| text_datum(text));
sql_type!(i64, INT8OID, INT8ARRAYOID, 8, true, b'd', |number| Datum::from(number));
sql_type!(i32, INT4OID, INT4ARRAYOID, 4, true, b'i', |number| Datum::from(number));
sql_type!(bool, BOOLOID, BOOLARRAYOID, 1, true, b'c', |truth| Datum::from(truth));
sql_type!(Instant, TIMESTAMPTZOID, TIMESTAMPTZARRAYOID, 8, true, b'd', |at| Datum::from(at.0));
sql_type!(Day, DATEOID, DATEARRAYOID, 4, true, b'i', |day| Datum::from(day.0));
sql_type!(Uuid, UUIDOID, UUIDARRAYOID, 16, false, b'c', |id| bytes_copied(id.as_bytes()));
sql_type!(pgrx::pg_sys::Oid, OIDOID, OIDARRAYOID, 4, true, b'i', |oid| Datum::from(oid));
sql_type!(TransactionId, XID8OID, XID8ARRAYOID, 8, true, b'd', |id| Datum::from(id.0));
sql_type!(&[u8; 16], BYTEAOID, BYTEAARRAYOID, -1, false, b'i', |bytes| bytea_datum(bytes));

/// A `jsonb` argument, passed on as it came in.
#[derive(Clone, Copy)]
pub struct Json(pub Datum);
sql_type!(Json, JSONBOID, JSONBARRAYOID, -1, false, b'i', |json| json.0);

impl<T: SqlType> From<T> for Value {
    fn from(value: T) -> Self {
        Value { datum: value.datum(), is_null: false, oid: T::OID }
    }
}

impl<T: SqlType> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value { datum: Datum::null(), is_null: true, oid: T::OID }, Value::from)
    }
}

impl Value {
    /// An array of such values, which are all of one type; at least one.
    pub fn array_of<'a>(elements: impl Iterator<Item = &'a Value> + Clone) -> Self {
        let oid = elements.clone().next().map_or(pg_sys::InvalidOid, |first| first.oid);
        let (mut datums, mut nulls): (Vec<Datum>, Vec<bool>) =
            elements.map(|value| (value.datum, value.is_null)).unzip();
        let (mut length, mut is_by_value, mut align) = Default::default();
        // SAFETY: both only read the catalog cache.
        let array_oid = unsafe {
            pg_sys::get_typlenbyvalalign(
                oid,
                &raw mut length,
                &raw mut is_by_value,
                &raw mut align,
            );
            pg_sys::get_array_type(oid)
        };
        // SAFETY: the values are of the type whose layout this is.
        let datum =
            unsafe { array(&mut datums, &mut nulls, oid, length.into(), is_by_value, align) };
        Value { datum, is_null: false, oid: array_oid }
    }
}

unsafe fn array(
    datums: &mut [Datum],
    nulls: &mut [bool],
    oid: pg_sys::Oid,
    length: i32,
    is_by_value: bool,
    align: c_char,
) -> Datum {
    let mut count = i32::try_from(datums.len()).expect("arrays stay far below 2^31 elements");
    let mut lower_bound = 1;
    Datum::from(unsafe {
        pg_sys::construct_md_array(
            datums.as_mut_ptr(),
            nulls.as_mut_ptr(),
            1,
            &raw mut count,
            &raw mut lower_bound,
            oid,
            length,
            is_by_value,
            align,
        )
    })
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        Value::from(value.as_str())
    }
}

impl<T: SqlType> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        Value::from(elements.into_iter().map(Some).collect::<Vec<_>>())
    }
}

impl<T: SqlType> From<Vec<Option<T>>> for Value {
    fn from(elements: Vec<Option<T>>) -> Self {
        let mut nulls: Vec<bool> = elements.iter().map(Option::is_none).collect();
        let mut datums: Vec<Datum> =
            elements.into_iter().map(|element| element.map_or(Datum::null(), T::datum)).collect();
        let align = T::ALIGN.cast_signed();
        // SAFETY: the elements are of the type whose layout is given.
        let datum =
            unsafe { array(&mut datums, &mut nulls, T::OID, T::LENGTH, T::BY_VALUE, align) };
        Value { datum, is_null: false, oid: T::ARRAY_OID }
    }
}

impl Value {
    /// No array of such elements.
    pub fn no_array<T: SqlType>() -> Self {
        Value { datum: Datum::null(), is_null: true, oid: T::ARRAY_OID }
    }
}

pub(super) fn datums_and_nulls(values: &[Value]) -> (Vec<Datum>, Vec<c_char>) {
    values
        .iter()
        .map(|value| (value.datum, if value.is_null { b'n' } else { b' ' }.cast_signed()))
        .unzip()
}

fn text_datum(text: &str) -> Datum {
    let length = i32::try_from(text.len()).expect("texts stay below PostgreSQL's 1 GB");
    // SAFETY: copies `length` bytes of valid UTF-8 into the current memory context.
    Datum::from(unsafe { pg_sys::cstring_to_text_with_len(text.as_ptr().cast(), length) })
}

fn bytea_datum(bytes: &[u8]) -> Datum {
    // A text and a bytea are the same varlena; only their types differ.
    let length = i32::try_from(bytes.len()).expect("bytes stay below PostgreSQL's 1 GB");
    // SAFETY: copies `length` bytes into the current memory context.
    Datum::from(unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), length) })
}

fn bytes_copied(bytes: &[u8]) -> Datum {
    // SAFETY: the allocation has room for the bytes, or palloc raises.
    unsafe {
        let copy = pg_sys::palloc(bytes.len()).cast::<u8>();
        copy.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        Datum::from(copy)
    }
}

impl Value {
    /// A `numeric` out of its own text form, for sums that may leave the range of `bigint`.
    pub fn numeric(text: Option<&str>) -> Self {
        let number = text.and_then(|text| pgrx::AnyNumeric::try_from(text).ok());
        let datum = number.and_then(pgrx::IntoDatum::into_datum);
        Value {
            datum: datum.unwrap_or(Datum::null()),
            is_null: datum.is_none(),
            oid: pg_sys::NUMERICOID,
        }
    }
}
