//! Expiration at its edges: instants, ties, grants nothing is claimed of, forecasts; and that a
//! balance counts what is due at once, whether it was processed or not.

mod common;
mod credits_common;
mod usage_common;

use common::{error_of, one, run_sql};
use credits_common::*;
use usage_common::{assert_books_hold, assert_unchanged, column, decision, state};

const EXPIRY: &str = "2025-04-10 10:30+00";

#[test]
fn an_expiry_is_due_at_its_very_instant() {
    let (_db, mut c) = books();
    let u = user("u");
    u.grant(&mut c, "A", 100, "2025-04-01", EXPIRY);
    u.exa(&mut c, 30, "2025-04-10 10:29:59.999999+00");
    u.llm(&mut c, 5, EXPIRY);
    let just_before = "2025-04-10 10:29:59.999999+00";
    assert_eq!(u.figures(&mut c, just_before), (100, 35, 65));
    assert_eq!(u.expire(&mut c, just_before), 0);
    assert_eq!(u.closures(&mut c), []);
    assert_eq!(u.figures(&mut c, EXPIRY), (30, 35, -5));
    assert_eq!(u.expire(&mut c, EXPIRY), 70);
    let closing = ("A".to_owned(), "2025-04-10 10:30:00.000000".to_owned(), -70, 30);
    assert_eq!(u.closures(&mut c), [closing]);
    assert_eq!(u.figures(&mut c, just_before), (30, 35, -5), "this is no time travel");
    u.assert_recomputed(&mut c, 35, 30);
    assert_books_hold(&mut c);
}

#[test]
fn expiries_at_a_leap_day_and_at_the_end_of_a_year() {
    let (_db, mut c) = books();
    let u = organization("o");
    u.grant(&mut c, "leap", 100, "2024-02-01", "2024-03-01 00:00+00");
    u.llm(&mut c, 1, "2024-02-29 23:59:59.999999+00");
    u.exa(&mut c, 2, "2024-03-01 00:00+00");
    u.grant(&mut c, "year", 100, "2024-12-01", "2025-01-01 00:00+00");
    u.exa(&mut c, 4, "2024-12-31 23:59:59.999999+00");
    u.llm(&mut c, 8, "2025-01-01 00:00+00");
    assert_eq!(u.expire(&mut c, "2025-06-01"), 195);
    let closure = |name: &str, at: &str, amount, used| {
        (name.to_owned(), format!("{at} 00:00:00.000000"), amount, used)
    };
    let closures = [closure("leap", "2024-03-01", -99, 1), closure("year", "2025-01-01", -96, 7)];
    assert_eq!(u.closures(&mut c), closures);
    u.assert_recomputed(&mut c, 15, 5);
    assert_books_hold(&mut c);
}

// Free requests are in the journal too, but are no usage of credit.
#[test]
fn what_was_free_is_claimed_by_no_grant() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(100, '2025-04-01', 'u', 'split')");
    let u = user("u");
    run_sql(
        &mut c,
        "select record_exa_usage('u', '/search', 70, created_at => '2025-04-01 09:00+00');
         select record_exa_usage('u', '/search', 70, created_at => '2025-04-02 09:00+00')",
    );
    u.grant(&mut c, "A", 100, "2025-04-02 09:30+00", EXPIRY);
    run_sql(
        &mut c,
        "select record_exa_usage('u', '/search', 5, created_at => '2025-04-10 10:00+00')",
    );
    assert_eq!(u.expire(&mut c, EXPIRY), 95);
    let ledger = [entry("A", 100, 40, Some(40)), entry("Expired: A", -95, 45, None)];
    assert_eq!(u.ledger(&mut c), ledger);
    u.assert_recomputed(&mut c, 45, 5);
    assert_books_hold(&mut c);
}

#[test]
fn grants_with_one_expiry_a_used_up_one_and_one_older_than_all_usage() {
    let (_db, mut c) = books();
    let u = user("u");
    u.grant(&mut c, "old", 40, "2019-01-01", EXPIRY);
    u.llm(&mut c, 40, "2025-04-02");
    u.grant(&mut c, "B", 25, "2025-04-03", EXPIRY);
    u.llm(&mut c, 10, "2025-04-04");
    u.grant(&mut c, "C", 25, "2025-04-05", EXPIRY);
    u.grant(&mut c, "D", 7, "2025-04-06", "2025-04-11");
    u.grant(&mut c, "never", 1000, "2025-04-06", "");
    let next = |at: &str, amount| (Some(at.to_owned()), Some(amount));
    // old is used up, 15 of B and all of C are left.
    assert_eq!(u.next(&mut c, "2025-04-07"), next("2025-04-10 10:30:00", 40));
    assert_eq!(u.next(&mut c, EXPIRY), next("2025-04-11 00:00:00", 7));
    assert_eq!(u.next(&mut c, "2025-04-11"), (None, None));
    assert_eq!(u.expire(&mut c, "2025-04-10 23:00+00"), 40);
    assert_eq!(u.expired(&mut c), named(&[("old", 0), ("B", -15), ("C", -25)]));
    assert_eq!(u.next(&mut c, "2025-04-07"), next("2025-04-11 00:00:00", 7));
    u.assert_recomputed(&mut c, 50, 1057);
    assert_eq!(u.expire(&mut c, "2025-05-01"), 7);
    assert_eq!(u.next(&mut c, "2025-04-07"), (None, None));
    u.assert_recomputed(&mut c, 50, 1050);
    assert_books_hold(&mut c);
}

#[test]
fn an_owner_without_any_row_has_zeros_and_nothing_to_expire() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    for owner in [user("nobody"), organization("nobody")] {
        assert_eq!(owner.figures(&mut c, "now"), (0, 0, 0));
        assert_eq!(owner.next(&mut c, "2090-01-01"), (None, None));
        assert_eq!(owner.expire(&mut c, "now"), 0);
        assert_eq!(owner.close_out(&mut c, "now"), 0);
    }
    assert_eq!(one::<i64>(&mut c, "select expire_due_credits()", &[]), 0);
    assert_unchanged(&mut c, &before, "expiring of nobody");
}

#[test]
fn a_writer_refuses_the_future_and_a_reader_forecasts_it() {
    let (_db, mut c) = books();
    let u = user("u");
    run_sql(
        &mut c,
        "select grant_credit('user', 'u', 100, now() + interval '1 hour', description => 'A'),
                grant_credit('user', 'u', 10, now() + interval '2 hours', description => 'B');
         select record_spend('user', 'u', 30, 'variable', 's', 'p')",
    );
    let before = state(&mut c);
    for call in [
        "expire_credits('user', 'u', AT)",
        "expire_due_credits(AT)",
        "close_out_credits('user', 'u', AT)",
        "import_opening_balance('user', 'new', 5, 5, AT, 'k')",
    ] {
        let error = error_of(
            &mut c,
            &format!("select {}", call.replace("AT", "clock_timestamp() + interval '1 minute'")),
        );
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("22023", "as_of is in the future")
        );
    }
    for (hours, expected) in
        [("59 minutes", 80), ("61 minutes", 10), ("2 hours", 0), ("70 years", 0)]
    {
        let at = one::<String>(&mut c, &format!("select (now() + interval '{hours}')::text"), &[]);
        assert_eq!(u.balance(&mut c, &at), expected, "in {hours}");
        let answer = decision(&mut c, &format!("'u', as_of => '{at}'"));
        assert_eq!(answer.balance, Some(expected), "in {hours}");
        let reason = if expected > 0 { "credit_balance" } else { "no_credit_balance" };
        assert_eq!(answer.answer(), (expected > 0, reason), "in {hours}");
        let blocks = format!(
            "select coalesce(sum(remaining_microdollars), 0)::bigint from credit_blocks('user', 'u', '{at}')"
        );
        assert_eq!(one::<i64>(&mut c, &blocks, &[]), expected, "in {hours}");
    }
    assert_unchanged(&mut c, &before, "a forecast");
    assert_books_hold(&mut c);
}

// Usage before and after the instant in the expiry's own hour, and in the hours around it.
#[test]
fn due_expirations_count_at_once_however_far_posting_and_expiring_have_come() {
    for expire_first in [false, true] {
        let (_db, mut c) = books();
        run_sql(&mut c, "select set_organization_member('o', 'm', 'member')");
        let owner = organization("o");
        owner.grant(&mut c, "never", 50, "2025-04-01", "");
        owner.grant(&mut c, "A", 100, "2025-04-01", EXPIRY);
        for (amount, at) in [(10, "09:50"), (20, "10:10"), (3, "10:30"), (4, "10:50"), (5, "11:10")]
        {
            let at = format!("2025-04-10 {at}+00");
            if amount % 2 == 0 {
                owner.exa(&mut c, amount, &at);
            } else {
                owner.llm(&mut c, amount, &at);
            }
        }
        let now = "2025-04-10 12:00+00";
        let check = |c: &mut postgres::Client, step: &str| {
            assert_eq!(owner.figures(c, "2025-04-10 10:29+00").1, 42, "{step}");
            assert_eq!(owner.figures(c, now), (80, 42, 38), "{step}");
            let answer = decision(c, &format!("'m', 'o', '{now}'"));
            assert_eq!((answer.balance, answer.allowed), (Some(38), true), "{step}");
        };
        check(&mut c, "all waits");
        if expire_first {
            assert_eq!(owner.expire(&mut c, now), 70);
            check(&mut c, "expired before anything is posted");
        }
        for posted in [2, 4] {
            run_sql(&mut c, "select post_spend(2)");
            check(&mut c, &format!("{posted} are posted"));
        }
        post(&mut c);
        check(&mut c, "all is posted");
        assert_eq!(owner.expire(&mut c, now), if expire_first { 0 } else { 70 });
        check(&mut c, "posted and expired");
        // 39 more than it has: paid requests are denied now.
        owner.llm(&mut c, 39, "2025-04-10 11:30+00");
        let answer = decision(&mut c, &format!("'m', 'o', '{now}'"));
        assert_eq!((answer.balance, answer.answer()), (Some(-1), (false, "no_credit_balance")));
        owner.assert_recomputed(&mut c, 81, 80);
        assert_books_hold(&mut c);
    }
}

#[test]
fn a_purchase_counts_what_is_due() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select grant_credit('user', 'u', 1000, now() - interval '1 second', created_at => now() - interval '1 day');
         select grant_credit('user', 'u', 500, null, created_at => now() - interval '1 day')",
    );
    let before = state(&mut c);
    let buy = |amount: i64| {
        format!(
            "select record_spend('user', 'u', {amount}, 'scheduled', 's', 'p', require_balance => true)"
        )
    };
    let error = error_of(&mut c, &buy(501));
    assert_eq!(error.code, "53400");
    assert_eq!(error.message, "insufficient credit");
    let detail = error.detail.unwrap_or_default();
    assert!(detail.contains("500") && detail.contains("501"), "{detail}");
    assert_unchanged(&mut c, &before, "a refused purchase");
    run_sql(&mut c, &buy(500));
    assert_eq!(user("u").figures(&mut c, "now"), (500, 500, 0));
    assert_eq!(user("u").expire(&mut c, "now"), 1000);
    assert_eq!(user("u").figures(&mut c, "now"), (500, 500, 0));
    assert_books_hold(&mut c);
}

#[test]
fn close_out_ends_all_expiring_credit_once() {
    let (_db, mut c) = books();
    let u = user("u");
    u.grant(&mut c, "never", 100, "2025-04-01", "");
    u.grant(&mut c, "due", 50, "2025-04-01", "2025-04-05");
    u.llm(&mut c, 20, "2025-04-02");
    u.grant(&mut c, "A", 50, "2025-04-03", "2040-01-01");
    u.grant(&mut c, "B", 50, "2025-04-04", "2030-01-01");
    u.exa(&mut c, 45, "2025-04-06 10:00+00");
    u.exa(&mut c, 7, "2025-04-06 12:00+00");
    u.grant(&mut c, "later", 9, "2025-04-20", "2041-01-01");
    // due claims 20 of the 50; B, which would expire first, claims [20, 65), and A what is beyond.
    assert_eq!(u.close_out(&mut c, "2025-04-06 12:00+00"), 30 + 5 + 50);
    let closure = |name: &str, at: &str, amount, used| {
        (name.to_owned(), format!("2025-04-{at}:00:00.000000"), amount, used)
    };
    let closures = [
        closure("due", "05 00", -30, 20),
        closure("B", "06 12", -5, 65),
        closure("A", "06 12", -50, 65),
    ];
    assert_eq!(u.closures(&mut c), closures);
    assert_eq!(u.figures(&mut c, "now"), (259 - 85, 72, 102));
    assert_eq!(u.next(&mut c, "now"), (Some("2041-01-01 00:00:00".into()), Some(9)));
    let after = state(&mut c);
    assert_eq!(u.close_out(&mut c, "2025-04-06 12:00+00"), 0);
    assert_unchanged(&mut c, &after, "a second close-out");
    assert_eq!(u.expire(&mut c, "now"), 0);
    u.assert_recomputed(&mut c, 72, 174);
    assert_eq!(u.close_out(&mut c, "2025-05-01"), 9);
    assert_eq!(
        column::<i64>(&mut c, "select remaining_microdollars from credit_blocks('user', 'u')"),
        [93]
    );
    u.assert_recomputed(&mut c, 72, 165);
    assert_books_hold(&mut c);
}

// History before the last closing row is settled; a close-out must not be dated into it, or the
// order of the closures would no longer be the order of their dates.
#[test]
fn a_close_out_dated_before_an_expiration_does_not_upset_the_baselines() {
    let (_db, mut c) = books();
    let u = user("u");
    u.grant(&mut c, "A", 5, "2025-04-01", "2025-04-20");
    u.grant(&mut c, "B", 10, "2025-04-01", "2040-01-01");
    u.llm(&mut c, 8, "2025-04-05");
    assert_eq!(u.expire(&mut c, "2025-04-25"), 0);
    let close = "select close_out_credits('user', 'u', '2025-04-10')";
    if let Err(error) = c.batch_execute(close) {
        assert_eq!(error.code().map(|code| code.code()), Some("22023"));
    }
    let found = u.recompute(&mut c, ", dry_run => true");
    assert_eq!(
        (found.original_changed, found.expiration_changed),
        (0, 0),
        "{:?}",
        u.ledger(&mut c)
    );
    assert_books_hold(&mut c);
}

// A message that nobody can place is no help: the largest amounts stay right or are out of range.
#[test]
fn sums_beyond_bigint_are_an_error_of_this_owner_only() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select count(grant_credit('user', 'u', 9007199254740991, '2025-05-01', created_at => '2025-04-01')),
                count(grant_credit('user', 'never', 9007199254740991)),
                count(adjust_credit('user', 'u', -9007199254740991, 'taken back')),
                count(adjust_credit('user', 'never', -9007199254740991, 'taken back'))
         from generate_series(1, 1025);
         select grant_credit('user', 'other', 5, '2025-05-01', created_at => '2025-04-01')",
    );
    for call in [
        "account_balance('user', 'u')",
        "expire_credits('user', 'u')",
        "close_out_credits('user', 'u')",
    ] {
        assert_eq!(error_of(&mut c, &format!("select * from {call}")).code, "22003", "{call}");
    }
    assert_eq!(one::<i64>(&mut c, "select expire_due_credits()", &[]), 1, "of the other owner");
    assert_eq!(user("other").balance(&mut c, "now"), 0);
    // Its sums fit: nothing is left of them.
    assert_eq!(user("never").figures(&mut c, "now"), (0, 0, 0));
    let blocks = "select count(*), max(remaining_microdollars) from credit_blocks('user', 'never')";
    let row = c.query_one(blocks, &[]).expect("the blocks");
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1025, 0));
}

// Otherwise one owner that fails or is busy would keep everybody's credit from expiring for ever.
#[test]
fn an_owner_that_cannot_expire_does_not_stand_in_the_way_of_the_others() {
    let (db, mut c) = books();
    for (id, expiry) in [("first", "2025-04-02"), ("second", "2025-04-03")] {
        user(id).grant(&mut c, "A", 5, "2025-04-01", expiry);
    }
    let mut holder = session(&db);
    run_sql(&mut holder, "begin; select from accounts where owner_id = 'first' for update");
    assert_eq!(one::<i64>(&mut c, "select expire_due_credits(now(), 1)", &[]), 1);
    assert_eq!(user("second").expired(&mut c), named(&[("A", -5)]));
    run_sql(&mut holder, "rollback");
    assert_eq!(one::<i64>(&mut c, "select expire_due_credits(now(), 1)", &[]), 1);
    assert_eq!(user("first").expired(&mut c), named(&[("A", -5)]));
    assert_books_hold(&mut c);
}
