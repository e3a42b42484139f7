//! Recompute: the worked examples with their numbers, each damaged as the replaced system would
//! have left it, and what recomputing finds, keeps and changes.

mod common;
mod credits_common;
mod usage_common;

use common::{one, run_sql};
use credits_common::*;
use postgres::Client;
use usage_common::{assert_books_hold, assert_unchanged, state};

const M: i64 = 1_000_000;

fn april(day: u32) -> String {
    format!("2025-04-{day:02} 00:00+00")
}

const BASELINES_0: &str =
    "update exa_billing.credit_transactions set original_baseline_microdollars_used = 0,
    expiration_baseline_microdollars_used = case when expiry_date is not null then 0 end";

/// What a grant would claim and leave if all Exa usage came after everything else.
fn baseline_with_exa_at_the_end(c: &mut Client, owner: &Owner, grant: &str) -> i64 {
    let sql = "select coalesce(sum(s.amount_microdollars), 0)::bigint
               from exa_billing.spend_log as s join exa_billing.credit_transactions as g
                   on g.owner_kind = s.owner_kind and g.owner_id = s.owner_id and g.description = $3
               where s.owner_kind = $1 and s.owner_id = $2 and s.created_at < g.created_at";
    one(c, sql, &[&owner.kind, &owner.id, &grant])
}

fn expires(baseline: i64, amount: i64, used: i64) -> i64 {
    amount - ((baseline + amount).min(used) - baseline).max(0)
}

#[test]
fn r0_nothing_to_do() {
    let (_db, mut c) = books();
    let u = user("r0");
    u.llm(&mut c, 100, &april(1));
    u.grant(&mut c, "A", 500, &april(2), &april(10));
    u.grant(&mut c, "B", 300, &april(3), &april(15));
    u.exa(&mut c, 400, &april(3));
    assert_eq!(u.expire(&mut c, &april(16)), 400);
    u.grant(&mut c, "C", 200, &april(20), "");
    u.grant(&mut c, "D", 150, &april(25), "");
    let ledger = [
        entry("A", 500, 100, Some(100)),
        entry("B", 300, 100, Some(500)),
        entry("Expired: A", -100, 500, None),
        entry("Expired: B", -300, 500, None),
        entry("C", 200, 500, None),
        entry("D", 150, 500, None),
    ];
    assert_eq!(u.ledger(&mut c), ledger);
    u.assert_recomputed(&mut c, 500, 750);
    assert_eq!(u.ledger(&mut c), ledger);
    assert_books_hold(&mut c);
}

/// The example's history, with 0 stored as the baselines of the grant.
fn r1(c: &mut Client, owner: &Owner) {
    owner.grant(c, "P", 50 * M, &april(1), "");
    owner.llm(c, 2 * M, &april(5));
    owner.exa(c, 3 * M, &april(6));
    owner.grant(c, "G", 10 * M, &april(10), "2025-05-10 00:00+00");
    owner.llm(c, M, &april(12));
    owner.exa(c, 4 * M, &april(15));
}

#[test]
fn r1_usage_of_both_journals_is_interleaved() {
    let (_db, mut c) = books();
    for owner in [user("r1"), organization("r1")] {
        r1(&mut c, &owner);
        plant(&mut c, BASELINES_0);
        let expected = Recomputed {
            original_changed: 1,
            expiration_changed: 1,
            ..Recomputed::unchanged(10 * M, 60 * M)
        };
        assert_eq!(owner.recompute(&mut c, ""), expected);
        let baselines = [entry("P", 50 * M, 0, None), entry("G", 10 * M, 5 * M, Some(5 * M))];
        assert_eq!(owner.ledger(&mut c), baselines);

        let naive = baseline_with_exa_at_the_end(&mut c, &owner, "G");
        assert_eq!((naive, expires(naive, 10 * M, 10 * M)), (2 * M, 2 * M));
        assert_eq!(owner.expire(&mut c, "2025-05-10 00:00+00"), 5 * M);
        assert_eq!(owner.figures(&mut c, "now"), (55 * M, 10 * M, 45 * M));
        owner.assert_recomputed(&mut c, 10 * M, 55 * M);
    }
    assert_books_hold(&mut c);
}

#[test]
fn r2_a_past_expiration_is_replayed_as_it_was_recorded() {
    let (_db, mut c) = books();
    let u = user("r2");
    u.grant(&mut c, "A", 10 * M, &april(1), &april(20));
    u.llm(&mut c, 2 * M, &april(3));
    u.exa(&mut c, 4 * M, &april(6));
    u.grant(&mut c, "B", 10 * M, &april(8), "2025-06-01 00:00+00");
    u.exa(&mut c, M, &april(15));
    assert_eq!(u.expire(&mut c, &april(20)), 3 * M);
    u.grant(&mut c, "C", 5 * M, &april(25), "2025-07-01 00:00+00");
    u.exa(&mut c, 2 * M, &april(26));
    u.llm(&mut c, M, &april(28));
    let right = [
        entry("A", 10 * M, 0, Some(0)),
        entry("B", 10 * M, 6 * M, Some(7 * M)),
        entry("Expired: A", -3 * M, 7 * M, None),
        entry("C", 5 * M, 7 * M, Some(7 * M)),
    ];
    assert_eq!(u.ledger(&mut c), right);

    // What a replay with today's usage stores: A would have claimed all of its 10M.
    plant(
        &mut c,
        "update exa_billing.credit_transactions set expiration_baseline_microdollars_used = 10000000
         where description in ('B', 'C')",
    );
    assert_eq!(u.figures(&mut c, "2025-07-02"), (7 * M, 10 * M, -3 * M));
    let expected = Recomputed { expiration_changed: 2, ..Recomputed::unchanged(10 * M, 22 * M) };
    assert_eq!(u.recompute(&mut c, ""), expected);
    assert_eq!(u.ledger(&mut c), right);
    u.assert_recomputed(&mut c, 10 * M, 22 * M);
    assert_eq!(u.expire(&mut c, "2025-07-01 00:00+00"), 12 * M);
    assert_eq!(u.expired(&mut c), named(&[("A", -3 * M), ("B", -7 * M), ("C", -5 * M)]));
    assert_eq!(u.figures(&mut c, "now"), (10 * M, 10 * M, 0));
    u.assert_recomputed(&mut c, 10 * M, 10 * M);
    assert_books_hold(&mut c);
}

#[test]
fn r3_usage_at_the_very_instant_of_a_grant_counts_as_after_it() {
    let (_db, mut c) = books();
    let u = user("r3");
    u.llm(&mut c, 3 * M, "2025-04-09 23:59:59+00");
    u.llm(&mut c, M, &april(10));
    u.exa(&mut c, M, &april(10));
    u.grant(&mut c, "G", 9 * M, &april(10), "");
    assert_eq!(u.ledger(&mut c), [entry("G", 9 * M, 3 * M, None)]);
    u.assert_recomputed(&mut c, 5 * M, 9 * M);
    plant(&mut c, BASELINES_0);
    let expected = Recomputed { original_changed: 1, ..Recomputed::unchanged(5 * M, 9 * M) };
    assert_eq!(u.recompute(&mut c, ""), expected);
    assert_eq!(u.ledger(&mut c), [entry("G", 9 * M, 3 * M, None)]);
    assert_books_hold(&mut c);
}

/// 3M used of 10M, but the account says that 999 were used. Returns the owner.
fn r4(c: &mut Client, id: &str) -> Owner {
    let u = user(id);
    u.grant(c, "G", 10 * M, &april(1), "");
    u.llm(c, M, &april(2));
    u.exa(c, 2 * M, &april(3));
    post(c);
    let drift =
        format!("update exa_billing.accounts set microdollars_used = 999 where owner_id = '{id}'");
    run_sql(c, &drift);
    assert_eq!(u.figures(c, "now"), (10 * M, 999, 9_999_001));
    u
}

#[test]
fn r4_drift_keeps_the_visible_balance_and_books_the_difference() {
    let (_db, mut c) = books();
    let u = r4(&mut c, "r4");
    let expected = Recomputed {
        used: (999, 3 * M),
        acquired: (10 * M, 12_999_001),
        error: 2_999_001,
        adjustment: 2_999_001,
        applied: false,
        ..Recomputed::unchanged(0, 0)
    };
    let before = state(&mut c);
    assert_eq!(u.recompute(&mut c, ", dry_run => true"), expected);
    assert_unchanged(&mut c, &before, "a dry run");
    assert_eq!(u.recompute(&mut c, ""), Recomputed { applied: true, ..expected });
    assert_eq!(u.figures(&mut c, "now"), (12_999_001, 3 * M, 9_999_001));
    let adjustment: (i64, String, bool, i64, bool) = {
        let sql = "select amount_microdollars, credit_category, is_free, original_baseline_microdollars_used,
                          expiry_date is null
                   from exa_billing.credit_transactions where credit_category is not null";
        let row = c.query_one(sql, &[]).expect("one adjustment");
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4))
    };
    assert_eq!(adjustment, (2_999_001, "accounting_adjustment".into(), true, 3 * M, true));
    let after = state(&mut c);
    u.assert_recomputed(&mut c, 3 * M, 12_999_001);
    assert_unchanged(&mut c, &after, "a second run");
    assert_books_hold(&mut c);
}

#[test]
fn r4_drift_without_keeping_the_balance_gives_the_balance_of_the_ledger() {
    let (_db, mut c) = books();
    let u = r4(&mut c, "r4");
    let expected = Recomputed {
        used: (999, 3 * M),
        acquired: (10 * M, 10 * M),
        error: 2_999_001,
        applied: false,
        ..Recomputed::unchanged(0, 0)
    };
    assert_eq!(u.recompute(&mut c, ", true, false"), expected);
    assert_eq!(u.figures(&mut c, "now"), (10 * M, 999, 9_999_001));
    assert_eq!(u.recompute(&mut c, ", false, false"), Recomputed { applied: true, ..expected });
    assert_eq!(u.figures(&mut c, "now"), (10 * M, 3 * M, 7 * M));
    assert_eq!(u.ledger(&mut c), [entry("G", 10 * M, 0, None)]);
    u.assert_recomputed(&mut c, 3 * M, 10 * M);
    assert_books_hold(&mut c);
}

#[test]
fn r5_interleaving_with_a_past_expiration() {
    let (_db, mut c) = books();
    let u = user("r5");
    u.grant(&mut c, "A", 2 * M, &april(1), &april(10));
    u.llm(&mut c, 2 * M, &april(2));
    assert_eq!(u.expire(&mut c, &april(10)), 0);
    u.exa(&mut c, 3 * M, &april(12));
    u.grant(&mut c, "C", 10 * M, &april(15), "2025-06-01 00:00+00");
    u.llm(&mut c, M, &april(20));
    u.exa(&mut c, M, &april(21));
    plant(&mut c, BASELINES_0);
    let expected = Recomputed {
        // The closing row of A and C; the expiration baseline of C.
        original_changed: 2,
        expiration_changed: 1,
        ..Recomputed::unchanged(7 * M, 12 * M)
    };
    assert_eq!(u.recompute(&mut c, ""), expected);
    let ledger = [
        entry("A", 2 * M, 0, Some(0)),
        entry("Expired: A", 0, 2 * M, None),
        entry("C", 10 * M, 5 * M, Some(5 * M)),
    ];
    assert_eq!(u.ledger(&mut c), ledger);
    let naive = baseline_with_exa_at_the_end(&mut c, &u, "C");
    assert_eq!((naive, expires(naive, 10 * M, 7 * M)), (2 * M, 5 * M));
    assert_eq!(u.expire(&mut c, "2025-06-01 00:00+00"), 8 * M);
    u.assert_recomputed(&mut c, 7 * M, 4 * M);
    assert_books_hold(&mut c);
}

// Usage is one thing for counters, baselines and rollups: a bought plan is usage like any other.
#[test]
fn scheduled_spend_stays_usage_when_recomputed() {
    let (_db, mut c) = books();
    let u = user("plan");
    u.grant(&mut c, "P", 100 * M, &april(1), "");
    u.llm(&mut c, 5 * M, &april(2));
    run_sql(
        &mut c,
        "select record_spend('user', 'plan', 20000000, 'scheduled', 'coding_plan', 'coding-plan',
                             created_at => '2025-04-03 00:00+00', require_balance => true)",
    );
    u.grant(&mut c, "G", 10 * M, &april(4), &april(20));
    u.exa(&mut c, M, &april(5));
    let ledger = [entry("P", 100 * M, 0, None), entry("G", 10 * M, 25 * M, Some(25 * M))];
    assert_eq!(u.ledger(&mut c), ledger);
    u.assert_recomputed(&mut c, 26 * M, 110 * M);
    assert_eq!(u.ledger(&mut c), ledger);
    assert_eq!(u.expire(&mut c, &april(21)), 9 * M);
    u.assert_recomputed(&mut c, 26 * M, 101 * M);
    assert_books_hold(&mut c);
}

#[test]
fn a_grant_closed_out_early_does_not_move_later_grants_when_recomputed() {
    let (_db, mut c) = books();
    for owner in [user("r7"), organization("r7")] {
        owner.grant(&mut c, "old", 10 * M, &april(1), "2040-01-01 00:00+00");
        owner.exa(&mut c, M, &april(2));
        assert_eq!(owner.close_out(&mut c, &april(3)), 9 * M);
        owner.grant(&mut c, "n1", 9 * M, &april(4), "2025-06-01 00:00+00");
        owner.grant(&mut c, "n2", 10 * M, &april(4), "2025-12-01 00:00+00");
        owner.llm(&mut c, 2 * M, &april(10));
        let ledger = [
            entry("old", 10 * M, 0, Some(0)),
            entry("Expired: old", -9 * M, M, None),
            entry("n1", 9 * M, M, Some(M)),
            entry("n2", 10 * M, M, Some(M)),
        ];
        assert_eq!(owner.ledger(&mut c), ledger);
        owner.assert_recomputed(&mut c, 3 * M, 20 * M);
        assert_eq!(owner.ledger(&mut c), ledger);
    }
    assert_books_hold(&mut c);
}

#[test]
fn an_owner_without_any_row_has_nothing_to_recompute() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    for owner in [user("nobody"), organization("nobody")] {
        for arguments in ["", ", true", ", false, false"] {
            let found = owner.recompute(&mut c, arguments);
            assert_eq!(found, Recomputed { applied: false, ..Recomputed::unchanged(0, 0) });
        }
        let rows = usage_common::column::<String>(
            &mut c,
            &format!("select f::text from recompute_baselines({}) as f", owner.arguments()),
        );
        assert_eq!(rows, Vec::<String>::new());
    }
    assert_unchanged(&mut c, &before, "recomputing nobody");
}

// The account is opened by posting; until then the owner is in the queue only.
#[test]
fn an_owner_whose_charges_all_wait_is_recomputed_from_the_journals() {
    let (_db, mut c) = books();
    let u = organization("new");
    u.exa(&mut c, 700, &april(1));
    u.llm(&mut c, 11, &april(2));
    let dry = Recomputed { applied: false, ..Recomputed::unchanged(711, 0) };
    assert_eq!(u.recompute(&mut c, ", true"), dry);
    assert_eq!(u.recompute(&mut c, ""), Recomputed::unchanged(711, 0));
    let waiting = "select count(*) from unposted_spend";
    assert_eq!(one::<i64>(&mut c, waiting, &[]), 0, "recomputing posts the owner's rows");
    assert_eq!(u.figures(&mut c, "now"), (0, 711, -711));
    assert_books_hold(&mut c);
}

#[test]
fn a_lost_account_row_is_made_anew() {
    let (_db, mut c) = books();
    let u = user("lost");
    r1(&mut c, &u);
    post(&mut c);
    let before = state(&mut c);
    let row = "select a::text from accounts as a";
    let account: String = one(&mut c, &row.replace("a::text", "(a.owner_id, a.total_microdollars_acquired, a.microdollars_used, a.next_credit_expiration_at)::text"), &[]);
    run_sql(&mut c, "delete from accounts");
    let found = u.recompute(&mut c, ", false, false");
    assert_eq!((found.used, found.acquired, found.applied), ((0, 10 * M), (0, 60 * M), true));
    let now: String = one(&mut c, &row.replace("a::text", "(a.owner_id, a.total_microdollars_acquired, a.microdollars_used, a.next_credit_expiration_at)::text"), &[]);
    assert_eq!(now, account);
    assert_eq!(state(&mut c).len(), before.len());
    assert_books_hold(&mut c);
}

#[test]
fn the_baselines_are_listed_as_stored_and_as_they_should_be() {
    let (_db, mut c) = books();
    let u = user("r1");
    r1(&mut c, &u);
    plant(&mut c, BASELINES_0);
    let before = state(&mut c);
    let sql = "select concat_ws(' ', to_char(created_at at time zone 'UTC', 'MM-DD'), amount_microdollars,
                   to_char(expiry_date at time zone 'UTC', 'MM-DD'),
                   stored_original_baseline_microdollars_used, new_original_baseline_microdollars_used,
                   stored_expiration_baseline_microdollars_used, new_expiration_baseline_microdollars_used)
               from recompute_baselines('user', 'r1') where transaction_id in (select id from credit_transactions)";
    assert_eq!(
        usage_common::column::<String>(&mut c, sql),
        ["04-01 50000000 0 0", "04-10 10000000 05-10 0 5000000 0 5000000"]
    );
    assert_unchanged(&mut c, &before, "a listing");
}

#[test]
fn recomputing_refreshes_when_credit_expires_next() {
    let (_db, mut c) = books();
    let u = user("r1");
    r1(&mut c, &u);
    for wrong in ["null", "'2039-01-01 00:00+00'", "'2024-01-01 00:00+00'"] {
        run_sql(&mut c, &format!("update accounts set next_credit_expiration_at = {wrong}"));
        u.recompute(&mut c, "");
        let next = u.next(&mut c, &april(20));
        assert_eq!(next, (Some("2025-05-10 00:00:00".into()), Some(5 * M)), "after {wrong}");
    }
    assert_books_hold(&mut c);
}
