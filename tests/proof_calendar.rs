//! The calendar: around month ends, leap days, ends of years and changes of the clock, every figure is
//! that of plain arithmetic in UTC, to the microsecond, and the same in sessions of any habits.
//!
//! Beside this: tests/usage_time.rs (late and early requests), tests/usage_time_zones.rs (the edge of
//! the current month), tests/credits_expiration.rs (ties and order of expiries), tests/evidence.rs and
//! tests/evidence_random.rs (what is covered and what is not), tests/maintain_partitions.rs.

mod common;
mod proof_common;
mod usage_common;

#[path = "proof_calendar/alerts.rs"]
mod alerts;
#[path = "proof_calendar/credits.rs"]
mod credits;
#[path = "proof_calendar/edges.rs"]
mod edges;
#[path = "proof_calendar/evidence.rs"]
mod evidence;
#[path = "proof_calendar/history.rs"]
mod history;
#[path = "proof_calendar/model.rs"]
mod model;
#[path = "proof_calendar/usage.rs"]
mod usage;
#[path = "proof_calendar/writing.rs"]
mod writing;
#[path = "proof_calendar/zones.rs"]
mod zones;

use history::History;
use proof_common::{figure, prove_in, trial};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use usage_common::assert_books_hold;
use writing::Books;
use zones::SETTINGS;

static COMPARED: AtomicU64 = AtomicU64::new(0);

/// Fails with both where an answer is not what the calendar says.
#[track_caller]
fn compared<T: PartialEq + Debug>(told: &T, expected: &T, who: &str, what: &str) {
    COMPARED.fetch_add(1, Ordering::Relaxed);
    assert_eq!(told, expected, "{what}, {who}");
}

/// Writes a history in one session and asks about it in another, before and after posting.
fn compare(books: &mut Books, history: &History, writer: usize, reader: usize) {
    let (mut writing, mut reading) =
        (books.session(SETTINGS[writer]), books.session(SETTINGS[reader]));
    let who = format!(
        "written under {:?}, read under {:?}: {history:#?}",
        SETTINGS[writer], SETTINGS[reader]
    );
    let model = writing::tell(&mut writing, history);
    for is_posted in [false, true] {
        if is_posted {
            writing::post(&mut writing);
            evidence::compare_rollups(&mut writing, &model, &who);
            usage::compare_days(&mut reading, &model, &who);
        }
        usage::compare(&mut reading, &model, &who);
        credits::compare(&mut reading, &model, &who);
        evidence::compare(&mut reading, &model, &who);
    }
    alerts::compare(&mut writing, &model, &who);
    credits::expire(&mut writing, &model, &who);
}

#[test]
fn random_histories_around_the_edges_are_those_of_plain_arithmetic_in_utc() {
    prove_in(
        "calendar",
        trial(20),
        2,
        |_| Books::new(),
        |books, seed| {
            let others = SETTINGS.len() as u64;
            let (writer, reader) = (seed % others, seed / others % others);
            compare(books, &History::random(seed), writer as usize, reader as usize);
            assert_books_hold(&mut books.plain);
        },
    );
    figure("calendar", &format!("{} answers compared", COMPARED.load(Ordering::Relaxed)));
}
