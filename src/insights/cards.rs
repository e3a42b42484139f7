//! What an overview shows of settings, alerts and suggestions.

use super::page::document;
use super::status::{Alert, thirty_day_pace};
use crate::alerts::Settings;
use crate::error::{BillingError, Result};
use crate::events::{self, AlertKind, Text};
use crate::owner::Owner;
use crate::spi::{Statement, values};
use crate::time::Instant;
use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

static LAST_EVALUATION: Statement = Statement::over_queue(
    "SELECT last_evaluated_at FROM exa_billing.spend_alert_states
     WHERE owner_kind = $1 AND owner_id = $2",
);
static EPISODES: Statement = Statement::over_queue(
    "SELECT alert_kind, event_id, threshold_microdollars, hour_start, started_at, snapshot::text,
            reviewed_at, reviewed_by_user_id
     FROM exa_billing.spend_alert_episodes WHERE owner_kind = $1 AND owner_id = $2
     ORDER BY started_at DESC, alert_kind",
);
static SUGGESTIONS: Statement = Statement::over_queue(
    "SELECT suggestion_id, suggestion_kind, target, observed_microdollars, price_microdollars,
            window_start, window_end, driver::text, content::text, created_at
     FROM exa_billing.cost_suggestions
     WHERE owner_kind = $1 AND owner_id = $2 AND status = 'open'
     ORDER BY created_at DESC, suggestion_id DESC",
);

/// When the owner's spend was evaluated last.
pub fn last_evaluated_at(owner: &Owner) -> Result<Option<Instant>> {
    let key = values![owner.kind.as_str(), &owner.id];
    Ok(LAST_EVALUATION.read_row(key, |row| row.maybe::<Instant>(1))?.flatten())
}

/// A word for each kind of alert.
pub fn words(settings: &Settings, episodes: &[Episode]) -> Map<String, Json> {
    let word = |&kind: &AlertKind| {
        let lasting = episodes.iter().find(|episode| episode.kind == kind);
        let reviewed = lasting.map(|episode| episode.is_reviewed);
        let word = Alert { is_watched: settings.watches(kind), reviewed }.word();
        (kind.as_str().to_owned(), json!(word))
    };
    AlertKind::ALL.iter().map(word).collect()
}

/// An alert that lasts.
pub struct Episode {
    kind: AlertKind,
    is_reviewed: bool,
    pub card: Json,
}

fn time(instant: Option<Instant>) -> Option<String> {
    instant.map(Instant::iso8601)
}

pub fn episodes(owner: &Owner) -> Result<Vec<Episode>> {
    EPISODES.read(values![owner.kind.as_str(), &owner.id], |row| {
        let word: String = row.get(1)?;
        let kind = AlertKind::from_books(&word)
            .ok_or_else(|| BillingError::internal(format!("unknown kind of alert: {word}")))?;
        let figures = document(&row.get::<String>(6)?)?;
        let Text { title, description } = events::describe_alert(kind, &figures);
        let reviewed_at = row.maybe::<Instant>(7)?;
        let card = json!({
            "alert_kind": word,
            "event_id": row.get::<Uuid>(2)?.to_string(),
            "title": title,
            "description": description,
            "threshold_microdollars": row.get::<i64>(3)?,
            "hour_start": time(row.maybe(4)?),
            "started_at": row.get::<Instant>(5)?.iso8601(),
            "reviewed_at": time(reviewed_at),
            "reviewed_by_user_id": row.maybe::<String>(8)?,
            "figures": figures,
        });
        Ok(Episode { kind, is_reviewed: reviewed_at.is_some(), card })
    })
}

/// The suggestions that are open.
pub fn suggestions(owner: &Owner) -> Result<Vec<Json>> {
    SUGGESTIONS.read(values![owner.kind.as_str(), &owner.id], |row| {
        let observed: i64 = row.get(4)?;
        let content = document(&row.get::<String>(9)?)?;
        let mut card = json!({
            "suggestion_id": row.get::<Uuid>(1)?.to_string(),
            "suggestion_kind": row.get::<String>(2)?,
            "target": row.get::<String>(3)?,
            "observed_microdollars": observed,
            "pace_30d_microdollars": thirty_day_pace(observed),
            "price_microdollars": row.get::<i64>(5)?,
            "window": {
                "from_time": row.get::<Instant>(6)?.iso8601(),
                "to_time": row.get::<Instant>(7)?.iso8601(),
            },
            "driver": row.maybe::<String>(8)?.map(|text| document(&text)).transpose()?,
            "created_at": row.get::<Instant>(10)?.iso8601(),
        });
        const TEXTS: [&str; 6] =
            ["title", "description", "call_to_action", "link", "benefit_label", "benefit_detail"];
        for name in TEXTS {
            card[name] = content.get(name).cloned().unwrap_or(Json::Null);
        }
        Ok(card)
    })
}
