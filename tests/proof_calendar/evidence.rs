//! Who spent what, when, on what: hours, buckets, windows to the microsecond, and the document.

use super::compared;
use super::edges::{
    At, Span, at, day_of, days_later, hour_of, hours_later, later, shown, start_of,
};
use super::history::{DAY, HOUR, MICROSECOND, SECOND};
use super::model::{BOTH, Entry, Model, Sums, Whose};
use super::writing::{row, rows};
use postgres::{Client, Row};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// How far each range goes back, in hours, and how many UTC days are a bucket; 0 is an hour each.
const RANGES: [(&str, i64, u64); 5] =
    [("1h", 1, 0), ("24h", 24, 0), ("7d", 168, 1), ("30d", 720, 1), ("90d", 2160, 7)];

/// Spans as PostgreSQL counts them back in UTC: no day of it has 23 or 25 hours.
const SPANS: [Span; 7] = [
    Span(0, 0, 1),
    Span(0, 1, 0),
    Span(0, 0, 24),
    Span(1, 0, 0),
    Span(1, 1, 1),
    Span(0, 30, 0),
    Span(12, 0, 0),
];

const AMOUNTS: &str =
    "total_microdollars, variable_microdollars, scheduled_microdollars, spend_record_count";

fn sums(row: &Row, first: usize) -> Sums {
    (row.get(first), row.get(first + 1), row.get(first + 2), row.get(first + 3))
}

pub fn compare(c: &mut Client, model: &Model, who: &str) {
    for whose in BOTH {
        by_hour(c, model, whose, who);
        view(c, model, whose, who);
        drivers(c, model, whose, who);
        // Each moment asks for some of the ranges and spans, the next one for the others.
        for (number, as_of) in model.history.moments.iter().copied().enumerate() {
            for span in SPANS.into_iter().skip(number % 3).step_by(3) {
                rolling(c, model, whose, span, as_of, who);
            }
            for range in RANGES.into_iter().skip(number % 2).step_by(2) {
                series(c, model, whose, range, as_of, who);
            }
        }
        document(c, model, whose, who);
    }
}

/// Each hour from a day before the edge until a day after it.
fn by_hour(c: &mut Client, model: &Model, whose: Whose, who: &str) {
    let (from, to) = (
        hours_later(hour_of(model.history.edge), -25),
        hours_later(hour_of(model.history.edge), 26),
    );
    let sql = format!(
        "select hour_start, is_covered, {AMOUNTS} from exa_billing.spend_by_hour($1, $2, $3, $4)"
    );
    let told = rows(c, &sql, &[&Model::kind(whose), &model.id(whose), &from, &to]);
    let told: Vec<(At, bool, Sums)> =
        told.iter().map(|row| (row.get(0), row.get(1), sums(row, 2))).collect();
    let expected: Vec<(At, bool, Sums)> = (0..51)
        .map(|hour| hours_later(from, hour))
        .map(|hour| {
            (hour, !model.is_degraded(whose, hour), model.sums(whose, hour, hours_later(hour, 1)))
        })
        .collect();
    compared(&told, &expected, who, "spend_by_hour");
}

/// The view of all hours that have something, for people.
fn view(c: &mut Client, model: &Model, whose: Whose, who: &str) {
    let sql = "select hour_start, sum(total_microdollars)::bigint,
                      coalesce(sum(total_microdollars) filter (where spend_category = 'variable'), 0)::bigint,
                      coalesce(sum(total_microdollars) filter (where spend_category = 'scheduled'), 0)::bigint,
                      sum(spend_record_count)::bigint
               from exa_billing.spend_hourly where owner_kind = $1 and owner_id = $2 group by 1 order by 1";
    let told = rows(c, sql, &[&Model::kind(whose), &model.id(whose)]);
    let told: Vec<(At, Sums)> = told.iter().map(|row| (row.get(0), sums(row, 1))).collect();
    let expected: Vec<(At, Sums)> = model.hours(whose).into_iter().collect();
    compared(&told, &expected, who, "spend_hourly");
}

/// The hours of a range, in the buckets that a chart shows.
fn buckets((_, hours, days): (&str, i64, u64), as_of: At) -> Vec<(At, At)> {
    let end = hours_later(hour_of(as_of), 1);
    let first = hours_later(end, -hours);
    let mut buckets: Vec<(At, At)> = Vec::new();
    for hour in (0..hours).map(|hour| hours_later(first, hour)) {
        let next = hours_later(hour, 1);
        let begins = days == 0 || {
            let number = (day_of(hour) - day_of(first)).num_days();
            hour == first
                || (hour == start_of(day_of(hour)) && number % i64::try_from(days).unwrap() == 0)
        };
        match buckets.last_mut() {
            Some(bucket) if !begins => bucket.1 = next,
            _ => buckets.push((hour, next)),
        }
    }
    buckets
}

type Bucket = (At, At, i32, i32, Sums);

fn series(
    c: &mut Client,
    model: &Model,
    whose: Whose,
    range: (&str, i64, u64),
    as_of: At,
    who: &str,
) {
    let sql = format!(
        "select bucket_start, bucket_end, covered_hours, total_hours, {AMOUNTS}
         from exa_billing.spend_series($1, $2, $3, $4)"
    );
    let told = rows(c, &sql, &[&Model::kind(whose), &model.id(whose), &range.0, &as_of]);
    let told: Vec<Bucket> = told
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2), row.get(3), sums(row, 4)))
        .collect();
    let bucket = |(from, to): (At, At)| {
        let total = i32::try_from((to - from).num_hours()).unwrap();
        let hours = (0..total).map(|hour| hours_later(from, i64::from(hour)));
        let doubted = hours.filter(|hour| model.is_degraded(whose, *hour)).count();
        let covered = total - i32::try_from(doubted).unwrap();
        (from, to, covered, total, model.sums(whose, from, to.min(as_of)))
    };
    let expected: Vec<Bucket> = buckets(range, as_of).into_iter().map(bucket).collect();
    compared(&told, &expected, who, range.0);
}

fn rolling(c: &mut Client, model: &Model, whose: Whose, span: Span, as_of: At, who: &str) {
    let sql = format!(
        "select {AMOUNTS}, is_complete from exa_billing.rolling_spend($1, $2, $3::text::interval, $4)"
    );
    let told = row(c, &sql, &[&Model::kind(whose), &model.id(whose), &span.text(), &as_of]);
    let told = (sums(&told, 0), told.get::<_, bool>(4));
    let expected = (model.sums(whose, span.before(as_of), as_of), true);
    compared(&told, &expected, who, "rolling_spend");
}

/// Windows of a microsecond, an hour and a month: what the money went on.
fn drivers(c: &mut Client, model: &Model, whose: Whose, who: &str) {
    let edge = model.history.edge;
    for (before, after) in [(MICROSECOND, 0), (0, MICROSECOND), (HOUR, HOUR), (31 * DAY, 10 * DAY)]
    {
        let (from, to) = (later(edge, -before), later(edge, after));
        let sql = "select product_key, spend_category, total_microdollars, spend_record_count
                   from exa_billing.top_spend_drivers($1, $2, $3, $4, null, 1000)";
        let told = rows(c, sql, &[&Model::kind(whose), &model.id(whose), &from, &to]);
        let mut sums: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
        for row in &told {
            let sum = sums.entry((row.get(0), row.get(1))).or_default();
            *sum = (sum.0 + row.get::<_, i64>(2), sum.1 + row.get::<_, i64>(3));
        }
        let mut expected: BTreeMap<(String, String), (i64, i64)> = BTreeMap::new();
        for entry in model.charged(whose, from, to) {
            let key = (entry.product.to_owned(), category(entry).to_owned());
            let sum = expected.entry(key).or_default();
            *sum = (sum.0 + entry.amount, sum.1 + 1);
        }
        compared(&sums, &expected, who, "top_spend_drivers");
    }
}

fn category(entry: &Entry) -> &'static str {
    if entry.is_variable { "variable" } else { "scheduled" }
}

/// The document's times are ISO 8601 in UTC, whatever the session writes.
fn document(c: &mut Client, model: &Model, whose: Whose, who: &str) {
    // With a fraction of a second.
    let as_of = later(model.history.edge, 12 * SECOND + 345_678);
    let sql = "select exa_billing.spend_evidence($1, $2, '7d', $3)::text";
    let told: String = row(c, sql, &[&Model::kind(whose), &model.id(whose), &as_of]).get(0);
    let told: Json = serde_json::from_str(&told).expect("a document");
    let instant = |value: &Json| {
        let text = value.as_str().expect("an instant");
        assert!(text.ends_with('Z'), "{text} in {told}");
        shown(at(text))
    };
    let (from, to) = (hours_later(hour_of(as_of), -167), hours_later(hour_of(as_of), 1));
    let window = (instant(&told["window"]["from_time"]), instant(&told["window"]["to_time"]));
    let total = told["totals"]["total_microdollars"].as_i64();
    let days: Vec<String> = told["series"]
        .as_array()
        .expect("a series")
        .iter()
        .map(|b| instant(&b["bucket_start"]))
        .collect();
    let mut expected_days = vec![shown(from)];
    let mut day = days_later(day_of(from), 1);
    while start_of(day) < to {
        expected_days.push(shown(start_of(day)));
        day = days_later(day, 1);
    }
    let doubted: Vec<(String, String)> = told["degraded_intervals"]
        .as_array()
        .expect("intervals")
        .iter()
        .map(|hours| (instant(&hours["from_hour"]), instant(&hours["to_hour"])))
        .collect();
    let degraded = model.history.degraded.filter(|_| whose == Whose::Organization);
    let cut = degraded
        .map(|(since, until)| (since, until.min(to)))
        .filter(|(since, until)| since < until);
    let expected_doubted: Vec<(String, String)> =
        cut.map(|(since, until)| (shown(since), shown(until))).into_iter().collect();
    compared(
        &(instant(&told["as_of"]), window, total, days, doubted),
        &(
            shown(as_of),
            (shown(from), shown(to)),
            Some(model.sums(whose, from, as_of).0),
            expected_days,
            expected_doubted,
        ),
        who,
        "spend_evidence",
    );
}

/// After posting: the rollups' own hours; nothing that they lack, and nothing to put right.
pub fn compare_rollups(c: &mut Client, model: &Model, who: &str) {
    for whose in BOTH {
        let (kind, id) = (Model::kind(whose), model.id(whose));
        let sql =
            "select hour_start, sum(total_microdollars)::bigint, sum(spend_record_count)::bigint
                   from exa_billing.spend_hourly_totals where owner_kind = $1 and owner_id = $2
                   group by 1 having sum(total_microdollars) <> 0 order by 1";
        let told: Vec<(At, i64, i64)> = rows(c, sql, &[&kind, &id])
            .iter()
            .map(|row| (row.get(0), row.get(1), row.get(2)))
            .collect();
        let expected: Vec<(At, i64, i64)> =
            model.hours(whose).into_iter().map(|(hour, sums)| (hour, sums.0, sums.3)).collect();
        compared(&told, &expected, who, "spend_hourly_totals");
        let hour = hour_of(model.history.edge);
        let (from, to) = (hours_later(hour, -24), hours_later(hour, 24));
        let sql = "select exa_billing.rebuild_rollups($1, $2, $3, $4)";
        let changed: i64 = row(c, sql, &[&kind, &id, &from, &to]).get(0);
        compared(&changed, &0, who, "rebuild_rollups");
        let sql = "select mismatch_type, hour_start from exa_billing.reconcile_rollups($1, $2) as m
                   where owner_id = $3";
        let found: Vec<(String, At)> =
            rows(c, sql, &[&from, &to, &id]).iter().map(|row| (row.get(0), row.get(1))).collect();
        let doubted = model.history.degraded.filter(|_| whose == Whose::Organization);
        let holes: Vec<(String, At)> =
            doubted.map(|(since, _)| ("coverage_hole".to_owned(), since)).into_iter().collect();
        compared(&found, &holes, who, "reconcile_rollups");
    }
}
