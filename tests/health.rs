//! health: each check of the books turns when its fault is planted, and is well again after what it says
//! was done.

mod books_common;
mod common;
mod health_common;

use books_common::{assert_no_violations, texts};
use common::{Server, one, run_sql, wait_until};
use health_common::*;

/// Makes what waits in the queue older: the ids carry the time.
fn queued_ago(interval: &str) -> String {
    format!(
        "UPDATE exa_billing.unposted_spend SET entry_id = (
             lpad(to_hex((extract(epoch FROM now() - interval '{interval}') * 1000)::bigint), 12, '0')
             || '7000' || '8' || substr(md5(entry_id::text), 1, 15))::uuid"
    )
}

#[test]
fn books_that_are_looked_after_are_well() {
    let (_db, mut client) = well();
    let names = texts(&mut client, "SELECT name FROM exa_billing.health");
    assert_eq!(names.len(), 18 + 8, "{names:?}");
    let shown =
        "SELECT count(*) FROM exa_billing.health WHERE figure = '' OR what_to_do IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, shown, &[]), 0);
    assert_no_violations(&mut client);
}

#[test]
fn a_database_without_books_says_only_that() {
    let db = Server::shared().database();
    let mut client = db.client();
    let all = "SELECT check_name || ': ' || status FROM exa_billing.health_checks()";
    assert_eq!(texts(&mut client, all), ["books: critical"]);
    let found = check(&mut client, "books");
    for statement in found.statements() {
        run_sql(&mut client, &statement);
    }
    assert!(check(&mut client, "books").is("ok"));
    let fresh = unwell(&mut client);
    for expected in ["clone guard: critical", "worker: critical", "proof of the books: warning"] {
        assert!(fresh.iter().any(|row| row == expected), "{fresh:?}");
    }
    assert_eq!(fresh.len(), 3 + 8, "{fresh:?}");
}

#[test]
fn rows_that_nobody_posts() {
    let (_db, mut client) = well();
    let name = "unposted rows";
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('u', '/search', 12000000)");
    assert!(check(&mut client, name).is("ok"));
    for (age, status) in [("6 minutes", "warning"), ("31 minutes", "critical")] {
        run_sql(&mut client, &queued_ago(age));
        // Whose row it is, is told too: the last posting was after it.
        let found = check(&mut client, name);
        assert!(found.is(status), "{found:?}");
        assert!(found.figure.starts_with("1 rows, the oldest "), "{found:?}");
    }
    let found = check(&mut client, name);
    mends_itself(&mut client, name, &found);
    assert_no_violations(&mut client);
}

#[test]
fn an_owner_whom_posting_passes_over() {
    let (db, mut client) = well();
    let name = "skipped owner";
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('u', '/search', 12000000)");
    run_sql(&mut client, &queued_ago("40 minutes"));
    let mut holder = db.client();
    run_sql(&mut holder, "BEGIN; SELECT FROM exa_billing.accounts WHERE owner_id = 'u' FOR UPDATE");
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('v', '/search', 5)");
    run_maintenance(&mut client);
    let found = check(&mut client, name);
    assert!(found.is("critical") && found.figure.ends_with(" s, user/u"), "{found:?}");
    run_sql(&mut holder, "ROLLBACK");
    // The proof has seen that the id is no journal's; the next one sees it posted.
    let mut statements = found.statements();
    statements.push("CALL exa_billing.run_maintenance()".to_owned());
    mends(&mut client, name, &statements.iter().map(String::as_str).collect::<Vec<_>>());
    assert_no_violations(&mut client);
}

#[test]
fn rows_that_cannot_be_posted() {
    let (_db, mut client) = well();
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('u', '/search', 5)");
    let fault = "UPDATE exa_billing.unposted_spend SET blocked_reason = 'out of range'";
    let found = turns(&mut client, "blocked rows", "critical", fault);
    assert_eq!(found.figure, "1 rows: out of range");
    mends_itself(&mut client, "blocked rows", &found);
    run_maintenance(&mut client);
    assert_no_violations(&mut client);
}

/// Half a million rows wait; looking at them costs little, and so does what they leave behind.
#[test]
fn a_long_queue_is_looked_at_cheaply() {
    let (_db, mut client) = well();
    run_sql(
        &mut client,
        "ALTER TABLE exa_billing.unposted_spend SET (autovacuum_enabled = off);
         INSERT INTO exa_billing.unposted_spend
         SELECT 'user', 'u' || n % 50000,
                (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '70008000'
                 || lpad(to_hex(n), 12, '0'))::uuid, 'spend', NULL, NULL, 0, 0, NULL,
                ARRAY['variable', 's', 'p', 'f', 'm', 'v'],
                CASE WHEN n % 50 = 7 THEN 'out of range' END, now(), pg_current_xact_id()
         FROM generate_series(1, 500000) AS n",
    );
    let found = check(&mut client, "unposted rows");
    assert!(found.is("warning") && found.figure.starts_with("100000 or more rows, "), "{found:?}");
    let found = check(&mut client, "blocked rows");
    assert_eq!(found.figure, "1000 or more rows: out of range");
    let explain = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM exa_billing.health";
    let plan: serde_json::Value = one(&mut client, explain, &[]);
    let plan = &plan[0]["Plan"];
    let pages =
        plan["Shared Hit Blocks"].as_i64().unwrap() + plan["Shared Read Blocks"].as_i64().unwrap();
    let table = "SELECT pg_relation_size('exa_billing.unposted_spend') / 8192";
    let table: i64 = one(&mut client, table, &[]);
    assert!(pages < 20_000 + table, "{pages} of {table}");

    run_sql(
        &mut client,
        "DELETE FROM exa_billing.unposted_spend; SELECT pg_stat_force_next_flush()",
    );
    wait_until("the statistics", || check(&mut client, "dead rows").is("warning"));
    let found = check(&mut client, "dead rows");
    assert_eq!(found.figure, "500000 rows");
    run_sql(&mut client, "VACUUM exa_billing.unposted_spend");
    wait_until("the statistics", || check(&mut client, "dead rows").is("ok"));
    assert_eq!(unwell(&mut client), [""; 0]);
    assert_no_violations(&mut client);
}

#[test]
fn foreign_hands_and_missing_guards() {
    let (_db, mut client) = well();
    let fault = "CREATE RULE r AS ON INSERT TO exa_billing.spend_log DO ALSO NOTIFY spent";
    let found = turns(&mut client, "foreign hands", "critical", fault);
    assert!(
        found.figure.contains("\"spend_log\"") || found.figure.contains("spend_log"),
        "{found:?}"
    );
    mends(&mut client, "foreign hands", &["DROP RULE r ON exa_billing.spend_log"]);
    for fault in [
        "ALTER TABLE exa_billing.idempotency_keys DISABLE TRIGGER append_only",
        "DROP TRIGGER by_erasure_only ON exa_billing.credit_transactions",
        "SELECT exa_billing.enable_row_security(); ALTER TABLE exa_billing.accounts DISABLE ROW LEVEL SECURITY",
    ] {
        let found = turns(&mut client, "guards", "critical", fault);
        mends_itself(&mut client, "guards", &found);
    }
    assert_no_violations(&mut client);
}

#[test]
fn months_that_are_missing() {
    let (_db, mut client) = well();
    for (months, journal, status) in [
        (4, "spend_log", "warning"),
        (1, "exa_usage_log", "critical"),
        (0, "spend_log", "critical"),
    ] {
        let partition: String = one(
            &mut client,
            "SELECT $1 || to_char(now() AT TIME ZONE 'UTC' + $2 * interval '1 month', '_YYYY_MM')",
            &[&journal, &f64::from(months)],
        );
        let fault = format!("DROP TABLE exa_billing.{partition}");
        let found = turns(&mut client, "months ahead", status, &fault);
        assert_eq!(found.figure, format!("{} months, {journal}", months - 1));
        mends_itself(&mut client, "months ahead", &found);
    }
    assert_no_violations(&mut client);
}

#[test]
fn hours_that_are_not_trusted() {
    let (_db, mut client) = well();
    for owner in ["", ", 'user', 'u'"] {
        let fault = format!(
            "SELECT exa_billing.record_degraded_interval(date_trunc('hour', now(), 'UTC') - interval '2 hours',
                 date_trunc('hour', now(), 'UTC'), 'restored'{owner})"
        );
        let found = turns(&mut client, "coverage", "warning", &fault);
        assert_eq!(found.figure.split(" for ").next(), Some("1 intervals, the oldest open"));
        mends_itself(&mut client, "coverage", &found);
    }
    assert_no_violations(&mut client);
}

#[test]
fn a_proof_that_finds_something_or_is_old() {
    let (_db, mut client) = well();
    let name = "proof of the books";
    let bump = |by: i32| {
        format!("UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + {by}")
    };
    run_sql(&mut client, &bump(1));
    run_maintenance(&mut client);
    let found = turns(&mut client, name, "critical", "");
    assert!(found.figure.contains("I3 user u"), "{found:?}");
    run_sql(&mut client, &bump(-1));
    mends_itself(&mut client, name, &found);
    let fault = "UPDATE exa_billing.books_proof SET finished_at = now() - interval '4 days'";
    let found = turns(&mut client, name, "warning", fault);
    mends_itself(&mut client, name, &found);
    let found = turns(&mut client, name, "warning", "DELETE FROM exa_billing.books_proof");
    mends_itself(&mut client, name, &found);
    assert_no_violations(&mut client);
}

#[test]
fn evaluations_that_wait_or_fail() {
    let (_db, mut client) = well();
    let queued = |ago: &str, failures: i32| {
        format!(
            "INSERT INTO exa_billing.evaluation_queue
             VALUES ('user', 'u', gen_random_uuid(), now() - interval '{ago}', {failures}, 'it broke')"
        )
    };
    for (ago, status) in [("6 minutes", "warning"), ("2 hours", "critical")] {
        let found = turns(&mut client, "evaluation backlog", status, &queued(ago, 0));
        mends_itself(&mut client, "evaluation backlog", &found);
    }
    let found = turns(&mut client, "failing evaluations", "warning", &queued("1 second", 1));
    assert_eq!(found.figure, "1 owners, user/u 1 times: it broke");
    mends_itself(&mut client, "failing evaluations", &found);
    assert_no_violations(&mut client);
}

#[test]
fn deliveries_that_nobody_sends() {
    let (_db, mut client) = well();
    run_sql(
        &mut client,
        "UPDATE exa_billing.accounts SET minimum_balance_microdollars = 6000;
         SELECT exa_billing.adjust_credit('user', 'u', -1, 'why')",
    );
    assert_eq!(unwell(&mut client), [""; 0]);
    let due = |ago: &str| {
        format!(
            "UPDATE exa_billing.notification_deliveries SET next_attempt_at = now() - interval '{ago}'"
        )
    };
    let name = "deliveries pending";
    turns(&mut client, name, "warning", &due("20 minutes"));
    turns(&mut client, name, "critical", &due("7 hours"));
    let give_up =
        "SELECT exa_billing.fail_notification(delivery_id, claim_token, 'no such mailbox')
                   FROM exa_billing.claim_notifications(10)";
    run_sql(&mut client, "UPDATE exa_billing.notification_deliveries SET attempt_count = 4");
    let found = turns(&mut client, "deliveries dead", "critical", give_up);
    assert_eq!(found.figure, "1 in a day, the last one: no such mailbox");
    let a_day_later = "UPDATE exa_billing.notification_deliveries
                       SET finished_at = finished_at - interval '25 hours'";
    mends(&mut client, "deliveries dead", &[a_day_later]);
    assert_no_violations(&mut client);
}

#[test]
fn books_of_an_older_version_are_told_to_set_up() {
    let (_db, mut client) = well();
    run_sql(
        &mut client,
        "DROP TABLE exa_billing.worker_registration, exa_billing.job_runs, exa_billing.books_proof CASCADE;
         DELETE FROM exa_billing.storage_migrations WHERE version > 2",
    );
    let unwell_now = "SELECT check_name FROM exa_billing.health_checks()
                      WHERE status = 'critical' AND what_to_do LIKE '%SELECT exa_billing.setup();%'";
    assert_eq!(
        texts(&mut client, unwell_now),
        ["books", "skipped owner", "proof of the books", "clone guard", "worker", "jobs"]
    );
    let found = check(&mut client, "books");
    assert_eq!(found.figure, "2, the library's is 3");
    run_sql(&mut client, &found.statements()[0]);
    assert!(check(&mut client, "books").is("ok"));
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    run_maintenance(&mut client);
    assert_eq!(unwell(&mut client), [""; 0]);
    run_sql(&mut client, "UPDATE exa_billing.storage_migrations SET version = 9 WHERE version = 3");
    let newer = check(&mut client, "books");
    assert!(newer.is("critical") && newer.what_to_do.unwrap().contains("newer library"));
}

#[test]
fn what_is_broken_or_missing_hides_nothing_else() {
    let (_db, mut client) = well();
    run_sql(
        &mut client,
        "DROP TABLE exa_billing.notification_deliveries;
         ALTER TABLE exa_billing.evaluation_queue RENAME COLUMN due_at TO due",
    );
    assert_eq!(
        unwell(&mut client),
        [
            "evaluation backlog: critical",
            "deliveries pending: critical",
            "deliveries dead: critical"
        ]
    );
    let missing = check(&mut client, "deliveries dead");
    assert_eq!(missing.figure, "table exa_billing.notification_deliveries is missing");
    assert!(missing.what_to_do.unwrap().contains("backup"));
    let broken = check(&mut client, "evaluation backlog");
    assert!(broken.figure.contains("due_at"), "{broken:?}");
    // All in one transaction that goes on.
    run_sql(
        &mut client,
        "BEGIN; SELECT exa_billing.record_exa_usage('u', '/search', 5);
         SELECT * FROM exa_billing.health; COMMIT",
    );
}

/// Who has locked a table must not keep everything else from being seen.
#[test]
fn a_locked_table_hides_nothing_else() {
    let (db, mut client) = well();
    let mut holder = db.client();
    run_sql(
        &mut holder,
        "BEGIN; LOCK TABLE exa_billing.notification_deliveries, exa_billing.books_proof",
    );
    assert_eq!(
        unwell(&mut client),
        [
            "proof of the books: critical",
            "deliveries pending: critical",
            "deliveries dead: critical"
        ]
    );
    let found = check(&mut client, "deliveries dead");
    assert!(found.figure.contains("lock timeout"), "{found:?}");
    assert!(found.what_to_do.unwrap().contains("the transaction that holds it"));
    let setting = "SELECT current_setting('lock_timeout')";
    assert_eq!(one::<String>(&mut client, setting, &[]), "0", "only while it looks");
    run_sql(&mut holder, "ROLLBACK");
    assert_eq!(unwell(&mut client), [""; 0]);
}

/// Whose row waits longest is found among many owners who wait for a moment only.
#[test]
fn an_owner_who_is_passed_over_is_found_among_many() {
    let (_db, mut client) = well();
    run_sql(
        &mut client,
        "SELECT exa_billing.record_exa_usage('z' || n, '/search', 12000000) FROM generate_series(1, 1500) AS n",
    );
    let of_one = queued_ago("40 minutes") + " WHERE owner_id = 'z999'";
    run_sql(&mut client, &of_one);
    let found = check(&mut client, "skipped owner");
    assert!(found.is("critical") && found.figure.ends_with(" s, user/z999"), "{found:?}");
    let found = check(&mut client, "unposted rows");
    assert!(found.is("critical") && found.figure.starts_with("1500 rows, "), "{found:?}");
    assert!(found.what_to_do.unwrap().contains("until it returns 0"));
    while one::<i64>(&mut client, "SELECT exa_billing.post_spend()::bigint", &[]) > 0 {}
    assert!(check(&mut client, "skipped owner").is("ok"));
    assert!(check(&mut client, "unposted rows").is("ok"));
    assert_no_violations(&mut client);
}
