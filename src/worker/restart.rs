//! How long a database waits for a new worker after its last one has ended.

use std::time::Duration;

const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A worker that has lived so long was well.
const STEADY: Duration = Duration::from_secs(60);

/// Twice as long after each worker that has ended soon, up to a minute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    next: Duration,
}

impl Restart {
    pub const fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    /// The pause after a worker that has lived so long.
    pub fn pause_after(&mut self, lived: Duration) -> Duration {
        if lived >= STEADY {
            *self = Self::new();
        }
        let pause = self.next;
        self.next = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_one_lives_long() {
        let mut restart = Restart::new();
        let mut pause = |lived| restart.pause_after(Duration::from_secs(lived)).as_secs();
        assert_eq!([0, 59, 1, 0, 0, 0].map(&mut pause), [5, 10, 20, 40, 60, 60]);
        assert_eq!([60, 3, 100_000].map(pause), [5, 10, 5]);
    }
}
