//! Suggestions: what an owner could buy instead, by rules that are data. They promise nothing.

mod dismiss;
mod policy;
mod read;
mod rules;
mod spent;
mod write;

pub use read::read;
pub use write::{close_all, write};
