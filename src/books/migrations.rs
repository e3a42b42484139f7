//! The storage migrations, and which of them the books have seen.

use crate::spi;

/// One step of the books from one storage version to the next.
pub struct Migration {
    pub version: i32,
    pub name: &'static str,
    pub sql: &'static str,
    /// A relation that it makes: by it a backend knows, without a query and whatever it may read, how
    /// new the books are.
    pub brings: &'static str,
    /// Tables of earlier migrations that it alters. They are locked before it begins, so that it waits
    /// for nobody in the middle of it.
    pub alters: &'static [&'static str],
}

/// Numbered from 1 without gaps; once released, a migration is never edited.
pub const MIGRATIONS: [Migration; 3] = [
    Migration {
        version: 1,
        name: "books",
        sql: include_str!("../../sql/migrations/0001_books.sql"),
        brings: "storage_migrations",
        alters: &[],
    },
    Migration {
        version: 2,
        name: "alerts",
        sql: include_str!("../../sql/migrations/0002_alerts.sql"),
        brings: "notification_deliveries",
        alters: &[],
    },
    Migration {
        version: 3,
        name: "jobs",
        sql: include_str!("../../sql/migrations/0003_jobs.sql"),
        brings: "books_proof",
        alters: &[],
    },
];

/// The storage version that this library makes.
pub const NEWEST: i32 = MIGRATIONS[MIGRATIONS.len() - 1].version;

/// Those that books of this version still lack.
pub fn after(version: i32) -> impl Iterator<Item = &'static Migration> {
    MIGRATIONS.iter().filter(move |migration| migration.version > version)
}

/// The storage version of the books as the catalog shows it, 0 when there are none: look-ups in the
/// catalog cache, no query.
pub fn present() -> i32 {
    let newest = MIGRATIONS.iter().rev().find(|migration| spi::relation_exists(migration.brings));
    newest.map_or(0, |migration| migration.version)
}

/// Whether the books have come as far as this version.
pub fn have_reached(version: i32) -> bool {
    let place = usize::try_from(version - 1).ok();
    let migration = place.and_then(|place| MIGRATIONS.get(place));
    migration.is_some_and(|migration| spi::relation_exists(migration.brings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_migration_brings_the_relation_it_is_known_by() {
        for (number, migration) in (1..).zip(&MIGRATIONS) {
            assert_eq!(migration.version, number);
            let made = format!("CREATE TABLE exa_billing.{} (", migration.brings);
            assert_eq!(migration.sql.matches(&made).count(), 1, "{}", migration.name);
            let earlier = MIGRATIONS.iter().filter(|other| other.version < number);
            for table in migration.alters {
                let made = format!("CREATE TABLE exa_billing.{table} (");
                assert!(earlier.clone().any(|other| other.sql.contains(&made)), "{table}");
            }
        }
    }
}
