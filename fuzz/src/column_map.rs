//! The mapping that attaches a table.

use crate::mapping_reading::{TABLE, reading};
use crate::sources::column_map::parse;
use crate::sources::mapping::{Mapping, TableColumn};
use crate::sources::text::{Rows, Scope, Whose};
use crate::style::assert_refused_well;
use serde_json::Value;
use std::collections::BTreeSet;

fn columns() -> Vec<TableColumn> {
    let column = |(number, (name, type_name)): (i16, (&str, &str))| TableColumn {
        name: name.to_owned(),
        number,
        type_name: type_name.to_owned(),
    };
    (1..).zip(TABLE).map(column).collect()
}

pub fn check(data: &[u8]) {
    let Ok(map) = serde_json::from_slice::<Value>(data) else { return };
    let expected = reading(&map);
    let mapping = match parse(&map, &columns()) {
        Ok(mapping) => mapping,
        Err(error) => {
            assert_eq!(expected, None, "{error:?}");
            assert!(error.message.starts_with("column_map"), "{error:?}");
            return assert_refused_well(&error);
        }
    };
    let kept = serde_json::to_value(&mapping).expect("a mapping can be kept");
    assert_eq!(Some(&kept), expected.as_ref(), "{map}");
    assert_eq!(serde_json::from_value::<Mapping>(kept.clone()).expect("what was kept"), mapping);
    let numbers: BTreeSet<i64> = mapping.columns().into_keys().map(i64::from).collect();
    assert_eq!(numbers, numbers_in(&kept));
    for scope in [Scope::Written, Scope::Present, Scope::Charges] {
        let rows =
            Rows { mapping: &mapping, relation: "t", sign: 1, scope, whose: Whose::Everybodys };
        assert_nothing_is_spliced_in(&rows.sql());
    }
}

/// Of every column that is named anywhere in a mapping.
fn numbers_in(kept: &Value) -> BTreeSet<i64> {
    let inner = match kept {
        Value::Array(list) => list.iter().flat_map(numbers_in).collect(),
        Value::Object(object) => object.values().flat_map(numbers_in).collect(),
        _ => BTreeSet::new(),
    };
    inner.into_iter().chain(kept["number"].as_i64()).collect()
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
