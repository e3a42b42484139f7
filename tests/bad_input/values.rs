//! Classes of values that are refused.

/// A class of values that an argument refuses.
#[derive(Clone, Copy)]
pub enum Bad {
    Null,
    /// Empty, padded, with control characters.
    NoWords,
    /// The same, and more than 255 characters.
    NoId,
    /// The same, and more than 128 characters.
    NoLabel,
    LongerThan(usize),
    Negative,
    NotPositive,
    /// 2^53 and more.
    TooLarge,
    /// `infinity` and `-infinity`, and what no calendar has.
    Endless,
    Future,
    LongAgo,
    NoWordOf(&'static str),
    Values(&'static [&'static str]),
}

use Bad::{
    Endless, Future, LongAgo, LongerThan, Negative, NoId, NoLabel, NoWordOf, NoWords, NotPositive,
    Null, TooLarge, Values,
};

impl Bad {
    /// The values, as SQL.
    pub fn values(self) -> Vec<String> {
        let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        match self {
            Null => list(&["null"]),
            NoId => NoWords.values().into_iter().chain(LongerThan(255).values()).collect(),
            NoLabel => NoWords.values().into_iter().chain(LongerThan(128).values()).collect(),
            NoWords => list(&[
                "''",
                "' '",
                "' a'",
                "'a '",
                r"E'\ta'",
                r"E'a\n'",
                r"E'a\nb'",
                r"E'a\x01b'",
                r"E'a\x7f'",
                r"E'\u00a0a'",
                r"E'a\u3000'",
                r"E'a\u0085b'",
            ]),
            LongerThan(limit) => ["x", "𝄞"]
                .iter()
                .map(|character| format!("repeat('{character}', {})", limit + 1))
                .collect(),
            Negative => list(&["-1", "-9223372036854775808"]),
            NotPositive => list(&["0", "-1", "-9223372036854775808"]),
            TooLarge => list(&["9007199254740992", "9223372036854775807"]),
            Endless => list(&["'infinity'", "'-infinity'", "'294276-12-31 23:59:59.999999+00'"]),
            Future => list(&["clock_timestamp() + interval '6 minutes'", "'9999-12-31 00:00+00'"]),
            LongAgo => {
                list(&["clock_timestamp() - interval '36 days'", "'4714-11-24 00:00+00 BC'"])
            }
            NoWordOf(word) => {
                let capital = word.to_uppercase();
                ["", "nonsense", &capital, &format!(" {word}"), &format!("{word}s")]
                    .map(|text| format!("'{text}'"))
                    .to_vec()
            }
            Values(values) => list(values),
        }
    }
}
