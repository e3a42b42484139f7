//! Idempotency keys: unique for ever within their space, so that a retry replays.

mod key;
mod table;

pub use key::{Compared, KeySpace, Known, PayloadHash, compared_times, reused};
pub use table::{claim, find};
