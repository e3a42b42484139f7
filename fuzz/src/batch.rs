//! A batch of usage.

use crate::error::BillingError;
use crate::moment;
use crate::money::MAX_AMOUNT_MICRODOLLARS;
use crate::owner::{MAX_LABEL_CHARS, MAX_PATH_CHARS};
use crate::style::{assert_refused_well, is_identifier};
use crate::time::Instant;
use crate::usage::batch_input::{self, place};
use crate::usage::request::Request;
use serde_json::{Map, Value, json};

/// Any text is answered as a time; a JSON document is also read as a batch.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    moment::assert_time_is_exact(text);
    let values = serde_json::from_str::<Vec<Value>>(text).ok();
    let elements = match batch_input::parse(text) {
        Ok(elements) => elements,
        Err(error) => return assert_refused_for_a_reason(&error, values.as_deref()),
    };
    let values = values.expect("what was read is an array");
    assert_eq!(elements.len(), values.len());
    let mut total = 0_i128;
    for (element, value) in elements.iter().zip(&values) {
        assert!(is_well_typed(value), "{value}");
        match element.request() {
            Err(error) => {
                assert_refused_well(&error);
                assert!(!is_request(value), "{error:?} {value}");
            }
            Ok(request) => {
                assert!(is_request(value), "{value}");
                assert_is_what_was_given(&request, value);
                assert_comes_back(&request);
                total += i128::from(request.cost);
            }
        }
    }
    let most = i128::from(MAX_AMOUNT_MICRODOLLARS) * values.len() as i128;
    assert!((0..=most).contains(&total));
}

/// An error names the first element that is not what an element has to be.
fn assert_refused_for_a_reason(error: &BillingError, values: Option<&[Value]>) {
    assert_refused_well(error);
    let Some(values) = values else { return };
    let wrong = values.iter().position(|value| !is_well_typed(value));
    let is_named = wrong.is_some_and(|at| error.message.starts_with(&format!("{}: ", place(at))));
    assert!(is_named, "{error:?} {wrong:?}");
}

const TEXTS: [&str; 6] =
    ["user_id", "path", "organization_id", "idempotency_key", "feature_id", "request_type"];

/// Nothing but what is known, each of its type; null is like nothing.
fn is_well_typed(value: &Value) -> bool {
    value.as_object().is_some_and(|object| {
        object.iter().all(|(key, value)| match (key.as_str(), value) {
            ("created_at", Value::String(text)) => moment::microseconds(text).is_some(),
            ("cost_microdollars", Value::Number(cost)) => cost.as_str().parse::<i64>().is_ok(),
            (key, Value::String(_)) => TEXTS.contains(&key),
            (key, Value::Null) => {
                TEXTS.contains(&key) || ["created_at", "cost_microdollars"].contains(&key)
            }
            _ => false,
        })
    })
}

/// All that has to be there, and every text within what it may be.
fn is_request(value: &Value) -> bool {
    let is_cost = value["cost_microdollars"]
        .as_i64()
        .is_some_and(|cost| (0..=MAX_AMOUNT_MICRODOLLARS).contains(&cost));
    is_cost
        && TEXTS.into_iter().all(|key| match (key, value[key].as_str()) {
            ("user_id" | "path", None) => false,
            (_, None) => true,
            ("path", Some(path)) => path.starts_with('/') && path.chars().count() <= MAX_PATH_CHARS,
            ("feature_id" | "request_type", Some(label)) => {
                label.chars().count() <= MAX_LABEL_CHARS
            }
            (_, Some(id)) => is_identifier(id),
        })
}

fn assert_is_what_was_given(request: &Request, value: &Value) {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    assert_eq!(Some(request.user_id), text("user_id"));
    assert_eq!(Some(request.path), text("path"));
    assert_eq!(request.organization_id, text("organization_id"));
    assert_eq!(request.key, text("idempotency_key"));
    assert_eq!(request.feature_id, text("feature_id"));
    assert_eq!(request.request_type, text("request_type"));
    let created_at = text("created_at").map(|text| moment::microseconds(text).expect("a time"));
    assert_eq!(request.created_at.map(|instant| instant.0), created_at, "{value}");
    // A whole number is what it says, digit by digit.
    let cost = value["cost_microdollars"].to_string();
    let digits = cost.trim_start_matches('-').trim_start_matches('0');
    assert_eq!(request.cost.to_string().trim_start_matches('0'), digits, "{cost}");
}

/// Written anew and read again it is the same request, with the same hash.
fn assert_comes_back(request: &Request) {
    let mut written = Map::new();
    let mut put = |key: &str, value: Option<&str>| {
        written.extend(value.map(|value| (key.to_owned(), json!(value))));
    };
    put("user_id", Some(request.user_id));
    put("path", Some(request.path));
    put("organization_id", request.organization_id);
    put("idempotency_key", request.key);
    put("feature_id", request.feature_id);
    put("request_type", request.request_type);
    let time = request.created_at.map(Instant::iso8601);
    // A zone may take a time out of the years that have four digits.
    if time.as_deref().is_some_and(|time| Instant::parse_rfc3339(time) != request.created_at) {
        let year = time.unwrap_or_default();
        assert!(year.starts_with(['+', '-']), "{year}");
        return;
    }
    put("created_at", time.as_deref());
    written.insert("cost_microdollars".to_owned(), json!(request.cost));
    let elements = batch_input::parse(&json!([written]).to_string()).expect("the same request");
    let again = elements[0].request().expect("the same request");
    assert_eq!(format!("{again:?}"), format!("{request:?}"));
    assert_eq!(again.payload_hash(), request.payload_hash());
}
