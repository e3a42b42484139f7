//! Background work: settings nobody else has a say in, and transactions under the books' owner.

use super::rights::with_rights_of;
use super::{Failure, Statement};
use crate::error::Result;
use crate::news::Said;
use crate::time::Instant;
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::{PgTryBuilder, pg_sys};
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::panic::AssertUnwindSafe;

/// A worker is connected as superuser, and ALTER DATABASE … SET reaches it too: without these a
/// database's owner could make it find operators of his own, or have no rights at all. A wait for a
/// lock ends, so that what else is to be done has its turn; and no commit waits for a standby: what
/// the worker writes follows from what others have committed.
const SETTINGS: [(&CStr, &CStr); 13] = [
    (c"role", c"none"),
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"row_security", c"on"),
    (c"session_replication_role", c"origin"),
    (c"default_transaction_isolation", c"read committed"),
    (c"default_transaction_read_only", c"off"),
    (c"default_transaction_deferrable", c"off"),
    (c"statement_timeout", c"0"),
    (c"transaction_timeout", c"0"),
    (c"idle_in_transaction_session_timeout", c"0"),
    (c"lock_timeout", c"10s"),
    (c"synchronous_commit", c"local"),
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
            // transaction_timeout came with PostgreSQL 17.
            if pg_sys::GetConfigOption(name.as_ptr(), true, false).is_null() {
                continue;
            }
            pg_sys::SetConfigOption(
                name.as_ptr(),
                value.as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_SESSION,
            )
        };
    }
}

/// Reads the configuration again if SIGHUP has asked for it, and says whether; called between
/// transactions.
pub fn reload_if_asked() -> bool {
    let is_asked = BackgroundWorker::sighup_received();
    if is_asked {
        // SAFETY: between transactions, as in every background process.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
    }
    is_asked
}

/// Runs one transaction as exa_billing_owner, its commit included: a deferred trigger that
/// somebody put on the books runs with no other rights. None in a database server where the
/// extension has never been.
pub fn as_books_owner<T>(
    work: impl FnOnce() -> Result<T>,
) -> std::result::Result<Option<T>, Failure> {
    transaction(|| {
        // SAFETY: a look-up in the catalog cache; `transaction` puts the identity back.
        unsafe {
            let owner = pg_sys::get_role_oid(c"exa_billing_owner".as_ptr(), true);
            if owner == pg_sys::InvalidOid {
                return Ok(None);
            }
            let restricted = pg_sys::SECURITY_LOCAL_USERID_CHANGE.cast_signed();
            pg_sys::SetUserIdAndSecContext(owner, restricted);
        }
        work().map(Some)
    })
}

/// One transaction of a background process. When it fails, at its commit too, it is rolled back as a
/// whole and the process goes on as if it had never begun.
pub fn transaction<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<T, Failure> {
    // SAFETY: the order in which PostgreSQL's own background processes begin and end transactions;
    // the identity is put back however it ends.
    unsafe {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let attempt = AssertUnwindSafe(|| {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let done = work().map_err(Failure::Ours)?;
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
            Ok(done)
        });
        let outcome = PgTryBuilder::new(attempt)
            .catch_others(|caught| Err(Failure::Server(Box::new(caught))))
            .catch_rust_panic(|caught| Err(Failure::Server(Box::new(caught))))
            .execute();
        if outcome.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::SetUserIdAndSecContext(user, context);
        // Without this autovacuum would never learn of the queue rows that posting deletes.
        pg_sys::pgstat_report_stat(true);
        outcome
    }
}

/// When the oldest of the other sessions' running transactions in this database began; as long
/// ago as can be while a prepared transaction waits, for its beginning is not known. Read with a
/// superuser's rights: nobody else sees that of everybody.
pub fn oldest_transaction_start() -> Result<Option<Instant>> {
    static OLDEST: Statement = Statement::kept(
        "SELECT CASE WHEN EXISTS (
                    SELECT FROM pg_catalog.pg_prepared_xacts
                    WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database())
                THEN pg_catalog.timestamptz '-infinity'
                ELSE (SELECT pg_catalog.min(xact_start) FROM pg_catalog.pg_stat_activity
                      WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                        AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()) END",
    );
    as_superuser(&OLDEST)
}

/// Since when rows that are deleted in this database stay where they are: when the oldest of the other
/// sessions' transactions began that has a snapshot or has written, or was prepared. Read with a
/// superuser's rights, too.
pub fn rows_kept_since() -> Result<Option<Instant>> {
    static SINCE: Statement = Statement::kept(
        "SELECT least(
             (SELECT pg_catalog.min(xact_start) FROM pg_catalog.pg_stat_activity
              WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
                AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL)),
             (SELECT pg_catalog.min(prepared) FROM pg_catalog.pg_prepared_xacts
              WHERE database OPERATOR(pg_catalog.=) pg_catalog.current_database()))",
    );
    as_superuser(&SINCE)
}

fn as_superuser(instant: &'static Statement) -> Result<Option<Instant>> {
    let superuser = pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID);
    let found =
        with_rights_of(superuser, 0, || instant.read_row(&[], |row| row.maybe::<Instant>(1)))?;
    Ok(found.flatten())
}

/// Shows in pg_stat_activity what this process is doing, or that it is doing nothing.
pub fn show_activity(activity: Option<&str>) {
    use pg_sys::BackendState::{STATE_IDLE, STATE_RUNNING};
    let state = if activity.is_some() { STATE_RUNNING } else { STATE_IDLE };
    let text = activity.and_then(|activity| CString::new(activity).ok());
    // SAFETY: the text is copied.
    unsafe {
        let text = text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
        pg_sys::pgstat_report_activity(state, text);
    }
}

thread_local! {
    static SAID: RefCell<Said> = const { RefCell::new(Said::new()) };
}

fn is_news(words: &str) -> bool {
    SAID.with_borrow_mut(|said| said.is_news(words, std::time::Instant::now()))
}

/// For the server's log, from a process that would say it again and again.
pub fn log_news(words: &str) {
    if is_news(words) {
        pgrx::log!("{words}");
    }
}

/// A warning: to a session each time, to the server's log, from a background process, when it is new.
pub fn warn(words: &str) {
    // SAFETY: reads this process's own state.
    let is_background = unsafe { !pg_sys::MyBgworkerEntry.is_null() };
    if !is_background || is_news(words) {
        pgrx::warning!("{words}");
    }
}
