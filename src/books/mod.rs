//! The books: the tables the product keeps. They are the user's, not members of the extension;
//! `setup()` makes and renews them, and every function enters them through here.

mod guard;
mod refuse_change;
pub mod scripts;
mod setup;

pub use guard::init;
pub use refuse_change::KeepingBaselines;
pub use setup::set_up;

use crate::error::{BillingError, Kind, Result};
use crate::spi;

const FIRST_TABLE: &str = "storage_migrations";

/// For functions that write. The first call in a database without a single book sets it up.
///
/// Locks: none, unless books have to be made (then the setup lock, until the transaction ends).
pub fn enter_for_writing(function: &str) -> Result<()> {
    spi::require_writable(function);
    if !spi::relation_exists(FIRST_TABLE) {
        setup::set_up()?;
    }
    guard::require_untampered()
}

/// For functions that read.
pub fn enter_for_reading() -> Result<()> {
    if spi::relation_exists(FIRST_TABLE) {
        return Ok(());
    }
    Err(BillingError::new(Kind::WrongState, "this database has no exa_billing books yet")
        .hint("Call SELECT exa_billing.setup(); the first charge or grant does it by itself."))
}

/// Whether there are books at all; for background work, which never makes them.
pub fn exist() -> bool {
    spi::relation_exists(FIRST_TABLE)
}
