//! Which hours the rollups can be trusted with.

use super::hours::Hours;
use crate::time::Instant;

/// What is known of the hours of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The hour from which some journal is known. An hour without rows is zero from there on and
    /// unknown before.
    pub known_from: Instant,
    /// Hours that are not trusted, in order; they neither overlap nor touch.
    pub degraded: Vec<Hours>,
}

impl Coverage {
    /// Whether the rollups hold everything of this hour.
    pub fn covers(&self, hour_start: Instant) -> bool {
        let degraded = self.degraded.iter().any(|hours| hours.contains(hour_start));
        self.is_known(hour_start) && !degraded
    }

    /// Whether an hour without rows is known to be zero.
    pub fn is_known(&self, hour_start: Instant) -> bool {
        self.known_from <= hour_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: i64, to: i64) -> Hours {
        Hours { from: Instant(from), to: Instant(to) }
    }

    #[test]
    fn a_degraded_hour_is_known_but_not_covered() {
        let coverage = Coverage { known_from: Instant(2), degraded: vec![hours(3, 5)] };
        let of = |hour| (coverage.is_known(Instant(hour)), coverage.covers(Instant(hour)));
        assert_eq!(
            [of(1), of(2), of(4), of(5)],
            [(false, false), (true, true), (true, false), (true, true)]
        );
    }
}
