//! A page of what happened to an owner, newest first.

use crate::error::{BillingError, Kind, Result};
use crate::events::{self, AlertKind, EventType, SuggestionKind, Text};
use crate::owner::Owner;
use crate::spi::{self, Composite, Row, Statement, values};
use crate::time::Instant;
use serde_json::{Value as Json, json};
use uuid::Uuid;

// By index, also where the plan was made when there was no event yet.
static PAGE: Statement = Statement::over_queue(
    "SELECT event_id, event_type, alert_kind, suggestion_kind, about_id, actor_user_id, occurred_at,
            snapshot::text, snapshot
     FROM exa_billing.cost_insight_events
     WHERE owner_kind = $1 AND owner_id = $2 AND event_type = ANY ($3) AND occurred_at >= $4
       AND (occurred_at, event_id) < ($5, $6)
     ORDER BY occurred_at DESC, event_id DESC LIMIT $7",
);
static PLACE: Statement = Statement::over_queue(
    "SELECT occurred_at FROM exa_billing.cost_insight_events
     WHERE event_id = $1 AND owner_kind = $2 AND owner_id = $3",
);

/// An event as readers get it.
pub struct Event {
    id: Uuid,
    event_type: EventType,
    alert_kind: Option<AlertKind>,
    suggestion_kind: Option<SuggestionKind>,
    about: Option<Uuid>,
    actor_user_id: Option<String>,
    occurred_at: Instant,
    snapshot: Json,
    /// The same as the books have it, to be handed on unchanged.
    kept_snapshot: spi::Json,
}

/// A place in the order of events: the next page has what comes after it.
#[derive(Clone, Copy)]
pub struct Place(Instant, Uuid);

impl Place {
    pub const START: Place = Place(Instant(i64::MAX), Uuid::max());

    /// Where an event of this owner stands, shown or no longer.
    pub fn of(owner: &Owner, event_id: Uuid) -> Result<Self> {
        let key = values![event_id, owner.kind.as_str(), &owner.id];
        let occurred_at = PLACE.read_row(key, |row| row.get::<Instant>(1))?.ok_or_else(|| {
            BillingError::new(Kind::Unknown, "before_event is no event of this owner")
                .detail(format!("before_event is {event_id}."))
                .hint("Begin again without before_event.")
        })?;
        Ok(Self(occurred_at, event_id))
    }
}

/// The instant from which on events are shown to who reads as of `as_of`; the worker takes older ones
/// away when it comes to it.
pub fn shown_from(as_of: Instant) -> Instant {
    as_of.max(spi::transaction_time()).plus_microseconds(-events::KEPT_MICROSECONDS)
}

/// At most `count` events of these types after a place, on the caller's snapshot.
pub fn read(
    owner: &Owner,
    types: &[EventType],
    shown_from: Instant,
    after: Place,
    count: i64,
) -> Result<Vec<Event>> {
    let types: Vec<&str> = types.iter().map(|event_type| event_type.as_str()).collect();
    let Place(occurred_at, event_id) = after;
    let (kind, id) = (owner.kind.as_str(), &owner.id);
    PAGE.read(values![kind, id, types, shown_from, occurred_at, event_id, count], event)
}

fn event(row: &Row) -> Result<Event> {
    let word: String = row.get(2)?;
    Ok(Event {
        id: row.get(1)?,
        event_type: EventType::from_books(&word)
            .ok_or_else(|| BillingError::internal(format!("unknown type of event: {word}")))?,
        alert_kind: row.maybe::<String>(3)?.as_deref().and_then(AlertKind::from_books),
        suggestion_kind: row.maybe::<String>(4)?.as_deref().and_then(SuggestionKind::from_books),
        about: row.maybe(5)?,
        actor_user_id: row.maybe(6)?,
        occurred_at: row.get(7)?,
        snapshot: document(&row.get::<String>(8)?)?,
        kept_snapshot: row.get(9)?,
    })
}

/// A jsonb value, out of its text.
pub fn document(text: &str) -> Result<Json> {
    serde_json::from_str(text).map_err(|_| BillingError::internal("a jsonb value is no JSON"))
}

impl Event {
    fn text(&self) -> Text {
        events::describe(self.event_type, self.alert_kind, self.suggestion_kind, &self.snapshot)
    }

    /// As a row of `insight_activity`.
    pub fn row(&self) -> Composite {
        let Text { title, description } = self.text();
        Composite::new(values![
            self.id,
            self.event_type.as_str(),
            self.alert_kind.map(AlertKind::as_str),
            self.suggestion_kind.map(SuggestionKind::as_str),
            self.about,
            &title,
            &description,
            self.actor_user_id.as_deref(),
            self.occurred_at,
            events::amount(self.event_type, &self.snapshot),
            self.kept_snapshot,
        ])
    }

    /// The same as an object.
    pub fn document(&self) -> Json {
        let Text { title, description } = self.text();
        json!({
            "event_id": self.id.to_string(),
            "event_type": self.event_type.as_str(),
            "alert_kind": self.alert_kind.map(AlertKind::as_str),
            "suggestion_kind": self.suggestion_kind.map(SuggestionKind::as_str),
            "about_id": self.about.map(|id| id.to_string()),
            "title": title,
            "description": description,
            "actor_user_id": self.actor_user_id,
            "occurred_at": self.occurred_at.iso8601(),
            "amount_microdollars": events::amount(self.event_type, &self.snapshot),
            "snapshot": self.snapshot,
        })
    }
}
