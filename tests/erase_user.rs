//! erase_user(): what says something about a user goes, the books go on adding up.

mod books_common;
mod common;

use books_common::{assert_no_violations, assert_same, contents, texts};
use common::{Database, Server, error_of, one, run_sql, wait_until};
use postgres::Client;
use std::thread;

const MARK: &str = "wants a refund, +49 171";
const ERASE: &str = "SELECT exa_billing.erase_user('u-gone')";

/// Everything that can be kept of a user, for two of them; `$` is one's id.
const OF_A_USER: &str = "
    SELECT exa_billing.set_organization_member('org-1', '$', 'owner');
    SELECT exa_billing.set_free_allowance(10, '2020-01-01', '$');
    SELECT exa_billing.grant_credit('user', '$', 5000, description => 'MARK', idempotency_key => 'key-$');
    SELECT exa_billing.grant_credit('user', '$', 600, now() - interval '1 hour', description => 'MARK',
                                    created_at => now() - interval '2 days');
    SELECT exa_billing.expire_credits('user', '$');
    SELECT exa_billing.record_exa_usage('$', '/search', 900);
    SELECT exa_billing.record_exa_usage('$', '/search', 800);
    SELECT exa_billing.record_exa_usage('$', '/search', 700, 'org-1');
    SELECT exa_billing.record_spend('organization', 'org-1', 5, 'variable', 's', 'p', actor_user_id => '$');
    SELECT exa_billing.post_spend();
    SELECT exa_billing.update_spend_alert_settings('user', '$', '{\"spend_alerts_enabled\": true,
        \"threshold_24h_microdollars\": 100, \"minimum_balance_microdollars\": 4500}', '$');
    SELECT exa_billing.adjust_credit('user', '$', -50, 'MARK');
    SELECT exa_billing.evaluate_spend_alerts('user', '$');
    SELECT exa_billing.record_degraded_interval('2020-01-01Z', '2020-01-02Z', 'MARK', 'user', '$');
    SELECT exa_billing.fail_notification(delivery_id, claim_token, 'MARK')
        FROM exa_billing.claim_notifications(10);
    INSERT INTO exa_billing.cost_suggestions
        SELECT gen_random_uuid(), 'user', '$', 'kilo_pass', 'MARK', 'open', 5, 5, now(), now() + interval '1 s',
               NULL, '{\"title\": \"MARK\"}', now(), now();
    INSERT INTO exa_billing.evaluation_queue
        VALUES ('user', '$', gen_random_uuid(), now() + interval '1 hour', 3, 'MARK')";

fn filled() -> (Database, Client) {
    let db = Server::shared().database();
    let mut client = db.client();
    run_sql(
        &mut client,
        "SELECT exa_billing.setup(); SELECT exa_billing.start_worker();
         SELECT exa_billing.grant_credit('organization', 'org-1', 50000)",
    );
    for (user, mark) in [("u-gone", MARK), ("u-stays", "is content")] {
        // Each in a transaction of its own: what happens at one instant is not yet evaluated at it.
        for statement in OF_A_USER.split(";\n") {
            run_sql(&mut client, &statement.replace('$', user).replace("MARK", mark));
        }
    }
    (db, client)
}

/// Every table and column that has this text in it, the months of partitions left out.
fn places_of(client: &mut Client, text: &str) -> Vec<String> {
    let columns = texts(
        client,
        "SELECT format('SELECT %L FROM %s WHERE strpos(%I::text, $1) > 0 LIMIT 1',
                       regexp_replace(c.relname, '_[0-9]{4}_[0-9]{2}$', '') || '.' || a.attname,
                       c.oid::regclass, a.attname)
         FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid
         WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
           AND a.atttypid IN ('text'::regtype, 'jsonb'::regtype, 'text[]'::regtype)",
    );
    assert!(columns.len() > 150, "too few columns: {}", columns.len());
    let mut places: Vec<String> = columns
        .iter()
        .flat_map(|sql| client.query(sql.as_str(), &[&text]).expect(sql))
        .map(|row| row.get(0))
        .collect();
    places.sort();
    places.dedup();
    places
}

#[test]
fn no_free_text_is_left_anywhere() {
    let (_db, mut client) = filled();
    let planted = [
        "cost_suggestions.content",
        "cost_suggestions.target",
        "credit_transactions.description",
        "evaluation_queue.last_error",
        "notification_deliveries.last_error",
        "spend_degraded_intervals.reason",
    ];
    assert_eq!(places_of(&mut client, MARK), planted);
    run_sql(&mut client, ERASE);
    assert_eq!(places_of(&mut client, MARK), [""; 0]);
    assert_eq!(places_of(&mut client, "is content"), planted, "somebody else's");
    // An expiration later copies nothing back.
    run_sql(
        &mut client,
        "SELECT exa_billing.close_out_credits('user', 'u-gone');
         SELECT exa_billing.recompute_user_balances('u-gone')",
    );
    assert_eq!(places_of(&mut client, MARK), [""; 0]);
    assert_no_violations(&mut client);
}

#[test]
fn ids_stay_only_where_the_books_need_them() {
    let (_db, mut client) = filled();
    let before = places_of(&mut client, "u-gone");
    for gone in [
        "cost_insight_events.owner_id",
        "cost_suggestions.owner_id",
        "evaluation_queue.owner_id",
        "notification_deliveries.recipient_user_id",
        "organization_members.user_id",
        "spend_alert_episodes.owner_id",
        "spend_alert_settings.owner_id",
        "spend_alert_states.owner_id",
    ] {
        assert!(before.iter().any(|place| place == gone), "{gone}: {before:?}");
    }
    run_sql(&mut client, ERASE);
    assert_eq!(
        places_of(&mut client, "u-gone"),
        [
            "accounts.owner_id",
            "credit_transactions.owner_id",
            "exa_monthly_allowance.user_id",
            "exa_monthly_usage.user_id",
            "exa_usage_log.user_id",
            "free_allowances.user_id",
            "idempotency_keys.idempotency_key",
            "idempotency_keys.key_space",
            "organization_member_usage.user_id",
            "spend_daily_totals.owner_id",
            "spend_degraded_intervals.owner_id",
            "spend_hourly_drivers.actor_user_id",
            "spend_hourly_drivers.owner_id",
            "spend_hourly_totals.owner_id",
            "spend_log.actor_user_id",
        ]
    );
    let minimum = "SELECT count(minimum_balance_microdollars) + count(low_balance_since)
                   FROM exa_billing.accounts WHERE owner_id = $1";
    assert_eq!(one::<i64>(&mut client, minimum, &[&"u-gone"]), 0);
    assert!(one::<i64>(&mut client, minimum, &[&"u-stays"]) > 0);
    assert_no_violations(&mut client);
}

#[test]
fn balances_stay_and_charging_goes_on() {
    let (_db, mut client) = filled();
    let balance = "SELECT balance_microdollars FROM exa_billing.account_balance('user', 'u-gone')";
    let before: i64 = one(&mut client, balance, &[]);
    run_sql(&mut client, ERASE);
    assert_eq!(one::<i64>(&mut client, balance, &[]), before);
    // A retry of what was granted finds its key, whatever became of the text.
    let granted = "SELECT exa_billing.grant_credit('user', 'u-gone', 5000, description => $1,
                                                   idempotency_key => 'key-u-gone')";
    client.query(granted, &[&MARK]).expect("a replay");
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('u-gone', '/search', 7)");
    assert_eq!(one::<i64>(&mut client, balance, &[]), before - 7);
    assert_eq!(places_of(&mut client, MARK), [""; 0]);
    assert_no_violations(&mut client);
}

#[test]
fn erasing_again_or_a_stranger_changes_nothing() {
    let (_db, mut client) = filled();
    run_sql(&mut client, ERASE);
    let before = contents(&mut client);
    run_sql(&mut client, ERASE);
    run_sql(&mut client, "SELECT exa_billing.erase_user('never seen')");
    // An organization of that name is somebody else.
    run_sql(&mut client, "SELECT exa_billing.erase_user('org-1')");
    assert_same("books", &before, &contents(&mut client));
    run_sql(&mut client, "BEGIN; SELECT exa_billing.erase_user('u-stays'); ROLLBACK");
    assert_same("books", &before, &contents(&mut client));
    assert_no_violations(&mut client);
}

#[test]
fn only_the_function_takes_descriptions_out() {
    let (_db, mut client) = filled();
    let by_hand = "UPDATE exa_billing.credit_transactions SET description = NULL";
    for before in ["", ERASE, "SET session_replication_role = replica"] {
        let error = error_of(&mut client, &format!("BEGIN; {before}; {by_hand}"));
        assert_eq!(error.code, "55000", "{before}");
        run_sql(&mut client, "ROLLBACK; SET session_replication_role = origin");
    }
    // It passes no other guard.
    let amounts = "UPDATE exa_billing.credit_transactions
                   SET description = NULL, original_baseline_microdollars_used = 1";
    assert_eq!(error_of(&mut client, &format!("{ERASE}; {amounts}")).code, "55000");
    assert_no_violations(&mut client);
}

#[test]
fn an_older_snapshot_is_refused() {
    let (_db, mut client) = filled();
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let error = error_of(&mut client, &format!("BEGIN ISOLATION LEVEL {level}; {ERASE}"));
        assert_eq!(error.code, "55000", "{level}");
        run_sql(&mut client, "ROLLBACK");
    }
    assert_no_violations(&mut client);
}

#[test]
fn what_is_being_written_meanwhile_is_waited_for() {
    let (db, mut client) = filled();
    for writing in [
        "SELECT exa_billing.adjust_credit('user', 'u-gone', -5, $1)".replace("$1", &format!("'{MARK}'")),
        "SELECT exa_billing.update_spend_alert_settings('user', 'u-gone', '{\"threshold_7d_microdollars\": 7}', 'u-gone')".to_owned(),
    ] {
        run_sql(&mut client, &format!("BEGIN; {writing}"));
        let mut other = db.client();
        let pid: i32 = one(&mut other, "SELECT pg_backend_pid()", &[]);
        let erasing = thread::spawn(move || run_sql(&mut other, ERASE));
        let mut observer = db.client();
        wait_until("the erasure waits", || {
            let waits = "SELECT cardinality(pg_blocking_pids($1)) > 0";
            one::<bool>(&mut observer, waits, &[&pid])
        });
        run_sql(&mut client, "COMMIT");
        erasing.join().expect("the erasure");
        assert_eq!(places_of(&mut client, MARK), [""; 0]);
        let left = "SELECT count(*) FROM exa_billing.spend_alert_settings WHERE owner_id = 'u-gone'";
        assert_eq!(one::<i64>(&mut client, left, &[]), 0);
    }
    assert_no_violations(&mut client);
}
