//! What a backend knows and holds outside its statements: catalog look-ups that cost no query,
//! snapshots, memory, advisory locks of the session.

use crate::error::{BillingError, Kind, Result};
use crate::time::Instant;
use crate::transaction::TransactionId;
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

/// The transaction's `now()`.
pub fn transaction_time() -> Instant {
    // SAFETY: called inside a transaction, as every SQL function is.
    Instant(unsafe { pg_sys::GetCurrentTransactionStartTimestamp() })
}

/// When the statement that the session is executing began: no default of its arguments is older.
pub fn statement_time() -> Instant {
    // SAFETY: reads a variable of the backend.
    Instant(unsafe { pg_sys::GetCurrentStatementStartTimestamp() })
}

/// The running transaction, when it has written anything. Subtransactions have no other.
pub fn transaction_id() -> Option<u64> {
    // SAFETY: reads this backend's own state.
    let id = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    (id != 0).then_some(id)
}

/// This transaction's number, which it gets now if it has none.
pub fn own_transaction_id() -> TransactionId {
    // SAFETY: inside a transaction; raises where none may write.
    TransactionId(unsafe { pg_sys::GetTopFullTransactionId() }.value)
}

/// The clock.
pub fn clock() -> Instant {
    // SAFETY: reads the system clock.
    Instant(unsafe { pg_sys::GetCurrentTimestamp() })
}

/// A setting of this session by its name; None when nobody has ever set it.
pub fn setting(name: &CStr) -> Option<CString> {
    // SAFETY: the text is the server's own and is copied at once.
    unsafe {
        let value = pg_sys::GetConfigOption(name.as_ptr(), true, false);
        (!value.is_null()).then(|| CStr::from_ptr(value).to_owned())
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

/// Lets the readers inside `work` see what is committed now, whatever the isolation level of the
/// transaction: for looking at the catalog, which PostgreSQL itself never reads as of earlier.
pub fn on_latest_snapshot<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: as above.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let outcome = work();
        pg_sys::PopActiveSnapshot();
        outcome
    }
}

/// Lets PostgreSQL write times in ISO 8601 inside `work`, with the zone as a number. In every other
/// DateStyle it writes an abbreviation, which is read back as that of another zone (IST is Ireland's,
/// India's and Israel's) or not at all.
pub fn with_iso_dates<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let _style = IsoDates::begin();
    work()
}

/// The style is set directly, as the planner's switches are: nobody else sees it, and a raised
/// error restores it on its way out.
struct IsoDates {
    before: i32,
}

impl IsoDates {
    fn begin() -> Self {
        // SAFETY: a backend has one thread.
        unsafe {
            let before = pg_sys::DateStyle;
            pg_sys::DateStyle = pg_sys::USE_ISO_DATES.cast_signed();
            Self { before }
        }
    }
}

impl Drop for IsoDates {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::DateStyle = self.before };
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

/// Whether the whole transaction sees what was committed before its first statement, and nothing
/// that came later.
pub fn keeps_snapshot() -> bool {
    // SAFETY: reads this transaction's isolation level.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ.cast_signed() }
}

/// Refuses to go on above READ COMMITTED: what was committed while this waited for a lock would
/// stay out of sight.
pub fn require_read_committed(function: &str) -> Result<()> {
    if !keeps_snapshot() {
        return Ok(());
    }
    Err(BillingError::new(
        Kind::WrongState,
        format!("{function} needs isolation level read committed"),
    )
    .hint("Call it in a transaction of its own."))
}

/// Runs a piece of work that makes many values in memory of its own, given back at its end. Nothing
/// made by the server may leave it; Rust's own values may.
pub fn in_own_memory<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // SAFETY: created, switched to and deleted in pairs; after an error the end of the transaction
    // deletes it.
    unsafe {
        let callers = pg_sys::CurrentMemoryContext;
        let own = pg_sys::AllocSetContextCreateInternal(
            callers,
            c"exa_billing piece of work".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        pg_sys::MemoryContextSwitchTo(own);
        let outcome = work();
        pg_sys::MemoryContextSwitchTo(callers);
        pg_sys::MemoryContextDelete(own);
        outcome
    }
}

/// The first number of the product's own advisory locks. The second says which: 1 setup,
/// 2 partitions, 3 new dimensions, 4 degraded intervals, 5 the hourly sweep, 6 where background work was
/// started, 10 rights.
pub const LOCK_NAMESPACE: i32 = 0x4558_4142; // "EXAB"

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

/// Whether this process copies or applies what another server publishes.
pub fn is_subscriber() -> bool {
    // SAFETY: reads this process's own state.
    unsafe { pg_sys::IsLogicalWorker() }
}

/// The server's identity, which every copy of its disks has too, and the database's.
pub fn server_and_database() -> (i64, pg_sys::Oid) {
    // SAFETY: plain reads of shared state and of this backend's own.
    unsafe { (pg_sys::GetSystemIdentifier().cast_signed(), pg_sys::MyDatabaseId) }
}

/// Whether this server is a standby.
pub fn in_recovery() -> bool {
    // SAFETY: reads shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}
