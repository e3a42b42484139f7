//! Writing events, and one delivery for each who has to hear of one.

use super::kind::{AlertKind, EventType, SuggestionKind};
use super::told;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{self, Statement, values};
use crate::time::Instant;
use serde_json::Value as Json;
use uuid::Uuid;

/// Something that happened. The snapshot has figures and ids only: no names, no addresses.
#[derive(Debug, Clone, PartialEq)]
pub struct NewEvent {
    pub id: Uuid,
    pub owner: Owner,
    pub event_type: EventType,
    pub alert_kind: Option<AlertKind>,
    pub suggestion_kind: Option<SuggestionKind>,
    /// The alert's event that was reviewed or has recovered; the suggestion made or dismissed.
    pub about: Option<Uuid>,
    pub actor_user_id: Option<String>,
    pub snapshot: Json,
    /// An owner has at most one event with this key, for ever or as long as it is kept.
    pub dedupe_key: Option<String>,
    pub occurred_at: Instant,
    /// Whether somebody has to be told.
    pub notify: bool,
}

impl NewEvent {
    pub fn new(owner: Owner, event_type: EventType, occurred_at: Instant, snapshot: Json) -> Self {
        Self {
            id: Uuid::now_v7(),
            owner,
            event_type,
            alert_kind: None,
            suggestion_kind: None,
            about: None,
            actor_user_id: None,
            snapshot,
            dedupe_key: None,
            occurred_at,
            notify: false,
        }
    }
}

static RECORD: Statement = Statement::kept(include_str!("../../sql/statements/record_events.sql"));

/// Writes events and their deliveries; returns the ids of those that are new.
///
/// Locks: none that anybody waits for, as long as events with the same dedupe key are written under
/// one lock of their owner.
pub fn record(events: &[NewEvent]) -> Result<Vec<Uuid>> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let snapshots: Vec<String> = events.iter().map(|event| event.snapshot.to_string()).collect();
    fn column<'a, T>(events: &'a [NewEvent], part: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
        events.iter().map(part).collect()
    }
    let new = RECORD.write(
        values![
            column(events, |event| event.id),
            column(events, |event| event.owner.kind.as_str()),
            column(events, |event| event.owner.id.as_str()),
            column(events, |event| event.event_type.as_str()),
            column(events, |event| event.alert_kind.map(AlertKind::as_str)),
            column(events, |event| event.suggestion_kind.map(SuggestionKind::as_str)),
            column(events, |event| event.about),
            column(events, |event| event.actor_user_id.as_deref()),
            snapshots.iter().map(String::as_str).collect::<Vec<_>>(),
            column(events, |event| event.dedupe_key.as_deref()),
            column(events, |event| event.occurred_at),
            column(events, |event| event.notify),
            spi::clock(),
        ],
        |row| row.get::<Uuid>(1),
    )?;
    told::remember(events.iter().filter(|event| event.notify).map(|event| event.id));
    Ok(new)
}
