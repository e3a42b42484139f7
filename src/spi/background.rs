//! Background work: settings nobody else has a say in, and transactions under the books' owner.

use super::Statement;
use crate::error::Result;
use crate::time::Instant;
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use std::ffi::CStr;

/// A worker is connected as superuser, and ALTER DATABASE … SET reaches it too: without these a
/// database's owner could make it find operators of his own. A wait for a lock ends it, so that
/// it starts afresh instead of standing still.
const SETTINGS: [(&CStr, &CStr); 9] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"row_security", c"on"),
    (c"session_replication_role", c"origin"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"statement_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"lock_timeout", c"10s"),
    (c"jit", c"off"),
];

/// Takes SIGHUP as a wish to read the settings again, and SIGTERM as PostgreSQL's own sessions
/// do: at the next interrupt check, also in the middle of a wait for a lock.
pub fn listen_to_signals() {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP);
    let terminate = pg_sys::SIGTERM.cast_signed();
    // SAFETY: called while the worker starts; `die` is the handler of ordinary sessions.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(terminate, Some(die));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(terminate, Some(die));
    }
}

unsafe extern "C-unwind" fn die(signal: i32) {
    // SAFETY: PostgreSQL's own handler, called as it would be.
    unsafe { pg_sys::die(signal) }
}

/// Pins the worker's settings; called once, right after it has connected.
pub fn pin_settings() {
    for (name, value) in SETTINGS {
        // SAFETY: both are C strings; settings of the session go before those of database and role.
        unsafe {
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
            )
        };
    }
}

/// Reads the configuration again if SIGHUP has asked for it; called between transactions.
pub fn reload_if_asked() {
    if BackgroundWorker::sighup_received() {
        // SAFETY: between transactions, as in every background process.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
}

/// Runs one transaction as exa_billing_owner, its commit included: a deferred trigger that
/// somebody put on the books runs with no other rights.
///
/// A failure is raised and ends the worker: PostgreSQL then cleans up after it completely, which
/// a worker that goes on after a caught error would have to do by itself. Nothing happens, and
/// nothing is returned, in a database where the extension has never been.
pub fn as_books_owner<T>(work: impl FnOnce() -> Result<T>) -> Option<T> {
    // SAFETY: the order of a worker's transaction as PostgreSQL documents it; the identity is put
    // back after the commit, and a raised error ends the process.
    unsafe {
        begin();
        let owner = pg_sys::get_role_oid(c"exa_billing_owner".as_ptr(), true);
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let outcome = (owner != pg_sys::InvalidOid).then(|| {
            let restricted = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed();
            pg_sys::SetUserIdAndSecContext(owner, restricted);
            raised(work())
        });
        commit();
        pg_sys::SetUserIdAndSecContext(user, context);
        outcome
    }
}

/// When the oldest of the other sessions' running transactions in this database began; as long
/// ago as can be while a prepared transaction waits, for its beginning is not known. Only the
/// worker itself, which is connected as superuser, may see that of everybody.
pub fn oldest_transaction_start() -> Option<Instant> {
    static OLDEST: Statement = Statement::kept(
        "SELECT CASE WHEN EXISTS (
                    SELECT FROM pg_catalog.pg_prepared_xacts
                    WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database())
                THEN pg_catalog.timestamptz '-infinity'
                ELSE (SELECT pg_catalog.min(xact_start) FROM pg_catalog.pg_stat_activity
                      WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                        AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()) END",
    );
    // SAFETY: as above, without a change of identity.
    unsafe {
        begin();
        let oldest = raised(OLDEST.read_row(&[], |row| row.maybe::<Instant>(1)));
        commit();
        oldest.flatten()
    }
}

unsafe fn begin() {
    // SAFETY: called outside a transaction.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}

unsafe fn commit() {
    // SAFETY: called inside the transaction that `begin` began.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        // Without this autovacuum would never learn of the queue rows that posting deletes.
        pg_sys::pgstat_report_stat(true);
    }
}

fn raised<T>(outcome: Result<T>) -> T {
    ErrorReportable::unwrap_or_report(outcome.map_err(ErrorReport::from))
}
