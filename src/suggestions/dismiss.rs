//! `dismiss_cost_suggestion()`.

use super::{rules, write};
use crate::access::{self, Actor};
use crate::accounts;
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::events::{self, EventType, NewEvent};
use crate::owner::{self, Owner};
use crate::spi::{self, Answer, Statement, values};
use pgrx::prelude::*;
use serde_json::Value as Json;
use uuid::Uuid;

static OWNER: Statement = Statement::over_queue(
    "SELECT owner_kind::text, owner_id::text FROM exa_billing.cost_suggestions WHERE suggestion_id = $1",
);
static DISMISS: Statement = Statement::over_queue(
    "UPDATE exa_billing.cost_suggestions
     SET status = 'dismissed', ended_at = $2, dismissed_by_user_id = $3
     WHERE suggestion_id = $1 AND status = 'open'
     RETURNING suggestion_kind, target, observed_microdollars, price_microdollars, window_start,
               window_end, driver::text",
);

/// Whose a suggestion is; those of others are as unknown as those there are not.
fn owner_of(id: Uuid, actor: &Actor) -> Result<Owner> {
    match OWNER.write_row(values![id], |row| accounts::owner_of(row, 1))? {
        Some(owner) if actor.answers_for(&owner)? => Ok(owner),
        _ => Err(BillingError::new(Kind::Unknown, "there is no suggestion with this id")
            .detail(format!("suggestion_id is {id}."))
            .hint("SELECT * FROM exa_billing.cost_suggestions shows those there are.")),
    }
}

/// True when this call dismissed it.
///
/// Locks: the owner's state, then the suggestion's row.
fn dismiss(id: Uuid, actor_user_id: &str) -> Result<bool> {
    let actor = access::actor(Some(actor_user_id))?;
    let owner = owner_of(id, &actor)?;
    let actor = actor.id;
    events::lock_state(&owner)?;
    let clock = spi::clock();
    let dismissed = DISMISS.write_row(values![id, clock, &actor], |row| {
        let driver = row.maybe::<String>(7)?.and_then(|text| serde_json::from_str(&text).ok());
        let driver: Option<Json> = driver;
        let target: String = row.get(2)?;
        let window = (row.get(5)?, row.get(6)?);
        let snapshot = write::snapshot(&target, row.get(3)?, row.get(4)?, window, driver.as_ref());
        Ok((rules::kind_of(&row.get::<String>(1)?)?, snapshot))
    })?;
    let Some((kind, snapshot)) = dismissed else { return Ok(false) };
    events::record(&[NewEvent {
        suggestion_kind: Some(kind),
        about: Some(id),
        actor_user_id: Some(actor),
        ..NewEvent::new(owner, EventType::SuggestionDismissed, clock, snapshot)
    }])?;
    Ok(true)
}

/// Puts a suggestion away; false when it was no longer open.
#[pg_extern(sql = false)]
fn dismiss_cost_suggestion(
    suggestion_id: Option<pgrx::Uuid>,
    actor_user_id: Option<&str>,
) -> Answer<bool> {
    let id = suggestion_id.ok_or_else(|| BillingError::missing("suggestion_id"))?;
    let actor_user_id = owner::identifier("actor_user_id", actor_user_id)?;
    books::enter_for_writing("exa_billing.dismiss_cost_suggestion()")?;
    Ok(dismiss(Uuid::from_bytes(*id.as_bytes()), actor_user_id)?)
}
