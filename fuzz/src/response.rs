//! The cost and the key of an Exa answer.

use crate::decimal::{Decimal, Worth};
use crate::money::{UsdProblem, microdollars_of_usd};
use crate::style::{assert_refused_well, is_identifier};
use crate::usage::response_rules::Fields;
use serde_json::Value;

/// Any text is answered as a price; a JSON document is also read as an answer.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert_price_is_exact(text);
    let Ok(document) = serde_json::from_str::<Value>(text) else { return };
    let Some(fields) = fields(&document) else { return };
    let cost = fields.cost();
    if let Err(error) = &cost {
        assert_refused_well(error);
    }
    let total = document.get("costDollars").map(|costs| costs.get("total").unwrap_or(&Value::Null));
    let is_read = document.is_object()
        && document.get("costDollars").is_none_or(|costs| costs.is_object() || costs.is_null());
    match total.filter(|_| is_read) {
        Some(Value::Number(total)) => {
            let worth = Decimal::of(total.as_str()).map(|total| total.worth());
            let expected = match worth.expect("fields() has read it") {
                Worth::Nothing => Some(None),
                Worth::Microdollars(amount) => Some(Some(amount)),
                _ => None,
            };
            assert_eq!(cost.ok(), expected, "{total}");
        }
        None | Some(Value::Null) if is_read => assert_eq!(cost, Ok(None)),
        _ => assert!(cost.is_err(), "{document}"),
    }
    let id = document.get("requestId").and_then(Value::as_str).filter(|id| is_identifier(id));
    assert_eq!(fields.request_id(), id);
}

/// As the server takes them out of a jsonb. None for a number that it would not have read.
fn fields(document: &Value) -> Option<Fields> {
    let costs = document.get("costDollars");
    let total = costs.and_then(|costs| costs.get("total"));
    let id = document.get("requestId");
    let type_of = |value: Option<&Value>| value.map(|value| json_type(value).to_owned());
    Some(Fields {
        response_type: type_of(Some(document)),
        cost_type: type_of(costs),
        total_type: type_of(total),
        total: match total {
            Some(Value::Number(number)) => Some(Decimal::of(number.as_str())?.in_full()),
            other => other.and_then(text_of),
        },
        id_type: type_of(id),
        id: id.and_then(text_of),
    })
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn assert_price_is_exact(text: &str) {
    let read = microdollars_of_usd(text);
    let is_plain = !text.contains(['e', 'E']);
    let expected = match Decimal::of(text).filter(|_| is_plain).map(|price| price.worth()) {
        Some(Worth::Nothing) => Ok(0),
        Some(Worth::Microdollars(amount)) => Ok(amount),
        Some(Worth::Negative) => Err(UsdProblem::Negative),
        Some(Worth::TooLittle) => Err(UsdProblem::RoundsToZero),
        Some(Worth::TooMuch) => Err(UsdProblem::TooLarge),
        None => Err(UsdProblem::NotADecimal),
    };
    assert_eq!(read, expected, "{text}");
}
