//! What the fuzzer tries: the files of the library that hold rules and nothing of the server, as they
//! are, each with what must hold of its answers whatever it is given.
#![allow(dead_code)] // of the rules only a part is tried

mod alerts;
#[path = "../../src/error.rs"]
mod error;
mod events;
mod idempotency;
#[path = "../../src/money.rs"]
mod money;
#[path = "../../src/owner.rs"]
mod owner;
mod sources;
#[path = "../../src/time.rs"]
mod time;
mod usage;

pub mod batch;
pub mod column_map;
mod decimal;
mod mapping_reading;
mod moment;
pub mod response;
pub mod settings;
mod style;
