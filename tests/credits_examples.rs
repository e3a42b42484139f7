//! The worked examples of expiration, with their numbers, through SQL. Grants and charges are
//! recorded in the order in which they happened, so that the baselines come about by themselves.

mod common;
mod credits_common;
mod usage_common;

use credits_common::*;
use postgres::Client;
use usage_common::assert_books_hold;

const M: i64 = 1_000_000;

fn day(number: u32) -> String {
    format!("2025-04-{number:02} 00:00+00")
}

/// What happens on a day of April 2025, one after another.
enum Event {
    Use(i64),
    Grant(&'static str, i64, u32),
}
use Event::{Grant, Use};

/// Plays the events hour by hour, from March 31 on, all before the first expiry on April 1.
fn play(c: &mut Client, owner: &Owner, events: &[Event]) {
    for (hour, event) in events.iter().enumerate() {
        let at = format!("2025-03-31 {hour:02}:30+00");
        match event {
            Use(amount) if hour % 2 == 0 => owner.llm(c, *amount, &at),
            Use(amount) => owner.exa(c, *amount, &at),
            Grant(name, amount, expiry) => owner.grant(c, name, *amount, &at, &day(*expiry)),
        }
    }
}

/// Plays an example for a user whose charges wait and an organization whose charges are posted,
/// expires what is due at noon of the given day, and checks closing amounts and baselines.
fn check(events: &[Event], due: u32, expired: &[(&str, i64)], baselines: &[(&str, i64)]) {
    let (_db, mut c) = books();
    let noon = format!("2025-04-{due:02} 12:00+00");
    for owner in [user("unposted"), organization("posted")] {
        play(&mut c, &owner, events);
        if owner.kind == "organization" {
            post(&mut c);
        }
        let total: i64 = expired.iter().map(|(_, amount)| amount).sum();
        let before = owner.figures(&mut c, &day(1));
        let forecast = owner.figures(&mut c, &noon);
        assert_eq!(forecast, (before.0 + total, before.1, before.2 + total));
        assert_eq!(owner.expire(&mut c, &noon), -total);
        assert_eq!(owner.figures(&mut c, &noon), forecast);
        assert_eq!(owner.expired(&mut c), named(expired));
        for (_, at, _, used) in owner.closures(&mut c) {
            assert!(at.ends_with(" 00:00:00.000000"), "not dated at the expiry: {at}");
            assert_eq!(used, before.1);
        }
        for (name, baseline) in baselines {
            assert_eq!(owner.baseline(&mut c, name), *baseline, "baseline of {name}");
        }
        assert_eq!(owner.expire(&mut c, &noon), 0);
        owner.assert_recomputed(&mut c, forecast.1, forecast.0);
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_three_overlapping_grants() {
    check(
        &[
            Use(50),
            Grant("C", 100, 12),
            Use(30),
            Grant("B", 100, 11),
            Use(20),
            Grant("A", 100, 10),
            Use(50),
        ],
        15,
        &[("A", -50), ("B", -80), ("C", -70)],
        &[("A", 100), ("B", 130), ("C", 120)],
    );
}

#[test]
fn b_a_later_expiring_grant_with_a_lower_baseline() {
    check(
        &[Use(2), Grant("A", 3, 12), Use(2), Grant("B", 10, 14), Use(6), Grant("C", 5, 10), Use(5)],
        15,
        &[("C", 0), ("A", 0), ("B", -5)],
        &[("C", 10), ("A", 7), ("B", 10)],
    );
}

#[test]
fn c_a_grant_that_is_not_due_is_raised_and_stays_open() {
    check(
        &[
            Grant("t1", 1000, 10),
            Use(100),
            Grant("t2", 2000, 12),
            Use(200),
            Grant("t3", 6000, 14),
            Use(200),
            Grant("t4", 3000, 24),
            Use(3500),
        ],
        15,
        &[("t1", 0), ("t2", 0), ("t3", -5000)],
        &[("t1", 0), ("t2", 1000), ("t3", 3000), ("t4", 4000)],
    );
}

#[test]
fn e_one_long_grant_and_many_short_ones() {
    check(
        &[
            Grant("t1", 1000, 14),
            Use(100),
            Grant("t2", 100, 1),
            Use(200),
            Grant("t3", 100, 2),
            Use(200),
            Grant("t4", 100, 3),
            Use(200),
            Grant("t5", 100, 4),
            Use(300),
        ],
        15,
        &[("t2", 0), ("t3", 0), ("t4", 0), ("t5", 0), ("t1", -400)],
        &[("t1", 400), ("t2", 100), ("t3", 300), ("t4", 500), ("t5", 700)],
    );
}

#[test]
fn f_a_tie_in_the_order_of_granting() {
    check(
        &[Grant("A", 100, 10), Use(50), Grant("B", 100, 10), Use(10), Grant("C", 100, 20), Use(60)],
        15,
        &[("A", 0), ("B", -80)],
        &[("C", 120)],
    );
}

// The other order of the tie cannot come about by itself: the older grant has the lower baseline.
#[test]
fn f_a_tie_in_the_other_order_sums_the_same() {
    let (_db, mut c) = books();
    let owner = user("u");
    play(
        &mut c,
        &owner,
        &[Grant("B", 100, 10), Use(50), Grant("A", 100, 10), Use(10), Grant("C", 100, 20), Use(60)],
    );
    plant(
        &mut c,
        "update exa_billing.credit_transactions set expiration_baseline_microdollars_used =
             case description when 'A' then 0 else 50 end where description in ('A', 'B')",
    );
    assert_eq!(owner.expire(&mut c, &day(15)), 80);
    assert_eq!(owner.expired(&mut c), named(&[("B", -30), ("A", -50)]));
    assert_eq!(owner.baseline(&mut c, "C"), 120);
}

/// A 10M from 2M on, until the 10th; B 5M from 5M on, until the 20th; 7M used before the 10th, 8M
/// before the 20th.
fn play_d(c: &mut Client, owner: &Owner, in_between: impl FnOnce(&mut Client)) {
    owner.llm(c, 2 * M, &day(1));
    owner.grant(c, "A", 10 * M, &day(2), &day(10));
    owner.exa(c, 3 * M, &day(3));
    owner.grant(c, "B", 5 * M, &day(4), &day(20));
    owner.exa(c, 2 * M, &day(5));
    in_between(c);
    owner.llm(c, M, &day(15));
}

fn assert_d(c: &mut Client, owner: &Owner) {
    let closures = [
        ("A".to_owned(), "2025-04-10 00:00:00.000000".to_owned(), -5 * M, 7 * M),
        ("B".to_owned(), "2025-04-20 00:00:00.000000".to_owned(), -4 * M, 8 * M),
    ];
    assert_eq!(owner.closures(c), closures);
    assert_eq!(
        owner.ledger(c),
        [
            entry("A", 10 * M, 2 * M, Some(2 * M)),
            entry("B", 5 * M, 5 * M, Some(7 * M)),
            entry("Expired: A", -5 * M, 7 * M, None),
            entry("Expired: B", -4 * M, 8 * M, None),
        ]
    );
    assert_eq!(owner.figures(c, "now"), (6 * M, 8 * M, -2 * M));
    owner.assert_recomputed(c, 8 * M, 6 * M);
}

#[test]
fn d_run_once_and_late() {
    let (_db, mut c) = books();
    for owner in [user("d"), organization("d")] {
        play_d(&mut c, &owner, |_| {});
        assert_eq!(owner.expire(&mut c, &day(25)), 9 * M);
        assert_d(&mut c, &owner);
    }
    assert_books_hold(&mut c);
}

#[test]
fn d_run_twice_and_in_time() {
    let (_db, mut c) = books();
    let owner = user("d");
    play_d(&mut c, &owner, |c| assert_eq!(user("d").expire(c, &day(12)), 5 * M));
    assert_eq!(owner.expire(&mut c, &day(25)), 4 * M);
    assert_d(&mut c, &owner);
    assert_books_hold(&mut c);
}

#[test]
fn d_run_twice_and_posted_in_between() {
    let (_db, mut c) = books();
    let owner = user("d");
    play_d(&mut c, &owner, post);
    assert_eq!(owner.expire(&mut c, &day(10)), 5 * M);
    post(&mut c);
    assert_eq!(owner.expire(&mut c, &day(20)), 4 * M);
    assert_d(&mut c, &owner);
    assert_books_hold(&mut c);
}

#[test]
fn d_in_a_session_of_other_habits() {
    let (db, _) = books();
    let mut c = db.client_with(
        "-c timezone=Asia/Kathmandu -c datestyle=German -c intervalstyle=iso_8601 -c search_path=pg_temp
         -c exa_billing.late_usage_limit=3000d -c default_transaction_isolation=serializable",
    );
    let owner = organization("d");
    play_d(&mut c, &owner, |c| assert_eq!(organization("d").expire(c, &day(12)), 5 * M));
    assert_eq!(owner.expire(&mut c, &day(25)), 4 * M);
    assert_d(&mut c, &owner);
    assert_books_hold(&mut c);
}

#[test]
fn d_run_for_all_owners_at_once() {
    let (_db, mut c) = books();
    for owner in [user("d"), organization("d"), user("e")] {
        play_d(&mut c, &owner, |_| {});
    }
    let run = |c: &mut Client, most: i32| -> i64 {
        common::one(c, "select exa_billing.expire_due_credits('2025-04-25 00:00+00', $1)", &[&most])
    };
    assert_eq!(run(&mut c, 2), 2);
    assert_eq!(run(&mut c, 2), 1);
    assert_eq!(run(&mut c, 2), 0);
    for owner in [user("d"), organization("d"), user("e")] {
        assert_d(&mut c, &owner);
    }
    assert_books_hold(&mut c);
}
