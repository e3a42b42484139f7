//! Looking at background work: signs of life in shared memory, the log of jobs, the clone guard.

use super::finding::Finding;
use super::worker_rules::{self, Listed, Ran, Start, Work};
use crate::error::Result;
use crate::guc;
use crate::jobs::{self, Job, Pace};
use crate::registration::{self, Standing};
use crate::spi::{self, Statement, values};
use crate::time::Instant;
use pgrx::pg_sys::Oid;
use std::collections::BTreeMap;

static RUNS: Statement = Statement::kept(
    "SELECT job_name, last_started_at, failures_in_a_row, last_error FROM exa_billing.job_runs",
);
static LAST_RUN: Statement =
    Statement::kept("SELECT max(last_started_at) FROM exa_billing.job_runs");
static THIS_DATABASE: Statement = Statement::kept("SELECT current_database()::text");
static DATABASES: Statement = Statement::kept(
    "SELECT datname::text, oid FROM pg_catalog.pg_database WHERE datname::text = ANY ($1)",
);

pub fn clone_guard(_now: Instant) -> Result<Finding> {
    let start = match registration::standing()? {
        Standing::Started => Start::Here,
        Standing::NotStarted => Start::Never,
        Standing::Copy => Start::Elsewhere,
    };
    Ok(worker_rules::clone_guard(start))
}

fn pause_seconds() -> i64 {
    i64::try_from(guc::posting_interval().as_secs()).unwrap_or(i64::MAX)
}

fn last_beat(database: Oid) -> Option<Instant> {
    jobs::last_beats().into_iter().find(|beat| beat.is_of(database)).map(|beat| beat.at())
}

pub fn worker(now: Instant) -> Result<Finding> {
    let name = THIS_DATABASE.read_row(&[], |row| row.get::<String>(1))?;
    let (_, database) = spi::server_and_database();
    let work = Work {
        is_standby: spi::in_recovery(),
        is_preloaded: jobs::is_preloaded(),
        is_listed: name.is_some_and(|name| guc::databases().contains(&name)),
        last_beat: last_beat(database),
        last_run: LAST_RUN.read_row(&[], |row| row.maybe::<Instant>(1))?.flatten(),
        pause_seconds: pause_seconds(),
    };
    Ok(worker_rules::worker(work, now))
}

/// One finding per job.
pub fn jobs(now: Instant) -> Result<Vec<(Job, Finding)>> {
    let runs: BTreeMap<String, Ran> = RUNS
        .read(&[], |row| {
            let ran =
                Ran { at: row.maybe(2)?, failures_in_a_row: row.get(3)?, error: row.maybe(4)? };
            Ok((row.get::<String>(1)?, ran))
        })?
        .into_iter()
        .collect();
    let finding = |job: Job| worker_rules::job(runs.get(job.name()), every_seconds(job), now);
    Ok(Job::ALL.into_iter().map(|job| (job, finding(job))).collect())
}

fn every_seconds(job: Job) -> i64 {
    match job.pace() {
        Pace::Every(pause) => i64::try_from(pause.as_secs()).unwrap_or(i64::MAX),
        Pace::Hourly => 3_600,
    }
}

pub fn databases(now: Instant) -> Result<Finding> {
    let names = guc::databases();
    let wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    let present: BTreeMap<String, Oid> = DATABASES
        .read(values![wanted], |row| Ok((row.get(1)?, row.get(2)?)))?
        .into_iter()
        .collect();
    let listed: Vec<Listed> = names
        .into_iter()
        .map(|name| {
            let oid = present.get(&name).copied();
            Listed { exists: oid.is_some(), last_beat: oid.and_then(last_beat), name }
        })
        .collect();
    let (is_standby, is_preloaded) = (spi::in_recovery(), jobs::is_preloaded());
    Ok(worker_rules::databases(&listed, is_standby, is_preloaded, pause_seconds(), now))
}
