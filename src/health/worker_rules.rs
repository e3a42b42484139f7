//! From when on background work is not well, and what helps.

use super::finding::{Finding, HOUR, MINUTE, Status, graded, seconds_since};
use crate::time::Instant;

const RUN: &str = "CALL exa_billing.run_maintenance(); does all jobs once. Why it is not done by itself is said by the checks of the clone guard and of the worker.";
const NO_WORKER: &str = "Have CALL exa_billing.run_maintenance(); done by pg_cron or a timer, or let the worker do it: put exa_billing into shared_preload_libraries and this database into exa_billing.databases, and restart the server.";
const LOG: &str = "Look for exa_billing in the server's log; where it has no free background worker, raise max_worker_processes and restart the server.";
const PRELOAD: &str = "Add exa_billing to shared_preload_libraries and restart the server.";

/// Whether background work was started where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Here,
    Never,
    Elsewhere,
}

pub fn clone_guard(start: Start) -> Finding {
    let call = "Call SELECT exa_billing.start_worker(); if this is the database in which background work belongs, and leave it if it is a copy.";
    match start {
        Start::Here => Finding::ok("started"),
        Start::Never => Finding::critical("not started", call),
        Start::Elsewhere => {
            let figure = "a copy: started in another database or server, or before a restore";
            Finding::critical(figure, call)
        }
    }
}

/// What is known of the work in this database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// There the worker waits for promotion, and the log is the primary's.
    pub is_standby: bool,
    pub is_preloaded: bool,
    pub is_listed: bool,
    /// Of the worker, in shared memory.
    pub last_beat: Option<Instant>,
    /// Of any job, as the log of jobs has it.
    pub last_run: Option<Instant>,
    /// The worker shows a sign of life after each.
    pub pause_seconds: i64,
}

/// A worker gives signs of life where there is one; elsewhere the log of jobs has to do.
pub fn worker(work: Work, now: Instant) -> Finding {
    if work.is_preloaded && work.is_listed && !work.is_standby {
        return match work.last_beat {
            None => Finding::critical("no sign of life since the server's start", LOG),
            Some(beat) => {
                let age = seconds_since(beat, now);
                let figure = format!("{age} s since the last sign of life");
                Finding::of(beat_status(age, work.pause_seconds), figure, LOG)
            }
        };
    }
    match work.last_run {
        None => Finding::critical("nothing has ever run", NO_WORKER),
        Some(run) => {
            let age = seconds_since(run, now);
            let figure = format!("{age} s since the last run of a job");
            Finding::of(graded(age, 15 * MINUTE, HOUR), figure, NO_WORKER)
        }
    }
}

fn beat_status(age: i64, pause: i64) -> Status {
    graded(age, MINUTE + 2 * pause, 5 * MINUTE + 2 * pause)
}

/// What the log says of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub at: Option<Instant>,
    pub failures_in_a_row: i64,
    pub error: Option<String>,
}

/// A job whose turn comes again after so many seconds.
pub fn job(ran: Option<&Ran>, every_seconds: i64, now: Instant) -> Finding {
    let Some((ran, at)) = ran.and_then(|ran| Some((ran, ran.at?))) else {
        return Finding::warning("has not run yet", RUN);
    };
    let age = seconds_since(at, now);
    if ran.failures_in_a_row > 0 {
        let error = ran.error.as_deref().unwrap_or_default();
        let status = if ran.failures_in_a_row > 1 { Status::Critical } else { Status::Warning };
        let figure = format!("{} failures in a row: {error}", ran.failures_in_a_row);
        let again = "Mend what it says: it is tried again by itself, or at once with CALL exa_billing.run_maintenance();";
        return Finding::of(status, figure, again);
    }
    let after = |turns: i64, pause: i64| every_seconds.saturating_mul(turns).saturating_add(pause);
    let status = graded(age, after(2, 15 * MINUTE), after(4, HOUR));
    Finding::of(status, format!("{age} s since the last run"), RUN)
}

/// A database of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    pub exists: bool,
    pub last_beat: Option<Instant>,
}

/// Of a standby nothing is expected: its workers wait for promotion.
pub fn databases(
    listed: &[Listed],
    is_standby: bool,
    is_preloaded: bool,
    pause_seconds: i64,
    now: Instant,
) -> Finding {
    if listed.is_empty() || is_standby || !is_preloaded {
        let figure = format!("0 served of {} listed", listed.len());
        let is_wrong = !listed.is_empty() && !is_standby;
        return if is_wrong { Finding::critical(figure, PRELOAD) } else { Finding::ok(figure) };
    }
    let is_quiet = |database: &&Listed| {
        let age = database.last_beat.map_or(i64::MAX, |beat| seconds_since(beat, now));
        beat_status(age, pause_seconds) == Status::Critical
    };
    let gone: Vec<&str> =
        listed.iter().filter(|database| !database.exists).map(|one| one.name.as_str()).collect();
    let quiet: Vec<&str> = listed
        .iter()
        .filter(|database| database.exists)
        .filter(is_quiet)
        .map(|one| one.name.as_str())
        .collect();
    let served = listed.len() - gone.len() - quiet.len();
    let figure = format!("{served} served of {} listed", listed.len());
    if gone.is_empty() && quiet.is_empty() {
        return Finding::ok(figure);
    }
    let mut what_to_do = Vec::new();
    if !gone.is_empty() {
        what_to_do.push(format!(
            "Take what does not exist ({}) out of exa_billing.databases and reload the server.",
            gone.join(", ")
        ));
    }
    if !quiet.is_empty() {
        what_to_do.push(format!("Without a worker: {}. {LOG}", quiet.join(", ")));
    }
    Finding::critical(figure, what_to_do.join(" "))
}

#[cfg(test)]
mod tests {
    use super::super::finding::given::*;
    use super::*;

    #[test]
    fn a_copy_is_told_to_start() {
        assert_eq!(status(&clone_guard(Start::Here)), "ok");
        for start in [Start::Never, Start::Elsewhere] {
            let finding = clone_guard(start);
            assert_eq!(status(&finding), "critical");
            assert!(finding.what_to_do.contains("start_worker()"));
        }
    }

    #[test]
    fn a_listed_database_needs_signs_of_life_and_another_runs_of_jobs() {
        let work = Work {
            is_standby: false,
            is_preloaded: true,
            is_listed: true,
            last_beat: None,
            last_run: Some(now()),
            pause_seconds: 0,
        };
        let beat = |age, pause_seconds| {
            let work = Work { last_beat: Some(ago(age)), pause_seconds, ..work };
            status(&worker(work, now()))
        };
        assert_eq!(status(&worker(work, now())), "critical");
        assert_eq!([59, 60, 299, 300].map(|age| beat(age, 0)), {
            ["ok", "warning", "warning", "critical"]
        });
        assert_eq!([beat(300, 3600), beat(7260, 3600)], ["ok", "warning"]);
        for (is_preloaded, is_listed, is_standby) in
            [(false, true, false), (true, false, false), (false, false, false), (true, true, true)]
        {
            let work = Work { is_preloaded, is_listed, is_standby, ..work };
            let run = |last_run| status(&worker(Work { last_run, ..work }, now()));
            let found = [Some(ago(899)), Some(ago(900)), Some(ago(3600)), None].map(run);
            assert_eq!(found, ["ok", "warning", "critical", "critical"]);
        }
    }

    #[test]
    fn a_job_that_fails_twice_is_critical_and_says_why() {
        let ran = |age, failures_in_a_row| Ran {
            at: Some(ago(age)),
            failures_in_a_row,
            error: Some("division by zero".to_owned()),
        };
        let of = |age, failures| job(Some(&ran(age, failures)), 3600, now());
        assert_eq!(status(&job(None, 1, now())), "warning");
        assert_eq!(status(&of(5, 0)), "ok");
        assert_eq!(status(&of(5, 1)), "warning");
        assert_eq!(status(&of(5, 2)), "critical");
        assert_eq!(of(5, 2).figure, "2 failures in a row: division by zero");
        assert_eq!([8099, 8100, 17_999, 18_000].map(|age| status(&of(age, 0))), {
            ["ok", "warning", "warning", "critical"]
        });
    }

    #[test]
    fn databases_that_are_gone_and_that_are_quiet_are_told_apart() {
        let listed = |name: &str, exists, beat: Option<i64>| Listed {
            name: name.to_owned(),
            exists,
            last_beat: beat.map(ago),
        };
        let of = |listed: &[Listed]| databases(listed, false, true, 0, now());
        assert_eq!(status(&of(&[])), "ok");
        assert_eq!(status(&of(&[listed("app", true, Some(1))])), "ok");
        let quiet = [listed("app", true, None)];
        assert_eq!(status(&databases(&quiet, false, false, 0, now())), "critical");
        assert_eq!(status(&databases(&quiet, true, true, 0, now())), "ok");
        let of_one = |listed| of(&[listed]).what_to_do;
        assert!(of_one(listed("gone", false, None)).ends_with("reload the server."));
        assert!(of_one(listed("mute", true, None)).starts_with("Without a worker"));
        let bad = of(&[
            listed("app", true, Some(1)),
            listed("gone", false, None),
            listed("mute", true, Some(400)),
        ]);
        assert_eq!((status(&bad), bad.figure.as_str()), ("critical", "1 served of 3 listed"));
        assert!(bad.what_to_do.contains("(gone)") && bad.what_to_do.contains("worker: mute."));
    }
}
