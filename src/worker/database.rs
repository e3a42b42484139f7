//! The worker of one database: posts several times a second, makes partitions every hour.

use crate::{books, guc, partitions, posting, spi};
use pgrx::bgworkers::{BackgroundWorker, SignalWakeFlags};
use pgrx::prelude::*;
use std::time::{Duration, Instant};

const ROWS_PER_BATCH: i64 = 10_000;
/// So that signals and settings are looked at even when charges never pause.
const BATCHES_PER_ROUND: usize = 50;
const PARTITION_INTERVAL: Duration = Duration::from_secs(3600);
const MONTHS_AHEAD: i32 = 12;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn exa_billing_database_worker(_argument: pg_sys::Datum) {
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGHUP | SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi(Some(BackgroundWorker::get_extra()), None);
    let mut partitions_due = Instant::now();
    // An error ends the process, which cleans up completely; the launcher starts it again.
    while BackgroundWorker::wait_latch(Some(guc::posting_interval())) {
        if BackgroundWorker::sighup_received() {
            // SAFETY: between transactions, as in every background process.
            unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        }
        if spi::in_recovery() {
            continue;
        }
        if Instant::now() >= partitions_due && make_partitions() {
            partitions_due = Instant::now() + PARTITION_INTERVAL;
        }
        for _ in 0..BATCHES_PER_ROUND {
            if post_batch() == 0 {
                break;
            }
        }
    }
}

/// One batch in its own transaction; nothing where there are no books.
fn post_batch() -> i64 {
    spi::as_books_owner(|| {
        if !books::exist() {
            return Ok(0);
        }
        books::enter_for_writing("exa_billing worker")?;
        posting::post(ROWS_PER_BATCH)
    })
    .unwrap_or(0)
}

/// True when there are books to make partitions for.
fn make_partitions() -> bool {
    spi::as_books_owner(|| {
        if !books::exist() {
            return Ok(false);
        }
        let limit = guc::late_usage_limit_seconds();
        let reports = partitions::maintain(spi::clock(), limit, Some(MONTHS_AHEAD))?;
        for (partition, error) in
            reports.iter().filter_map(|report| Some((&report.partition, report.error.as_ref()?)))
        {
            pgrx::log!("exa_billing could not make partition \"{partition}\": {error}");
        }
        Ok(true)
    })
    .unwrap_or(false)
}
