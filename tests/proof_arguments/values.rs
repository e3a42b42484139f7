//! A value of any type, as SQL: one that fits, one that is somebody else's, or one at an edge.

use crate::catalog::Argument;
use crate::pools::{Pools, Subject};
use crate::{documents, texts};
use fastrand::Rng;

/// How well the arguments of a call fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Well,
    Oddly,
}

const TIMES: &[&str] = &[
    "'infinity'",
    "'-infinity'",
    "'0001-01-01 00:00:00+00'",
    "'9999-12-31 23:59:59.999999+00'",
    "'10000-01-01 00:00:00+00'",
    "'294276-12-31 23:59:59.999999+00'",
    "'4714-11-24 00:00:00+00 BC'",
    "'1999-12-31 23:59:59.999999+00'",
    "'2000-01-01 00:00:00+00'",
    "'1970-01-01 00:00:00+00'",
    "'2024-02-29 23:59:59.999999+00'",
    "'2026-03-29 01:00:00+00'",
    "'2026-10-25 00:59:59.999999+00'",
    "'2026-11-30 23:59:59.999999+00'",
    "'2026-12-01 00:00:00+00'",
    "'2026-11-01 05:30:00+00'",
    "'2038-01-19 03:14:08+00'",
    "now()",
    "clock_timestamp()",
    "clock_timestamp() + interval '4 minutes'",
    "clock_timestamp() + interval '6 minutes'",
    "date_trunc('month', now(), 'UTC')",
    "date_trunc('month', now(), 'UTC') - interval '1 microsecond'",
    "date_trunc('hour', now(), 'UTC')",
    "date_trunc('hour', now(), 'UTC') + interval '1 hour'",
    "now() - interval '35 days'",
    "now() - interval '36 days'",
    "now() + interval '1 year'",
];
const DATES: &[&str] = &[
    "'infinity'",
    "'-infinity'",
    "'0001-01-01'",
    "'9999-12-01'",
    "'9999-12-31'",
    "'5874897-12-31'",
    "'4714-11-24 BC'",
    "'2024-02-29'",
    "'2026-12-01'",
    "'2026-11-30'",
    "'2020-01-01'",
    "'1970-01-01'",
    "current_date",
];
const INTERVALS: &[&str] = &[
    "'0'",
    "'1 microsecond'",
    "'-1 microsecond'",
    "'1 month'",
    "'1 month -30 days'",
    "'1 day -24 hours'",
    "'-1 month 31 days'",
    "'178000000 years'",
    "'-178000000 years'",
    "'9000 years'",
    "'1 day'",
    "'1 day 0.000001 seconds'",
    "make_interval(days => -2147483648)",
    "make_interval(months => 2147483647)",
    "'2562047788:00:54.775807'",
];
const WHOLE: &[i64] = &[
    0,
    1,
    -1,
    2,
    7,
    100,
    999,
    1_000,
    1_001,
    32_767,
    -32_768,
    100_000,
    100_001,
    1_000_000,
    1_000_001,
    2_147_483_647,
    -2_147_483_648,
    2_147_483_648,
    9_007_199_254_740_991,
    9_007_199_254_740_992,
    -9_007_199_254_740_992,
    i64::MAX,
    i64::MIN,
];
const FLOATS: &[&str] =
    &["'NaN'", "'Infinity'", "'-Infinity'", "0", "'-0'", "1e308", "1e-300", "0.1", "-1.5"];
const UUIDS: &[&str] = &[
    "'00000000-0000-0000-0000-000000000000'",
    "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
    "'01900000-0000-7000-8000-000000000000'",
];
const LEDGERS: &[&str] = &[
    "public.ledger_1",
    "public.ledger_2",
    "public.\"led\"\"ger '3'\"",
    "public.ledger_4",
    "public.ledger_5",
    "public.ledger_6",
];
const RELATIONS: &[&str] = &[
    "public.odd_view",
    "public.odd_matview",
    "public.odd_sequence",
    "public.odd_composite",
    "public.odd_unlogged",
    "public.odd_parent",
    "public.odd_child",
    "public.odd_empty",
    "public.odd_generated",
    "public.odd_forced",
    "public.odd_subpartitioned",
    "public.odd_subpartition",
    "public.odd_foreign",
    "pg_temp.odd_temp",
    "public.ledger_4_part",
    "pg_catalog.pg_class",
    "pg_catalog.pg_authid",
    "pg_catalog.pg_class_oid_index",
    "pg_catalog.pg_stat_activity",
    "information_schema.tables",
    "information_schema.sql_features",
    "exa_billing.accounts",
    "exa_billing.spend_log",
    "exa_billing.account_balances",
    "exa_billing.recorded_usage",
    "public.ledger_1_who_at_idx",
];

pub struct Values<'a> {
    pub rng: &'a mut Rng,
    pub pools: &'a Pools,
    pub subject: &'a Subject,
}

impl Values<'_> {
    pub fn argument(&mut self, argument: &Argument, fit: Fit) -> String {
        let (name, type_name) = (argument.name.as_str(), argument.type_name.as_str());
        let fitting = |values: &mut Self| values.fitting(name, type_name);
        let value = match (fit, self.rng.u8(..20)) {
            (Fit::Oddly, 0..=2) => None,
            (Fit::Well, 0) if self.rng.u8(..3) == 0 => None,
            (Fit::Well, _) | (Fit::Oddly, 3) => fitting(self).or_else(|| Some(self.edge(argument))),
            (Fit::Oddly, 4..=9) => Some(self.somebodys(argument)),
            (Fit::Oddly, _) => Some(self.edge(argument)),
        };
        value.unwrap_or_else(|| typed("NULL", type_name))
    }

    fn any<'b>(&mut self, from: &[&'b str]) -> &'b str {
        from[self.rng.usize(..from.len())]
    }

    /// What an argument of that name and type expects; None where nothing is known of it.
    fn fitting(&mut self, name: &str, type_name: &str) -> Option<String> {
        let value = match type_name {
            "text" | "varchar" => texts::fitting(self.rng, name, self.subject, self.pools)?,
            "int8" => self.amount(name),
            "int4" => self.rng.i32(0..14).to_string(),
            "bool" => self.rng.bool().to_string(),
            "timestamptz" => self.time(name)?,
            "date" => format!(
                "(date_trunc('month', now(), 'UTC') - {} * interval '1 month')::date",
                self.rng.i8(-3..4)
            ),
            "interval" => self
                .any(&["'5 minutes'", "'1 hour'", "'1 day'", "'7 days'", "'30 days'", "'1 month'"])
                .to_owned(),
            "uuid" => self.known_uuid(name)?,
            "jsonb" => {
                return documents::fitting(self.rng, name)
                    .map(|document| documents::as_sql(&document));
            }
            "regclass" => texts::literal(self.any(LEDGERS)),
            "regrole" => {
                self.any(&["'web'", "'auditor'", "'operator'", "'application'"]).to_owned()
            }
            _ => return None,
        };
        Some(typed(&value, type_name))
    }

    fn amount(&mut self, name: &str) -> String {
        let amount = 10_i64.pow(self.rng.u32(..11)).saturating_mul(self.rng.i64(1..10));
        let is_signed = name == "amount_microdollars" && self.rng.u8(..4) == 0;
        if is_signed { format!("-{amount}") } else { amount.to_string() }
    }

    fn time(&mut self, name: &str) -> Option<String> {
        let back = self.rng.u32(..700);
        let hour = "date_trunc('hour', now(), 'UTC')";
        Some(match name {
            "created_at" if self.rng.bool() => "NULL".to_owned(),
            "created_at" => format!("now() - {back} * interval '1 hour'"),
            "as_of" if self.rng.bool() => "clock_timestamp()".to_owned(),
            "as_of" => format!("now() - {back} * interval '1 minute'"),
            "expires_at" if self.rng.bool() => "NULL".to_owned(),
            "expires_at" => format!("now() + {back} * interval '1 hour'"),
            "from_hour" => format!("{hour} - {} * interval '1 hour'", 30 + back),
            "to_hour" => format!("{hour} - {} * interval '1 hour'", self.rng.i8(-1..30)),
            "from_time" => format!("now() - {} * interval '1 hour'", 30 + back),
            "to_time" => format!("now() - {} * interval '1 minute'", self.rng.u8(..200)),
            _ => return None,
        })
    }

    fn known_uuid(&mut self, name: &str) -> Option<String> {
        let subject = self.subject;
        let id = match name {
            "delivery_id" => subject.delivery.as_ref().map(|delivery| delivery.0.clone()),
            "claim_token" => subject.delivery.as_ref().and_then(|delivery| delivery.1.clone()),
            "event_id" | "before_event" => subject.event.clone(),
            "suggestion_id" => subject.suggestion.clone(),
            "interval_id" => subject.interval.clone(),
            _ => self.pools.any_id(self.rng),
        };
        id.map(|id| texts::literal(&id))
    }

    /// A value of the books, of whoever and whatever it is.
    fn somebodys(&mut self, argument: &Argument) -> String {
        let type_name = argument.type_name.as_str();
        let value = match type_name {
            "text" | "varchar" => Some(texts::somebodys(self.rng, self.pools)),
            "uuid" => self.pools.any_id(self.rng).map(|id| texts::literal(&id)),
            "jsonb" => {
                let other = self.any(&["response", "usage", "changes", "column_map"]);
                documents::fitting(self.rng, other).map(|document| documents::as_sql(&document))
            }
            _ => None,
        };
        value.map_or_else(|| self.edge(argument), |value| typed(&value, type_name))
    }

    /// The types' ends, and what lies near the limits of the product.
    fn edge(&mut self, argument: &Argument) -> String {
        let type_name = argument.type_name.as_str();
        if let Some(element) = type_name.strip_prefix('_') {
            return self.array(element);
        }
        if argument.type_kind == "c" {
            return format!("NULL::exa_billing.{type_name}");
        }
        let whole = |rng: &mut Rng, min: i64, max: i64| {
            let value = WHOLE[rng.usize(..WHOLE.len())];
            value.clamp(min, max).to_string()
        };
        let value = match type_name {
            "text" | "varchar" | "name" => texts::hostile(self.rng),
            "int2" => whole(self.rng, i16::MIN.into(), i16::MAX.into()),
            "int4" => whole(self.rng, i32::MIN.into(), i32::MAX.into()),
            "int8" => whole(self.rng, i64::MIN, i64::MAX),
            "numeric" | "float4" | "float8" => self.any(FLOATS).to_owned(),
            "bool" => self.rng.bool().to_string(),
            "timestamptz" | "timestamp" => self.any(TIMES).to_owned(),
            "date" => self.any(DATES).to_owned(),
            "interval" => self.any(INTERVALS).to_owned(),
            "uuid" => self.any(UUIDS).to_owned(),
            "jsonb" | "json" => return documents::odd(self.rng, &argument.name),
            "regclass" => match self.rng.u8(..10) {
                0 => "'0'".to_owned(),
                1 => "'4294967295'".to_owned(),
                _ => texts::literal(self.any(RELATIONS)),
            },
            "regrole" => {
                let odd = [
                    "'0'",
                    "'4294967295'",
                    "'postgres'",
                    "'exa_billing_owner'",
                    "'pg_read_all_data'",
                    "'nobody'",
                ];
                self.any(&odd).to_owned()
            }
            "oid" => self.any(&["0", "1259", "4294967295"]).to_owned(),
            "bytea" => {
                self.any(&["''", "'\\x00ff'", "decode(repeat('00', 100000), 'hex')"]).to_owned()
            }
            // A type that nobody has thought of yet: at least its null is tried.
            _ => "NULL".to_owned(),
        };
        typed(&value, type_name)
    }

    fn array(&mut self, element: &str) -> String {
        let argument = Argument {
            name: String::new(),
            type_name: element.to_owned(),
            type_kind: "b".to_owned(),
            has_default: false,
        };
        match self.rng.u8(..5) {
            0 => format!("'{{}}'::{element}[]"),
            1 => format!("ARRAY[NULL, NULL]::{element}[]"),
            2 => format!("array_fill({}, ARRAY[100000])", self.edge(&argument)),
            3 => format!("array_fill({}, ARRAY[2, 3], ARRAY[-5, 7])", self.edge(&argument)),
            _ => format!("ARRAY[{}, NULL, {}]", self.edge(&argument), self.edge(&argument)),
        }
    }
}

fn typed(value: &str, type_name: &str) -> String {
    match type_name.strip_prefix('_') {
        Some(element) => format!("({value})::{element}[]"),
        None if value.contains(' ') && !value.starts_with('\'') && !value.starts_with("E'") => {
            format!("({value})::{type_name}")
        }
        // A sign would be taken after the cast.
        None if value.starts_with('-') => format!("'{value}'::{type_name}"),
        None => format!("{value}::{type_name}"),
    }
}
