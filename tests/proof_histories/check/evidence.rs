//! Hours, windows, series, drivers, and the document that holds them all.

use super::{Look, View, figures, look, with_figures};
use crate::model::At;
use crate::model::calendar::{DAY, HOUR, SECOND, hour_of, literal};
use crate::model::evidence::window;
use crate::step::{line, micros, text, whose};

pub const NAMES: [&str; 15] = [
    "hours",
    "rolling 24 hours",
    "rolling 168 hours",
    "rolling 720 hours",
    "rolling 1234567 seconds",
    "series 1h",
    "series 24h",
    "series 7d",
    "series 30d",
    "series 90d",
    "drivers",
    "variable drivers",
    "scheduled drivers",
    "evidence 24h",
    "evidence 30d",
];

pub fn look_at(view: &View, name: &'static str) -> Look {
    let (as_of, month) = (view.as_of, view.as_of - 30 * DAY);
    match (name, name.split_once(' ')) {
        ("hours", _) => hours(view, name),
        ("drivers", _) => drivers(view, name, None, month),
        (_, Some(("variable", _))) => drivers(view, name, Some("variable"), as_of - DAY),
        (_, Some(("scheduled", _))) => drivers(view, name, Some("scheduled"), month),
        (_, Some(("rolling", span))) => rolling(view, name, span),
        (_, Some(("series", range))) => series(view, name, range),
        (_, Some((_, range))) => document(view, name, range),
        _ => unreachable!("a name of this list"),
    }
}

fn hours(view: &View, name: &'static str) -> Look {
    let (from, to) = (hour_of(view.as_of) - 30 * HOUR, hour_of(view.as_of) + 2 * HOUR);
    let sql = format!(
        "select {} from exa_billing.spend_by_hour({}, {}, {})",
        with_figures(&[&micros("hour_start"), "is_covered"]),
        whose(view.owner),
        literal(from),
        literal(to)
    );
    look(name, sql, view.model.by_hour(view.owner, from, to))
}

fn rolling(view: &View, name: &'static str, span: &str) -> Look {
    let (count, unit) = span.split_once(' ').expect("a number and a unit");
    let unit = if unit == "hours" { HOUR } else { SECOND };
    let length = unit * count.parse::<At>().expect("a number");
    let told = format!("{} || ' ' || is_complete", with_figures(&[]));
    let (who, at) = (whose(view.owner), literal(view.as_of));
    let sql = format!("select {told} from exa_billing.rolling_spend({who}, '{span}', {at})");
    look(name, sql, vec![view.model.rolling(view.owner, length, view.as_of)])
}

fn series(view: &View, name: &'static str, range: &str) -> Look {
    let bounds = [&micros("bucket_start"), &micros("bucket_end")];
    let told = with_figures(&[bounds[0], bounds[1], "covered_hours", "total_hours"]);
    let (who, at) = (whose(view.owner), literal(view.as_of));
    let sql = format!("select {told} from exa_billing.spend_series({who}, '{range}', {at})");
    look(name, sql, view.model.series(view.owner, range, view.as_of))
}

fn drivers(view: &View, name: &'static str, only: Option<&str>, from: At) -> Look {
    let told = line(&[
        "row_number() over ()",
        "spend_category",
        "source",
        "product_key",
        "feature_key",
        "model_or_plan_key",
        "provider_key",
        "actor_user_id",
        "total_microdollars",
        "spend_record_count",
    ]);
    let (who, at) = (whose(view.owner), literal(view.as_of));
    let category = only.map_or("null".to_owned(), text);
    let sql = format!(
        "select {told} from exa_billing.top_spend_drivers({who}, {}, {at}, {category}, 4)",
        literal(from)
    );
    let top = view.model.top(view.owner, from, view.as_of, only, 4);
    let numbered = top.iter().zip(1..).map(|(line, place)| format!("{place} {line}"));
    look(name, sql, numbered.collect())
}

/// The drivers of a category in a document, in their order, as one text.
fn drivers_of(category: &str) -> String {
    format!(
        "(select string_agg(concat_ws(' ', '{category}', t ->> 'source', t ->> 'product_key',
              t ->> 'feature_key', t ->> 'model_or_plan_key', t ->> 'provider_key',
              coalesce(t ->> 'actor_user_id', '-'), t ->> 'total_microdollars',
              t ->> 'spend_record_count'), ', ' order by place)
          from jsonb_array_elements(d -> 'top_drivers' -> '{category}') with ordinality as t(t, place))"
    )
}

/// What a document of a range says, in the words of the model.
pub fn document_told() -> String {
    let totals = figures().map(|figure| format!("d -> 'totals' ->> '{figure}'"));
    let mut parts: Vec<&str> = totals.iter().map(String::as_str).collect();
    let (variable, scheduled) = (drivers_of("variable"), drivers_of("scheduled"));
    parts.extend(["d ->> 'is_complete'", "jsonb_array_length(d -> 'series')"]);
    parts.extend([variable.as_str(), scheduled.as_str()]);
    line(&parts)
}

pub fn document_line(view: &View, range: &str) -> String {
    let View { model, owner, as_of, .. } = view;
    let (first, _) = window(range, *as_of);
    let top = |category| {
        let lines = model.top(owner, first, *as_of, Some(category), 5);
        if lines.is_empty() { "-".to_owned() } else { lines.join(", ") }
    };
    format!(
        "{} {} {} {}",
        model.evidence(owner, range, *as_of),
        model.series(owner, range, *as_of).len(),
        top("variable"),
        top("scheduled")
    )
}

fn document(view: &View, name: &'static str, range: &str) -> Look {
    let sql = format!(
        "select {} from exa_billing.spend_evidence({}, '{range}', {}) as d",
        document_told(),
        whose(view.owner),
        literal(view.as_of)
    );
    look(name, sql, vec![document_line(view, range)])
}
