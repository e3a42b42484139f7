//! The room `idempotency`, as far as one call goes.

#[path = "../../src/idempotency/key.rs"]
mod key;

pub use key::{Compared, Known, PayloadHash, compared_times};
