//! Prometheus: the real postgres_exporter, as an auditor, with the queries that are shipped.

mod books_common;
mod common;
mod health_common;

use common::{Database, one, run_sql, wait_until};
use health_common::*;
use postgres::Client;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

const QUERIES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/prometheus/exa_billing.yaml");
const YAML: &str = include_str!("../docs/prometheus/exa_billing.yaml");
const ALERTS: &str = include_str!("../docs/prometheus/alerts.yaml");

/// A running exporter; ended when it is dropped.
struct Exporter {
    process: Child,
    port: u16,
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Exporter {
    /// For one database, only with our queries.
    fn start(db: &Database, role: &str, messages: Stdio) -> Self {
        let program = std::env::var("EXA_BILLING_EXPORTER").unwrap_or_default();
        assert!(!program.is_empty(), "EXA_BILLING_EXPORTER does not name postgres_exporter");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = common::Server::shared();
        let source = format!(
            "host={} port={} user={role} dbname={} sslmode=disable",
            server.host(),
            server.port(),
            db.name()
        );
        let process = Command::new(program)
            .args(["--disable-default-metrics", "--disable-settings-metrics"])
            .args(["--no-collector.database", "--no-collector.bgwriter"])
            .arg(format!("--extend.query-path={QUERIES}"))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn")
            .env("DATA_SOURCE_NAME", source)
            .stdin(Stdio::null())
            .stderr(messages)
            .spawn()
            .expect("postgres_exporter");
        let exporter = Self { process, port };
        wait_until("the exporter listens", || {
            TcpStream::connect(("127.0.0.1", exporter.port)).is_ok()
        });
        exporter
    }

    /// What it tells of us and of its own work: each value by name and labels.
    fn metrics(&self) -> BTreeMap<String, f64> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the exporter");
        let request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
        let told =
            |line: &&str| line.starts_with("exa_billing_") || line.starts_with("pg_exporter_");
        answer
            .lines()
            .filter(told)
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').expect("a value");
                (without_server(name), value.parse().expect("a number"))
            })
            .collect()
    }
}

/// The label of the server is the exporter's own and differs from run to run.
fn without_server(name: &str) -> String {
    let Some((metric, labels)) = name.split_once('{') else { return name.to_owned() };
    let labels = labels.trim_end_matches('}');
    let ours: Vec<&str> = labels.split("\",").map(|label| label.trim_end_matches('"')).collect();
    let ours: Vec<&str> = ours.into_iter().filter(|label| !label.starts_with("server=")).collect();
    if ours.is_empty() { metric.to_owned() } else { format!("{metric}{{{}\"}}", ours.join("\",")) }
}

/// Each query of the file with its columns that are no labels.
fn queries() -> Vec<(String, Vec<String>)> {
    let mut queries: Vec<(String, Vec<String>)> = Vec::new();
    let lines: Vec<&str> = YAML.lines().collect();
    for (place, line) in lines.iter().enumerate() {
        if let Some(name) = line.strip_suffix(':').filter(|name| !name.starts_with([' ', '#'])) {
            queries.push((name.to_owned(), Vec::new()));
        } else if let Some(column) = line.strip_prefix("    - ")
            && !lines[place + 1].contains("LABEL")
        {
            let column = column.trim_end_matches(':').to_owned();
            queries.last_mut().expect("a query").1.push(column);
        }
    }
    queries
}

fn status(metrics: &BTreeMap<String, f64>, check: &str) -> Option<f64> {
    metrics.get(&format!("exa_billing_health_status{{check_name=\"{check}\"}}")).copied()
}

fn assert_no_errors(metrics: &BTreeMap<String, f64>) {
    assert_eq!(metrics.get("pg_exporter_last_scrape_error"), Some(&0.0), "{metrics:?}");
    let failed = |(name, value): &(&String, &f64)| name.contains("load_error") && **value != 0.0;
    assert_eq!(metrics.iter().find(failed), None);
}

/// What the exporter tells of each job is what the view says.
fn assert_jobs(client: &mut Client, metrics: &BTreeMap<String, f64>) {
    let jobs = "SELECT job_name, run_count::float8, row_count::float8, failures_in_a_row::float8
                FROM exa_billing.worker_jobs";
    let jobs = client.query(jobs, &[]).unwrap();
    assert_eq!(jobs.len(), 8);
    for job in jobs {
        let name: String = job.get(0);
        let told = |metric: &str| {
            let key = format!("exa_billing_job_{metric}{{job_name=\"{name}\"}}");
            metrics.get(&key).copied().unwrap_or_else(|| panic!("{key}: {metrics:?}"))
        };
        assert_eq!(
            [told("runs_total"), told("rows_total"), told("failures_in_a_row")],
            [job.get::<_, f64>(1), job.get(2), job.get(3)],
            "{name}"
        );
        assert!((0.0..600.0).contains(&told("started_seconds_ago")), "{name}");
    }
}

#[test]
fn the_exporter_tells_what_health_and_the_jobs_say() {
    let (db, mut client) = well();
    let role = format!("exporter_{}", db.name());
    run_sql(
        &mut client,
        &format!("CREATE ROLE {role} LOGIN; SELECT exa_billing.grant_auditor('{role}')"),
    );
    let exporter = Exporter::start(&db, &role, Stdio::inherit());
    let well = exporter.metrics();
    assert_no_errors(&well);
    let checks: i64 = one(&mut client, "SELECT count(*) FROM exa_billing.health", &[]);
    let told = well.keys().filter(|name| name.starts_with("exa_billing_health_status{")).count();
    assert_eq!(i64::try_from(told).unwrap(), checks);
    let names = "SELECT name FROM exa_billing.health";
    for name in books_common::texts(&mut client, names) {
        assert_eq!(status(&well, &name), Some(0.0), "{name}");
    }
    assert_jobs(&mut client, &well);

    // One critical, one a warning, with the figure they were decided by.
    run_sql(
        &mut client,
        "SELECT exa_billing.record_exa_usage('u', '/search', 5);
         UPDATE exa_billing.unposted_spend SET blocked_reason = 'out of range';
         SELECT exa_billing.record_degraded_interval(date_trunc('hour', now(), 'UTC') - interval '2 hours',
             date_trunc('hour', now(), 'UTC'), 'restored')",
    );
    let unwell = exporter.metrics();
    assert_no_errors(&unwell);
    assert_eq!(status(&unwell, "blocked rows"), Some(2.0));
    assert_eq!(unwell.get("exa_billing_health_figure{check_name=\"blocked rows\"}"), Some(&1.0));
    assert_eq!(status(&unwell, "coverage"), Some(1.0));
    let without = unwell.get("exa_billing_health_figure{check_name=\"clone guard\"}");
    assert!(without.is_some_and(|figure| figure.is_nan()), "{without:?}");
    let others = unwell
        .iter()
        .filter(|(name, value)| name.starts_with("exa_billing_health_status{") && **value > 0.0);
    assert_eq!(others.count(), 2);
    run_maintenance(&mut client);
    assert_jobs(&mut client, &exporter.metrics());

    let text = include_str!("../docs/HEALTH.md");
    for (query, columns) in queries() {
        assert!(!columns.is_empty(), "{query}");
        for column in columns {
            let metric = format!("{query}_{column}{{");
            assert!(well.keys().any(|name| name.starts_with(&metric)), "{metric}: {well:?}");
            assert!(
                text.contains(&format!("`{query}_{column}`")),
                "{query}_{column} is not in docs/HEALTH.md"
            );
        }
    }
    drop(exporter);
    run_sql(&mut client, &format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

/// A query that does not work is told by the exporter as an error of the scrape.
#[test]
fn a_role_without_rights_is_an_error_of_the_scrape() {
    let (db, mut client) = well();
    let role = format!("exporter_{}", db.name());
    run_sql(&mut client, &format!("CREATE ROLE {role} LOGIN"));
    let exporter = Exporter::start(&db, &role, Stdio::null());
    let metrics = exporter.metrics();
    assert_eq!(metrics.get("pg_exporter_last_scrape_error"), Some(&1.0), "{metrics:?}");
    assert!(!metrics.keys().any(|name| name.starts_with("exa_billing_")), "{metrics:?}");
    drop(exporter);
    run_sql(&mut client, &format!("DROP ROLE {role}"));
}

/// Whatever the example alerts ask for is exported.
#[test]
fn the_example_alerts_use_metrics_that_are_exported() {
    let known: Vec<String> = queries()
        .into_iter()
        .flat_map(|(query, columns)| {
            columns.into_iter().map(move |column| format!("{query}_{column}"))
        })
        .chain(["pg_exporter_last_scrape_error".to_owned()])
        .collect();
    let is_name = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut used = 0;
    for expression in ALERTS.lines().filter_map(|line| line.trim().strip_prefix("expr: ")) {
        for word in expression.split(|character| !is_name(character)) {
            if word.starts_with("exa_billing") || word.starts_with("pg_exporter") {
                assert!(known.iter().any(|name| name == word), "{word}");
                used += 1;
            }
        }
    }
    assert!(used >= 4, "{used}");
}
