//! The trigger functions of the guards of the books.

use crate::error::{BillingError, Kind};
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::*;
use std::cell::Cell;

thread_local! {
    static KEEPING_BASELINES: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this backend may change the baselines of credit transactions.
pub struct KeepingBaselines(());

impl KeepingBaselines {
    pub fn begin() -> Self {
        KEEPING_BASELINES.set(true);
        Self(())
    }
}

/// Also when an error passes through.
impl Drop for KeepingBaselines {
    fn drop(&mut self) {
        KEEPING_BASELINES.set(false);
    }
}

type TriggerAnswer<'a> = Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, ErrorReport>;

/// Refuses whatever statement fired it, also one that would touch no row.
#[pg_trigger(sql = false)]
fn refuse_change<'a>(trigger: &'a PgTrigger<'a>) -> TriggerAnswer<'a> {
    refuse(&trigger.table_name().unwrap_or_default())
}

/// Refuses a statement that changes baselines by hand.
#[pg_trigger(sql = false)]
fn refuse_direct_change<'a>(trigger: &'a PgTrigger<'a>) -> TriggerAnswer<'a> {
    if KEEPING_BASELINES.get() {
        return Ok(None);
    }
    refuse(&trigger.table_name().unwrap_or_default())
}

/// Raises here: an Err that is returned from a trigger reaches the user as a panic's text.
fn refuse<T>(table: &str) -> T {
    let refusal =
        BillingError::new(Kind::WrongState, format!("table \"{table}\" refuses this change"))
            .detail("What the books have recorded is never changed or removed.")
            .hint("Correct an amount with exa_billing.adjust_credit().");
    ErrorReportable::unwrap_or_report(Err(ErrorReport::from(refusal)))
}
