//! Many sessions at once: the edge of an allowance, purchases, posting beside charging, and who
//! waits for whom.

mod common;
mod sessions;

use std::collections::BTreeMap;

use common::{error_of, one, run_sql, sqlstate};
use postgres::Client;
use postgres::types::ToSql;
use sessions::*;

fn set_allowance(client: &mut Client, amount: i64, rule: &str) {
    let sql = "SELECT exa_billing.set_free_allowance(
        $1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, overage_rule => $2)";
    client.execute(sql, &[&amount, &rule]).unwrap();
}

fn used_by(client: &mut Client, kind: &str, id: &str) -> i64 {
    let sql = "SELECT microdollars_used FROM exa_billing.account_balance($1, $2)";
    one(client, sql, &[&kind, &id])
}

/// What one request became.
struct Request {
    user: usize,
    organization: bool,
    cost: i64,
    free: i64,
    charged: i64,
}

const ALLOWANCE: i64 = 1_000_000;
const USERS: usize = 4;

/// A thousand requests of four users from 16 sessions, some for an organization of the user's.
/// The users run out of their allowance somewhere in the middle.
fn thousand_requests(rule: &str, isolation: &str) -> Vec<Request> {
    const SESSIONS: usize = 16;
    let db = books();
    let mut client = db.client();
    set_allowance(&mut client, ALLOWANCE, rule);
    let options = format!("{IMPATIENT} -c default_transaction_isolation={isolation}");
    let requests: Vec<Request> = posting_beside(&db, || {
        in_sessions(&db, SESSIONS, &options, |session, client| {
            let mut dice = Dice(session as u64 + 1);
            (session..1000)
                .step_by(SESSIONS)
                .map(|number| {
                    let user = number % USERS;
                    let organization = dice.up_to(2) == 0;
                    let cost = 4_001 + dice.up_to(8_000);
                    let row = row_with_retries(
                        client,
                        "SELECT cost_microdollars, free_microdollars, charged_microdollars,
                                free_allowance_microdollars
                         FROM exa_billing.record_exa_usage($1, '/search', $2, organization_id => $3)",
                        &[
                            &format!("user-{user}"),
                            &cost,
                            &organization.then(|| format!("org-{user}")),
                        ],
                    );
                    assert_eq!(row.get::<_, i64>(0), cost);
                    assert_eq!(row.get::<_, i64>(3), ALLOWANCE);
                    Request { user, organization, cost, free: row.get(1), charged: row.get(2) }
                })
                .collect::<Vec<_>>()
        })
    })
    .into_iter()
    .flatten()
    .collect();

    assert_eq!(requests.len(), 1000);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]),
        1000
    );
    for user in 0..USERS {
        let sum = |figure: fn(&Request) -> i64| -> i64 {
            requests.iter().filter(|request| request.user == user).map(figure).sum()
        };
        let (cost, free) = (sum(|request| request.cost), sum(|request| request.free));
        let id = format!("user-{user}");
        let month = client
            .query_one(
                "SELECT m.total_cost_microdollars, m.total_charged_microdollars, m.request_count,
                        a.used_microdollars
                 FROM exa_billing.exa_monthly_usage($1) AS m
                 JOIN exa_billing.exa_monthly_allowance AS a USING (user_id, month)",
                &[&id],
            )
            .unwrap();
        let month: Vec<i64> = (0..4).map(|column| month.get(column)).collect();
        assert_eq!(month, [cost, cost - free, 250, free]);
        let personal = sum(|request| if request.organization { 0 } else { request.charged });
        assert_eq!(used_by(&mut client, "user", &id), personal);
        let of_organization = sum(|request| if request.organization { request.charged } else { 0 });
        assert!(personal > 0 && of_organization > 0, "both contexts are charged");
        assert_eq!(used_by(&mut client, "organization", &format!("org-{user}")), of_organization);
    }
    verify(&mut client);
    requests
}

fn free_total(requests: &[Request], user: usize) -> i64 {
    requests.iter().filter(|request| request.user == user).map(|request| request.free).sum()
}

fn check_whole(isolation: &str) {
    let requests = thousand_requests("whole", isolation);
    for request in &requests {
        let expected = if request.free > 0 { (request.cost, 0) } else { (0, request.cost) };
        assert_eq!((request.free, request.charged), expected);
    }
    for user in 0..USERS {
        let free = free_total(&requests, user);
        let of_user = requests.iter().filter(|request| request.user == user);
        let largest = of_user.map(|request| request.free).max().unwrap();
        assert!(free >= ALLOWANCE && free - ALLOWANCE < largest, "{free} of {ALLOWANCE}");
    }
}

fn check_split(isolation: &str) {
    let requests = thousand_requests("split", isolation);
    for request in &requests {
        assert_eq!(request.free + request.charged, request.cost);
    }
    for user in 0..USERS {
        assert_eq!(free_total(&requests, user), ALLOWANCE);
        let crossing = requests
            .iter()
            .filter(|request| request.user == user && request.free > 0 && request.charged > 0);
        assert!(crossing.count() <= 1, "one request crosses the edge");
    }
}

#[test]
fn a_thousand_requests_at_read_committed_go_beyond_a_whole_allowance_by_less_than_one() {
    check_whole("read\\ committed");
}

#[test]
fn a_thousand_requests_at_serializable_go_beyond_a_whole_allowance_by_less_than_one() {
    check_whole("serializable");
}

#[test]
fn a_thousand_requests_at_read_committed_use_a_split_allowance_up_exactly() {
    check_split("read\\ committed");
}

#[test]
fn a_thousand_requests_at_serializable_use_a_split_allowance_up_exactly() {
    check_split("serializable");
}

/// Leaves `user-1` with a used-up allowance: 7 microdollars were free.
fn exhaust(client: &mut Client) {
    set_allowance(client, 1, "whole");
    run_sql(client, "SELECT exa_billing.record_exa_usage('user-1', '/search', 7)");
}

#[test]
fn sixteen_sessions_of_an_exhausted_user_do_without_the_allowance_row() {
    let db = books();
    let mut holder = db.client();
    exhaust(&mut holder);
    let lock = "SELECT FROM exa_billing.exa_monthly_allowance WHERE user_id = 'user-1' FOR UPDATE";
    run_sql(&mut holder, &format!("BEGIN; {lock}"));
    let mut client = db.client();
    assert_eq!(error_of(&mut client, &format!("{lock} NOWAIT")).code, "55P03");

    let charged = in_sessions(&db, 16, IMPATIENT, |session, client| {
        (0..20)
            .map(|number| {
                let call = match number % 4 {
                    0 => "record_exa_usage('user-1', '/answer', 3, idempotency_key => $1)",
                    1 => "record_exa_usage('user-1', '/search', 3, 'org-1', idempotency_key => $1)",
                    2 => {
                        "record_exa_response('user-1', '/search',
                             '{\"costDollars\": {\"total\": 0.000003}}', idempotency_key => $1)"
                    }
                    _ => {
                        "record_exa_usage_batch(jsonb_build_array(jsonb_build_object(
                             'user_id', 'user-1', 'path', '/search', 'cost_microdollars', 3,
                             'idempotency_key', $1::text)))"
                    }
                };
                let sql = format!("SELECT charged_microdollars FROM exa_billing.{call}");
                one::<i64>(client, &sql, &[&format!("{session}/{number}")])
            })
            .sum::<i64>()
    });
    run_sql(&mut holder, "ROLLBACK");

    assert_eq!(charged, [60; 16]);
    assert_eq!(used_by(&mut client, "user", "user-1"), 16 * 15 * 3);
    assert_eq!(used_by(&mut client, "organization", "org-1"), 16 * 5 * 3);
    verify(&mut client);
}

// Reading the queue at SERIALIZABLE would put every charge into conflict with every other.
#[test]
fn a_paid_request_at_serializable_reads_neither_queue_nor_journal() {
    let db = books();
    let mut client = db.client();
    exhaust(&mut client);
    run_sql(
        &mut client,
        "BEGIN ISOLATION LEVEL SERIALIZABLE;
         SELECT exa_billing.record_exa_usage('user-1', '/search', 5);
         SELECT exa_billing.record_exa_usage('user-1', '/search', 5, 'org-1');
         SELECT exa_billing.record_spend('user', 'user-1', 5, 'variable', 'kiloclaw', 'p')",
    );
    let read = client
        .query(
            "SELECT DISTINCT coalesce(t.relname, c.relname)::text
             FROM pg_locks AS l
             JOIN pg_class AS c ON c.oid = l.relation
             LEFT JOIN pg_index AS i ON i.indexrelid = c.oid
             LEFT JOIN pg_class AS t ON t.oid = i.indrelid
             WHERE l.pid = pg_backend_pid() AND l.mode = 'SIReadLock'
               AND c.relnamespace = 'exa_billing'::regnamespace",
            &[],
        )
        .unwrap();
    let read: Vec<String> = read.iter().map(|row| row.get(0)).collect();
    assert!(read.contains(&"exa_monthly_allowance".to_owned()), "{read:?}");
    for table in ["unposted_spend", "exa_usage_log", "spend_log", "accounts"] {
        assert!(!read.iter().any(|name| name.starts_with(table)), "{read:?}");
    }
    run_sql(&mut client, "COMMIT");
    assert_eq!(used_by(&mut client, "user", "user-1"), 10);
    verify(&mut client);
}

#[test]
fn charges_do_not_wait_for_an_open_posting() {
    let db = books();
    let mut client = db.client();
    exhaust(&mut client);
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('user-1', '/search', 5, 'org-1')");
    run_sql(&mut client, "SELECT exa_billing.grant_credit('user', 'user-1', 1000)");
    let mut poster = db.client();
    run_sql(&mut poster, "BEGIN");
    assert_eq!(one::<i64>(&mut poster, "SELECT exa_billing.post_spend()", &[]), 2);

    in_sessions(&db, 16, IMPATIENT, |_, client| {
        run_sql(
            client,
            "SELECT exa_billing.record_exa_usage('user-1', '/search', 5);
             SELECT exa_billing.record_exa_usage('user-1', '/search', 5, 'org-1');
             SELECT exa_billing.record_spend('user', 'user-1', 5, 'variable', 'kiloclaw', 'p')",
        );
    });
    assert_eq!(used_by(&mut client, "user", "user-1"), 160);
    assert_eq!(used_by(&mut client, "organization", "org-1"), 85);
    run_sql(&mut poster, "COMMIT");
    assert_eq!(used_by(&mut client, "user", "user-1"), 160);
    assert_eq!(used_by(&mut client, "organization", "org-1"), 85);
    post_all(&mut client);
    assert_eq!(used_by(&mut client, "user", "user-1"), 160);
    verify(&mut client);
}

/// Per owner: credit acquired and used.
type Sums = BTreeMap<(&'static str, String), (i64, i64)>;

// $1 and $2 the owner, $3 the amount, $4 the key.
const GRANT: &str =
    "SELECT exa_billing.grant_credit($1, $2, $3, idempotency_key => $4) IS NOT NULL";
const BUY: &str = "SELECT charged_microdollars FROM exa_billing.record_spend(
    $1, $2, $3, 'scheduled', 'coding_plan', 'plan', idempotency_key => $4, require_balance => true)";
// $5 the product.
const SPEND: &str = "SELECT charged_microdollars FROM exa_billing.record_spend(
    $1, $2, $3, 'variable', 'kiloclaw', $5, idempotency_key => $4)";
// $5 who makes the request, when it is made for an organization.
const REQUEST: &str = "SELECT charged_microdollars FROM exa_billing.record_exa_usage(
    CASE $1 WHEN 'user' THEN $2 ELSE $5 END, '/search', $3,
    CASE $1 WHEN 'organization' THEN $2 END, idempotency_key => $4)";

/// One action drawn by lot, on owners that in the beginning nobody has met; counts what it did.
fn act(client: &mut Client, dice: &mut Dice, key: &str, sums: &mut Sums) {
    let kind = ["user", "organization"][dice.up_to(2) as usize];
    let id = format!("owner-{}", dice.up_to(40));
    let actor = format!("owner-{}", dice.up_to(40));
    let product = format!("product-{}", dice.up_to(30));
    let amount = 1 + dice.up_to(5_000);
    let params: [&(dyn ToSql + Sync); 4] = [&kind, &id, &amount, &key];
    let with_product: [&(dyn ToSql + Sync); 5] = [&kind, &id, &amount, &key, &product];
    let with_actor: [&(dyn ToSql + Sync); 5] = [&kind, &id, &amount, &key, &actor];
    let mut count = |acquired, used| {
        let sum = sums.entry((kind, id.clone())).or_default();
        *sum = (sum.0 + acquired, sum.1 + used);
    };
    match dice.up_to(8) {
        0 => {
            let rows = i32::try_from(amount / 50).unwrap() + 1;
            let _: i64 = one(client, "SELECT exa_billing.post_spend($1)", &[&rows]);
        }
        1 => {
            assert!(one::<bool>(client, GRANT, &params));
            count(amount, 0);
        }
        2 => match client.query_one(BUY, &params) {
            Ok(row) => count(0, row.get(0)),
            Err(error) => assert_eq!(sqlstate(Err::<(), _>(error)), "53400"),
        },
        3 => count(0, one(client, SPEND, &with_product)),
        4 => {
            // All in one transaction, in the order of locks: allowance, account, queue.
            let mut transaction = client.transaction().unwrap();
            count(0, one(&mut transaction, REQUEST, &with_actor));
            assert!(one::<bool>(&mut transaction, GRANT, &params));
            count(amount, 0);
            let _: i64 = one(&mut transaction, "SELECT exa_billing.post_spend(20)", &[]);
            transaction.commit().unwrap();
        }
        5 => {
            // Nothing is to be repaired and nothing to expire: none of these may change a figure.
            let recompute = "SELECT accounting_adjustment_microdollars
                             FROM exa_billing.recompute_user_balances($1)";
            assert_eq!(one::<i64>(client, recompute, &[&id]), 0);
            let expire =
                "SELECT exa_billing.expire_due_credits() + exa_billing.close_out_credits($1, $2)";
            assert_eq!(one::<i64>(client, expire, &[&kind, &id]), 0);
        }
        _ => count(0, one(client, REQUEST, &with_actor)),
    }
}

#[test]
fn posting_granting_and_charging_never_deadlock() {
    let db = books();
    let mut client = db.client();
    set_allowance(&mut client, 20_000, "split");
    let all = in_sessions(&db, 8, IMPATIENT, |session, client| {
        let mut dice = Dice(session as u64 + 100);
        let mut sums = Sums::new();
        for number in 0..150 {
            act(client, &mut dice, &format!("{session}/{number}"), &mut sums);
        }
        sums
    });
    let mut expected = Sums::new();
    for (owner, (acquired, used)) in all.into_iter().flatten() {
        let sum = expected.entry(owner).or_default();
        *sum = (sum.0 + acquired, sum.1 + used);
    }
    for posted in [false, true] {
        if posted {
            post_all(&mut client);
        }
        for ((kind, id), sums) in &expected {
            let row = client
                .query_one(
                    "SELECT total_microdollars_acquired, microdollars_used, balance_microdollars
                     FROM exa_billing.account_balance($1, $2)",
                    &[kind, id],
                )
                .unwrap();
            let figures: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
            assert_eq!(figures, [sums.0, sums.1, sums.0 - sums.1], "{kind} {id}");
        }
        verify(&mut client);
    }
}
