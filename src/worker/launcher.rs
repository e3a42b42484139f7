//! The launcher: connected to no database, it keeps one worker running per listed database.

use super::process::Process;
use super::restart::Restart;
use crate::spi::Door;
use crate::{guc, jobs, spi};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the launcher looks after its workers.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Before it is itself started again, and before it tries again to find room for a worker.
const PAUSE: Duration = Duration::from_secs(5);
/// Who wants a database alone waits five seconds. A worker leaves by itself between two steps; one
/// that is in the middle of a long one is ended at the second look.
const LOOKS_BEFORE_ENDING: u32 = 2;

pub fn register() {
    // SAFETY: plain reads of the server's state. A server in binary upgrade must not be touched.
    let at_server_start =
        unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade };
    if !at_server_start {
        return;
    }
    BackgroundWorkerBuilder::new("exa_billing launcher")
        .set_type("exa_billing launcher")
        .set_library("exa_billing")
        .set_function("exa_billing_launcher")
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(Some(PAUSE))
        .load();
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn exa_billing_launcher(_argument: pg_sys::Datum) {
    spi::listen_to_signals();
    BackgroundWorker::connect_worker_to_spi(None, None);
    spi::pin_settings();
    spi::show_activity(None);
    let launcher = jobs::lead();
    let mut served: BTreeMap<String, Served> = BTreeMap::new();
    loop {
        // A standby has no worker, and leaves the databases' catalog to what it replays.
        if !spi::in_recovery() {
            let wanted = guc::databases();
            served.retain(|name, entry| keep(entry, wanted.contains(name)));
            for name in wanted {
                look_after(&name, served.entry(name.clone()).or_insert_with(Served::new), launcher);
            }
        }
        if !BackgroundWorker::wait_latch(Some(LOOK_INTERVAL)) {
            return;
        }
        if spi::reload_if_asked() {
            // Whoever has changed something wants to see what it does.
            served.values_mut().for_each(Served::be_patient_no_longer);
        }
    }
}

/// A worker that was started, and how often in a row somebody wanted its database alone.
struct Running {
    process: Process,
    since: Instant,
    database: pg_sys::Oid,
    in_the_way: u32,
}

struct Served {
    running: Option<Running>,
    not_before: Instant,
    restart: Restart,
}

impl Served {
    fn new() -> Self {
        Self { running: None, not_before: Instant::now(), restart: Restart::new() }
    }

    fn be_patient_no_longer(&mut self) {
        self.not_before = Instant::now();
        self.restart = Restart::new();
    }
}

/// Stops the worker of a database that is no longer listed.
fn keep(entry: &mut Served, is_wanted: bool) -> bool {
    if !is_wanted && let Some(running) = entry.running.take() {
        running.process.terminate();
    }
    is_wanted
}

fn look_after(name: &str, entry: &mut Served, launcher: u32) {
    if let Some(running) = &mut entry.running {
        if !running.process.has_ended() {
            make_way(running);
            return;
        }
        let pause = entry.restart.pause_after(running.since.elapsed());
        entry.not_before = Instant::now() + pause;
        entry.running = None;
    }
    if Instant::now() < entry.not_before {
        return;
    }
    match start(name, launcher) {
        Ok(running) => entry.running = Some(running),
        Err((reason, pause)) => {
            if let Some(reason) = reason {
                spi::log_news(&format!("exa_billing cannot serve database \"{name}\": {reason}"));
            }
            entry.not_before = Instant::now() + pause;
        }
    }
}

fn make_way(running: &mut Running) {
    let is_wanted = spi::is_wanted_alone(running.database);
    running.in_the_way = if is_wanted { running.in_the_way + 1 } else { 0 };
    if running.in_the_way == LOOKS_BEFORE_ENDING {
        running.process.terminate();
    }
}

/// Why there is no worker, where that is worth saying, and how long to wait before the next look.
type NotNow = (Option<String>, Duration);

fn start(name: &str, launcher: u32) -> Result<Running, NotNow> {
    let database = match spi::door_of(name) {
        Ok(Door::Open(database)) => database,
        Ok(Door::Closed) => {
            return Err((Some("it accepts no connections".to_owned()), LOOK_INTERVAL));
        }
        Ok(Door::Missing) => return Err((Some("it does not exist".to_owned()), LOOK_INTERVAL)),
        Err(failure) => return Err((Some(failure.message()), PAUSE)),
    };
    if spi::is_wanted_alone(database) {
        return Err((None, LOOK_INTERVAL));
    }
    let builder = BackgroundWorkerBuilder::new(&format!("exa_billing worker: {name}"))
        .set_type("exa_billing worker")
        .set_library("exa_billing")
        .set_function("exa_billing_database_worker")
        .set_argument(Some(pg_sys::Datum::from(launcher)))
        .set_extra(name)
        .set_restart_time(None)
        .enable_spi_access();
    let Some(process) = Process::start(&builder) else {
        let reason = "no background worker is free; raise max_worker_processes";
        return Err((Some(reason.to_owned()), PAUSE));
    };
    Ok(Running { process, since: Instant::now(), database, in_the_way: 0 })
}
