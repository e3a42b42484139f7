//! Owners whose rows gather so fast that one visit in a turn is too rare: their reads add up all that
//! waits. A turn that takes long comes to them between the others.

use super::gathering::{Gathered, Patience};
use crate::owner::Owner;
use crate::time::Instant;
use std::collections::BTreeMap;

/// How often an owner is to be come to.
struct Rhythm {
    every_microseconds: i64,
    next: Instant,
    /// Nobody knows whether the owner is still busy then.
    known_until: Instant,
}

#[derive(Default)]
pub struct Busy(BTreeMap<Owner, Rhythm>);

impl Busy {
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// What was found of an owner on the way through the queue.
    pub fn note(&mut self, owner: &Owner, gathered: &Gathered, patience: Patience, clock: Instant) {
        let longest = patience.longest_microseconds();
        let known_until = clock.plus_microseconds(longest.saturating_mul(2));
        match gathered.microseconds_to_enough(patience, clock) {
            Some(time) if time < longest / 2 => {
                let every_microseconds = time.max(patience.pause_microseconds());
                let next = clock.plus_microseconds(every_microseconds);
                self.0.insert(owner.clone(), Rhythm { every_microseconds, next, known_until });
            }
            None if self.was_come_to_lately(owner, gathered, clock) => {
                self.0.entry(owner.clone()).and_modify(|rhythm| rhythm.known_until = known_until);
            }
            _ => {
                self.0.remove(owner);
            }
        }
    }

    /// Then few rows say nothing.
    fn was_come_to_lately(&self, owner: &Owner, gathered: &Gathered, clock: Instant) -> bool {
        let waited = clock.microseconds_since(gathered.oldest);
        self.0.get(owner).is_some_and(|rhythm| waited < rhythm.every_microseconds)
    }

    /// Whom to come to now, in order.
    pub fn due(&mut self, clock: Instant) -> Vec<Owner> {
        self.0.retain(|_, rhythm| clock < rhythm.known_until);
        let mut due = Vec::new();
        for (owner, rhythm) in self.0.iter_mut().filter(|(_, rhythm)| rhythm.next <= clock) {
            rhythm.next = clock.plus_microseconds(rhythm.every_microseconds);
            due.push(owner.clone());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::OwnerKind;
    use crate::time::{MICROSECONDS_PER_SECOND, utc};

    const PATIENCE: Patience = Patience::UNDER_LOAD;

    fn at(seconds: i64) -> Instant {
        utc(2026, 3, 1, 0, 0).plus_microseconds(seconds * MICROSECONDS_PER_SECOND)
    }

    fn owner(id: &str) -> Owner {
        Owner { kind: OwnerKind::User, id: id.to_owned() }
    }

    fn waiting(rows: i64, since: Instant) -> Gathered {
        Gathered { rows, oldest: since, newest: since }
    }

    #[test]
    fn the_busy_are_come_to_as_often_as_enough_rows_gather() {
        let mut busy = Busy::new();
        busy.note(&owner("busy"), &waiting(100, at(0)), PATIENCE, at(2)); // 50 in a second
        busy.note(&owner("idle"), &waiting(30, at(0)), PATIENCE, at(2)); // in more than three
        busy.note(&owner("new"), &waiting(11, at(1)), PATIENCE, at(2)); // too few to tell
        assert!(busy.due(at(2)).is_empty());
        assert_eq!(busy.due(at(3)), [owner("busy")]);
        assert!(busy.due(at(3)).is_empty());
        assert_eq!(busy.due(at(4)), [owner("busy")]);
    }

    #[test]
    fn the_busiest_are_not_come_to_all_the_time() {
        let mut busy = Busy::new();
        busy.note(&owner("b"), &waiting(1_000_000, at(1)), PATIENCE, at(2));
        busy.note(&owner("a"), &waiting(1_000_000, at(1)), PATIENCE, at(2));
        let pause = at(2).plus_microseconds(PATIENCE.pause_microseconds());
        assert!(busy.due(pause.plus_microseconds(-1)).is_empty());
        assert_eq!(busy.due(pause), [owner("a"), owner("b")]);
    }

    #[test]
    fn few_rows_right_after_a_visit_say_nothing_and_later_they_do() {
        let mut busy = Busy::new();
        let note = |busy: &mut Busy, rows, oldest, clock| {
            busy.note(&owner("busy"), &waiting(rows, at(oldest)), PATIENCE, at(clock));
        };
        note(&mut busy, 50, 0, 2); // enough in two seconds
        note(&mut busy, 10, 9, 10);
        assert_eq!(busy.due(at(11)), [owner("busy")]);
        note(&mut busy, 10, 12, 14);
        assert!(busy.due(at(15)).is_empty());
    }

    #[test]
    fn who_is_not_met_again_is_forgotten() {
        let mut busy = Busy::new();
        busy.note(&owner("busy"), &waiting(100, at(0)), PATIENCE, at(2));
        assert_eq!(busy.due(at(11)), [owner("busy")]);
        assert!(busy.due(at(12)).is_empty());
        assert!(busy.0.is_empty());
    }

    #[test]
    fn without_load_nobody_is_busy() {
        let mut busy = Busy::new();
        let idle = Patience::of(499, 0);
        busy.note(&owner("one"), &waiting(400, at(0)), idle, at(0));
        assert!(busy.0.is_empty());
    }
}
