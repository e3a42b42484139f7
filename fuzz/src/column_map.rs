//! The mapping that attaches a table.

use crate::sources::column_map::parse;
use crate::sources::mapping::{
    Column, ColumnType, Condition, Mapping, Operator, Part, TableColumn, has_four_digit_year,
};
use crate::sources::text::{Rows, Scope, Whose};
use crate::style::{assert_refused_well, is_identifier};
use crate::time::Instant;
use serde_json::Value;
use uuid::Uuid;

/// A table with two columns of each type, one of a type that is not understood, and hostile names.
fn columns() -> Vec<TableColumn> {
    let mut columns = Vec::new();
    let mut add = |name: &str, type_name: &str| {
        let number = i16::try_from(columns.len() + 1).expect("a few columns");
        columns.push(TableColumn { name: name.into(), number, type_name: type_name.into() });
    };
    for name in
        ["text", "varchar", "uuid", "int2", "int4", "int8", "bool", "timestamptz", "numeric"]
    {
        add(name, name);
    }
    for (name, type_name) in
        [("who", "text"), ("org", "text"), ("cost", "int8"), ("at", "timestamptz")]
    {
        add(name, type_name);
    }
    add("a\"b", "text");
    add("'; --", "int4");
    columns
}

pub fn check(data: &[u8]) {
    let Ok(map) = serde_json::from_slice::<Value>(data) else { return };
    let columns = columns();
    let read = parse(&map, &columns);
    assert_eq!(read, parse(&map, &columns));
    let mapping = match read {
        Ok(mapping) => mapping,
        Err(error) => {
            assert!(error.message.starts_with("column_map"), "{error:?}");
            return assert_refused_well(&error);
        }
    };
    let kept = serde_json::to_string(&mapping).expect("a mapping can be kept");
    assert_eq!(serde_json::from_str::<Mapping>(&kept).expect("what was kept"), mapping);
    for column in mapping.columns().values() {
        let found = columns.iter().find(|found| found.name == column.name).expect("a column");
        assert_eq!(
            (found.number, ColumnType::named(&found.type_name)),
            (column.number, Some(column.kind))
        );
    }
    assert_types_fit(&mapping);
    mapping.conditions.iter().for_each(assert_values_fit);
    for scope in [Scope::Written, Scope::Present, Scope::Charges] {
        let rows =
            Rows { mapping: &mapping, relation: "t", sign: 1, scope, whose: Whose::Everybodys };
        assert_nothing_is_spliced_in(&rows.sql());
    }
    for key in map.as_object().expect("a map").keys() {
        assert!(serde_json::to_value(&mapping).expect("a document").get(key).is_some(), "{key}");
    }
}

fn assert_types_fit(mapping: &Mapping) {
    assert!(matches!(mapping.amount.kind, ColumnType::Integer | ColumnType::Bigint));
    assert_eq!(mapping.created_at.kind, ColumnType::Timestamptz);
    let owners = [&mapping.user_id, &mapping.organization_id];
    assert!(owners.into_iter().any(|part| *part != Part::Value(None)), "nobody's charges");
    for part in owners {
        if let Part::Value(Some(id)) = part {
            assert!(is_identifier(id), "{id:?}");
        }
    }
    let labels = [
        &mapping.product_key,
        &mapping.feature_key,
        &mapping.model_or_plan_key,
        &mapping.provider_key,
    ];
    for part in owners.into_iter().chain(labels) {
        if let Part::Columns(columns) = part {
            let is_text =
                |column: &Column| column.kind.is_words() || column.kind == ColumnType::Uuid;
            assert!(!columns.is_empty() && columns.iter().all(is_text), "{columns:?}");
        }
    }
}

/// Outside of quotes stands nothing but what the library itself writes.
fn assert_nothing_is_spliced_in(sql: &str) {
    let mut rest = sql;
    while let Some(at) = rest.find(['\'', '"']) {
        let has_escapes = rest[..at].ends_with('E');
        assert_is_plain(&rest[..at], sql);
        let quote = rest[at..].chars().next().expect("a quote");
        let mut characters = rest[at + 1..].char_indices().peekable();
        let end = loop {
            let (place, character) = characters.next().expect("quotes that are closed");
            if character == '\\' && has_escapes {
                characters.next();
            } else if character == quote && characters.next_if(|(_, next)| *next == quote).is_none()
            {
                break place;
            }
            assert!(character != '\\' || has_escapes || quote == '"', "{sql}");
        };
        rest = &rest[at + 1 + end + 1..];
    }
    assert_is_plain(rest, sql);
}

fn assert_is_plain(outside: &str, sql: &str) {
    let is_known = |c: char| c.is_ascii_alphanumeric() || " \n_.,()[]:$<>=+-*|~".contains(c);
    assert!(outside.chars().all(is_known), "{outside} in {sql}");
    assert!(!outside.contains("--"), "{sql}");
}

/// Values are in the text form of their column's type, which the server reads as nothing else.
fn assert_values_fit(condition: &Condition) {
    let count = condition.values.len();
    match condition.op {
        Operator::IsNull | Operator::IsNotNull => assert_eq!(count, 0),
        Operator::In => assert!(count > 0),
        Operator::StartsWith => assert!(count == 1 && condition.column.kind.is_words()),
        _ => assert_eq!(count, 1),
    }
    for value in &condition.values {
        let fits = match condition.column.kind {
            ColumnType::Text | ColumnType::Varchar => true,
            ColumnType::Uuid => Uuid::parse_str(value).is_ok_and(|id| id.to_string() == *value),
            ColumnType::Smallint => value.parse::<i16>().is_ok_and(|n| n.to_string() == *value),
            ColumnType::Integer => value.parse::<i32>().is_ok_and(|n| n.to_string() == *value),
            ColumnType::Bigint => value.parse::<i64>().is_ok_and(|n| n.to_string() == *value),
            ColumnType::Boolean => ["true", "false"].contains(&value.as_str()),
            ColumnType::Timestamptz => {
                let iso = value.replacen(' ', "T", 1).replace("+00", "Z");
                Instant::parse_rfc3339(&iso).is_some_and(has_four_digit_year)
            }
        };
        assert!(fits, "{condition:?}");
    }
}
