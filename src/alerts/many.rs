//! Evaluating those who are due, and once an hour everybody.

use super::decision::Moment;
use super::evaluate::{self, Counts};
use super::one::summary;
use super::{queue, standing};
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{self, Answer, Composite, Statement, values};
use crate::time::{self, Instant};
use crate::{accounts, books, events};
use pgrx::prelude::*;

/// So many owners are read, decided and written together.
const OWNERS_TOGETHER: usize = 500;
const MAX_OWNERS: i32 = 100_000;
const SWEEP_LOCK: i32 = 5;
const SWEEP: &str = "run_spend_alert_sweep";

static POSITION: Statement = Statement::kept(
    "SELECT after_owner_kind, after_owner_id, started_at FROM exa_billing.procedure_progress
     WHERE procedure_name = $1 AND arguments = '' AND finished_at IS NULL",
);
// Owners without settings are looked at for suggestions, as long as they spend or have one.
static NEXT_OWNERS: Statement = Statement::over_queue(
    "SELECT owner_kind, owner_id FROM (
         (SELECT s.owner_kind, s.owner_id FROM exa_billing.spend_alert_settings AS s
          WHERE (s.owner_kind, s.owner_id) > ($1, $2)
          ORDER BY s.owner_kind, s.owner_id LIMIT $3)
         UNION
         (SELECT a.owner_kind, a.owner_id FROM exa_billing.accounts AS a
          WHERE (a.owner_kind, a.owner_id) > ($1, $2)
            AND (EXISTS (SELECT FROM exa_billing.spend_hourly_totals AS t
                         WHERE t.owner_kind = a.owner_kind AND t.owner_id = a.owner_id
                           AND t.hour_start >= $4)
                 OR EXISTS (SELECT FROM exa_billing.unposted_spend AS q
                            WHERE q.owner_kind = a.owner_kind AND q.owner_id = a.owner_id)
                 OR EXISTS (SELECT FROM exa_billing.cost_suggestions AS c
                            WHERE c.owner_kind = a.owner_kind AND c.owner_id = a.owner_id
                              AND c.status = 'open'))
          ORDER BY a.owner_kind, a.owner_id LIMIT $3)
     ) AS candidates
     ORDER BY owner_kind, owner_id LIMIT $3",
);
static NOTE_POSITION: Statement = Statement::kept(
    "INSERT INTO exa_billing.procedure_progress AS p
         (procedure_name, arguments, after_owner_kind, after_owner_id, total, done, changed, failed,
          started_at, updated_at, finished_at)
     VALUES ($1, '', $2, $3, 0, $4, $5, $6, clock_timestamp(), clock_timestamp(),
             CASE WHEN $7 THEN clock_timestamp() END)
     ON CONFLICT (procedure_name, arguments) DO UPDATE
     SET after_owner_kind = excluded.after_owner_kind, after_owner_id = excluded.after_owner_id,
         done = excluded.done + CASE WHEN p.finished_at IS NULL THEN p.done ELSE 0 END,
         changed = excluded.changed + CASE WHEN p.finished_at IS NULL THEN p.changed ELSE 0 END,
         failed = excluded.failed + CASE WHEN p.finished_at IS NULL THEN p.failed ELSE 0 END,
         started_at = CASE WHEN p.finished_at IS NULL THEN p.started_at ELSE excluded.started_at END,
         updated_at = excluded.updated_at, finished_at = excluded.finished_at",
);

/// Evaluates those of the owners whom nobody else is evaluating and who were not evaluated at a
/// later instant. Returns how many owners it has got to, in order: of those that are evaluated for
/// the first time a transaction takes a limited number.
///
/// Locks: the owners' states in order, waiting for none.
fn evaluate_idle(owners: &[Owner], moment: Moment) -> Result<(Counts, usize)> {
    let mut counts = Counts::default();
    let (mut reached, mut opened) = (0, 0);
    for chunk in owners.chunks(OWNERS_TOGETHER) {
        let left_to_open = events::MAX_STATES_OPENED - opened;
        if left_to_open < chunk.len() {
            break;
        }
        let (locked, newly_opened) = events::lock_states_unless_busy(chunk, left_to_open)?;
        (reached, opened) = (reached + chunk.len(), opened + newly_opened);
        let last = spi::on_fresh_snapshot(|| standing::last_evaluations(&locked))?;
        let is_behind = |last: Option<Instant>| last.is_none_or(|last| last <= moment.as_of);
        let behind: Vec<Owner> = locked
            .into_iter()
            .zip(last)
            .filter_map(|(owner, last)| is_behind(last).then_some(owner))
            .collect();
        let skipped = chunk.len() - behind.len();
        counts.skipped += i64::try_from(skipped).unwrap_or(i64::MAX);
        counts.add(spi::in_own_memory(|| evaluate::evaluate(&behind, moment))?);
    }
    Ok((counts, reached))
}

/// Evaluates owners whose charges have waited long enough, at most so many; and whether that was
/// everybody. Those that somebody else holds take nobody's place.
pub fn evaluate_due(as_of: Instant, max_owners: i32) -> Result<(Counts, bool)> {
    let moment = Moment { as_of, looks_back: false };
    let mut counts = Counts::default();
    let mut left = i64::from(max_owners);
    let mut last = None;
    while left > 0 {
        let mut due = queue::due(as_of, left, last.as_ref())?;
        let is_everybody = i64::try_from(due.len()).is_ok_and(|count| count < left);
        let mut owners: Vec<Owner> = due.iter().map(|due| due.owner.clone()).collect();
        owners.sort_unstable();
        let (done, reached) = evaluate_idle(&owners, moment)?;
        counts.add(done);
        if is_everybody || reached < owners.len() {
            return Ok((counts, reached == owners.len()));
        }
        left -= done.evaluated + done.failed;
        last = due.pop();
    }
    Ok((counts, false))
}

/// Evaluates the next owners of a sweep, which goes through everybody in order; and whether it has
/// come to the end. The next call begins anew.
///
/// Locks: the sweep lock (tried: one sweep at a time), then as above.
pub fn sweep(as_of: Instant, max_owners: i32) -> Result<(Counts, bool)> {
    if !spi::try_lock_until_commit(SWEEP_LOCK)? {
        return Ok((Counts::default(), false));
    }
    let position = POSITION.write_row(values![SWEEP], |row| {
        Ok((row.get::<String>(1)?, row.get::<String>(2)?, row.get::<Instant>(3)?))
    })?;
    // Of a sweep that began in an earlier hour, the first owners have not been asked about the hour
    // that is completed now: it goes on, so that the last ones have their turn, and a new one follows.
    let hour = spi::clock().hour_start();
    let is_of_this_hour = position.as_ref().is_none_or(|begun| begun.2.hour_start() == hour);
    let (kind, id) = position.map(|(kind, id, _)| (kind, id)).unwrap_or_default();
    let spent_since = as_of.plus_hours(-7 * 24 - 1);
    let arguments = values![&kind, &id, i64::from(max_owners), spent_since];
    let next = NEXT_OWNERS.write(arguments, |row| accounts::owner_of(row, 1))?;
    let (counts, reached) = evaluate_idle(&next, Moment { as_of, looks_back: true })?;
    let is_last =
        reached == next.len() && i32::try_from(next.len()).is_ok_and(|count| count < max_owners);
    let (kind, id) = next[..reached]
        .last()
        .map_or((kind, id), |owner| (owner.kind.as_str().to_owned(), owner.id.clone()));
    let (done, changed) = (counts.evaluated, counts.fired + counts.recovered);
    NOTE_POSITION.execute(values![SWEEP, &kind, &id, done, changed, counts.failed, is_last])?;
    Ok((counts, is_last && is_of_this_hour))
}

fn owners_wanted(max_owners: Option<i32>) -> Result<i32> {
    let max_owners = max_owners.ok_or_else(|| BillingError::missing("max_owners"))?;
    if !(1..=MAX_OWNERS).contains(&max_owners) {
        let range = format!("max_owners is {max_owners}; 1 … {MAX_OWNERS} are allowed.");
        return Err(BillingError::invalid("max_owners is out of range").detail(range));
    }
    Ok(max_owners)
}

/// Evaluates the owners that are due.
#[pg_extern(sql = false)]
fn evaluate_due_owners(as_of: Option<Instant>, max_owners: Option<i32>) -> Answer<Composite> {
    let as_of = time::as_of_past(as_of, spi::clock())?;
    let max_owners = owners_wanted(max_owners)?;
    books::enter_for_writing("exa_billing.evaluate_due_owners()")?;
    let (counts, is_everybody) = evaluate_due(as_of, max_owners)?;
    Ok(summary(counts, is_everybody && counts.skipped == 0))
}

/// Evaluates the next owners of the hourly sweep.
#[pg_extern(sql = false)]
fn run_spend_alert_sweep(as_of: Option<Instant>, max_owners: Option<i32>) -> Answer<Composite> {
    let as_of = time::as_of_past(as_of, spi::clock())?;
    let max_owners = owners_wanted(max_owners)?;
    books::enter_for_writing("exa_billing.run_spend_alert_sweep()")?;
    let (counts, is_complete) = sweep(as_of, max_owners)?;
    Ok(summary(counts, is_complete))
}
