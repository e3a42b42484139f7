//! `setup()`: storage migrations, guards, views and partitions, as often as one likes.

use super::{FIRST_TABLE, guard, scripts};
use crate::error::{BillingError, Kind, Result};
use crate::spi::{self, Statement, values};
use crate::{guc, partitions};

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

/// Numbered from 1 without gaps; once released, a migration is never edited.
const MIGRATIONS: [Migration; 2] = [
    Migration {
        version: 1,
        name: "books",
        sql: include_str!("../../sql/migrations/0001_books.sql"),
    },
    Migration {
        version: 2,
        name: "alerts",
        sql: include_str!("../../sql/migrations/0002_alerts.sql"),
    },
];

const SEEDS: &str = include_str!("../../sql/books/seeds.sql");
const MONTHS_AHEAD: i32 = 12;

const SETUP_LOCK: i32 = 1;

static STORAGE_VERSION: Statement =
    Statement::fresh("SELECT pg_catalog.max(version) FROM exa_billing.storage_migrations");
static NOTE_MIGRATION: Statement = Statement::fresh(
    "INSERT INTO exa_billing.storage_migrations (version, name, library_version, applied_at)
     VALUES ($1, $2, $3, pg_catalog.now())",
);

/// Makes the books, or brings them up to this library.
///
/// Locks, in this order: the setup lock and the partition lock (both until the transaction
/// ends), then what each migration says it takes. Guards that are missing take SHARE ROW
/// EXCLUSIVE on their table, views that have changed ACCESS EXCLUSIVE on themselves; where nothing
/// is missing nothing is locked. Two callers at once make one set of books.
pub fn set_up() -> Result<i32> {
    spi::lock_until_commit(SETUP_LOCK)?;
    spi::see_what_others_committed();
    let present = storage_version()?;
    let newest = MIGRATIONS[MIGRATIONS.len() - 1].version;
    if present > newest {
        return Err(BillingError::new(Kind::WrongState, "the books are newer than this library")
            .detail(format!(
                "The books have storage version {present}, this library knows {newest}."
            ))
            .hint("Install the newer library again."));
    }
    for migration in MIGRATIONS.iter().filter(|migration| migration.version > present) {
        spi::run_script(migration.sql)?;
        let library = env!("CARGO_PKG_VERSION");
        NOTE_MIGRATION.execute(values![migration.version, migration.name, library])?;
    }
    spi::run_script(SEEDS)?;
    scripts::apply_where_needed()?;
    let limit = guc::late_usage_limit_seconds();
    for report in partitions::maintain(spi::clock(), limit, Some(MONTHS_AHEAD))? {
        if let Some(error) = report.error {
            pgrx::warning!("partition \"{}\" could not be made: {error}", report.partition);
        }
    }
    guard::require_untampered()?;
    Ok(newest)
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
    Ok(MIGRATIONS[MIGRATIONS.len() - 1].version)
}

fn note_migrations() -> Result<()> {
    let library = env!("CARGO_PKG_VERSION");
    MIGRATIONS.iter().try_for_each(|migration| {
        NOTE_MIGRATION.execute(values![migration.version, migration.name, library])
    })
}
