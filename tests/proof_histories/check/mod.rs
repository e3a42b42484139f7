//! Every reading function and view beside the model.

mod alerts;
mod credit;
mod events;
mod evidence;
mod journals;
mod usage;

use crate::model::{At, Model, Owner};
use crate::place::answer;
use crate::step::{line, whose};
use postgres::Client;
use std::collections::BTreeMap;

pub use journals::{journals, money_journals, posted};

/// One thing to look at: SQL of one column, and the lines that it should have.
pub struct Look {
    name: &'static str,
    sql: String,
    expected: Vec<String>,
}

fn look(name: &'static str, sql: String, expected: Vec<String>) -> Look {
    Look { name, sql, expected }
}

/// Whose figures are looked at, as of when.
pub struct View<'a> {
    pub model: &'a Model,
    pub owner: &'a Owner,
    pub users: &'a [String],
    pub as_of: At,
    /// For what a reader may choose, such as the size of a page.
    pub draw: usize,
}

type Looking = fn(&View, &'static str) -> Look;

/// All that can be looked at with a function, by name.
pub fn names() -> impl Iterator<Item = (Looking, &'static str)> {
    let credit = credit::NAMES.iter().map(|name| (credit::look_at as Looking, *name));
    let evidence = evidence::NAMES.iter().map(|name| (evidence::look_at as Looking, *name));
    let alerts = alerts::NAMES.iter().map(|name| (alerts::look_at as Looking, *name));
    let usage = usage::NAMES.iter().map(|name| (usage::look_at as Looking, *name));
    credit.chain(evidence).chain(alerts).chain(usage)
}

/// What is left of the names when alerts are left out, and their dates by the clock with them.
pub fn money() -> impl Iterator<Item = (Looking, &'static str)> {
    names().filter(|(_, name)| !alerts::NAMES.contains(name))
}

/// That the owner's books hold, seen by themselves; at the end of a history all books are.
pub fn proof(owner: &Owner) -> Look {
    let verify = format!("select v::text from exa_billing.verify_books({}) as v", whose(owner));
    look("proof", verify, Vec::new())
}

/// Whether a request may be made.
pub fn decision(view: &View) -> Look {
    usage::look_at(view, "decision")
}

impl Look {
    pub fn sql(&self) -> &str {
        &self.sql
    }
}

/// Looks at all of it in one statement, on one snapshot.
pub fn see(client: &mut Client, looks: &[Look]) -> Result<(), String> {
    let parts: Vec<String> = looks
        .iter()
        .map(|look| format!("select '{}', null, l.line from ({}) as l(line)", look.name, look.sql))
        .collect();
    let sql = parts.join("\nunion all\n");
    let rows = answer(client, &sql).map_err(|error| format!("{sql}\n{error}"))?;
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let lines = found.entry(row.id.unwrap_or_default()).or_default();
        lines.push(row.line.unwrap_or_default());
    }
    for look in looks {
        let mut found = found.remove(look.name).unwrap_or_default();
        let mut expected = look.expected.clone();
        found.sort();
        expected.sort();
        if found != expected {
            let only = |one: &[String], other: &[String]| {
                let lines = one.iter().filter(|line| !other.contains(line));
                lines.cloned().collect::<Vec<_>>().join("\n    ")
            };
            return Err(format!(
                "{}: {}\n  only the model says\n    {}\n  only the product says\n    {}",
                look.name,
                look.sql,
                only(&expected, &found),
                only(&found, &expected)
            ));
        }
    }
    Ok(())
}

fn figures() -> [&'static str; 4] {
    ["total_microdollars", "variable_microdollars", "scheduled_microdollars", "spend_record_count"]
}

fn with_figures(more: &[&str]) -> String {
    let mut parts = more.to_vec();
    let figures = figures();
    parts.extend(figures);
    line(&parts)
}

fn shown(value: Option<i64>) -> String {
    value.map_or("-".to_owned(), |value| value.to_string())
}
