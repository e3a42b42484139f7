//! Whether all is well, and if not, what to do: one row per check.

mod books_rules;
mod checks;
mod finding;
mod looks;
mod waiting_rules;
mod worker_looks;
mod worker_rules;

use crate::spi::{self, Answer, Composite, RowSet, values};
use pgrx::prelude::*;

/// One row per check; what cannot be looked at is critical too, and never an error.
#[pg_extern(sql = false)]
fn health_checks() -> Answer<RowSet> {
    let found = checks::all(spi::clock())?;
    let rows = found.iter().map(|(name, finding)| {
        let what_to_do =
            Some(finding.what_to_do.as_str()).filter(|what_to_do| !what_to_do.is_empty());
        Composite::new(values![name, finding.status.as_str(), &finding.figure, what_to_do])
    });
    Ok(rows.collect())
}
