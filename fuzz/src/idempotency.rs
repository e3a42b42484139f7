//! The room `idempotency`, as far as one call goes.

#[path = "../../src/idempotency/payload.rs"]
mod payload;

pub use payload::{Compared, Known, PayloadHash, compared_times};
