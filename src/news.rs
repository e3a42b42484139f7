//! What was said lately: the same words again are no news for an hour, so that a trouble that lasts for
//! days is told of and does not fill a log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const SILENCE: Duration = Duration::from_secs(3600);
/// More than can be wrong at once and be told apart; what was said longest ago is forgotten first.
const MAX_REMEMBERED: usize = 100;

#[derive(Debug, Default)]
pub struct Said {
    at: BTreeMap<String, Instant>,
}

impl Said {
    pub const fn new() -> Self {
        Self { at: BTreeMap::new() }
    }

    /// Whether these words are worth saying now; then they count as said.
    pub fn is_news(&mut self, words: &str, now: Instant) -> bool {
        if let Some(at) = self.at.get(words)
            && now.duration_since(*at) < SILENCE
        {
            return false;
        }
        if self.at.len() >= MAX_REMEMBERED {
            self.at.retain(|_, at| now.duration_since(*at) < SILENCE);
        }
        if self.at.len() >= MAX_REMEMBERED
            && let Some(oldest) = self.at.iter().min_by_key(|(_, at)| **at).map(|(words, _)| words)
        {
            let oldest = oldest.clone();
            self.at.remove(&oldest);
        }
        self.at.insert(words.to_owned(), now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_words_are_said_once_an_hour() {
        let (mut said, begin) = (Said::new(), Instant::now());
        let mut at =
            |words: &str, seconds| said.is_news(words, begin + Duration::from_secs(seconds));
        assert!(at("a", 0) && !at("a", 1) && at("b", 2) && !at("a", 3599));
        assert!(at("a", 3600) && !at("b", 3600) && !at("a", 7199) && at("a", 7200));
    }

    #[test]
    fn of_a_hundred_words_those_an_hour_old_are_forgotten_first() {
        let (mut said, begin) = (Said::new(), Instant::now());
        for number in 0..99 {
            assert!(said.is_news(&number.to_string(), begin));
        }
        assert!(said.is_news("later", begin + Duration::from_secs(1)));
        assert!(said.is_news("last", begin + SILENCE));
        assert_eq!(said.at.keys().collect::<Vec<_>>(), ["last", "later"]);
    }

    #[test]
    fn what_is_remembered_does_not_grow() {
        let (mut said, begin) = (Said::new(), Instant::now());
        for number in 0..10_000_u64 {
            assert!(said.is_news(&number.to_string(), begin + Duration::from_millis(number)));
        }
        assert_eq!(said.at.len(), MAX_REMEMBERED);
        assert!(!said.is_news("9999", begin + Duration::from_secs(11)));
    }
}
