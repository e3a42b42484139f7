//! The last resort: a charge whose month has no partition.
//!
//! Preferably a background worker makes it in a transaction of its own: the month then exists for
//! everybody at once, and this transaction holds no lock on the journal until its commit. Only
//! when that cannot be, the charge makes it itself.

use super::create::{PARTITION_LOCK, create_month, lock_until_commit};
use super::plan::Journal;
use crate::error::{BillingError, Kind, Result};
use crate::spi;
use crate::time::{Day, Month};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder};
use pgrx::prelude::*;

/// How long the worker waits for a lock. A lock held by the very transaction that waits for the
/// worker would never be released; the charge then goes the other way.
const WORKER_LOCK_TIMEOUT: &str = "2s";

/// Makes sure that `journal` has a partition for `month`.
///
/// Locks: when it is missing, the partition advisory lock for the time it takes to make it (until
/// the transaction ends when it is made here). It is taken before any row lock of the call.
pub fn ensure(journal: Journal, month: Month) -> Result<()> {
    if spi::relation_exists(&journal.partition(month)) {
        return Ok(());
    }
    let _lock = spi::SessionLock::acquire(spi::LOCK_NAMESPACE, PARTITION_LOCK);
    spi::see_what_others_committed();
    if spi::relation_exists(&journal.partition(month)) {
        return Ok(());
    }
    if made_by_worker(month) {
        spi::see_what_others_committed();
        if spi::relation_exists(&journal.partition(month)) {
            return Ok(());
        }
    }
    make_here(journal, month)
}

fn made_by_worker(month: Month) -> bool {
    // SAFETY: plain reads of this backend's own identity.
    let (database, backend) = unsafe { (pg_sys::MyDatabaseId, pg_sys::MyProcPid) };
    let started = BackgroundWorkerBuilder::new("exa_billing partition maker")
        .set_library("exa_billing")
        .set_function("exa_billing_partition_worker")
        .set_argument(Some(pg_sys::Datum::from(database)))
        .set_extra(&month.first_day().0.to_string())
        .set_restart_time(None)
        .set_notify_pid(backend)
        .enable_spi_access()
        .load_dynamic();
    started.is_ok_and(|worker| worker.wait_for_shutdown().is_ok())
}

/// Makes the month in the caller's transaction. PostgreSQL refuses that when the caller's own
/// statement is reading the journal; then only a transaction of its own helps.
fn make_here(journal: Journal, month: Month) -> Result<()> {
    lock_until_commit()?;
    spi::in_subtransaction(|| create_month(month)).or_else(|failure| {
        if !failure.is_of_state() {
            return failure.raise();
        }
        Err(BillingError::new(
            Kind::WrongState,
            format!("{} has no partition for {month}", journal.table()),
        )
        .detail(format!("It could not be made in this transaction: {}.", failure.message()))
        .hint("Call SELECT * FROM exa_billing.maintain_partitions(); in a transaction of its own."))
    })
}

/// Entry of the worker that makes one month in all journals, in its own transaction.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn exa_billing_partition_worker(database: pg_sys::Datum) {
    spi::listen_to_signals();
    let database = pg_sys::Oid::from(u32::try_from(database.value()).unwrap_or_default());
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    spi::pin_settings();
    let first_day: Option<i32> = BackgroundWorker::get_extra().parse().ok();
    let Some(month) = first_day.and_then(|day| Day(day).month().ok()) else { return };
    let made = spi::as_books_owner(|| {
        spi::run_script(&format!("SET LOCAL lock_timeout = '{WORKER_LOCK_TIMEOUT}'"))?;
        // The books may have been made in the very transaction that waits; then there is
        // nothing here that could be seen.
        if spi::relation_exists(Journal::ExaUsageLog.table()) {
            create_month(month)
        } else {
            Ok(())
        }
    });
    if let Err(failure) = made {
        spi::warn(&format!("partitions for {month} could not be made: {}", failure.message()));
    }
}
