//! What people read of an event: titles and descriptions, made from its figures when somebody looks.

use super::kind::{AlertKind, EventType, SuggestionKind};
use crate::time::Instant;
use serde_json::Value as Json;

/// What an event, or an alert that lasts, is called and what it says, in English.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub title: String,
    pub description: String,
}

/// The words for an event. A snapshot that lacks a figure, or has something else in its place, makes
/// a shorter text and never an error.
pub fn describe(
    event_type: EventType,
    alert_kind: Option<AlertKind>,
    suggestion_kind: Option<SuggestionKind>,
    snapshot: &Json,
) -> Text {
    let (title, sentences) = match event_type {
        EventType::AnomalyAlert => anomaly(snapshot),
        EventType::ThresholdCrossed => crossed(snapshot),
        EventType::Recovered => recovered(snapshot),
        EventType::AlertReviewed => reviewed(alert_kind),
        EventType::LowBalance => low_balance(snapshot),
        EventType::ConfigChanged => ("Alert settings changed".to_owned(), changes(snapshot)),
        EventType::Disabled => ("Spend alerts switched off".to_owned(), changes(snapshot)),
        EventType::SuggestionCreated => suggestion("New suggestion", suggestion_kind, snapshot),
        EventType::SuggestionDismissed => {
            suggestion("Suggestion dismissed", suggestion_kind, snapshot)
        }
    };
    Text { title, description: sentences.into_iter().flatten().collect::<Vec<_>>().join(" ") }
}

/// The words for an alert while it lasts: those of the event it began with.
pub fn describe_alert(kind: AlertKind, snapshot: &Json) -> Text {
    let event_type = match kind {
        AlertKind::Anomaly => EventType::AnomalyAlert,
        _ => EventType::ThresholdCrossed,
    };
    describe(event_type, Some(kind), None, snapshot)
}

/// The one figure that an event is about.
pub fn amount(event_type: EventType, snapshot: &Json) -> Option<i64> {
    let key = match event_type {
        EventType::AnomalyAlert => "hour_variable_microdollars",
        EventType::ThresholdCrossed | EventType::Recovered => "total_microdollars",
        EventType::LowBalance => "balance_microdollars",
        EventType::SuggestionCreated | EventType::SuggestionDismissed => "observed_microdollars",
        EventType::ConfigChanged | EventType::Disabled | EventType::AlertReviewed => return None,
    };
    snapshot.get(key)?.as_i64()
}

type Words = (String, Vec<Option<String>>);

fn anomaly(snapshot: &Json) -> Words {
    let spent = money(snapshot, "hour_variable_microdollars").map(|spent| {
        match time(snapshot, "hour_start") {
            Some(hour) => {
                format!("{spent} of variable spend in the hour that began at {hour}.")
            }
            None => format!("{spent} of variable spend in one hour."),
        }
    });
    let level = money(snapshot, "threshold_microdollars")
        .map(|level| format!("The alert level was {level}."));
    let is_usual = snapshot.get("mode").and_then(Json::as_str) == Some("history");
    let usual = money(snapshot, "baseline_microdollars")
        .filter(|_| is_usual)
        .map(|usual| format!("95 of 100 hours before it had {usual} or less."));
    ("Unusually high spend in one hour".to_owned(), vec![spent, level, usual])
}

fn crossed(snapshot: &Json) -> Words {
    let window = window(snapshot);
    let spent = money(snapshot, "total_microdollars").map(|spent| match &window {
        Some(window) => format!("{spent} in the last {window}."),
        None => format!("{spent} in total."),
    });
    let threshold = money(snapshot, "threshold_microdollars")
        .map(|threshold| format!("The threshold is {threshold}."));
    let title = match window {
        Some(window) => format!("Spend of the last {window} reached its threshold"),
        None => "Spend reached its threshold".to_owned(),
    };
    (title, vec![spent, threshold])
}

fn recovered(snapshot: &Json) -> Words {
    let (_, sentences) = crossed(snapshot);
    let title = match window(snapshot) {
        Some(window) => format!("Spend of the last {window} is below its threshold again"),
        None => "Spend is below its threshold again".to_owned(),
    };
    (title, sentences)
}

fn reviewed(alert_kind: Option<AlertKind>) -> Words {
    let about = alert_kind.map(|kind| match kind {
        AlertKind::Anomaly => "Unusually high spend in one hour was reviewed.",
        AlertKind::Threshold24h => "The threshold of the last 24 hours was reviewed.",
        AlertKind::Threshold7d => "The threshold of the last 7 days was reviewed.",
        AlertKind::Threshold30d => "The threshold of the last 30 days was reviewed.",
    });
    ("Alert reviewed".to_owned(), vec![about.map(str::to_owned)])
}

fn low_balance(snapshot: &Json) -> Words {
    let left = money(snapshot, "balance_microdollars").map(|left| format!("{left} are left."));
    let minimum = money(snapshot, "minimum_balance_microdollars")
        .map(|minimum| format!("The minimum is {minimum}."));
    ("Balance below its minimum".to_owned(), vec![left, minimum])
}

fn suggestion(what: &str, kind: Option<SuggestionKind>, snapshot: &Json) -> Words {
    let title = match kind {
        Some(SuggestionKind::CodingPlan) => format!("{what}: a coding plan"),
        Some(SuggestionKind::KiloPass) => format!("{what}: Kilo Pass"),
        None => what.to_owned(),
    };
    let model = snapshot.get("driver").and_then(|driver| label(driver.get("model_or_plan_key")?));
    let observed = money(snapshot, "observed_microdollars").map(|observed| match model {
        Some(model) => format!("{observed} went to {model} in 7 days."),
        None => format!("{observed} were spent in 7 days."),
    });
    (title, vec![observed])
}

/// `threshold_24h: none → 10.00 USD.`, one sentence for each setting.
fn changes(snapshot: &Json) -> Vec<Option<String>> {
    let Some(changed) = snapshot.get("changed").and_then(Json::as_object) else {
        return Vec::new();
    };
    let sentence = |(name, change): (&String, &Json)| {
        let is_amount = name.ends_with("_microdollars");
        let shown = |when| match change.get(when)? {
            Json::Null => Some("none".to_owned()),
            Json::Bool(true) => Some("on".to_owned()),
            Json::Bool(false) => Some("off".to_owned()),
            value if is_amount => figure(value).map(usd),
            value => label(value),
        };
        let name = label(&Json::from(name.trim_end_matches("_microdollars").replace('_', " ")))?;
        Some(format!("{name}: {} → {}.", shown("old")?, shown("new")?))
    };
    changed.iter().map(sentence).collect()
}

/// `1234.56 USD`: to the cent, half a cent up.
pub fn usd(microdollars: i128) -> String {
    const MICRODOLLARS_PER_CENT: u128 = 10_000;
    let magnitude = microdollars.unsigned_abs();
    let cents = magnitude / MICRODOLLARS_PER_CENT
        + u128::from(magnitude % MICRODOLLARS_PER_CENT >= MICRODOLLARS_PER_CENT / 2);
    let sign = if microdollars < 0 && cents > 0 { "-" } else { "" };
    format!("{sign}{}.{:02} USD", cents / 100, cents % 100)
}

fn money(snapshot: &Json, key: &str) -> Option<String> {
    figure(snapshot.get(key)?).map(usd)
}

/// A whole number, also one that no bigint holds and that is therefore kept as text.
fn figure(value: &Json) -> Option<i128> {
    value.as_i64().map(i128::from).or_else(|| value.as_str()?.parse().ok())
}

fn window(snapshot: &Json) -> Option<String> {
    let window = match snapshot.get("window")?.as_str()? {
        "24h" => "24 hours",
        "7d" => "7 days",
        "30d" => "30 days",
        _ => return None,
    };
    Some(window.to_owned())
}

/// `2026-11-22 10:00 UTC`.
fn time(snapshot: &Json, key: &str) -> Option<String> {
    let instant = Instant::parse_rfc3339(snapshot.get(key)?.as_str()?)?;
    let shown = instant.iso8601();
    let (date, time) = shown.split_once('T')?;
    Some(format!("{date} {} UTC", time.get(..5)?))
}

/// A short text on one line.
fn label(value: &Json) -> Option<String> {
    const MAX_CHARS: usize = 128;
    let text: String =
        value.as_str()?.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn words(event_type: EventType, snapshot: &Json) -> (String, String) {
        let text = describe(event_type, None, None, snapshot);
        (text.title, text.description)
    }

    #[test]
    fn amounts_are_shown_to_the_cent() {
        for (microdollars, shown) in [
            (0, "0.00 USD"),
            (4_999, "0.00 USD"),
            (5_000, "0.01 USD"),
            (10_000, "0.01 USD"),
            (1_999_999, "2.00 USD"),
            (12_345_678_900, "12345.68 USD"),
            (-4_999, "0.00 USD"),
            (-5_250_000, "-5.25 USD"),
            (i128::from(i64::MAX), "9223372036854.78 USD"),
            (i128::from(i64::MIN), "-9223372036854.78 USD"),
        ] {
            assert_eq!(usd(microdollars), shown);
        }
    }

    #[test]
    fn each_kind_of_event_says_what_happened() {
        let anomaly = json!({
            "hour_start": "2026-11-22T10:00:00Z", "hour_variable_microdollars": 30_000_000,
            "baseline_microdollars": 2_500_000, "threshold_microdollars": 10_000_000,
            "history_hours": 168, "mode": "history",
        });
        let (title, description) = words(EventType::AnomalyAlert, &anomaly);
        assert_eq!(title, "Unusually high spend in one hour");
        assert_eq!(
            description,
            "30.00 USD of variable spend in the hour that began at 2026-11-22 10:00 UTC. The alert \
             level was 10.00 USD. 95 of 100 hours before it had 2.50 USD or less."
        );
        let crossed = json!({
            "window": "7d", "threshold_microdollars": 10_000_000, "total_microdollars": 10_500_000,
        });
        assert_eq!(
            describe_alert(AlertKind::Threshold7d, &crossed),
            Text {
                title: "Spend of the last 7 days reached its threshold".to_owned(),
                description: "10.50 USD in the last 7 days. The threshold is 10.00 USD.".to_owned(),
            }
        );
        for (window, shown) in [("24h", "24 hours"), ("7d", "7 days"), ("30d", "30 days")] {
            let (title, _) = words(EventType::Recovered, &json!({ "window": window }));
            assert_eq!(title, format!("Spend of the last {shown} is below its threshold again"));
        }
        let lasting = describe_alert(AlertKind::Anomaly, &anomaly);
        assert_eq!(lasting, describe(EventType::AnomalyAlert, None, None, &anomaly));
        let low = json!({ "balance_microdollars": "-9300000000000000000", "minimum_balance_microdollars": 5 });
        assert_eq!(
            words(EventType::LowBalance, &low).1,
            "-9300000000000.00 USD are left. The minimum is 0.00 USD."
        );
        let text =
            describe(EventType::AlertReviewed, Some(AlertKind::Threshold24h), None, &json!({}));
        assert_eq!(text.description, "The threshold of the last 24 hours was reviewed.");
    }

    #[test]
    fn changed_settings_are_told_one_by_one() {
        let snapshot = json!({ "changed": {
            "spend_alerts_enabled": { "old": false, "new": true },
            "threshold_24h_microdollars": { "old": null, "new": 12_340_000 },
            "who": { "old": "7", "new": "nobody" },
        }});
        assert_eq!(
            words(EventType::ConfigChanged, &snapshot),
            (
                "Alert settings changed".to_owned(),
                "spend alerts enabled: off → on. threshold 24h: none → 12.34 USD. who: 7 → nobody."
                    .to_owned()
            )
        );
    }

    #[test]
    fn suggestions_say_what_was_observed() {
        let kind = Some(SuggestionKind::CodingPlan);
        let with = json!({
            "observed_microdollars": 50_000_000, "driver": { "model_or_plan_key": "minimax/minimax-m3" },
        });
        let text = describe(EventType::SuggestionCreated, None, kind, &with);
        assert_eq!(text.title, "New suggestion: a coding plan");
        assert_eq!(text.description, "50.00 USD went to minimax/minimax-m3 in 7 days.");
        let without = json!({ "observed_microdollars": 100_000_000, "driver": null });
        let kind = Some(SuggestionKind::KiloPass);
        let text = describe(EventType::SuggestionDismissed, None, kind, &without);
        assert_eq!(text.title, "Suggestion dismissed: Kilo Pass");
        assert_eq!(text.description, "100.00 USD were spent in 7 days.");
    }

    #[test]
    fn what_is_missing_is_left_out() {
        for &event_type in EventType::ALL {
            for snapshot in [json!(null), json!({}), json!([1]), json!("text"), json!(5)] {
                let (title, description) = words(event_type, &snapshot);
                assert!(!title.is_empty(), "{event_type:?}");
                assert_eq!(description, "", "{event_type:?}");
            }
        }
        let odd = json!({ "hour_start": "soon", "hour_variable_microdollars": 1.5, "mode": 7,
            "baseline_microdollars": "x", "threshold_microdollars": true, "window": "1y",
            "total_microdollars": { "a": 1 }, "changed": { "a": 1, "b": { "old": 1 } },
            "driver": [], "observed_microdollars": [] });
        for &event_type in EventType::ALL {
            assert_eq!(words(event_type, &odd).1, "", "{event_type:?}");
        }
    }

    #[test]
    fn the_figure_of_an_event_is_the_one_it_is_about() {
        let snapshot = json!({ "hour_variable_microdollars": 1, "total_microdollars": 2,
            "balance_microdollars": -3, "observed_microdollars": 4 });
        let found: Vec<_> =
            EventType::ALL.iter().map(|&event_type| amount(event_type, &snapshot)).collect();
        assert_eq!(
            found,
            [None, Some(1), Some(2), Some(2), None, Some(4), Some(4), Some(-3), None]
        );
    }

    proptest! {
        #[test]
        fn no_snapshot_is_too_odd_and_nothing_promises_savings(
            number in any::<i64>(),
            text in "\\PC{0,40}",
            is_text in any::<bool>(),
        ) {
            let value = if is_text { json!(text) } else { json!(number) };
            let keys = ["hour_start", "hour_variable_microdollars", "baseline_microdollars", "mode",
                "threshold_microdollars", "total_microdollars", "window", "balance_microdollars",
                "minimum_balance_microdollars", "observed_microdollars"];
            let mut snapshot: serde_json::Map<_, _> =
                keys.iter().map(|key| ((*key).to_owned(), value.clone())).collect();
            snapshot.insert("changed".to_owned(), json!({ text.clone(): { "old": value, "new": number } }));
            snapshot.insert("driver".to_owned(), json!({ "model_or_plan_key": value }));
            for &event_type in EventType::ALL {
                let said = describe(event_type, None, None, &Json::Object(snapshot.clone()));
                prop_assert!(!said.title.is_empty());
                prop_assert!(said.description.len() < 2_000);
                prop_assert!(!said.description.replace(&text, "").to_lowercase().contains("sav"));
            }
        }

        #[test]
        fn cents_are_never_further_off_than_half_a_cent(microdollars in any::<i64>()) {
            let shown = usd(i128::from(microdollars)).replace(" USD", "").replace('.', "");
            let cents: i128 = shown.parse().unwrap();
            prop_assert!((cents * 10_000 - i128::from(microdollars)).abs() <= 5_000);
        }
    }
}
