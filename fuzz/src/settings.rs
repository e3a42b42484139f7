//! A change of an owner's settings.

use crate::alerts::settings_rules::{Settings, consequences, difference};
use crate::decimal::{Decimal, Worth};
use crate::money::MAX_AMOUNT_MICRODOLLARS;
use crate::style::assert_refused_well;
use serde_json::{Map, Value};

pub fn check(data: &[u8]) {
    let Ok(Value::Object(changes)) = serde_json::from_slice::<Value>(data) else { return };
    let before = Settings::default();
    let read = before.with(&changes);
    assert_eq!(read, before.with(&changes));
    let after = match read {
        Ok(after) => after,
        Err(error) => {
            assert!(error.message.starts_with("changes"), "{error:?}");
            return assert_refused_well(&error);
        }
    };
    for amount in after.thresholds.into_iter().chain([after.minimum_balance]).flatten() {
        assert!((1..=MAX_AMOUNT_MICRODOLLARS).contains(&amount));
    }
    assert_is_what_was_given(&changes, &after);
    // The same change again changes nothing; its own document is a change to it.
    assert_eq!(after.with(&changes), Ok(after.clone()));
    assert_eq!(before.with(&after.document()), Ok(after.clone()));
    let nothing = consequences(&after, &after);
    assert!(nothing.event.is_none() && !nothing.evaluate && !nothing.close_suggestions);
    let leads_to = consequences(&before, &after);
    assert_eq!(leads_to.evaluate, after.spend_alerts && after != before);
    let told = difference(&before, &after);
    assert_eq!(told.as_object().is_some_and(Map::is_empty), after == before, "{told}");
}

/// Each key has set what it names, and nothing else is another than before.
fn assert_is_what_was_given(changes: &Map<String, Value>, after: &Settings) {
    let (before, document) = (Settings::default().document(), after.document());
    for (name, value) in &document {
        let in_usd = name.strip_suffix("_microdollars").map(|name| format!("{name}_usd"));
        let given = in_usd.and_then(|key| changes.get(&key));
        let expected = match (changes.get(name), given) {
            (Some(given), _) => given.clone(),
            (None, Some(given)) => of_usd(given),
            (None, None) => before[name].clone(),
        };
        assert_eq!(*value, expected, "{name}");
    }
}

fn of_usd(given: &Value) -> Value {
    let text = given.as_str().unwrap_or_default().trim();
    if text.is_empty() {
        return Value::Null;
    }
    match Decimal::of(text).map(|amount| amount.worth()) {
        Some(Worth::Microdollars(amount)) => amount.into(),
        other => panic!("{text:?} is {other:?}"),
    }
}
