//! Whose rows are worth posting now. Each visit to an owner writes the same figures, however many rows
//! it posts; so under load rows are let gather for a moment. Every read adds them up meanwhile.

use crate::time::Instant;

/// As many rows at the beginning of a turn are load; fewer are posted at once.
const ROWS_OF_LOAD: i64 = 500;
/// So many of one owner gather no further, for they are added up by every read.
const ROWS_ENOUGH: i64 = 50;
const LONGEST_MICROSECONDS: i64 = 5_000_000;

/// An owner's rows that wait.
#[derive(Debug, Clone, Copy)]
pub struct Gathered {
    pub rows: i64,
    /// By the times of the charges.
    pub oldest: Instant,
    pub newest: Instant,
}

pub fn is_load(rows: i64) -> bool {
    rows >= ROWS_OF_LOAD
}

impl Gathered {
    /// A charge dated ahead says nothing of how long it has waited.
    pub fn is_enough(&self, clock: Instant) -> bool {
        self.rows >= ROWS_ENOUGH
            || self.newest > clock
            || clock.microseconds_since(self.oldest) >= LONGEST_MICROSECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;

    #[test]
    fn rows_gather_until_they_are_many_or_old() {
        let clock = utc(2026, 3, 1, 0, 0);
        let enough = |rows, oldest: i64, newest: i64| {
            let at = |microseconds| clock.plus_microseconds(microseconds);
            Gathered { rows, oldest: at(oldest), newest: at(newest) }.is_enough(clock)
        };
        assert!(!enough(49, -4_999_999, 0));
        assert!(enough(50, 0, 0));
        assert!(enough(1, -5_000_000, 0));
        assert!(enough(1, -5_000_001, -5_000_001));
        assert!(enough(2, -1, 1));
    }

    #[test]
    fn few_rows_are_no_load() {
        assert!(!is_load(499));
        assert!(is_load(500));
    }
}
