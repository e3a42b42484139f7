//! A slow and plain reading of a column map, as the document that is kept of it.

use crate::decimal::Decimal;
use crate::moment;
use crate::style::is_identifier;
use serde_json::{Map, Value, json};

/// The table: two columns of each type, one of a type that is not understood, and hostile names. With
/// each the catalog's name of its type.
pub const TABLE: [(&str, &str); 15] = [
    ("text", "text"),
    ("varchar", "varchar"),
    ("uuid", "uuid"),
    ("int2", "int2"),
    ("int4", "int4"),
    ("int8", "int8"),
    ("bool", "bool"),
    ("timestamptz", "timestamptz"),
    ("numeric", "numeric"),
    ("who", "text"),
    ("org", "text"),
    ("cost", "int8"),
    ("at", "timestamptz"),
    ("a\"b", "text"),
    ("'; --", "int4"),
];

const OWNERS: [&str; 2] = ["user_id", "organization_id"];
const LABELS: [&str; 4] = ["product_key", "feature_key", "model_or_plan_key", "provider_key"];
const OTHERS: [&str; 4] = ["amount", "created_at", "negate", "where"];

/// What an attach with this map keeps. None for a map that has to be refused.
pub fn reading(map: &Value) -> Option<Value> {
    let map = map.as_object()?;
    let known = [OWNERS.as_slice(), &LABELS, &OTHERS].concat();
    if !map.keys().all(|key| known.contains(&key.as_str())) {
        return None;
    }
    let mut kept = Map::new();
    for owner in OWNERS {
        let part = part(map.get(owner)?)?;
        if part["value"].as_str().is_some_and(|id| !is_identifier(id)) {
            return None;
        }
        kept.insert(owner.to_owned(), part);
    }
    let nobody = json!({ "value": null });
    if OWNERS.into_iter().all(|owner| kept[owner] == nobody) {
        return None;
    }
    for label in LABELS {
        let part = map.get(label).map_or(Some(nobody.clone()), part)?;
        kept.insert(label.to_owned(), part);
    }
    let (amount, negate) = amount(map.get("amount")?, map.get("negate"))?;
    kept.insert("amount".to_owned(), amount);
    kept.insert("negate".to_owned(), negate);
    kept.insert("created_at".to_owned(), created_at(map.get("created_at")?)?);
    let conditions = map.get("where").map_or(Some(Value::Array(Vec::new())), conditions)?;
    kept.insert("where".to_owned(), conditions);
    Some(Value::Object(kept))
}

/// A column of one of these types, as it is kept.
fn column(name: &Value, types: &[&str]) -> Option<Value> {
    let name = name.as_str()?;
    let place = TABLE.iter().position(|(column, _)| *column == name)?;
    let kind = match TABLE[place].1 {
        "int2" => "smallint",
        "int4" => "integer",
        "int8" => "bigint",
        "bool" => "boolean",
        other => other,
    };
    types.contains(&kind).then(|| json!({ "name": name, "number": place + 1, "kind": kind }))
}

/// The value of the only key of an object.
fn only<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    value.as_object().filter(|object| object.len() == 1)?.get(key)
}

fn part(value: &Value) -> Option<Value> {
    if let Some(value) = only(value, "value") {
        return (value.is_string() || value.is_null()).then(|| json!({ "value": value }));
    }
    let names = match only(value, "columns") {
        Some(names) => names.as_array().filter(|names| !names.is_empty())?.clone(),
        None => vec![only(value, "column").unwrap_or(value).clone()],
    };
    let words = ["text", "varchar", "uuid"];
    let columns: Option<Vec<Value>> = names.iter().map(|name| column(name, &words)).collect();
    Some(json!({ "columns": columns? }))
}

fn created_at(value: &Value) -> Option<Value> {
    column(only(value, "column").unwrap_or(value), &["timestamptz"])
}

/// The column, and whether its amounts are negative: what the amount itself says goes before what the
/// map says.
fn amount(amount: &Value, negate: Option<&Value>) -> Option<(Value, Value)> {
    let mut negate = negate.cloned().unwrap_or(Value::Bool(false));
    let mut name = amount;
    if let Some(object) = amount.as_object() {
        let own = object.get("negate");
        name = object.get("column")?;
        if object.len() != 1 + usize::from(own.is_some()) || !negate.is_boolean() {
            return None;
        }
        negate = own.cloned().unwrap_or(negate);
    }
    let column = column(name, &["integer", "bigint"])?;
    negate.is_boolean().then_some((column, negate))
}

fn conditions(list: &Value) -> Option<Value> {
    list.as_array()?.iter().map(condition).collect::<Option<Vec<Value>>>().map(Value::Array)
}

fn condition(value: &Value) -> Option<Value> {
    let object = value.as_object()?;
    if !object.keys().all(|key| ["column", "op", "value"].contains(&key.as_str())) {
        return None;
    }
    let types =
        ["text", "varchar", "uuid", "smallint", "integer", "bigint", "boolean", "timestamptz"];
    let column = column(object.get("column")?, &types)?;
    let kind = column["kind"].as_str()?;
    let (op, given) = (object.get("op")?, object.get("value"));
    let values = match op.as_str()? {
        "is_null" | "is_not_null" => given.is_none_or(Value::is_null).then(Vec::new)?,
        "in" => given?.as_array().filter(|list| !list.is_empty())?.clone(),
        "starts_with" if !["text", "varchar"].contains(&kind) => return None,
        "starts_with" | "=" | "<>" | "<" | "<=" | ">" | ">=" => vec![given?.clone()],
        _ => return None,
    };
    let values: Option<Vec<String>> = values.iter().map(|value| literal(kind, value)).collect();
    Some(json!({ "column": column, "op": op, "values": values? }))
}

/// A value in the text form of its type, of which each has one.
fn literal(kind: &str, value: &Value) -> Option<String> {
    match (kind, value) {
        ("text" | "varchar", Value::String(text)) => Some(text.clone()),
        ("uuid", Value::String(text)) => uuid(text),
        ("smallint", Value::Number(number)) => whole(number.as_str(), 15),
        ("integer", Value::Number(number)) => whole(number.as_str(), 31),
        ("bigint", Value::Number(number)) => whole(number.as_str(), 63),
        ("boolean", Value::Bool(truth)) => Some(if *truth { "true" } else { "false" }.to_owned()),
        ("timestamptz", Value::String(text)) => {
            moment::microseconds(text).and_then(moment::written)
        }
        _ => None,
    }
}

/// A number without point and exponent that has so many bits, and a sign.
fn whole(text: &str, bits: u32) -> Option<String> {
    if text.contains(['.', 'e', 'E']) {
        return None;
    }
    let text = Decimal::of(text)?.in_full();
    let number = Some(&text).filter(|text| text.len() < 30)?.parse::<i128>().ok()?;
    let end = 1_i128 << bits;
    (-end..end).contains(&number).then_some(text)
}

/// Thirty-two digits, or with hyphens, and then perhaps in braces or as a URN; kept with hyphens.
fn uuid(text: &str) -> Option<String> {
    let hyphens = [8, 13, 18, 23];
    let bare = text.strip_prefix("urn:uuid:");
    let bare = bare.or_else(|| text.strip_prefix('{')?.strip_suffix('}')).unwrap_or(text);
    let is_laid_out = match bare.len() {
        36 => hyphens.into_iter().all(|place| bare.as_bytes()[place] == b'-'),
        32 => bare == text,
        _ => false,
    };
    let mut digits: String = bare.to_lowercase();
    digits.retain(|character| character != '-');
    if !is_laid_out || digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit())
    {
        return None;
    }
    for place in hyphens {
        digits.insert(place, '-');
    }
    Some(digits)
}
