//! Attached ledgers: tables of the application that say what was spent. Triggers capture what is
//! written to them in the writer's own transaction; the same registration serves every reading.

mod attach;
mod capture;
mod column_map;
mod detach;
mod mapping;
mod read;
mod registry;
mod table;
mod tend;
mod text;
mod triggers;
mod write;

pub use read::{charges, each_month, months};
pub use tend::tend;
pub use text::Whose;
