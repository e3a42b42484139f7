//! Posting: what moves, what is skipped, what is blocked, and that nothing is moved twice.

mod common;
mod sessions;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use common::{Database, error_of, one, run_sql, sqlstate};
use postgres::{Client, NoTls};
use sessions::*;

fn post(client: &mut Client, max_rows: i32) -> i64 {
    one(client, "SELECT exa_billing.post_spend($1)", &[&max_rows])
}

/// Charges `count` times 10 microdollars to a user or an organization.
fn charge(client: &mut Client, kind: &str, id: &str, count: i32) {
    let sql =
        "SELECT count(exa_billing.record_spend($1, $2, 10, 'variable', 'kiloclaw', 'product'))
               FROM generate_series(1, $3)";
    assert_eq!(one::<i64>(client, sql, &[&kind, &id, &count]), i64::from(count));
}

/// Queue rows per owner.
fn waiting(client: &mut Client) -> BTreeMap<String, i64> {
    let sql =
        "SELECT owner_kind || ' ' || owner_id, count(*) FROM exa_billing.unposted_spend GROUP BY 1";
    client.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn owners<const N: usize>(rows: [(&str, i64); N]) -> BTreeMap<String, i64> {
    rows.into_iter().map(|(owner, count)| (owner.to_owned(), count)).collect()
}

/// The account's own row: what is posted, without the queue.
fn posted(client: &mut Client, kind: &str, id: &str) -> i64 {
    let sql = "SELECT coalesce(sum(microdollars_used), 0)::bigint FROM exa_billing.accounts
               WHERE owner_kind = $1 AND owner_id = $2";
    one(client, sql, &[&kind, &id])
}

fn balance(client: &mut Client, kind: &str, id: &str) -> i64 {
    let sql = "SELECT balance_microdollars FROM exa_billing.account_balance($1, $2)";
    one(client, sql, &[&kind, &id])
}

fn texts(client: &mut Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

// In a zone whose hours, days and months begin elsewhere.
#[test]
fn posting_moves_every_row_into_all_that_is_shared() {
    let db = books();
    let mut client = db.client_with("-c timezone=Australia/Adelaide -c datestyle=SQL,DMY");
    run_sql(
        &mut client,
        "SELECT exa_billing.set_free_allowance(1000, '2020-01-01', 'ann', 'split');
         CREATE TEMP TABLE at AS
             SELECT date_trunc('day', now(), 'UTC') - interval '3 days' + interval '23 hours 59 minutes' AS late,
                    date_trunc('day', now(), 'UTC') - interval '2 days' + interval '1 minute' AS early;
         SELECT exa_billing.grant_credit('user', 'ann', 5000);
         SELECT exa_billing.record_exa_usage('ann', '/search', 700, created_at => late) FROM at;
         SELECT exa_billing.record_exa_usage('ann', '/answer', 400, created_at => late) FROM at;
         SELECT exa_billing.record_exa_usage('ann', '/new', 50, 'acme', created_at => early) FROM at;
         SELECT exa_billing.record_exa_usage('ann', '/new', 0, 'acme', created_at => early) FROM at;
         SELECT exa_billing.record_spend('organization', 'acme', 30, 'variable', 'kiloclaw', 'claw',
             actor_user_id => 'ann', created_at => early) FROM at;
         SELECT exa_billing.record_spend('organization', 'acme', 20, 'scheduled', 'shop', 'plan',
             created_at => early) FROM at",
    );
    assert_eq!(waiting(&mut client), owners([("organization acme", 4), ("user ann", 2)]));
    assert_eq!(one::<i64>(&mut client, "SELECT exa_billing.post_spend()", &[]), 6);
    assert_eq!(waiting(&mut client), owners([]));

    let accounts = "SELECT concat_ws(' ', owner_kind, owner_id, total_microdollars_acquired, microdollars_used)
                    FROM exa_billing.accounts ORDER BY 1";
    assert_eq!(texts(&mut client, accounts), ["organization acme 0 100", "user ann 5000 100"]);
    let members = "SELECT concat_ws(' ', organization_id, user_id, usage_date = (early AT TIME ZONE 'UTC')::date, microdollars_used)
                   FROM exa_billing.organization_member_usage, at ORDER BY 1";
    assert_eq!(texts(&mut client, members), ["acme ann t 80"]);
    let totals = "SELECT concat_ws(' ', owner_id, CASE hour_start WHEN late - interval '59 minutes' THEN 'late'
                                   WHEN early - interval '1 minute' THEN 'early' END,
                                   spend_category, total_microdollars, spend_record_count)
                  FROM exa_billing.spend_hourly_totals, at ORDER BY 1";
    assert_eq!(
        texts(&mut client, totals),
        ["acme early scheduled 20 1", "acme early variable 80 2", "ann late variable 100 1"]
    );
    let drivers = "SELECT concat_ws(' ', p.owner_id, d.source, d.product_key, d.feature_key, d.provider_key,
                                    quote_literal(p.actor_user_id), p.total_microdollars, p.spend_record_count)
                   FROM exa_billing.spend_hourly_drivers AS p JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
                   ORDER BY 1";
    assert_eq!(
        texts(&mut client, drivers),
        [
            "acme kiloclaw claw other other 'ann' 30 1",
            "acme other exa other exa 'ann' 50 1",
            "acme other plan other other '' 20 1",
            "ann other exa answer exa 'ann' 100 1"
        ]
    );
    // Both days may lie in one month.
    let months = "SELECT concat_ws(' ', coalesce(organization_id, '-'), total_cost_microdollars,
                                   total_charged_microdollars, request_count, free_allowance_microdollars)
                  FROM exa_billing.exa_monthly_usage, at
                  WHERE user_id = 'ann' AND month = date_trunc('month',
                      CASE WHEN organization_id IS NULL THEN late ELSE early END AT TIME ZONE 'UTC')::date
                  ORDER BY 1";
    let same_month =
        "SELECT date_trunc('month', late, 'UTC') = date_trunc('month', early, 'UTC') FROM at";
    let acme =
        if one(&mut client, same_month, &[]) { "acme 50 50 2 1000" } else { "acme 50 0 2 1000" };
    assert_eq!(texts(&mut client, months), ["- 1100 100 2 1000", acme]);
    verify(&mut client);
}

#[test]
fn posting_twice_changes_nothing_the_second_time() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, "user", "ann", 3);
    let all = "SELECT (a.*, t.*, d.*)::text FROM exa_billing.accounts AS a
               JOIN exa_billing.spend_hourly_totals AS t USING (owner_kind, owner_id)
               JOIN exa_billing.spend_hourly_drivers AS d USING (owner_kind, owner_id, hour_start)";
    run_sql(&mut client, "BEGIN");
    assert_eq!(post(&mut client, 10), 3);
    run_sql(&mut client, "ROLLBACK");
    assert_eq!(waiting(&mut client), owners([("user ann", 3)]));
    assert_eq!(texts(&mut client, all), Vec::<String>::new());
    assert_eq!(post(&mut client, 10), 3);
    let once = texts(&mut client, all);
    assert_eq!(once.len(), 1);
    assert_eq!(post(&mut client, 10), 0);
    assert_eq!(texts(&mut client, all), once);
    verify(&mut client);
}

#[test]
fn a_batch_has_at_most_as_many_rows_as_asked_for() {
    let db = books();
    let mut client = db.client();
    for id in ["ann", "bob", "cid"] {
        charge(&mut client, "user", id, 5);
    }
    let mut left = 15;
    for _ in 0..20 {
        let done = post(&mut client, 2);
        assert!(done <= 2, "{done}");
        left -= done;
        assert_eq!(waiting(&mut client).values().sum::<i64>(), left);
        verify(&mut client);
    }
    assert_eq!(left, 0);
    for bad in ["0", "-1", "1000001", "NULL"] {
        let error = error_of(&mut client, &format!("SELECT exa_billing.post_spend({bad})"));
        assert_eq!(error.code, "22023", "{bad}");
    }
}

#[test]
fn eight_posters_post_every_row_once() {
    let db = books();
    let mut client = db.client();
    // Every product is a dimension that is new to all of them.
    run_sql(
        &mut client,
        "SELECT count(exa_billing.record_spend(CASE n % 2 WHEN 0 THEN 'user' ELSE 'organization' END,
             'owner-' || n % 150, n, 'variable', 'kiloclaw', 'product-' || n % 70, actor_user_id => 'ann'))
         FROM generate_series(1, 5000) AS n",
    );
    let posted: i64 = in_sessions(&db, 8, IMPATIENT, |_, client| {
        let mut posted = 0;
        while one::<bool>(client, "SELECT EXISTS (SELECT FROM exa_billing.unposted_spend)", &[]) {
            posted += post(client, 97);
        }
        posted
    })
    .into_iter()
    .sum();
    assert_eq!(posted, 5000);
    let sums = client
        .query_one(
            "SELECT (SELECT sum(microdollars_used)::bigint FROM exa_billing.accounts),
                    (SELECT sum(total_microdollars)::bigint FROM exa_billing.spend_hourly_totals),
                    (SELECT sum(spend_record_count)::bigint FROM exa_billing.spend_hourly_drivers),
                    (SELECT count(*) FROM exa_billing.spend_dimensions WHERE source = 'kiloclaw')",
            &[],
        )
        .unwrap();
    let sums: Vec<i64> = (0..4).map(|column| sums.get(column)).collect();
    assert_eq!(sums, [5000 * 5001 / 2, 5000 * 5001 / 2, 5000, 70]);
    verify(&mut client);
}

#[test]
fn posting_with_an_old_snapshot_must_be_retried() {
    for free in [false, true] {
        let db = books();
        let (mut old, mut other) = (db.client(), db.client());
        // A free request changes no account, so the queue row alone must show the conflict.
        let request = format!(
            "SELECT exa_billing.set_free_allowance({}, '2020-01-01');
             SELECT exa_billing.record_exa_usage('ann', '/search', 10)",
            if free { 100 } else { 0 }
        );
        run_sql(&mut other, &request);
        run_sql(&mut other, "SELECT exa_billing.grant_credit('user', 'ann', 90)");
        run_sql(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
        assert_eq!(post(&mut other, 10), 1);
        assert_eq!(sqlstate(old.query("SELECT exa_billing.post_spend()", &[])), "40001");
        run_sql(&mut old, "ROLLBACK");
        assert_eq!(post(&mut old, 10), 0);
        assert_eq!(balance(&mut old, "user", "ann"), if free { 90 } else { 80 });
        verify(&mut old);
    }
}

/// Somebody else's transaction holds one owner; all others are posted, without waiting.
fn held_back(db: &Database, begin: &str, end: &str, credit: i64) {
    let (mut open, mut poster) = (db.client(), db.client_with("-c lock_timeout=10s"));
    for id in ["bob", "held", "zoe"] {
        charge(&mut poster, "user", id, 2);
        charge(&mut poster, "organization", id, 2);
    }
    run_sql(&mut open, begin);
    let posted_now: i64 = (0..3).map(|_| post(&mut poster, 100)).sum();
    assert_eq!(posted_now, 10);
    assert_eq!(waiting(&mut poster), owners([("user held", 2)]));
    for id in ["bob", "zoe"] {
        assert_eq!(posted(&mut poster, "user", id), 20);
    }
    assert_eq!(posted(&mut poster, "organization", "held"), 20);
    verify(&mut poster);

    run_sql(&mut open, end);
    assert_eq!(post(&mut poster, 100), 2);
    assert_eq!(waiting(&mut poster), owners([]));
    assert_eq!(posted(&mut poster, "user", "held"), 20);
    assert_eq!(balance(&mut poster, "user", "held"), credit - 20);
    verify(&mut poster);
}

const GRANT: &str = "BEGIN; SELECT exa_billing.grant_credit('user', 'held', 500)";

#[test]
fn an_open_grant_holds_back_only_its_owner() {
    let db = books();
    run_sql(&mut db.client(), "SELECT exa_billing.grant_credit('user', 'held', 7)");
    held_back(&db, GRANT, "COMMIT", 507);
}

#[test]
fn an_open_grant_to_a_new_owner_holds_back_only_that_owner() {
    held_back(&books(), GRANT, "COMMIT", 500);
}

#[test]
fn a_grant_to_a_new_owner_that_is_taken_back_leaves_nothing() {
    held_back(&books(), GRANT, "ROLLBACK", 0);
}

#[test]
fn a_prepared_grant_to_a_new_owner_holds_back_only_that_owner() {
    let db = books();
    let prepared = db.name();
    held_back(
        &db,
        &format!("{GRANT}; PREPARE TRANSACTION '{prepared}'"),
        &format!("COMMIT PREPARED '{prepared}'"),
        500,
    );
}

#[test]
fn an_open_purchase_of_a_new_owner_holds_back_only_that_owner() {
    let buy = "BEGIN; SELECT exa_billing.grant_credit('user', 'held', 500);
               SELECT exa_billing.record_spend('user', 'held', 480, 'scheduled', 'coding_plan', 'plan',
                   require_balance => true)";
    held_back(&books(), buy, "ROLLBACK", 0);
}

// It holds the new product too. What others were charged for that product may be left for later,
// but posting must not wait.
#[test]
fn an_open_posting_holds_back_only_its_owner() {
    for (end, left_of_held) in [("COMMIT", 2), ("ROLLBACK", 3)] {
        let db = books();
        let (mut open, mut poster) = (db.client(), db.client_with("-c lock_timeout=10s"));
        run_sql(&mut open, "SELECT exa_billing.set_free_allowance(0, '2020-01-01')");
        charge(&mut open, "user", "held", 1);
        run_sql(&mut open, "BEGIN");
        assert_eq!(post(&mut open, 10), 1);
        charge(&mut poster, "user", "held", 2);
        charge(&mut poster, "user", "bob", 1);
        run_sql(&mut poster, "SELECT exa_billing.record_exa_usage('bob', '/search', 10)");
        let of_bob = post(&mut poster, 10);
        assert!(of_bob == 1 || of_bob == 2, "{of_bob}");
        assert_eq!(posted(&mut poster, "user", "bob"), 10 * of_bob);
        assert_eq!(waiting(&mut poster)["user held"], 3);
        run_sql(&mut open, end);
        assert_eq!(post(&mut poster, 10), left_of_held + 2 - of_bob);
        assert_eq!(posted(&mut poster, "user", "held"), 30);
        assert_eq!(posted(&mut poster, "user", "bob"), 20);
        verify(&mut poster);
    }
}

/// 1,100 charges that together leave the range of bigint; beside them three owners that do not.
fn overflow(client: &mut Client) {
    run_sql(
        client,
        "SELECT count(exa_billing.record_spend('user', 'huge', 9007199254740991, 'variable', 'kiloclaw', 'p'))
         FROM generate_series(1, 1100)",
    );
    charge(client, "user", "ann", 3);
    charge(client, "user", "zoe", 2);
    charge(client, "organization", "huge", 1);
}

const HUGE_SUM: &str = "9907919180215090100";

fn assert_overflow_is_counted(client: &mut Client) {
    let view = "SELECT owner_kind || ' ' || owner_id || ' ' || microdollars_used::text
                FROM exa_billing.account_balances ORDER BY 1";
    let expected =
        ["organization huge 10", "user ann 30", &format!("user huge {HUGE_SUM}"), "user zoe 20"];
    assert_eq!(texts(client, view), expected);
    let hours = "SELECT sum(total_microdollars)::text FROM exa_billing.spend_hourly WHERE owner_id = 'huge' AND owner_kind = 'user'";
    assert_eq!(texts(client, hours), [HUGE_SUM]);
    let error = error_of(client, "SELECT exa_billing.account_balance('user', 'huge')");
    assert_eq!(error.code, "22003");
    assert_eq!(balance(client, "organization", "huge"), -10);
    assert_eq!(balance(client, "user", "ann"), -30);
    verify(client);
}

#[test]
fn an_owner_that_overflows_is_blocked_and_counted_and_the_rest_is_posted() {
    let db = books();
    let notices = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&notices);
    let mut config = db.config();
    config.notice_callback(move |notice| {
        heard.lock().unwrap().push(format!("{}: {}", notice.severity(), notice.message()));
    });
    let mut client = config.connect(NoTls).unwrap();
    overflow(&mut client);
    assert_overflow_is_counted(&mut client);

    assert_eq!(post(&mut client, 10_000), 6);
    let heard = notices.lock().unwrap().clone();
    assert_eq!(heard, ["WARNING: spend of user huge cannot be posted: bigint out of range"]);
    assert_eq!(waiting(&mut client), owners([("user huge", 1100)]));
    let reasons =
        "SELECT blocked_reason || count(*) FROM exa_billing.unposted_spend GROUP BY blocked_reason";
    assert_eq!(texts(&mut client, reasons), ["bigint out of range1100"]);
    assert_eq!(posted(&mut client, "user", "ann"), 30);
    assert_eq!(posted(&mut client, "user", "zoe"), 20);
    assert_eq!(posted(&mut client, "organization", "huge"), 10);
    assert_eq!(posted(&mut client, "user", "huge"), 0);
    assert_overflow_is_counted(&mut client);

    // Blocked rows are left alone; the owner's requests go on being recorded, and are posted.
    assert_eq!(post(&mut client, 10_000), 0);
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('huge', '/search', 5)");
    assert_eq!(post(&mut client, 10_000), 1);
    assert_overflow_is_counted(&mut client);
}

#[test]
fn blocked_rows_are_tried_again_when_asked() {
    let db = books();
    let mut client = db.client();
    overflow(&mut client);
    let retry = "SELECT exa_billing.retry_blocked_spend()";
    assert_eq!(one::<i64>(&mut client, retry, &[]), 0);
    assert_eq!(post(&mut client, 10_000), 6);
    assert_eq!(one::<i64>(&mut client, retry, &[]), 1100);
    assert_eq!(
        texts(
            &mut client,
            "SELECT blocked_reason FROM exa_billing.unposted_spend WHERE blocked_reason IS NOT NULL"
        ),
        Vec::<String>::new()
    );
    // In smaller batches as much is posted as the account can hold: 1,000 of them.
    assert_eq!(post(&mut client, 500), 500);
    assert_eq!(post(&mut client, 500), 500);
    assert_overflow_is_counted(&mut client);
    assert_eq!(post(&mut client, 500), 0);
    assert_eq!(waiting(&mut client), owners([("user huge", 100)]));
    assert_eq!(posted(&mut client, "user", "huge"), 9_007_199_254_740_991_000);
    assert_overflow_is_counted(&mut client);
    // With credit the rest still does not fit, and nothing is lost by trying.
    assert_eq!(one::<i64>(&mut client, retry, &[]), 100);
    assert_eq!(post(&mut client, 10_000), 0);
    assert_overflow_is_counted(&mut client);
}
