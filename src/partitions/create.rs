//! Making partitions ahead of time.

use super::plan::{JOURNALS, Journal, ddl, months_to_keep_ready};
use crate::error::Result;
use crate::spi::{self, Statement, values};
use crate::time::{Instant, Month};

/// Namespace and number of the advisory lock under which partitions are made.
pub(super) const LOCK_NAMESPACE: i32 = 0x4558_4142; // "EXAB"
pub(super) const PARTITION_LOCK: i32 = 2;

static LOCK_PARTITIONS: Statement =
    Statement::kept("SELECT pg_catalog.pg_advisory_xact_lock($1, $2)");

/// What became of one partition.
pub struct Report {
    pub partition: String,
    pub from: Instant,
    pub to: Instant,
    pub created: bool,
    pub error: Option<String>,
}

/// Makes every partition there must be. Each is made in its own subtransaction: one that fails
/// is reported and stops no other.
///
/// Locks, in this order: the partition lock (until the transaction ends); then, per missing
/// partition, SHARE UPDATE EXCLUSIVE on the journal. Charges go on meanwhile.
pub fn maintain(
    now: Instant,
    late_limit_seconds: i64,
    months_ahead: Option<i32>,
) -> Result<Vec<Report>> {
    let months = months_to_keep_ready(now, late_limit_seconds, months_ahead)?;
    lock_until_commit()?;
    let mut reports = Vec::new();
    for month in months {
        for journal in JOURNALS {
            reports.push(report(journal, month)?);
        }
    }
    Ok(reports)
}

fn report(journal: Journal, month: Month) -> Result<Report> {
    let missing = !spi::relation_exists(&journal.partition(month));
    let outcome = if missing { spi::in_subtransaction(|| create(journal, month)) } else { Ok(()) };
    Ok(Report {
        partition: journal.partition(month),
        from: month.start(),
        to: month.next()?.start(),
        created: missing && outcome.is_ok(),
        error: outcome.err().map(|failure| failure.message()),
    })
}

pub(super) fn create(journal: Journal, month: Month) -> Result<()> {
    spi::run_script(&ddl(journal, month)?)
}

/// Makes the month in every journal that lacks it.
pub(super) fn create_month(month: Month) -> Result<()> {
    JOURNALS
        .into_iter()
        .filter(|journal| !spi::relation_exists(&journal.partition(month)))
        .try_for_each(|journal| create(journal, month))
}

pub(super) fn lock_until_commit() -> Result<()> {
    LOCK_PARTITIONS.execute(values![LOCK_NAMESPACE, PARTITION_LOCK])?;
    spi::see_what_others_committed();
    Ok(())
}
