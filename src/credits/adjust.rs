//! Adjustments: refunds, chargebacks, corrections. Journals are never changed; this is how a wrong
//! charge is made good.

use super::grants::{Credit, kept_text};
use super::ledger::ADJUSTMENT;
use crate::books;
use crate::error::BillingError;
use crate::money;
use crate::owner::{self, MAX_DESCRIPTION_CHARS, Owner};
use crate::spi::{self, Answer};
use pgrx::prelude::*;

/// Adds to or takes from an owner's credit; returns the transaction's id.
#[pg_extern(sql = false)]
fn adjust_credit(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    amount_microdollars: Option<i64>,
    reason: Option<&str>,
    idempotency_key: Option<&str>,
) -> Answer<pgrx::Uuid> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let amount = money::adjustment("amount_microdollars", amount_microdollars)?;
    let reason = reason.filter(|reason| !reason.trim().is_empty());
    if reason.is_none() {
        return Err(BillingError::invalid("reason must not be empty")
            .hint("Say what is corrected and why; the statement shows it.")
            .into());
    }
    let adjustment = Credit {
        owner,
        amount,
        expiry: None,
        category: Some(ADJUSTMENT),
        description: kept_text("reason", reason, MAX_DESCRIPTION_CHARS)?,
        is_free: true,
        key: owner::idempotency_key(idempotency_key)?,
        created_at: None,
    };
    books::enter_for_writing("exa_billing.adjust_credit()")?;
    Ok(spi::uuid(adjustment.record()?))
}
