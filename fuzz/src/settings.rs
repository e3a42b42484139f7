//! Changes of an owner's settings, one after the other.

use crate::alerts::settings_rules::{Consequences, Settings, consequences, difference};
use crate::decimal::{Decimal, Worth};
use crate::events::{AlertKind, EventType};
use crate::money::MAX_AMOUNT_MICRODOLLARS;
use crate::style::assert_refused_well;
use serde_json::{Deserializer, Map, Value, json};

const SWITCHES: [&str; 3] =
    ["spend_alerts_enabled", "anomaly_alerts_enabled", "cost_suggestions_enabled"];
const AMOUNTS: [&str; 4] = ["threshold_24h", "threshold_7d", "threshold_30d", "minimum_balance"];
const THRESHOLDS: [AlertKind; 3] =
    [AlertKind::Threshold24h, AlertKind::Threshold7d, AlertKind::Threshold30d];

/// A slow and plain reading of settings, in the order of the names above.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Plain {
    switches: [bool; 3],
    amounts: [Option<i64>; 4],
}

/// Each document changes what those before it have left.
pub fn check(data: &[u8]) {
    let mut settings = Settings::default();
    let mut plain = Plain { switches: [false, true, true], amounts: [None; 4] };
    assert_are(&settings, &plain);
    for changes in Deserializer::from_slice(data).into_iter::<Value>() {
        let Ok(Value::Object(changes)) = changes else { return };
        let expected = plain.with(&changes);
        match settings.with(&changes) {
            Ok(after) => {
                let expected = expected.unwrap_or_else(|| panic!("{changes:?} is no change"));
                assert_are(&after, &expected);
                assert_eq!(Settings::default().with(&after.document()), Ok(after.clone()));
                assert_eq!(consequences(&settings, &after), plain.consequences(&expected));
                assert_eq!(difference(&settings, &after), plain.difference(&expected));
                (settings, plain) = (after, expected);
            }
            Err(error) => {
                assert_eq!(expected, None, "{error:?}");
                assert!(error.message.starts_with("changes"), "{error:?}");
                assert_refused_well(&error);
            }
        }
    }
}

fn assert_are(settings: &Settings, plain: &Plain) {
    let switches = [settings.spend_alerts, settings.anomaly_alerts, settings.suggestions];
    let [day, week, month] = settings.thresholds;
    let amounts = [day, week, month, settings.minimum_balance];
    assert_eq!(Plain { switches, amounts }, *plain);
    assert_eq!(settings.document(), plain.document());
    for kind in AlertKind::ALL {
        assert_eq!(settings.watches(*kind), plain.watches(*kind), "{kind:?}");
    }
}

impl Plain {
    /// None for a change that has to be refused. What is not named stays as it was.
    fn with(&self, changes: &Map<String, Value>) -> Option<Plain> {
        let mut after = self.clone();
        let mut understood = 0;
        for (name, place) in SWITCHES.into_iter().zip(&mut after.switches) {
            if let Some(given) = changes.get(name) {
                *place = given.as_bool()?;
                understood += 1;
            }
        }
        for (name, place) in AMOUNTS.into_iter().zip(&mut after.amounts) {
            let in_usd = changes.get(&format!("{name}_usd"));
            *place = match (changes.get(&format!("{name}_microdollars")), in_usd) {
                (None, None) => continue,
                (Some(given), None) => of_microdollars(given)?,
                (None, Some(given)) => of_usd(given)?,
                (Some(_), Some(_)) => return None,
            };
            understood += 1;
        }
        (understood == changes.len()).then_some(after)
    }

    fn document(&self) -> Map<String, Value> {
        let switches = SWITCHES.into_iter().zip(self.switches);
        let switches = switches.map(|(name, is_on)| (name.to_owned(), json!(is_on)));
        let amounts = AMOUNTS.into_iter().zip(self.amounts);
        let amounts = amounts.map(|(name, set)| (format!("{name}_microdollars"), json!(set)));
        switches.chain(amounts).collect()
    }

    fn threshold(&self, kind: AlertKind) -> Option<i64> {
        THRESHOLDS.into_iter().zip(self.amounts).find(|(of, _)| *of == kind)?.1
    }

    fn watches(&self, kind: AlertKind) -> bool {
        let [spend_alerts, anomaly_alerts, _] = self.switches;
        let is_set = if kind == AlertKind::Anomaly {
            anomaly_alerts
        } else {
            self.threshold(kind).is_some()
        };
        spend_alerts && is_set
    }

    fn consequences(&self, after: &Plain) -> Consequences {
        let (was_on, is_on) = (self.switches[0], after.switches[0]);
        let is_told = self != after && (was_on || is_on);
        let told_of = if is_on { EventType::ConfigChanged } else { EventType::Disabled };
        let mut end = AlertKind::ALL.to_vec();
        end.retain(|kind| !after.watches(*kind) || self.threshold(*kind) != after.threshold(*kind));
        Consequences {
            event: is_told.then_some(told_of),
            end,
            evaluate: is_told && is_on,
            close_suggestions: self.switches[2] && !after.switches[2],
        }
    }

    fn difference(&self, after: &Plain) -> Value {
        let (old, new) = (self.document(), after.document());
        let mut told = Map::new();
        for (name, old) in old {
            if new[&name] != old {
                told.insert(name.clone(), json!({ "old": old, "new": new[&name] }));
            }
        }
        Value::Object(told)
    }
}

fn of_microdollars(given: &Value) -> Option<Option<i64>> {
    match given {
        Value::Null => Some(None),
        Value::Number(amount) if amount.as_str().bytes().all(|byte| byte.is_ascii_digit()) => {
            let amount = amount.as_str().parse().ok()?;
            (1..=MAX_AMOUNT_MICRODOLLARS).contains(&amount).then_some(Some(amount))
        }
        _ => None,
    }
}

/// Digits without a zero before them, perhaps a point and one or two more.
fn of_usd(given: &Value) -> Option<Option<i64>> {
    if given.is_null() {
        return Some(None);
    }
    let text = given.as_str()?.trim();
    if text.is_empty() {
        return Some(None);
    }
    let parts: Vec<&str> = text.split('.').collect();
    let is_typed_well = match parts[..] {
        [whole] => is_whole(whole),
        [whole, cents] => is_whole(whole) && is_digits(cents) && cents.len() <= 2,
        _ => false,
    };
    match Decimal::of(text).filter(|_| is_typed_well)?.worth() {
        Worth::Microdollars(amount) => Some(Some(amount)),
        _ => None,
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_whole(text: &str) -> bool {
    is_digits(text) && (text == "0" || !text.starts_with('0'))
}
