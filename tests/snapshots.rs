//! Every figure is posted plus unposted, read on one snapshot: it is the same before, during and
//! after posting, in an old snapshot, after a write in the same transaction, and on a standby.

mod common;
mod sessions;

use std::sync::atomic::{AtomicI64, Ordering};
use std::thread;

use common::{Database, Server, error_of, one, run_sql, sqlstate, wait_until};
use postgres::{Client, GenericClient};
use sessions::*;

/// All figures of everybody, functions and views, in one statement.
const FIGURES: &str = "
    SELECT jsonb_build_object(
        'balances', (SELECT jsonb_agg(jsonb_build_array(kind, id, b) ORDER BY kind, id)
                     FROM owners, exa_billing.account_balance(kind, id, at) AS b),
        'earlier', (SELECT jsonb_agg(jsonb_build_array(kind, id, b) ORDER BY kind, id)
                    FROM owners, exa_billing.account_balance(kind, id, at - interval '200 minutes') AS b),
        'blocks', (SELECT jsonb_agg(jsonb_build_array(kind, id, b) ORDER BY kind, id, b::text)
                   FROM owners, exa_billing.credit_blocks(kind, id, at) AS b),
        'statements', (SELECT jsonb_agg(jsonb_build_array(o.kind, o.id, l) ORDER BY o.kind, o.id, l::text)
                       FROM owners AS o, exa_billing.account_statement(
                           o.kind, o.id, o.at - interval '3 days', o.at + interval '1 hour') AS l),
        'months', (SELECT jsonb_agg(m ORDER BY id)
                   FROM owners, exa_billing.exa_monthly_usage(id, at::date) AS m WHERE kind = 'user'),
        'checks', (SELECT jsonb_agg(jsonb_build_array(u.id, o.id, c) ORDER BY u.id, o.id)
                   FROM owners AS u
                   CROSS JOIN (SELECT id FROM owners WHERE kind = 'organization' UNION ALL SELECT NULL) AS o,
                   exa_billing.check_exa_usage(u.id, o.id, u.at) AS c WHERE u.kind = 'user'),
        'evidence', (SELECT jsonb_agg(exa_billing.spend_evidence(kind, id, '24h', at) ORDER BY kind, id)
                     FROM owners),
        'overviews', (SELECT jsonb_agg(exa_billing.cost_insights_overview(kind, id, at) ORDER BY kind, id)
                      FROM owners WHERE id IN ('user-1', 'org-1')),
        'rolling', (SELECT jsonb_agg(jsonb_build_array(kind, id, r) ORDER BY kind, id)
                    FROM owners, exa_billing.rolling_spend(kind, id, '5 hours', at) AS r),
        'hours', (SELECT jsonb_agg(jsonb_build_array(o.kind, o.id, h) ORDER BY o.kind, o.id, h.hour_start)
                  FROM owners AS o, date_trunc('hour', o.at, 'UTC') AS hour, exa_billing.spend_by_hour(
                      o.kind, o.id, hour - interval '8 hours', hour + interval '1 hour') AS h),
        'mismatches', (SELECT jsonb_agg(m ORDER BY m::text)
                       FROM (SELECT date_trunc('hour', at, 'UTC') AS hour FROM owners LIMIT 1) AS o,
                       exa_billing.reconcile_rollups(hour - interval '72 hours', hour + interval '1 hour') AS m),
        'account_balances', (SELECT jsonb_agg(v ORDER BY owner_kind, owner_id)
                             FROM exa_billing.account_balances AS v),
        'exa_monthly_usage_current', (SELECT jsonb_agg(v ORDER BY user_id, organization_id, month)
                                      FROM exa_billing.exa_monthly_usage_current AS v),
        'spend_hourly', (SELECT jsonb_agg(v ORDER BY owner_kind, owner_id, hour_start, spend_category)
                         FROM exa_billing.spend_hourly AS v),
        'spend_drivers_hourly', (SELECT jsonb_agg(v ORDER BY v::text)
                                 FROM exa_billing.spend_drivers_hourly AS v))::text";

/// Books of six users and three organizations with some 400 charges; `owners` lists them.
fn filled(server: &Server) -> Database {
    let db = server.database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.setup()");
    run_sql(
        &mut client,
        "CREATE TABLE owners AS
             SELECT 'user' AS kind, 'user-' || n AS id, now() AS at FROM generate_series(0, 5) AS n
             UNION ALL
             SELECT 'organization', 'org-' || n, now() FROM generate_series(0, 2) AS n;
         -- Half of the hours are in the rollups, the others are read from the journals.
         UPDATE exa_billing.spend_sources SET covered_from = covered_from - interval '4 hours';
         SELECT exa_billing.set_free_allowance(30000, '2020-01-01', overage_rule => 'split');
         SELECT exa_billing.set_organization_member('org-' || n % 3, 'user-' || n, 'member', 500000)
             FROM generate_series(0, 5) AS n;
         SELECT exa_billing.grant_credit(kind, id, 1000000 + length(id)) FROM owners;
         -- Credit that has expired in the midst of the charges, and credit that has not.
         SELECT exa_billing.grant_credit(kind, id, 20000, at + hours * interval '1 hour',
                                         created_at => at - interval '1 day')
             FROM owners, unnest(ARRAY[-5, -3, 3]) AS hours WHERE id IN ('user-1', 'org-1')",
    );
    charge(&mut client, 400, "0 minutes");
    let expired = "SELECT count(*) FROM owners, exa_billing.account_balance(kind, id) AS b
                   WHERE b.total_microdollars_acquired BETWEEN 1020000 AND 1060000 - 1";
    assert_eq!(one::<i64>(&mut client, expired, &[]), 2, "some credit has expired");
    db
}

/// Charges of every kind, spread over the hours before `owners.at`.
fn charge(client: &mut impl GenericClient, count: i32, earlier: &str) {
    let exa = "SELECT count(exa_billing.record_exa_usage(
                   'user-' || n % 6, (ARRAY['/search', '/answer', '/new'])[n % 3 + 1], 1000 + n,
                   CASE WHEN n % 4 = 0 THEN 'org-' || n % 3 END,
                   created_at => at - n * interval '1 minute' - $2::text::interval))
               FROM generate_series(1, $1) AS n, (SELECT at FROM owners LIMIT 1) AS o WHERE n % 5 <> 0";
    let other = "SELECT count(exa_billing.record_spend(
                     kind, id, 100 + n, (ARRAY['variable', 'scheduled'])[n % 2 + 1], 'kiloclaw',
                     'product-' || n % 7, actor_user_id => 'user-' || n % 6,
                     created_at => at - n * interval '1 minute' - $2::text::interval))
                 FROM (SELECT n, kind, id, at, count(*) OVER w AS owners, row_number() OVER w AS i
                       FROM generate_series(1, $1) AS n, owners
                       WINDOW w AS (PARTITION BY n ORDER BY kind, id
                                    ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)) AS l
                 WHERE n % 5 = 0 AND i = n / 5 % owners + 1";
    assert_eq!(one::<i64>(client, exa, &[&count, &earlier]), i64::from(count - count / 5));
    assert_eq!(one::<i64>(client, other, &[&count, &earlier]), i64::from(count / 5));
}

fn figures(client: &mut impl GenericClient) -> String {
    one(client, FIGURES, &[])
}

fn in_queue(client: &mut impl GenericClient) -> i64 {
    one(client, "SELECT count(*) FROM exa_billing.unposted_spend", &[])
}

/// The balances are those of the journals, so that what stays equal is also right.
fn assert_right(client: &mut impl GenericClient) {
    let wrong = "
        SELECT count(*) FROM owners, exa_billing.account_balance(kind, id) AS b
        WHERE (b.total_microdollars_acquired <> 1000000 + length(id) AND id NOT IN ('user-1', 'org-1'))
           OR b.balance_microdollars <> b.total_microdollars_acquired - b.microdollars_used
           OR b.microdollars_used <> (
               SELECT coalesce(sum(charged_microdollars), 0) FROM exa_billing.exa_usage_log
               WHERE CASE kind WHEN 'user' THEN user_id = id AND organization_id IS NULL
                               ELSE organization_id = id END) + (
               SELECT coalesce(sum(amount_microdollars), 0) FROM exa_billing.spend_log
               WHERE owner_kind = kind AND owner_id = id)";
    assert_eq!(one::<i64>(client, wrong, &[]), 0);
}

#[test]
fn every_figure_is_the_same_before_during_and_after_posting() {
    let db = filled(&Server::shared());
    let (mut reader, mut poster) = (db.client(), db.client());
    let before = figures(&mut reader);
    assert_eq!(in_queue(&mut reader), 400);
    assert_right(&mut reader);
    verify(&mut reader);

    // Inside a posting that is not committed, beside it, and after it is taken back.
    let mut open = poster.transaction().unwrap();
    assert_eq!(one::<i64>(&mut open, "SELECT exa_billing.post_spend(150)", &[]), 150);
    assert_eq!(in_queue(&mut open), 250);
    assert_eq!(figures(&mut open), before);
    assert_eq!(figures(&mut reader), before);
    open.rollback().unwrap();
    assert_eq!(figures(&mut reader), before);

    // While it goes on.
    let left = AtomicI64::new(400);
    let mut seen = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while left.load(Ordering::Relaxed) > 0 {
                let done: i64 = one(&mut poster, "SELECT exa_billing.post_spend(3)", &[]);
                left.fetch_sub(done, Ordering::Relaxed);
            }
        });
        while left.load(Ordering::Relaxed) > 0 {
            assert_eq!(figures(&mut reader), before);
            seen += 1;
        }
    });
    assert!(seen > 0);
    assert_eq!(in_queue(&mut reader), 0);
    assert_eq!(figures(&mut reader), before);
    assert_right(&mut reader);
    verify(&mut reader);
}

#[test]
fn an_old_snapshot_shows_the_old_figures_whatever_is_posted_and_charged() {
    for isolation in ["REPEATABLE READ", "SERIALIZABLE", "SERIALIZABLE, READ ONLY"] {
        let db = filled(&Server::shared());
        let (mut old, mut other) = (db.client(), db.client());
        run_sql(&mut old, &format!("BEGIN TRANSACTION ISOLATION LEVEL {isolation}"));
        let before = figures(&mut old);
        let _: i64 = one(&mut other, "SELECT exa_billing.post_spend(200)", &[]);
        assert_eq!(figures(&mut old), before, "{isolation}");
        charge(&mut other, 50, "5 hours");
        run_sql(&mut other, "SELECT exa_billing.grant_credit('user', 'user-1', 5)");
        assert_eq!(figures(&mut old), before, "{isolation}");
        post_all(&mut other);
        assert_eq!(figures(&mut old), before, "{isolation}");
        assert_eq!(in_queue(&mut old), 400, "{isolation}");
        run_sql(&mut old, "COMMIT");
        assert_ne!(figures(&mut old), before, "{isolation}");
        verify(&mut old);
    }
}

// The rows of a cursor are computed when they are fetched, on the snapshot it was opened with.
#[test]
fn a_cursor_reads_on_the_snapshot_it_was_opened_with() {
    let db = filled(&Server::shared());
    let (mut reader, mut other) = (db.client(), db.client());
    let before = figures(&mut reader);
    run_sql(&mut reader, &format!("BEGIN; DECLARE old CURSOR FOR {FIGURES}"));
    charge(&mut other, 50, "5 hours");
    let _: i64 = one(&mut other, "SELECT exa_billing.post_spend(200)", &[]);
    assert_eq!(one::<String>(&mut reader, "FETCH old", &[]), before);
    assert_ne!(figures(&mut reader), before);
    run_sql(&mut reader, "COMMIT");
    verify(&mut reader);
}

#[test]
fn readers_take_no_transaction_id_and_lock_no_row() {
    let db = filled(&Server::shared());
    let (mut reader, mut other) = (db.client(), db.client());
    run_sql(
        &mut other,
        "BEGIN; LOCK exa_billing.accounts, exa_billing.unposted_spend,
        exa_billing.exa_monthly_allowance, exa_billing.exa_monthly_usage IN EXCLUSIVE MODE",
    );
    run_sql(&mut reader, "SET lock_timeout = '30s'; BEGIN");
    figures(&mut reader);
    let xid = "SELECT pg_current_xact_id_if_assigned() IS NULL";
    assert!(one::<bool>(&mut reader, xid, &[]));
    let locks = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()
                 AND mode NOT IN ('AccessShareLock', 'ExclusiveLock')";
    assert_eq!(one::<i64>(&mut reader, locks, &[]), 0);
    let exclusive = "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()
                     AND mode = 'ExclusiveLock' AND locktype <> 'virtualxid'";
    assert_eq!(one::<i64>(&mut reader, exclusive, &[]), 0);
    run_sql(&mut reader, "COMMIT");
    run_sql(&mut other, "ROLLBACK");
    verify(&mut reader);
}

fn wait_for_replay(primary: &mut Client, standby: &mut Client) {
    let at: String = one(primary, "SELECT pg_current_wal_flush_lsn()::text", &[]);
    wait_until("the standby has replayed", || {
        one(standby, "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&at])
    });
}

#[test]
fn a_standby_reads_the_same_figures_and_refuses_to_write() {
    let server = Server::start("figures", &[]);
    let db = filled(&server);
    let mut primary = db.client();
    let standby_server = server.basebackup_standby("standby");
    let mut standby = standby_server.client(db.name());

    // With everything in the queue, half posted, charged anew, and all posted.
    let steps: [fn(&mut Client); 4] = [
        |_| {},
        |primary| assert_eq!(one::<i64>(primary, "SELECT exa_billing.post_spend(200)", &[]), 200),
        |primary| charge(primary, 100, "4 hours"),
        post_all,
    ];
    for step in steps {
        step(&mut primary);
        wait_for_replay(&mut primary, &mut standby);
        assert_eq!(figures(&mut standby), figures(&mut primary));
        verify(&mut standby);
    }
    assert_right(&mut standby);

    // Something to post, so that each of them has something to write.
    charge(&mut primary, 5, "3 hours");
    wait_for_replay(&mut primary, &mut standby);
    for writer in WRITERS {
        let error = error_of(&mut standby, &format!("SELECT exa_billing.{writer}"));
        assert_eq!(error.code, "25006", "{writer}: {}", error.message);
    }
    assert_eq!(figures(&mut standby), figures(&mut primary));
}

const WRITERS: [&str; 30] = [
    "setup()",
    "record_exa_usage('user-1', '/search', 5)",
    "record_exa_usage('new', '/search', 5, idempotency_key => 'k')",
    "record_exa_usage('user-1', '/search', 5, created_at => now() - interval '34 days')",
    "record_exa_response('user-1', '/search', '{\"costDollars\": {\"total\": 1}}')",
    "record_exa_usage_batch('[{\"user_id\": \"u\", \"path\": \"/search\", \"cost_microdollars\": 5}]')",
    "record_spend('user', 'user-1', 5, 'variable', 's', 'p')",
    "record_spend('user', 'user-1', 5, 'variable', 's', 'p', require_balance => true)",
    "grant_credit('user', 'user-1', 5)",
    "adjust_credit('user', 'user-1', 5, 'for the test')",
    "import_opening_balance('user', 'new', 5, 3, now(), 'k')",
    "expire_credits('user', 'user-1')",
    "expire_due_credits()",
    "close_out_credits('user', 'user-1')",
    "recompute_user_balances('user-1')",
    "set_free_allowance(5, '2026-01-01')",
    "set_organization_member('org-1', 'user-1', 'member')",
    "remove_organization_member('org-1', 'nobody')",
    "dismiss_cost_suggestion(gen_random_uuid(), 'user-1')",
    "post_spend()",
    "retry_blocked_spend()",
    "record_degraded_interval('2026-11-20 10:00Z', '2026-11-22 10:00Z', 'restored')",
    "resolve_degraded_interval(gen_random_uuid())",
    "rebuild_rollups('user', 'user-1', '2026-11-20 10:00Z', '2026-11-22 10:00Z')",
    "backfill_next_hours(true, '2026-11-20 10:00Z', '2026-11-22 10:00Z', true)",
    "update_spend_alert_settings('user', 'user-1', '{}', 'user-1')",
    "evaluate_spend_alerts('user', 'user-1')",
    "evaluate_due_owners()",
    "run_spend_alert_sweep()",
    "acknowledge_spend_alert(gen_random_uuid(), 'user-1')",
];

// What looks first and finds nothing to do would otherwise succeed today and fail tomorrow; and a
// missing month must not be made by a worker for a charge that cannot be recorded.
#[test]
fn writers_refuse_a_read_only_transaction_even_with_nothing_to_do() {
    let db = filled(&Server::shared());
    let mut client = db.client_with("-c exa_billing.late_usage_limit=2000d");
    run_sql(&mut client, "SELECT exa_billing.maintain_partitions()");
    post_all(&mut client);
    let partitions =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'exa_billing.exa_usage_log'::regclass";
    let before: i64 = one(&mut client, partitions, &[]);
    let idle = [
        "maintain_partitions()",
        "record_exa_usage('user-1', '/search', 5, created_at => '2024-01-01 00:00+00')",
    ];
    let mut accepted = Vec::new();
    for writer in WRITERS.into_iter().chain(idle) {
        run_sql(&mut client, "BEGIN READ ONLY");
        match client.batch_execute(&format!("SELECT exa_billing.{writer}")) {
            Ok(()) => accepted.push(writer),
            Err(error) => assert_eq!(sqlstate(Err::<(), _>(error)), "25006", "{writer}"),
        }
        run_sql(&mut client, "ROLLBACK");
    }
    assert_eq!(accepted, Vec::<&str>::new());
    assert_eq!(one::<i64>(&mut client, partitions, &[]), before);
    verify(&mut client);
}

/// Reads balance, counter and check of one's own owner `$2` times, each on a snapshot of its own,
/// and counts those that are wrong. `$1` is the user, whose whole usage is charged personally.
const READ_ALOUD: &str = "
    CREATE FUNCTION wrong_reads(own text, used bigint, requests bigint, rounds int) RETURNS int
    LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
        wrong int := 0;
        balance exa_billing.owner_balance;
        month exa_billing.monthly_usage;
        decision exa_billing.usage_decision;
    BEGIN
        FOR i IN 1 .. rounds LOOP
            balance := exa_billing.account_balance('user', own);
            IF balance.microdollars_used <> used OR balance.balance_microdollars <> 1000000 - used THEN
                wrong := wrong + 1;
            END IF;
            month := exa_billing.exa_monthly_usage(own);
            IF (month.total_cost_microdollars, month.total_charged_microdollars, month.request_count)
                <> (used, used, requests)
            THEN
                wrong := wrong + 1;
            END IF;
            decision := exa_billing.check_exa_usage(own);
            IF decision.balance_microdollars <> 1000000 - used OR NOT decision.is_paid THEN
                wrong := wrong + 1;
            END IF;
        END LOOP;
        RETURN wrong;
    END $$";

// Rows go from the queue into the account while it is being read, and a reader that has written
// sees the newest state in each of its statements: two of them would count a batch twice or never.
#[test]
fn a_hundred_thousand_reads_after_a_write_are_all_right() {
    const SESSIONS: usize = 2;
    const ROUNDS: i32 = 40;
    const READS: i32 = 420;
    let db = books();
    run_sql(&mut db.client(), READ_ALOUD);
    run_sql(&mut db.client(), "SELECT exa_billing.set_free_allowance(0, '2020-01-01')");
    let posted = AtomicI64::new(0);
    let post = |client: &mut Client| {
        let count: i64 = one(client, "SELECT exa_billing.post_spend(7)", &[]);
        posted.fetch_add(count, Ordering::Relaxed);
    };
    let charge_another = |client: &mut Client| {
        run_sql(client, "SELECT exa_billing.record_exa_usage('other', '/search', 3)");
    };
    let wrong = beside(&db, &[&post, &charge_another], || {
        in_sessions(&db, SESSIONS, IMPATIENT, |session, client| {
            read_after_writing(client, &format!("user-{session}"), ROUNDS, READS)
        })
    });
    assert_eq!(wrong, [0; SESSIONS]);
    assert!(SESSIONS as i32 * ROUNDS * READS * 3 >= 100_000);
    assert!(posted.into_inner() > 1_000, "posting went on meanwhile");
    let mut client = db.client();
    post_all(&mut client);
    verify(&mut client);
}

/// Charges `user` alone, so that every figure of theirs is known; returns how many were read wrong.
fn read_after_writing(client: &mut Client, user: &str, rounds: i32, reads: i32) -> i32 {
    let grant = "SELECT exa_billing.grant_credit('user', $1, 1000000) IS NOT NULL";
    assert!(one::<bool>(client, grant, &[&user]));
    let (mut used, mut requests, mut wrong) = (0_i64, 0_i64, 0);
    for round in 0..rounds {
        // Something for the posting to work on while this session reads.
        let backlog = "SELECT sum((exa_billing.record_exa_usage($1, '/search', n)).charged_microdollars)::bigint
                       FROM generate_series(1, 40) AS n";
        used += one::<i64>(client, backlog, &[&user]);
        requests += 40;
        let mut transaction = client.transaction().unwrap();
        let charge =
            "SELECT charged_microdollars FROM exa_billing.record_exa_usage($1, '/search', 5)";
        let charged: i64 = one(&mut transaction, charge, &[&user]);
        let sql = "SELECT wrong_reads($1, $2, $3, $4)";
        wrong +=
            one::<i32>(&mut transaction, sql, &[&user, &(used + charged), &(requests + 1), &reads]);
        if round % 2 == 0 {
            transaction.commit().unwrap();
            used += charged;
            requests += 1;
        } else {
            transaction.rollback().unwrap();
        }
    }
    wrong
}
