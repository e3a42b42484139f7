//! The edges of the calendar, and plain arithmetic around them: chrono in UTC, nothing of the
//! product's.

use chrono::{
    DateTime, Datelike, Days, FixedOffset, Months, NaiveDate, SecondsFormat, TimeDelta, Timelike,
    Utc,
};

pub type At = DateTime<Utc>;

/// Instants at which something begins and something else ends, in UTC or at a place; and the session, of
/// `SETTINGS`, that is never left out: the one of that place. Edges of UTC take turns.
pub const EDGES: [(&str, &str, usize); 18] = [
    ("28 days of February end", "2023-03-01T00:00:00Z", 1),
    ("30 days of April end, a year before a leap year", "2023-05-01T00:00:00Z", 2),
    ("a leap year begins", "2024-01-01T00:00:00Z", 3),
    ("31 days of January end", "2024-02-01T00:00:00Z", 4),
    ("a leap day begins", "2024-02-29T00:00:00Z", 1),
    ("a leap day ends in Kolkata", "2024-02-29T18:30:00Z", 3),
    ("a leap day ends", "2024-03-01T00:00:00Z", 2),
    ("a leap day ends in New York", "2024-03-01T05:00:00Z", 1),
    ("New York loses an hour", "2024-03-10T07:00:00Z", 1),
    ("London loses an hour", "2024-03-31T01:00:00Z", 4),
    ("Lord Howe gains half an hour", "2024-04-06T15:00:00Z", 2),
    ("30 days of April end", "2024-05-01T00:00:00Z", 3),
    ("an hour ends, and nothing else", "2024-07-17T13:00:00Z", 4),
    ("Lord Howe loses half an hour", "2024-10-05T15:30:00Z", 2),
    ("London gains an hour", "2024-10-27T01:00:00Z", 4),
    ("New York gains an hour", "2024-11-03T06:00:00Z", 1),
    ("a year ends in Lord Howe", "2024-12-31T13:00:00Z", 2),
    ("a leap year ends", "2025-01-01T00:00:00Z", 1),
];

pub fn at(text: &str) -> At {
    DateTime::parse_from_rfc3339(text).expect("an instant with its zone").to_utc()
}

pub fn later(at: At, microseconds: i64) -> At {
    at + TimeDelta::microseconds(microseconds)
}

pub fn hours_later(at: At, hours: i64) -> At {
    at + TimeDelta::hours(hours)
}

pub fn hour_of(at: At) -> At {
    let at =
        at.with_minute(0).and_then(|at| at.with_second(0)).and_then(|at| at.with_nanosecond(0));
    at.expect("an hour's start")
}

pub fn day_of(at: At) -> NaiveDate {
    at.date_naive()
}

pub fn month_of(at: At) -> NaiveDate {
    at.date_naive().with_day(1).expect("a month's first day")
}

pub fn month_after(month: NaiveDate) -> NaiveDate {
    month.checked_add_months(Months::new(1)).expect("a further month")
}

pub fn start_of(day: NaiveDate) -> At {
    day.and_hms_opt(0, 0, 0).expect("a midnight").and_utc()
}

pub fn days_later(day: NaiveDate, days: u64) -> NaiveDate {
    day.checked_add_days(Days::new(days)).expect("a later day")
}

/// How PostgreSQL counts back by an interval: months, then days, then time.
#[derive(Debug, Clone, Copy)]
pub struct Span(pub u32, pub u64, pub i64);

impl Span {
    pub fn before(self, at: At) -> At {
        let Span(months, days, hours) = self;
        let naive = at.naive_utc().checked_sub_months(Months::new(months));
        let naive = naive.and_then(|naive| naive.checked_sub_days(Days::new(days)));
        hours_later(naive.expect("an earlier day").and_utc(), -hours)
    }

    pub fn text(self) -> String {
        let Span(months, days, hours) = self;
        format!("{months} months {days} days {hours} hours")
    }
}

/// The instant as a clock elsewhere shows it, so many minutes ahead of UTC.
pub fn elsewhere(at: At, minutes: i32) -> String {
    let zone = FixedOffset::east_opt(60 * minutes).expect("less than a day");
    at.with_timezone(&zone).to_rfc3339_opts(SecondsFormat::Micros, false)
}

/// As the lines that are compared show it.
pub fn shown(at: At) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}
