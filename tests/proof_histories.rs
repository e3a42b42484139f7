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
#[path = "proof_histories/play.rs"]
mod play;
#[path = "proof_histories/step/mod.rs"]
mod step;

use place::{CALLS, Place};
use proof_common::{figure, prove_in, trial};
use std::collections::BTreeMap;

const PART: &str = "histories";

/// Functions that no history calls, and who else does.
const ELSEWHERE: [(&str, &str); 19] = [
    ("backfill_next_hours", "the step of backfill_rollups(), which is called"),
    ("capture_spend", "a trigger: each change of an attached table fires it"),
    ("current_user_id", "of row security"),
    ("enable_row_security", "of row security"),
    ("follow_altered_tables", "an event trigger: each table that is made fires it"),
    ("grant_application", "rights are another part's"),
    ("grant_auditor", "rights are another part's"),
    ("grant_end_user", "rights are another part's"),
    ("grant_operator", "rights are another part's"),
    ("guard_concurrent_detach", "an event trigger, of ALTER TABLE"),
    ("guard_dropped_objects", "an event trigger: each table that is dropped fires it"),
    ("managed_organizations", "of row security"),
    ("recompute_next_owner", "the step of recompute_all_balances(), which is called"),
    ("refuse_change", "a trigger; it refuses, and changes nothing"),
    ("refuse_direct_change", "a trigger; it refuses, and changes nothing"),
    ("refuse_truncate", "a trigger; it refuses, and changes nothing"),
    ("run_maintenance_step", "the step of run_maintenance(), which is called"),
    ("setup", "calls of the first day are another part's"),
    ("stop_worker", "the worker's; histories have none"),
];

/// Mostly short ones, which are soon read when one fails; now and then a long one.
fn length(seed: u64) -> usize {
    if seed.is_multiple_of(200) { 150 } else { 15 + usize::try_from(seed % 26).expect("small") }
}

#[test]
fn histories_are_what_the_model_says_and_call_everything_there_is() {
    let trial = trial(2_000);
    let tried = prove_in(PART, trial, 2, Place::new, |place, seed| {
        play::play(place, seed, length(seed));
        if trial.rounds == 1 {
            // A seed that is tried again may have failed only when everybody was looked at.
            place.work_on_all();
        }
    });
    let calls = CALLS.lock().expect("the calls are counted");
    let total: u64 = calls.values().sum();
    figure(PART, &format!("{total} calls of {} functions", calls.len()));
    if tried >= ENOUGH {
        assert_eq!(not_called(&calls), Vec::<&str>::new());
    }
}

/// So many histories call everything.
const ENOUGH: u64 = 200;

/// The functions of the extension that neither a history calls nor somebody else.
fn not_called(calls: &BTreeMap<String, u64>) -> Vec<&'static str> {
    let matrix = include_str!("../src/access/matrix.rs");
    let rows = matrix.lines().filter_map(|line| line.trim().strip_prefix("(\""));
    let functions: Vec<&str> = rows.filter_map(|row| row.split('"').next()).collect();
    assert!(functions.len() > 70, "the matrix cannot be read: {functions:?}");
    for (name, _) in ELSEWHERE {
        assert!(functions.contains(&name), "{name} is no function any more");
        assert!(!calls.contains_key(name), "{name} is called by histories");
    }
    let is_elsewhere = |name: &&str| ELSEWHERE.iter().any(|(other, _)| other == name);
    let missing = functions.into_iter().filter(|name| !calls.contains_key(*name));
    missing.filter(|name| !is_elsewhere(name)).collect()
}
