//! What a backend knows and holds outside its statements: catalog look-ups that cost no query,
//! advisory locks of the session, the identity under which background work runs.

use super::Statement;
use crate::error::Result;
use crate::time::Instant;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use std::ffi::CString;

/// The transaction's `now()`.
pub fn transaction_time() -> Instant {
    // SAFETY: called inside a transaction, as every SQL function is.
    Instant(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
}

/// The clock.
pub fn clock() -> Instant {
    // SAFETY: reads the system clock.
    Instant(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// Whether schema exa_billing has this relation: two look-ups in the catalog cache, no query.
pub fn relation_exists(name: &str) -> bool {
    let Ok(name) = CString::new(name) else { return false };
    // SAFETY: both functions only read the catalog cache.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"exa_billing".as_ptr(), true);
        schema != pg_sys::InvalidOid
            && pg_sys::get_relname_relid(name.as_ptr(), schema) != pg_sys::InvalidOid
    }
}

/// After waiting for somebody else's lock: look at the catalog as it is now.
pub fn see_what_others_committed() {
    // SAFETY: allowed at any point inside a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Lets the readers inside `work` share one snapshot of their own, taken now: what a writing
/// function decides on, after it has its locks.
pub fn on_fresh_snapshot<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: pushed and popped in pairs; when something raises, the abort pops it.
    unsafe {
        pg_sys::CommandCounterIncrement();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let outcome = work();
        pg_sys::PopActiveSnapshot();
        outcome
    }
}

/// Refuses to go on where nothing may be written, in PostgreSQL's own words (25006).
pub fn require_writable(function: &str) {
    let Ok(name) = CString::new(function) else { return };
    // SAFETY: both raise or return.
    unsafe {
        pg_sys::PreventCommandIfReadOnly(name.as_ptr());
        pg_sys::PreventCommandDuringRecovery(name.as_ptr());
    }
}

/// An advisory lock of the session, released when this goes out of scope: by a return or by an
/// error on its way out. (A transaction's lock would be held until commit.)
pub struct SessionLock(pg_sys::LOCKTAG);

impl SessionLock {
    pub fn acquire(namespace: i32, number: i32) -> Self {
        const TWO_INTEGERS: u16 = 2;
        let tag = pg_sys::LOCKTAG {
            // SAFETY: plain read of this backend's identity.
            locktag_field1: unsafe { pg_sys::MyDatabaseId }.to_u32(),
            locktag_field2: namespace.cast_unsigned(),
            locktag_field3: number.cast_unsigned(),
            locktag_field4: TWO_INTEGERS,
            locktag_type: u8::try_from(pg_sys::LockTagType::LOCKTAG_ADVISORY).unwrap_or_default(),
            locktag_lockmethodid: u8::try_from(pg_sys::USER_LOCKMETHOD).unwrap_or_default(),
        };
        // SAFETY: waits until the lock is had, or raises.
        unsafe {
            pg_sys::LockAcquire(&raw const tag, pg_sys::ExclusiveLock.cast_signed(), true, false)
        };
        Self(tag)
    }
}

impl Drop for SessionLock {
    fn drop(&mut self) {
        // SAFETY: this session holds the lock.
        unsafe {
            pg_sys::LockRelease(&raw const self.0, pg_sys::ExclusiveLock.cast_signed(), true)
        };
    }
}

/// Runs one transaction of a background worker as exa_billing_owner, at READ COMMITTED, READ
/// WRITE, with a pinned search_path, whatever the defaults of role and database are.
///
/// A failure is raised and ends the worker: PostgreSQL then cleans up after it completely, which
/// a worker that goes on after a caught error would have to do by itself. Nothing happens, and
/// nothing is returned, in a database where the extension has never been.
pub fn as_books_owner<T>(work: impl FnOnce() -> Result<T>) -> Option<T> {
    in_worker_transaction(|| {
        // SAFETY: inside a transaction with an active snapshot.
        unsafe {
            let owner = pg_sys::get_role_oid(c"exa_billing_owner".as_ptr(), true);
            (owner != pg_sys::InvalidOid).then(|| as_role(owner, work))
        }
    })
}

/// When the oldest of the other sessions' running transactions in this database began. Only the
/// worker itself, which is connected as superuser, may see that of everybody.
pub fn oldest_transaction_start() -> Option<Instant> {
    static OLDEST: Statement = Statement::kept(
        "SELECT min(xact_start) FROM pg_catalog.pg_stat_activity
         WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()",
    );
    let oldest = in_worker_transaction(|| OLDEST.read_row(&[], |row| row.maybe::<Instant>(1)));
    ErrorReportable::unwrap_or_report(oldest.map_err(ErrorReport::from)).flatten()
}

fn in_worker_transaction<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the order of a worker's transaction as PostgreSQL documents it. The isolation level
    // is set before the first snapshot is taken.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED.cast_signed();
        pg_sys::XactReadOnly = false;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let outcome = work();
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        // Without this autovacuum would never learn of the queue rows that posting deletes.
        pg_sys::pgstat_report_stat(true);
        outcome
    }
}

/// # Safety
/// Called inside a transaction with an active snapshot.
unsafe fn as_role<T>(role: pg_sys::Oid, work: impl FnOnce() -> Result<T>) -> T {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: the identity is put back below, or by the abort of the transaction.
    let outcome = unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let restricted = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed();
        pg_sys::SetUserIdAndSecContext(role, restricted);
        let outcome = super::run_script(
            "SET LOCAL search_path = pg_catalog, pg_temp; SET LOCAL row_security = on",
        )
        .and_then(|()| work());
        pg_sys::SetUserIdAndSecContext(user, context);
        outcome
    };
    ErrorReportable::unwrap_or_report(outcome.map_err(ErrorReport::from))
}

/// Whether this server is a standby.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}
