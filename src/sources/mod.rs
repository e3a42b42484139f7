//! What spend is: the taxonomy every journal shares, and how a journal's row is queued for
//! posting.

mod dimension;
mod entry;
mod spend;

pub use dimension::{Category, Dimension, exa_dimension_id, recorded_source};
pub use entry::{EXA, SPEND};
pub use spend::{NewSpend, append_spend};
