//! `backfill_rollups`: day by day from the newest, with progress to look at; it can be stopped,
//! and goes on while everybody charges.

mod common;
mod rollups_common;
mod sessions;
mod usage_common;

use std::sync::mpsc;
use std::thread;

use common::{Database, error_of, one, run_sql, sqlstate};
use postgres::{Client, NoTls};
use rollups_common::*;
use sessions::{beside, in_sessions, pid, posting_beside, wait_for_lock_of};
use usage_common::{assert_books_hold, column, state};

const BACKFILL: &str = "call exa_billing.backfill_rollups";

/// Done, total, changed, failed and whether the run is finished, of the only run of these hours.
fn progress(c: &mut Client, dry_run: bool) -> (i64, i64, i64, i64, bool) {
    let sql =
        "select done, total, changed, failed, finished_at is not null from exa_billing.progress
         where procedure_name = 'backfill_rollups' and arguments like '%dry_run => ' || $1";
    let row = c.query_one(sql, &[&dry_run.to_string()]).expect("the progress");
    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
}

/// A session, and what it is told besides results: severity and message.
fn listening(db: &Database) -> (Client, mpsc::Receiver<(String, String)>) {
    let (sender, told) = mpsc::channel();
    let mut config = db.config();
    config.options(SESSION).notice_callback(move |notice| {
        let _ = sender.send((notice.severity().to_owned(), notice.message().to_owned()));
    });
    (config.connect(NoTls).expect("a session"), told)
}

fn covered_from(c: &mut Client) -> String {
    one(
        c,
        "select string_agg(distinct to_char(covered_from at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), ', ')
         from exa_billing.spend_sources",
        &[],
    )
}

/// Owners and days whose posted totals these are.
fn owner_days(c: &mut Client, condition: &str) -> i64 {
    let sql = format!(
        "select count(*) from (select distinct owner_kind, owner_id, (hour_start at time zone 'UTC')::date
             from exa_billing.spend_hourly_totals where {condition}) as days"
    );
    one(c, &sql, &[])
}

#[test]
fn a_dry_run_counts_who_differs_and_writes_only_its_progress() {
    let (db, mut c) = filled();
    let expected = owner_days(&mut c, "owner_kind = 'user'");
    run_sql(&mut c, "delete from spend_hourly_totals where owner_kind = 'user'");
    run_sql(&mut c, "update spend_sources set covered_from = '2025-02-05Z'");
    let mut before = state(&mut c);
    let (mut caller, told) = listening(&db);
    run_sql(&mut caller, &format!("{BACKFILL}({ALL})"));
    let mut after = state(&mut c);
    for state in [&mut before, &mut after] {
        state.remove("procedure_progress");
    }
    assert_eq!(before, after);
    assert!(expected > 20, "{expected}");
    assert_eq!(progress(&mut c, true), (240, 240, expected, 0, true));
    let summary = format!("240 of 240 hours compared, {expected} owners differ");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [("NOTICE".to_owned(), summary)]);
}

#[test]
fn every_damage_comes_right_and_a_second_run_finds_nothing() {
    let (_db, mut c) = filled();
    let right = posted(&mut c);
    let backfill = format!("{BACKFILL}({EVER}, dry_run => false)");
    for (damage, wrong) in DAMAGE {
        run_sql(&mut c, damage);
        run_sql(&mut c, &backfill);
        if wrong > 0 {
            assert_eq!(posted(&mut c), right, "{damage}");
            assert!(progress(&mut c, false).2 > 0, "{damage}");
        }
        run_sql(&mut c, &backfill);
        let (done, total, changed, failed, finished) = progress(&mut c, false);
        assert_eq!((done, changed, failed, finished), (total, 0, 0, true), "{damage}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn everybodys_rollups_come_back_out_of_the_journals() {
    let (_db, mut c) = filled();
    let (right, days) = (posted(&mut c), owner_days(&mut c, "true"));
    for damage in [
        "truncate spend_hourly_totals, spend_hourly_drivers, organization_member_usage",
        "truncate spend_daily_totals",
        WITHOUT_DIMENSIONS,
    ] {
        run_sql(&mut c, damage);
        run_sql(&mut c, &format!("{BACKFILL}({ALL}, false)"));
        assert_eq!(posted(&mut c), right, "{damage}");
        let (done, _, changed, failed, finished) = progress(&mut c, false);
        assert_eq!((done, failed, finished), (240, 0, true), "{damage}");
        assert!((1..=days).contains(&changed), "{damage}: {changed}");
    }
    assert_books_hold(&mut c);
}

/// Nobody's account stays locked for as long as a day of everybody's takes.
#[test]
fn many_owners_of_one_day_are_done_in_several_transactions() {
    let (db, mut c) = books();
    run_sql(
        &mut c,
        "select record_spend('user', 'u' || n, 5, 'variable', 'other', 'p', created_at => '2025-02-03 10:00Z')
         from generate_series(1, 250) as n;
         select post_spend()",
    );
    let right = posted(&mut c);
    run_sql(&mut c, "truncate spend_hourly_totals");
    let mut holder = session(&db);
    run_sql(&mut holder, "begin; select from accounts where owner_id = 'u99' for update");
    let mut caller = session(&db);
    let pid = pid(&mut caller);
    thread::scope(|scope| {
        let call = format!("{BACKFILL}('2025-02-03 09:00Z', '2025-02-03 12:00Z', false)");
        let run = scope.spawn(move || run_sql(&mut caller, &call));
        // It is the last of them all.
        wait_for_lock_of(&mut c, pid);
        assert_eq!(progress(&mut c, false), (0, 3, 200, 0, false));
        run_sql(&mut c, "select from accounts where owner_id = 'u1' for update nowait");
        run_sql(&mut holder, "rollback");
        run.join().expect("the run");
    });
    assert_eq!(progress(&mut c, false), (3, 3, 250, 0, true));
    assert_eq!(posted(&mut c), right);
    assert_books_hold(&mut c);
}

/// Totals of u0 are wrong everywhere; those of u2 on the third, where its account is locked.
fn stopped_on_the_third(db: &Database, c: &mut Client) -> Client {
    run_sql(
        c,
        "update spend_hourly_totals set total_microdollars = 1
         where owner_id = 'u0' or (owner_id = 'u2' and hour_start >= '2025-02-03Z' and hour_start < '2025-02-04Z')",
    );
    let mut holder = session(db);
    run_sql(&mut holder, "begin; select from accounts where owner_id = 'u2' for update");
    holder
}

#[test]
fn a_run_that_was_cancelled_goes_on_where_it_was() {
    let (db, mut c) = filled();
    let right = posted(&mut c);
    let later = owner_days(&mut c, "owner_id = 'u0' and hour_start >= '2025-02-04Z'");
    let all = owner_days(&mut c, "owner_id = 'u0'") + 1;
    let mut holder = stopped_on_the_third(&db, &mut c);
    let backfill = format!("{BACKFILL}({ALL}, dry_run => false)");
    let mut caller = session(&db);
    let pid = pid(&mut caller);
    let code = thread::scope(|scope| {
        let run = scope.spawn(|| sqlstate(caller.batch_execute(&backfill)));
        wait_for_lock_of(&mut c, pid);
        run_sql(&mut c, &format!("select pg_cancel_backend({pid})"));
        run.join().expect("the run")
    });
    assert_eq!(code, "57014");
    run_sql(&mut holder, "rollback");
    assert!(later > 2 && all > later + 2, "{later} of {all}");
    assert_eq!(progress(&mut c, false), (5 * 24, 240, later, 0, false));
    let wrong = "count(*) from spend_hourly_totals where total_microdollars = 1";
    let newer = format!("select {wrong} and hour_start >= '2025-02-04Z'");
    assert_eq!(one::<i64>(&mut c, &newer, &[]), 0, "each day is committed with its progress");

    // A newer day is damaged again: who goes on does not come back to it.
    run_sql(
        &mut c,
        "update spend_hourly_totals set total_microdollars = 1 where owner_id = 'o1' and hour_start >= '2025-02-07Z'",
    );
    let again = owner_days(&mut c, "owner_id = 'o1' and hour_start >= '2025-02-07Z'");
    run_sql(&mut caller, &backfill);
    assert_eq!(progress(&mut c, false), (240, 240, all, 0, true));
    assert!(one::<i64>(&mut c, &newer, &[]) > 0);

    // A run after a finished one begins anew.
    run_sql(&mut caller, &backfill);
    assert_eq!(progress(&mut c, false), (240, 240, again, 0, true));
    assert_eq!(posted(&mut c), right);
    assert_books_hold(&mut c);
}

#[test]
fn two_runs_at_once_share_the_work() {
    let (db, mut c) = filled();
    let right = posted(&mut c);
    let all = owner_days(&mut c, "owner_id = 'u0'") + 1;
    let mut holder = stopped_on_the_third(&db, &mut c);
    let backfill = format!("{BACKFILL}({ALL}, dry_run => false)");
    let (mut first, mut second) = (session(&db), session(&db));
    let pids = [pid(&mut first), pid(&mut second)];
    thread::scope(|scope| {
        let run = scope.spawn(|| run_sql(&mut first, &backfill));
        wait_for_lock_of(&mut c, pids[0]);
        // The other one has to wait for the first one's day.
        let other = scope.spawn(|| run_sql(&mut second, &backfill));
        wait_for_lock_of(&mut c, pids[1]);
        run_sql(&mut holder, "rollback");
        run.join().expect("the first run");
        other.join().expect("the second run");
    });
    // The second may only have had its turn when the first was through; then it began anew, and
    // found nothing left to do.
    let (done, total, changed, failed, finished) = progress(&mut c, false);
    assert_eq!((done, total, failed, finished), (240, 240, 0, true));
    assert!(changed == all || changed == 0, "{changed} of {all}");
    assert_eq!(posted(&mut c), right);
    assert_books_hold(&mut c);
}

#[test]
fn eight_sessions_charge_while_the_same_hours_are_damaged_and_backfilled() {
    let (db, mut c) = busy_books();
    let mend = |c: &mut Client| {
        run_sql(c, DAMAGE_BUSY);
        run_sql(c, &format!("{BACKFILL}({BUSY}, dry_run => false)"));
    };
    let charged = posting_beside(&db, || {
        beside(&db, &[&mend], || in_sessions(&db, 8, SESSION, charge_at_once))
    });
    let sums = charged.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    for view in ["spend_hourly", "spend_drivers_hourly", "spend_hourly_totals"] {
        assert_eq!(charged_in_busy_hours(&mut c, view), sums, "{view}");
    }
    run_sql(&mut c, &format!("{BACKFILL}({ALL})"));
    assert_eq!(progress(&mut c, true), (240, 240, 0, 0, true));
    assert_books_hold(&mut c);
}

/// Somebody who has that account may be waiting for this very lock.
#[test]
fn no_account_is_waited_for_with_the_lock_of_new_dimensions_in_hand() {
    let (db, mut c) = filled();
    let right = posted(&mut c);
    run_sql(&mut c, WITHOUT_DIMENSIONS);
    let mut holder = session(&db);
    run_sql(&mut holder, "begin; select from accounts where owner_id = 'u0' for update");
    let mut caller = session(&db);
    let pid = pid(&mut caller);
    thread::scope(|scope| {
        let run = scope.spawn(|| run_sql(&mut caller, &format!("{BACKFILL}({ALL}, false)")));
        wait_for_lock_of(&mut c, pid);
        let is_free = "select pg_try_advisory_xact_lock(x'45584142'::int, 3)";
        assert!(one::<bool>(&mut holder, is_free, &[]));
        run_sql(&mut holder, "rollback");
        run.join().expect("the run");
    });
    assert_eq!(posted(&mut c), right);
    assert_books_hold(&mut c);
}

#[test]
fn hours_become_covered_where_they_join_those_that_are() {
    let (_db, mut c) = filled();
    run_sql(&mut c, "update spend_sources set covered_from = '2025-02-05 06:00Z'");
    let mut backfill = |hours: &str, dry_run: bool| {
        run_sql(&mut c, &format!("{BACKFILL}({hours}, {dry_run})"));
        covered_from(&mut c)
    };
    assert_eq!(backfill(ALL, true), "2025-02-05 06:00");
    // These leave a gap.
    assert_eq!(backfill("'2025-02-01Z', '2025-02-05 05:00Z'", false), "2025-02-05 06:00");
    assert_eq!(backfill("'2025-02-03 05:00Z', '2025-02-05 06:00Z'", false), "2025-02-03 05:00");
    // These reach beyond it, and begin later.
    assert_eq!(backfill("'2025-02-02 07:00Z', '2025-02-08Z'", false), "2025-02-02 07:00");
    assert_eq!(backfill("'2025-02-04Z', '2025-02-08Z'", false), "2025-02-02 07:00");
    // Years in which nothing was, and no partition is.
    assert_eq!(backfill("'0999-05-06 07:00Z', '2026-02-08Z'", false), "0999-05-06 07:00");
    let holes = "select count(*) from reconcile_rollups('0999-05-06 07:00Z', '2026-02-08Z')";
    assert_eq!(one::<i64>(&mut c, holes, &[]), 0);
    assert_books_hold(&mut c);
}

#[test]
fn an_owner_that_fails_is_reported_and_keeps_nobody_else() {
    let (db, mut c) = filled();
    let right = posted(&mut c);
    run_sql(
        &mut c,
        "insert into spend_log
         select gen_random_uuid(), 'user', 'm', null, 'variable', 'other', 'p', 'f', 'x', 'y', 9007199254740991, 1,
                '2025-02-04 10:20Z', now()
         from generate_series(1, 1100);
         update spend_sources set covered_from = '2025-02-05Z'",
    );
    let days = owner_days(&mut c, "true");
    run_sql(&mut c, "delete from spend_hourly_totals");
    let (mut caller, told) = listening(&db);
    for changed in [days, 0] {
        run_sql(&mut caller, &format!("{BACKFILL}({ALL}, false)"));
        assert_eq!(progress(&mut c, false), (240, 240, changed, 1, true));
        assert_eq!(posted(&mut c), right);
        let told: Vec<_> = told.try_iter().collect();
        let warnings: Vec<_> = told.iter().filter(|(severity, _)| severity == "WARNING").collect();
        assert_eq!(warnings.len(), 1, "{told:?}");
        assert!(warnings[0].1.starts_with("user m was not rebuilt from 2025-02-04 "), "{told:?}");
        let summary = format!("240 of 240 hours done, {changed} owners put right, 1 failed");
        assert_eq!(told.last().expect("a summary").1, summary);
    }
    // What could not be rebuilt is not trusted, so that the hours can be covered for the others.
    assert_eq!(covered_from(&mut c), "2025-01-30 00:00");
    let degraded = "select concat_ws(' ', owner_kind, owner_id, from_hour, to_hour, reason) from spend_degraded_intervals";
    assert_eq!(
        column::<String>(&mut c, degraded),
        [
            "user m 2025-02-04 00:00:00+00 2025-02-05 00:00:00+00 backfill_rollups could not put these hours right"
        ]
    );
}

#[test]
fn it_needs_a_transaction_of_its_own_and_exact_hours() {
    let (_db, mut c) = filled();
    run_sql(&mut c, "begin");
    assert_eq!(error_of(&mut c, &format!("{BACKFILL}({ALL})")).code, "2D000");
    run_sql(&mut c, "rollback");
    for (arguments, named) in [
        ("null, '2025-02-09Z'", "from_hour"),
        ("'2025-02-09Z', null", "to_hour"),
        ("'2025-02-08 00:30Z', '2025-02-09Z'", "from_hour"),
        ("'2025-02-09Z', '2025-02-09Z'", "to_hour"),
        ("'2025-02-08Z', 'infinity'", "to_hour"),
        ("'2025-02-08Z', '2025-02-09Z', null", "dry_run"),
    ] {
        let error = error_of(&mut c, &format!("{BACKFILL}({arguments})"));
        assert_eq!(error.code, "22023", "{arguments}");
        assert!(error.message.contains(named), "{}", error.message);
    }
    assert_eq!(one::<i64>(&mut c, "select count(*) from progress", &[]), 0);
}

/// Called by hand, the step does not take it that a range is empty.
#[test]
fn the_step_by_itself_finds_the_months_anew() {
    let (db, mut c) = filled();
    let right = posted(&mut c);
    run_sql(&mut c, "delete from spend_hourly_totals");
    run_sql(&mut c, &format!("select backfill_next_hours(true, {ALL}, false)"));
    while !one::<bool>(
        &mut session(&db),
        &format!("select is_finished from backfill_next_hours(false, {ALL}, false)"),
        &[],
    ) {}
    assert_eq!(posted(&mut c), right);
    assert_books_hold(&mut c);
}
