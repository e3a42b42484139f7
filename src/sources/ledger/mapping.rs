//! What each part of a charge is read from in an attached table.

use crate::time::{Day, Instant};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The types of columns that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    Text,
    Varchar,
    Uuid,
    Smallint,
    Integer,
    Bigint,
    Boolean,
    Timestamptz,
}

impl ColumnType {
    pub fn sql(self) -> &'static str {
        match self {
            ColumnType::Text | ColumnType::Varchar => "text",
            ColumnType::Uuid => "uuid",
            ColumnType::Smallint => "smallint",
            ColumnType::Integer => "integer",
            ColumnType::Bigint => "bigint",
            ColumnType::Boolean => "boolean",
            ColumnType::Timestamptz => "timestamptz",
        }
    }

    /// By its name in the catalog; None for a type that is not understood.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "text" => ColumnType::Text,
            "varchar" => ColumnType::Varchar,
            "uuid" => ColumnType::Uuid,
            "int2" => ColumnType::Smallint,
            "int4" => ColumnType::Integer,
            "int8" => ColumnType::Bigint,
            "bool" => ColumnType::Boolean,
            "timestamptz" => ColumnType::Timestamptz,
            _ => return None,
        })
    }

    pub fn is_words(self) -> bool {
        matches!(self, ColumnType::Text | ColumnType::Varchar)
    }
}

/// A column of the attached table. The number stays when the column is renamed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub number: i16,
    pub kind: ColumnType,
}

/// A column as the catalog has it, of a type that may not be understood.
#[derive(Debug, Clone)]
pub struct TableColumn {
    pub name: String,
    pub number: i16,
    pub type_name: String,
}

/// A text of a charge: out of the first column that is not null, or always the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    Columns(Vec<Column>),
    Value(Option<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operator {
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "<>")]
    NotEqual,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    AtMost,
    #[serde(rename = ">")]
    More,
    #[serde(rename = ">=")]
    AtLeast,
    #[serde(rename = "is_null")]
    IsNull,
    #[serde(rename = "is_not_null")]
    IsNotNull,
    #[serde(rename = "starts_with")]
    StartsWith,
    #[serde(rename = "in")]
    In,
}

/// Which rows of the table are charges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    pub column: Column,
    pub op: Operator,
    /// In the text form of the column's type, the same under every setting of a session.
    pub values: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    pub user_id: Part,
    pub organization_id: Part,
    pub amount: Column,
    pub created_at: Column,
    pub product_key: Part,
    pub feature_key: Part,
    pub model_or_plan_key: Part,
    pub provider_key: Part,
    pub negate: bool,
    #[serde(rename = "where")]
    pub conditions: Vec<Condition>,
}

/// A window without the times that no charge has.
pub fn within_four_digit_years(from: Instant, to: Instant) -> (Instant, Instant) {
    let (year_1, year_10000) = (Day(-730_119).start(), Day(2_921_940).start());
    (from.max(year_1), to.min(year_10000))
}

/// From the year 1 to the year 9999: the times whose text form is the same everywhere.
pub fn has_four_digit_year(instant: Instant) -> bool {
    let (year_1, year_10000) = (Day(-730_119).start(), Day(2_921_940).start());
    (year_1..year_10000).contains(&instant)
}

impl Mapping {
    /// Every column that is read, once each, by its number.
    pub fn columns(&self) -> BTreeMap<i16, &Column> {
        let parts = [
            &self.user_id,
            &self.organization_id,
            &self.product_key,
            &self.feature_key,
            &self.model_or_plan_key,
            &self.provider_key,
        ];
        let of_parts = parts.into_iter().flat_map(|part| match part {
            Part::Columns(columns) => columns.as_slice(),
            Part::Value(_) => &[],
        });
        let of_conditions = self.conditions.iter().map(|condition| &condition.column);
        let all = of_parts.chain([&self.amount, &self.created_at]).chain(of_conditions);
        all.map(|column| (column.number, column)).collect()
    }

    /// Goes on after columns were renamed: `change` gets each column that is mapped.
    pub fn each_column(&mut self, mut change: impl FnMut(&mut Column)) {
        for part in [
            &mut self.user_id,
            &mut self.organization_id,
            &mut self.product_key,
            &mut self.feature_key,
            &mut self.model_or_plan_key,
            &mut self.provider_key,
        ] {
            if let Part::Columns(columns) = part {
                columns.iter_mut().for_each(&mut change);
            }
        }
        change(&mut self.amount);
        change(&mut self.created_at);
        self.conditions.iter_mut().for_each(|condition| change(&mut condition.column));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_the_catalog_are_understood_by_name() {
        for (name, kind, sql) in [
            ("text", ColumnType::Text, "text"),
            ("varchar", ColumnType::Varchar, "text"),
            ("uuid", ColumnType::Uuid, "uuid"),
            ("int2", ColumnType::Smallint, "smallint"),
            ("int4", ColumnType::Integer, "integer"),
            ("int8", ColumnType::Bigint, "bigint"),
            ("bool", ColumnType::Boolean, "boolean"),
            ("timestamptz", ColumnType::Timestamptz, "timestamptz"),
        ] {
            assert_eq!((ColumnType::named(name), kind.sql()), (Some(kind), sql));
        }
        for other in ["timestamp", "numeric", "bpchar", ""] {
            assert_eq!(ColumnType::named(other), None);
        }
    }

    #[test]
    fn years_have_four_digits_from_1_to_9999() {
        let instant = |text| Instant::parse_rfc3339(text).expect("an instant");
        let (first, last) =
            (instant("0001-01-01T00:00:00Z"), instant("9999-12-31T23:59:59.999999Z"));
        for (at, is_inside) in [
            (first.plus_microseconds(-1), false),
            (first, true),
            (last, true),
            (last.plus_microseconds(1), false),
        ] {
            assert_eq!(has_four_digit_year(at), is_inside, "{at}");
        }
        let end = last.plus_microseconds(1);
        let all = (Instant(i64::MIN), Instant(i64::MAX));
        assert_eq!(within_four_digit_years(all.0, all.1), (first, end));
        let inside = (Instant(0), Instant(1));
        assert_eq!(within_four_digit_years(inside.0, inside.1), inside);
    }

    #[test]
    fn every_mapped_column_is_known_and_renamed() {
        let column = |number: i16, kind| Column { name: format!("c{number}"), number, kind };
        let part = |number| Part::Columns(vec![column(number, ColumnType::Text)]);
        let mut mapping = Mapping {
            user_id: part(1),
            organization_id: Part::Columns(vec![
                column(2, ColumnType::Text),
                column(3, ColumnType::Uuid),
            ]),
            amount: column(4, ColumnType::Bigint),
            created_at: column(5, ColumnType::Timestamptz),
            product_key: part(6),
            feature_key: part(7),
            model_or_plan_key: part(8),
            provider_key: Part::Value(None),
            negate: false,
            conditions: vec![Condition {
                column: column(9, ColumnType::Boolean),
                op: Operator::Equal,
                values: vec!["true".to_owned()],
            }],
        };
        assert_eq!(mapping.columns().into_keys().collect::<Vec<_>>(), (1..=9).collect::<Vec<_>>());
        mapping.each_column(|column| column.name = format!("new{}", column.number));
        let names: Vec<String> = mapping.columns().values().map(|c| c.name.clone()).collect();
        assert_eq!(names, (1..=9).map(|number| format!("new{number}")).collect::<Vec<_>>());
    }
}
