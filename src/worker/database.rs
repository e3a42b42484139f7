//! The worker of one database: gives each job its turn, in a transaction of its own, where background
//! work was started.

use super::turns::{Begun, Turns};
use crate::error::Result;
use crate::jobs::{self, Done, Job, Log};
use crate::posting::Whose;
use crate::registration;
use crate::{books, spi};
use pgrx::bgworkers::BackgroundWorker;
use pgrx::prelude::*;
use std::time::{Duration, Instant};

/// So that log and settings are looked at even when charges never pause.
const STEPS_PER_TURN: usize = 50;
/// The longest wait, whatever the settings say: somebody may want the database for himself, or have
/// started background work here.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const SHORTEST_WAIT: Duration = Duration::from_millis(1);

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn exa_billing_database_worker(launcher: pg_sys::Datum) {
    spi::listen_to_signals();
    BackgroundWorker::connect_worker_to_spi(Some(BackgroundWorker::get_extra()), None);
    spi::pin_settings();
    let launcher = u32::try_from(launcher.value()).unwrap_or_default();
    let mut worker = Worker::new();
    let mut wait = Duration::ZERO;
    while BackgroundWorker::wait_latch(Some(wait)) {
        spi::reload_if_asked();
        if !jobs::follows(launcher) || is_in_the_way() {
            return;
        }
        let is_mine = jobs::beat();
        wait = if is_mine && !spi::in_recovery() { worker.round() } else { LONGEST_WAIT };
    }
}

/// Whether somebody waits for this process to leave the database.
fn is_in_the_way() -> bool {
    let (_, database) = spi::server_and_database();
    spi::is_wanted_alone(database)
}

/// What became of a step.
enum Step {
    Done(Done),
    /// There is nothing to do here: no extension, no books, or background work was not started.
    NotHere,
    Failed(String),
}

struct Worker {
    turns: Turns,
    log: Log,
    /// Where there was nothing to do here, when to look again.
    quiet_until: Option<Instant>,
}

impl Worker {
    fn new() -> Self {
        Self { turns: Turns::new(), log: Log::new(), quiet_until: None }
    }

    /// Gives everybody who is due a turn; returns how long nobody will be.
    fn round(&mut self) -> Duration {
        if self.quiet_until.is_some_and(|until| Instant::now() < until) {
            return LONGEST_WAIT;
        }
        self.quiet_until = None;
        for job in Job::ALL {
            if self.turns.is_due(job) && !is_in_the_way() {
                self.turn(job);
            }
            if self.quiet_until.is_some() {
                return LONGEST_WAIT;
            }
        }
        if self.log.is_due() {
            let wrote = transaction(|| self.log.write());
            if let Err(error) = &wrote {
                spi::log_news(&format!("exa_billing could not note what its jobs did: {error}"));
            }
            self.log.end_writing(matches!(wrote, Ok(Some(()))));
        }
        self.turns.pause().clamp(SHORTEST_WAIT, LONGEST_WAIT)
    }

    /// A job's turn: steps until nothing is left, or others have waited enough.
    fn turn(&mut self, job: Job) {
        spi::show_activity(Some(&format!("exa_billing: {}", job.name())));
        for _ in 0..steps_of(job) {
            let begun = Begun::now();
            match step(job) {
                Step::Done(done) => {
                    self.log.succeeded(job, begun.clock, done);
                    self.turns.after_step(job, begun, done);
                }
                Step::NotHere => self.quiet_until = Some(Instant::now() + LONGEST_WAIT),
                Step::Failed(error) => {
                    spi::log_news(&format!("exa_billing could not {}: {error}", job.name()));
                    let pause = self.log.failed(job, begun.clock, &error);
                    self.turns.after_failure(job, pause);
                }
            }
            pgrx::check_for_interrupts!();
            // With much to post, nobody else waits longer than for a batch.
            let has_more = self.quiet_until.is_none() && self.turns.is_due(job);
            if !has_more || is_in_the_way() || self.turns.somebody_else_is_due(job) {
                break;
            }
        }
        spi::show_activity(None);
    }
}

/// Posting goes on for a while; whatever else has more to do gives way after each step.
fn steps_of(job: Job) -> usize {
    if job == Job::Post { STEPS_PER_TURN } else { 1 }
}

fn step(job: Job) -> Step {
    match transaction(|| job.step(Whose::Gathered)) {
        Ok(Some(done)) => Step::Done(done),
        Ok(None) => Step::NotHere,
        Err(error) => Step::Failed(error),
    }
}

/// One transaction with the rights of the books. What fails in it is told and ends nobody. None where
/// there is nothing to do; that is looked at in each transaction, so that no step begins after
/// stop_worker() was called.
fn transaction<T>(work: impl FnOnce() -> Result<T>) -> std::result::Result<Option<T>, String> {
    let done = spi::as_books_owner(|| {
        if !spi::extension_exists() || !registration::is_started()? {
            return Ok(None);
        }
        books::enter_for_writing("exa_billing worker")?;
        work().map(Some)
    });
    done.map(Option::flatten).map_err(|failure| failure.message())
}
