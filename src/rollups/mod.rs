//! The hourly rollups: which hours they cover, and keeping them equal to the journals.

mod backfill;
mod coverage;
mod coverage_rows;
mod degraded;
mod history;
mod hours;
mod rebuild;
mod reconcile;
mod repair;
mod rows;

pub use coverage::Coverage;
pub use hours::Hours;
