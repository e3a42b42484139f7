//! `recompute_all_balances`: owner by owner, with progress to look at, and it can be stopped.

mod common;
mod credits_common;
mod usage_common;

use std::sync::mpsc;
use std::thread;

use common::{Database, error_of, one, run_sql, sqlstate, wait_until};
use credits_common::{SESSION, books, user};
use postgres::{Client, NoTls};
use usage_common::{assert_books_hold, column, state};

/// Done, total, changed, failed and whether the run is finished.
fn progress(c: &mut Client, arguments: &str) -> (i64, i64, i64, i64, bool) {
    let sql =
        "select done, total, changed, failed, finished_at is not null from exa_billing.progress
               where procedure_name = 'recompute_all_balances' and arguments = $1";
    let row = c.query_one(sql, &[&arguments]).expect("the progress");
    (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
}

const DRY: &str = "dry_run => true, keep_balance => true";
const KEEPING: &str = "dry_run => false, keep_balance => true";

/// Owners of either kind with 100 acquired and 3 used, whose accounts say 5.
fn damaged(c: &mut Client, count: i32) {
    run_sql(
        c,
        &format!(
            "select grant_credit(kind, 'o' || n, 100, description => 'g'), record_spend(kind, 'o' || n, 3, 'variable', 's', 'p')
             from generate_series(1, {count}) as n, (select unnest(array['user', 'organization']) as kind) as k;
             select post_spend(1000000);
             update accounts set microdollars_used = 5"
        ),
    );
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

#[test]
fn a_dry_run_tells_what_would_change_and_writes_only_its_progress() {
    let (db, mut c) = books();
    damaged(&mut c, 3);
    run_sql(&mut c, "update accounts set microdollars_used = 3 where owner_kind = 'user'");
    let mut before = state(&mut c);
    let (mut caller, told) = listening(&db);
    run_sql(&mut caller, "call recompute_all_balances()");
    let mut after = state(&mut c);
    for state in [&mut before, &mut after] {
        state.remove("procedure_progress");
    }
    assert_eq!(before, after);
    assert_eq!(progress(&mut c, DRY), (6, 6, 3, 0, true));
    let summary = ("NOTICE".to_owned(), "6 of 6 owners recomputed, 3 changed, 0 failed".to_owned());
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [summary]);
}

#[test]
fn every_owner_is_repaired_and_a_second_run_finds_nothing() {
    let (_db, mut c) = books();
    damaged(&mut c, 4);
    // Waiting charges are posted on the way.
    run_sql(&mut c, "select record_exa_usage('o1', '/search', 7)");
    run_sql(&mut c, "call recompute_all_balances(dry_run => false)");
    assert_eq!(progress(&mut c, KEEPING), (8, 8, 8, 0, true));
    let sql = "select distinct concat_ws(' ', total_microdollars_acquired, microdollars_used) from accounts order by 1";
    assert_eq!(column::<String>(&mut c, sql), ["98 10", "98 3"]);
    run_sql(&mut c, "call recompute_all_balances(dry_run => false)");
    assert_eq!(progress(&mut c, KEEPING), (8, 8, 0, 0, true));
    run_sql(&mut c, "call recompute_all_balances(false, false)");
    assert_eq!(progress(&mut c, "dry_run => false, keep_balance => false"), (8, 8, 0, 0, true));
    assert_books_hold(&mut c);
}

#[test]
fn without_keeping_balances_the_ledgers_hold() {
    let (_db, mut c) = books();
    damaged(&mut c, 2);
    run_sql(&mut c, "call recompute_all_balances(false, false)");
    let sql = "select distinct concat_ws(' ', total_microdollars_acquired, microdollars_used) from accounts";
    assert_eq!(column::<String>(&mut c, sql), ["100 3"]);
    let adjustments = "select count(*) from credit_transactions where credit_category is not null";
    assert_eq!(one::<i64>(&mut c, adjustments, &[]), 0);
    assert_books_hold(&mut c);
}

#[test]
fn a_run_that_was_cancelled_goes_on_where_it_was() {
    let (db, mut c) = books();
    damaged(&mut c, 150);
    let (mut caller, _told) = listening(&db);
    let pid = sessions_pid(&mut caller);
    let code = thread::scope(|scope| {
        let call = "call recompute_all_balances(dry_run => false)";
        let run = scope.spawn(|| sqlstate(caller.batch_execute(call)));
        wait_until("some owners are done", || {
            one(&mut c, "select coalesce(max(done), 0) > 20 from progress", &[])
        });
        run_sql(&mut c, &format!("select pg_cancel_backend({pid})"));
        run.join().expect("the run")
    });
    assert_eq!(code, "57014");
    let (done, total, changed, failed, finished) = progress(&mut c, KEEPING);
    assert!(done > 20 && done < 300, "cancelled after {done}");
    assert_eq!((total, changed, failed, finished), (300, done, 0, false));
    let repaired = "select count(*) from accounts where microdollars_used = 3";
    assert_eq!(
        one::<i64>(&mut c, repaired, &[]),
        done,
        "each owner is committed with its progress"
    );
    let started = "select started_at::text from progress";
    let since: String = one(&mut c, started, &[]);

    // The first owner is damaged again: who goes on does not come back to it.
    let first = "(owner_kind, owner_id) = (select owner_kind, owner_id from accounts
                  order by owner_kind, owner_id limit 1)";
    run_sql(&mut c, &format!("update accounts set microdollars_used = 5 where {first}"));
    run_sql(&mut caller, "call recompute_all_balances(dry_run => false)");
    assert_eq!(progress(&mut c, KEEPING), (300, 300, 300, 0, true));
    assert_eq!(one::<String>(&mut c, started, &[]), since);
    assert_eq!(one::<i64>(&mut c, repaired, &[]), 299);

    // A run after a finished one begins anew.
    run_sql(&mut caller, "call recompute_all_balances(dry_run => false)");
    assert_eq!(progress(&mut c, KEEPING), (300, 300, 1, 0, true));
    assert_eq!(one::<i64>(&mut c, repaired, &[]), 300);
    assert_books_hold(&mut c);
}

fn sessions_pid(c: &mut Client) -> i32 {
    one(c, "select pg_backend_pid()", &[])
}

/// 1,100 charges of the largest amount, recorded as if by another hand: beyond any bigint.
const BEYOND: &str = "
    select grant_credit('user', 'm', 1);
    insert into spend_log
    select gen_random_uuid(), 'user', 'm', null, 'variable', 's', 'p', 'f', 'x', 'y', 9007199254740991, 1, now(), now()
    from generate_series(1, 1100)";

#[test]
fn an_owner_that_fails_is_reported_and_skipped() {
    let (db, mut c) = books();
    damaged(&mut c, 3);
    run_sql(&mut c, BEYOND);
    let (mut caller, told) = listening(&db);
    run_sql(&mut caller, "call recompute_all_balances(dry_run => false)");
    assert_eq!(progress(&mut c, KEEPING), (7, 7, 6, 1, true));
    let told: Vec<_> = told.try_iter().collect();
    let warnings: Vec<_> = told.iter().filter(|(severity, _)| severity == "WARNING").collect();
    assert_eq!(warnings.len(), 1, "{told:?}");
    assert!(warnings[0].1.starts_with("user m was not recomputed: "), "{told:?}");
    assert_eq!(told.last().expect("a summary").1, "7 of 7 owners recomputed, 6 changed, 1 failed");
    assert_eq!(
        one::<i64>(&mut c, "select count(*) from accounts where microdollars_used = 3", &[]),
        6
    );
    for call in [
        "recompute_user_balances('m')",
        "recompute_user_balances('m', true)",
        "recompute_baselines('user', 'm')",
    ] {
        assert_eq!(error_of(&mut c, &format!("select {call}")).code, "22003", "{call}");
    }
}

// Cached figures at the end of the range, whose sum with what waits is beyond it.
#[test]
fn cached_figures_at_the_end_of_the_range_stop_nobody_else() {
    for cached in ["9223372036854775807", "-9223372036854775808"] {
        let (_db, mut c) = books();
        damaged(&mut c, 3);
        run_sql(
            &mut c,
            &format!(
                "update accounts set microdollars_used = {cached} where owner_id = 'o2' and owner_kind = 'user';
                 select record_spend('user', 'o2', 1, 'variable', 's', 'p')"
            ),
        );
        // Repaired or out of range, but neither a wrapped figure nor the end of the run.
        let result = c.batch_execute("begin; select recompute_user_balances('o2', false, false)");
        if let Err(error) = result {
            let code = error.code().map_or_else(String::new, |code| code.code().to_owned());
            assert_eq!(code, "22003", "{cached}: {error:?}");
            run_sql(&mut c, "rollback");
        } else {
            assert_eq!(user("o2").figures(&mut c, "now"), (100, 4, 96), "{cached}");
            run_sql(&mut c, "rollback");
        }
        run_sql(&mut c, "call recompute_all_balances(false, false)");
        let (done, total, changed, failed, finished) =
            progress(&mut c, "dry_run => false, keep_balance => false");
        assert_eq!((done, total, changed + failed, finished), (6, 6, 6, true), "{cached}");
        let right = "select count(*) from accounts where microdollars_used = 3 and total_microdollars_acquired = 100";
        assert_eq!(one::<i64>(&mut c, right, &[]), 5, "{cached}");
    }
}

#[test]
fn it_needs_a_transaction_of_its_own_and_its_arguments() {
    let (_db, mut c) = books();
    damaged(&mut c, 1);
    run_sql(&mut c, "begin");
    assert_eq!(error_of(&mut c, "call recompute_all_balances()").code, "2D000");
    run_sql(&mut c, "rollback");
    assert_eq!(one::<i64>(&mut c, "select count(*) from progress", &[]), 0);
    for arguments in ["null", "true, null"] {
        let error = error_of(&mut c, &format!("call recompute_all_balances({arguments})"));
        let named = if arguments == "null" { "dry_run" } else { "keep_balance" };
        assert_eq!(error.code, "22023");
        assert!(error.message.contains(named), "{}", error.message);
    }
    assert_eq!(one::<i64>(&mut c, "select count(*) from progress", &[]), 0);
}

#[test]
fn without_owners_there_is_nothing_to_do() {
    let (_db, mut c) = books();
    run_sql(&mut c, "call recompute_all_balances()");
    assert_eq!(progress(&mut c, DRY), (0, 0, 0, 0, true));
}
