//! The queue when it is long: nobody waits behind somebody else, and every statement over it goes
//! by index, also when it was planned while the queue was empty.

mod common;
mod sessions;

use std::collections::BTreeMap;

use common::{one, run_sql};
use postgres::Client;
use sessions::*;

fn post(client: &mut Client, max_rows: i32) -> i64 {
    one(client, "SELECT exa_billing.post_spend($1)", &[&max_rows])
}

fn charge(client: &mut Client, id: &str, count: i32) {
    let sql =
        "SELECT count(exa_billing.record_spend('user', $1, 10, 'variable', 'kiloclaw', 'product'))
               FROM generate_series(1, $2)";
    assert_eq!(one::<i64>(client, sql, &[&id, &count]), i64::from(count));
}

/// Queue rows per owner.
fn waiting(client: &mut Client) -> BTreeMap<String, i64> {
    let sql = "SELECT owner_id, count(*) FROM exa_billing.unposted_spend GROUP BY 1";
    client.query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn owners<const N: usize>(rows: [(&str, i64); N]) -> BTreeMap<String, i64> {
    rows.into_iter().map(|(owner, count)| (owner.to_owned(), count)).collect()
}

/// Posted usage, without the queue.
fn posted(client: &mut Client, id: &str) -> i64 {
    let sql = "SELECT microdollars_used FROM exa_billing.accounts
               WHERE owner_kind = 'user' AND owner_id = $1";
    one(client, sql, &[&id])
}

#[test]
fn an_owner_with_a_long_queue_keeps_nobody_else_waiting() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, "busy", 30_000);
    for id in ["ann", "carl", "dora", "zoe"] {
        charge(&mut client, id, 4);
    }
    let mut sum = 0;
    for _ in 0..4 {
        sum += post(&mut client, 1_000);
    }
    assert!(sum > 3_000, "the long queue moves too: {sum}");
    assert_eq!(waiting(&mut client), owners([("busy", 30_016 - sum)]));
    post_all(&mut client);
    assert_eq!(posted(&mut client, "busy"), 300_000);
    verify(&mut client);
}

#[test]
fn maintenance_posts_everything_after_a_partial_batch_too() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    for id in ["ann", "carl", "zoe"] {
        charge(&mut client, id, 300);
    }
    assert_eq!(post(&mut client, 400), 400);
    // More that are new than are opened at once.
    run_sql(
        &mut client,
        "SELECT count(exa_billing.record_spend('user', 'u' || n, 10, 'variable', 'kiloclaw', 'product'))
         FROM generate_series(1, 1200) AS n",
    );
    run_sql(&mut client, "CALL exa_billing.run_maintenance()");
    assert_eq!(waiting(&mut client), owners([]));
    charge(&mut client, "ann", 2);
    charge(&mut client, "zoe", 2);
    assert_eq!([3, 3].map(|rows| post(&mut client, rows)), [3, 1]);
    verify(&mut client);
}

#[test]
fn an_owner_that_is_held_keeps_nobody_else_waiting() {
    let db = books();
    let (mut open, mut client) = (db.client(), db.client());
    charge(&mut client, "busy", 600);
    charge(&mut client, "zoe", 4);
    run_sql(&mut open, "BEGIN; SELECT exa_billing.grant_credit('user', 'busy', 500)");
    assert_eq!((0..10).map(|_| post(&mut client, 100)).sum::<i64>(), 4);
    assert_eq!(waiting(&mut client), owners([("busy", 600)]));
    run_sql(&mut open, "COMMIT");
    post_all(&mut client);
    assert_eq!(posted(&mut client, "busy"), 6_000);
    verify(&mut client);
}

// A scheduler such as pg_cron calls from a new session each time.
#[test]
fn an_owner_that_is_held_keeps_nobody_else_waiting_in_new_sessions() {
    let db = books();
    let (mut open, mut client) = (db.client(), db.client());
    charge(&mut client, "busy", 600);
    charge(&mut client, "zoe", 4);
    run_sql(&mut open, "BEGIN; SELECT exa_billing.grant_credit('user', 'busy', 500)");
    assert_eq!((0..10).map(|_| post(&mut db.client(), 100)).sum::<i64>(), 4);
    assert_eq!(waiting(&mut client), owners([("busy", 600)]));
    run_sql(&mut open, "ROLLBACK");
    post_all(&mut client);
    assert_eq!(posted(&mut client, "busy"), 6_000);
    verify(&mut client);
}

/// How often the queue was scanned sequentially and by index, and how many of its rows were
/// fetched by bitmaps: those count for the table but for none of its indexes.
fn scans(client: &mut Client) -> (i64, i64, i64) {
    run_sql(client, "SELECT pg_stat_force_next_flush()");
    let sql = "SELECT t.seq_scan, t.idx_scan, t.idx_tup_fetch - sum(i.idx_tup_fetch)::bigint
               FROM pg_stat_user_tables AS t JOIN pg_stat_user_indexes AS i USING (relid)
               WHERE t.relid = 'exa_billing.unposted_spend'::regclass
               GROUP BY t.seq_scan, t.idx_scan, t.idx_tup_fetch";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

/// Every function that reads the queue of user `user-7`, member of `org-7`.
const READERS: [&str; 5] = [
    "SELECT microdollars_used FROM exa_billing.account_balance('user', 'user-7')",
    "SELECT microdollars_used FROM exa_billing.account_balance('organization', 'org-7')",
    "SELECT total_charged_microdollars FROM exa_billing.exa_monthly_usage('user-7')",
    "SELECT -balance_microdollars FROM exa_billing.check_exa_usage('user-7')",
    "SELECT 1000000 - member_limit_remaining_microdollars
     FROM exa_billing.check_exa_usage('user-7', 'org-7')",
];

/// It reads the owner's queue as well.
const REBUILD: &str = "SELECT exa_billing.rebuild_rollups('user', 'user-7',
    date_trunc('hour', now(), 'UTC') - interval '1 hour', date_trunc('hour', now(), 'UTC') + interval '1 hour')";

// An empty table is best read from front to end, and a plan is kept for the life of a session.
#[test]
fn statements_planned_on_an_empty_queue_go_by_index_when_it_is_full() {
    let db = books();
    let (mut client, mut other) = (db.client(), db.client());
    run_sql(
        &mut client,
        "SELECT exa_billing.set_organization_member('org-7', 'user-7', 'member', 1000000);
         SELECT exa_billing.grant_credit('organization', 'org-7', 9000000)",
    );
    run_sql(&mut client, "VACUUM ANALYZE exa_billing.unposted_spend");
    let buy = "SELECT charged_microdollars FROM exa_billing.record_spend('user', 'buyer', 1,
        'variable', 'kiloclaw', 'p', require_balance => true)";
    let grant = "SELECT exa_billing.grant_credit('user', 'buyer', 1) IS NOT NULL";
    for _ in 0..12 {
        for reader in READERS {
            assert_eq!(one::<i64>(&mut client, reader, &[]), 0, "{reader}");
        }
        client.query("SELECT FROM exa_billing.credit_blocks('user', 'user-7')", &[]).unwrap();
        assert_eq!(one::<i64>(&mut client, REBUILD, &[]), 0);
        assert!(one::<bool>(&mut client, grant, &[]));
        assert_eq!(post(&mut client, 1000), 0);
        assert_eq!(one::<i64>(&mut client, buy, &[]), 1);
        assert_eq!(post(&mut client, 1000), 1);
    }

    // 500 users and as many organizations of theirs, with 500 requests of 3 microdollars each.
    run_sql(
        &mut other,
        "INSERT INTO exa_billing.unposted_spend
             (owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars, amount_microdollars,
              spend_record_count, dimension_id, dimension, blocked_reason, created_at, transaction_id)
         SELECT kind, CASE kind WHEN 'user' THEN 'user-' ELSE 'org-' END || n % 500, gen_random_uuid(), 'exa',
                CASE kind WHEN 'organization' THEN 'user-' || n % 500 END, 3, 3, 1,
                '00000000-0000-8000-8000-657861000001', NULL, NULL, now(), pg_current_xact_id()
         FROM generate_series(1, 250000) AS n, unnest(ARRAY['user', 'organization']) AS kind",
    );
    let rows = "SELECT count(*) FROM exa_billing.unposted_spend";
    assert_eq!(one::<i64>(&mut other, rows, &[]), 500_000);

    scans(&mut other);
    let before = scans(&mut client);
    for _ in 0..3 {
        client.query("SELECT FROM exa_billing.credit_blocks('user', 'user-7')", &[]).unwrap();
        let figures = READERS.map(|reader| one::<i64>(&mut client, reader, &[]));
        assert_eq!(figures, [1_500, 1_500, 3_000, 1_500, 1_500]);
    }
    // No journal has these rows, so they would be taken out of what is posted.
    run_sql(&mut client, "BEGIN");
    assert_eq!(one::<i64>(&mut client, REBUILD, &[]), 3);
    run_sql(&mut client, "ROLLBACK");
    let read = scans(&mut client);
    assert_eq!((read.0, read.2), (before.0, before.2), "no sequential and no bitmap scan");
    assert!(read.1 >= before.1 + 21, "each reader went by index: {before:?}, {read:?}");

    assert!(one::<bool>(&mut client, grant, &[]));
    assert_eq!(one::<i64>(&mut client, buy, &[]), 1);
    for _ in 0..3 {
        assert_eq!(post(&mut client, 1_000), 1_000);
    }
    let written = scans(&mut client);
    assert_eq!((written.0, written.2), (before.0, before.2), "no sequential and no bitmap scan");
    assert!(written.1 > read.1);
    assert_eq!(one::<i64>(&mut other, rows, &[]), 497_001);
}
