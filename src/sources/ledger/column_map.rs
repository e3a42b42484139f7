//! The `column_map` an attach asks for, checked against the table's columns.

use super::mapping::{
    Column, ColumnType, Condition, Mapping, Operator, Part, TableColumn, has_four_digit_year,
};
use crate::error::{BillingError, Result};
use crate::owner::{self, quoted};
use crate::time::Instant;
use serde_json::{Map, Value};
use uuid::Uuid;

const KEYS: [&str; 10] = [
    "user_id",
    "organization_id",
    "amount",
    "created_at",
    "product_key",
    "feature_key",
    "model_or_plan_key",
    "provider_key",
    "negate",
    "where",
];

fn invalid(message: impl Into<String>) -> BillingError {
    BillingError::invalid(format!("column_map: {}", message.into()))
}

/// The mapping an attach asks for, against the table's columns.
pub fn parse(map: &Value, columns: &[TableColumn]) -> Result<Mapping> {
    let map = map.as_object().ok_or_else(|| invalid("an object is expected"))?;
    if let Some(unknown) = map.keys().find(|key| !KEYS.contains(&key.as_str())) {
        return Err(invalid(format!("key {} is not known", quoted(unknown)))
            .hint(format!("The keys are {}.", KEYS.join(", "))));
    }
    let reader = Reader { map, columns };
    let (amount, negate) = reader.amount()?;
    let mapping = Mapping {
        user_id: reader.required_part("user_id")?,
        organization_id: reader.required_part("organization_id")?,
        amount,
        created_at: reader.created_at()?,
        product_key: reader.part("product_key")?,
        feature_key: reader.part("feature_key")?,
        model_or_plan_key: reader.part("model_or_plan_key")?,
        provider_key: reader.part("provider_key")?,
        negate,
        conditions: reader.conditions()?,
    };
    for (key, part) in
        [("user_id", &mapping.user_id), ("organization_id", &mapping.organization_id)]
    {
        if let Part::Value(Some(id)) = part {
            owner::identifier(key, Some(id)).map_err(|error| error.at("column_map"))?;
        }
    }
    if mapping.user_id == Part::Value(None) && mapping.organization_id == Part::Value(None) {
        return Err(invalid("user_id and organization_id cannot both be null"));
    }
    Ok(mapping)
}

struct Reader<'a> {
    map: &'a Map<String, Value>,
    columns: &'a [TableColumn],
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Result<&Value> {
        self.map.get(key).ok_or_else(|| {
            invalid(format!("{key} is missing"))
                .hint("Map it to a column; an owner the table does not know is {\"value\": null}.")
        })
    }

    fn required_part(&self, key: &str) -> Result<Part> {
        self.part_of(key, self.get(key)?)
    }

    fn part(&self, key: &str) -> Result<Part> {
        self.map.get(key).map_or(Ok(Part::Value(None)), |value| self.part_of(key, value))
    }

    fn part_of(&self, key: &str, value: &Value) -> Result<Part> {
        let names = match value {
            Value::String(name) => vec![name.as_str()],
            Value::Object(object) => match (single(object), object.len()) {
                (Some(("column", Value::String(name))), 1) => vec![name.as_str()],
                (Some(("columns", Value::Array(names))), 1) if !names.is_empty() => {
                    names.iter().map(|name| text_of(key, name)).collect::<Result<Vec<_>>>()?
                }
                (Some(("value", Value::Null)), 1) => return Ok(Part::Value(None)),
                (Some(("value", Value::String(value))), 1) => {
                    return Ok(Part::Value(Some(value.clone())));
                }
                _ => return Err(not_understood(key)),
            },
            _ => return Err(not_understood(key)),
        };
        let typed = |kind: ColumnType| kind.is_words() || kind == ColumnType::Uuid;
        let columns =
            names.iter().map(|name| self.column(key, name, "text, varchar or uuid", typed));
        Ok(Part::Columns(columns.collect::<Result<_>>()?))
    }

    fn amount(&self) -> Result<(Column, bool)> {
        let mut negate = self.map.get("negate").map_or(Ok(false), |flag| truth("negate", flag))?;
        let name = match self.get("amount")? {
            Value::String(name) => name.as_str(),
            Value::Object(object)
                if object.keys().all(|key| ["column", "negate"].contains(&key.as_str())) =>
            {
                if let Some(flag) = object.get("negate") {
                    negate = truth("amount.negate", flag)?;
                }
                object
                    .get("column")
                    .and_then(Value::as_str)
                    .ok_or_else(|| not_understood("amount"))?
            }
            _ => return Err(not_understood("amount")),
        };
        let whole = |kind| matches!(kind, ColumnType::Integer | ColumnType::Bigint);
        Ok((self.column("amount", name, "integer or bigint", whole)?, negate))
    }

    fn created_at(&self) -> Result<Column> {
        let name = match self.get("created_at")? {
            Value::String(name) => name.as_str(),
            Value::Object(object) => match (single(object), object.len()) {
                (Some(("column", Value::String(name))), 1) => name.as_str(),
                _ => return Err(not_understood("created_at")),
            },
            _ => return Err(not_understood("created_at")),
        };
        self.column("created_at", name, "timestamptz", |kind| kind == ColumnType::Timestamptz)
    }

    fn conditions(&self) -> Result<Vec<Condition>> {
        match self.map.get("where") {
            None => Ok(Vec::new()),
            Some(Value::Array(conditions)) => {
                conditions.iter().map(|condition| self.condition(condition)).collect()
            }
            Some(_) => Err(invalid("where: a list of conditions is expected")),
        }
    }

    fn condition(&self, value: &Value) -> Result<Condition> {
        let not_a_condition = || {
            invalid("where: each condition is an object with column, op and value")
                .hint("Such as {\"column\": \"status\", \"op\": \"=\", \"value\": \"done\"}.")
        };
        let object = value.as_object().ok_or_else(not_a_condition)?;
        if object.keys().any(|key| !["column", "op", "value"].contains(&key.as_str())) {
            return Err(not_a_condition());
        }
        let name = object.get("column").and_then(Value::as_str).ok_or_else(not_a_condition)?;
        let column = self.column("where", name, "one that can be compared", |_| true)?;
        let op = object.get("op").ok_or_else(not_a_condition)?;
        let op: Operator = serde_json::from_value(op.clone()).map_err(|_| {
            invalid("where: the op is not known")
                .hint("The ops are =, <>, <, <=, >, >=, is_null, is_not_null, starts_with and in.")
        })?;
        let values = match (op, object.get("value")) {
            (Operator::IsNull | Operator::IsNotNull, None | Some(Value::Null)) => Vec::new(),
            (Operator::IsNull | Operator::IsNotNull, Some(_)) => return Err(not_a_condition()),
            (Operator::In, Some(Value::Array(list))) if !list.is_empty() => {
                list.iter().map(|value| literal(&column, value)).collect::<Result<_>>()?
            }
            (Operator::In, _) => return Err(invalid("where: in wants a list of values")),
            (Operator::StartsWith, Some(_)) if !column.kind.is_words() => {
                return Err(invalid("where: starts_with is for columns of text"));
            }
            (_, Some(value)) => vec![literal(&column, value)?],
            (_, None) => return Err(not_a_condition()),
        };
        Ok(Condition { column, op, values })
    }

    fn column(
        &self,
        key: &str,
        name: &str,
        wanted: &str,
        fits: impl Fn(ColumnType) -> bool,
    ) -> Result<Column> {
        let found =
            self.columns.iter().find(|column| column.name == name).ok_or_else(|| {
                invalid(format!("{key}: the table has no column {}", quoted(name)))
            })?;
        match ColumnType::named(&found.type_name).filter(|kind| fits(*kind)) {
            Some(kind) => Ok(Column { name: found.name.clone(), number: found.number, kind }),
            None => Err(invalid(format!("{key}: column {} has the wrong type", quoted(name)))
                .detail(format!("Its type is {}; wanted is {wanted}.", found.type_name))),
        }
    }
}

fn single(object: &Map<String, Value>) -> Option<(&str, &Value)> {
    object.iter().next().map(|(key, value)| (key.as_str(), value))
}

fn not_understood(key: &str) -> BillingError {
    invalid(format!("{key} is not understood")).hint(
        "Give a column's name, {\"column\": …}, {\"columns\": […]} (the first not null) or {\"value\": …}.",
    )
}

fn text_of<'a>(key: &str, value: &'a Value) -> Result<&'a str> {
    value.as_str().ok_or_else(|| not_understood(key))
}

fn truth(key: &str, value: &Value) -> Result<bool> {
    value.as_bool().ok_or_else(|| invalid(format!("{key} is true or false")))
}

/// A value to compare with, in the text form of the column's type.
fn literal(column: &Column, value: &Value) -> Result<String> {
    let fits = match (column.kind, value) {
        (ColumnType::Text | ColumnType::Varchar, Value::String(text)) => Some(text.clone()),
        (ColumnType::Uuid, Value::String(text)) => {
            Uuid::parse_str(text).ok().map(|id| id.to_string())
        }
        (ColumnType::Smallint, Value::Number(number)) => {
            number.as_i64().and_then(|n| i16::try_from(n).ok()).map(|n| n.to_string())
        }
        (ColumnType::Integer, Value::Number(number)) => {
            number.as_i64().and_then(|n| i32::try_from(n).ok()).map(|n| n.to_string())
        }
        (ColumnType::Bigint, Value::Number(number)) => number.as_i64().map(|n| n.to_string()),
        (ColumnType::Boolean, Value::Bool(truth)) => Some(truth.to_string()),
        (ColumnType::Timestamptz, Value::String(text)) => {
            let instant = Instant::parse_rfc3339(text).filter(|at| has_four_digit_year(*at));
            instant.map(|instant| instant.to_string())
        }
        _ => None,
    };
    fits.ok_or_else(|| {
        let shown = quoted(&value.to_string());
        invalid(format!("where: {shown} is no value of column {}", quoted(&column.name)))
            .detail(format!("The column's type is {}.", column.kind.sql()))
            .hint("Times are given with their zone, as 2026-11-22T10:00:00Z.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// A table with a column of each type, named after it, and of one that is not understood.
    fn columns() -> Vec<TableColumn> {
        let types = "text varchar uuid int2 int4 int8 bool timestamptz numeric".split(' ');
        let column = |(number, name): (i16, &str)| TableColumn {
            name: name.into(),
            number,
            type_name: name.into(),
        };
        (1..).zip(types).map(column).collect()
    }

    fn map_with(key: &str, value: Value) -> Value {
        let mut map = json!({"user_id": "text", "organization_id": "uuid", "amount": "int8", "created_at": "timestamptz"});
        map[key] = value;
        map
    }

    fn parsed(key: &str, value: Value) -> Mapping {
        let map = map_with(key, value);
        parse(&map, &columns()).unwrap_or_else(|refused| panic!("{map}: {refused}"))
    }

    #[test]
    fn a_part_is_a_column_or_the_first_of_several_or_always_the_same() {
        let named = |names: &[&str]| {
            let found =
                columns().into_iter().filter(|column| names.contains(&column.name.as_str()));
            let kind = |column: &TableColumn| ColumnType::named(&column.type_name).expect("a type");
            Part::Columns(
                found.map(|c| Column { kind: kind(&c), name: c.name, number: c.number }).collect(),
            )
        };
        for (value, part) in [
            (json!("varchar"), named(&["varchar"])),
            (json!({ "column": "varchar" }), named(&["varchar"])),
            (json!({ "columns": ["text", "uuid"] }), named(&["text", "uuid"])),
            (json!({ "value": "fixed" }), Part::Value(Some("fixed".to_owned()))),
            (json!({ "value": null }), Part::Value(None)),
        ] {
            for key in ["user_id", "product_key", "provider_key"] {
                let mapping = parsed(key, value.clone());
                let found = match key {
                    "user_id" => mapping.user_id,
                    "product_key" => mapping.product_key,
                    _ => mapping.provider_key,
                };
                assert_eq!(found, part, "{key} {value}");
            }
        }
        let nobody = json!({ "user_id": { "value": null }, "organization_id": { "value": null },
                             "amount": "int8", "created_at": "timestamptz" });
        let refused = parse(&nobody, &columns()).unwrap_err();
        assert!(refused.message.contains("cannot both be null"), "{refused}");
        let organizations = json!({ "user_id": { "value": null }, "organization_id": "text",
                                    "amount": "int8", "created_at": "timestamptz" });
        assert!(parse(&organizations, &columns()).is_ok());
    }

    #[test]
    fn amounts_are_negated_where_the_map_or_the_amount_says_so() {
        for (amount, column, negate) in [
            (json!("int4"), "int4", false),
            (json!({ "column": "int8" }), "int8", false),
            (json!({ "column": "int8", "negate": true }), "int8", true),
        ] {
            let mapping = parsed("amount", amount.clone());
            assert_eq!(
                (mapping.amount.name.as_str(), mapping.negate),
                (column, negate),
                "{amount}"
            );
        }
        assert!(parsed("negate", json!(true)).negate);
        let further = json!({ "column": "int8", "value": 5 });
        assert!(parse(&map_with("amount", further), &columns()).is_err());
        let at = parsed("created_at", json!({ "column": "timestamptz" })).created_at;
        assert_eq!((at.name.as_str(), at.kind), ("timestamptz", ColumnType::Timestamptz));
    }

    #[test]
    fn values_to_compare_with_are_kept_in_the_form_of_their_column() {
        for (column, value, kept) in [
            ("text", json!("a"), Some("a")),
            ("varchar", json!("b"), Some("b")),
            (
                "uuid",
                json!("5C6A1B7E00004000800000000000000A"),
                Some("5c6a1b7e-0000-4000-8000-00000000000a"),
            ),
            ("uuid", json!("5c"), None),
            ("int2", json!(-32_768), Some("-32768")),
            ("int2", json!(32_768), None),
            ("int4", json!(2_147_483_647), Some("2147483647")),
            ("int4", json!("5"), None),
            ("int8", json!(i64::MIN), Some("-9223372036854775808")),
            ("int8", json!(u64::MAX), None),
            ("bool", json!(true), Some("true")),
            ("bool", json!("true"), None),
            ("timestamptz", json!("2024-02-29T23:30:00-01:00"), Some("2024-03-01 00:30:00+00")),
            ("timestamptz", json!("2024-02-30T00:00:00Z"), None),
            ("timestamptz", json!(5), None),
        ] {
            let condition = json!([{ "column": column, "op": "=", "value": value }]);
            let found = parse(&map_with("where", condition), &columns());
            let found = found.ok().map(|mapping| mapping.conditions[0].values.concat());
            assert_eq!(found.as_deref(), kept, "{column} {value}");
        }
        let starts =
            |column: &str| json!([{ "column": column, "op": "starts_with", "value": "a" }]);
        assert!(parse(&map_with("where", starts("varchar")), &columns()).is_ok());
        let refused = parse(&map_with("where", starts("uuid")), &columns()).unwrap_err();
        assert_eq!(refused.message, "column_map: where: starts_with is for columns of text");
    }

    #[test]
    fn nonsense_is_refused_with_the_key_it_stands_under() {
        let nonsense = json!({
            "user_id": [null, "TEXT", "bool", {"columns": []}, {"columns": ["text", 5]}, {"value": " padded"},
                        {"column": "text", "value": "x"}, {}],
            "organization_id": [{"value": 5}, {"column": ["text"]}], "provider_key": [["text"], "int4"],
            "amount": ["int2", {"value": "5"}, {"column": "int8", "negate": "yes"}], "negate": ["true", null],
            "created_at": ["int8", {"columns": ["timestamptz"]}], "userid": ["text"],
            "where": [{"column": "text"}, ["text"], [{"column": "text", "op": "is_null", "not": true}],
                      [{"column": "text", "op": "like", "value": "x"}], [{"column": "text", "op": "="}],
                      [{"column": "text", "op": "=", "value": null}], [{"column": "text", "op": "=", "value": 5}],
                      [{"column": "numeric", "op": "=", "value": 5}], [{"column": "text", "op": "is_null", "value": "x"}],
                      [{"column": "text", "op": "in", "value": []}], [{"column": "text", "op": "in", "value": "x"}],
                      [{"column": "uuid", "op": "starts_with", "value": "0"}], [{"column": "int8", "op": "<", "value": 1.5}],
                      [{"column": "int4", "op": "<", "value": 2_147_483_648_i64}],
                      [{"column": "timestamptz", "op": ">", "value": "0000-12-31T23:59:59Z"}]]
        });
        for (key, values) in nonsense.as_object().expect("an object") {
            for value in values.as_array().expect("a list") {
                let refused = parse(&map_with(key, value.clone()), &columns());
                let message = refused.expect_err(&value.to_string()).message;
                assert!(message.starts_with("column_map: ") && message.contains(key), "{message}");
            }
        }
        assert!(parse(&json!([]), &columns()).is_err());
    }

    /// Any JSON, with the words of a map in it more often than chance would have them.
    fn any_json() -> impl Strategy<Value = Value> {
        let words = "text uuid int4 int8 bool timestamptz column columns value op = in starts_with \
                     is_null negate 2026-11-22T10:00:00Z";
        let words = prop::sample::select(words.split(' ').collect::<Vec<_>>());
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<(bool, f64)>().prop_map(|(b, number)| if b { b.into() } else { number.into() }),
            "\\PC{0,8}".prop_map(Value::from),
            words.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::hash_map(words.clone().prop_map(str::to_owned), inner, 0..4)
                    .prop_map(|map| map.into_iter().collect()),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_under_a_key_is_understood_or_refused_by_its_name(
            key in prop::sample::select(KEYS.to_vec()), value in any_json(),
        ) {
            match parse(&map_with(key, value), &columns()) {
                Ok(mapping) => {
                    // What is kept in the registry is read back as it was, also when written anew.
                    let kept = serde_json::to_value(&mapping).expect("a mapping");
                    prop_assert_eq!(serde_json::from_value::<Mapping>(kept).expect("the mapping"), mapping);
                }
                Err(BillingError { message, .. }) => {
                    prop_assert!(message.starts_with("column_map: ") && message.contains(key), "{}", message);
                }
            }
        }
    }
}
