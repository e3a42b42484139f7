//! Keeping everybody else out of the books while they are migrated.

use super::migrations::Migration;
use super::{GATE, scripts};
use crate::error::{BillingError, Kind, Result};
use crate::partitions;
use crate::spi::{self, Impatience, Statement, TableLock};
use std::time::{Duration, Instant};

// The parent of partitions is enough: charges go through it.
static TABLES: Statement = Statement::fresh(
    "SELECT c.relname::text FROM pg_catalog.pg_class AS c
     WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
       AND c.relkind IN ('r', 'p') AND NOT c.relispartition
     ORDER BY c.relname",
);
static PAUSE: Statement = Statement::kept("SELECT pg_catalog.pg_sleep(0.3)");

const PATIENCE: Duration = Duration::from_secs(60);

/// Takes every lock that the migrations need, all of them or none: while some are held and others
/// waited for, a charge that holds one of those waits for this transaction, and one of the two would
/// have to fail. So each attempt is short, and gives back what it has; charges wait, none fails.
///
/// Locks, until the transaction ends: the gate, which keeps those out who have not written yet, and the
/// views that are made anew, in ACCESS EXCLUSIVE, in turns one or the other first; the partition lock; then the tables, in SHARE, so that
/// everybody reads on, and those that a migration alters in ACCESS EXCLUSIVE.
pub fn begin(pending: &[&Migration]) -> Result<()> {
    let began = Instant::now();
    // Looked up before, so that nothing is between the gate and the views.
    let views = scripts::views_to_replace()?;
    let tables = TABLES.write(&[], |row| row.get::<String>(1))?;
    // Who reads a view and then writes wants the gate last, who writes and then reads wants it first:
    // every other attempt meets each of them in their own order.
    let mut views_first = true;
    loop {
        match spi::in_subtransaction(|| lock(pending, &views, &tables, views_first)) {
            Ok(()) => return Ok(()),
            Err(failure) if !failure.is_of_locks() => return failure.raise(),
            Err(failure) if began.elapsed() > PATIENCE => return Err(busy(&failure.message())),
            Err(_) => PAUSE.execute(&[])?,
        }
        views_first = !views_first;
    }
}

fn lock(
    pending: &[&Migration],
    views: &[&str],
    tables: &[String],
    views_first: bool,
) -> Result<()> {
    let impatience = Impatience::begin();
    let close_gate = || impatience.lock_table(GATE, TableLock::Share);
    let close_views =
        || views.iter().for_each(|view| impatience.lock_table(view, TableLock::AccessExclusive));
    if views_first {
        close_views();
        close_gate();
    } else {
        close_gate();
        close_views();
    }
    impatience.wait_for(partitions::lock_until_commit)?;
    let altered: Vec<&str> =
        pending.iter().flat_map(|migration| migration.alters).copied().collect();
    for table in tables {
        let is_altered = altered.contains(&table.as_str());
        let mode = if is_altered { TableLock::AccessExclusive } else { TableLock::Share };
        impatience.lock_table(table, mode);
    }
    spi::see_what_others_committed();
    Ok(())
}

fn busy(reason: &str) -> BillingError {
    BillingError::new(Kind::Retry, "the books could not be locked for a migration")
        .detail(format!("After {} s of attempts: {reason}.", PATIENCE.as_secs()))
        .hint("Nothing was changed. End long transactions that use tables of schema exa_billing (pg_locks tells which), and call SELECT exa_billing.setup(); again.")
}
