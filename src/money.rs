//! Money is `i64` microdollars: one US dollar is 1,000,000 of them.
//!
//! There are no floats anywhere: a dollar amount enters as decimal text and is rounded half up,
//! exactly. Sums that may leave the range are taken in `i128` and brought back with a check.

use crate::error::{BillingError, Result};

/// The largest single amount: 2^53 − 1, the largest integer every JSON reader keeps exactly.
pub const MAX_AMOUNT_MICRODOLLARS: i64 = 9_007_199_254_740_991;

const MICRODOLLAR_DIGITS: usize = 6;

/// Checks one cost: zero is allowed, since a request may be free of charge upstream.
pub fn cost(argument: &str, value: Option<i64>) -> Result<i64> {
    let value = required(argument, value)?;
    if value < 0 {
        return Err(BillingError::invalid(format!("{argument} must not be negative"))
            .detail(format!("{argument} is {value}.")));
    }
    within_limit(argument, value)
}

/// Checks one amount that must be more than nothing: a grant, a purchase.
pub fn positive_amount(argument: &str, value: Option<i64>) -> Result<i64> {
    let value = required(argument, value)?;
    if value <= 0 {
        return Err(BillingError::invalid(format!("{argument} must be greater than zero"))
            .detail(format!("{argument} is {value}.")));
    }
    within_limit(argument, value)
}

/// Checks one signed amount: a correction, in either direction, but not of nothing.
pub fn adjustment(argument: &str, value: Option<i64>) -> Result<i64> {
    let value = required(argument, value)?;
    if value == 0 {
        return Err(BillingError::invalid(format!("{argument} must not be zero")));
    }
    if value < -MAX_AMOUNT_MICRODOLLARS {
        let limit = format!("one amount is at least -{MAX_AMOUNT_MICRODOLLARS} microdollars");
        return Err(BillingError::invalid(format!("{argument} is too large"))
            .detail(format!("{argument} is {value}; {limit}.")));
    }
    within_limit(argument, value)
}

fn required(argument: &str, value: Option<i64>) -> Result<i64> {
    value.ok_or_else(|| BillingError::missing(argument))
}

fn within_limit(argument: &str, value: i64) -> Result<i64> {
    if value > MAX_AMOUNT_MICRODOLLARS {
        return Err(BillingError::invalid(format!("{argument} is too large")).detail(format!(
            "{argument} is {value}; one amount is at most {MAX_AMOUNT_MICRODOLLARS} microdollars."
        )));
    }
    Ok(value)
}

/// Why a dollar amount could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UsdProblem {
    NotADecimal,
    Negative,
    RoundsToZero,
    TooLarge,
}

/// Reads plain decimal text (as PostgreSQL writes a `numeric`: digits, at most one point, no
/// exponent) as microdollars, rounding half up. Exactly zero is `Ok(0)`; a positive amount that
/// rounds to nothing is refused, because recording it would silently make a paid request free.
pub fn microdollars_of_usd(text: &str) -> std::result::Result<i64, UsdProblem> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return Err(UsdProblem::NotADecimal);
    }
    if (whole.bytes().chain(fraction.bytes())).all(|byte| byte == b'0') {
        return Ok(0);
    }
    if negative {
        return Err(UsdProblem::Negative);
    }
    // Digits are taken one by one and the sum is checked at each, so that a number of any length
    // is either exact or refused.
    let kept = whole
        .bytes()
        .chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(MICRODOLLAR_DIGITS));
    let mut amount: i64 = 0;
    for byte in kept {
        amount = amount * 10 + i64::from(byte - b'0');
        if amount > MAX_AMOUNT_MICRODOLLARS {
            return Err(UsdProblem::TooLarge);
        }
    }
    if fraction.as_bytes().get(MICRODOLLAR_DIGITS).is_some_and(|&byte| byte >= b'5') {
        amount += 1;
    }
    match amount {
        0 => Err(UsdProblem::RoundsToZero),
        1..=MAX_AMOUNT_MICRODOLLARS => Ok(amount),
        _ => Err(UsdProblem::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn usual_prices_are_exact() {
        for (usd, microdollars) in [
            ("0.005", 5_000),
            ("0.0049995", 5_000),
            ("0.0049994999", 4_999),
            ("0.015", 15_000),
            ("1", 1_000_000),
            ("007.5", 7_500_000),
            ("9007199254.740991", MAX_AMOUNT_MICRODOLLARS),
            ("0.0000005", 1),
            ("0.000", 0),
            ("-0", 0),
        ] {
            assert_eq!(microdollars_of_usd(usd), Ok(microdollars), "{usd}");
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for (usd, problem) in [
            ("", UsdProblem::NotADecimal),
            (".5", UsdProblem::NotADecimal),
            ("1e3", UsdProblem::NotADecimal),
            ("NaN", UsdProblem::NotADecimal),
            ("+1", UsdProblem::NotADecimal),
            ("-0.01", UsdProblem::Negative),
            ("0.00000049", UsdProblem::RoundsToZero),
            ("9007199254.7409915", UsdProblem::TooLarge),
            ("9007199254.740992", UsdProblem::TooLarge),
        ] {
            assert_eq!(microdollars_of_usd(usd), Err(problem), "{usd}");
        }
        assert_eq!(microdollars_of_usd(&"9".repeat(400)), Err(UsdProblem::TooLarge));
    }

    #[test]
    fn amounts_have_their_limits() {
        const MAX: i64 = MAX_AMOUNT_MICRODOLLARS;
        for (value, is_cost, is_positive, is_adjustment) in [
            (None, false, false, false),
            (Some(i64::MIN), false, false, false),
            (Some(-MAX - 1), false, false, false),
            (Some(-MAX), false, false, true),
            (Some(-1), false, false, true),
            (Some(0), true, false, false),
            (Some(1), true, true, true),
            (Some(MAX), true, true, true),
            (Some(MAX + 1), false, false, false),
            (Some(i64::MAX), false, false, false),
        ] {
            for (accepted, is_accepted) in [
                (cost("cost", value), is_cost),
                (positive_amount("amount", value), is_positive),
                (adjustment("amount", value), is_adjustment),
            ] {
                assert_eq!(accepted.ok(), value.filter(|_| is_accepted), "{value:?}");
            }
        }
        let refused = adjustment("amount", Some(-MAX - 1)).unwrap_err();
        assert!(refused.detail.is_some_and(|detail| detail.contains("at least -9007199254740991")));
    }

    proptest! {
        #[test]
        fn whole_microdollars_come_back_unchanged(amount in 1..=MAX_AMOUNT_MICRODOLLARS) {
            let usd = format!("{}.{:06}", amount / 1_000_000, amount % 1_000_000);
            prop_assert_eq!(microdollars_of_usd(&usd), Ok(amount));
        }

        #[test]
        fn rounding_is_half_up(amount in 1..1_000_000_000_000_i64, tail in "[0-9]{1,12}") {
            let usd = format!("{}.{:06}{tail}", amount / 1_000_000, amount % 1_000_000);
            let up = i64::from(tail.as_bytes()[0] >= b'5');
            prop_assert_eq!(microdollars_of_usd(&usd), Ok(amount + up));
        }

        #[test]
        fn any_text_is_answered(text in "\\PC{0,40}") {
            let _ = microdollars_of_usd(&text);
        }
    }
}
