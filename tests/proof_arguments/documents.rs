//! JSON: documents that functions expect, the same with something in them changed, and any other.

use crate::texts::literal;
use fastrand::Rng;
use serde_json::{Map, Number, Value, json};

/// Numbers as they stand in a text, where many readers go wrong.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "-1",
    "0.5",
    "0.0000005",
    "0.00000049999",
    "1e-6",
    "5E-7",
    "1e6",
    "1E+3",
    "1e400",
    "1e-400",
    "9007199254740991",
    "9007199254740992",
    "9007199254.740991",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "123456789012345678901234567890.123456789",
    "0.1",
    "0.005",
    "2147483648",
    "1.7976931348623157e309",
    "3.0",
    "1e19",
];

const WORDS: &[&str] = &[
    "user_id",
    "path",
    "cost_microdollars",
    "organization_id",
    "idempotency_key",
    "created_at",
    "costDollars",
    "total",
    "requestId",
    "spend_alerts_enabled",
    "threshold_24h_usd",
    "threshold_7d_microdollars",
    "minimum_balance_usd",
    "column",
    "columns",
    "value",
    "op",
    "where",
    "negate",
    "amount",
    "who",
    "org",
    "cost",
    "at",
    "model",
    "",
    "a",
    "null",
    "2026-11-22T10:00:00Z",
    "infinity",
    "0.005",
    "25.50",
    "/search",
    "ann",
    "acme",
    "\u{1}",
    "👩‍🚀",
    "'; DROP TABLE x; --",
];

fn word(rng: &mut Rng) -> String {
    WORDS[rng.usize(..WORDS.len())].to_owned()
}

fn number(rng: &mut Rng) -> Value {
    let text = NUMBERS[rng.usize(..NUMBERS.len())];
    Value::Number(text.parse::<Number>().expect("a JSON number"))
}

/// Any document, at most so deep.
pub fn any(rng: &mut Rng, depth: u8) -> Value {
    match rng.u8(..if depth == 0 { 5 } else { 8 }) {
        0 => Value::Null,
        1 => Value::Bool(rng.bool()),
        2 => number(rng),
        3 | 4 => Value::String(word(rng)),
        5 => (0..rng.usize(..4)).map(|_| any(rng, depth - 1)).collect(),
        _ => {
            let members = (0..rng.usize(..4)).map(|_| (word(rng), any(rng, depth - 1)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

fn response(rng: &mut Rng) -> Value {
    json!({
        "requestId": format!("req_{}", rng.u32(..50_000)),
        "results": [{"title": "%s", "score": 0.5}],
        "costDollars": {"total": rng.choice([0.005, 0.015, 0.0000015, 1.25, 0.0]), "search": {"neural": 0.005}},
    })
}

fn batch(rng: &mut Rng) -> Value {
    let users = crate::pools::USERS;
    // Sums of many of the largest amounts leave the range of bigint.
    let cost = match rng.u8(..10) {
        0 => 9_007_199_254_740_991,
        1 => 0,
        _ => rng.i64(..1_000_000),
    };
    let element = |rng: &mut Rng| {
        let mut element =
            json!({"user_id": rng.choice(users), "path": "/search", "cost_microdollars": cost});
        if rng.bool() {
            element["idempotency_key"] = json!(format!("batch-{}", rng.u32(..2_000)));
        }
        if rng.u8(..4) == 0 {
            element["organization_id"] = json!("acme");
        }
        element
    };
    (0..rng.usize(..8)).map(|_| element(rng)).collect()
}

fn changes(rng: &mut Rng) -> Value {
    let mut changes = Map::new();
    for key in ["spend_alerts_enabled", "anomaly_alerts_enabled", "cost_suggestions_enabled"] {
        if rng.u8(..3) == 0 {
            changes.insert(key.to_owned(), Value::Bool(rng.bool()));
        }
    }
    for name in ["threshold_24h", "threshold_7d", "threshold_30d", "minimum_balance"] {
        match rng.u8(..6) {
            0 => changes.insert(
                format!("{name}_usd"),
                json!(rng.choice(["0.01", " 25.50 ", "", "9007199254.74"])),
            ),
            1 => changes
                .insert(format!("{name}_microdollars"), json!(rng.i64(1..=9_007_199_254_740_991))),
            2 => changes.insert(format!("{name}_microdollars"), Value::Null),
            _ => None,
        };
    }
    Value::Object(changes)
}

fn column_map(rng: &mut Rng) -> Value {
    let mut map =
        json!({"user_id": "who", "organization_id": "org", "amount": "cost", "created_at": "at"});
    if rng.bool() {
        map["model_or_plan_key"] = json!({"columns": ["model", "who"]});
        map["feature_key"] = json!({"value": "f"});
    }
    if rng.u8(..3) == 0 {
        let conditions = [
            json!({"column": "done", "op": "=", "value": true}),
            json!({"column": "model", "op": "starts_with", "value": "%"}),
            json!({"column": "small", "op": "in", "value": [1, 2, 3]}),
            json!({"column": "at", "op": ">", "value": "2026-11-22T10:00:00Z"}),
            json!({"column": "model", "op": "is_not_null"}),
        ];
        map["where"] = json!([conditions[rng.usize(..conditions.len())]]);
    }
    map
}

/// What an argument of that name expects.
pub fn fitting(rng: &mut Rng, name: &str) -> Option<Value> {
    Some(match name {
        "response" => response(rng),
        "usage" => batch(rng),
        "changes" => changes(rng),
        "column_map" => column_map(rng),
        _ => return None,
    })
}

/// Changes one place of a document.
fn spoil(rng: &mut Rng, value: &mut Value) {
    if rng.u8(..3) > 0 {
        let members: Vec<&mut Value> = match value {
            Value::Object(members) => members.values_mut().collect(),
            Value::Array(members) => members.iter_mut().collect(),
            _ => Vec::new(),
        };
        if let Some(member) = rng.choice(members) {
            return spoil(rng, member);
        }
    }
    match value {
        Value::Object(members) if rng.u8(..4) > 0 => match rng.bool() {
            true => drop(members.insert(word(rng), any(rng, 2))),
            false => {
                let keys: Vec<String> = members.keys().cloned().collect();
                if let Some(key) = rng.choice(keys) {
                    members.remove(&key);
                }
            }
        },
        Value::Array(members) if rng.bool() => members.push(any(rng, 2)),
        _ => *value = any(rng, 2),
    }
}

/// As SQL of type jsonb: hardly anything is out of bounds.
pub fn odd(rng: &mut Rng, name: &str) -> String {
    match rng.u8(..40) {
        0 => "(repeat('[', 3000) || repeat(']', 3000))::jsonb".to_owned(),
        1 => "(repeat('{\"a\":', 2000) || '1' || repeat('}', 2000))::jsonb".to_owned(),
        2 => "jsonb_build_object(repeat('x', 1000000), 1)".to_owned(),
        3 => "jsonb_build_array(repeat(E'\\\\', 1000000))".to_owned(),
        4 => "jsonb_build_object('costDollars', jsonb_build_object('total', repeat('9', 130000)::numeric))".to_owned(),
        5 => "(SELECT jsonb_agg(n) FROM generate_series(1, 10001) AS n)".to_owned(),
        // More than bigint holds, of one user: an error of that owner's figures only.
        6 => "(SELECT jsonb_agg(jsonb_build_object('user_id', 'rich', 'path', '/x', 'cost_microdollars', 9007199254740991)) FROM generate_series(1, 1100))".to_owned(),
        7..=27 => {
            let mut document = fitting(rng, name).unwrap_or_else(|| any(rng, 3));
            spoil(rng, &mut document);
            as_sql(&document)
        }
        _ => as_sql(&any(rng, 4)),
    }
}

pub fn as_sql(document: &Value) -> String {
    format!("{}::jsonb", literal(&document.to_string()))
}
