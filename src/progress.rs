//! How far long work has come: a row that the view `progress` shows and that lets a stopped run go on
//! where it was, and a notice every few seconds.

use crate::error::{BillingError, Kind, Result};
use crate::spi::{Statement, values};
use crate::time::Instant;
use std::cell::Cell;
use std::time::Duration;

const TELL_EVERY: Duration = Duration::from_secs(3);

// A run that was not finished goes on as it is.
static BEGIN: Statement = Statement::kept(
    "INSERT INTO exa_billing.procedure_progress AS p
         (procedure_name, arguments, after_owner_kind, after_owner_id, before_hour, total, done,
          changed, failed, started_at, updated_at, finished_at)
     VALUES ($1, $2, '', '', $3, $4, 0, 0, 0, now(), now(), NULL)
     ON CONFLICT (procedure_name, arguments) DO UPDATE
     SET after_owner_kind = '', after_owner_id = '', before_hour = excluded.before_hour,
         total = excluded.total, done = 0, changed = 0, failed = 0, started_at = now(),
         updated_at = now(), finished_at = NULL
     WHERE p.finished_at IS NOT NULL",
);
static POSITION: Statement = Statement::kept(
    "SELECT after_owner_kind, after_owner_id, before_hour, done, total
     FROM exa_billing.procedure_progress
     WHERE procedure_name = $1 AND arguments = $2 FOR UPDATE",
);
static NOTE: Statement = Statement::kept(
    "UPDATE exa_billing.procedure_progress
     SET after_owner_kind = $3, after_owner_id = $4, before_hour = $5, done = done + $6,
         changed = changed + $7, failed = failed + $8, updated_at = clock_timestamp()
     WHERE procedure_name = $1 AND arguments = $2",
);
static FINISH: Statement = Statement::kept(
    "UPDATE exa_billing.procedure_progress
     SET updated_at = clock_timestamp(), finished_at = clock_timestamp()
     WHERE procedure_name = $1 AND arguments = $2 RETURNING done, total, changed, failed",
);

thread_local! {
    static LAST_TOLD: Cell<Option<std::time::Instant>> = const { Cell::new(None) };
}

/// Whether long work should tell again how far it is; counted anew from its first step.
pub fn is_due(is_first_step: bool) -> bool {
    let is_due = !is_first_step && LAST_TOLD.get().is_none_or(|last| last.elapsed() >= TELL_EVERY);
    if is_first_step || is_due {
        LAST_TOLD.set(Some(std::time::Instant::now()));
    }
    is_due
}

/// At the beginning of a function that tells.
pub fn begin_telling() {
    is_due(true);
}

/// Tells how far a function is that works through a list, if it is time to.
pub fn tell(done: usize, total: usize, what: &str) {
    if is_due(false) {
        pgrx::notice!("{done} of {total} {what}");
    }
}

/// A procedure with its arguments: those that were stopped go on when called again with the same.
pub struct Run {
    pub procedure: &'static str,
    pub arguments: String,
}

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Kind and id of the last owner that was done; empty before the first.
    pub after_owner: (String, String),
    /// Of those that go back in time: everything from this hour on is done.
    pub before_hour: Option<Instant>,
    pub done: i64,
    pub total: i64,
}

/// What a step has done, and where the next one begins.
pub struct Step<'a> {
    pub after_owner: (&'a str, &'a str),
    pub before_hour: Option<Instant>,
    pub done: i64,
    pub changed: i64,
    pub failed: i64,
}

/// What a whole run has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub done: i64,
    pub total: i64,
    pub changed: i64,
    pub failed: i64,
}

impl Run {
    /// Begins anew, unless the last run was stopped.
    ///
    /// Locks: the progress row.
    pub fn begin(&self, total: i64, before_hour: Option<Instant>) -> Result<()> {
        BEGIN.execute(values![self.procedure, &self.arguments, before_hour, total])
    }

    /// Locks: the progress row, until the transaction ends; two runs at once so share the work.
    pub fn position(&self) -> Result<Position> {
        let position = POSITION.write_row(values![self.procedure, &self.arguments], |row| {
            Ok(Position {
                after_owner: (row.get(1)?, row.get(2)?),
                before_hour: row.maybe(3)?,
                done: row.get(4)?,
                total: row.get(5)?,
            })
        })?;
        position.ok_or_else(|| self.not_begun())
    }

    pub fn note(&self, step: &Step) -> Result<()> {
        let (kind, id) = step.after_owner;
        let (done, changed, failed) = (step.done, step.changed, step.failed);
        NOTE.execute(values![
            self.procedure,
            &self.arguments,
            kind,
            id,
            step.before_hour,
            done,
            changed,
            failed
        ])
    }

    pub fn finish(&self) -> Result<Counts> {
        let counts = FINISH.write_row(values![self.procedure, &self.arguments], |row| {
            Ok(Counts {
                done: row.get(1)?,
                total: row.get(2)?,
                changed: row.get(3)?,
                failed: row.get(4)?,
            })
        })?;
        counts.ok_or_else(|| self.not_begun())
    }

    /// A step that somebody calls by hand.
    fn not_begun(&self) -> BillingError {
        let procedure = self.procedure;
        BillingError::new(Kind::WrongState, format!("no such run of {procedure} has begun"))
            .detail(format!("Its arguments are {}.", self.arguments))
            .hint(format!("CALL exa_billing.{procedure}() takes all the steps of a run."))
    }
}
