//! What each job has done so far: kept in memory, written at most once a minute, and a little sooner when
//! a job has begun to fail or to succeed again.

use super::job::{Done, Job};
use crate::error::Result;
use crate::spi::{self, Statement, values};
use crate::time::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

const WRITTEN_EVERY: Duration = Duration::from_secs(60);
/// Also when a job fails every other time.
const WRITTEN_EVERY_AT_MOST: Duration = Duration::from_secs(5);
const MAX_ERROR_CHARS: usize = 500;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

static WRITE: Statement = Statement::kept(
    "INSERT INTO exa_billing.job_runs AS r
         (job_name, last_started_at, last_ended_at, last_error, last_error_at, failures_in_a_row,
          run_count, row_count)
     SELECT job_name, started_at, ended_at, error, error_at, failures, runs, rows
     FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS new(
         job_name, started_at, ended_at, error, error_at, failures, runs, rows)
     ON CONFLICT (job_name) DO UPDATE
     SET last_started_at = excluded.last_started_at,
         last_ended_at = coalesce(excluded.last_ended_at, r.last_ended_at),
         last_error = coalesce(excluded.last_error, r.last_error),
         last_error_at = coalesce(excluded.last_error_at, r.last_error_at),
         failures_in_a_row = excluded.failures_in_a_row
             + CASE WHEN excluded.last_ended_at IS NULL THEN r.failures_in_a_row ELSE 0 END,
         run_count = r.run_count + excluded.run_count, row_count = r.row_count + excluded.row_count",
);

/// A job's runs since they were written last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    pub started_at: Option<Instant>,
    pub ended_at: Option<Instant>,
    pub error: Option<(String, Instant)>,
    /// Since the last success, and of these the ones that were not written yet.
    pub failures_in_a_row: i64,
    unwritten_failures: i64,
    pub runs: i64,
    pub rows: i64,
}

impl Runs {
    /// How long the job is left alone: twice as long after each failure, up to a minute.
    pub fn pause(&self) -> Duration {
        let doublings = u32::try_from(self.failures_in_a_row - 1).unwrap_or_default().min(16);
        (FIRST_PAUSE * 2_u32.pow(doublings)).min(LONGEST_PAUSE)
    }
}

/// The runs of all jobs of this process.
pub struct Log {
    jobs: BTreeMap<Job, Runs>,
    /// When that was tried last: where it fails, the next try is as far away.
    written: Option<std::time::Instant>,
    is_urgent: bool,
}

impl Log {
    pub fn new() -> Self {
        Self { jobs: BTreeMap::new(), written: None, is_urgent: false }
    }

    pub fn succeeded(&mut self, job: Job, started_at: Instant, done: Done) {
        let runs = self.jobs.entry(job).or_default();
        self.is_urgent |= runs.failures_in_a_row > 0;
        runs.started_at = Some(started_at);
        runs.ended_at = Some(spi::clock());
        runs.failures_in_a_row = 0;
        runs.unwritten_failures = 0;
        runs.runs += 1;
        runs.rows += done.rows;
    }

    /// Returns for how long the job is to be left alone.
    pub fn failed(&mut self, job: Job, started_at: Instant, error: &str) -> Duration {
        let runs = self.jobs.entry(job).or_default();
        self.is_urgent |= runs.failures_in_a_row == 0;
        let shown = error.chars().take(MAX_ERROR_CHARS).collect();
        runs.started_at = Some(started_at);
        runs.error = Some((shown, spi::clock()));
        runs.failures_in_a_row += 1;
        runs.unwritten_failures += 1;
        runs.runs += 1;
        runs.pause()
    }

    pub fn is_due(&self) -> bool {
        let pause = if self.is_urgent { WRITTEN_EVERY_AT_MOST } else { WRITTEN_EVERY };
        !self.jobs.is_empty() && self.written.is_none_or(|written| written.elapsed() >= pause)
    }

    /// Writes what has not been written yet, in the caller's transaction; `end_writing` after it.
    pub fn write(&self) -> Result<()> {
        fn column<'a, T>(
            jobs: &'a BTreeMap<Job, Runs>,
            part: impl Fn(&'a Job, &'a Runs) -> T,
        ) -> Vec<T> {
            jobs.iter().map(|(job, runs)| part(job, runs)).collect()
        }
        let jobs = &self.jobs;
        let error = |runs: &'_ Runs| runs.error.as_ref().map(|(_, at)| *at);
        WRITE.execute(values![
            column(jobs, |job, _| job.name()),
            column(jobs, |_, runs| runs.started_at),
            column(jobs, |_, runs| runs.ended_at),
            column(jobs, |_, runs| runs.error.as_ref().map(|(error, _)| error.as_str())),
            column(jobs, |_, runs| error(runs)),
            column(jobs, |_, runs| runs.unwritten_failures),
            column(jobs, |_, runs| runs.runs),
            column(jobs, |_, runs| runs.rows),
        ])
    }

    /// After the transaction that was to write it.
    pub fn end_writing(&mut self, is_committed: bool) {
        self.written = Some(std::time::Instant::now());
        if !is_committed {
            return;
        }
        for runs in self.jobs.values_mut() {
            *runs = Runs {
                started_at: runs.started_at,
                failures_in_a_row: runs.failures_in_a_row,
                ..Runs::default()
            };
        }
        self.is_urgent = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute() {
        let pause =
            |failures_in_a_row| Runs { failures_in_a_row, ..Runs::default() }.pause().as_secs();
        assert_eq!([1, 2, 3, 6, 7, 1000].map(pause), [1, 2, 4, 32, 60, 60]);
    }
}
