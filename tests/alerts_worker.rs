//! Alerts while the background worker runs: a busy owner is evaluated while it goes on being
//! charged, what only time changes is found by the sweep, and a broken evaluation stops no posting.

mod books_common;
mod common;

use books_common::assert_no_violations;
use common::{Server, one, run_sql, wait_until};
use postgres::Client;

const EVENTS: &str = "SELECT count(*) FROM exa_billing.cost_insight_events WHERE event_type = ";

/// A server whose worker serves database `app`.
fn serving_app(name: &str, delay: &str) -> (Server, Client) {
    let server = Server::start(name, &[("exa_billing.evaluation_delay", delay)]);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    let mut client = server.client("app");
    run_sql(&mut client, "CREATE EXTENSION exa_billing; SELECT exa_billing.start_worker()");
    server.set_conf(&[("exa_billing.databases", "app")]);
    server.reload();
    (server, client)
}

fn charge(client: &mut Client, owner: &str, microdollars: i64) {
    run_sql(
        client,
        &format!(
            "SELECT exa_billing.record_spend('user', '{owner}', {microdollars}, 'scheduled', 'other', 'p')"
        ),
    );
}

fn enable(client: &mut Client, owner: &str) {
    run_sql(
        client,
        &format!(
            "SELECT exa_billing.update_spend_alert_settings('user', '{owner}',
                 '{{\"spend_alerts_enabled\": true, \"threshold_24h_usd\": \"1\"}}', '{owner}')"
        ),
    );
}

fn crossings(client: &mut Client, owner: &str) -> i64 {
    let sql = format!("{EVENTS}'threshold_crossed' AND owner_id = $1");
    one(client, &sql, &[&owner])
}

#[test]
fn a_busy_owner_is_evaluated_while_it_goes_on_being_charged() {
    let (_server, mut client) = serving_app("alerts_busy", "1s");
    enable(&mut client, "busy");
    charge(&mut client, "busy", 1_000_000);
    // Every further charge comes before the pause after the one before it is over.
    wait_until("the crossing is told of", || {
        charge(&mut client, "busy", 1);
        crossings(&mut client, "busy") == 1
    });
    // Whatever is charged is evaluated too, and tells of nothing new.
    wait_until("everything is evaluated", || {
        one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.unposted_spend", &[]) == 0
            && one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.evaluation_queue", &[])
                == 0
    });
    assert_eq!(crossings(&mut client, "busy"), 1);
    assert_no_violations(&mut client);
}

#[test]
fn the_sweep_finds_what_only_time_changes() {
    let (server, mut client) = serving_app("alerts_sweep", "1h");
    enable(&mut client, "quiet");
    // Crossed a day ago, seen then, and below ever since: no charge will tell.
    run_sql(
        &mut client,
        "SELECT exa_billing.record_spend('user', 'quiet', 1000000, 'scheduled', 'other', 'p',
             created_at => now() - interval '30 hours');
         UPDATE exa_billing.spend_alert_states SET last_evaluated_at = NULL;
         SELECT exa_billing.evaluate_spend_alerts('user', 'quiet', now() - interval '29 hours')",
    );
    assert_eq!(crossings(&mut client, "quiet"), 1);
    // A new worker sweeps at once, an old one when an hour has passed.
    let stop = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE backend_type = 'exa_billing worker'";
    run_sql(&mut client, stop);
    let recovered = format!("{EVENTS}'recovered' AND owner_id = 'quiet'");
    wait_until("the recovery is found", || one::<i64>(&mut client, &recovered, &[]) == 1);
    drop(server);
}

#[test]
fn an_evaluation_that_fails_stops_neither_posting_nor_the_worker() {
    let (_server, mut client) = serving_app("alerts_broken", "0s");
    for owner in ["bad", "good"] {
        enable(&mut client, owner);
    }
    run_sql(
        &mut client,
        "ALTER TABLE exa_billing.cost_insight_events ADD CONSTRAINT planted
             CHECK (owner_id <> 'bad') NOT VALID",
    );
    let worker = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'exa_billing worker'";
    wait_until("the worker runs", || !client.query(worker, &[]).expect("query").is_empty());
    let before: i32 = one(&mut client, worker, &[]);
    charge(&mut client, "bad", 2_000_000);
    charge(&mut client, "good", 2_000_000);
    wait_until("the good one is told", || crossings(&mut client, "good") == 1);
    let failing = "SELECT count(*) FROM exa_billing.evaluation_queue
                   WHERE owner_id = 'bad' AND failure_count > 0 AND last_error LIKE '%planted%'";
    wait_until("the bad one is put back", || one::<i64>(&mut client, failing, &[]) == 1);
    charge(&mut client, "bad", 5);
    let used = "SELECT coalesce(sum(microdollars_used), 0)::bigint FROM exa_billing.accounts";
    wait_until("posting goes on", || one::<i64>(&mut client, used, &[]) == 4_000_005);
    assert_eq!(one::<i32>(&mut client, worker, &[]), before);
    // Mended, and its time has come.
    run_sql(
        &mut client,
        "ALTER TABLE exa_billing.cost_insight_events DROP CONSTRAINT planted;
         UPDATE exa_billing.evaluation_queue SET due_at = now()",
    );
    wait_until("the bad one is told after all", || crossings(&mut client, "bad") == 1);
    assert_no_violations(&mut client);
}

#[test]
fn a_lock_on_the_mailers_tables_stops_neither_posting_nor_evaluations() {
    let (server, mut client) = serving_app("alerts_locked", "0s");
    enable(&mut client, "ann");
    let worker = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'exa_billing worker'";
    wait_until("the worker runs", || !client.query(worker, &[]).expect("query").is_empty());
    let before: i32 = one(&mut client, worker, &[]);
    let mut locking = server.client("app");
    run_sql(&mut locking, "BEGIN; LOCK TABLE exa_billing.notification_deliveries");
    wait_until("mailers cannot be reminded", || {
        server.log().contains("exa_billing could not remind mailers")
    });
    // Below the threshold: there is nothing to tell.
    for charges in 1..=3_i64 {
        charge(&mut client, "ann", 10);
        let done = "SELECT microdollars_used = $1 AND s.last_evaluated_at > h.latest AND NOT EXISTS (
                        SELECT FROM exa_billing.evaluation_queue)
                    FROM exa_billing.accounts JOIN exa_billing.spend_alert_states AS s USING (owner_kind, owner_id),
                         (SELECT max(created_at) AS latest FROM exa_billing.spend_log) AS h
                    UNION ALL SELECT false LIMIT 1";
        wait_until("it is posted and evaluated", || {
            one::<bool>(&mut client, done, &[&(charges * 10)])
        });
    }
    run_sql(&mut locking, "COMMIT");
    assert_eq!(one::<i32>(&mut client, worker, &[]), before);
    assert_no_violations(&mut client);
}
