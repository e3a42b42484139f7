//! The step of `run_maintenance()`: one job after the other, each in the procedure's current
//! transaction.

use super::job::Job;
use super::runs::Log;
use crate::error::{BillingError, Result};
use crate::posting::Whose;
use crate::spi::{self, Answer, Composite, values};
use crate::{books, registration};
use pgrx::prelude::*;

/// One step of a job; a failure is told and noted, and ends this job's turn.
fn step(job: Job) -> Result<(bool, Option<String>)> {
    let started_at = spi::clock();
    let mut log = Log::new();
    let outcome = match spi::in_subtransaction(|| job.step(Whose::Everybody)) {
        Ok(done) => {
            log.succeeded(job, started_at, done);
            (done.is_finished, None)
        }
        Err(failure) if failure.is_cancellation() => return failure.raise(),
        Err(failure) => {
            let message = failure.message();
            log.failed(job, started_at, &message);
            pgrx::warning!("{} failed: {message}", job.name());
            (true, Some(message))
        }
    };
    log.write()?;
    Ok(outcome)
}

/// One step of one job of `run_maintenance()`; called by the procedure, which commits after it.
#[pg_extern(sql = false)]
fn run_maintenance_step(job_number: Option<i32>) -> Answer<Composite> {
    let number = job_number.ok_or_else(|| BillingError::missing("job_number"))?;
    let place = usize::try_from(number).ok().and_then(|number| number.checked_sub(1));
    let job = place.and_then(|place| Job::ALL.get(place));
    books::enter_for_writing("exa_billing.run_maintenance()")?;
    registration::require_started("exa_billing.run_maintenance()")?;
    let Some(&job) = job else {
        let none: Option<&str> = None;
        return Ok(Composite::new(values![true, true, none]));
    };
    let (is_finished, error) = step(job)?;
    Ok(Composite::new(values![false, is_finished, error.as_deref()]))
}
