//! Results of SQL functions: one composite value, or a set of rows.
//!
//! The row type is the one the function was declared with, taken from the catalog at the call;
//! a single composite is returned as a plain value, without the machinery of a set.

use super::value::Value;
use crate::error::{BillingError, Kind};
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};

/// An id, as a result.
pub fn uuid(id: uuid::Uuid) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(*id.as_bytes())
}

/// One row of the function's declared composite type.
pub struct Composite(Columns);

/// All rows of a set-returning function, handed over at once.
pub struct RowSet(Vec<Columns>);

struct Columns {
    datums: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
}

impl Columns {
    fn new(values: &[Value]) -> Self {
        Self {
            datums: values.iter().map(|value| value.datum).collect(),
            nulls: values.iter().map(|value| value.is_null).collect(),
        }
    }

    /// Columns are added at the end only. Functions of an older version than the library, before
    /// ALTER EXTENSION … UPDATE, are declared without the newest: those are left out.
    ///
    /// # Safety
    /// The descriptor is one, and its columns have the types of the first values.
    unsafe fn require_to_fit(&self, descriptor: pg_sys::TupleDesc) {
        let declared = unsafe { (*descriptor).natts };
        if usize::try_from(declared).is_ok_and(|declared| declared <= self.datums.len()) {
            return;
        }
        let error = BillingError::new(
            Kind::WrongState,
            "the functions of exa_billing are newer than its library",
        )
        .detail(format!(
            "A result has {declared} columns, the library knows {}.",
            self.datums.len()
        ))
        .hint("Install the library of the version that pg_extension shows.");
        ErrorReportable::unwrap_or_report(Err(ErrorReport::from(error)))
    }
}

impl Composite {
    pub fn new(values: &[Value]) -> Self {
        Self(Columns::new(values))
    }
}

impl FromIterator<Composite> for RowSet {
    fn from_iter<I: IntoIterator<Item = Composite>>(rows: I) -> Self {
        Self(rows.into_iter().map(|row| row.0).collect())
    }
}

unsafe impl BoxRet for Composite {
    unsafe fn box_into<'fcx>(mut self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        unsafe {
            let descriptor = declared_row_type(fcinfo.as_mut_ptr());
            self.0.require_to_fit(descriptor);
            let tuple = pg_sys::heap_form_tuple(
                descriptor,
                self.0.datums.as_mut_ptr(),
                self.0.nulls.as_mut_ptr(),
            );
            fcinfo.return_raw_datum(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data))
        }
    }
}

unsafe impl BoxRet for RowSet {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        unsafe {
            let call = fcinfo.as_mut_ptr();
            let set = (*call).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let materialize = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            if set.is_null() || (*set).allowedModes.cast_unsigned() & materialize == 0 {
                pgrx::ereport!(
                    pgrx::PgLogLevel::ERROR,
                    pgrx::PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                    "set-returning function called where a set cannot be accepted"
                );
            }
            // The set outlives this call, so its store lives in the query's memory.
            let query_memory = (*(*set).econtext).ecxt_per_query_memory;
            let before = pg_sys::MemoryContextSwitchTo(query_memory);
            let descriptor = pg_sys::CreateTupleDescCopy(declared_row_type(call));
            let random = pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random;
            let store = pg_sys::tuplestore_begin_heap(
                (*set).allowedModes.cast_unsigned() & random != 0,
                false,
                pg_sys::work_mem,
            );
            for mut row in self.0 {
                row.require_to_fit(descriptor);
                pg_sys::tuplestore_putvalues(
                    store,
                    descriptor,
                    row.datums.as_mut_ptr(),
                    row.nulls.as_mut_ptr(),
                );
            }
            (*set).returnMode = materialize;
            (*set).setResult = store;
            (*set).setDesc = descriptor;
            pg_sys::MemoryContextSwitchTo(before);
            fcinfo.return_null()
        }
    }
}

/// # Safety
/// `call` is the running call of a function declared to return a composite type.
unsafe fn declared_row_type(call: pg_sys::FunctionCallInfo) -> pg_sys::TupleDesc {
    let mut descriptor: pg_sys::TupleDesc = std::ptr::null_mut();
    unsafe {
        let class = pg_sys::get_call_result_type(call, std::ptr::null_mut(), &raw mut descriptor);
        assert_eq!(class, pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE, "declared result type");
        pg_sys::BlessTupleDesc(descriptor)
    }
}

// The SQL declarations are written by hand (sql/install); pgrx only wants to know that these
// types may be returned.
macro_rules! returned_only {
    ($type:ty) => {
        unsafe impl SqlTranslatable for $type {
            const TYPE_IDENT: &'static str = concat!(module_path!(), "::", stringify!($type));
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
                Err(ArgumentError::NotValidAsArgument(stringify!($type)));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
                Ok(ReturnsRef::One(SqlMappingRef::literal("record")));
        }
    };
}
returned_only!(Composite);
returned_only!(RowSet);
