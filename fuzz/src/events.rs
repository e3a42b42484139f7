//! The room `events`: its words.

#[path = "../../src/events/kind.rs"]
mod kind;

pub use kind::{AlertKind, EventType};
