//! What may come of a call: an answer that makes sense, or one of the errors that are documented, in
//! the words of the house.

use crate::catalog::{Callable, Kind};
use crate::moods::Mood;
use postgres::SimpleQueryRow;
use postgres::error::DbError;

const MAX_AMOUNT: i128 = 9_007_199_254_740_991;

/// What the server may say of any call in these circumstances.
pub struct Circumstances<'a> {
    pub mood: &'a Mood,
    /// Whether the role may call it at all.
    pub is_permitted: bool,
}

/// What is wrong with an error, if anything.
pub fn fault_of_error(error: &DbError, callable: &Callable, now: &Circumstances) -> Option<String> {
    let words = [Some(error.message()), error.detail(), error.hint(), error.where_()];
    let sentences = [error.detail(), error.hint()];
    let of_words = words.into_iter().flatten().find_map(fault_of_words);
    of_words
        .or_else(|| fault_of_message(error.message()))
        .or_else(|| sentences.into_iter().flatten().find_map(fault_of_sentence))
        .or_else(|| fault_of_code(error.code().code(), callable, now))
}

fn fault_of_code(code: &str, callable: &Callable, now: &Circumstances) -> Option<String> {
    if !now.is_permitted {
        return (code != "42501").then(|| format!("{code} where the role has no right"));
    }
    let is_general = match code {
        // Whom the session serves is in doubt; views are read with the reader's rights on what they
        // stand on.
        "42501" => {
            now.mood.role.is_some()
                && (now.mood.has_identity
                    || now.mood.sees_all_or_fails()
                    || callable.kind == Kind::View)
        }
        // What only reads goes on doing so.
        "25006" => now.mood.is_read_only && !callable.only_reads,
        // Not for calling at all.
        "0A000" | "39P03" => callable.is_trigger,
        _ => false,
    };
    let is_documented = callable.documented.contains(code);
    (!is_general && !is_documented).then(|| format!("{code} is not documented"))
}

/// Neither the language it is written in shows, nor all of a long value.
pub fn fault_of_words(words: &str) -> Option<String> {
    let lower = words.to_lowercase();
    let inside =
        ["panicked", "unwrap", "backtrace", ".rs", "src/", "internal error", "pgrx", "none value"];
    let shown = inside.iter().find(|inside| lower.contains(**inside));
    if let Some(shown) = shown {
        return Some(format!("it says {shown:?}"));
    }
    (words.chars().count() >= 1_000).then(|| "it is too long".to_owned())
}

/// PostgreSQL's style: it begins small, unless with a name, and ends without a full stop.
fn fault_of_message(message: &str) -> Option<String> {
    let mut characters = message.chars();
    let first_two = (characters.next(), characters.next());
    if let (Some(first), Some(second)) = first_two
        && first.is_uppercase()
        && second.is_lowercase()
    {
        return Some("the message begins like a sentence".to_owned());
    }
    message.ends_with('.').then(|| "the message ends like a sentence".to_owned())
}

fn fault_of_sentence(text: &str) -> Option<String> {
    let ends_well = text.ends_with(['.', ';', ')', '?']);
    (!ends_well).then(|| "detail or hint is no sentence".to_owned())
}

/// What is wrong with a row of an answer, if anything.
pub fn fault_of_row(row: &SimpleQueryRow, callable: &Callable) -> Option<String> {
    let value = |name: &str| row.try_get(name).ok().flatten();
    let number = |name: &str| value(name).and_then(|text| text.parse::<i128>().ok());
    for column in row.columns() {
        let (name, text) = (column.name(), value(column.name()));
        if let Some(fault) = text.and_then(|text| fault_of_value(name, text, callable)) {
            return Some(format!("{name} is {text:?}: {fault}"));
        }
    }
    let sums: &[(&str, &str, &str)] = &[
        ("cost_microdollars", "free_microdollars", "charged_microdollars"),
        ("amount_microdollars", "claimed_microdollars", "remaining_microdollars"),
        ("total_microdollars_acquired", "microdollars_used", "balance_microdollars"),
        ("total_microdollars", "variable_microdollars", "scheduled_microdollars"),
    ];
    sums.iter().find_map(|(whole, one, other)| {
        let (whole, one, other) = (number(whole)?, number(one)?, number(other)?);
        (whole != one + other).then(|| format!("{whole} is not {one} + {other}"))
    })
}

fn fault_of_value(name: &str, text: &str, callable: &Callable) -> Option<&'static str> {
    let number = text.parse::<i128>().ok();
    let single = [
        "cost_microdollars",
        "free_microdollars",
        "charged_microdollars",
        "free_allowance_microdollars",
        "claimed_microdollars",
        "remaining_microdollars",
        "next_expiration_microdollars",
    ];
    if single.contains(&name) && callable.kind == Kind::Function {
        return (!number.is_some_and(|n| (0..=MAX_AMOUNT).contains(&n)))
            .then_some("no single amount");
    }
    if name.ends_with("_microdollars") || name.contains("_microdollars_") {
        return number.is_none().then_some("no whole number");
    }
    let is_count = name.ends_with("_count")
        || [
            "evaluated",
            "fired",
            "recovered",
            "failed",
            "skipped",
            "covered_hours",
            "total_hours",
            "late_arrivals",
        ]
        .contains(&name);
    if is_count {
        return number.is_none_or(|n| n < 0).then_some("no count");
    }
    let is_truth = name.starts_with("is_")
        || ["created", "complete", "applied", "allowed", "evaluation_pending"].contains(&name);
    if is_truth {
        return (!["t", "f"].contains(&text)).then_some("neither true nor false");
    }
    let is_time = ["_at", "_time", "_start", "_end", "_date"].iter().any(|end| name.ends_with(end));
    if is_time && callable.kind == Kind::Function {
        return text.contains("infinity").then_some("for ever");
    }
    let words = ["panicked", "src/", "backtrace"];
    words.iter().any(|word| text.contains(word)).then_some("of the library's inside")
}
