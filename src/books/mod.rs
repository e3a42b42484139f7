//! The books: the tables the product keeps. They are the user's, not members of the extension;
//! `setup()` makes and renews them, and every function enters them through here.

mod guard;
mod migrations;
mod moved;
mod needs;
mod refuse_change;
pub mod scripts;
mod setup;
mod standstill;
mod totals;

pub use guard::{init, require_untampered};
pub use migrations::have_reached;
pub use needs::WITH_ALERTS;
pub use refuse_change::Permission;
pub use setup::{set_up, versions, versions_of_functions};

use crate::error::{BillingError, Kind, Result};
use crate::spi;

const FIRST_TABLE: &str = "storage_migrations";
/// Whoever writes locks this table before all others, so a migration that has it has them all: nobody
/// is left who holds some tables and wants more.
const GATE: &str = FIRST_TABLE;

/// For functions that write. The first call in a database without a single book sets it up.
///
/// Locks, until the transaction ends: the gate, in a mode that only a migration waits for and holds up;
/// where books have to be made, the setup lock.
pub fn enter_for_writing(function: &str) -> Result<()> {
    spi::require_writable(function);
    if !spi::lock_for_writing(GATE) {
        setup::set_up()?;
    }
    guard::require_untampered()?;
    require_version_for(function)
}

/// For functions that read.
pub fn enter_for_reading(function: &str) -> Result<()> {
    if exist() {
        return require_version_for(function);
    }
    Err(BillingError::new(Kind::WrongState, "this database has no exa_billing books yet")
        .hint("Call SELECT exa_billing.setup(); the first charge or grant does it by itself."))
}

/// What needs the first version only, as charging does, looks nothing up.
fn require_version_for(function: &str) -> Result<()> {
    let needed = needs::version_for(function);
    if needed == 1 || have_reached(needed) {
        return Ok(());
    }
    let present = migrations::present();
    Err(BillingError::new(Kind::WrongState, format!("{function} needs newer exa_billing books"))
        .detail(format!("The books have storage version {present}; it needs {needed}."))
        .hint("Call SELECT exa_billing.setup();"))
}

/// Whether there are books at all; for background work, which never makes them.
pub fn exist() -> bool {
    spi::relation_exists(FIRST_TABLE)
}
