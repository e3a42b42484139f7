//! What an owner wants to be told of: how a change is read, and what it leads to.

use crate::error::{BillingError, Result};
use crate::events::{AlertKind, EventType};
use crate::money::MAX_AMOUNT_MICRODOLLARS;
use crate::owner::quoted;
use serde_json::{Map, Value as Json, json};

/// The windows that have a threshold, with the hours they reach back.
pub const WINDOWS: [(AlertKind, &str, i64); 3] = [
    (AlertKind::Threshold24h, "24h", 24),
    (AlertKind::Threshold7d, "7d", 7 * 24),
    (AlertKind::Threshold30d, "30d", 30 * 24),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub spend_alerts: bool,
    pub anomaly_alerts: bool,
    pub suggestions: bool,
    /// In the order of `WINDOWS`.
    pub thresholds: [Option<i64>; 3],
    /// Told of whether or not spend alerts are enabled.
    pub minimum_balance: Option<i64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            spend_alerts: false,
            anomaly_alerts: true,
            suggestions: true,
            thresholds: [None; 3],
            minimum_balance: None,
        }
    }
}

/// What a key of the change document sets.
#[derive(Clone, Copy)]
enum Field {
    Switch(fn(&mut Settings) -> &mut bool),
    Amount(fn(&mut Settings) -> &mut Option<i64>),
}

const FIELDS: [(&str, Field); 7] = [
    ("spend_alerts_enabled", Field::Switch(|settings| &mut settings.spend_alerts)),
    ("anomaly_alerts_enabled", Field::Switch(|settings| &mut settings.anomaly_alerts)),
    ("cost_suggestions_enabled", Field::Switch(|settings| &mut settings.suggestions)),
    ("threshold_24h", Field::Amount(|settings| &mut settings.thresholds[0])),
    ("threshold_7d", Field::Amount(|settings| &mut settings.thresholds[1])),
    ("threshold_30d", Field::Amount(|settings| &mut settings.thresholds[2])),
    ("minimum_balance", Field::Amount(|settings| &mut settings.minimum_balance)),
];

const IN_MICRODOLLARS: &str = "_microdollars";
const IN_USD: &str = "_usd";

impl Settings {
    /// The settings after a change; nothing of a change with a fault in it.
    pub fn with(&self, changes: &Map<String, Json>) -> Result<Self> {
        let mut changed = self.clone();
        for (key, value) in changes {
            match find(key)? {
                Field::Switch(place) => *place(&mut changed) = switch(key, value)?,
                Field::Amount(place) => *place(&mut changed) = amount(key, value)?,
            }
            if let Some(name) = key.strip_suffix(IN_USD)
                && changes.contains_key(&format!("{name}{IN_MICRODOLLARS}"))
            {
                return Err(in_changes(
                    key,
                    format!(
                        "is given in USD and in microdollars; give one of {name}{IN_USD} and {name}{IN_MICRODOLLARS}"
                    ),
                ));
            }
        }
        Ok(changed)
    }

    /// All settings by their names.
    pub fn document(&self) -> Map<String, Json> {
        let mut copy = self.clone();
        let member = |(name, field): (&str, Field)| match field {
            Field::Switch(place) => (name.to_owned(), json!(*place(&mut copy))),
            Field::Amount(place) => (format!("{name}{IN_MICRODOLLARS}"), json!(*place(&mut copy))),
        };
        FIELDS.into_iter().map(member).collect()
    }

    /// Whether an owner wants to be told of this.
    pub fn watches(&self, kind: AlertKind) -> bool {
        let threshold = WINDOWS.iter().position(|window| window.0 == kind);
        self.spend_alerts
            && threshold.map_or(self.anomaly_alerts, |window| self.thresholds[window].is_some())
    }
}

fn find(key: &str) -> Result<Field> {
    let found = FIELDS.into_iter().find(|(name, field)| match field {
        Field::Switch(_) => key == *name,
        Field::Amount(_) => {
            key.strip_prefix(name).is_some_and(|unit| unit == IN_MICRODOLLARS || unit == IN_USD)
        }
    });
    found.map(|(_, field)| field).ok_or_else(|| {
        let names = FIELDS.map(|(name, field)| match field {
            Field::Switch(_) => name.to_owned(),
            Field::Amount(_) => format!("{name}{IN_MICRODOLLARS} (or {name}{IN_USD})"),
        });
        BillingError::invalid("changes has an unknown key")
            .detail(format!("The key is {}.", quoted(key)))
            .hint(format!("Known are {}.", names.join(", ")))
    })
}

fn in_changes(key: &str, problem: impl std::fmt::Display) -> BillingError {
    BillingError::invalid(format!("changes: {key} {problem}"))
}

fn switch(key: &str, value: &Json) -> Result<bool> {
    value.as_bool().ok_or_else(|| in_changes(key, "must be true or false"))
}

/// An amount above zero, or none.
fn amount(key: &str, value: &Json) -> Result<Option<i64>> {
    if value.is_null() {
        return Ok(None);
    }
    if key.ends_with(IN_USD) {
        let text = value.as_str().ok_or_else(|| in_changes(key, "must be a text or null"))?;
        return usd(key, text.trim());
    }
    let range = format!("must be a whole number from 1 to {MAX_AMOUNT_MICRODOLLARS}, or null");
    let number = value.as_i64().filter(|number| (1..=MAX_AMOUNT_MICRODOLLARS).contains(number));
    number.map(Some).ok_or_else(|| {
        in_changes(key, range).detail(format!("It is {}.", quoted(&value.to_string())))
    })
}

/// What a form field holds: digits, perhaps a point and one or two decimals. Stricter than a price,
/// because a person typed it: 1,000 or 025 may mean something else than what it would be read as.
fn usd(key: &str, text: &str) -> Result<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let (whole, cents) =
        text.split_once('.').map_or((text, None), |(whole, cents)| (whole, Some(cents)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_well_formed = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && cents.is_none_or(|cents| digits(cents) && cents.len() <= 2);
    let hundredths = format!("{whole}{:0<2}", cents.unwrap_or_default()).parse::<i64>().ok();
    let amount = hundredths.and_then(|hundredths| hundredths.checked_mul(10_000));
    let in_range = amount.filter(|amount| (1..=MAX_AMOUNT_MICRODOLLARS).contains(amount));
    match in_range {
        Some(amount) if is_well_formed => Ok(Some(amount)),
        _ => Err(in_changes(key, "is not an amount in USD")
            .detail(format!("It is {}.", quoted(text)))
            .hint("Give digits with at most two decimals, such as '25' or '25.50', more than zero; empty or null for none.")),
    }
}

/// What a change of settings leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consequences {
    pub event: Option<EventType>,
    /// Episodes that end without a word.
    pub end: Vec<AlertKind>,
    pub evaluate: bool,
    pub close_suggestions: bool,
}

pub fn consequences(old: &Settings, new: &Settings) -> Consequences {
    let is_changed = old != new;
    let event = match (old.spend_alerts, new.spend_alerts) {
        _ if !is_changed => None,
        (true, false) => Some(EventType::Disabled),
        (_, true) => Some(EventType::ConfigChanged),
        (false, false) => None,
    };
    let threshold_of = |settings: &Settings, kind| {
        WINDOWS
            .iter()
            .position(|window| window.0 == kind)
            .and_then(|window| settings.thresholds[window])
    };
    let ends = |kind: &AlertKind| {
        !new.watches(*kind) || threshold_of(old, *kind) != threshold_of(new, *kind)
    };
    Consequences {
        event,
        end: AlertKind::ALL.iter().copied().filter(ends).collect(),
        evaluate: is_changed && new.spend_alerts,
        close_suggestions: old.suggestions && !new.suggestions,
    }
}

/// Old and new value of every setting that a change has changed.
pub fn difference(old: &Settings, new: &Settings) -> Json {
    let (old, new) = (old.document(), new.document());
    let changed = old.into_iter().filter(|(name, value)| new.get(name) != Some(value)).map(
        |(name, value)| {
            let now = new.get(&name).cloned().unwrap_or_default();
            (name, json!({ "old": value, "new": now }))
        },
    );
    Json::Object(changed.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn changed(document: Json) -> Result<Settings> {
        let Json::Object(changes) = document else { panic!("an object") };
        Settings::default().with(&changes)
    }

    #[test]
    fn windows_are_as_long_as_their_names_say() {
        let hours = WINDOWS.map(|(_, name, hours)| (name, hours));
        assert_eq!(hours, [("24h", 24), ("7d", 168), ("30d", 720)]);
    }

    #[test]
    fn amounts_are_read_in_both_units() {
        let settings = changed(json!({
            "spend_alerts_enabled": true,
            "threshold_24h_usd": " 25.50 ",
            "threshold_7d_microdollars": 9_007_199_254_740_991_i64,
            "threshold_30d_usd": "",
            "minimum_balance_usd": "0.01",
        }));
        let settings = settings.unwrap();
        assert_eq!(settings.thresholds, [Some(25_500_000), Some(MAX_AMOUNT_MICRODOLLARS), None]);
        assert_eq!((settings.spend_alerts, settings.minimum_balance), (true, Some(10_000)));
    }

    #[test]
    fn what_a_form_field_may_hold() {
        for (text, expected) in [
            ("25", Some(25_000_000)),
            ("25.5", Some(25_500_000)),
            ("0.01", Some(10_000)),
            ("9007199254.74", Some(9_007_199_254_740_000)),
            ("   ", None),
        ] {
            assert_eq!(amount("threshold_24h_usd", &json!(text)), Ok(expected), "{text}");
        }
        for text in [
            "0",
            "0.00",
            "-1",
            "+1",
            "10.001",
            "1,000",
            "025",
            "25.",
            ".5",
            "1e3",
            "9007199254.75",
            "99999999999999999999",
            "٣",
            "1 0",
            "NaN",
        ] {
            let refused = amount("threshold_24h_usd", &json!(text)).unwrap_err();
            assert_eq!(
                refused.message, "changes: threshold_24h_usd is not an amount in USD",
                "{text}"
            );
        }
        for value in [json!(0), json!(-1), json!(1.5), json!("1"), json!(true), json!(1u64 << 53)] {
            assert!(amount("minimum_balance_microdollars", &value).is_err(), "{value}");
        }
    }

    #[test]
    fn a_change_with_a_fault_changes_nothing() {
        for document in [
            json!({ "spend_alert_enabled": true }),
            json!({ "threshold_24h": 5 }),
            json!({ "threshold_24h_eur": "5" }),
            json!({ "spend_alerts_enabled": "true" }),
            json!({ "spend_alerts_enabled": null }),
            json!({ "threshold_24h_usd": 25 }),
            json!({ "threshold_24h_usd": "5", "threshold_24h_microdollars": 5_000_000 }),
        ] {
            assert!(changed(document.clone()).is_err(), "{document}");
        }
    }

    #[test]
    fn disabling_ends_everything_and_a_new_threshold_only_its_own_window() {
        let on = Settings {
            spend_alerts: true,
            thresholds: [Some(1), Some(2), None],
            ..Settings::default()
        };
        let off = Settings { spend_alerts: false, ..on.clone() };
        let disabled = consequences(&on, &off);
        assert_eq!((disabled.event, disabled.evaluate), (Some(EventType::Disabled), false));
        assert_eq!(disabled.end, AlertKind::ALL);

        let raised = Settings { thresholds: [Some(1), Some(3), None], ..on.clone() };
        let change = consequences(&on, &raised);
        assert_eq!((change.event, change.evaluate), (Some(EventType::ConfigChanged), true));
        assert_eq!(change.end, [AlertKind::Threshold7d, AlertKind::Threshold30d]);
        assert_eq!(
            difference(&on, &raised),
            json!({ "threshold_7d_microdollars": { "old": 2, "new": 3 } })
        );

        let calm = Settings { anomaly_alerts: false, ..on.clone() };
        assert_eq!(consequences(&on, &calm).end, [AlertKind::Anomaly, AlertKind::Threshold30d]);
        let same = consequences(&on, &on);
        assert_eq!((same.event, same.evaluate, same.close_suggestions), (None, false, false));
    }

    #[test]
    fn while_disabled_a_change_only_saves() {
        let off = Settings::default();
        let other =
            Settings { thresholds: [Some(1); 3], suggestions: false, ..Settings::default() };
        let change = consequences(&off, &other);
        assert_eq!((change.event, change.evaluate, change.close_suggestions), (None, false, true));
    }

    proptest! {
        #[test]
        fn the_document_of_settings_is_a_change_to_them(
            switches: [bool; 3],
            amounts in prop::array::uniform4(prop::option::of(1..=MAX_AMOUNT_MICRODOLLARS)),
        ) {
            let settings = Settings {
                spend_alerts: switches[0],
                anomaly_alerts: switches[1],
                suggestions: switches[2],
                thresholds: [amounts[0], amounts[1], amounts[2]],
                minimum_balance: amounts[3],
            };
            prop_assert_eq!(Settings::default().with(&settings.document()).unwrap(), settings);
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,40}") {
            let _ = amount("threshold_7d_usd", &json!(text));
        }
    }
}
