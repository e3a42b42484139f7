//! How things stand, in one word.

/// How an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    /// Alerts are on and this one is wanted.
    pub is_watched: bool,
    /// While one lasts: whether somebody has reviewed it.
    pub reviewed: Option<bool>,
}

impl Alert {
    pub fn word(self) -> &'static str {
        match (self.is_watched, self.reviewed) {
            (_, Some(false)) => "review",
            (_, Some(true)) => "reviewed",
            (true, None) => "quiet",
            (false, None) => "off",
        }
    }
}

/// How a balance stands to its minimum.
pub fn balance_word(balance: i64, minimum: Option<i64>) -> &'static str {
    match minimum {
        None => "off",
        Some(minimum) if balance < minimum => "low",
        Some(_) => "ok",
    }
}

/// What 30 days cost if they go on as the 7 that were observed.
pub fn thirty_day_pace(observed_in_7_days: i64) -> i64 {
    let pace = i128::from(observed_in_7_days) * 30 / 7;
    i64::try_from(pace).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_state_has_its_word() {
        let word = |is_watched, reviewed| Alert { is_watched, reviewed }.word();
        assert_eq!([word(false, None), word(true, None)], ["off", "quiet"]);
        assert_eq!([word(true, Some(false)), word(true, Some(true))], ["review", "reviewed"]);
        assert_eq!(
            [balance_word(4, None), balance_word(4, Some(5)), balance_word(5, Some(5))],
            ["off", "low", "ok"]
        );
    }

    #[test]
    fn the_pace_is_that_of_thirty_days() {
        assert_eq!(thirty_day_pace(106_900_000), 458_142_857);
        assert_eq!(thirty_day_pace(7), 30);
        assert_eq!(thirty_day_pace(i64::MAX), i64::MAX);
    }

    proptest! {
        #[test]
        fn a_larger_amount_has_no_smaller_pace(one in 0..i64::MAX, more in 0..1_000_000_i64) {
            prop_assert!(thirty_day_pace(one) <= thirty_day_pace(one.saturating_add(more)));
        }
    }
}
