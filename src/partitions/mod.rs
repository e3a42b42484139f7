//! Monthly partitions of the journals: which there must be, making them ahead, and the last
//! resort of making one inside a charge.
//!
//! This room lies before `books` because setting the books up makes the first partitions.

mod create;
mod existing;
mod on_demand;
mod plan;

pub use create::{Report, lock_until_commit, maintain};
pub use existing::{months, months_of_journals};
pub use on_demand::ensure;
pub use plan::Journal;
