//! Events as they are told: the product's rows and the model's, in the same words.

use super::shown;
use crate::model::alerts::{Alerts, Event};
use crate::step::line;

/// The figures of an event's snapshot, in the words of the model.
const SNAPSHOT: &str = "case event_type
    when 'anomaly_alert' then concat_ws(' ',
        (extract(epoch from (snapshot ->> 'hour_start')::timestamptz) * 1000000)::bigint,
        snapshot ->> 'hour_variable_microdollars', snapshot ->> 'baseline_microdollars',
        snapshot ->> 'threshold_microdollars', snapshot ->> 'history_hours')
    when 'low_balance' then concat_ws(' ', snapshot ->> 'balance_microdollars',
        snapshot ->> 'minimum_balance_microdollars')
    when 'threshold_crossed' then concat_ws(' ', snapshot ->> 'window',
        snapshot ->> 'total_microdollars', snapshot ->> 'threshold_microdollars')
    when 'recovered' then concat_ws(' ', snapshot ->> 'window',
        snapshot ->> 'total_microdollars', snapshot ->> 'threshold_microdollars')
    when 'alert_reviewed' then '' when 'suggestion_created' then '' when 'suggestion_dismissed' then ''
    else concat_ws(' ', s ->> 'spend_alerts_enabled', s ->> 'anomaly_alerts_enabled',
        s ->> 'cost_suggestions_enabled', coalesce(s ->> 'threshold_24h_microdollars', '-'),
        coalesce(s ->> 'threshold_7d_microdollars', '-'), coalesce(s ->> 'threshold_30d_microdollars', '-'),
        coalesce(s ->> 'minimum_balance_microdollars', '-')) end";

/// An event's row as a line; `s` are the settings of its snapshot.
pub fn told() -> String {
    let clocked =
        "case when event_type in ('low_balance', 'alert_reviewed', 'suggestion_dismissed')
        then null else (extract(epoch from occurred_at) * 1000000)::bigint end";
    line(&["event_type", "alert_kind", "suggestion_kind", "actor_user_id", clocked, SNAPSHOT])
}

/// The names by which readers ask for events, with the kinds that are meant.
pub const FILTERS: [(&str, &[&str]); 5] = [
    ("all", &[]),
    ("alerts", &["anomaly_alert", "threshold_crossed", "recovered", "low_balance"]),
    ("suggestions", &["suggestion_created", "suggestion_dismissed"]),
    ("reviews", &["alert_reviewed"]),
    ("settings", &["config_changed", "disabled"]),
];

pub fn is_meant(event: &Event, kinds: &[&str]) -> bool {
    kinds.is_empty() || kinds.contains(&event.kind)
}

/// Those that are there still.
pub fn kept(alerts: &Alerts) -> impl Iterator<Item = &Event> {
    alerts.events.iter().filter(|event| !event.is_gone)
}

pub fn line_of(event: &Event) -> String {
    format!(
        "{} {} {} {} {} {}",
        event.kind,
        event.alert.unwrap_or("-"),
        event.suggestion.unwrap_or("-"),
        event.actor.as_deref().unwrap_or("-"),
        shown(event.at),
        event.figures
    )
}
