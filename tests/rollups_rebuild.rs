//! `rebuild_rollups`: one owner's totals, drivers and member days out of the journals, while
//! charging goes on.

mod common;
mod rollups_common;
mod sessions;
mod usage_common;

use std::thread;

use common::{error_of, one, run_sql};
use postgres::Client;
use rollups_common::*;
use sessions::{beside, in_sessions, pid, post_all, posting_beside, wait_for_lock_of};
use usage_common::{assert_books_hold, assert_unchanged, column, state};

fn rebuild(c: &mut Client, kind: &str, id: &str, hours: &str) -> i64 {
    one(c, &format!("select exa_billing.rebuild_rollups($1, $2, {hours})"), &[&kind, &id])
}

#[test]
fn what_is_right_is_left_alone() {
    let (_db, mut c) = filled();
    let before = state(&mut c);
    for id in ["o0", "o1", "nobody"] {
        assert_eq!(rebuild(&mut c, "organization", id, EVER), 0);
    }
    for id in ["u0", "u1", "u2", "nobody"] {
        assert_eq!(rebuild(&mut c, "user", id, EVER), 0);
    }
    assert_unchanged(&mut c, &before, "a rebuild of what is right");
    assert_books_hold(&mut c);
}

/// Some of the same hours' charges wait in the queue, one of them blocked.
#[test]
fn every_damage_comes_right_and_is_counted() {
    let (_db, mut c) = filled();
    let (right, accounts) = (posted(&mut c), "select a::text from accounts as a order by 1");
    let balances: Vec<String> = column(&mut c, accounts);
    for (damage, wrong) in DAMAGE {
        run_sql(&mut c, damage);
        assert_ne!(posted(&mut c), right, "{damage}");
        assert_eq!(rebuild(&mut c, "organization", "o1", EVER), wrong, "{damage}");
        assert_eq!(posted(&mut c), right, "{damage}");
        assert_eq!(rebuild(&mut c, "organization", "o1", EVER), 0, "{damage}");
    }
    assert_eq!(column::<String>(&mut c, accounts), balances);
    assert_books_hold(&mut c);
}

#[test]
fn dimensions_that_are_gone_come_back() {
    let (_db, mut c) = filled();
    let right = posted(&mut c);
    run_sql(&mut c, WITHOUT_DIMENSIONS);
    let lost = i64::try_from(right.len() - posted(&mut c).len()).unwrap();
    assert!(lost > 30, "{lost}");
    let mut found = 0;
    for (kind, id) in [("organization", "o0"), ("organization", "o1"), ("user", "u0")] {
        found += rebuild(&mut c, kind, id, ALL);
    }
    for id in ["u1", "u2"] {
        found += rebuild(&mut c, "user", id, ALL);
    }
    assert_eq!(found, lost);
    assert_eq!(posted(&mut c), right);
    assert_books_hold(&mut c);
}

#[test]
fn only_the_given_hours_and_owner_are_touched() {
    let (_db, mut c) = filled();
    run_sql(
        &mut c,
        "update spend_hourly_totals set total_microdollars = 1;
         update organization_member_usage set microdollars_used = 1",
    );
    let changed = |c: &mut Client, before: &[String]| -> Vec<String> {
        let after = posted(c);
        let of_others = |line: &&String| !before.contains(line) && !line.contains(" 1)");
        after.iter().filter(of_others).cloned().collect()
    };
    let before = posted(&mut c);
    // Of a member's day all hours count, also those outside of the range.
    let hours = "'2025-02-04 08:00+00', '2025-02-04 16:00+00'";
    let count = rebuild(&mut c, "organization", "o0", hours);
    let lines = changed(&mut c, &before);
    assert_eq!(lines.len(), usize::try_from(count).unwrap(), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("member (o0,")), "{lines:?}");
    assert!(lines.iter().any(|line| line.starts_with("total (organization,o0,")), "{lines:?}");
    let of_the_day = |line: &String| line.contains("o0") && line.contains("2025-02-04");
    assert!(lines.iter().all(of_the_day), "{lines:?}");
    for day in column::<i64>(
        &mut c,
        "select m.microdollars_used - (
             select sum(total_microdollars) from spend_hourly_drivers as p
             join spend_dimensions using (dimension_id)
             where p.owner_id = m.organization_id and p.actor_user_id = m.user_id and spend_category = 'variable'
               and (p.hour_start at time zone 'UTC')::date = m.usage_date)::bigint
         from organization_member_usage as m where organization_id = 'o0' and usage_date = '2025-02-04'",
    ) {
        assert_eq!(day, 0);
    }
}

/// What nobody has ever posted needs no account; what is wrong does.
#[test]
fn an_account_is_opened_only_where_something_is_wrong() {
    let (_db, mut c) = books();
    let insert = "insert into spend_log
        select gen_random_uuid(), 'user', 'new', null, 'variable', 'other', 'p', 'f', 'm', 'x', 7, 1, '2025-02-03 10:20Z', now()";
    run_sql(
        &mut c,
        "select record_spend('user', 'waits', 5, 'variable', 'other', 'p', created_at => '2025-02-03 10:00Z')",
    );
    let accounts = "select count(*) from accounts";
    assert_eq!(rebuild(&mut c, "user", "waits", ALL), 0);
    assert_eq!(one::<i64>(&mut c, accounts, &[]), 0);
    // A journal row that no queue row stands for, of a dimension nobody knows.
    run_sql(&mut c, insert);
    assert_eq!(rebuild(&mut c, "user", "new", ALL), 3, "two totals and a driver");
    assert_eq!(one::<i64>(&mut c, accounts, &[]), 1);
    run_sql(&mut c, "select recompute_user_balances('new')");
    post_all(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn eight_sessions_charge_while_the_same_hours_are_damaged_and_rebuilt() {
    let (db, mut c) = busy_books();
    let mend = |c: &mut Client| {
        run_sql(c, DAMAGE_BUSY);
        rebuild(c, "organization", "o", BUSY);
        rebuild(c, "user", "u", BUSY);
    };
    let charged = posting_beside(&db, || {
        beside(&db, &[&mend], || in_sessions(&db, 8, SESSION, charge_at_once))
    });
    let sums = charged.iter().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert_eq!(charged_in_busy_hours(&mut c, "spend_hourly"), sums);
    assert_eq!(charged_in_busy_hours(&mut c, "spend_drivers_hourly"), sums);
    assert_eq!(charged_in_busy_hours(&mut c, "spend_hourly_totals"), sums, "all is posted");
    assert_eq!(rebuild(&mut c, "user", "u", ALL), 0);
    assert_eq!(rebuild(&mut c, "organization", "o", ALL), 0);
    assert_books_hold(&mut c);
}

/// A charge that is under way while its hour is rebuilt is in neither journal nor queue yet.
#[test]
fn a_charge_that_commits_around_a_rebuild_is_counted_once() {
    let (db, mut c) = busy_books();
    run_sql(
        &mut c,
        "select record_exa_usage('m1', '/answer', 10, 'o', created_at => '2025-02-03 10:30Z'), post_spend()",
    );
    run_sql(&mut c, "delete from spend_hourly_totals where owner_id = 'o'");
    let charge =
        "select record_exa_usage('m1', '/answer', 7, 'o', created_at => '2025-02-03 10:40Z')";
    let (mut early, mut late) = (session(&db), session(&db));
    run_sql(&mut early, &format!("begin; {charge}"));
    run_sql(&mut c, "begin");
    assert_eq!(rebuild(&mut c, "organization", "o", ALL), 2, "the two hours' totals");
    run_sql(&mut early, "commit");
    // Neither charging nor posting waits; the account's rows stay in the queue.
    run_sql(&mut late, charge);
    assert_eq!(one::<i64>(&mut late, "select post_spend()", &[]), 0);
    assert_eq!(charged_in_busy_hours(&mut c, "spend_hourly").1, 24);
    assert_eq!(rebuild(&mut c, "organization", "o", ALL), 0);
    run_sql(&mut c, "commit");
    assert_eq!(one::<i64>(&mut late, "select post_spend()", &[]), 2);
    assert_eq!(charged_in_busy_hours(&mut c, "spend_hourly_totals").1, 24);
    assert_books_hold(&mut c);
}

#[test]
fn a_posting_under_way_is_waited_for() {
    let (db, mut c) = busy_books();
    run_sql(
        &mut c,
        "select record_exa_usage('m1', '/answer', 10, 'o', created_at => '2025-02-03 10:30Z')",
    );
    let mut poster = session(&db);
    run_sql(&mut poster, "begin; select post_spend()");
    let mut caller = session(&db);
    let pid = pid(&mut caller);
    thread::scope(|scope| {
        let run = scope.spawn(move || rebuild(&mut caller, "organization", "o", ALL));
        wait_for_lock_of(&mut c, pid);
        run_sql(&mut poster, "commit");
        assert_eq!(run.join().expect("the rebuild"), 0);
    });
    assert_books_hold(&mut c);
}

/// Both add the same dimension, each for an owner of its own.
#[test]
fn a_dimension_that_is_being_added_is_waited_for() {
    let (db, mut c) = busy_books();
    run_sql(&mut c, "select post_spend()");
    let charge = "select record_spend('user', 'u', 5, 'variable', 'other', 'new', created_at => '2025-02-03 10:30Z')";
    run_sql(&mut c, charge);
    // Of the other owner the queue row is lost.
    run_sql(&mut c, &charge.replace("'user', 'u'", "'organization', 'o'"));
    run_sql(&mut c, "delete from unposted_spend where owner_id = 'o'");
    let mut poster = session(&db);
    run_sql(&mut poster, "begin; select post_spend()");
    let mut caller = session(&db);
    let pid = pid(&mut caller);
    thread::scope(|scope| {
        let run = scope.spawn(move || rebuild(&mut caller, "organization", "o", ALL));
        // The poster holds no account of the caller's: it has nothing of that owner to post.
        wait_for_lock_of(&mut c, pid);
        run_sql(&mut poster, "commit");
        assert_eq!(run.join().expect("the rebuild"), 3, "two totals and a driver");
    });
    run_sql(&mut c, "select recompute_organization_balances('o', keep_balance => false)");
    assert_books_hold(&mut c);
}

#[test]
fn a_transaction_with_an_older_snapshot_fails_instead_of_undoing_what_was_posted() {
    let (db, mut c) = busy_books();
    let mut old = session(&db);
    run_sql(&mut old, "begin isolation level repeatable read; select count(*) from accounts");
    run_sql(&mut c, "select post_spend()");
    let call = format!("select rebuild_rollups('user', 'u', {ALL})");
    assert_eq!(error_of(&mut old, &call).code, "40001");
    run_sql(&mut old, "rollback; begin isolation level serializable");
    assert_eq!(rebuild(&mut old, "user", "u", ALL), 0);
    run_sql(&mut old, "commit");
    assert_books_hold(&mut c);
}

#[test]
fn sums_beyond_the_range_are_refused_and_change_nothing() {
    let (_db, mut c) = filled();
    run_sql(
        &mut c,
        "insert into spend_log
         select gen_random_uuid(), 'user', 'u0', null, 'variable', 'other', 'p', 'f', 'm', 'x', 9007199254740991, 1,
                '2025-02-03 10:20Z', now()
         from generate_series(1, 1100)",
    );
    let before = state(&mut c);
    let error = error_of(&mut c, &format!("select rebuild_rollups('user', 'u0', {ALL})"));
    assert_eq!(error.code, "22003");
    assert_unchanged(&mut c, &before, "a rebuild that failed");
    assert_eq!(rebuild(&mut c, "user", "u1", ALL), 0);
}

#[test]
fn a_queue_row_without_its_dimension_is_named() {
    let (_db, mut c) = filled();
    run_sql(
        &mut c,
        "update unposted_spend set dimension_id = gen_random_uuid(), dimension = null where owner_id = 'u1'",
    );
    let error = error_of(&mut c, &format!("select rebuild_rollups('user', 'u1', {ALL})"));
    assert_eq!(error.code, "55000");
    assert!(error.hint.is_some());
}
