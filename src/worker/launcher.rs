//! The launcher: connected to no database, it keeps one worker running per listed database.

use crate::{guc, spi};
use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker,
};
use pgrx::prelude::*;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How often the launcher looks after its workers, and the pause before one is started again.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
const RESTART_PAUSE: Duration = Duration::from_secs(5);

struct Served {
    worker: Option<DynamicBackgroundWorker>,
    not_before: Instant,
}

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
        .enable_shmem_access(None)
        .set_start_time(BgWorkerStartTime::ConsistentState)
        .set_restart_time(Some(RESTART_PAUSE))
        .load();
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn exa_billing_launcher(_argument: pg_sys::Datum) {
    spi::listen_to_signals();
    let mut served: BTreeMap<String, Served> = BTreeMap::new();
    loop {
        let wanted = database_names(&guc::databases());
        served.retain(|name, entry| keep(entry, wanted.contains(name)));
        for name in wanted {
            look_after(&name, served.entry(name.clone()).or_insert_with(Served::new));
        }
        if !BackgroundWorker::wait_latch(Some(LOOK_INTERVAL)) {
            return;
        }
        spi::reload_if_asked();
    }
}

impl Served {
    fn new() -> Self {
        Self { worker: None, not_before: Instant::now() }
    }
}

/// Stops the worker of a database that is no longer listed.
fn keep(entry: &mut Served, is_wanted: bool) -> bool {
    if !is_wanted && let Some(worker) = entry.worker.take() {
        worker.terminate();
    }
    is_wanted
}

fn look_after(database: &str, entry: &mut Served) {
    use pgrx::bgworkers::BackgroundWorkerStatus::Stopped;
    if entry.worker.as_ref().is_some_and(|worker| matches!(worker.pid(), Err(Stopped))) {
        entry.worker = None;
        entry.not_before = Instant::now() + RESTART_PAUSE;
    }
    if entry.worker.is_some() || Instant::now() < entry.not_before {
        return;
    }
    let started = BackgroundWorkerBuilder::new(&format!("exa_billing worker: {database}"))
        .set_type("exa_billing worker")
        .set_library("exa_billing")
        .set_function("exa_billing_database_worker")
        .set_extra(database)
        .set_restart_time(None)
        .enable_spi_access()
        .load_dynamic();
    match started {
        Ok(worker) => entry.worker = Some(worker),
        Err(_) => {
            entry.not_before = Instant::now() + RESTART_PAUSE;
            pgrx::log!(
                "exa_billing has no free background worker for database \"{database}\"; \
                 raise max_worker_processes"
            );
        }
    }
}

/// The names in a comma-separated list, in order, each once.
fn database_names(list: &str) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::database_names;

    #[test]
    fn lists_are_forgiving() {
        assert_eq!(database_names(" app, billing,,app ,"), ["app", "billing"]);
        assert!(database_names("").is_empty());
    }
}
