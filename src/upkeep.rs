//! What keeps the books in shape: `setup()`, `maintain_partitions()`, and the same as a job.

use crate::error::Result;
use crate::spi::{self, Answer, Composite, RowSet, values};
use crate::{access, books, guc, partitions, sources};
use pgrx::prelude::*;

pub const MONTHS_AHEAD: i32 = 12;

/// Looks after attached tables and makes the months that are missing.
///
/// Locks, in this order: where a trigger is missing, its table; then the partition lock, then what
/// making a partition takes. Tables come first, as for those who delete from a ledger that keeps.
pub fn maintain(months_ahead: Option<i32>) -> Result<Vec<partitions::Report>> {
    sources::tend()?;
    partitions::maintain(spi::clock(), guc::late_usage_limit_seconds(), months_ahead)
}

/// Makes or renews the books; returns their storage version.
#[pg_extern(sql = false)]
fn setup() -> Answer<i32> {
    spi::require_writable("exa_billing.setup()");
    if books::exist() {
        // Not by the gate: of two that are in it, neither could close it.
        books::require_untampered()?;
    }
    // First the rights, which owners of attached tables need to be given their triggers; then the
    // tables, which come before the partition lock everywhere.
    access::grant_again()?;
    sources::tend()?;
    let version = books::set_up()?;
    // What migrations have brought is for the same roles, and under the same policies first.
    access::keep_row_security()?;
    access::grant_again()?;
    Ok(version)
}

/// Makes the monthly partitions that are missing and reports on each month.
#[pg_extern(sql = false)]
fn maintain_partitions(months_ahead: Option<i32>) -> Answer<RowSet> {
    books::enter_for_writing("exa_billing.maintain_partitions()")?;
    let reports = maintain(months_ahead)?;
    let rows = reports.iter().map(|report| {
        let error = report.error.as_deref();
        Composite::new(values![&report.partition, report.from, report.to, report.created, error])
    });
    Ok(rows.collect())
}
