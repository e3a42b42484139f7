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
#[path = "proof_calendar/named.rs"]
mod named;
#[path = "proof_calendar/usage.rs"]
mod usage;
#[path = "proof_calendar/writing.rs"]
mod writing;
#[path = "proof_calendar/zones.rs"]
mod zones;

use edges::EDGES;
use history::History;
use proof_common::{figure, prove_in, trial};
use std::env;
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
fn compare(books: &mut Books, history: &History, writer: &str, reader: &str) {
    let (mut writing, mut reading) = (books.session(writer), books.session(reader));
    let who = format!("written under {writer:?}, read under {reader:?}: {history:#?}");
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
        trial(12),
        2,
        |_| Books::new(),
        |books, seed| {
            let other = |number: u64| SETTINGS[(number % SETTINGS.len() as u64) as usize];
            let (writer, reader) = (other(seed), other(3 * seed + seed / SETTINGS.len() as u64));
            compare(books, &History::random(seed), writer, reader);
            assert_books_hold(&mut books.plain);
        },
    );
    figure("calendar", &format!("{} answers compared by then", COMPARED.load(Ordering::Relaxed)));
}

/// The same script in several sessions: each must answer as plain arithmetic does, so all answer alike.
#[test]
fn every_named_edge_is_the_same_instant_in_every_session() {
    // The plain session and the edge's own, and in the long form all of them.
    let is_long = env::var_os("EXA_BILLING_PROOF_FIGURES").is_some();
    let mut books = Books::new();
    let mut count = 0;
    for (number, (name, _, own)) in EDGES.into_iter().enumerate() {
        let history = History::at_edge(number);
        for (session, settings) in SETTINGS.into_iter().enumerate() {
            if !is_long && ![0, own].contains(&session) {
                continue;
            }
            let history = history.of(&session.to_string());
            let mut c = books.session(settings);
            let who = format!("{name}, under {settings:?}: {history:#?}");
            let model = writing::tell(&mut c, &history);
            // Some are posted, some wait.
            if (number + session).is_multiple_of(2) {
                writing::post(&mut c);
            }
            usage::compare(&mut c, &model, &who);
            credits::compare(&mut c, &model, &who);
            evidence::compare(&mut c, &model, &who);
            credits::expire(&mut c, &model, &who);
            count += 1;
        }
    }
    writing::assert_months(&mut books.plain);
    assert_books_hold(&mut books.plain);
    let compared = COMPARED.load(Ordering::Relaxed);
    let (edges, what) = (EDGES.len(), "scripts around them");
    figure(
        "calendar",
        &format!("{edges} named edges, {count} {what}, {compared} answers compared by then"),
    );
}
