//! `cost_insights_overview`: everything a page about an owner's spend shows, on one snapshot.

use super::cards;
use super::page::{self, Place};
use super::{attention, status};
use crate::error::Result;
use crate::events::EventType;
use crate::evidence::AllRanges;
use crate::owner::Owner;
use crate::spi::Answer;
use crate::time::{self, Instant};
use crate::{alerts, books, credits};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Map, Value as Json, json};

const EVENTS_SHOWN: i64 = 5;

fn metrics(ranges: &AllRanges, balance: i64) -> Result<Json> {
    Ok(json!({
        "current_hour": ranges.current_hour()?,
        "24h": ranges.rolling(24)?,
        "7d": ranges.rolling(7 * 24)?,
        "30d": ranges.rolling(30 * 24)?,
        "balance_microdollars": balance,
    }))
}

fn overview(owner: &Owner, as_of: Instant) -> Result<Json> {
    let ranges = AllRanges::read(owner, as_of)?;
    let balance = credits::read_balance(owner, as_of)?.left()?;
    let settings = alerts::settings_of(owner)?;
    let episodes = cards::episodes(owner)?;
    let suggestions = if settings.suggestions { cards::suggestions(owner)? } else { Vec::new() };
    let shown_from = page::shown_from(as_of);
    let events = page::read(owner, EventType::ALL, shown_from, Place::START, EVENTS_SHOWN)?;

    let mut words: Map<String, Json> = cards::words(&settings, &episodes);
    let balance_word = status::balance_word(balance, settings.minimum_balance);
    words.insert("balance".to_owned(), json!(balance_word));
    words.insert(
        "last_evaluated_at".to_owned(),
        json!(cards::last_evaluated_at(owner)?.map(Instant::iso8601)),
    );
    Ok(json!({
        "owner": { "owner_kind": owner.kind.as_str(), "owner_id": owner.id },
        "as_of": as_of.iso8601(),
        "metrics": metrics(&ranges, balance)?,
        "settings": settings.document(),
        "status": words,
        "attention": attention::count(owner)?,
        "alerts": episodes.into_iter().map(|episode| episode.card).collect::<Vec<_>>(),
        "suggestions": suggestions,
        "ranges": ranges.documents()?,
        "events": events.iter().map(page::Event::document).collect::<Vec<_>>(),
    }))
}

/// Metrics, settings, alerts, suggestions, ranges and the newest events of an owner.
#[pg_extern(sql = false)]
fn cost_insights_overview(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<JsonB> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let as_of = time::as_of(as_of)?;
    AllRanges::window(as_of)?;
    books::enter_for_reading("exa_billing.cost_insights_overview()")?;
    Ok(JsonB(overview(&owner, as_of)?))
}
