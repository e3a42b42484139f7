//! Hours, days and months of the UTC calendar.

use super::At;
use chrono::{DateTime, Datelike, NaiveDate, Utc};

pub const SECOND: At = 1_000_000;
pub const MINUTE: At = 60 * SECOND;
pub const HOUR: At = 60 * MINUTE;
pub const DAY: At = 24 * HOUR;

pub fn hour_of(at: At) -> At {
    at - at.rem_euclid(HOUR)
}

pub fn day_of(at: At) -> At {
    at - at.rem_euclid(DAY)
}

fn date(at: At) -> NaiveDate {
    let time: DateTime<Utc> = DateTime::from_timestamp_micros(at).expect("a time");
    time.date_naive()
}

fn midnight(date: NaiveDate) -> At {
    date.and_hms_opt(0, 0, 0).expect("midnight").and_utc().timestamp_micros()
}

/// The start of the month.
pub fn month_of(at: At) -> At {
    midnight(date(at).with_day(1).expect("each month has a first"))
}

pub fn next_month(at: At) -> At {
    month_of(month_of(at) + 32 * DAY)
}

/// `2024-02-29`.
pub fn day_text(at: At) -> String {
    date(at).format("%Y-%m-%d").to_string()
}

pub fn on(year: i32, month: u32, day: u32, hour: u32) -> At {
    let day = NaiveDate::from_ymd_opt(year, month, day).expect("a day");
    midnight(day) + At::from(hour) * HOUR
}

/// As SQL reads it whatever the session's settings.
pub fn literal(at: At) -> String {
    let time: DateTime<Utc> = DateTime::from_timestamp_micros(at).expect("a time");
    format!("'{}+00'", time.format("%Y-%m-%d %H:%M:%S%.6f"))
}

/// As JSON documents say it.
pub fn rfc3339(at: At) -> String {
    let time: DateTime<Utc> = DateTime::from_timestamp_micros(at).expect("a time");
    time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

pub fn now() -> At {
    Utc::now().timestamp_micros()
}
