//! What the background processes tell each other and everybody else in shared memory, where it costs
//! nobody a write: which launcher leads, which process serves a database, and that it is alive.

use crate::spi;
use crate::time::Instant;
use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::shmem::*;
use pgrx::{pg_shmem_init, pg_sys};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};

/// 16 bytes each. Of more databases, the one that was quiet longest is forgotten.
const MAX_DATABASES: usize = 1024;

/// The last sign of life of one database's worker.
#[derive(Debug, Clone, Copy, Default)]
pub struct Beat {
    database: u32,
    /// 0 when it has ended.
    pid: i32,
    at: i64,
}

impl Beat {
    pub fn is_of(&self, database: pg_sys::Oid) -> bool {
        self.database == database.to_u32()
    }

    pub fn at(&self) -> Instant {
        Instant(self.at)
    }
}

#[derive(Clone, Copy)]
struct Beats {
    /// Counts the launchers since the server's start; the last one leads.
    launcher: u32,
    of: [Beat; MAX_DATABASES],
}

impl Default for Beats {
    fn default() -> Self {
        Self { launcher: 0, of: [Beat::default(); MAX_DATABASES] }
    }
}

// SAFETY: plain numbers without pointers, the same in every process.
unsafe impl PGRXSharedMemory for Beats {}

static BEATS: PgLwLock<Beats> = unsafe { PgLwLock::new(c"exa_billing heartbeats") };
/// Whether the library was loaded at the server's start, so that there is shared memory.
static IS_PRELOADED: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// This process's place, once it serves its database.
    static PLACE: Cell<Option<usize>> = const { Cell::new(None) };
}

pub fn init() {
    // SAFETY: a plain read of the server's state.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        pg_shmem_init!(BEATS);
        IS_PRELOADED.store(true, Ordering::Relaxed);
    }
}

pub fn is_preloaded() -> bool {
    IS_PRELOADED.load(Ordering::Relaxed)
}

/// Makes this process the launcher that leads; returns the number its workers follow.
pub fn lead() -> u32 {
    let mut beats = BEATS.exclusive();
    beats.launcher = beats.launcher.wrapping_add(1);
    beats.launcher
}

/// Whether the launcher of this number leads: nobody looks after the workers of an earlier one.
pub fn follows(launcher: u32) -> bool {
    BEATS.share().launcher == launcher
}

/// Says that the worker of this database is alive; false while another process still serves it.
pub fn beat() -> bool {
    let (_, database) = spi::server_and_database();
    let database = database.to_u32();
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let mut beats = BEATS.exclusive();
    let known = PLACE.get().or_else(|| beats.of.iter().position(|beat| beat.database == database));
    let quietest = || (0..MAX_DATABASES).min_by_key(|&place| beats.of[place].at);
    let Some(place) = known.or_else(quietest) else { return false };
    let there = beats.of[place];
    if there.database == database && there.pid != 0 && there.pid != pid {
        return false;
    }
    beats.of[place] = Beat { database, pid, at: spi::clock().0 };
    drop(beats);
    if PLACE.replace(Some(place)).is_none() {
        // SAFETY: registered once in this process, which is about to serve its database.
        unsafe { pg_sys::before_shmem_exit(Some(leave), pg_sys::Datum::null()) };
    }
    true
}

/// However the process ends, but for a crash, after which shared memory begins anew.
#[pg_guard]
unsafe extern "C-unwind" fn leave(_code: i32, _argument: pg_sys::Datum) {
    let Some(place) = PLACE.take() else { return };
    let pid = i32::try_from(std::process::id()).unwrap_or_default();
    let mut beats = BEATS.exclusive();
    if beats.of[place].pid == pid {
        beats.of[place].pid = 0;
    }
}

/// The last sign of life of each database's worker since the server's start.
pub fn last() -> Vec<Beat> {
    if !is_preloaded() {
        return Vec::new();
    }
    BEATS.share().of.iter().copied().filter(|beat| beat.at != 0).collect()
}
