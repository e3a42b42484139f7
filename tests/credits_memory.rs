//! Recomputing a long history takes no more memory than a short one.

mod common;
mod credits_common;
mod sessions;
mod usage_common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{one, run_sql};
use credits_common::{Recomputed, books, session, user};
use usage_common::assert_books_hold;

/// A million charges over four months with all that posting would have made of them.
const MILLION: &str = "
    create temp table charges as
    select gen_random_uuid() as id, '2025-04-01 00:00+00'::timestamptz + n * interval '10 seconds' as at, 1 + n % 9 as amount
    from generate_series(1, 1000000) as n;
    insert into spend_dimensions values ('00000000-0000-4000-8000-000000000001', 'variable', 'other', 'p', 'f', 'x', 'y');
    insert into spend_log
    select id, 'user', 'u', null, 'variable', 'other', 'p', 'f', 'x', 'y', amount, 1, at, at from charges;
    insert into spend_hourly_totals as t
    select 'user', 'u', date_trunc('hour', at, 'UTC'), 'variable', sum(amount), count(*) from charges group by 3
    on conflict (owner_kind, owner_id, hour_start, spend_category) do update
    set total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + excluded.spend_record_count;
    insert into spend_daily_totals
    select 'user', 'u', date_trunc('day', at, 'UTC'), 'variable', sum(amount), count(*) from charges group by 3
    on conflict (owner_kind, owner_id, day_start, spend_category) do update
    set total_microdollars = spend_daily_totals.total_microdollars + excluded.total_microdollars,
        spend_record_count = spend_daily_totals.spend_record_count + excluded.spend_record_count;
    insert into spend_hourly_drivers
    select 'user', 'u', date_trunc('hour', at, 'UTC'), '00000000-0000-4000-8000-000000000001', 'u', sum(amount), count(*)
    from charges group by 3;
    update accounts set microdollars_used = microdollars_used + (select sum(amount) from charges)
    where owner_kind = 'user' and owner_id = 'u'";

/// Memory of a process that is its own, in megabytes.
fn anonymous_megabytes(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    let kilobytes: u64 =
        line.split_whitespace().nth(1).expect("a figure").parse().expect("a number");
    kilobytes / 1024
}

#[test]
fn a_million_charges_are_recomputed_in_little_memory() {
    let (db, mut c) = books();
    let u = user("u");
    // Makes the four months and the account.
    for (month, day) in [(4, 1), (5, 1), (6, 1), (7, 1)] {
        u.llm(&mut c, 1, &format!("2025-0{month}-0{day} 00:00+00"));
        u.grant(
            &mut c,
            "g",
            900_000,
            &format!("2025-0{month}-0{day} 00:00+00"),
            "2025-09-01 00:00+00",
        );
    }
    credits_common::post(&mut c);
    run_sql(&mut c, MILLION);
    // Its baselines were taken before the charges were there.
    let first = u.recompute(&mut c, "");
    assert_eq!((first.original_changed, first.expiration_changed), (3, 3));
    assert_eq!(u.expire(&mut c, "2025-10-01"), 0);

    let mut worker = session(&db);
    let pid: i32 = one(&mut worker, "select pg_backend_pid()", &[]);
    user("nobody").recompute(&mut worker, "");
    let before = anonymous_megabytes(pid);
    let done = AtomicBool::new(false);
    let (found, peak) = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_megabytes(pid));
                thread::sleep(Duration::from_millis(5));
            }
            peak
        });
        let found = u.recompute(&mut worker, "");
        done.store(true, Ordering::Relaxed);
        (found, watcher.join().expect("the watcher"))
    });
    let used = 4 + (1..=1_000_000_i64).map(|n| 1 + n % 9).sum::<i64>();
    assert_eq!(found, Recomputed::unchanged(used, 3_600_000));
    assert!(peak < before + 64, "it grew from {before} to {peak} MB");
    let after = anonymous_megabytes(pid);
    assert!(after < before + 16, "it kept {after} of {before} MB");
    assert_books_hold(&mut c);
}
