//! Faults of the surroundings: locks in other hands, full disks, full lock tables, cancelled statements,
//! ended sessions, transactions in two phases. Each time the error is a clear one, nothing is half done,
//! and afterwards everything works again.
//!
//! A worker that meets such things is in tests/worker_faults.rs, migrations that fail in
//! tests/upgrade_failing.rs, and too few processes in tests/health_worker.rs.

#[path = "proof_faults/calls.rs"]
mod calls;
mod books_common;
mod common;
#[path = "proof_faults/disk.rs"]
mod disk;
#[path = "proof_faults/file_limit.rs"]
mod file_limit;
#[path = "proof_faults/interruptions.rs"]
mod interruptions;
#[path = "proof_faults/lock_table.rs"]
mod lock_table;
#[path = "proof_faults/locks.rs"]
mod locks;
#[path = "proof_faults/log_disk.rs"]
mod log_disk;
mod proof_common;
#[path = "proof_faults/small_disk.rs"]
mod small_disk;
#[path = "proof_faults/two_phase.rs"]
mod two_phase;
mod upgrade_common;
mod usage_common;
mod worker_common;
#[path = "proof_faults/works.rs"]
mod works;

#[test]
fn a_lock_in_somebody_elses_hands_is_an_error_in_time_and_leaves_nothing() {
    locks::each_in_somebody_elses_hands();
}

#[test]
fn a_call_that_waits_can_be_cancelled_anywhere() {
    locks::a_wait_can_be_cancelled_anywhere();
}

#[test]
fn row_locks_stop_what_needs_them_and_nothing_else() {
    locks::of_rows_stop_what_needs_them_and_nothing_else();
}

#[test]
fn a_full_lock_table_is_an_error_that_leaves_nothing() {
    lock_table::every_call_with_few_locks_to_spare();
}

#[test]
fn a_full_lock_table_ends_no_worker() {
    lock_table::the_worker_outlives_it();
}

#[test]
fn a_full_disk_stops_everything_in_the_middle_and_nothing_is_half_done() {
    disk::stops_everything_in_the_middle_and_nothing_is_half_done();
}

#[test]
fn prepared_transactions_wait_through_a_crash_and_disturb_nobody() {
    two_phase::prepared_charges_and_grants_wait_through_a_crash();
}

#[test]
fn statements_interrupted_at_random_moments_leave_nothing_half_done() {
    interruptions::at_random_moments_leave_nothing_half_done();
}

#[test]
fn a_full_disk_of_the_servers_log_loses_nothing_that_was_acknowledged() {
    log_disk::ends_the_server_and_loses_nothing();
}
