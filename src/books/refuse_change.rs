//! The trigger function of every guard of the books.

use crate::error::{BillingError, Kind};
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::prelude::*;

/// Refuses whatever statement fired it, also one that would touch no row.
#[pg_trigger(sql = false)]
fn refuse_change<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, pgrx::AllocatedByPostgres>>, ErrorReport> {
    let table = trigger.table_name().unwrap_or_default();
    let refusal =
        BillingError::new(Kind::WrongState, format!("table \"{table}\" refuses this change"))
            .detail("What the books have recorded is never changed or removed.")
            .hint("Correct an amount with exa_billing.adjust_credit().");
    // Raised here: an Err that is returned from a trigger reaches the user as a panic's text.
    Ok(ErrorReportable::unwrap_or_report(Err(ErrorReport::from(refusal))))
}
