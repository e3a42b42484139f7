//! The worker of one database: posts several times a second; expires credit, evaluates spend and
//! reminds mailers every second; sweeps through all owners, makes partitions and looks for low
//! balances every hour; deletes old events every day.

use crate::error::Result;
use crate::time::MICROSECONDS_PER_SECOND;
use crate::{alerts, books, credits, events, guc, notifications, posting, spi, time, upkeep};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

const ROWS_PER_BATCH: i64 = 10_000;
/// So that signals and settings are looked at even when charges never pause.
const BATCHES_PER_ROUND: usize = 50;
const PARTITION_INTERVAL: Duration = Duration::from_secs(3600);
const EXPIRATION_INTERVAL: Duration = Duration::from_secs(1);
const OWNERS_PER_EXPIRATION: i32 = 1000;
const REMINDER_INTERVAL: Duration = Duration::from_secs(1);
/// Somebody has the mailers' tables locked, for longer perhaps.
const PAUSE_AFTER_REFUSAL: Duration = Duration::from_secs(10);
const EVALUATION_INTERVAL: Duration = Duration::from_secs(1);
const OWNERS_PER_EVALUATION: i32 = 500;
/// After a job has failed as a whole it is left alone for so long.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(60);
const RETENTION_INTERVAL: Duration = Duration::from_secs(86_400);
const ROWS_PER_DELETION: i64 = 1000;

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn exa_billing_database_worker(_argument: pg_sys::Datum) {
    spi::listen_to_signals();
    BackgroundWorker::connect_worker_to_spi(Some(BackgroundWorker::get_extra()), None);
    spi::pin_settings();
    let mut partitions_due = Instant::now();
    let mut expiration_due = Instant::now();
    let mut reminder_due = Instant::now();
    let mut evaluation_due = Instant::now();
    let mut sweep = Sweep::default();
    let mut retention_due = Instant::now();
    // An error ends the process, which cleans up completely; the launcher starts it again. Posting
    // comes first, so that no other job's failure can keep it from its turn.
    while BackgroundWorker::wait_latch(Some(guc::posting_interval())) {
        spi::reload_if_asked();
        if spi::in_recovery() {
            continue;
        }
        for _ in 0..BATCHES_PER_ROUND {
            // What has to be done every second is done, however much there is to post.
            if post_batch() == 0 || Instant::now() >= evaluation_due.min(expiration_due) {
                break;
            }
            pgrx::check_for_interrupts!();
        }
        if Instant::now() >= expiration_due {
            expire_credits();
            expiration_due = Instant::now() + EXPIRATION_INTERVAL;
        }
        if Instant::now() >= reminder_due {
            let pause = remind_mailers().map_or(PAUSE_AFTER_REFUSAL, |()| REMINDER_INTERVAL);
            reminder_due = Instant::now() + pause;
        }
        if Instant::now() >= evaluation_due {
            let pause = evaluate_due().unwrap_or(PAUSE_AFTER_FAILURE);
            evaluation_due = Instant::now() + pause;
        }
        sweep.go_on();
        if Instant::now() >= partitions_due && make_partitions() {
            tell_of_low_balances();
            partitions_due = Instant::now() + PARTITION_INTERVAL;
        }
        // One batch a round, so that posting has its turn between them.
        if Instant::now() >= retention_due && delete_old_events() == Some(0) {
            retention_due = Instant::now() + RETENTION_INTERVAL;
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
        let posted = posting::post(ROWS_PER_BATCH)?;
        notifications::wake_mailers()?;
        Ok(posted)
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
        let expired = credits::expire_due(as_of, OWNERS_PER_EXPIRATION)?;
        notifications::wake_mailers()?;
        Ok(expired)
    });
}

/// For those that could not be told of when they were found.
fn tell_of_low_balances() {
    spi::as_books_owner(|| {
        books::enter_for_writing("exa_billing worker")?;
        events::check_untold_low_balances()?;
        notifications::wake_mailers()
    });
}

/// For deliveries that no batch of this worker has written, or that are due once more.
fn remind_mailers() -> Option<()> {
    tolerated("remind mailers", || {
        events::lock_tables_or_fail()?;
        notifications::remind_mailers()
    })
}

/// One batch in its own transaction: how many rows it deleted; None where there are no books.
fn delete_old_events() -> Option<i64> {
    spi::as_books_owner(|| {
        if !books::exist() {
            return Ok(None);
        }
        books::enter_for_writing("exa_billing worker")?;
        events::delete_old_or_warn(ROWS_PER_DELETION).map(Some)
    })
    .flatten()
}

/// Evaluates owners that are due; how long to wait until the next time, None after a failure.
fn evaluate_due() -> Option<Duration> {
    let (_, is_everybody) = tolerated("evaluate due owners", || {
        alerts::evaluate_due(spi::clock(), OWNERS_PER_EVALUATION)
    })?;
    Some(if is_everybody { EVALUATION_INTERVAL } else { Duration::ZERO })
}

/// The hourly sweep, a few owners at a time, so that posting has its turn between them.
#[derive(Default)]
struct Sweep {
    /// The UTC hour that was swept last.
    done: Option<time::Instant>,
    paused_until: Option<Instant>,
}

impl Sweep {
    fn go_on(&mut self) {
        let hour = spi::clock().hour_start();
        let is_paused = self.paused_until.is_some_and(|until| Instant::now() < until);
        if self.done == Some(hour) || is_paused {
            return;
        }
        let step = || alerts::sweep(spi::clock(), OWNERS_PER_EVALUATION);
        match tolerated("sweep spend alerts", step) {
            Some((_, true)) => self.done = Some(hour),
            Some((_, false)) => {}
            None => self.paused_until = Some(Instant::now() + PAUSE_AFTER_FAILURE),
        }
    }
}

/// One transaction of a job that may fail without ending the worker: posting must go on. None after
/// a failure, and where there are no books.
fn tolerated<T>(job: &str, work: impl FnOnce() -> Result<T>) -> Option<T> {
    spi::as_books_owner(|| {
        if !books::exist() {
            return Ok(None);
        }
        let attempt = || {
            books::enter_for_writing("exa_billing worker")?;
            work()
        };
        match spi::in_subtransaction(attempt) {
            Ok(done) => notifications::wake_mailers().map(|()| Some(done)),
            Err(failure) if failure.is_interruption() => failure.raise(),
            Err(failure) => {
                pgrx::log!("exa_billing could not {job}: {}", failure.message());
                Ok(None)
            }
        }
    })
    .flatten()
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
