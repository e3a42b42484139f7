//! Grants, charges, expirations and recomputes of several sessions at once: no deadlock, nothing
//! lost, nothing invented.

mod common;
mod credits_common;
mod sessions;
mod usage_common;

use common::{Server, error_of, one, run_sql, sqlstate};
use credits_common::{Recomputed, books, user};
use postgres::Client;
use sessions::*;
use usage_common::{assert_books_hold, column};

const OPTIONS: &str = "-c search_path=exa_billing,public -c lock_timeout=30s";

/// An owner with 1,000 that never expire, and 5,000 that have expired and are not processed yet.
fn with_a_due_grant(c: &mut Client) {
    run_sql(
        c,
        "select grant_credit('user', 'buyer', 1000, created_at => now() - interval '2 days');
         select grant_credit('user', 'buyer', 5000, now() - interval '1 second', created_at => now() - interval '1 day')",
    );
}

#[test]
fn of_purchases_at_once_with_an_expiration_due_one_passes() {
    let (db, mut c) = books();
    with_a_due_grant(&mut c);
    let buy =
        "select record_spend('user', 'buyer', 600, 'scheduled', 's', 'p', require_balance => true)";
    let results = in_sessions(&db, 6, OPTIONS, |number, client| {
        if number == 5 {
            run_sql(client, "select expire_credits('user', 'buyer')");
            return None;
        }
        let error = client.batch_execute(buy).err()?;
        let error = error.as_db_error().expect("the server's answer").clone();
        assert_eq!(error.message(), "insufficient credit");
        Some(error.code().code().to_owned())
    });
    let refused: Vec<String> = results.into_iter().flatten().collect();
    assert_eq!(refused, ["53400"; 4]);
    assert_eq!(user("buyer").figures(&mut c, "now"), (1000, 600, 400));
    assert_eq!(one::<i64>(&mut c, "select count(*) from spend_log", &[]), 1);
    assert_eq!(one::<i64>(&mut c, "select count(*) from unposted_spend", &[]), 1);
    assert_books_hold(&mut c);
}

#[test]
fn two_expirations_at_once_write_one_closing_row() {
    let (db, mut c) = books();
    with_a_due_grant(&mut c);
    let expired = in_sessions(&db, 8, OPTIONS, |number, client| -> i64 {
        match number % 4 {
            0 => one(client, "select expire_credits('user', 'buyer')", &[]),
            1 => one(client, "select close_out_credits('user', 'buyer')", &[]),
            2 => {
                run_sql(client, "select expire_due_credits()");
                0
            }
            _ => {
                run_sql(client, "select recompute_user_balances('buyer')");
                0
            }
        }
    });
    // 0 when it was expire_due_credits, which counts owners.
    assert!([0, 5000].contains(&expired.iter().sum()), "{expired:?}");
    let closing = "select amount_microdollars from credit_transactions where original_transaction_id is not null";
    assert_eq!(column::<i64>(&mut c, closing), [-5000]);
    assert_eq!(user("buyer").figures(&mut c, "now"), (1000, 0, 1000));
    assert_books_hold(&mut c);
}

/// What one session has done.
#[derive(Default)]
struct Sums {
    charged: i64,
    granted: i64,
    expired: i64,
    adjustments: i64,
}

fn act(c: &mut Client, dice: &mut Dice, sums: &mut Sums) {
    let amount = 1 + dice.up_to(1_000);
    let statement = match dice.up_to(12) {
        0..=2 => "select charged_microdollars from record_exa_usage('u', '/search', $1)",
        3..=4 => {
            "select charged_microdollars from record_spend('user', 'u', $1, 'variable', 's', 'p')"
        }
        5 => "select $1::bigint from grant_credit('user', 'u', $1)",
        6..=7 => {
            "select $1::bigint from grant_credit('user', 'u', $1, clock_timestamp() + interval '20 milliseconds')"
        }
        8 => "select $1::bigint from adjust_credit('user', 'u', $1, 'refund')",
        9 => "select expire_credits('user', 'u') from (select $1::bigint) as x",
        10 => "select new_microdollars_used from recompute_user_balances('u', $1::bigint % 3 = 0)",
        _ => {
            "select new_microdollars_used from recompute_user_balances('u', false, $1::bigint % 2 = 0)"
        }
    };
    let result: i64 = match c.query_one(statement, &[&amount]) {
        Ok(row) => row.get(0),
        Err(error) => {
            let error = error.as_db_error().expect("the server's answer");
            // A grant that has waited for others until it would have been over.
            let refusal = (error.code().code(), error.message());
            assert_eq!(refusal, ("22023", "expires_at must be after the grant"), "{statement}");
            return;
        }
    };
    match statement {
        s if s.contains("record_") => sums.charged += result,
        s if s.contains("grant_credit") => sums.granted += result,
        s if s.contains("adjust_credit") => {
            sums.granted += result;
            sums.adjustments += 1;
        }
        s if s.contains("expire_credits") => sums.expired += result,
        _ => assert!(result >= sums.charged, "a recompute misses what this session charged"),
    }
}

#[test]
fn eight_sessions_of_one_owner_lose_and_invent_nothing() {
    let (db, mut c) = books();
    run_sql(&mut c, "select grant_credit('user', 'u', 1)");
    let all = posting_beside(&db, || {
        in_sessions(&db, 8, OPTIONS, |number, client| {
            let mut dice = Dice(0x5EED + number as u64);
            let mut sums = Sums::default();
            for _ in 0..40 {
                act(client, &mut dice, &mut sums);
            }
            sums
        })
    });
    let sum = |of: fn(&Sums) -> i64| all.iter().map(of).sum::<i64>();
    let expired = sum(|s| s.expired) + user("u").expire(&mut c, "now");
    assert!(expired > 0, "nothing expired");
    let (acquired, used) = (1 + sum(|s| s.granted) - expired, sum(|s| s.charged));
    assert_eq!(user("u").figures(&mut c, "now"), (acquired, used, acquired - used));
    // Undamaged books need no adjustment but those that were asked for.
    let adjustments =
        "select count(*) from credit_transactions where credit_category = 'accounting_adjustment'";
    assert_eq!(one::<i64>(&mut c, adjustments, &[]), sum(|s| s.adjustments));
    let found = user("u").recompute(&mut c, "");
    assert_eq!((found.used, found.acquired, found.error), ((used, used), (acquired, acquired), 0));
    assert_books_hold(&mut c);
}

#[test]
fn recomputing_beside_live_charging_is_exact() {
    let (db, mut c) = books();
    run_sql(&mut c, "select grant_credit('user', 'u', 5000000, now() + interval '1 day')");
    let recompute = |client: &mut Client| {
        let owner = user("u");
        for arguments in [", false, true", ", true", ", false, false"] {
            let found = owner.recompute(client, arguments);
            assert_eq!((found.error, found.adjustment), (0, 0), "{found:?}");
            assert_eq!(found.used.0, found.used.1, "{found:?}");
        }
    };
    let post = |client: &mut Client| run_sql(client, "select exa_billing.post_spend(7)");
    let charged = beside(&db, &[&recompute, &post], || {
        in_sessions(&db, 4, OPTIONS, |number, client| -> i64 {
            let mut dice = Dice(99 + number as u64);
            (0..120)
                .map(|_| {
                    let amount = 1 + dice.up_to(1_000);
                    let call = if dice.up_to(2) == 0 {
                        "select charged_microdollars from record_exa_usage('u', '/answer', $1)"
                    } else {
                        "select charged_microdollars from record_spend('user', 'u', $1, 'scheduled', 's', 'p')"
                    };
                    one::<i64>(client, call, &[&amount])
                })
                .sum()
        })
    });
    let total: i64 = charged.iter().sum();
    assert_eq!(user("u").figures(&mut c, "now"), (5_000_000, total, 5_000_000 - total));
    user("u").assert_recomputed(&mut c, total, 5_000_000);
    assert_eq!(user("u").ledger(&mut c).len(), 1);
    assert_books_hold(&mut c);
}

// Whoever waits for a lock at all is refused at once.
#[test]
fn charging_and_reading_wait_for_no_expiration_and_no_recompute() {
    for call in [
        "expire_credits('user', 'buyer')",
        "close_out_credits('user', 'buyer')",
        "recompute_user_balances('buyer')",
        "adjust_credit('user', 'buyer', 5, 'refund')",
    ] {
        let (db, mut c) = books();
        with_a_due_grant(&mut c);
        let mut holder = db.client_with(OPTIONS);
        run_sql(&mut holder, &format!("begin; select {call}"));
        run_sql(
            &mut c,
            "set lock_timeout = '1ms';
             select record_exa_usage('buyer', '/search', 7);
             select record_spend('user', 'buyer', 4, 'variable', 's', 'p');
             select recompute_user_balances('buyer', dry_run => true)",
        );
        assert_eq!(user("buyer").balance(&mut c, "now"), 1000 - 11, "{call}");
        assert_eq!(one::<i64>(&mut c, "select post_spend()", &[]), 0, "{call}");
        assert_eq!(one::<i64>(&mut c, "select expire_due_credits()", &[]), 0, "{call}");
        run_sql(&mut holder, "rollback");
        assert_eq!(one::<i64>(&mut c, "select post_spend()", &[]), 2, "{call}");
        assert_eq!(user("buyer").expire(&mut c, "now"), 5000, "{call}");
        user("buyer").assert_recomputed(&mut c, 11, 1000);
        assert_books_hold(&mut c);
    }
}

// A transaction at REPEATABLE READ must not recompute from, or expire by, an old snapshot.
#[test]
fn an_old_snapshot_expires_and_recomputes_nothing() {
    for call in ["expire_credits('user', 'buyer')", "recompute_user_balances('buyer')"] {
        let (db, mut c) = books();
        with_a_due_grant(&mut c);
        let mut other = db.client_with(OPTIONS);
        run_sql(&mut other, "begin isolation level repeatable read; select count(*) from accounts");
        run_sql(
            &mut c,
            "select record_spend('user', 'buyer', 10, 'variable', 's', 'p', created_at => now() - interval '1 hour')",
        );
        post_all(&mut c);
        assert_eq!(sqlstate(other.batch_execute(&format!("select {call}"))), "40001", "{call}");
        run_sql(&mut other, "rollback");
        run_sql(&mut other, &format!("select {call}"));
        user("buyer").expire(&mut c, "now");
        assert_eq!(user("buyer").figures(&mut c, "now"), (1010, 10, 1000), "{call}");
        assert_books_hold(&mut c);
    }
}

#[test]
fn a_dry_run_works_on_a_standby() {
    let server = Server::start("dryrun", &[]);
    let db = server.database();
    let mut primary = credits_common::session(&db);
    run_sql(
        &mut primary,
        "select setup(); select set_free_allowance(0, '2020-01-01');
         select grant_credit('user', 'u', 100, '2025-04-10', description => 'A', created_at => '2025-04-01');
         select record_spend('user', 'u', 30, 'variable', 's', 'p', created_at => '2025-04-02');
         select expire_credits('user', 'u');
         select post_spend();
         select record_exa_usage('u', '/search', 5, created_at => '2025-04-03');
         update accounts set microdollars_used = 999",
    );
    let standby_server = server.basebackup_standby("standby");
    let mut standby = standby_server.client(db.name());
    let found = user("u").recompute(&mut standby, ", dry_run => true");
    let expected = Recomputed {
        used: (1004, 35),
        acquired: (30, -939),
        error: -969,
        adjustment: -969,
        original_changed: 1,
        late_arrivals: 1,
        applied: false,
        ..Recomputed::unchanged(0, 0)
    };
    assert_eq!(found, expected);
    assert_eq!(user("u").recompute(&mut primary, ", dry_run => true"), expected);
    let baselines = "select array_agg(new_original_baseline_microdollars_used order by created_at)
                     from exa_billing.recompute_baselines('user', 'u')";
    assert_eq!(one::<Vec<i64>>(&mut standby, baselines, &[]), [0, 35]);
    for writer in [
        "recompute_user_balances('u')",
        "expire_credits('user', 'u')",
        "expire_due_credits()",
        "close_out_credits('user', 'u')",
        "adjust_credit('user', 'u', 5, 'x')",
        "import_opening_balance('user', 'v', 5, 5, now(), 'k')",
    ] {
        let error = error_of(&mut standby, &format!("select exa_billing.{writer}"));
        assert_eq!(error.code, "25006", "{writer}");
    }
    for reader in [
        "credit_blocks('user', 'u')",
        "account_statement('user', 'u', '2025-04-01', '2025-05-01')",
        "account_balance('user', 'u')",
    ] {
        let sql = format!("select r::text from exa_billing.{reader} as r");
        let (here, there) =
            (column::<String>(&mut standby, &sql), column::<String>(&mut primary, &sql));
        assert_eq!(here, there, "{reader}");
    }
}
