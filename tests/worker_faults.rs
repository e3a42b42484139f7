//! What goes wrong while the background worker works: it is recorded and told of once, everything else
//! goes on, and when it is mended nothing else has to be done.

mod books_common;
mod common;
mod health_common;
mod worker_common;

use books_common::{assert_no_violations, texts};
use common::{Server, one, run_sql, wait_until};
use health_common::check;
use postgres::Client;
use worker_common::*;

/// A charge that changes the account at its posting.
fn charge(client: &mut Client, user: &str) {
    run_sql(
        client,
        &format!(
            "SELECT exa_billing.record_spend('user', '{user}', 500, 'scheduled', 'other', 'p')"
        ),
    );
}

#[track_caller]
fn wait_for_failure(client: &mut Client, name: &str, error: &str) {
    let fails = |found: Option<(i64, Option<String>)>| {
        found
            .is_some_and(|(failures, last)| failures > 0 && last.is_some_and(|e| e.contains(error)))
    };
    wait_until("the failure is recorded", || fails(job(client, name)));
}

#[track_caller]
fn wait_for_success(client: &mut Client, name: &str) {
    wait_until("it succeeds again", || {
        job(client, name).is_some_and(|(failures, _)| failures == 0)
    });
}

#[test]
fn a_job_that_fails_every_time_is_recorded_and_holds_back_no_other() {
    let (server, mut client) = serving_app("failing");
    assert_served(&mut client);
    let worker = wait_for_worker(&mut client, "app");
    let rename = |from: &str, to: &str| format!("ALTER TABLE exa_billing.{from} RENAME TO {to}");
    run_sql(&mut client, &rename("notification_deliveries", "away"));
    let missing = "relation \"exa_billing.notification_deliveries\" does not exist";
    wait_for_failure(&mut client, "remind mailers", missing);
    let found = check(&mut client, "job: remind mailers");
    assert!(!found.is("ok") && found.figure.contains(missing), "{found:?}");
    assert_served(&mut client);
    let told = "exa_billing could not remind mailers: ";
    assert_eq!(count_in_log(&server, told), 1);
    run_sql(&mut client, &rename("away", "notification_deliveries"));
    wait_for_success(&mut client, "remind mailers");
    // What it was is still to be read.
    assert_eq!(job(&mut client, "remind mailers"), Some((0, Some(missing.to_owned()))));

    // Neither can it note anything, nor does it matter to the rest.
    run_sql(&mut client, &rename("job_runs", "away"));
    assert_served(&mut client);
    run_sql(&mut client, &rename("away", "job_runs"));

    // The clone guard's table cannot be read: nothing is done, and nobody ends.
    let column = |from: &str, to: &str| {
        format!("ALTER TABLE exa_billing.worker_registration RENAME COLUMN {from} TO {to}")
    };
    run_sql(&mut client, &column("instance_name", "away"));
    let unread = "column \"instance_name\" does not exist";
    wait_until("it is told", || count_in_log(&server, unread) > 0);
    run_sql(&mut client, &column("away", "instance_name"));
    assert_served(&mut client);
    assert_eq!(wait_for_worker(&mut client, "app"), worker);
    assert_eq!(count_in_log(&server, told), 1);
}

/// A constraint of the accounts that raises an error of this class at each posting.
fn refuse(client: &mut Client, sqlstate: &str) {
    run_sql(
        client,
        &format!(
            "CREATE OR REPLACE FUNCTION public.refuse() RETURNS boolean LANGUAGE plpgsql AS
                 $$ BEGIN RAISE 'refused with %', '{sqlstate}' USING errcode = '{sqlstate}'; END $$;
             ALTER TABLE exa_billing.accounts ADD CONSTRAINT refused CHECK (public.refuse()) NOT VALID"
        ),
    );
}

const ACCEPT: &str = "ALTER TABLE exa_billing.accounts DROP CONSTRAINT IF EXISTS refused,
                          DROP CONSTRAINT IF EXISTS slow, DROP CONSTRAINT IF EXISTS once";

/// Whatever the class of the error: what ends a session's transaction ends this one's step.
#[test]
fn deadlocks_cancellations_and_failures_at_commit_end_a_step_and_not_the_worker() {
    let (server, mut client) = serving_app("classes");
    assert_served(&mut client);
    let worker = wait_for_worker(&mut client, "app");
    refuse(&mut client, "40P01");
    charge(&mut client, "refused");
    wait_for_failure(&mut client, "post spend", "refused with 40P01");
    run_sql(&mut client, ACCEPT);
    wait_for_success(&mut client, "post spend");
    // Somebody cancels a step that is running.
    run_sql(
        &mut client,
        "CREATE SEQUENCE public.naps; GRANT USAGE ON SEQUENCE public.naps TO PUBLIC;
         ALTER TABLE exa_billing.accounts ADD CONSTRAINT slow
             CHECK (nextval('public.naps') > 1 OR pg_catalog.pg_sleep(600) IS NOT NULL) NOT VALID",
    );
    charge(&mut client, "slow");
    wait_until("posting sleeps and is cancelled", || {
        one::<i64>(
            &mut client,
            "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity
             WHERE backend_type = 'exa_billing worker' AND wait_event = 'PgSleep'",
            &[],
        ) == 1
    });
    let cancelled = Some("canceling statement due to user request".to_owned());
    wait_until("that is recorded, and the next try succeeds", || {
        job(&mut client, "post spend") == Some((0, cancelled.clone()))
    });
    run_sql(&mut client, ACCEPT);

    // Two that have used much are one too many, which is found at commit; as whom is written down.
    run_sql(
        &mut client,
        "CREATE FUNCTION public.kept_apart(bigint, text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS
             $$ BEGIN
                 RAISE LOG 'asked as %', current_user;
                 RETURN CASE WHEN $1 < 100000 THEN $2 ELSE 'much' END;
             END $$;
         ALTER TABLE exa_billing.accounts ADD CONSTRAINT once
             EXCLUDE USING btree (public.kept_apart(microdollars_used, owner_id) WITH =)
             DEFERRABLE INITIALLY DEFERRED;
         SELECT exa_billing.stop_worker();
         SELECT exa_billing.record_spend('user', owner, 100000, 'scheduled', 'other', 'p')
         FROM unnest(ARRAY['refused', 'slow']) AS owner",
    );
    let asked = server.log().len();
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    wait_for_failure(&mut client, "post spend", "violates exclusion constraint \"once\"");
    let log = server.log();
    let mut roles: Vec<&str> =
        log[asked..].lines().filter_map(|line| line.split("asked as ").nth(1)).collect();
    assert!(roles.len() > 2, "{roles:?}");
    roles.dedup();
    assert_eq!(roles, ["exa_billing_owner"]);
    run_sql(&mut client, ACCEPT);
    wait_for_success(&mut client, "post spend");
    assert_served(&mut client);
    assert_eq!(wait_for_worker(&mut client, "app"), worker);
}

#[test]
fn it_ends_at_once_while_it_waits_for_a_lock_and_comes_back_after_a_crash() {
    let (server, mut client) = serving_app("ends");
    assert_served(&mut client);
    let worker = wait_for_worker(&mut client, "app");
    let mut locking = server.client("app");
    run_sql(&mut locking, "BEGIN; LOCK TABLE exa_billing.unposted_spend");
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE backend_type = 'exa_billing worker' AND wait_event_type = 'Lock'";
    wait_until("the worker waits", || one::<i64>(&mut client, waits, &[]) == 1);
    run_sql(&mut client, &format!("SELECT pg_terminate_backend({worker})"));
    wait_until("it has ended", || !is_running(worker));
    run_sql(&mut locking, "COMMIT");
    let worker = wait_for_another_worker(&mut client, "app", worker);
    assert_served(&mut client);

    // A killed process has the whole server start anew.
    drop(client);
    let killed = server.run("sh", &["-c", &format!("kill -KILL {worker}")]);
    assert!(killed.status.success());
    wait_until("the server has noticed", || server.log().contains("terminated by signal 9"));
    wait_until("it is up again", || server.config("app").connect(postgres::NoTls).is_ok());
    assert_served(&mut server.client("app"));
}

/// What a session waits for that commits, where a standby is asked for that does not exist.
#[test]
fn it_waits_for_no_standby() {
    let (server, mut client) = serving_app("nobody");
    run_sql(&mut client, "SET synchronous_commit = local");
    assert_served(&mut client);
    server.set_conf(&[("synchronous_standby_names", "nobody")]);
    server.reload();
    assert_served(&mut client);
    let worker = wait_for_worker(&mut client, "app");
    drop(client);
    server.stop("fast");
    assert!(!is_running(worker));
    assert_eq!(count_in_log(&server, "canceling the wait for synchronous replication"), 0);
}

/// When the worker has begun something last.
fn begun(client: &mut Client) -> Option<std::time::SystemTime> {
    let sql = "SELECT query_start FROM pg_stat_activity WHERE backend_type = 'exa_billing worker'";
    client.query_opt(sql, &[]).expect("pg_stat_activity")?.get(0)
}

#[test]
fn it_rests_where_it_was_stopped_and_where_the_extension_is_gone() {
    let (_server, mut client) = serving_app("rests");
    assert_served(&mut client);
    run_sql(&mut client, "BEGIN; SELECT exa_billing.stop_worker(); ROLLBACK");
    assert_served(&mut client);
    let worker = wait_for_worker(&mut client, "app");
    for stop in ["SELECT exa_billing.stop_worker()", "DROP EXTENSION exa_billing CASCADE"] {
        let waiting = format!(
            "BEGIN; {}; {stop}; COMMIT",
            "SELECT exa_billing.record_exa_usage('u', '/search', 500)"
        );
        run_sql(&mut client, &waiting);
        // It goes on looking, and finds nothing to do.
        for _ in 0..2 {
            let before = begun(&mut client);
            wait_until("it looks again", || begun(&mut client) > before);
        }
        assert_eq!(queue(&mut client), 1);
        run_sql(
            &mut client,
            "CREATE EXTENSION IF NOT EXISTS exa_billing; SELECT exa_billing.setup();
             SELECT exa_billing.start_worker()",
        );
        wait_until("it goes on", || queue(&mut client) == 0);
    }
    assert_eq!(wait_for_worker(&mut client, "app"), worker);
    assert_no_violations(&mut client);
}

/// Five hundred new accounts are a batch, and each of these takes a second.
#[test]
fn nobody_waits_for_more_than_a_batch_of_posting() {
    let server = Server::start("turns", &[("exa_billing.expiration_grace", "0")]);
    let mut client = create(&server, "app");
    run_sql(
        &mut client,
        "SELECT exa_billing.grant_credit('user', 'u', 5, now() - interval '1 hour', created_at => now() - interval '2 hours');
         SELECT exa_billing.record_spend('user', 'u' || n, 1, 'scheduled', 'other', 'p') FROM generate_series(1, 2000) AS n;
         ALTER TABLE exa_billing.accounts ADD CONSTRAINT slow
             CHECK (owner_id = 'u' OR pg_catalog.pg_sleep(0.001) IS NOT NULL) NOT VALID;
         SELECT exa_billing.start_worker()",
    );
    serve(&server, "app");
    let expired = "SELECT count(*) FROM exa_billing.credit_transactions
                   WHERE original_transaction_id IS NOT NULL";
    wait_until("the credit has expired", || one::<i64>(&mut client, expired, &[]) == 1);
    assert!(queue(&mut client) > 0);
    wait_until("all is posted", || queue(&mut client) == 0);
    assert_no_violations(&mut client);
}

/// A charge of a transaction that began before a grant expired may be dated before its expiry.
#[test]
fn expired_credit_waits_for_transactions_that_began_before_whoever_the_database_says_we_are() {
    let server = Server::start("oldest", &[("exa_billing.expiration_grace", "0")]);
    let mut admin = server.client("postgres");
    run_sql(&mut admin, "CREATE ROLE limited");
    run_sql(&mut admin, "CREATE DATABASE app");
    // These would hide from the worker what others do, end its transactions, or have them wait.
    run_sql(
        &mut admin,
        "ALTER DATABASE app SET role = limited; ALTER DATABASE app SET synchronous_commit = remote_apply",
    );
    if server.major() >= 17 {
        run_sql(&mut admin, "ALTER DATABASE app SET transaction_timeout = '1ms'");
    }
    let options = if server.major() >= 17 {
        "-c role=postgres -c transaction_timeout=0"
    } else {
        "-c role=postgres"
    };
    let session =
        || server.config("app").options(options).connect(postgres::NoTls).expect("a connection");
    let (mut client, mut open) = (session(), session());
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    serve(&server, "app");
    assert_served(&mut client);
    run_sql(&mut open, "BEGIN; SELECT count(*) FROM exa_billing.accounts");
    run_sql(
        &mut client,
        "SELECT exa_billing.grant_credit('user', 'later', 5, clock_timestamp() + interval '50 ms')",
    );
    wait_until("it is due", || {
        let due = "SELECT next_credit_expiration_at < clock_timestamp() FROM exa_billing.accounts
                   WHERE owner_id = 'later'";
        one::<bool>(&mut client, due, &[])
    });
    // Of before that transaction, so this one is closed.
    run_sql(
        &mut client,
        "SELECT exa_billing.grant_credit('user', 'earlier', 5, now() - interval '1 hour', created_at => now() - interval '2 hours')",
    );
    let expired = "SELECT owner_id FROM exa_billing.credit_transactions
                   WHERE original_transaction_id IS NOT NULL ORDER BY 1";
    wait_until("the earlier one is closed", || {
        texts(&mut client, expired).contains(&"earlier".to_owned())
    });
    assert_eq!(texts(&mut client, expired), ["earlier"]);
    run_sql(&mut open, "COMMIT");
    wait_until("the later one is closed", || texts(&mut client, expired) == ["earlier", "later"]);
}
