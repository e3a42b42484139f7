//! Settings, what waits for attention, the overview, and what happened lately.

use super::{Look, View, events, evidence, figures, look};
use crate::model::alerts::{Alerts, Event};
use crate::model::calendar::{DAY, HOUR, hour_of, literal, now};
use crate::model::evidence::known_from;
use crate::step::{SETTINGS, line, settings_told, whose};

pub const NAMES: [&str; 4] = ["settings", "attention", "overview", "activity"];

pub fn look_at(view: &View, name: &'static str) -> Look {
    let none = Alerts::default();
    let alerts = view.model.alerts.get(view.owner).unwrap_or(&none);
    let who = whose(view.owner);
    match name {
        "settings" => {
            let told = settings_told();
            let sql = format!("select {told} from exa_billing.spend_alert_settings({who})");
            look(name, sql, vec![alerts.settings.told()])
        }
        "attention" => {
            let sql = format!("select exa_billing.cost_insights_attention({who})::text");
            look(name, sql, vec![view.model.attention(view.owner).to_string()])
        }
        "overview" => overview(view, name, alerts),
        _ => activity(view, name, alerts),
    }
}

/// A line of metrics, one of each of the ranges, and one of each card.
fn overview(view: &View, name: &'static str, alerts: &Alerts) -> Look {
    let sql = format!(
        "with o as materialized (select exa_billing.cost_insights_overview({}, {}) as o)
         select {} from o
         union all select {} from o, unnest(array['24h', '7d', '30d']) as span
         union all select 'range ' || range || ' ' || {}
             from (select range, o -> 'ranges' -> range as d
                   from o, unnest(array['1h', '24h', '7d', '30d', '90d']) as range) as r
         union all select {} from o, jsonb_array_elements(o -> 'alerts') as card
         union all select {} from o, jsonb_array_elements(o -> 'suggestions') as card",
        whose(view.owner),
        literal(view.as_of),
        metrics_told(),
        rolling_told(),
        evidence::document_told(),
        line(&["card ->> 'alert_kind'", "card -> 'threshold_microdollars'"]),
        line(&["card ->> 'target'", "card -> 'observed_microdollars'"]),
    );
    let mut lines = vec![metrics(view, alerts)];
    for (span, hours) in [("24h", 24), ("7d", 168), ("30d", 720)] {
        lines.push(format!("{span} {}", view.model.rolling(view.owner, hours * HOUR, view.as_of)));
    }
    for range in ["1h", "24h", "7d", "30d", "90d"] {
        lines.push(format!("range {range} {}", evidence::document_line(view, range)));
    }
    let episodes = alerts.episodes.iter();
    lines.extend(episodes.map(|(kind, one)| format!("{kind} {}", one.threshold)));
    let open = alerts.suggestions.iter().filter(|one| one.status == "open");
    let open = open.filter(|_| alerts.settings.suggestions);
    lines.extend(open.map(|one| format!("{} {}", one.target, one.observed)));
    look(name, sql, lines)
}

fn metrics_told() -> String {
    let settings = SETTINGS.map(|name| format!("o -> 'settings' ->> '{name}'"));
    let mut parts = vec![
        "o -> 'metrics' -> 'balance_microdollars'",
        "o -> 'attention'",
        "o -> 'metrics' -> 'current_hour' -> 'variable_microdollars'",
        "jsonb_array_length(o -> 'events')",
    ];
    parts.extend(settings.iter().map(String::as_str));
    line(&parts)
}

fn rolling_told() -> String {
    let figures = figures().map(|figure| format!("o -> 'metrics' -> span ->> '{figure}'"));
    let mut parts = vec!["span"];
    parts.extend(figures.iter().map(String::as_str));
    parts.push("o -> 'metrics' -> span ->> 'is_complete'");
    line(&parts)
}

fn metrics(view: &View, alerts: &Alerts) -> String {
    let View { model, owner, as_of, .. } = view;
    let current = model.between(owner, hour_of(*as_of), *as_of);
    let variable = current.iter().filter(|charge| charge.purpose.category == "variable");
    let variable: i64 = variable.map(|charge| charge.amount).sum();
    let is_known = hour_of(*as_of) >= known_from() || !current.is_empty();
    let variable = if is_known { variable.to_string() } else { "null".to_owned() };
    let (balance, attention) = (model.balance(owner, *as_of), model.attention(owner));
    let newest = lately(alerts).count().min(5);
    format!("{balance} {attention} {variable} {newest} {}", alerts.settings.told())
}

/// Readers see nothing that is older than 90 days.
fn lately(alerts: &Alerts) -> impl Iterator<Item = &Event> {
    let oldest = now() - 90 * DAY;
    events::kept(alerts).filter(move |event| event.at.is_none_or(|at| at > oldest))
}

/// Page by page to the end, newest first, by one of the filters.
fn activity(view: &View, name: &'static str, alerts: &Alerts) -> Look {
    let (filter, kinds) = events::FILTERS[view.draw % events::FILTERS.len()];
    let size = [1, 2, 3, 5, 20, 100][view.draw / events::FILTERS.len() % 6];
    let page = |before: &str| {
        let call =
            format!("cost_insight_activity({}, '{filter}', {before}, {size})", whose(view.owner));
        format!("array(select a from exa_billing.{call} as a)")
    };
    let sql = format!(
        "with recursive pages(page, events) as (
             select 1, {} union all
             select page + 1, {} from pages where cardinality(events) > 0 and page < 500),
         told as (select page, e.*, e.snapshot -> 'settings' as s
             from pages, unnest(events) with ordinality as e(event_id, event_type, alert_kind,
                 suggestion_kind, about_id, title, description, actor_user_id, occurred_at,
                 amount_microdollars, snapshot, place))
         select {} || case when is_after and is_full then '' else ' out of place' end
         from (select *, (occurred_at, event_id) < lag((occurred_at, event_id)) over before is not false
                   as is_after, place = {size} or lead(page) over before is not distinct from page
                   or lead(page) over before is null as is_full
               from told window before as (order by page, place)) as told",
        page("null"),
        page("(events[cardinality(events)]).event_id"),
        events::told()
    );
    let meant = lately(alerts).filter(|event| events::is_meant(event, kinds));
    look(name, sql, meant.map(events::line_of).collect())
}
