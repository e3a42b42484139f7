//! The worker and the mailers: it wakes them once per batch that has something for them, when
//! something is due again, and never from a charge; and it deletes what is old.

mod common;
mod notifications_common;

use common::{PATIENCE, Server, one, run_sql, wait_until};
use notifications_common::*;
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;

const CHANNEL: &str = "exa_billing_notifications";

/// A server whose worker serves database `app`, books in it, and a session that listens.
fn serving_app(name: &str) -> (Server, Client, Client) {
    let server = Server::start(name, &[]);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    let (mut client, mut mailer) = (server.client("app"), server.client("app"));
    run_sql(&mut client, "CREATE EXTENSION exa_billing; SELECT exa_billing.start_worker()");
    run_sql(&mut mailer, &format!("LISTEN {CHANNEL}"));
    (server, client, mailer)
}

fn serve(server: &Server) {
    server.set_conf(&[("exa_billing.databases", "app")]);
    server.reload();
}

fn wait_until_posted(client: &mut Client) {
    wait_until("everything is posted", || {
        one::<i64>(client, "SELECT count(*) FROM exa_billing.unposted_spend", &[]) == 0
    });
}

/// How often the mailer was woken until now.
fn woken(mailer: &mut Client) -> usize {
    run_sql(mailer, &format!("NOTIFY {CHANNEL}, 'until here'"));
    let mut count = 0;
    let mut notifications = mailer.notifications();
    let mut arriving = notifications.timeout_iter(PATIENCE);
    loop {
        let notification = arriving.next().expect("a connection").expect("a notification");
        assert_eq!(notification.channel(), CHANNEL);
        match notification.payload() {
            "" => count += 1,
            "until here" => return count,
            other => panic!("{other}"),
        }
    }
}

/// Waits until the mailer is woken.
fn wait_until_woken(mailer: &mut Client) {
    let mut notifications = mailer.notifications();
    let notification = notifications.timeout_iter(PATIENCE).next().expect("a connection");
    assert_eq!(notification.expect("a notification in time").payload(), "");
}

#[test]
fn mailers_are_woken_once_per_batch_and_only_when_there_is_something_for_them() {
    let (server, mut client, mut mailer) = serving_app("wake");
    for n in 0..20 {
        with_minimum(&mut client, "user", &format!("user-{n}"), 5_000, 1_000);
    }
    let charge = |client: &mut Client, amount: i64| {
        let sql =
            "SELECT count(exa_billing.record_spend('user', 'user-' || n, $1, 'variable', 's', 'p'))
                   FROM generate_series(0, 19) AS n";
        assert_eq!(one::<i64>(client, sql, &[&amount]), 20);
    };
    // Without a worker a session that charges and posts wakes nobody.
    charge(&mut client, 100);
    run_sql(&mut client, "SELECT exa_billing.post_spend()");
    assert_eq!(woken(&mut mailer), 0);

    serve(&server);
    charge(&mut client, 100);
    wait_until_posted(&mut client);
    assert_eq!(woken(&mut mailer), 0);
    // All of it becomes visible at once, and is one batch: twenty deliveries, one NOTIFY.
    charge(&mut client, 4_000);
    wait_until_posted(&mut client);
    assert_eq!(low_balances(&mut client).len(), 20);
    assert_eq!(woken(&mut mailer), 1);
    let claimed = claim(&mut mailer, "100");
    assert_eq!(claimed.len(), 20);
    for delivery in &claimed[1..] {
        assert!(complete(&mut mailer, delivery));
    }
    charge(&mut client, 100);
    wait_until_posted(&mut client);
    assert_eq!(woken(&mut mailer), 0);

    // It failed, and is due again a moment later.
    assert_eq!(fail(&mut mailer, &claimed[0], Some("busy")), Some("pending".to_owned()));
    run_sql(
        &mut client,
        "UPDATE exa_billing.notification_deliveries SET next_attempt_at = clock_timestamp() + interval '50 ms'
         WHERE status = 'pending'",
    );
    wait_until_woken(&mut mailer);
    let again = claim_one(&mut mailer, "5 minutes");
    assert_eq!((again.delivery, again.attempt), (claimed[0].delivery, 2));
    assert!(complete(&mut mailer, &again));

    // Credit that expires tells as well.
    for n in 0..3 {
        run_sql(
            &mut client,
            &format!(
                "SELECT exa_billing.set_free_allowance(0, '2020-01-01');
                 SELECT exa_billing.grant_credit('user', 'expiring-{n}', 5000,
                     now() - interval '1 hour', created_at => now() - interval '2 hours')"
            ),
        );
        set_minimum(&mut client, "user", &format!("expiring-{n}"), 1_000);
    }
    wait_until("the credit has expired", || low_balances(&mut client).len() == 23);
    wait_until_woken(&mut mailer);
    let log = server.log();
    assert!(!log.contains("ERROR") && !log.contains("WARNING"), "{log}");
}

#[test]
fn an_event_that_is_refused_wakes_nobody_and_stops_no_worker() {
    let (server, mut client, mut mailer) = serving_app("refused");
    with_minimum(&mut client, "user", "ann", 5_000, 1_000);
    run_sql(
        &mut client,
        "ALTER TABLE exa_billing.notification_deliveries ADD CONSTRAINT planted CHECK (owner_id <> 'ann')",
    );
    serve(&server);
    run_sql(
        &mut client,
        "SELECT exa_billing.record_spend('user', 'ann', 4500, 'variable', 's', 'p')",
    );
    wait_until_posted(&mut client);
    assert_eq!(woken(&mut mailer), 0);
    assert_eq!(low_balances(&mut client), [""; 0]);
    wait_until("it is reported", || server.log().contains("low balances could not be noted"));

    // Nor does one wait for who has locked the events: charges are posted meanwhile.
    let mut holder = server.client("app");
    let mut held = holder.transaction().unwrap();
    run_sql(&mut held, "LOCK TABLE exa_billing.cost_insight_events IN ACCESS EXCLUSIVE MODE");
    run_sql(&mut client, "SELECT exa_billing.record_spend('user', 'ann', 1, 'variable', 's', 'p')");
    wait_until_posted(&mut client);
    held.rollback().unwrap();
    assert_eq!(woken(&mut mailer), 0);

    // Once it is mended nobody has to spend anything to be told: a new worker looks at once, an old
    // one every hour.
    run_sql(
        &mut client,
        "ALTER TABLE exa_billing.notification_deliveries DROP CONSTRAINT planted;
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'exa_billing worker'",
    );
    wait_until("it is told", || low_balances(&mut client) == ["user ann 499 1000"]);
    wait_until_woken(&mut mailer);
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}

#[test]
fn the_worker_deletes_what_is_old_until_nothing_is_left() {
    let (server, mut client, _mailer) = serving_app("retention");
    run_sql(
        &mut client,
        "INSERT INTO exa_billing.cost_insight_events
             (event_id, owner_kind, owner_id, event_type, snapshot, occurred_at, recorded_at)
         SELECT gen_random_uuid(), 'user', 'u', 'low_balance', '{}', at, at
         FROM generate_series(1, 2500) AS n, LATERAL (SELECT now() - (85 + n % 10) * interval '1 day' AS at) AS l;
         INSERT INTO exa_billing.notification_deliveries
             (delivery_id, event_id, owner_kind, owner_id, recipient_user_id, event_type, payload, status,
              attempt_count, next_attempt_at, occurred_at, created_at, finished_at)
         SELECT gen_random_uuid(), event_id, 'user', 'u', 'u', 'low_balance', '{}', 'skipped', 0,
                occurred_at, occurred_at, occurred_at, occurred_at
         FROM exa_billing.cost_insight_events",
    );
    let left = "SELECT (SELECT count(*) FROM exa_billing.cost_insight_events)
                     + (SELECT count(*) FROM exa_billing.notification_deliveries)";
    assert_eq!(one::<i64>(&mut client, left, &[]), 5000);
    serve(&server);
    // Ages of 85 to 89 days stay; those of exactly 90 were so when they were made.
    wait_until("what is old is gone", || one::<i64>(&mut client, left, &[]) == 2500);
    let youngest = "SELECT min(occurred_at) > now() - interval '2160 hours' FROM exa_billing.cost_insight_events";
    assert!(one::<bool>(&mut client, youngest, &[]));
    assert!(!server.log().contains("ERROR"), "{}", server.log());
}
