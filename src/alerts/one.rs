//! `evaluate_spend_alerts`: one owner, now.

use super::decision::Moment;
use super::evaluate::{self, Counts};
use super::standing;
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::events;
use crate::owner::Owner;
use crate::spi::{self, Answer, Composite, values};
use crate::time::{self, Instant};
use pgrx::prelude::*;

/// The columns of `evaluation_summary`.
pub fn summary(counts: Counts, is_complete: bool) -> Composite {
    let Counts { evaluated, fired, recovered, failed, skipped } = counts;
    Composite::new(values![evaluated, fired, recovered, failed, skipped, is_complete])
}

/// Locks: the owner's state, for which it waits.
fn evaluate(owner: Owner, as_of: Instant, asked_at: Instant) -> Result<Counts> {
    events::lock_state(&owner)?;
    let owners = [owner];
    let last = spi::on_fresh_snapshot(|| standing::last_evaluations(&owners))?;
    let last_evaluated_at = last.into_iter().next().flatten();
    match last_evaluated_at {
        // Somebody else has done it since this call was made.
        Some(last) if as_of < last && (asked_at < last || spi::statement_time() <= as_of) => {
            Ok(Counts { skipped: 1, ..Counts::default() })
        }
        Some(last) if as_of < last => {
            Err(BillingError::new(Kind::WrongState, "as_of is before the owner's last evaluation")
                .detail(format!("as_of is {as_of}; the owner was evaluated as of {last}."))
                .hint("Evaluations go forward in time; leave as_of out to evaluate now."))
        }
        _ => evaluate::evaluate(&owners, Moment { as_of, looks_back: false }),
    }
}

/// Evaluates one owner's alerts and suggestions.
#[pg_extern(sql = false)]
fn evaluate_spend_alerts(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<Composite> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let clock = spi::clock();
    let as_of = time::as_of_past(as_of, clock)?;
    books::enter_for_writing("exa_billing.evaluate_spend_alerts()")?;
    let counts = evaluate(owner, as_of, clock)?;
    Ok(summary(counts, counts.evaluated == 1))
}
