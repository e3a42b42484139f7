//! Faults of the surroundings: locks in other hands, full disks, full lock tables, cancelled statements,
//! ended sessions, transactions in two phases. Each time the error is a clear one, nothing is half done,
//! and afterwards everything works again.
//!
//! A worker that meets such things is in tests/worker_faults.rs, migrations that fail in
//! tests/upgrade_failing.rs, and too few processes in tests/health_worker.rs.

#[path = "proof_faults/calls.rs"]
mod calls;
mod common;
#[path = "proof_faults/locks.rs"]
mod locks;
mod proof_common;
mod usage_common;

#[test]
fn a_lock_in_somebody_elses_hands_is_an_error_in_time_and_leaves_nothing() {
    locks::each_in_somebody_elses_hands();
}

#[test]
fn row_locks_stop_what_needs_them_and_nothing_else() {
    locks::of_rows_stop_what_needs_them_and_nothing_else();
}
