//! Whose rows are worth posting now. Each visit to an owner writes the same figures, however many rows
//! it posts; so under load rows are let gather for a moment. Every read adds them up meanwhile.

use crate::time::{Instant, MICROSECONDS_PER_SECOND};

/// As many rows at the beginning of a turn are load; fewer are posted at once.
const ROWS_OF_LOAD: i64 = 500;

/// How long rows are let gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// So many of one owner gather no further, for they are added up by every read.
    rows_enough: i64,
    longest_microseconds: i64,
}

impl Patience {
    const NONE: Self = Self { rows_enough: 1, longest_microseconds: 0 };
    pub const UNDER_LOAD: Self =
        Self { rows_enough: 50, longest_microseconds: 5 * MICROSECONDS_PER_SECOND };

    /// A transaction that is held open keeps every version of every figure in its place, and each visit
    /// adds one that all later ones step over. So the longer it is held, the rarer are the visits;
    /// nothing waits so long that anybody should worry.
    fn beside_old_transaction(kept_microseconds: i64) -> Self {
        let shortest = Self::UNDER_LOAD.longest_microseconds;
        let longest_microseconds = kept_microseconds.clamp(shortest, 60 * MICROSECONDS_PER_SECOND);
        Self { rows_enough: 2_000, longest_microseconds }
    }

    /// Between two turns: rows wait longer by this at most, and those of a busy owner grow more than enough
    /// meanwhile.
    pub fn pause_microseconds(self) -> i64 {
        (self.longest_microseconds / 8).min(3 * MICROSECONDS_PER_SECOND)
    }

    pub fn longest_microseconds(self) -> i64 {
        self.longest_microseconds
    }

    /// With so many rows at the beginning of a turn, and after a transaction has held deleted rows in
    /// their places for so long: soon where there is load, after a minute also where there is none.
    pub fn of(rows: i64, kept_microseconds: i64) -> Self {
        let is_load = rows >= ROWS_OF_LOAD;
        let is_old = kept_microseconds >= if is_load { 10 } else { 60 } * MICROSECONDS_PER_SECOND;
        match (is_old, is_load) {
            (true, _) => Self::beside_old_transaction(kept_microseconds),
            (false, true) => Self::UNDER_LOAD,
            (false, false) => Self::NONE,
        }
    }
}

/// An owner's rows that wait.
#[derive(Debug, Clone, Copy)]
pub struct Gathered {
    pub rows: i64,
    /// By the times of the charges.
    pub oldest: Instant,
    pub newest: Instant,
}

impl Gathered {
    pub fn first(created_at: Instant) -> Self {
        Self { rows: 1, oldest: created_at, newest: created_at }
    }

    pub fn add(&mut self, created_at: Instant) {
        self.rows += 1;
        self.oldest = self.oldest.min(created_at);
        self.newest = self.newest.max(created_at);
    }

    /// In what time as many rows gather as are enough; none where too few wait to tell.
    pub fn microseconds_to_enough(&self, patience: Patience, clock: Instant) -> Option<i64> {
        let waited = clock.microseconds_since(self.oldest).max(1);
        (self.rows >= patience.rows_enough / 4)
            .then(|| waited.saturating_mul(patience.rows_enough) / self.rows.max(1))
    }

    /// A charge dated ahead says nothing of how long it has waited.
    pub fn is_enough(&self, patience: Patience, clock: Instant) -> bool {
        self.rows >= patience.rows_enough
            || self.newest > clock
            || clock.microseconds_since(self.oldest) >= patience.longest_microseconds
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;

    fn is_enough(patience: Patience, rows: i64, oldest: i64, newest: i64) -> bool {
        let clock = utc(2026, 3, 1, 0, 0);
        let at = |microseconds| clock.plus_microseconds(microseconds);
        Gathered { rows, oldest: at(oldest), newest: at(newest) }.is_enough(patience, clock)
    }

    #[test]
    fn rows_gather_until_they_are_many_or_old() {
        let enough = |rows, oldest, newest| is_enough(Patience::UNDER_LOAD, rows, oldest, newest);
        assert!(!enough(49, -4_999_999, 0));
        assert!(enough(50, 0, 0));
        assert!(enough(1, -5_000_000, 0));
        assert!(enough(1, -5_000_001, -5_000_001));
        assert!(enough(2, -1, 1));
    }

    #[test]
    fn turns_are_put_off_by_a_part_of_what_rows_may_wait() {
        assert_eq!(Patience::NONE.pause_microseconds(), 0);
        assert_eq!(Patience::UNDER_LOAD.pause_microseconds(), 625_000);
        assert_eq!(Patience::of(1, i64::MAX).pause_microseconds(), 3 * MICROSECONDS_PER_SECOND);
    }

    #[test]
    fn few_rows_are_posted_at_once() {
        assert!(is_enough(Patience::of(499, 0), 1, 0, 0));
        assert!(!is_enough(Patience::of(500, 0), 1, 0, 0));
    }

    #[test]
    fn the_longer_a_transaction_is_held_the_rarer_are_the_visits() {
        let second = MICROSECONDS_PER_SECOND;
        assert_eq!(Patience::of(499, 60 * second - 1), Patience::NONE);
        assert_eq!(Patience::of(500, 10 * second - 1), Patience::UNDER_LOAD);
        for (rows, kept, longest) in [
            (500, 10 * second, 10 * second),
            (500, 30 * second, 30 * second),
            (1, 60 * second, 60 * second),
            (9_999, 90 * second, 60 * second),
            (1, i64::MAX, 60 * second),
        ] {
            let patience = Patience::of(rows, kept);
            assert!(!is_enough(patience, 1_999, 1 - longest, 0));
            assert!(is_enough(patience, 2_000, 0, 0) && is_enough(patience, 1, -longest, 0));
        }
    }

    #[test]
    fn rows_are_counted_with_the_first_and_the_last_of_their_times() {
        let at = |minute| utc(2026, 3, 1, 0, minute);
        let mut gathered = Gathered::first(at(2));
        gathered.add(at(1));
        gathered.add(at(3));
        assert_eq!((gathered.rows, gathered.oldest, gathered.newest), (3, at(1), at(3)));
    }
}
