//! No room left on the disk of the books.

use crate::common::{DbErrorSummary, Server, error_of, one, run_sql, wait_until};
use crate::proof_common::figure;
use crate::small_disk::SmallDisk;
use crate::usage_common::{assert_books_hold, assert_unchanged, column, state};
use crate::worker_common::{queue, serve, wait_for_worker};
use postgres::Client;

const MEGABYTES: u32 = 320;

struct Scene {
    client: Client,
    server: Server,
    // Dropped last.
    disk: SmallDisk,
}

/// A server with database `app` on a small disk; its log and everybody else are elsewhere.
fn scene() -> Option<Scene> {
    let server = Server::start("full-disk", &[("autovacuum", "off")]);
    let disk = SmallDisk::mount(&server, "small", MEGABYTES)?;
    let mut admin = server.client("postgres");
    run_sql(&mut admin, &format!("CREATE TABLESPACE small LOCATION '{}'", disk.dir.display()));
    run_sql(&mut admin, "CREATE DATABASE app TABLESPACE small");
    let client = server.client("app");
    Some(Scene { client, server, disk })
}

impl Scene {
    /// The error of a statement that finds the disk full on its way.
    #[track_caller]
    fn refused(&mut self, sql: &str) -> DbErrorSummary {
        let error = error_of(&mut self.client, sql);
        assert_eq!(error.code, "53100", "{sql}\n{error:?}");
        assert!(error.message.contains("No space left on device"), "{error:?}");
        error
    }

    /// Refused with nothing written while the disk is full; done when it is not.
    #[track_caller]
    fn all_or_nothing(&mut self, sql: &str) {
        self.disk.fill();
        let before = state(&mut self.client);
        self.refused(sql);
        assert_unchanged(&mut self.client, &before, sql);
        self.disk.free();
        run_sql(&mut self.client, sql);
        assert_books_hold(&mut self.client);
    }

    fn ledger_is_intact(&mut self) {
        assert_books_hold(&mut self.client);
        assert_eq!(queue(&mut self.client), 0);
    }
}

const ROWS: u32 = 1000;

/// More rows than any free page has room for.
fn many(call: &str) -> String {
    format!("SELECT count({call}) FROM generate_series(1, {ROWS}) AS n")
}

const MAP: &str = "'{\"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}'";

/// What one call or one transaction does is done or not.
fn single_calls(scene: &mut Scene) -> usize {
    let calls = [
        "SELECT exa_billing.setup()".to_owned(),
        many("exa_billing.record_exa_usage('u' || n % 200, '/search', 10, NULL, 'k' || n)"),
        "SELECT count(*) FROM exa_billing.record_exa_usage_batch((SELECT jsonb_agg(jsonb_build_object('user_id', 'b' || n % 50,
             'path', '/search', 'cost_microdollars', n, 'idempotency_key', 'k' || n)) FROM generate_series(1, 1000) AS n))"
            .to_owned(),
        many("exa_billing.record_spend('user', 's' || n % 200, 10, 'variable', 'kiloclaw', 'p' || n)"),
        // The queue has thousands of owners by now, most of them without an account.
        "SELECT exa_billing.post_spend(1000000) FROM generate_series(1, 3)".to_owned(),
        format!(
            "SELECT count(exa_billing.grant_credit('user', 'g' || n % 200, 10, now() - interval '1 second',
                 created_at => now() - interval '1 hour')) FROM generate_series(1, {ROWS}) AS n"
        ),
        "SELECT exa_billing.expire_due_credits(max_owners => 100000)".to_owned(),
        format!(
            "CREATE TABLE public.llm (id bigint PRIMARY KEY, who text, cost bigint, at timestamptz);
             INSERT INTO public.llm SELECT n, 'l' || n % 200, 5, now() - interval '1 hour' FROM generate_series(1, {ROWS}) AS n"
        ),
        format!("SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'other', {MAP}, true)"),
        format!("INSERT INTO public.llm SELECT -n, 'l' || n % 200, 5, now() FROM generate_series(1, {ROWS}) AS n"),
        "SELECT exa_billing.detach_spend_source('llm')".to_owned(),
        "SELECT count(exa_billing.import_opening_balance('user', 'i' || n, 50, 20, now(), 'o' || n))
             FROM generate_series(1, 300) AS n".to_owned(),
    ];
    for call in &calls {
        scene.all_or_nothing(call);
    }
    calls.len()
}

/// A call that commits on the way: what is done by then stays and is right, the next one does the rest.
fn in_steps(scene: &mut Scene, damage: &str, call: &str, wrong: &str) {
    run_sql(&mut scene.client, damage);
    let damaged: i64 = one(&mut scene.client, wrong, &[]);
    assert!(damaged > 500, "{damaged}: {wrong}");
    scene.disk.fill();
    scene.refused(call);
    scene.disk.free();
    let left: i64 = one(&mut scene.client, wrong, &[]);
    assert!(0 < left && left <= damaged, "{left} of {damaged} left: {call}");
    run_sql(&mut scene.client, call);
    assert_eq!(one::<i64>(&mut scene.client, wrong, &[]), 0, "{call}");
    assert_books_hold(&mut scene.client);
}

fn procedures(scene: &mut Scene) {
    run_sql(&mut scene.client, "SELECT exa_billing.post_spend(1000000) FROM generate_series(1, 3)");
    scene.ledger_is_intact();
    in_steps(
        scene,
        "UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + 1",
        "CALL exa_billing.recompute_all_balances(false)",
        "SELECT count(*) FROM exa_billing.verify_books() WHERE invariant = 'I3'",
    );
    in_steps(
        scene,
        "DELETE FROM exa_billing.spend_hourly_totals; DELETE FROM exa_billing.spend_daily_totals;
         DELETE FROM exa_billing.spend_hourly_drivers",
        "CALL exa_billing.backfill_rollups(date_trunc('hour', now(), 'UTC') - interval '3 hours',
             date_trunc('hour', now(), 'UTC') + interval '1 hour', false)",
        "SELECT count(*) FROM exa_billing.verify_books() WHERE invariant = 'I5'",
    );
}

/// One month that cannot be made stops no other, and is there after the next call.
fn partitions(scene: &mut Scene) {
    let months = "SELECT count(*) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhparent
                  WHERE c.relname IN ('exa_usage_log', 'spend_log') AND c.relkind = 'p'";
    let before: i64 = one(&mut scene.client, months, &[]);
    scene.disk.fill();
    let errors: Vec<String> = column(
        &mut scene.client,
        "SELECT error FROM exa_billing.maintain_partitions(30) WHERE error IS NOT NULL",
    );
    assert!(errors.iter().all(|error| error.contains("No space left on device")), "{errors:?}");
    let made = one::<i64>(&mut scene.client, months, &[]) - before;
    assert!(
        !errors.is_empty() && usize::try_from(made).unwrap() + errors.len() == 36,
        "{errors:?}"
    );
    scene.disk.free();
    let failed = "SELECT count(*) FROM exa_billing.maintain_partitions(30) WHERE error IS NOT NULL";
    assert_eq!(one::<i64>(&mut scene.client, failed, &[]), 0);
    assert_eq!(one::<i64>(&mut scene.client, months, &[]), before + 36);
    assert_books_hold(&mut scene.client);
}

/// The worker says what is amiss, stays, and posts when there is room.
fn worker(scene: &mut Scene) {
    serve(&scene.server, "app");
    let worker = wait_for_worker(&mut scene.client, "app");
    // Enough for several batches; nobody has told it to begin yet.
    run_sql(
        &mut scene.client,
        &many(
            "exa_billing.record_spend('organization', 'w' || n % 200, 10, 'scheduled', 'other', 'p')",
        ),
    );
    run_sql(&mut scene.client, "SELECT exa_billing.start_worker()");
    scene.disk.fill();
    let told = "exa_billing could not post spend: could not extend file";
    wait_until("the worker finds no room", || scene.server.log().contains(told));
    assert!(queue(&mut scene.client) > 0);
    assert_books_hold(&mut scene.client);
    scene.disk.free();
    wait_until("it posts again", || queue(&mut scene.client) == 0);
    assert_eq!(wait_for_worker(&mut scene.client, "app"), worker);
    assert_books_hold(&mut scene.client);
}

pub fn stops_everything_in_the_middle_and_nothing_is_half_done() {
    let Some(mut scene) = scene() else {
        return crate::file_limit::stops_charging_in_the_middle();
    };
    run_sql(&mut scene.client, "CREATE EXTENSION exa_billing");
    let calls = single_calls(&mut scene);
    procedures(&mut scene);
    partitions(&mut scene);
    worker(&mut scene);
    figure(
        "faults",
        &format!(
            "a full disk (a tmpfs of {MEGABYTES} MB): {calls} single calls, two procedures, partitions and the worker"
        ),
    );
}
