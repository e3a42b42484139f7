//! Whose turn it is: when each job is due, and what comes next.

use crate::jobs::{Done, Job, Pace};
use crate::{spi, time};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The pause of a job that has more to do and got nowhere: somebody else holds what it needs.
const PAUSE_WITHOUT_PROGRESS: Duration = Duration::from_millis(200);

#[derive(Debug, Clone, Copy)]
enum Turn {
    At(Instant),
    /// In the first round of another UTC hour than this one; also of an earlier one, when a clock that
    /// was wrong has been put right.
    AfterHour(time::Instant),
}

/// When a step began.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    pub clock: time::Instant,
    at: Instant,
}

impl Begun {
    pub fn now() -> Self {
        Self { clock: spi::clock(), at: Instant::now() }
    }
}

pub struct Turns(BTreeMap<Job, Turn>);

impl Turns {
    pub fn new() -> Self {
        let now = Turn::At(Instant::now());
        Self(Job::ALL.into_iter().map(|job| (job, now)).collect())
    }

    pub fn is_due(&self, job: Job) -> bool {
        match self.0.get(&job) {
            Some(Turn::At(instant)) => Instant::now() >= *instant,
            Some(Turn::AfterHour(hour)) => spi::clock().hour_start() != *hour,
            None => true,
        }
    }

    pub fn somebody_else_is_due(&self, job: Job) -> bool {
        Job::ALL.into_iter().any(|other| other != job && self.is_due(other))
    }

    /// How long until somebody is due; those who wait for an hour are not asked.
    pub fn pause(&self) -> Duration {
        let now = Instant::now();
        let pauses = self.0.values().filter_map(|turn| match turn {
            Turn::At(instant) => Some(instant.saturating_duration_since(now)),
            Turn::AfterHour(_) => None,
        });
        pauses.min().unwrap_or_default()
    }

    pub fn after_step(&mut self, job: Job, begun: Begun, done: Done) {
        let turn = match job.pace() {
            _ if !done.is_finished && done.rows == 0 => {
                Turn::At(Instant::now() + PAUSE_WITHOUT_PROGRESS)
            }
            _ if !done.is_finished => Turn::At(Instant::now() + job.breather(begun.at.elapsed())),
            Pace::Every(pause) => Turn::At(Instant::now() + pause),
            Pace::Hourly => Turn::AfterHour(begun.clock.hour_start()),
        };
        self.0.insert(job, turn);
    }

    pub fn after_failure(&mut self, job: Job, pause: Duration) {
        self.0.insert(job, Turn::At(Instant::now() + pause));
    }
}
