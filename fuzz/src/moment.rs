//! A slow and plain reading of times, with which the quick one of the library is compared: whole
//! numbers, counted from the year 0 on, and no calendar but the one below.

use crate::time::Instant;

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

/// The microseconds since 2000-01-01 00:00 UTC of a time such as `2026-11-22T10:30:00.5+02:00`. None
/// for anything else. Any number of decimals: the seventh decides which microsecond is nearest.
pub fn microseconds(text: &str) -> Option<i64> {
    let characters: Vec<char> = text.chars().collect();
    let (date_and_time, rest) = characters.split_at_checked(19)?;
    let is_laid_out = date_and_time.iter().zip("dddd-dd-ddTdd:dd:dd".chars()).all(fits);
    if !is_laid_out {
        return None;
    }
    let number = |from: usize, to: usize| number(&date_and_time[from..to]);
    let (year, month, day) = (number(0, 4), number(5, 7), number(8, 10));
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    let is_date = (1..=12).contains(&month) && (1..=days_of_month(year, month)).contains(&day);
    // The sixtieth second of a minute is a leap second, told as the first of the next minute.
    if !is_date || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, zone) = fraction(rest)?;
    let days = days_before(year, month) + day - 1 - days_before(2000, 1);
    let seconds = (hour * 60 + minute - minutes_ahead(zone)?) * 60 + second;
    Some(days * DAY + seconds * SECOND + fraction)
}

fn fits((found, wanted): (&char, char)) -> bool {
    match wanted {
        'd' => found.is_ascii_digit(),
        'T' => ['T', 't', ' '].contains(found),
        _ => *found == wanted,
    }
}

fn number(digits: &[char]) -> i64 {
    digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit.to_digit(10).unwrap_or(0)))
}

/// The microseconds behind the point, rounded half up, and what follows them.
fn fraction(rest: &[char]) -> Option<(i64, &[char])> {
    let Some(('.', rest)) = rest.split_first().map(|(first, rest)| (*first, rest)) else {
        return Some((0, rest));
    };
    let count = rest.iter().take_while(|character| character.is_ascii_digit()).count();
    let (mut digits, zone) = (rest[..count].to_vec(), &rest[count..]);
    digits.resize(digits.len().max(7), '0');
    let rounded = number(&digits[..6]) + i64::from(number(&digits[6..7]) >= 5);
    (count > 0).then_some((rounded, zone))
}

/// `Z`, or hours and minutes to the east. The minus sign may be the typographic one.
fn minutes_ahead(zone: &[char]) -> Option<i64> {
    let (sign, rest) = match zone {
        ['Z' | 'z'] => return Some(0),
        ['+', rest @ ..] => (1, rest),
        ['-' | '\u{2212}', rest @ ..] => (-1, rest),
        _ => return None,
    };
    let is_laid_out = rest.len() == 5 && rest.iter().zip("dd:dd".chars()).all(fits);
    let (hours, minutes) = is_laid_out.then(|| (number(&rest[..2]), number(&rest[3..])))?;
    (hours <= 23 && minutes <= 59).then_some(sign * (hours * 60 + minutes))
}

fn is_leap_year(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap_year(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The days from the first of the year 0 to the first of this month.
fn days_before(year: i64, month: i64) -> i64 {
    // The year 0 was a leap year, so the leap days before a year are those of a fourth of the years
    // rounded up, and so on.
    let leap_days = (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    year * 365 + leap_days + (1..month).map(|month| days_of_month(year, month)).sum::<i64>()
}

/// As a condition keeps it: `2026-11-22 08:30:00.500+00`, in as many threes of decimals as it takes.
/// None before the year 1 and after the year 9999.
pub fn written(microseconds: i64) -> Option<String> {
    let (day, time) = (microseconds.div_euclid(DAY), microseconds.rem_euclid(DAY));
    let day = day + days_before(2000, 1);
    let mut year = day.div_euclid(366).max(0);
    while day >= days_before(year + 1, 1) {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && day >= days_before(year, month + 1) {
        month += 1;
    }
    let date = day - days_before(year, month) + 1;
    let (second, fraction) = (time / SECOND, time % SECOND);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let decimals = match fraction {
        0 => String::new(),
        _ if fraction % 1_000 == 0 => format!(".{:03}", fraction / 1_000),
        _ => format!(".{fraction:06}"),
    };
    let text =
        format!("{year:04}-{month:02}-{date:02} {hour:02}:{minute:02}:{second:02}{decimals}+00");
    (day >= 0 && (1..=9999).contains(&year)).then_some(text)
}

/// The library reads a text as the same instant, or as none.
pub fn assert_time_is_exact(text: &str) {
    let read = Instant::parse_rfc3339(text).map(|instant| instant.0);
    assert_eq!(read, microseconds(text), "{text:?}");
}
