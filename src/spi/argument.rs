//! Our own types as arguments of SQL functions: taken over as they are, infinities included,
//! so that the rules of the `time` room decide and nothing fails before them.

use super::value::Json;
use crate::time::{Day, Instant, Span};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{FromDatum, pg_sys};

macro_rules! argument {
    ($rust:ty, $sql:literal, |$datum:ident| $from:expr) => {
        impl FromDatum for $rust {
            unsafe fn from_polymorphic_datum(
                $datum: pg_sys::Datum,
                is_null: bool,
                _: pg_sys::Oid,
            ) -> Option<Self> {
                if is_null { None } else { Some($from) }
            }
        }

        unsafe impl<'fcx> ArgAbi<'fcx> for $rust {
            unsafe fn unbox_arg_unchecked(argument: Arg<'_, 'fcx>) -> Self {
                // SAFETY: PostgreSQL checked the argument's type against the declaration.
                unsafe { argument.unbox_arg_using_from_datum() }
                    .expect("optional arguments are declared as Option")
            }

            unsafe fn unbox_nullable_arg(
                argument: Arg<'_, 'fcx>,
            ) -> pgrx::nullable::Nullable<Self> {
                // SAFETY: as above.
                unsafe { argument.unbox_arg_using_from_datum() }.into()
            }
        }

        unsafe impl SqlTranslatable for $rust {
            const TYPE_IDENT: &'static str = concat!(module_path!(), "::", stringify!($rust));
            const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
            const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> =
                Ok(SqlMappingRef::literal($sql));
            const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
                Ok(ReturnsRef::One(SqlMappingRef::literal($sql)));
        }
    };
}

argument!(Instant, "timestamptz", |datum| Instant(datum.value().cast_signed() as i64));
argument!(Day, "date", |datum| Day(datum.value() as i32));
argument!(Json, "jsonb", |datum| Json(datum));
argument!(Span, "interval", |datum| span(datum));

fn span(datum: pg_sys::Datum) -> Span {
    // SAFETY: an interval datum points to its 16 bytes; PostgreSQL checked the type.
    let interval = unsafe { *datum.cast_mut_ptr::<pg_sys::Interval>() };
    Span { months: interval.month, days: interval.day, microseconds: interval.time }
}
