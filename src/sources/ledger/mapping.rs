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
