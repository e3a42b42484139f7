//! verify_books(): silent on good books, whoever charges and posts meanwhile; and all of it is
//! reported when much is wrong.

mod books_common;
mod common;

use books_common::{assert_no_violations, fill, texts};
use common::{Server, error_of, one, run_sql, wait_until};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

#[test]
fn good_books_have_no_violations() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    assert_no_violations(&mut client);
    let mut waiting = fill(&mut client);
    assert_no_violations(&mut client);
    while waiting > 0 {
        waiting -= one::<i64>(&mut client, "SELECT exa_billing.post_spend(9)", &[]);
        assert_no_violations(&mut client);
        let of_owners: i64 = one(
            &mut client,
            "SELECT count(v) FROM exa_billing.account_balances AS a,
             LATERAL exa_billing.verify_books(a.owner_kind, a.owner_id) AS v",
            &[],
        );
        assert_eq!(of_owners, 0);
    }
}

#[test]
fn arguments_are_checked() {
    let db = Server::shared().database();
    let mut client = db.client();
    let without = error_of(&mut client, "SELECT exa_billing.verify_books()");
    assert_eq!(without.code, "55000");
    assert!(without.hint.expect("what to do").contains("setup()"));
    run_sql(&mut client, "SELECT exa_billing.setup()");
    for arguments in ["'user'", "owner_id => 'u'", "'company', 'u'", "'user', ''"] {
        let sql = format!("SELECT exa_billing.verify_books({arguments})");
        assert_eq!(error_of(&mut client, &sql).code, "22023", "{arguments}");
    }
    assert_no_violations(&mut client);
}

/// Nobody knows beforehand how much is wrong.
#[test]
fn hundreds_of_violations_are_all_reported() {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        "SELECT exa_billing.set_free_allowance(0, '2020-01-01');
         SELECT exa_billing.record_exa_usage('user-' || n, '/search', 5) FROM generate_series(1, 400) AS n;
         SELECT exa_billing.post_spend();
         UPDATE exa_billing.accounts SET microdollars_used = 6;
         UPDATE exa_billing.spend_hourly_totals SET spend_record_count = 2;",
    );
    let found = texts(
        &mut client,
        "SELECT concat_ws(' ', invariant, expected_microdollars, actual_microdollars, count(*),
                          count(DISTINCT owner_id), min(owner_id), bool_and(detail <> ''))
         FROM exa_billing.verify_books()
         GROUP BY invariant, expected_microdollars, actual_microdollars ORDER BY 1",
    );
    assert_eq!(found, ["I3 5 6 400 400 user-1 t", "I5 5 5 400 400 user-1 t"]);
}

/// While sessions charge and post, each call sees one moment and nothing half done.
#[test]
fn verifying_beside_charging_and_posting_raises_no_false_alarm() {
    let db = Server::shared().database();
    let mut client = db.client();
    fill(&mut client);
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for statement in [
            "SELECT exa_billing.record_exa_usage('user-1', '/search', 50, 'org-1', gen_random_uuid()::text),
                    exa_billing.record_spend('user', 'user-2', 5, 'variable', 's', 'p' || random())",
            "SELECT exa_billing.post_spend(7)",
        ] {
            let (mut client, stop) = (db.client(), &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    run_sql(&mut client, statement);
                }
            });
        }
        let mut found = Vec::new();
        let mut counts = Vec::new();
        for _ in 0..25 {
            let row = client
                .query_one(
                    "SELECT (SELECT count(*) FROM exa_billing.verify_books()),
                            (SELECT count(*) FROM exa_billing.exa_usage_log)",
                    &[],
                )
                .expect("verify_books()");
            found.push(row.get::<_, i64>(0));
            counts.push(row.get::<_, i64>(1));
        }
        stop.store(true, Ordering::Relaxed);
        assert!(found.iter().all(|&violations| violations == 0), "{found:?}");
        assert!(counts[24] > counts[0], "nothing was charged meanwhile: {counts:?}");
    });
    wait_until("the rest is posted", || {
        one::<i64>(&mut client, "SELECT exa_billing.post_spend()", &[]) == 0
    });
    assert_no_violations(&mut client);
}
