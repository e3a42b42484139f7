//! Random histories of everything that writes, from several sessions, against a model of the books
//! that shares nothing with the product.

mod common;
mod proof_common;

#[path = "proof_histories/apply.rs"]
mod apply;
#[path = "proof_histories/check/mod.rs"]
mod check;
#[path = "proof_histories/model/mod.rs"]
mod model;
#[path = "proof_histories/place.rs"]
mod place;
#[path = "proof_histories/plan/mod.rs"]
mod plan;
#[path = "proof_histories/play/mod.rs"]
mod play;
#[path = "proof_histories/step/mod.rs"]
mod step;

use place::{CALLS, COUNTS, Place, READ};
use proof_common::{figure, prove_in, trial};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const PART: &str = "histories";

/// Functions and views that no history makes use of, and the test that does.
const ELSEWHERE: [(&str, &str); 23] = [
    ("backfill_next_hours", "rollups_backfill.rs"),
    ("capture_spend", "ledger_lifecycle.rs"),
    ("current_user_id", "row_security_identity.rs"),
    ("enable_row_security", "row_security_keeping.rs"),
    ("follow_altered_tables", "lifecycle_catalog.rs"),
    ("grant_application", "row_security_keeping.rs"),
    ("grant_auditor", "access.rs"),
    ("grant_end_user", "access.rs"),
    ("grant_operator", "row_security_keeping.rs"),
    ("guard_concurrent_detach", "lifecycle_catalog.rs"),
    ("guard_dropped_objects", "lifecycle_catalog.rs"),
    ("health_checks", "health.rs"),
    ("maintain_partitions", "partitions.rs"),
    ("managed_organizations", "row_security_identity.rs"),
    ("recompute_next_owner", "security.rs"),
    ("refuse_change", "verify_damage.rs"),
    ("refuse_direct_change", "bad_input.rs"),
    ("refuse_truncate", "ledger_lifecycle.rs"),
    ("run_maintenance_step", "jobs.rs"),
    ("setup", "dump.rs"),
    ("start_worker", "jobs.rs"),
    ("stop_worker", "jobs.rs"),
    ("worker_jobs", "jobs.rs"),
];

/// Mostly short ones, which are soon read when one fails; now and then a long one.
fn length(seed: u64) -> usize {
    if seed.is_multiple_of(200) { 150 } else { 8 + usize::try_from(seed % 19).expect("small") }
}

#[test]
fn histories_are_what_the_model_says_and_call_everything_there_is() {
    let trial = trial(2_000);
    let tried = prove_in(PART, trial, 2, Place::new, |place, seed| {
        play::play(place, seed, length(seed));
    });
    let read = READ.lock().expect("what is read is counted");
    let calls = CALLS.lock().expect("the calls are counted");
    let total: u64 = calls.values().sum();
    figure(PART, &format!("{total} calls of {} functions", calls.len()));
    for (what, count) in COUNTS.lock().expect("counted").iter() {
        figure(PART, &format!("{count} {what}"));
    }
    elsewhere_is_there();
    if tried >= ENOUGH {
        assert_eq!(unused(&functions(), &calls), Vec::<&str>::new());
        assert_eq!(unused(&views(), &read), Vec::<&str>::new());
    }
}

/// So many histories make use of everything.
const ENOUGH: u64 = 200;

/// The functions of the extension, by the matrix of who may call them.
fn functions() -> Vec<&'static str> {
    let matrix = include_str!("../src/access/matrix.rs");
    let rows = matrix.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    let functions: Vec<&str> = rows.filter_map(|row| row.split('"').next()).collect();
    assert!(functions.len() > 70, "the matrix cannot be read: {functions:?}");
    functions
}

fn views() -> Vec<&'static str> {
    let views = include_str!("../sql/books/views.sql").split("VIEW exa_billing.").skip(1);
    let views: Vec<&str> =
        views.filter_map(|view| view.split_once(" WITH")).map(|(name, _)| name).collect();
    assert!(views.len() > 8, "the views cannot be read: {views:?}");
    views
}

/// The tests that are named for something are there, and speak of it.
fn elsewhere_is_there() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for (name, test) in ELSEWHERE {
        let text = fs::read_to_string(tests.join(test)).unwrap_or_default();
        let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        assert!(words.any(|word| word == name), "tests/{test} does not speak of {name}");
        assert!(functions().contains(&name) || views().contains(&name), "{name} is no more");
    }
}

/// What neither a history makes use of nor somebody else, or both do.
fn unused(all: &[&'static str], used: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let is_elsewhere = |name: &str| ELSEWHERE.iter().any(|(other, _)| *other == name);
    let is_wrong = |name: &&str| used.contains_key(*name) == is_elsewhere(name);
    all.iter().copied().filter(is_wrong).collect()
}
