//! What a check has found: how bad it is, the figure it was decided by, and what to do.

use crate::time::{Instant, MICROSECONDS_PER_SECOND};

pub const MINUTE: i64 = 60;
pub const HOUR: i64 = 3_600;
pub const DAY: i64 = 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    Ok,
    Warning,
    Critical,
}

impl Status {
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Ok => "ok",
            Status::Warning => "warning",
            Status::Critical => "critical",
        }
    }
}

/// A figure begins with its number, where it has one, so that a monitoring system can draw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub status: Status,
    pub figure: String,
    /// Empty while all is well.
    pub what_to_do: String,
}

impl Finding {
    pub fn ok(figure: impl Into<String>) -> Self {
        Self { status: Status::Ok, figure: figure.into(), what_to_do: String::new() }
    }

    pub fn warning(figure: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self { status: Status::Warning, figure: figure.into(), what_to_do: what_to_do.into() }
    }

    pub fn critical(figure: impl Into<String>, what_to_do: impl Into<String>) -> Self {
        Self { status: Status::Critical, figure: figure.into(), what_to_do: what_to_do.into() }
    }

    pub fn of(status: Status, figure: impl Into<String>, what_to_do: &str) -> Self {
        match status {
            Status::Ok => Self::ok(figure),
            Status::Warning => Self::warning(figure, what_to_do),
            Status::Critical => Self::critical(figure, what_to_do),
        }
    }
}

/// From which number on something is a warning, and critical.
pub fn graded(number: i64, warning: i64, critical: i64) -> Status {
    if number >= critical {
        Status::Critical
    } else if number >= warning {
        Status::Warning
    } else {
        Status::Ok
    }
}

/// Whole seconds from an instant until now; 0 for one that has not come yet.
pub fn seconds_since(instant: Instant, now: Instant) -> i64 {
    now.microseconds_since(instant) / MICROSECONDS_PER_SECOND
}

/// A number that was not counted any further than a limit.
pub fn counted(number: i64, limit: i64) -> String {
    if number >= limit { format!("{limit} or more") } else { number.to_string() }
}

/// A text as an SQL literal.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What the tests of the rules share.
#[cfg(test)]
pub mod given {
    use super::*;
    use crate::time::utc;

    pub fn now() -> Instant {
        utc(2026, 11, 22, 10, 30)
    }

    pub fn ago(seconds: i64) -> Instant {
        now().plus_microseconds(-seconds * MICROSECONDS_PER_SECOND)
    }

    /// Only who is unwell is told what to do.
    pub fn status(finding: &Finding) -> &'static str {
        assert_eq!(finding.status == Status::Ok, finding.what_to_do.is_empty(), "{finding:?}");
        finding.status.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_belong_to_the_worse() {
        let of = |number| graded(number, 10, 20).as_str();
        assert_eq!([0, 9, 10, 19, 20, i64::MAX].map(of), {
            ["ok", "ok", "warning", "warning", "critical", "critical"]
        });
    }

    #[test]
    fn the_future_is_not_old() {
        let now = Instant(50_000_000);
        assert_eq!(seconds_since(Instant(48_500_000), now), 1);
        assert_eq!(seconds_since(Instant(90_000_000), now), 0);
        assert_eq!(seconds_since(Instant(i64::MIN), now), i64::MAX / MICROSECONDS_PER_SECOND);
        assert_eq!(seconds_since(Instant(i64::MAX), now), 0);
    }

    #[test]
    fn figures_begin_with_their_number() {
        assert_eq!(counted(7, 1000), "7");
        assert_eq!(counted(1000, 1000), "1000 or more");
        assert_eq!(quoted("o'brien"), "'o''brien'");
    }
}
