//! One call: which, with what, written in which way.

use crate::catalog::{Callable, Kind};
use crate::pools::Pools;
use crate::values::{Fit, Values};
use fastrand::Rng;

/// One call as a statement.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its place among the callables.
    pub callable: usize,
    pub sql: String,
    /// Its columns are those of the result.
    pub has_columns: bool,
}

pub fn any(rng: &mut Rng, callables: &[Callable], pools: &Pools) -> Call {
    let all: u32 = callables.iter().map(|callable| callable.weight).sum();
    let mut place = rng.u32(..all);
    let number = callables.iter().position(|callable| {
        let is_it = place < callable.weight;
        place = place.saturating_sub(callable.weight);
        is_it
    });
    let number = number.expect("a place below the sum of the weights");
    let callable = &callables[number];
    let subject = pools.subject(rng);
    let mut values = Values { rng, pools, subject: &subject };
    let (sql, has_columns) = match callable.kind {
        Kind::View => (view(&mut values, callable), false),
        Kind::Procedure => {
            let arguments = arguments(&mut values, callable);
            (format!("CALL exa_billing.{}({arguments})", callable.name), false)
        }
        Kind::Function => {
            let arguments = arguments(&mut values, callable);
            function(values.rng, callable, &arguments)
        }
    };
    Call { callable: number, sql, has_columns }
}

fn view(values: &mut Values, view: &Callable) -> String {
    let column = &view.arguments[values.rng.usize(..view.arguments.len())];
    let operator = ["=", "<>", "<", "IS DISTINCT FROM"][values.rng.usize(..4)];
    let value = values.argument(column, Fit::Oddly);
    format!(
        "SELECT * FROM exa_billing.{} WHERE {} {operator} {value} LIMIT 5",
        view.name, column.name
    )
}

/// By name or by position, with some of the defaults left to the function.
fn arguments(values: &mut Values, callable: &Callable) -> String {
    let count = callable.arguments.len();
    let by_name = values.rng.bool();
    // Most calls get far: all arguments fit, or all but one.
    let odd = match values.rng.u8(..10) {
        0..=3 => None,
        _ if count == 0 => None,
        4..=7 => Some(values.rng.usize(..count)),
        _ => Some(usize::MAX),
    };
    let mut written = Vec::new();
    for (number, argument) in callable.arguments.iter().enumerate() {
        let is_left_out = argument.has_default && values.rng.u8(..3) == 0;
        if is_left_out && by_name {
            continue;
        } else if is_left_out {
            break;
        }
        let fit = match odd {
            Some(usize::MAX) if values.rng.bool() => Fit::Oddly,
            Some(one) if one == number => Fit::Oddly,
            _ => Fit::Well,
        };
        let value = values.argument(argument, fit);
        written.push(if by_name { format!("{} => {value}", argument.name) } else { value });
    }
    written.join(", ")
}

fn function(rng: &mut Rng, callable: &Callable, arguments: &str) -> (String, bool) {
    let call = format!("exa_billing.{}({arguments})", callable.name);
    if callable.is_trigger {
        return (format!("SELECT {call}"), false);
    }
    match rng.u8(..12) {
        0 => (format!("SELECT {call}"), false),
        1 => (format!("SELECT count(*) FROM {call}"), false),
        2 => (format!("SELECT {call} FROM generate_series(1, 2)"), false),
        3 if callable.returns_set => (format!("SELECT * FROM {call} LIMIT 1"), true),
        4 => (format!("WITH one AS MATERIALIZED (SELECT * FROM {call}) SELECT * FROM one"), true),
        _ => (format!("SELECT * FROM {call}"), true),
    }
}
