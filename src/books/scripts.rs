//! Guards and views: applied by `setup()` where they are missing or have changed, and only there.

use crate::error::Result;
use crate::spi::{self, Statement, values};
use sha2::{Digest, Sha256};

const GUARDS: &str = include_str!("../../sql/books/guards.sql");
const VIEWS: &str = include_str!("../../sql/books/views.sql");
const VIEWS_SCRIPT: &str = "views";
const VIEW_NAMES: [&str; 9] = [
    "unposted_entries",
    "account_balances",
    "exa_monthly_usage_current",
    "spend_hourly",
    "spend_drivers_hourly",
    "spend_entries",
    "progress",
    "worker_jobs",
    "health",
];

static MISSING_GUARDS: Statement = Statement::fresh(include_str!("../../sql/verify/guards.sql"));
static APPLIED: Statement =
    Statement::fresh("SELECT content_hash FROM exa_billing.applied_scripts WHERE script_name = $1");
static NOTE: Statement = Statement::fresh(
    "INSERT INTO exa_billing.applied_scripts (script_name, content_hash, applied_at)
     VALUES ($1, $2, pg_catalog.now())
     ON CONFLICT (script_name) DO UPDATE
     SET content_hash = excluded.content_hash, applied_at = excluded.applied_at",
);

/// Partitions get their guards with the partitions.
pub fn apply_where_needed() -> Result<()> {
    let guards_missing = !MISSING_GUARDS.write(&[], |_| Ok(()))?.is_empty();
    apply("guards", GUARDS, guards_missing)?;
    apply(VIEWS_SCRIPT, VIEWS, views_missing())
}

/// The views that exist and will be made anew.
pub fn views_to_replace() -> Result<Vec<&'static str>> {
    if applied(VIEWS_SCRIPT)?.as_ref() == Some(&hash(VIEWS)) && !views_missing() {
        return Ok(Vec::new());
    }
    Ok(VIEW_NAMES.into_iter().filter(|name| spi::relation_exists(name)).collect())
}

fn views_missing() -> bool {
    VIEW_NAMES.iter().any(|name| !spi::relation_exists(name))
}

fn apply(name: &str, script: &str, is_missing: bool) -> Result<()> {
    let hash = hash(script);
    if !is_missing && applied(name)?.as_ref() == Some(&hash) {
        return Ok(());
    }
    spi::run_script(script)?;
    note(name, &hash)
}

/// The hash of the text that was applied last under this name.
pub fn applied(name: &str) -> Result<Option<String>> {
    spi::on_latest_snapshot(|| APPLIED.read_row(values![name], |row| row.get::<String>(1)))
}

pub fn note(name: &str, hash: &str) -> Result<()> {
    NOTE.execute(values![name, hash])
}

pub fn hash(script: &str) -> String {
    Sha256::digest(script).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_of_the_script_is_looked_for() {
        for name in VIEW_NAMES {
            assert!(VIEWS.contains(&format!("CREATE OR REPLACE VIEW exa_billing.{name} ")));
        }
        assert_eq!(VIEWS.matches("CREATE OR REPLACE VIEW").count(), VIEW_NAMES.len());
    }
}
