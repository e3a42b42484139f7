//! The checks, one after the other: what cannot be looked at is a finding of its own and hides none of
//! the others.

use super::finding::Finding;
use super::{books_rules, looks, worker_looks};
use crate::error::Result;
use crate::jobs::Job;
use crate::time::Instant;
use crate::{books, spi};

struct Check {
    name: &'static str,
    /// What it reads of the books.
    tables: &'static [&'static str],
    look: fn(Instant) -> Result<Finding>,
}

const CHECKS: [Check; 17] = [
    Check { name: "functions", tables: &[], look: looks::functions },
    Check { name: "foreign hands", tables: &[], look: looks::tampering },
    Check { name: "guards", tables: &["spend_sources", "applied_scripts"], look: looks::guards },
    Check { name: "months ahead", tables: &[], look: looks::months_ahead },
    Check { name: "unposted rows", tables: &["unposted_spend"], look: looks::unposted },
    Check {
        name: "skipped owner",
        tables: &["unposted_spend", "job_runs"],
        look: |now| looks::skipped(now, Job::Post.name()),
    },
    Check { name: "blocked rows", tables: &["unposted_spend"], look: looks::blocked },
    Check { name: "dead rows", tables: &["unposted_spend"], look: looks::dead_rows },
    Check { name: "coverage", tables: &["spend_degraded_intervals"], look: looks::coverage },
    Check { name: "proof of the books", tables: &["books_proof"], look: looks::proof },
    Check {
        name: "evaluation backlog",
        tables: &["evaluation_queue"],
        look: looks::evaluation_backlog,
    },
    Check {
        name: "failing evaluations",
        tables: &["evaluation_queue"],
        look: looks::failing_evaluations,
    },
    Check {
        name: "deliveries pending",
        tables: &["notification_deliveries"],
        look: looks::deliveries_pending,
    },
    Check {
        name: "deliveries dead",
        tables: &["notification_deliveries"],
        look: looks::deliveries_dead,
    },
    Check {
        name: "clone guard",
        tables: &["worker_registration"],
        look: worker_looks::clone_guard,
    },
    Check { name: "worker", tables: &["job_runs"], look: worker_looks::worker },
    Check { name: "databases", tables: &[], look: worker_looks::databases },
];
const JOBS: &str = "jobs";

/// Every check's name with what it has found.
pub fn all(now: Instant) -> Result<Vec<(String, Finding)>> {
    if !books::exist() {
        return Ok(vec![("books".to_owned(), books_rules::no_books())]);
    }
    let versions = finding(&["storage_migrations"], false, books::versions)?;
    let (books, is_old) = match versions {
        Ok((present, newest)) => {
            (books_rules::versions(present, newest), present.is_none_or(|present| present < newest))
        }
        Err(finding) => (finding, false),
    };
    let mut found = vec![("books".to_owned(), books)];
    for check in CHECKS {
        let finding = finding(check.tables, is_old, || (check.look)(now))?;
        found.push((check.name.to_owned(), finding.unwrap_or_else(|finding| finding)));
    }
    match finding(&["job_runs"], is_old, || worker_looks::jobs(now))? {
        Ok(jobs) => {
            let named = |(job, finding): (Job, Finding)| (format!("job: {}", job.name()), finding);
            found.extend(jobs.into_iter().map(named));
        }
        Err(finding) => found.push((JOBS.to_owned(), finding)),
    }
    Ok(found)
}

/// What a look has found, or why it could not be had. Only what ends the whole statement is raised.
fn finding<T>(
    tables: &[&str],
    is_old: bool,
    look: impl FnOnce() -> Result<T>,
) -> Result<std::result::Result<T, Finding>> {
    if let Some(table) = tables.iter().find(|table| !spi::relation_exists(table)) {
        return Ok(Err(books_rules::missing_table(table, is_old)));
    }
    match spi::in_subtransaction(look) {
        Ok(found) => Ok(Ok(found)),
        Err(failure) if failure.is_interruption() => failure.raise(),
        Err(failure) => Ok(Err(books_rules::failed(&failure.message(), is_old))),
    }
}
