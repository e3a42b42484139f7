//! What a mailer reports: sent, or failed.

use super::rules;
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::spi::{self, Answer, Statement, values};
use pgrx::prelude::*;
use uuid::Uuid;

// The token stays, so that a mailer whose answer was lost may ask again.
static COMPLETE: Statement = Statement::over_queue(
    "UPDATE exa_billing.notification_deliveries
     SET status = 'sent', leased_until = NULL, finished_at = $3
     WHERE delivery_id = $1 AND claim_token = $2 AND status = 'sending'
     RETURNING true",
);
static IS_SENT: Statement = Statement::over_queue(
    "SELECT status = 'sent' AND claim_token = $2
     FROM exa_billing.notification_deliveries WHERE delivery_id = $1",
);
static LOCK: Statement = Statement::over_queue(
    "SELECT attempt_count FROM exa_billing.notification_deliveries
     WHERE delivery_id = $1 AND claim_token = $2 AND status = 'sending' FOR UPDATE",
);
static EXISTS: Statement = Statement::over_queue(
    "SELECT true FROM exa_billing.notification_deliveries WHERE delivery_id = $1",
);
static TRY_AGAIN: Statement = Statement::over_queue(
    "UPDATE exa_billing.notification_deliveries
     SET status = 'pending', next_attempt_at = $2, last_error = $3, claim_token = NULL, leased_until = NULL
     WHERE delivery_id = $1",
);
static GIVE_UP: Statement = Statement::over_queue(
    "UPDATE exa_billing.notification_deliveries
     SET status = 'dead', finished_at = $2, last_error = $3, claim_token = NULL, leased_until = NULL
     WHERE delivery_id = $1",
);

/// Locks: the delivery.
fn complete(delivery: Uuid, token: Uuid) -> Result<bool> {
    let arguments = values![delivery, token, spi::clock()];
    if COMPLETE.write_row(arguments, |row| row.get::<bool>(1))?.is_some() {
        return Ok(true);
    }
    let sent = IS_SENT.write_row(values![delivery, token], |row| row.maybe::<bool>(1))?;
    sent.map(Option::unwrap_or_default).ok_or_else(|| unknown(delivery))
}

/// The delivery's new status; None when the token is not the one it is handed out with.
///
/// Locks: the delivery.
fn fail(delivery: Uuid, token: Uuid, error: Option<&str>) -> Result<Option<&'static str>> {
    let attempt = LOCK.write_row(values![delivery, token], |row| row.get::<i32>(1))?;
    let Some(attempt) = attempt else {
        let exists = EXISTS.write_row(values![delivery], |row| row.get::<bool>(1))?;
        return exists.map(|_| None).ok_or_else(|| unknown(delivery));
    };
    let (clock, error) = (spi::clock(), error.map(rules::kept_error));
    match rules::pause_after(attempt) {
        Some(pause) => {
            TRY_AGAIN.execute(values![delivery, clock.plus_microseconds(pause), error])?;
            Ok(Some("pending"))
        }
        None => {
            GIVE_UP.execute(values![delivery, clock, error])?;
            Ok(Some("dead"))
        }
    }
}

fn unknown(delivery: Uuid) -> BillingError {
    BillingError::new(Kind::Unknown, "there is no delivery with this id")
        .detail(format!("delivery_id is {delivery}."))
        .hint("Finished deliveries are kept for 90 days.")
}

fn identity(
    delivery_id: Option<pgrx::Uuid>,
    claim_token: Option<pgrx::Uuid>,
) -> Result<(Uuid, Uuid)> {
    let delivery = delivery_id.ok_or_else(|| BillingError::missing("delivery_id"))?;
    let token = claim_token.ok_or_else(|| BillingError::missing("claim_token"))?;
    Ok((Uuid::from_bytes(*delivery.as_bytes()), Uuid::from_bytes(*token.as_bytes())))
}

/// Ends a delivery as sent; false when the token has lost its right to.
#[pg_extern(sql = false)]
fn complete_notification(
    delivery_id: Option<pgrx::Uuid>,
    claim_token: Option<pgrx::Uuid>,
) -> Answer<bool> {
    let (delivery, token) = identity(delivery_id, claim_token)?;
    books::enter_for_writing("exa_billing.complete_notification()")?;
    Ok(complete(delivery, token)?)
}

/// Gives a delivery back that could not be sent; tells what becomes of it.
#[pg_extern(sql = false)]
fn fail_notification(
    delivery_id: Option<pgrx::Uuid>,
    claim_token: Option<pgrx::Uuid>,
    error: Option<&str>,
) -> Answer<Option<&'static str>> {
    let (delivery, token) = identity(delivery_id, claim_token)?;
    books::enter_for_writing("exa_billing.fail_notification()")?;
    Ok(fail(delivery, token, error)?)
}
