//! Servers with a worker, and what is asked of it in all tests.
#![allow(dead_code)] // each test program uses a part of it

use crate::books_common::assert_no_violations;
use crate::common::{Server, one, run_sql, wait_until};
use postgres::Client;
use std::fs;

pub const CHARGE: &str =
    "SELECT exa_billing.record_exa_usage('u', '/search', 500, idempotency_key => $1)";

/// A server that serves database `app`, which has the extension and no books yet.
pub fn serving_app(name: &str) -> (Server, Client) {
    let server = Server::start(name, &[]);
    let client = create(&server, "app");
    serve(&server, "app");
    (server, client)
}

pub fn serve(server: &Server, databases: &str) {
    server.set_conf(&[("exa_billing.databases", databases)]);
    server.reload();
}

pub fn create(server: &Server, database: &str) -> Client {
    run_sql(&mut server.client("postgres"), &format!("CREATE DATABASE \"{database}\""));
    let mut client = server.client(database);
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    client
}

/// Charges some requests beyond the allowance and waits until the worker has posted all of them.
#[track_caller]
pub fn assert_served(client: &mut Client) {
    let used = "SELECT coalesce(sum(total_cost_microdollars), 0)::bigint FROM exa_billing.";
    run_sql(client, "SELECT exa_billing.start_worker()");
    run_sql(client, "SELECT exa_billing.set_free_allowance(600, '2020-01-01')");
    let before: i64 = one(client, &format!("{used}exa_monthly_usage_current"), &[]);
    for _ in 0..3 {
        run_sql(client, &CHARGE.replace("$1", "gen_random_uuid()::text"));
    }
    wait_until("the charges are posted", || {
        one::<i64>(client, &format!("{used}exa_monthly_usage"), &[]) == before + 1500
    });
    assert_eq!(queue(client), 0);
    assert_no_violations(client);
}

pub fn queue(client: &mut Client) -> i64 {
    one(client, "SELECT count(*) FROM exa_billing.unposted_spend", &[])
}

/// The process ids of the workers of one database.
pub fn workers(client: &mut Client, database: &str) -> Vec<i32> {
    client
        .query(
            "SELECT pid FROM pg_stat_activity
             WHERE backend_type = 'exa_billing worker' AND datname = $1",
            &[&database],
        )
        .expect("pg_stat_activity")
        .iter()
        .map(|row| row.get(0))
        .collect()
}

/// The launcher's process id. It is connected to no database, so it is looked for among the
/// server's processes.
pub fn launcher(server: &Server) -> Option<i32> {
    let pid_file = fs::read_to_string(server.data().join("postmaster.pid")).ok()?;
    let parent = format!("PPid:\t{}\n", pid_file.lines().next()?);
    let is_launcher = |pid: &i32| {
        let read = |what| fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default();
        read("status").contains(&parent) && read("cmdline").contains("exa_billing launcher")
    };
    let all = fs::read_dir("/proc").expect("/proc");
    let mut pids = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.find(is_launcher)
}

/// The only worker of a database, once it runs.
#[track_caller]
pub fn wait_for_worker(client: &mut Client, database: &str) -> i32 {
    wait_until("one worker runs", || workers(client, database).len() == 1);
    workers(client, database)[0]
}

/// Another worker than before, and no other.
#[track_caller]
pub fn wait_for_another_worker(client: &mut Client, database: &str, before: i32) -> i32 {
    wait_until("another worker runs", || {
        let now = workers(client, database);
        now.len() == 1 && now[0] != before
    });
    workers(client, database)[0]
}

pub fn is_running(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    state.is_some_and(|state| state != "Z" && state != "X")
}

pub fn count_in_log(server: &Server, words: &str) -> usize {
    server.log().matches(words).count()
}

/// What worker_jobs says of a job: failures in a row, and the last error.
pub fn job(client: &mut Client, name: &str) -> Option<(i64, Option<String>)> {
    let sql =
        "SELECT failures_in_a_row, last_error FROM exa_billing.worker_jobs WHERE job_name = $1";
    let row = client.query_opt(sql, &[&name]).expect("worker_jobs")?;
    Some((row.get(0), row.get(1)))
}
