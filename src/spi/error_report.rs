//! From our error to the server's.

use crate::error::{BillingError, Kind};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgSqlErrorCode, function_name};

/// What an SQL function returns: a value, or the error the caller will read.
pub type Answer<T> = Result<T, ErrorReport>;

impl From<BillingError> for ErrorReport {
    fn from(error: BillingError) -> Self {
        let mut report = ErrorReport::new(sqlstate(error.kind), error.message, function_name!());
        if let Some(detail) = error.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = error.hint {
            report = report.set_hint(hint);
        }
        report
    }
}

fn sqlstate(kind: Kind) -> PgSqlErrorCode {
    match kind {
        Kind::InvalidParameter => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        Kind::OutOfRange => PgSqlErrorCode::ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE,
        Kind::KeyReused => PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION,
        Kind::Retry => PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        Kind::NoRight => PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        Kind::InsufficientCredit => PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED,
        Kind::Unknown => PgSqlErrorCode::ERRCODE_NO_DATA_FOUND,
        Kind::WrongState => PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        Kind::Internal => PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
    }
}
