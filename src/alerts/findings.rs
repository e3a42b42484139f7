//! Findings as events: with the figures that were evaluated and what the money went on.

use super::decision::{Finding, Moment};
use super::settings_rules::WINDOWS;
use crate::error::Result;
use crate::events::{AlertKind, EventType, NewEvent};
use crate::evidence::{Interval, Spend, driver_document};
use crate::owner::Owner;
use crate::sources::Category;
use crate::time::Instant;
use serde_json::{Map, Value as Json, json};

const DRIVERS_SHOWN: usize = 5;

/// The event of a finding, read on the snapshot on which it was found.
pub fn event(owner: &Owner, moment: Moment, finding: &Finding) -> Result<NewEvent> {
    match finding {
        Finding::Anomaly { hour, .. } => {
            let window = Interval { from: *hour, to: hour.plus_hours(1).min(moment.as_of) };
            let mut snapshot = anomaly(finding);
            add_drivers(owner, window, Some(Category::Variable), &mut snapshot)?;
            Ok(NewEvent {
                alert_kind: Some(AlertKind::Anomaly),
                dedupe_key: Some(format!("anomaly:{}", hour.iso8601())),
                notify: true,
                ..new(owner, EventType::AnomalyAlert, moment, snapshot)
            })
        }
        Finding::Crossed { window, total, threshold } => {
            let mut snapshot = crossing(*window, *total, *threshold);
            let from = moment.as_of.plus_hours(-WINDOWS[*window].2);
            add_drivers(owner, Interval { from, to: moment.as_of }, None, &mut snapshot)?;
            Ok(NewEvent {
                alert_kind: Some(WINDOWS[*window].0),
                notify: true,
                ..new(owner, EventType::ThresholdCrossed, moment, snapshot)
            })
        }
        Finding::Recovered { window, total, episode } => Ok(NewEvent {
            alert_kind: Some(WINDOWS[*window].0),
            about: Some(episode.event_id),
            ..new(owner, EventType::Recovered, moment, crossing(*window, *total, episode.threshold))
        }),
    }
}

fn new(
    owner: &Owner,
    event_type: EventType,
    moment: Moment,
    snapshot: Map<String, Json>,
) -> NewEvent {
    NewEvent::new(owner.clone(), event_type, moment.as_of, Json::Object(snapshot))
}

fn anomaly(finding: &Finding) -> Map<String, Json> {
    let Finding::Anomaly { hour, amount, policy, .. } = finding else { return Map::new() };
    object(json!({
        "hour_start": hour.iso8601(),
        "hour_variable_microdollars": amount,
        "baseline_microdollars": policy.baseline,
        "threshold_microdollars": policy.threshold,
        "history_hours": policy.history_hours,
        "mode": policy.mode(),
    }))
}

fn crossing(window: usize, total: i64, threshold: i64) -> Map<String, Json> {
    object(json!({
        "window": WINDOWS[window].1,
        "total_microdollars": total,
        "threshold_microdollars": threshold,
    }))
}

fn object(document: Json) -> Map<String, Json> {
    match document {
        Json::Object(members) => members,
        _ => Map::new(),
    }
}

fn add_drivers(
    owner: &Owner,
    window: Interval,
    category: Option<Category>,
    snapshot: &mut Map<String, Json>,
) -> Result<()> {
    let drivers = Spend::read(owner, window, window.to)?.drivers()?.top(category, DRIVERS_SHOWN)?;
    let shown: Vec<Json> = drivers.iter().map(driver_document).collect();
    let bounds = |from: Instant, to: Instant| {
        object(json!({ "from_time": from.iso8601(), "to_time": to.iso8601() }))
    };
    let mut window_shown = bounds(window.from, window.to);
    if let Some(category) = category {
        window_shown.insert("spend_category".to_owned(), json!(category.as_str()));
    }
    snapshot.insert("top_drivers".to_owned(), json!(shown));
    snapshot.insert("drivers_window".to_owned(), Json::Object(window_shown));
    Ok(())
}
