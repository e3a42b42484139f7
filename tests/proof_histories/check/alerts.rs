//! Settings, what waits for attention, the overview, and what happened lately.

use super::{Look, View, look};
use crate::model::alerts::Alerts;
use crate::model::calendar::{DAY, hour_of, literal, now};
use crate::model::evidence::known_from;
use crate::step::{line, settings_told, whose};

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

fn overview(view: &View, name: &'static str, alerts: &Alerts) -> Look {
    let View { model, owner, as_of, .. } = view;
    let told = line(&[
        "d -> 'metrics' -> 'balance_microdollars'",
        "d -> 'attention'",
        "jsonb_array_length(d -> 'alerts')",
        "d -> 'metrics' -> 'current_hour' -> 'variable_microdollars'",
    ]);
    let at = literal(*as_of);
    let sql = format!(
        "select {told} from exa_billing.cost_insights_overview({}, {at}) as d",
        whose(owner)
    );
    let current = model.between(owner, hour_of(*as_of), *as_of);
    let variable = current.iter().filter(|charge| charge.purpose.category == "variable");
    let variable: i64 = variable.map(|charge| charge.amount).sum();
    let is_known = hour_of(*as_of) >= known_from() || !current.is_empty();
    let variable = if is_known { variable.to_string() } else { "null".to_owned() };
    let (balance, attention) = (model.balance(owner, *as_of), model.attention(owner));
    look(name, sql, vec![format!("{balance} {attention} {} {variable}", alerts.episodes.len())])
}

/// Readers see nothing that is older than 90 days.
fn activity(view: &View, name: &'static str, alerts: &Alerts) -> Look {
    let sql = format!(
        "select event_type from exa_billing.cost_insight_activity({}, 'all', null, 100)",
        whose(view.owner)
    );
    let oldest = now() - 90 * DAY;
    let lately = alerts.events.iter().filter(|event| event.at.is_none_or(|at| at > oldest));
    look(name, sql, lately.map(|event| event.kind.to_owned()).collect())
}
