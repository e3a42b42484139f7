//! `setup()`: storage migrations, guards, views and partitions, as often as one likes.

use super::migrations::{self, MIGRATIONS, Migration, NEWEST};
use super::totals::Totals;
use super::{FIRST_TABLE, guard, scripts, standstill};
use crate::error::{BillingError, Kind, Result};
use crate::spi::{self, Statement, values};
use crate::{guc, partitions};

const SEEDS: &str = include_str!("../../sql/books/seeds.sql");
const MONTHS_AHEAD: i32 = 12;

const SETUP_LOCK: i32 = 1;

static INSTALLED: Statement = Statement::fresh(
    "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'exa_billing'",
);
static STORAGE_VERSION: Statement =
    Statement::fresh("SELECT pg_catalog.max(version) FROM exa_billing.storage_migrations");
static NOTE_MIGRATION: Statement = Statement::fresh(
    "INSERT INTO exa_billing.storage_migrations (version, name, library_version, applied_at)
     VALUES ($1, $2, $3, pg_catalog.now())",
);

/// Makes the books, or brings them up to this library.
///
/// Locks, in this order: the setup lock; where books are migrated, those of `standstill::begin`; the
/// partition lock (all until the transaction ends). Guards that are missing take SHARE ROW EXCLUSIVE
/// on their table, views that have changed ACCESS EXCLUSIVE on themselves; where nothing is missing
/// nothing is locked. Two callers at once make one set of books.
pub fn set_up() -> Result<i32> {
    spi::lock_until_commit(SETUP_LOCK)?;
    spi::see_what_others_committed();
    require_functions_of_this_library()?;
    let present = storage_version()?;
    if present > NEWEST {
        return Err(BillingError::new(Kind::WrongState, "the books are newer than this library")
            .detail(format!(
                "The books have storage version {present}, this library knows {NEWEST}."
            ))
            .hint("Install the newer library again."));
    }
    let pending: Vec<&Migration> = migrations::after(present).collect();
    // New books have nothing that could move, and nobody is in them.
    let totals = if present > 0 && !pending.is_empty() {
        standstill::begin(&pending)?;
        Some(Totals::take()?)
    } else {
        None
    };
    for migration in pending {
        spi::run_script(migration.sql)?;
        note(migration)?;
    }
    spi::run_script(SEEDS)?;
    scripts::apply_where_needed()?;
    if let Some(totals) = totals {
        totals.require_unmoved()?;
    }
    let limit = guc::late_usage_limit_seconds();
    for report in partitions::maintain(spi::clock(), limit, Some(MONTHS_AHEAD))? {
        if let Some(error) = report.error {
            pgrx::warning!("partition \"{}\" could not be made: {error}", report.partition);
        }
    }
    guard::require_untampered()?;
    Ok(NEWEST)
}

/// The version of the extension's functions (None where they are gone), and that of this library.
pub fn versions_of_functions() -> Result<(Option<String>, &'static str)> {
    let installed = INSTALLED.read_row(&[], |row| row.get::<String>(1))?;
    Ok((installed, env!("CARGO_PKG_VERSION")))
}

/// Guards and views call functions of the extension, in the words of this library: they come first.
fn require_functions_of_this_library() -> Result<()> {
    let (installed, library) = spi::on_latest_snapshot(versions_of_functions)?;
    match installed {
        Some(version) if version != library => Err(BillingError::new(
            Kind::WrongState,
            "the functions of exa_billing are of another version than its library",
        )
        .detail(format!("The functions have version {version}, the library {library}."))
        .hint("Call ALTER EXTENSION exa_billing UPDATE; first, then SELECT exa_billing.setup(); a server that has the older library preloaded needs a restart before that.")),
        _ => Ok(()),
    }
}

/// 0 when there are no books.
fn storage_version() -> Result<i32> {
    if !spi::relation_exists(FIRST_TABLE) {
        return Ok(0);
    }
    let read = || STORAGE_VERSION.read_row(&[], |row| row.maybe::<i32>(1));
    if let Some(version) = spi::on_fresh_snapshot(read)?.flatten() {
        return Ok(version);
    }
    if spi::on_latest_snapshot(read)?.flatten().is_some() {
        return Err(BillingError::new(
            Kind::Retry,
            "the books were set up after this transaction began",
        )
        .hint("Retry the transaction."));
    }
    // The tables were restored without their rows: nothing says which version they are of.
    note_migrations()?;
    Ok(NEWEST)
}

/// The storage version of the books (None where nothing says it) and the one this library makes, on
/// the caller's snapshot.
pub fn versions() -> Result<(Option<i32>, i32)> {
    let present = STORAGE_VERSION.read_row(&[], |row| row.maybe::<i32>(1))?.flatten();
    Ok((present, NEWEST))
}

fn note_migrations() -> Result<()> {
    MIGRATIONS.iter().try_for_each(note)
}

fn note(migration: &Migration) -> Result<()> {
    let library = env!("CARGO_PKG_VERSION");
    NOTE_MIGRATION.execute(values![migration.version, migration.name, library])
}
