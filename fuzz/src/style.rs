//! What every refusal looks like, and every text that was accepted.

use crate::error::{BillingError, Kind};
use crate::owner;

/// Bad input is 22023, said in the house's words and never at length.
pub fn assert_refused_well(error: &BillingError) {
    assert_eq!(error.kind, Kind::InvalidParameter, "{error:?}");
    assert!(!error.message.is_empty() && !error.message.ends_with('.'), "{error:?}");
    let begins_small = error.message.chars().next().is_some_and(char::is_lowercase);
    assert!(begins_small, "{error:?}");
    for sentence in [&error.detail, &error.hint].into_iter().flatten() {
        assert!(sentence.ends_with('.'), "{error:?}");
    }
    let words = [Some(&error.message), error.detail.as_ref(), error.hint.as_ref()];
    for text in words.into_iter().flatten() {
        assert!(text.chars().count() < 1_500, "{error:?}");
        assert!(!text.chars().any(char::is_control), "{error:?}");
    }
}

/// 1 … 255 characters, not padded, no control characters.
pub fn is_identifier(text: &str) -> bool {
    (1..=owner::MAX_ID_CHARS).contains(&text.chars().count())
        && !text.starts_with(char::is_whitespace)
        && !text.ends_with(char::is_whitespace)
        && !text.chars().any(char::is_control)
}
