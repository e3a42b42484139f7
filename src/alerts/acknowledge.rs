//! `acknowledge_spend_alert`: somebody has seen it.

use crate::access::{self, Actor};
use crate::error::{BillingError, Kind, Result};
use crate::events::{self, AlertKind, EventType, NewEvent};
use crate::owner::{self, Owner};
use crate::spi::{self, Answer, Statement, values};
use crate::{accounts, books};
use pgrx::prelude::*;
use serde_json::json;
use uuid::Uuid;

// An episode outlives its event.
static OWNER: Statement = Statement::over_queue(
    "SELECT owner_kind, owner_id FROM exa_billing.spend_alert_episodes WHERE event_id = $1
     UNION
     SELECT owner_kind, owner_id FROM exa_billing.cost_insight_events WHERE event_id = $1",
);
static REVIEW: Statement = Statement::over_queue(
    "UPDATE exa_billing.spend_alert_episodes SET reviewed_at = $2, reviewed_by_user_id = $3
     WHERE event_id = $1 AND reviewed_at IS NULL
     RETURNING alert_kind",
);
static END_ANOMALY: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.spend_alert_episodes WHERE event_id = $1 AND alert_kind = 'anomaly'",
);

/// Whose an event is; those of others are as unknown as those there are not.
fn owner_of(event_id: Uuid, actor: &Actor) -> Result<Owner> {
    let found = OWNER.write_row(values![event_id], |row| accounts::owner_of(row, 1))?;
    match found {
        Some(owner) if actor.answers_for(&owner)? => Ok(owner),
        _ => Err(BillingError::new(Kind::Unknown, "the alert is not known")
            .detail(format!("event_id is {event_id}."))
            .hint("Give the event_id of an alert as cost_insight_activity() shows it.")),
    }
}

/// Marks the episode that began with this event as reviewed; an anomaly's ends with that. False when
/// the episode is over or was reviewed before.
///
/// Locks: the owner's state.
fn acknowledge(event_id: Uuid, actor_user_id: Option<&str>) -> Result<bool> {
    let actor = access::actor(actor_user_id)?;
    let owner = owner_of(event_id, &actor)?;
    let actor = actor.id;
    events::lock_state(&owner)?;
    let clock = spi::clock();
    let reviewed =
        REVIEW.write_row(values![event_id, clock, &actor], |row| row.get::<String>(1))?;
    let Some(kind) = reviewed else { return Ok(false) };
    END_ANOMALY.execute(values![event_id])?;
    events::record(&[NewEvent {
        alert_kind: AlertKind::from_books(&kind),
        about: Some(event_id),
        actor_user_id: Some(actor),
        dedupe_key: Some(format!("reviewed:{event_id}")),
        ..NewEvent::new(owner, EventType::AlertReviewed, clock, json!({}))
    }])?;
    Ok(true)
}

/// Acknowledges an alert; returns whether this call did.
#[pg_extern(sql = false)]
fn acknowledge_spend_alert(
    event_id: Option<pgrx::Uuid>,
    actor_user_id: Option<&str>,
) -> Answer<bool> {
    let event_id = event_id.ok_or_else(|| BillingError::missing("event_id"))?;
    owner::identifier("actor_user_id", actor_user_id)?;
    books::enter_for_writing("exa_billing.acknowledge_spend_alert()")?;
    Ok(acknowledge(Uuid::from_bytes(*event_id.as_bytes()), actor_user_id)?)
}
