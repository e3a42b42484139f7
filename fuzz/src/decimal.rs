//! A slow and plain reading of decimal numbers, with which the quick one of the library is compared.

use crate::money::MAX_AMOUNT_MICRODOLLARS;

/// A decimal number: its digits, without leading zeros, and how many of them stand behind the point
/// (fewer than none when zeros follow).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decimal {
    is_negative: bool,
    digits: Vec<u8>,
    behind_point: i64,
}

/// What an amount in dollars is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Worth {
    Nothing,
    Negative,
    /// More than nothing, less than half a microdollar.
    TooLittle,
    TooMuch,
    Microdollars(i64),
}

impl Decimal {
    /// Reads a number as JSON writes it. None for anything else, and for exponents that no server
    /// would take.
    pub fn of(text: &str) -> Option<Decimal> {
        let (is_negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let mut digits = Vec::new();
        for character in whole.chars().chain(fraction.chars()) {
            digits.push(u8::try_from(character.to_digit(10)?).ok()?);
        }
        if whole.is_empty() || exponent.abs() > 100_000 {
            return None;
        }
        let behind_point = i64::try_from(fraction.chars().count()).ok()? - exponent;
        let zeros = digits.iter().take_while(|digit| **digit == 0).count();
        digits.drain(..zeros);
        Some(Decimal { is_negative, digits, behind_point })
    }

    pub fn is_zero(&self) -> bool {
        self.digits.is_empty()
    }

    /// Written out in full, as a `numeric` is: no exponent, no sign of nothing.
    pub fn in_full(&self) -> String {
        let behind = usize::try_from(self.behind_point).unwrap_or(0);
        let mut digits: Vec<u8> = self.digits.clone();
        let following = usize::try_from(-self.behind_point).unwrap_or(0);
        if !self.is_zero() {
            digits.extend(std::iter::repeat_n(0, following));
        }
        while digits.len() <= behind {
            digits.insert(0, 0);
        }
        let text: String = digits.iter().map(|digit| char::from(b'0' + digit)).collect();
        let (whole, fraction) = text.split_at(text.len() - behind);
        let sign = if self.is_negative && !self.is_zero() { "-" } else { "" };
        if fraction.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{fraction}")
        }
    }

    /// In microdollars, rounded half up.
    pub fn worth(&self) -> Worth {
        if self.is_zero() {
            return Worth::Nothing;
        }
        if self.is_negative {
            return Worth::Negative;
        }
        let kept = i64::try_from(self.digits.len()).unwrap_or(i64::MAX) - self.behind_point + 6;
        if kept > 30 {
            return Worth::TooMuch;
        }
        let digit = |place: i64| {
            let place = usize::try_from(place).ok();
            i128::from(place.and_then(|place| self.digits.get(place)).copied().unwrap_or(0))
        };
        let amount = (0..kept).fold(0_i128, |amount, place| amount * 10 + digit(place));
        let rounded = amount + i128::from(kept >= 0 && digit(kept) >= 5);
        match i64::try_from(rounded) {
            Ok(0) => Worth::TooLittle,
            Ok(amount) if amount <= MAX_AMOUNT_MICRODOLLARS => Worth::Microdollars(amount),
            _ => Worth::TooMuch,
        }
    }
}
