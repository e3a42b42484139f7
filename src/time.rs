//! Instants, hours, days and months, all of them UTC.
//!
//! An [`Instant`] is PostgreSQL's own `timestamptz`: microseconds since 2000-01-01 00:00 UTC. The
//! calendar comes from `chrono`; the session's `TimeZone` and `DateStyle` play no part.

use crate::error::{BillingError, Result};
use chrono::{DateTime, Datelike, Months, NaiveDate, TimeDelta, Utc};

const UNIX_TO_POSTGRES_EPOCH_DAYS: i64 = 10_957;
pub const MICROSECONDS_PER_SECOND: i64 = 1_000_000;
pub const MICROSECONDS_PER_HOUR: i64 = 3_600 * MICROSECONDS_PER_SECOND;
const MICROSECONDS_PER_DAY: i64 = 86_400 * MICROSECONDS_PER_SECOND;

/// How far ahead of the clock a caller's `created_at` may be: clocks of two machines differ.
pub const CLOCK_TOLERANCE_MICROSECONDS: i64 = 5 * 60 * MICROSECONDS_PER_SECOND;

/// The first instant that PostgreSQL can hold, in 4714 BC.
const FIRST_INSTANT: Instant = Instant(-211_813_488_000_000_000);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub i64);

impl Instant {
    /// `infinity` and `-infinity` are the ends of the number range.
    pub fn is_finite(self) -> bool {
        self.0 != i64::MIN && self.0 != i64::MAX
    }

    pub fn plus_microseconds(self, microseconds: i64) -> Self {
        Instant(self.0.saturating_add(microseconds))
    }

    /// Reads a time with an explicit zone, such as `2026-11-22T10:30:00Z`, rounding to the
    /// microsecond.
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let utc = DateTime::parse_from_rfc3339(text).ok()?.to_utc();
        // A leap second comes as more nanoseconds than a second has, and so becomes the first second
        // of the next minute. Rounded before that, its very end would fall back to its beginning.
        let microseconds = (i64::from(utc.timestamp_subsec_nanos()) + 500) / 1_000;
        let seconds = utc.timestamp() * MICROSECONDS_PER_SECOND;
        Some(Self::from_unix_microseconds(seconds + microseconds))
    }

    /// The microseconds from an earlier instant to this one; none when it is not earlier.
    pub fn microseconds_since(self, earlier: Instant) -> i64 {
        self.0.saturating_sub(earlier.0).max(0)
    }

    pub fn from_unix_microseconds(microseconds: i64) -> Self {
        Instant(microseconds.saturating_sub(UNIX_TO_POSTGRES_EPOCH_DAYS * MICROSECONDS_PER_DAY))
    }

    pub fn plus_hours(self, hours: i64) -> Self {
        self.plus_microseconds(hours.saturating_mul(MICROSECONDS_PER_HOUR))
    }

    /// The start of the UTC hour.
    pub fn hour_start(self) -> Self {
        Instant(self.0 - self.0.rem_euclid(MICROSECONDS_PER_HOUR))
    }

    /// The first start of a UTC hour that is not before this.
    pub fn hour_ceiling(self) -> Self {
        let start = self.hour_start();
        if start == self { self } else { start.plus_hours(1) }
    }

    /// The start of the UTC day.
    pub fn day_start(self) -> Self {
        Instant(self.0 - self.0.rem_euclid(MICROSECONDS_PER_DAY))
    }

    /// The first start of a UTC day that is not before this.
    pub fn day_ceiling(self) -> Self {
        self.plus_microseconds(MICROSECONDS_PER_DAY - 1).day_start()
    }

    /// As documents write it: `2026-11-22T10:30:00Z`.
    pub fn iso8601(self) -> String {
        match self.utc() {
            Some(utc) => utc.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string(),
            None => self.to_string(),
        }
    }

    pub fn day(self) -> Result<Day> {
        let day = self.0.div_euclid(MICROSECONDS_PER_DAY);
        i32::try_from(day).map(Day).map_err(|_| beyond_calendar())
    }

    pub fn month(self) -> Result<Month> {
        self.day()?.month()
    }

    fn utc(self) -> Option<DateTime<Utc>> {
        let postgres_epoch_days = TimeDelta::try_days(UNIX_TO_POSTGRES_EPOCH_DAYS)?;
        DateTime::<Utc>::UNIX_EPOCH
            .checked_add_signed(postgres_epoch_days)?
            .checked_add_signed(TimeDelta::microseconds(self.0))
    }
}

/// As ISO 8601 with an explicit `+00`, readable by PostgreSQL under every `DateStyle`.
impl std::fmt::Display for Instant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.utc() {
            Some(utc) => write!(f, "{}", utc.format("%Y-%m-%d %H:%M:%S%.f+00")),
            None => write!(f, "microsecond {} of the PostgreSQL epoch", self.0),
        }
    }
}

/// PostgreSQL's `interval`. Its parts stay apart, since a month has no fixed length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub months: i32,
    pub days: i32,
    pub microseconds: i64,
}

impl Span {
    /// The instant so long before another one in the UTC calendar, as PostgreSQL subtracts: first
    /// the months, cut to the last day of the month there is, then the days, then the time. None
    /// when PostgreSQL could not hold it.
    pub fn before(self, instant: Instant) -> Option<Instant> {
        let day = instant.day().ok()?;
        let time = instant.0.checked_sub(day.start().0)?;
        let months = Months::new(self.months.unsigned_abs());
        let date = match self.months {
            0.. => day.date().ok()?.checked_sub_months(months)?,
            _ => day.date().ok()?.checked_add_months(months)?,
        };
        let day = i64::from(Day::of(date).0).checked_sub(i64::from(self.days))?;
        let start = day.checked_mul(MICROSECONDS_PER_DAY)?.checked_add(time)?;
        let start = Instant(start.checked_sub(self.microseconds)?);
        (FIRST_INSTANT <= start && start.is_finite()).then_some(start)
    }
}

/// A calendar day: PostgreSQL's `date`, days since 2000-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub i32);

impl Day {
    pub fn month(self) -> Result<Month> {
        let date = self.date()?;
        let first = self.0 - date.day0().cast_signed();
        Ok(Month { first: Day(first), year: date.year(), number: date.month() })
    }

    fn date(self) -> Result<NaiveDate> {
        let days = UNIX_TO_POSTGRES_EPOCH_DAYS + i64::from(self.0);
        let delta = TimeDelta::try_days(days).ok_or_else(beyond_calendar)?;
        NaiveDate::default().checked_add_signed(delta).ok_or_else(beyond_calendar)
    }

    fn of(date: NaiveDate) -> Self {
        let days = date.signed_duration_since(NaiveDate::default()).num_days();
        let days = days - UNIX_TO_POSTGRES_EPOCH_DAYS;
        Day(i32::try_from(days).expect("chrono's calendar is smaller than i32 days"))
    }

    pub fn start(self) -> Instant {
        Instant(i64::from(self.0).saturating_mul(MICROSECONDS_PER_DAY))
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.date() {
            Ok(date) => write!(f, "{}", date.format("%Y-%m-%d")),
            Err(_) => write!(f, "day {} of the PostgreSQL epoch", self.0),
        }
    }
}

/// A calendar month. Counters, allowances and partitions are kept by month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Month {
    first: Day,
    year: i32,
    number: u32,
}

impl Month {
    pub fn first_day(self) -> Day {
        self.first
    }

    pub fn start(self) -> Instant {
        self.first.start()
    }

    pub fn next(self) -> Result<Month> {
        self.plus(1)
    }

    pub fn plus(self, months: u32) -> Result<Month> {
        let date = self.first.date()?;
        let next = date.checked_add_months(Months::new(months)).ok_or_else(beyond_calendar)?;
        Day::of(next).month()
    }

    /// The tail of a partition's name: `2026_11`. Years beyond 9999 get more digits, so that
    /// names stay distinct.
    pub fn suffix(self) -> String {
        format!("{:04}_{:02}", self.year, self.number)
    }

    /// Every month from this one to `last`, both included.
    pub fn through(self, last: Month) -> Result<Vec<Month>> {
        let mut months = Vec::new();
        let mut month = self;
        while month <= last {
            months.push(month);
            month = month.next()?;
        }
        Ok(months)
    }
}

impl std::fmt::Display for Month {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.number)
    }
}

fn beyond_calendar() -> BillingError {
    BillingError::invalid("the time is beyond the calendar")
        .hint("Give a time within the next 200,000 years.")
}

/// A time given as an argument: never `infinity`.
pub fn finite(argument: &str, value: Instant) -> Result<Instant> {
    if !value.is_finite() {
        return Err(BillingError::invalid(format!("{argument} must be finite")));
    }
    within_calendar(argument, value.month())?;
    Ok(value)
}

/// The month of a given time and the one after it, or an error that names the argument.
fn within_calendar(argument: &str, month: Result<Month>) -> Result<Month> {
    let in_calendar = |month: Month| month.next().map(|_| month);
    month.and_then(in_calendar).map_err(|_| {
        BillingError::invalid(format!("{argument} is beyond the calendar"))
            .hint("Give a time within the next 200,000 years.")
    })
}

/// An `as_of` of a reading function: any finite instant; a future one is a forecast.
pub fn as_of(value: Option<Instant>) -> Result<Instant> {
    finite("as_of", value.ok_or_else(|| BillingError::missing("as_of"))?)
}

/// An `as_of` of a writing function: not after the clock, for the future must not destroy credit.
pub fn as_of_past(value: Option<Instant>, clock: Instant) -> Result<Instant> {
    let as_of = after_earliest("as_of", as_of(value)?)?;
    if as_of > clock {
        return Err(BillingError::invalid("as_of is in the future")
            .detail(format!("as_of is {as_of}; the clock says {clock}."))
            .hint("Reading functions accept a future as_of as a forecast; writing ones do not."));
    }
    Ok(as_of)
}

/// When the thing happened: the caller's instant, not ahead of the clock by more than the
/// tolerance and not older than what is still accepted.
pub fn event_time(given: Instant, clock: Instant, late_limit_seconds: i64) -> Result<Instant> {
    not_ahead_of_clock("created_at", given, clock)?;
    let oldest = clock.plus_microseconds(-late_limit_seconds * MICROSECONDS_PER_SECOND);
    if given < oldest {
        return Err(BillingError::invalid("created_at is too long ago")
            .detail(format!("created_at is {given}; the oldest accepted now is {oldest}."))
            .hint("exa_billing.late_usage_limit says how long ago usage may have happened."));
    }
    Ok(given)
}

/// Nothing is written about times before the year 2000: a mistyped year would make the books
/// reach back centuries.
fn after_earliest(argument: &str, given: Instant) -> Result<Instant> {
    const EARLIEST: Instant = Instant(0);
    if given < EARLIEST {
        return Err(BillingError::invalid(format!("{argument} is before the year 2000"))
            .detail(format!("{argument} is {given}.")));
    }
    Ok(given)
}

pub fn not_ahead_of_clock(argument: &str, given: Instant, clock: Instant) -> Result<Instant> {
    after_earliest(argument, finite(argument, given)?)?;
    let latest = clock.plus_microseconds(CLOCK_TOLERANCE_MICROSECONDS);
    if given > latest {
        return Err(BillingError::invalid(format!("{argument} is in the future"))
            .detail(format!("{argument} is {given}; the clock says {clock}."))
            .hint("Up to five minutes ahead are accepted."));
    }
    Ok(given)
}

/// How long a window before `as_of` is: more than nothing, within the calendar.
pub fn start_of_span(span: Option<Span>, as_of: Instant) -> Result<Instant> {
    let span = span.ok_or_else(|| BillingError::missing("span"))?;
    let start = span.before(as_of).ok_or_else(|| {
        BillingError::invalid("span is beyond the calendar").hint("Give a finite span of time.")
    })?;
    if start >= as_of {
        return Err(BillingError::invalid("span must be greater than zero"));
    }
    Ok(start)
}

/// So many hours before an instant that comes from an argument.
pub fn hours_before(argument: &str, hours: i64, instant: Instant) -> Result<Instant> {
    let start = instant.plus_hours(-hours);
    if start < FIRST_INSTANT {
        return Err(BillingError::invalid(format!("{argument} is beyond the calendar"))
            .detail(format!("There is no time {hours} hours before it.")));
    }
    Ok(start)
}

/// The start of a UTC hour, given as an argument.
pub fn exact_hour(argument: &str, value: Option<Instant>) -> Result<Instant> {
    let value = finite(argument, value.ok_or_else(|| BillingError::missing(argument))?)?;
    if value.hour_start() != value {
        return Err(BillingError::invalid(format!("{argument} must be the start of a UTC hour"))
            .detail(format!("{argument} is {value}."))
            .hint(format!("Give {}.", value.hour_start())));
    }
    Ok(value)
}

/// The first day of a month, given as an argument.
pub fn first_of_month(argument: &str, value: Option<Day>) -> Result<Month> {
    let month = month_of(argument, value.ok_or_else(|| BillingError::missing(argument))?)?;
    if Some(month.first) != value {
        return Err(BillingError::invalid(format!("{argument} must be the first day of a month"))
            .hint(format!("Give {}.", month.first)));
    }
    Ok(month)
}

/// The month a given day lies in.
pub fn month_of(argument: &str, day: Day) -> Result<Month> {
    if day.0 == i32::MIN || day.0 == i32::MAX {
        return Err(BillingError::invalid(format!("{argument} must be finite")));
    }
    within_calendar(argument, day.month())
}

/// An instant from calendar parts, for tests and examples.
#[cfg(test)]
pub fn utc(year: i32, month: u32, day: u32, hour: u32, minute: u32) -> Instant {
    let date = NaiveDate::from_ymd_opt(year, month, day).expect("a day of the calendar");
    let time = chrono::NaiveTime::from_hms_opt(hour, minute, 0).expect("a time of the day");
    let seconds = i64::from(chrono::Timelike::num_seconds_from_midnight(&time));
    Day::of(date).start().plus_microseconds(seconds * MICROSECONDS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_epoch_is_the_year_2000() {
        assert_eq!(utc(2000, 1, 1, 0, 0), Instant(0));
        assert_eq!(Instant(0).to_string(), "2000-01-01 00:00:00+00");
        assert_eq!(Instant(-1).to_string(), "1999-12-31 23:59:59.999999+00");
    }

    #[test]
    fn months_begin_and_end_where_the_calendar_says() {
        let leap = utc(2028, 2, 29, 23, 59).month().unwrap();
        assert_eq!((leap.to_string().as_str(), leap.start()), ("2028-02", utc(2028, 2, 1, 0, 0)));
        assert_eq!(leap.next().unwrap().start(), utc(2028, 3, 1, 0, 0));
        let december = utc(2026, 12, 31, 23, 59).month().unwrap();
        assert_eq!(december.next().unwrap().suffix(), "2027_01");
        assert_eq!(Instant(-1).month().unwrap().to_string(), "1999-12");
    }

    #[test]
    fn a_range_of_months_has_both_ends() {
        let from = utc(2026, 11, 5, 0, 0).month().unwrap();
        let months = from.through(from.plus(3).unwrap()).unwrap();
        let names: Vec<_> = months.iter().map(|month| month.suffix()).collect();
        assert_eq!(names, ["2026_11", "2026_12", "2027_01", "2027_02"]);
    }

    #[test]
    fn infinity_is_refused_everywhere_and_what_is_refused_says_why() {
        for end in [Instant(i64::MIN), Instant(i64::MAX)] {
            assert!(!end.is_finite() && event_time(end, Instant(0), 60).is_err());
            assert_eq!(as_of(Some(end)).unwrap_err().message, "as_of must be finite");
        }
        let message = |day| month_of("month", day).unwrap_err().message;
        assert_eq!([i32::MIN, i32::MAX].map(|day| message(Day(day))), ["month must be finite"; 2]);
        assert_eq!(message(Day(i32::MAX - 1)), "month is beyond the calendar");
        let refused = first_of_month("month", Some(Day(1))).unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("Give 2000-01-01."));
        assert!(as_of(None).is_err());
    }

    #[test]
    fn writers_accept_the_clock_itself_and_no_later() {
        let clock = utc(2026, 11, 22, 12, 0);
        for (as_of, is_accepted) in [
            (clock.plus_microseconds(-1), true),
            (clock, true),
            (clock.plus_microseconds(1), false),
            (Instant(0), true),
            (Instant(-1), false),
        ] {
            assert_eq!(as_of_past(Some(as_of), clock).is_ok(), is_accepted, "{as_of}");
            let is_past = as_of >= Instant(0);
            assert_eq!(not_ahead_of_clock("at", as_of, clock).is_ok(), is_past, "{as_of}");
        }
    }

    #[test]
    fn event_times_lie_between_the_late_limit_and_the_tolerance() {
        let clock = utc(2026, 11, 22, 12, 0);
        let day_seconds = 86_400;
        let ok = |instant| event_time(instant, clock, day_seconds).is_ok();
        assert!(ok(utc(2026, 11, 22, 12, 5)));
        assert!(!ok(utc(2026, 11, 22, 12, 5).plus_microseconds(1)));
        assert!(ok(utc(2026, 11, 21, 12, 0)));
        assert!(!ok(utc(2026, 11, 21, 12, 0).plus_microseconds(-1)));
    }

    #[test]
    fn only_the_first_of_a_month_names_a_month_in_policies() {
        let first = utc(2026, 11, 1, 0, 0).day().unwrap();
        assert!(first_of_month("effective_month", Some(first)).is_ok());
        assert!(first_of_month("effective_month", Some(Day(first.0 + 1))).is_err());
        assert!(first_of_month("effective_month", None).is_err());
    }

    #[test]
    fn hours_are_utc_and_documents_are_in_utc() {
        let half_past = utc(2026, 11, 22, 12, 30);
        assert_eq!(half_past.hour_ceiling(), utc(2026, 11, 22, 13, 0));
        assert_eq!(half_past.hour_start().hour_ceiling(), half_past.hour_start());
        assert_eq!(Instant(i64::MAX).hour_ceiling(), Instant(i64::MAX));
        assert_eq!(utc(1999, 12, 31, 23, 59).day_start(), utc(1999, 12, 31, 0, 0));
        assert_eq!(half_past.iso8601(), "2026-11-22T12:30:00Z");
        assert_eq!(half_past.plus_microseconds(1).iso8601(), "2026-11-22T12:30:00.000001Z");
        let refused = exact_hour("from_hour", Some(half_past)).unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("Give 2026-11-22 12:00:00+00."));
    }

    #[test]
    fn spans_go_back_in_the_calendar() {
        let start = |months, days, hours, as_of| {
            let microseconds = hours * MICROSECONDS_PER_HOUR;
            start_of_span(Some(Span { months, days, microseconds }), as_of)
        };
        let leap = utc(2028, 3, 31, 12, 30);
        assert_eq!(start(1, 0, 0, leap), Ok(utc(2028, 2, 29, 12, 30)));
        assert_eq!(start(13, 1, 13, leap), Ok(utc(2027, 2, 26, 23, 30)));
        assert_eq!(start(1, -1, 0, leap), Ok(utc(2028, 3, 1, 12, 30)));
        for (months, days, hours) in [(0, 0, 0), (-1, 0, 0), (0, 1, -24), (i32::MIN, 0, 0)] {
            assert!(start(months, days, hours, leap).is_err(), "{months} {days} {hours}");
        }
        for (months, days) in [(i32::MAX, 0), (0, i32::MAX), (12 * 6_742, 0)] {
            let refused = start(months, days, 0, leap).unwrap_err();
            assert_eq!(refused.message, "span is beyond the calendar", "{months} {days}");
        }
        assert!(start_of_span(None, leap).is_err());
    }

    proptest! {
        #[test]
        fn no_span_panics(months: i32, days: i32, microseconds: i64, instant: i64) {
            let span = Span { months, days, microseconds };
            if let Some(start) = span.before(Instant(instant)) {
                prop_assert!(start >= FIRST_INSTANT && start.is_finite());
            }
        }

        #[test]
        fn an_instant_lies_in_its_month(microseconds in -60_000_000_000_000_000..200_000_000_000_000_000_i64) {
            let instant = Instant(microseconds);
            let month = instant.month().unwrap();
            prop_assert!(month.start() <= instant);
            prop_assert!(instant < month.next().unwrap().start());
        }

        #[test]
        fn no_instant_panics(microseconds: i64, day: i32) {
            let _ = Instant(microseconds).month();
            let _ = Instant(microseconds).to_string();
            let _ = Day(day).month().and_then(Month::next);
            let _ = Day(day).to_string();
        }
    }
}
