//! The worker of one database: posts several times a second, expires credit every second, makes
//! partitions every hour.

use crate::time::MICROSECONDS_PER_SECOND;
use crate::{books, credits, guc, posting, spi, upkeep};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

const ROWS_PER_BATCH: i64 = 10_000;
/// So that signals and settings are looked at even when charges never pause.
const BATCHES_PER_ROUND: usize = 50;
const PARTITION_INTERVAL: Duration = Duration::from_secs(3600);
const EXPIRATION_INTERVAL: Duration = Duration::from_secs(1);
const OWNERS_PER_EXPIRATION: i32 = 1000;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn exa_billing_database_worker(_argument: pg_sys::Datum) {
    spi::listen_to_signals();
    BackgroundWorker::connect_worker_to_spi(Some(BackgroundWorker::get_extra()), None);
    spi::pin_settings();
    let mut partitions_due = Instant::now();
    let mut expiration_due = Instant::now();
    // An error ends the process, which cleans up completely; the launcher starts it again. Posting
    // comes first, so that no other job's failure can keep it from its turn.
    while BackgroundWorker::wait_latch(Some(guc::posting_interval())) {
        spi::reload_if_asked();
        if spi::in_recovery() {
            continue;
        }
        for _ in 0..BATCHES_PER_ROUND {
            if post_batch() == 0 {
                break;
            }
            pgrx::check_for_interrupts!();
        }
        if Instant::now() >= expiration_due {
            expire_credits();
            expiration_due = Instant::now() + EXPIRATION_INTERVAL;
        }
        if Instant::now() >= partitions_due && make_partitions() {
            partitions_due = Instant::now() + PARTITION_INTERVAL;
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

/// Closes grants whose expiry has passed, once no charge dated before it can still be in flight:
/// after the grace period, and not while a transaction begun before the expiry is running.
fn expire_credits() {
    let grace = guc::expiration_grace_seconds() * MICROSECONDS_PER_SECOND;
    let settled = spi::clock().plus_microseconds(-grace);
    let as_of = spi::oldest_transaction_start().map_or(settled, |oldest| oldest.min(settled));
    spi::as_books_owner(|| {
        if !books::exist() {
            return Ok(0);
        }
        books::enter_for_writing("exa_billing worker")?;
        credits::expire_due(as_of, OWNERS_PER_EXPIRATION)
    });
}

/// True when there are books to make partitions for.
fn make_partitions() -> bool {
    spi::as_books_owner(|| {
        if !books::exist() {
            return Ok(false);
        }
        books::enter_for_writing("exa_billing worker")?;
        let reports = upkeep::maintain(Some(upkeep::MONTHS_AHEAD))?;
        for (partition, error) in
            reports.iter().filter_map(|report| Some((&report.partition, report.error.as_ref()?)))
        {
            pgrx::log!("exa_billing could not make partition \"{partition}\": {error}");
        }
        Ok(true)
    })
    .unwrap_or(false)
}
