//! Locks on tables, without waiting for long.

use super::names::relation_oid;
use crate::error::Result;
use pgrx::pg_sys;
use std::time::{Duration, Instant};

/// How a table is locked, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableLock {
    /// Others read on, and wait to write.
    Share,
    /// Others wait.
    AccessExclusive,
}

impl TableLock {
    fn number(self) -> i32 {
        match self {
            TableLock::Share => pg_sys::ShareLock.cast_signed(),
            TableLock::AccessExclusive => pg_sys::AccessExclusiveLock.cast_signed(),
        }
    }
}

/// Locks a relation of the schema as who writes to it does, until the transaction ends; false when there
/// is none. Between those who do so nobody waits, and PostgreSQL notes it in the session's own memory only.
pub fn lock_for_writing(name: &str) -> bool {
    let Some(relation) = relation_oid(name) else { return false };
    // SAFETY: waits until the lock is had, or raises.
    unsafe { pg_sys::LockRelationOid(relation, pg_sys::RowExclusiveLock.cast_signed()) };
    true
}

/// While it lives, waiting for locks ends in time for nobody else to become the victim of a deadlock:
/// whoever waits for this session learns of one only after the server's deadlock_timeout, and by
/// then this session has given up, by 55P03, or found the deadlock itself, by 40P01. Asking for
/// deadlocks early also moves an autovacuum out of the way.
///
/// The two limits are set directly, as the planner's switches are: nobody else sees them, and a
/// raised error restores them on its way out.
pub struct Impatience {
    ends: Instant,
    lock_timeout: i32,
    deadlock_timeout: i32,
}

impl Impatience {
    pub fn begin() -> Self {
        const LONGEST_MILLISECONDS: i32 = 600;
        // SAFETY: a backend has one thread.
        unsafe {
            let (lock_timeout, deadlock_timeout) = (pg_sys::LockTimeout, pg_sys::DeadlockTimeout);
            let patience = (deadlock_timeout / 2).clamp(1, LONGEST_MILLISECONDS);
            pg_sys::DeadlockTimeout = (patience / 3).max(1);
            let ends = Instant::now() + Duration::from_millis(patience.unsigned_abs().into());
            Self { ends, lock_timeout, deadlock_timeout }
        }
    }

    /// Leaves the next wait what is left of the time.
    fn hurry(&self) {
        let left = self.ends.saturating_duration_since(Instant::now()).as_millis();
        // SAFETY: as above. 0 would be for ever.
        unsafe { pg_sys::LockTimeout = i32::try_from(left).unwrap_or(i32::MAX).max(1) };
    }

    /// Takes a lock of any kind.
    pub fn wait_for<T>(&self, lock: impl FnOnce() -> Result<T>) -> Result<T> {
        self.hurry();
        lock()
    }

    /// Locks a relation of the schema until the (sub)transaction ends; one that is not there is left
    /// out. Unlike LOCK TABLE it locks a view alone, and a partitioned table without its partitions.
    pub fn lock_table(&self, name: &str, mode: TableLock) {
        if let Some(relation) = relation_oid(name) {
            self.hurry();
            // SAFETY: waits until the lock is had, or raises.
            unsafe { pg_sys::LockRelationOid(relation, mode.number()) };
        }
    }
}

impl Drop for Impatience {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe {
            pg_sys::LockTimeout = self.lock_timeout;
            pg_sys::DeadlockTimeout = self.deadlock_timeout;
        }
    }
}

/// While it lives, PostgreSQL counts the rows that this transaction writes, whatever track_counts
/// says.
pub struct RowsCounted {
    before: bool,
}

impl RowsCounted {
    pub fn begin() -> Self {
        // SAFETY: as above; the switch is looked at each time a table is opened.
        unsafe {
            let before = pg_sys::pgstat_track_counts;
            pg_sys::pgstat_track_counts = true;
            Self { before }
        }
    }
}

impl Drop for RowsCounted {
    fn drop(&mut self) {
        // SAFETY: as above.
        unsafe { pg_sys::pgstat_track_counts = self.before };
    }
}
