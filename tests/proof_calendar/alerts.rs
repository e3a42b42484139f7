//! Thresholds over windows that end at an instant: crossed and recovered at its very microsecond.

use super::compared;
use super::edges::{At, at, hours_later, later, shown};
use super::history::{DAY, HOUR, MICROSECOND};
use super::model::{BOTH, Model, Whose};
use super::writing::{row, rows};
use postgres::Client;
use serde_json::Value as Json;

const WINDOWS: [(&str, i64); 3] = [("24h", 24), ("7d", 168), ("30d", 720)];

/// What crossed: its window, the total, and from when until when its drivers were asked for.
type Crossing = (String, i64, String, String);

pub fn compare(c: &mut Client, model: &Model, who: &str) {
    for whose in BOTH {
        evaluate(c, model, whose, who);
    }
}

/// Each window has as threshold just what was spent in it until a microsecond after the edge: a charge
/// at the edge makes it full, and one just before its beginning is no part of it any more.
fn evaluate(c: &mut Client, model: &Model, whose: Whose, who: &str) {
    let edge = model.history.edge;
    let full = later(edge, MICROSECOND);
    let thresholds =
        WINDOWS.map(|(_, hours)| model.sums(whose, hours_later(full, -hours), full).0.max(1));
    let mut changes = serde_json::json!({
        "spend_alerts_enabled": true, "anomaly_alerts_enabled": false, "cost_suggestions_enabled": false,
    });
    for ((name, _), threshold) in WINDOWS.iter().zip(thresholds) {
        changes[format!("threshold_{name}_microdollars")] = threshold.into();
    }
    let mut is_over = [false; 3];
    let mut crossings: Vec<Crossing> = Vec::new();
    let steps = [
        -31 * DAY,
        -HOUR,
        -MICROSECOND,
        0,
        MICROSECOND,
        HOUR,
        DAY,
        DAY + MICROSECOND,
        7 * DAY + 1,
        31 * DAY,
    ];
    for (number, step) in steps.into_iter().enumerate() {
        let as_of = later(edge, step);
        let (mut fired, mut recovered) = (0_i64, 0_i64);
        for (place, (name, hours)) in WINDOWS.into_iter().enumerate() {
            let from = hours_later(as_of, -hours);
            let total = model.sums(whose, from, as_of).0;
            let now_over = total >= thresholds[place];
            fired += i64::from(now_over && !is_over[place]);
            recovered += i64::from(!now_over && is_over[place]);
            if now_over && !is_over[place] {
                crossings.push((name.to_owned(), total, shown(from), shown(as_of)));
            }
            is_over[place] = now_over;
        }
        let told = if number == 0 {
            let sql = "select fired, 0::bigint, evaluation_pending from exa_billing.update_spend_alert_settings(
                           $1, $2, $3::text::jsonb, 'actor', $4)";
            row(c, sql, &[&Model::kind(whose), &model.id(whose), &changes.to_string(), &as_of])
        } else {
            let sql = "select fired, recovered, evaluated <> 1
                       from exa_billing.evaluate_spend_alerts($1, $2, $3)";
            row(c, sql, &[&Model::kind(whose), &model.id(whose), &as_of])
        };
        let told: (i64, i64, bool) = (told.get(0), told.get(1), told.get(2));
        compared(&told, &(fired, recovered, false), who, "evaluate_spend_alerts");
    }
    crossings.sort();
    compared(&told_crossings(c, model, whose), &crossings, who, "threshold_crossed");
}

fn told_crossings(c: &mut Client, model: &Model, whose: Whose) -> Vec<Crossing> {
    let sql = "select snapshot::text, occurred_at from exa_billing.cost_insight_events
               where owner_kind = $1 and owner_id = $2 and event_type = 'threshold_crossed'";
    let mut told: Vec<Crossing> = rows(c, sql, &[&Model::kind(whose), &model.id(whose)])
        .iter()
        .map(|row| {
            let snapshot: Json = serde_json::from_str(row.get(0)).expect("a snapshot");
            let instant = |name: &str| -> At {
                let text = snapshot["drivers_window"][name].as_str().expect("an instant");
                assert!(text.ends_with('Z'), "{snapshot}");
                at(text)
            };
            assert_eq!(instant("to_time"), row.get::<_, At>(1), "{snapshot}");
            let window = snapshot["window"].as_str().expect("a window").to_owned();
            let total = snapshot["total_microdollars"].as_i64().expect("a total");
            (window, total, shown(instant("from_time")), shown(instant("to_time")))
        })
        .collect();
    told.sort();
    told
}
