//! The trigger functions of the guards of the books.

use crate::error::{BillingError, Kind};
use crate::spi::{Answer, Trigger};
use pgrx::prelude::*;
use std::cell::Cell;
use std::thread::LocalKey;

thread_local! {
    static KEEPING_BASELINES: Cell<bool> = const { Cell::new(false) };
    static ERASING_TEXTS: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this backend may change what only functions may change.
pub struct Permission(&'static LocalKey<Cell<bool>>);

impl Permission {
    /// For the baselines of credit transactions.
    pub fn to_keep_baselines() -> Self {
        Self::begin(&KEEPING_BASELINES)
    }

    /// For their descriptions.
    pub fn to_erase_texts() -> Self {
        Self::begin(&ERASING_TEXTS)
    }

    fn begin(permission: &'static LocalKey<Cell<bool>>) -> Self {
        permission.set(true);
        Self(permission)
    }
}

/// Also when an error passes through.
impl Drop for Permission {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// Refuses whatever statement fired it, also one that would touch no row.
#[pg_extern(sql = false)]
fn refuse_change(call: pg_sys::FunctionCallInfo) -> Answer<()> {
    Err(refusal(&Trigger::that_calls(call)?).into())
}

/// Refuses a statement that changes by hand what only functions may change: under one name the
/// baselines, under the other the descriptions.
#[pg_extern(sql = false)]
fn refuse_direct_change(call: pg_sys::FunctionCallInfo) -> Answer<()> {
    let trigger = Trigger::that_calls(call)?;
    let is_permitted = match trigger.name().as_str() {
        "by_functions_only" => KEEPING_BASELINES.get(),
        "by_erasure_only" => ERASING_TEXTS.get(),
        _ => false,
    };
    if is_permitted { Ok(()) } else { Err(refusal(&trigger).into()) }
}

fn refusal(trigger: &Trigger) -> BillingError {
    let table = trigger.table_name();
    BillingError::new(Kind::WrongState, format!("table \"{table}\" refuses this change"))
        .detail("What the books have recorded is never changed or removed.")
        .hint("Correct an amount with exa_billing.adjust_credit().")
}
