//! The worker's memory does not grow with the rounds of its jobs, nor does what it writes about them.

mod books_common;
mod common;
mod worker_common;

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use books_common::assert_no_violations;
use common::{Server, one, run_sql, wait_until};
use postgres::Client;
use worker_common::*;

/// Memory of a process that is its own, in kilobytes: what Rust has too.
fn own_kilobytes(pid: i32) -> i64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
    line.split_whitespace().nth(1).expect("a figure").parse().expect("a number")
}

/// All of PostgreSQL's memory contexts of a process, in bytes, as it says itself.
fn context_bytes(server: &Server, client: &mut Client, pid: i32) -> i64 {
    let from = server.log().len();
    run_sql(client, &format!("SELECT pg_log_backend_memory_contexts({pid})"));
    let total = || {
        let log = server.log();
        let line = log[from..].lines().find(|line| line.contains("Grand total: "))?.to_owned();
        line.split("Grand total: ").nth(1)?.split(' ').next()?.parse().ok()
    };
    wait_until("it has told", || total().is_some());
    total().expect("a number")
}

/// Owners with a past, so that proofs of the books take as much at the beginning as later.
fn owners(client: &mut Client) {
    run_sql(
        client,
        "SELECT exa_billing.set_free_allowance(0, '2020-01-01');
         SELECT exa_billing.grant_credit('user', 'u' || n, 1000000000) FROM generate_series(1, 3) AS n;
         SELECT exa_billing.update_spend_alert_settings('user', 'u' || n,
                    '{\"spend_alerts_enabled\": true, \"threshold_24h_usd\": \"1\"}', 'u' || n)
         FROM generate_series(1, 3) AS n;
         SELECT exa_billing.record_exa_usage('u' || 1 + n % 3, '/search', 7) FROM generate_series(1, 4000) AS n;
         SELECT exa_billing.start_worker()",
    );
}

fn charge(client: &mut Client, round: i64) {
    let user = 1 + round % 3;
    run_sql(client, &format!("SELECT exa_billing.record_exa_usage('u{user}', '/search', 7)"));
}

/// Charges until the worker has made so many transactions; each is a step of a job.
fn work(client: &mut Client, steps: i64) {
    let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let before: i64 = one(client, commits, &[]);
    let mut mine = 0;
    loop {
        for round in 0..10 {
            charge(client, mine + round);
            thread::sleep(Duration::from_millis(20));
        }
        // Preparing the query below is one too.
        mine += 12;
        let now: i64 = one(client, commits, &[]);
        if now - before - mine >= steps {
            return;
        }
    }
}

/// A worker that leaves something behind in each round grows in each of these parts.
const PARTS: usize = 4;
const ROUNDS: i64 = 5_000;

/// What is made once takes its place once: a plan made anew after autovacuum has looked at a table, the
/// descriptions of all partitions when the first proof of the books reads them. One part may even shrink
/// by it. So it is the second least of the growths that tells.
fn growth_in_most_parts(sizes: &[i64]) -> i64 {
    let mut growths: Vec<i64> = sizes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    growths.sort_unstable();
    growths[1]
}

#[test]
fn twenty_thousand_rounds_take_no_more_memory_than_a_thousand() {
    let server = Server::start(
        "memory",
        &[("exa_billing.posting_interval", "1ms"), ("exa_billing.evaluation_delay", "0")],
    );
    let mut app = create(&server, "app");
    owners(&mut app);
    let began = Instant::now();
    serve(&server, "app");
    let worker = wait_for_worker(&mut app, "app");
    let (mut contexts, mut own) = (Vec::new(), Vec::new());
    for part in 0..=PARTS {
        work(&mut app, if part == 0 { 1_000 } else { ROUNDS });
        contexts.push(context_bytes(&server, &mut app, worker));
        own.push(own_kilobytes(worker));
    }
    // The least that a round can leave behind takes 24 bytes.
    assert!(growth_in_most_parts(&contexts) <= ROUNDS * 5, "bytes of contexts: {contexts:?}");
    // And what the C library keeps of the most that a proof of the books has taken meanwhile.
    assert!(growth_in_most_parts(&own) <= 256, "kB of its own: {own:?}");
    // What is made once has an end too.
    assert!(own[PARTS] <= own[0] + 8 * 1024, "kB of its own: {own:?}");

    // One row per job and minute says what happened in them.
    let written = "SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables
                   WHERE schemaname = 'exa_billing' AND relname = 'job_runs'";
    let minutes = 1 + i64::try_from(began.elapsed().as_secs() / 60).expect("a number");
    let written: i64 = one(&mut app, written, &[]);
    assert!((8..=8 * minutes).contains(&written), "{written} rows in {minutes} minutes");
    wait_until("all is posted", || queue(&mut app) == 0);
    assert_no_violations(&mut app);
}
