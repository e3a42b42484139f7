//! Reading a batch: a JSON array of objects with the parameter names of `record_exa_usage`.

use super::request::{Arguments, Request};
use crate::error::{BillingError, Result};
use crate::owner::quoted;
use crate::time::Instant;
use serde_json::{Map, Value};

pub const MAX_ROWS: usize = 10_000;

/// One element, its values taken out of the JSON.
#[derive(Debug, Default, Clone)]
pub struct Element {
    user_id: Option<String>,
    path: Option<String>,
    cost_microdollars: Option<i64>,
    organization_id: Option<String>,
    idempotency_key: Option<String>,
    created_at: Option<Instant>,
    feature_id: Option<String>,
    request_type: Option<String>,
}

impl Element {
    pub fn request(&self) -> Result<Request<'_>> {
        let arguments = Arguments {
            user_id: self.user_id.as_deref(),
            path: self.path.as_deref(),
            cost_microdollars: self.cost_microdollars,
            organization_id: self.organization_id.as_deref(),
            idempotency_key: self.idempotency_key.as_deref(),
            created_at: self.created_at,
            feature_id: self.feature_id.as_deref(),
            request_type: self.request_type.as_deref(),
        };
        arguments.check()
    }
}

/// How a message names an element.
pub fn place(index: usize) -> String {
    format!("usage[{index}]")
}

/// Takes the elements out of the text of a JSON array.
pub fn parse(text: &str) -> Result<Vec<Element>> {
    let unreadable =
        |error| BillingError::invalid("usage cannot be read").detail(format!("{error}."));
    // Not as a list at once: what is no list would be quoted in the error at whatever length.
    let Value::Array(elements) = serde_json::from_str(text).map_err(unreadable)? else {
        return Err(BillingError::invalid("usage must be a JSON array"));
    };
    elements
        .iter()
        .enumerate()
        .map(|(index, value)| element(value).map_err(|error| error.at(&place(index))))
        .collect()
}

fn element(value: &Value) -> Result<Element> {
    let Value::Object(object) = value else {
        return Err(BillingError::invalid("must be a JSON object"));
    };
    let element = Element {
        user_id: text(object, "user_id")?,
        path: text(object, "path")?,
        cost_microdollars: whole_number(object, "cost_microdollars")?,
        organization_id: text(object, "organization_id")?,
        idempotency_key: text(object, "idempotency_key")?,
        created_at: instant(object, "created_at")?,
        feature_id: text(object, "feature_id")?,
        request_type: text(object, "request_type")?,
    };
    const KNOWN: [&str; 8] = [
        "user_id",
        "path",
        "cost_microdollars",
        "organization_id",
        "idempotency_key",
        "created_at",
        "feature_id",
        "request_type",
    ];
    match object.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        None => Ok(element),
        Some(unknown) => Err(BillingError::invalid(format!("unknown key {}", quoted(unknown)))
            .hint(format!("The keys are {}.", KNOWN.join(", ")))),
    }
}

fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn text(object: &Map<String, Value>, key: &str) -> Result<Option<String>> {
    match present(object, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(BillingError::invalid(format!("{key} must be a JSON string"))),
    }
}

fn whole_number(object: &Map<String, Value>, key: &str) -> Result<Option<i64>> {
    match present(object, key) {
        None => Ok(None),
        Some(Value::Number(number)) => match number.as_str().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => {
                Err(BillingError::invalid(format!("{key} must be a whole number within range"))
                    .detail(format!("{key} is {}.", quoted(number.as_str()))))
            }
        },
        Some(_) => Err(BillingError::invalid(format!("{key} must be a JSON number"))),
    }
}

fn instant(object: &Map<String, Value>, key: &str) -> Result<Option<Instant>> {
    let Some(text) = text(object, key)? else { return Ok(None) };
    Instant::parse_rfc3339(&text).map(Some).ok_or_else(|| {
        BillingError::invalid(format!("{key} must be a time with a zone"))
            .detail(format!("{key} is {}.", quoted(&text)))
            .hint("Give it as in 2026-11-22T10:30:00Z.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    #[test]
    fn elements_are_read() {
        let elements = parse(
            r#"[{"user_id": "u", "path": "/search", "cost_microdollars": 5000, "feature_id": null,
                 "created_at": "2026-11-22T12:30:00+02:00"}, {}]"#,
        )
        .unwrap();
        assert_eq!(elements[0].cost_microdollars, Some(5000));
        assert_eq!(elements[0].created_at, Some(utc(2026, 11, 22, 10, 30)));
        assert!(elements[0].request().is_ok());
        assert!(elements[1].request().is_err());
    }

    #[test]
    fn times_are_rounded_to_the_microsecond_in_leap_seconds_too() {
        let midnight = utc(2027, 1, 1, 0, 0);
        for (seconds, microseconds) in [
            ("59.9999994", -1),
            ("59.9999995", 0),
            ("60", 0),
            ("60.0000005", 1),
            ("60.9999994", 999_999),
            ("60.9999995", 1_000_000),
        ] {
            let batch = format!(r#"[{{"created_at": "2026-12-31T23:59:{seconds}Z"}}]"#);
            let read = parse(&batch).unwrap()[0].created_at;
            assert_eq!(read, Some(midnight.plus_microseconds(microseconds)), "{seconds}");
        }
    }

    #[test]
    fn errors_name_index_and_field() {
        let good = r#"{"user_id": "u", "path": "/search", "cost_microdollars": 1}"#;
        for (bad, message) in [
            (r#""text""#, "usage[1]: must be a JSON object"),
            (r#"{"user": "u"}"#, r#"usage[1]: unknown key "user""#),
            (r#"{"user_id": 5}"#, "usage[1]: user_id must be a JSON string"),
            (r#"{"cost_microdollars": "5"}"#, "usage[1]: cost_microdollars must be a JSON number"),
            (
                r#"{"cost_microdollars": 1.5}"#,
                "usage[1]: cost_microdollars must be a whole number within range",
            ),
            (
                r#"{"cost_microdollars": 1e400}"#,
                "usage[1]: cost_microdollars must be a whole number within range",
            ),
            (r#"{"created_at": "2026-11-22"}"#, "usage[1]: created_at must be a time with a zone"),
            (r#"{"created_at": "infinity"}"#, "usage[1]: created_at must be a time with a zone"),
        ] {
            let error = parse(&format!("[{good}, {bad}]")).unwrap_err();
            assert_eq!(error.message, message);
        }
        let text = format!("{:?}", "x".repeat(5_000));
        let refused = parse(&text).unwrap_err();
        assert_eq!(
            (refused.message.as_str(), refused.detail),
            ("usage must be a JSON array", None)
        );
        assert!(parse("{").is_err());
        assert!(parse(&"[".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
