//! What spend is: the taxonomy every journal shares, and how a journal's row is queued for
//! posting.

mod dimension;
mod spend;

pub use dimension::{Category, Dimension, exa_dimension_id, recorded_source};
pub use spend::{NewSpend, append_spend};

/// The names under which the product's own journals queue their rows.
pub const EXA: &str = "exa";
pub const SPEND: &str = "spend";
