//! What posting leaves for the evaluation of spend: one entry per owner until it is due, and another
//! one for what comes after that; found by index however long the queue is.

mod common;
mod sessions;

use chrono::{DateTime, Duration, Utc};
use common::{one, run_sql};
use postgres::Client;
use sessions::{IMPATIENT, books, in_sessions, post_all, verify};

/// The setting as the shared server has it.
const DELAY_SECONDS: i64 = 10;

fn charge(client: &mut Client, kind: &str, id: &str, earlier: &str) {
    let sql = "SELECT charged_microdollars FROM exa_billing.record_spend($1, $2, 10, 'variable', 'kiloclaw', 'p',
                   created_at => now() - $3::text::interval)";
    assert_eq!(one::<i64>(client, sql, &[&kind, &id, &earlier]), 10);
}

fn post(client: &mut Client) -> i64 {
    one(client, "SELECT exa_billing.post_spend()", &[])
}

/// Owners in the queue, each as often as it is there.
fn queued(client: &mut Client) -> Vec<String> {
    let sql = "SELECT owner_kind || ' ' || owner_id FROM exa_billing.evaluation_queue ORDER BY 1";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn clock(client: &mut Client) -> DateTime<Utc> {
    one(client, "SELECT clock_timestamp()", &[])
}

#[test]
fn an_owner_waits_in_it_once_until_it_is_due() {
    let db = books();
    let mut client = db.client();
    let delay: i64 = one(
        &mut client,
        "SELECT extract(epoch FROM current_setting('exa_billing.evaluation_delay')::interval)::bigint",
        &[],
    );
    assert_eq!(delay, DELAY_SECONDS);
    charge(&mut client, "user", "ann", "0");
    assert_eq!(queued(&mut client), [""; 0], "a charge touches nothing that is shared");
    let before = clock(&mut client);
    assert_eq!(post(&mut client), 1);
    let after = clock(&mut client);
    let entry = "SELECT due_at FROM exa_billing.evaluation_queue WHERE failure_count = 0 AND last_error IS NULL";
    let due: DateTime<Utc> = one(&mut client, entry, &[]);
    let pause = Duration::seconds(DELAY_SECONDS);
    assert!(before + pause <= due && due <= after + pause, "{before} {due} {after}");

    // More charges do not put it off.
    for _ in 0..3 {
        charge(&mut client, "user", "ann", "0");
        charge(&mut client, "organization", "ann", "0");
        assert_eq!(post(&mut client), 2);
    }
    assert_eq!(queued(&mut client), ["organization ann", "user ann"]);
    let kept = "SELECT due_at FROM exa_billing.evaluation_queue WHERE owner_kind = 'user'";
    assert_eq!(one::<DateTime<Utc>>(&mut client, kept, &[]), due);

    // One that is overdue stands for what is posted now, as long as nobody is about to take it.
    run_sql(
        &mut client,
        "UPDATE exa_billing.evaluation_queue SET due_at = clock_timestamp() WHERE owner_kind = 'user'",
    );
    charge(&mut client, "user", "ann", "0");
    assert_eq!(post(&mut client), 1);
    assert_eq!(queued(&mut client), ["organization ann", "user ann"]);

    // While somebody is, posting waits for nobody and adds one beside it.
    let mut evaluating = db.client();
    let mut evaluation = evaluating.transaction().unwrap();
    let hold = "SELECT FROM exa_billing.evaluation_queue WHERE owner_kind = 'user' FOR UPDATE";
    assert_eq!(evaluation.query(hold, &[]).unwrap().len(), 1);
    for _ in 0..2 {
        charge(&mut client, "user", "ann", "0");
        charge(&mut client, "organization", "ann", "0");
        assert_eq!(post(&mut client), 2);
    }
    assert_eq!(queued(&mut client), ["organization ann", "user ann", "user ann"]);
    evaluation.rollback().unwrap();
    verify(&mut client);
}

#[test]
fn what_is_free_is_nothing_to_evaluate_and_what_is_late_is() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('ann', '/search', 5000)");
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('ann', '/search', 5000, 'org')");
    assert_eq!(post(&mut client), 2);
    assert_eq!(queued(&mut client), [""; 0]);
    charge(&mut client, "user", "late", "30 days");
    assert_eq!(post(&mut client), 1);
    assert_eq!(queued(&mut client), ["user late"]);
}

#[test]
fn what_is_rolled_back_queues_nobody() {
    let db = books();
    let mut client = db.client();
    charge(&mut client, "user", "ann", "0");
    let mut open = client.transaction().unwrap();
    assert_eq!(one::<i64>(&mut open, "SELECT exa_billing.post_spend()", &[]), 1);
    open.rollback().unwrap();
    assert_eq!(queued(&mut client), [""; 0]);
    assert_eq!(post(&mut client), 1);
    assert_eq!(queued(&mut client), ["user ann"]);
}

#[test]
fn several_who_post_queue_everybody_who_was_charged() {
    let db = books();
    in_sessions(&db, 4, IMPATIENT, |session, client| {
        for n in 0..60 {
            charge(client, "user", &format!("user-{}", n % 20), "0");
            if session < 2 {
                let _: i64 = one(client, "SELECT exa_billing.post_spend(9)", &[]);
            }
        }
    });
    let mut client = db.client();
    post_all(&mut client);
    let mut all = queued(&mut client);
    all.dedup();
    assert_eq!(all.len(), 20);
    verify(&mut client);
}

#[test]
fn charges_that_an_evaluation_leaves_out_become_due_like_any_other() {
    let db = books();
    let mut client = db.client();
    let evaluate = "SELECT evaluated FROM exa_billing.evaluate_due_owners($1)";
    let earlier = clock(&mut client);
    for (id, made) in [("late", "0"), ("ahead", "-4 minutes")] {
        charge(&mut client, "user", id, made);
        assert_eq!(post(&mut client), 1);
        run_sql(
            &mut client,
            "UPDATE exa_billing.evaluation_queue SET due_at = due_at - interval '1 hour'",
        );
    }
    // Rows beside each other, as posting leaves them while one is held, become one.
    run_sql(
        &mut client,
        "INSERT INTO exa_billing.evaluation_queue
         SELECT owner_kind, owner_id, gen_random_uuid(), due_at, 0 FROM exa_billing.evaluation_queue",
    );
    // As of an instant before the first charge, and now, when the other one is still ahead.
    assert_eq!(one::<i64>(&mut client, evaluate, &[&earlier]), 2);
    assert_eq!(queued(&mut client), ["user ahead", "user late"]);
    let due = "SELECT bool_and(due_at BETWEEN $1 AND clock_timestamp() + interval '10 seconds')
               FROM exa_billing.evaluation_queue";
    let first = earlier + Duration::seconds(DELAY_SECONDS);
    assert!(one::<bool>(&mut client, due, &[&first]));
    run_sql(&mut client, "UPDATE exa_billing.evaluation_queue SET due_at = clock_timestamp()");
    let now = clock(&mut client);
    assert_eq!(one::<i64>(&mut client, evaluate, &[&now]), 2);
    let resting =
        "DELETE FROM exa_billing.evaluation_queue WHERE due_at > now() + interval '4 minutes'
                   RETURNING owner_id";
    assert_eq!(one::<String>(&mut client, resting, &[]), "late");
    assert_eq!(queued(&mut client), ["user ahead"]);
    // An owner that waits like this is no reason to leave another charge out.
    assert!(one::<bool>(&mut client, due, &[&first]));
    verify(&mut client);
}

/// How often the queue was scanned sequentially and by the index of due times, and how many rows were
/// looked at.
fn scans(client: &mut Client) -> (i64, i64, i64) {
    run_sql(client, "SELECT pg_stat_force_next_flush()");
    let sql = "SELECT t.seq_scan, due.idx_scan, t.idx_tup_fetch + t.seq_tup_read
               FROM pg_stat_user_tables AS t
               JOIN pg_stat_user_indexes AS due
                   ON due.relid = t.relid AND due.indexrelname = 'evaluation_queue_due_idx'
               WHERE t.relid = 'exa_billing.evaluation_queue'::regclass";
    let row = client.query_one(sql, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

const FILL: &str = "
    INSERT INTO exa_billing.evaluation_queue (owner_kind, owner_id, entry_id, due_at, failure_count)
    SELECT 'user', 'user-' || n % 50000, gen_random_uuid(), now() + n % 3 * interval '1 hour', 0
    FROM generate_series(1, 100000) AS n";

#[test]
fn posting_finds_its_owners_by_index_whenever_it_was_planned() {
    for planned_on_an_empty_queue in [true, false] {
        let db = books();
        let (mut client, mut other) = (db.client(), db.client());
        let fill = |client: &mut Client| {
            run_sql(client, FILL);
            run_sql(client, "VACUUM ANALYZE exa_billing.evaluation_queue");
        };
        if !planned_on_an_empty_queue {
            fill(&mut other);
        }
        // A plan is kept after the first call at the latest.
        for id in ["first", "second"] {
            charge(&mut client, "user", id, "0");
            assert_eq!(post(&mut client), 1);
        }
        if planned_on_an_empty_queue {
            run_sql(&mut other, FILL);
        }
        scans(&mut other);
        let before = scans(&mut client);
        for id in 0..50 {
            charge(&mut client, "user", &format!("user-{id}"), "0");
        }
        assert_eq!(post(&mut client), 50);
        let after = scans(&mut client);
        assert_eq!(
            (after.0, after.1),
            (before.0, before.1),
            "neither from front to end nor by time"
        );
        assert!(after.2 - before.2 <= 200, "{planned_on_an_empty_queue}: {before:?}, {after:?}");
    }
}
