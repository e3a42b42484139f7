//! A batch of usage.

use crate::error::BillingError;
use crate::money::MAX_AMOUNT_MICRODOLLARS;
use crate::owner::{MAX_LABEL_CHARS, MAX_PATH_CHARS};
use crate::style::{assert_refused_well, is_identifier};
use crate::time::Instant;
use crate::usage::batch_input::{self, place};
use crate::usage::request::Request;
use serde_json::{Map, Value, json};

pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let elements = match batch_input::parse(text) {
        Ok(elements) => elements,
        Err(error) => return assert_names_its_place(&error, text),
    };
    let values: Vec<Value> = serde_json::from_str(text).expect("what was read is an array");
    assert_eq!(elements.len(), values.len());
    let mut total = 0_i128;
    for (element, value) in elements.iter().zip(&values) {
        match element.request() {
            Err(error) => assert_refused_well(&error),
            Ok(request) => {
                assert_is_what_was_given(&request, value);
                assert_comes_back(&request);
                total += i128::from(request.cost);
            }
        }
    }
    let most = i128::from(MAX_AMOUNT_MICRODOLLARS) * values.len() as i128;
    assert!((0..=most).contains(&total));
}

/// An error names an element that is there.
fn assert_names_its_place(error: &BillingError, text: &str) {
    assert_refused_well(error);
    if let Ok(values) = serde_json::from_str::<Vec<Value>>(text) {
        let is_named = (0..values.len())
            .any(|index| error.message.starts_with(&format!("{}: ", place(index))));
        assert!(is_named, "{error:?}");
    }
}

fn assert_is_what_was_given(request: &Request, value: &Value) {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    assert_eq!(Some(request.user_id), text("user_id"));
    assert_eq!(Some(request.path), text("path"));
    assert_eq!(request.organization_id, text("organization_id"));
    assert_eq!(request.key, text("idempotency_key"));
    assert_eq!(request.feature_id, text("feature_id"));
    assert_eq!(request.request_type, text("request_type"));
    assert_eq!(request.created_at.is_some(), text("created_at").is_some());
    // A whole number is what it says, digit by digit.
    let cost = value["cost_microdollars"].to_string();
    let digits = cost.trim_start_matches('-').trim_start_matches('0');
    assert_eq!(request.cost.to_string().trim_start_matches('0'), digits, "{cost}");

    assert!((0..=MAX_AMOUNT_MICRODOLLARS).contains(&request.cost));
    assert!(request.path.starts_with('/') && request.path.chars().count() <= MAX_PATH_CHARS);
    for id in [Some(request.user_id), request.organization_id, request.key].into_iter().flatten() {
        assert!(is_identifier(id), "{id:?}");
    }
    for label in [request.feature_id, request.request_type].into_iter().flatten() {
        assert!(label.chars().count() <= MAX_LABEL_CHARS);
    }
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
