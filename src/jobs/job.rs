//! The jobs: what each does in one step, and how often its turn comes.

use super::proof;
use crate::error::Result;
use crate::posting::Whose;
use crate::time::MICROSECONDS_PER_SECOND;
use crate::{alerts, credits, events, guc, notifications, posting, spi, upkeep};
use std::time::Duration;

const ROWS_PER_POSTING: i64 = 10_000;
/// A batch of fewer rows has found all there was: of owners that are new it takes at least so many.
const ROWS_WORTH_ANOTHER_BATCH: i64 = 500;
const OWNERS_PER_EXPIRATION: i32 = 1000;
const OWNERS_PER_EVALUATION: i32 = 500;
const ROWS_PER_DELETION: i64 = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Job {
    Post,
    Expire,
    Evaluate,
    Remind,
    Maintain,
    Sweep,
    Retain,
    Prove,
}

/// What one step has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Done {
    pub rows: i64,
    /// Nothing is left until the job's turn comes again.
    pub is_finished: bool,
}

/// When a job's turn comes again after it was finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Every(Duration),
    /// Once in each UTC hour.
    Hourly,
}

impl Job {
    /// In the order of their turns: what everybody waits for comes first.
    pub const ALL: [Job; 8] = [
        Job::Post,
        Job::Expire,
        Job::Evaluate,
        Job::Remind,
        Job::Maintain,
        Job::Sweep,
        Job::Retain,
        Job::Prove,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Job::Post => "post spend",
            Job::Expire => "expire credits",
            Job::Evaluate => "evaluate due owners",
            Job::Remind => "remind mailers",
            Job::Maintain => "maintain partitions",
            Job::Sweep => "sweep spend alerts",
            Job::Retain => "delete old events",
            Job::Prove => "prove the books",
        }
    }

    pub fn pace(self) -> Pace {
        match self {
            Job::Post => Pace::Every(guc::posting_interval()),
            Job::Expire | Job::Evaluate | Job::Remind => Pace::Every(Duration::from_secs(1)),
            Job::Prove => Pace::Every(Duration::from_secs(60)),
            Job::Maintain => Pace::Every(Duration::from_secs(3600)),
            Job::Sweep => Pace::Hourly,
            Job::Retain => Pace::Every(Duration::from_secs(86_400)),
        }
    }

    /// How long the worker leaves the job alone between two steps of one turn. Proving the books never
    /// comes to an end and is no hurry: it gets a hundredth of one processor.
    pub fn breather(self, step: Duration) -> Duration {
        if self == Job::Prove { step * 99 } else { Duration::ZERO }
    }

    /// One bounded step, in the caller's transaction. `whose` rows are posted: the worker, which comes
    /// again at once, lets some gather.
    pub fn step(self, whose: Whose) -> Result<Done> {
        let done = match self {
            Job::Post => {
                let posted = posting::post(whose, ROWS_PER_POSTING)?;
                // The worker's next turn comes at once anyway.
                let is_all = whose == Whose::Gathered || posted.rows < ROWS_WORTH_ANOTHER_BATCH;
                Done { rows: posted.rows, is_finished: posted.is_end_of_turn && is_all }
            }
            Job::Expire => expire()?,
            Job::Evaluate => {
                let (counts, is_everybody) =
                    alerts::evaluate_due(spi::clock(), OWNERS_PER_EVALUATION)?;
                Done { rows: counts.evaluated, is_finished: is_everybody }
            }
            Job::Sweep => {
                let (counts, is_finished) = alerts::sweep(spi::clock(), OWNERS_PER_EVALUATION)?;
                Done { rows: counts.evaluated, is_finished }
            }
            Job::Remind => {
                // It waits for nobody who has locked their tables.
                events::lock_tables_or_fail()?;
                notifications::remind_mailers()?;
                Done { rows: 0, is_finished: true }
            }
            Job::Maintain => maintain()?,
            Job::Retain => {
                let rows = events::delete_old_without_waiting(ROWS_PER_DELETION)?;
                Done { rows, is_finished: rows == 0 }
            }
            Job::Prove => {
                let (rows, is_finished) = proof::step()?;
                Done { rows, is_finished }
            }
        };
        notifications::wake_mailers()?;
        Ok(done)
    }
}

/// Closes grants whose expiry has passed, once no charge dated before it can still be in flight:
/// after the grace period, and not while a transaction begun before the expiry is running.
fn expire() -> Result<Done> {
    let grace = guc::expiration_grace_seconds() * MICROSECONDS_PER_SECOND;
    let settled = spi::clock().plus_microseconds(-grace);
    let as_of = spi::oldest_transaction_start()?.map_or(settled, |oldest| oldest.min(settled));
    let owners = credits::expire_due(as_of, OWNERS_PER_EXPIRATION)?;
    Ok(Done { rows: owners, is_finished: owners < i64::from(OWNERS_PER_EXPIRATION) })
}

fn maintain() -> Result<Done> {
    let reports = upkeep::maintain(Some(upkeep::MONTHS_AHEAD))?;
    for (partition, error) in
        reports.iter().filter_map(|report| Some((&report.partition, report.error.as_ref()?)))
    {
        spi::warn(&format!("partition \"{partition}\" could not be made: {error}"));
    }
    events::check_untold_low_balances()?;
    let made = reports.iter().filter(|report| report.created).count();
    Ok(Done { rows: i64::try_from(made).unwrap_or(i64::MAX), is_finished: true })
}
