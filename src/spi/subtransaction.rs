//! Work that may fail without taking the whole transaction with it.

use crate::error::{BillingError, Result};
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, pg_sys};
use std::panic::AssertUnwindSafe;

/// Why the work failed. Everything it did is rolled back, and its locks are gone.
pub enum Failure {
    Ours(BillingError),
    Server(Box<CaughtError>),
}

impl Failure {
    pub fn message(&self) -> String {
        match self {
            Failure::Ours(error) => error.message.clone(),
            Failure::Server(caught) => server_report(caught).1,
        }
    }

    /// True when the data itself is at fault, so that trying again cannot help: a number out of
    /// range (class 22) or a violated constraint (class 23).
    pub fn is_of_data(&self) -> bool {
        match self {
            Failure::Ours(_) => true,
            Failure::Server(caught) => {
                [b"22", b"23"].into_iter().any(|class| class_of(caught) == sqlstate_class(class))
            }
        }
    }

    /// True when what was asked cannot be done in the present state (class 55), such as DDL on a
    /// table that the running statement has open.
    pub fn is_of_state(&self) -> bool {
        match self {
            Failure::Ours(_) => true,
            Failure::Server(caught) => class_of(caught) == sqlstate_class(b"55"),
        }
    }

    /// True when somebody wants this to end (class 57: cancelled, terminated), or the transaction
    /// has to be tried again (class 40): nothing to go on after.
    pub fn is_interruption(&self) -> bool {
        match self {
            Failure::Ours(_) => false,
            Failure::Server(caught) => {
                [b"40", b"57"].into_iter().any(|class| class_of(caught) == sqlstate_class(class))
            }
        }
    }

    /// True when somebody wants this to end (class 57).
    pub fn is_cancellation(&self) -> bool {
        match self {
            Failure::Ours(_) => false,
            Failure::Server(caught) => class_of(caught) == sqlstate_class(b"57"),
        }
    }

    /// True when what surrounds the work is at fault, not what it was about: a lock that was not
    /// had in time (class 55), no room left (53), a broken disk (58), or an interruption.
    pub fn is_of_surroundings(&self) -> bool {
        match self {
            Failure::Ours(_) => false,
            Failure::Server(caught) => [b"40", b"53", b"55", b"57", b"58"]
                .into_iter()
                .any(|class| class_of(caught) == sqlstate_class(class)),
        }
    }

    /// True when a lock was not had in time (55P03), or waiting for it was a deadlock (40P01).
    pub fn is_of_locks(&self) -> bool {
        let codes = [
            PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
            PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED,
        ];
        match self {
            Failure::Ours(_) => false,
            Failure::Server(caught) => codes.contains(&server_report(caught).0),
        }
    }

    /// True when the work gave up with exactly this error of ours.
    pub fn is_ours(&self, expected: &BillingError) -> bool {
        matches!(self, Failure::Ours(error) if error == expected)
    }

    /// Lets the failure go on to the caller of the SQL function.
    pub fn raise<T>(self) -> Result<T> {
        match self {
            Failure::Ours(error) => Err(error),
            Failure::Server(caught) => caught.rethrow(),
        }
    }
}

fn server_report(caught: &CaughtError) -> (PgSqlErrorCode, String) {
    match caught {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => {
            (report.sql_error_code(), report.message().to_owned())
        }
    }
}

fn class_of(caught: &CaughtError) -> i32 {
    server_report(caught).0 as i32 & CLASS_MASK
}

// PostgreSQL packs an SQLSTATE into an integer, six bits a character; the first two characters
// are its class.
const CLASS_MASK: i32 = (1 << 12) - 1;

fn sqlstate_class(class: &[u8; 2]) -> i32 {
    let six_bits = |character: u8| i32::from(character.wrapping_sub(b'0')) & 0x3f;
    six_bits(class[0]) | six_bits(class[1]) << 6
}

/// Runs `work` in a subtransaction: committed to the outer transaction when it succeeds, rolled
/// back when it fails.
pub fn in_subtransaction<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, Failure> {
    // SAFETY: the order of calls is the one PL/pgSQL uses for BEGIN … EXCEPTION: remember where
    // memory and resources belong, begin, and put both back however the block ends.
    unsafe {
        let memory = pg_sys::CurrentMemoryContext;
        let resources = pg_sys::CurrentResourceOwner;
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(memory);

        let outcome = PgTryBuilder::new(AssertUnwindSafe(|| work().map_err(Failure::Ours)))
            .catch_others(|caught| Err(Failure::Server(Box::new(caught))))
            .catch_rust_panic(|caught| Err(Failure::Server(Box::new(caught))))
            .execute();

        pg_sys::MemoryContextSwitchTo(memory);
        match outcome {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(memory);
        pg_sys::CurrentResourceOwner = resources;
        outcome
    }
}
