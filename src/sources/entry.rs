//! The names under which the product's own journals queue their rows.

pub const EXA: &str = "exa";
pub const SPEND: &str = "spend";
