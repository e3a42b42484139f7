//! What becomes of a delivery: who may still get it, how often it is tried, when again.

use crate::error::{BillingError, Result};
use crate::time::{Instant, MICROSECONDS_PER_SECOND, Span};

pub const MAX_ATTEMPTS: i32 = 5;
const MAX_CLAIMED: i32 = 1000;
const MAX_ERROR_CHARS: usize = 500;
const FIRST_PAUSE: i64 = 60 * MICROSECONDS_PER_SECOND;
const LONGEST_PAUSE: i64 = 3_600 * MICROSECONDS_PER_SECOND;
const DAY: i128 = 86_400 * MICROSECONDS_PER_SECOND as i128;

/// What to do with a delivery whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it out; that is an attempt.
    Attempt,
    /// Its recipient may not hear of this owner any more.
    Skip,
    /// It was handed out often enough, and nobody ever came back.
    GiveUp,
}

pub fn verdict(attempts: i32, may_hear: bool) -> Verdict {
    match (attempts >= MAX_ATTEMPTS, may_hear) {
        (true, _) => Verdict::GiveUp,
        (false, false) => Verdict::Skip,
        (false, true) => Verdict::Attempt,
    }
}

/// How long after the failure of an attempt (counted from 1) the next one is due, in microseconds:
/// a minute, then twice as long each time, up to an hour. None when it was the last one.
pub fn pause_after(attempt: i32) -> Option<i64> {
    (attempt < MAX_ATTEMPTS).then(|| pause(attempt))
}

fn pause(attempt: i32) -> i64 {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or_default();
    let factor = 1_i64.checked_shl(doublings).filter(|factor| *factor > 0).unwrap_or(i64::MAX);
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

/// A mailer's own words, cut to what is kept: they are never a reason to refuse its report.
pub fn kept_error(text: &str) -> &str {
    match text.char_indices().nth(MAX_ERROR_CHARS) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

pub fn max_rows(value: Option<i32>) -> Result<i64> {
    let value = value.ok_or_else(|| BillingError::missing("max_rows"))?;
    if !(1..=MAX_CLAIMED).contains(&value) {
        return Err(BillingError::invalid("max_rows is out of range")
            .detail(format!("max_rows is {value}; 1 … {MAX_CLAIMED} are allowed.")));
    }
    Ok(i64::from(value))
}

/// When a lease that begins now runs out.
pub fn lease_end(lease: Option<Span>, clock: Instant) -> Result<Instant> {
    let lease = lease.ok_or_else(|| BillingError::missing("lease"))?;
    if lease.months != 0 {
        return Err(BillingError::invalid("lease must not have months or years")
            .hint("Give a time such as '5 minutes'."));
    }
    let length = i128::from(lease.days) * DAY + i128::from(lease.microseconds);
    if length <= 0 || length > DAY {
        return Err(BillingError::invalid("lease is out of range")
            .detail(format!("lease is {length} microseconds long."))
            .hint("Give more than nothing and at most a day, such as '5 minutes'."));
    }
    let length = i64::try_from(length).unwrap_or(i64::MAX);
    Ok(clock.plus_microseconds(length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: i64 = 60 * MICROSECONDS_PER_SECOND;

    #[test]
    fn pauses_double_and_the_fifth_failure_is_the_last() {
        let pauses: Vec<_> = (1..=6).map(pause_after).collect();
        let minutes = |count: i64| Some(count * MINUTE);
        assert_eq!(pauses, [minutes(1), minutes(2), minutes(4), minutes(8), None, None]);
        let uncut: Vec<_> = (5..=9).map(|attempt| pause(attempt) / MINUTE).collect();
        assert_eq!(uncut, [16, 32, 60, 60, 60]);
    }

    #[test]
    fn who_gets_it_is_asked_before_each_attempt() {
        assert_eq!(verdict(0, true), Verdict::Attempt);
        assert_eq!(verdict(4, true), Verdict::Attempt);
        assert_eq!(verdict(4, false), Verdict::Skip);
        assert_eq!(verdict(5, true), Verdict::GiveUp);
        assert_eq!(verdict(5, false), Verdict::GiveUp);
    }

    #[test]
    fn leases_end_within_a_day() {
        let span = |months, days, microseconds| Some(Span { months, days, microseconds });
        let now = Instant(7);
        assert_eq!(lease_end(span(0, 0, 1), now).unwrap(), Instant(8));
        assert_eq!(lease_end(span(0, 1, 0), now).unwrap().0, 7 + 1440 * MINUTE);
        assert_eq!(lease_end(span(0, -1, 1440 * MINUTE + 1), now).unwrap(), Instant(8));
        for bad in [
            None,
            span(0, 0, 0),
            span(0, 0, -1),
            span(0, 1, 1),
            span(1, 0, 0),
            span(-1, 31, 0),
            span(i32::MAX, i32::MAX, i64::MAX),
            span(0, i32::MIN, i64::MIN),
            span(0, i32::MAX, i64::MAX),
        ] {
            let error = lease_end(bad, now).unwrap_err();
            assert!(error.message.contains("lease"), "{error:?}");
        }
    }

    #[test]
    fn as_many_rows_are_claimed_as_one_mailer_can_send() {
        assert_eq!((max_rows(Some(1)).unwrap(), max_rows(Some(1000)).unwrap()), (1, 1000));
        for bad in [None, Some(0), Some(-1), Some(1001), Some(i32::MAX), Some(i32::MIN)] {
            assert!(max_rows(bad).unwrap_err().message.contains("max_rows"));
        }
    }

    proptest! {
        #[test]
        fn pauses_never_shrink_and_never_exceed_an_hour(attempt in any::<i32>()) {
            let pause_now = pause(attempt);
            prop_assert!((FIRST_PAUSE..=LONGEST_PAUSE).contains(&pause_now));
            prop_assert!(pause(attempt.saturating_add(1)) >= pause_now);
            prop_assert_eq!(pause_after(attempt).is_none(), attempt >= MAX_ATTEMPTS);
        }

        #[test]
        fn errors_are_cut_between_characters(text in ".{0,700}") {
            let kept = kept_error(&text);
            prop_assert!(text.starts_with(kept));
            prop_assert_eq!(kept.chars().count(), text.chars().count().min(MAX_ERROR_CHARS));
        }
    }
}
