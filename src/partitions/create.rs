//! Making partitions ahead of time.

use super::plan::{JOURNALS, Journal, ddl, guard_ddl, months_to_keep_ready};
use crate::error::Result;
use crate::spi::{self, Statement};
use crate::time::{Instant, Month};
use std::collections::BTreeSet;

/// Number of the advisory lock under which partitions are made.
pub(super) const PARTITION_LOCK: i32 = 2;

static ATTACHED: Statement = Statement::fresh(
    "SELECT p.relname::text
     FROM pg_catalog.pg_inherits AS i
     JOIN pg_catalog.pg_class AS p ON p.oid = i.inhrelid
     JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
     WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
       AND c.relname IN ('exa_usage_log', 'spend_log') AND p.relkind = 'r'",
);
static UNGUARDED: Statement = Statement::fresh(
    "SELECT pg_catalog.quote_ident(p.relname)
     FROM pg_catalog.pg_inherits AS i
     JOIN pg_catalog.pg_class AS p ON p.oid = i.inhrelid
     JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
     WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
       AND p.relnamespace = c.relnamespace
       AND c.relname IN ('exa_usage_log', 'spend_log') AND p.relkind = 'r'
       AND (NOT p.relrowsecurity OR NOT EXISTS (
           SELECT FROM pg_catalog.pg_trigger AS t
           WHERE t.tgrelid = p.oid AND t.tgname = 'append_only' AND t.tgenabled = 'A'))",
);

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
    guard_attached()?;
    let attached = attached()?;
    let mut reports = Vec::new();
    for month in months {
        for journal in JOURNALS {
            let is_attached = attached.contains(&journal.partition(month));
            reports.push(report(journal, month, is_attached)?);
        }
    }
    Ok(reports)
}

/// The names of all partitions of the journals, also of those that are newer than the transaction's
/// snapshot.
fn attached() -> Result<BTreeSet<String>> {
    let names = spi::on_latest_snapshot(|| ATTACHED.read(&[], |row| row.get::<String>(1)))?;
    Ok(names.into_iter().collect())
}

/// Gives every partition the guard it lacks: a restored or re-created extension leaves tables
/// without their triggers.
fn guard_attached() -> Result<()> {
    let unguarded = spi::on_latest_snapshot(|| UNGUARDED.read(&[], |row| row.get::<String>(1)))?;
    for partition in unguarded {
        spi::run_script(&guard_ddl(&partition))?;
    }
    Ok(())
}

fn report(journal: Journal, month: Month, is_attached: bool) -> Result<Report> {
    let created =
        if is_attached { Ok(()) } else { spi::in_subtransaction(|| create(journal, month)) };
    let error = match created {
        Ok(()) => None,
        Err(failure) if failure.is_interruption() => return failure.raise(),
        Err(failure) => Some(failure.message()),
    };
    Ok(Report {
        partition: journal.partition(month),
        from: month.start(),
        to: month.next()?.start(),
        created: !is_attached && error.is_none(),
        error,
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

/// Takes the lock under which partitions are made, until the transaction ends.
pub fn lock_until_commit() -> Result<()> {
    spi::lock_until_commit(PARTITION_LOCK)?;
    spi::see_what_others_committed();
    Ok(())
}
