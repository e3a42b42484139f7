//! Without the worker: pg_cron, or a timer, does all jobs, by the very lines of README.md.

mod books_common;
mod common;
mod health_common;

use books_common::{assert_no_violations, texts};
use common::{PATIENCE, Server, one, run_sql};
use health_common::*;
use postgres::Client;
use std::time::Instant;

/// The fenced blocks of the section about doing without the worker: language and text.
fn blocks() -> Vec<(String, String)> {
    let section = include_str!("../README.md")
        .split("\n## ")
        .find(|section| section.starts_with("Without the background worker"))
        .expect("the section of README.md");
    let fenced = section.split("```").skip(1).step_by(2);
    fenced
        .map(|block| {
            let (language, text) = block.split_once('\n').expect("a block of lines");
            (language.to_owned(), text.to_owned())
        })
        .collect()
}

fn block(language: &str, has: &str) -> String {
    let found: Vec<String> = blocks()
        .into_iter()
        .filter_map(|(of, text)| (of == language && text.contains(has)).then_some(text))
        .collect();
    assert_eq!(found.len(), 1, "{language} blocks with {has}");
    found[0].clone()
}

/// `name = 'value' # why`
fn settings(lines: &str) -> Vec<(&str, &str)> {
    let without_comment = |line: &'_ str| line.split('#').next().unwrap_or_default().len();
    lines
        .lines()
        .map(|line| {
            let setting = &line[..without_comment(line)];
            let (name, value) = setting.split_once('=').expect("a setting");
            (name.trim(), value.trim().trim_matches('\''))
        })
        .collect()
}

/// The statements of a block, as psql would send them: one by one.
fn run_each(client: &mut Client, block: &str) {
    let lines: Vec<&str> = block.lines().map(|line| line.split("--").next().unwrap()).collect();
    for statement in lines.join("\n").split(';').filter(|text| !text.trim().is_empty()) {
        run_sql(client, statement);
    }
}

/// Something for every job to do.
fn leave_work(client: &mut Client) {
    for statement in [
        "SELECT exa_billing.grant_credit('user', 'u', 5000)",
        "SELECT exa_billing.grant_credit('user', 'late', 700, now() + interval '10 milliseconds')",
        "SELECT exa_billing.record_exa_usage('u', '/search', 12000000)",
        "INSERT INTO exa_billing.evaluation_queue
             VALUES ('user', 'u', gen_random_uuid(), now() - interval '2 hours', 0, NULL)",
        "SELECT set_config('tests.partition',
             'spend_log_' || to_char(now() AT TIME ZONE 'UTC' + interval '7 months', 'YYYY_MM'), false)",
        "DO $$ BEGIN EXECUTE format('DROP TABLE exa_billing.%I', current_setting('tests.partition')); END $$",
        "INSERT INTO exa_billing.cost_insight_events
             (event_id, owner_kind, owner_id, event_type, snapshot, occurred_at, recorded_at)
             VALUES (gen_random_uuid(), 'user', 'u', 'config_changed', '{}',
                     now() - interval '1 year', now())",
    ] {
        run_sql(client, statement);
    }
}

/// The jobs that have not done yet what was left to them.
const LEFT: &str = "SELECT concat_ws(', ',
    CASE WHEN EXISTS (SELECT FROM exa_billing.unposted_spend) THEN 'post' END,
    CASE WHEN NOT EXISTS (SELECT FROM exa_billing.credit_transactions
                          WHERE owner_id = 'late' AND amount_microdollars < 0) THEN 'expire' END,
    CASE WHEN EXISTS (SELECT FROM exa_billing.evaluation_queue
                      WHERE due_at < now() - interval '1 hour') THEN 'evaluate' END,
    CASE WHEN to_regclass('exa_billing.' || current_setting('tests.partition')) IS NULL
         THEN 'maintain' END,
    CASE WHEN EXISTS (SELECT FROM exa_billing.cost_insight_events
                      WHERE occurred_at < now() - interval '100 days') THEN 'retain' END,
    CASE WHEN NOT EXISTS (SELECT FROM exa_billing.books_proof WHERE finished_at IS NOT NULL)
         THEN 'prove' END)";

const JOBS: i64 = 8;
/// Without the seconds in which a charge from before an expiry may still arrive.
const NO_GRACE: &str = "ALTER ROLE exa_billing_cron SET exa_billing.expiration_grace = 0";

#[test]
fn pg_cron_does_all_jobs_by_the_lines_of_the_readme() {
    if Server::shared().major() != 15 {
        return; // Debian 12 has pg_cron for its own PostgreSQL, which is 15
    }
    let server = Server::start("cron", &[("shared_preload_libraries", "")]);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    server.set_conf(&settings(&block("ini", "pg_cron")));
    server.stop("fast");
    server.start_again();
    let mut client = server.client("app");
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    let preloaded = "SELECT current_setting('shared_preload_libraries')";
    assert_eq!(one::<String>(&mut client, preloaded, &[]), "pg_cron");
    leave_work(&mut client);
    run_each(&mut client, &block("sql", "start_worker"));
    run_sql(&mut client, NO_GRACE);
    let worker = check(&mut client, "worker");
    assert!(worker.is("critical") && worker.figure == "nothing has ever run", "{worker:?}");
    run_each(&mut client, &block("sql", "CREATE EXTENSION pg_cron"));

    // The turn of a minute may be as long away as anything else may take.
    let runs = "SELECT count(*) FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')";
    let began = Instant::now();
    while one::<i64>(&mut client, runs, &[]) == 0 {
        assert!(began.elapsed() < 2 * PATIENCE, "pg_cron has not run anything");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let told = "SELECT concat_ws(', ', username, status, return_message) FROM cron.job_run_details
                ORDER BY runid LIMIT 1";
    assert_eq!(texts(&mut client, told), ["exa_billing_cron, succeeded, CALL"]);
    assert_eq!(one::<String>(&mut client, LEFT, &[]), "", "what the jobs have left undone");
    let jobs = "SELECT count(*) FROM exa_billing.worker_jobs
                WHERE run_count > 0 AND failures_in_a_row = 0 AND last_error IS NULL
                  AND last_started_at <= last_ended_at AND last_ended_at > now() - interval '5 minutes'";
    assert_eq!(one::<i64>(&mut client, jobs, &[]), JOBS);
    assert_eq!(unwell(&mut client), [""; 0]);
    let worker = check(&mut client, "worker");
    assert!(worker.figure.ends_with(" s since the last run of a job"), "{worker:?}");
    assert_no_violations(&mut client);
}

/// What systemd or cron would start.
#[test]
fn a_timer_does_all_jobs_by_the_line_of_the_readme() {
    let server = Server::start("timer", &[("shared_preload_libraries", "")]);
    run_sql(&mut server.client("postgres"), "CREATE DATABASE app");
    let mut client = server.client("app");
    run_sql(&mut client, "CREATE EXTENSION exa_billing");
    leave_work(&mut client);
    run_each(&mut client, &block("sql", "start_worker"));
    run_sql(&mut client, NO_GRACE);
    let service = block("ini", "ExecStart");
    let command = service.lines().find_map(|line| line.strip_prefix("ExecStart=psql ")).unwrap();
    let (options, statement) = command.split_once(" -c ").unwrap();
    let port = server.port().to_string();
    let mut arguments = vec!["-h", server.host(), "-p", &port];
    arguments.extend(options.split(' '));
    arguments.extend(["-v", "ON_ERROR_STOP=1", "-c", statement.trim_matches('\'')]);
    let output = server.run(server.bin("psql"), &arguments);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    assert_eq!(one::<String>(&mut client, LEFT, &[]), "", "what the jobs have left undone");
    assert_eq!(unwell(&mut client), [""; 0]);
    assert_no_violations(&mut client);
}
