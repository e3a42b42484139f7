//! Whose spend is due, and what becomes of those whose evaluation failed.

use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{self, Statement, values};
use crate::time::{CLOCK_TOLERANCE_MICROSECONDS, Instant, MICROSECONDS_PER_SECOND};
use crate::{accounts, guc};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

// This queue, too, is empty when a plan is made, and may be long when it is used.
static DUE: Statement = Statement::over_queue(
    "SELECT owner_kind, owner_id, min(due_at) FROM exa_billing.evaluation_queue
     WHERE due_at <= $1
     GROUP BY owner_kind, owner_id
     HAVING $3::timestamptz IS NULL OR (min(due_at), owner_kind, owner_id) > ($3, $4, $5)
     ORDER BY min(due_at), owner_kind, owner_id LIMIT $2",
);
static HOLD: Statement = Statement::over_queue(
    "SELECT e.owner_kind, e.owner_id, e.entry_id, e.due_at
     FROM unnest($1, $2) AS o(owner_kind, owner_id)
     JOIN exa_billing.evaluation_queue AS e
         ON e.owner_kind = o.owner_kind AND e.owner_id = o.owner_id
     WHERE e.due_at <= $3
     FOR UPDATE OF e SKIP LOCKED",
);
static REMOVE: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.evaluation_queue AS e
     USING unnest($1, $2, $3) AS done(owner_kind, owner_id, entry_id)
     WHERE e.owner_kind = done.owner_kind AND e.owner_id = done.owner_id
       AND e.entry_id = done.entry_id",
);
static POSTPONE: Statement = Statement::over_queue(
    "UPDATE exa_billing.evaluation_queue AS e
     SET due_at = later.due_at, failure_count = 0, last_error = NULL
     FROM unnest($1, $2, $3, $4) AS later(owner_kind, owner_id, entry_id, due_at)
     WHERE e.owner_kind = later.owner_kind AND e.owner_id = later.owner_id
       AND e.entry_id = later.entry_id",
);
static BRING_FORWARD: Statement = Statement::over_queue(
    "UPDATE exa_billing.evaluation_queue SET due_at = $3
     WHERE owner_kind = $1 AND owner_id = $2 AND due_at > $3 AND failure_count = 0",
);
// Of one month or two: planned each time, so that the others are not looked at. Each owner by itself: a join
// over the view would read everybody's.
static CHARGED_LATER: Statement = Statement::fresh_over_queue(
    "SELECT o.owner_kind, o.owner_id, later.first_at
     FROM unnest($1, $2) AS o(owner_kind, owner_id)
     CROSS JOIN LATERAL (
         SELECT min(e.created_at) AS first_at
         FROM exa_billing.spend_entries AS e
         WHERE e.owner_kind = o.owner_kind AND e.owner_id = o.owner_id
           AND e.created_at >= $3 AND e.created_at < $4
     ) AS later
     WHERE later.first_at IS NOT NULL",
);
static FAILURES: Statement = Statement::over_queue(
    "SELECT coalesce(max(failure_count), 0),
            coalesce(bool_or(due_at > $3 AND failure_count > 0), false)
     FROM exa_billing.evaluation_queue WHERE owner_kind = $1 AND owner_id = $2",
);
static PUT: Statement = Statement::kept(
    "INSERT INTO exa_billing.evaluation_queue
         (owner_kind, owner_id, entry_id, due_at, failure_count, last_error)
     VALUES ($1, $2, gen_random_uuid(), $3, $4, $5)",
);

/// An owner with a charge that should have been evaluated by now, and since when.
pub struct Due {
    pub owner: Owner,
    since: Instant,
}

/// Owners that are due, those that wait longest first; after one of them, those that come next.
pub fn due(as_of: Instant, max_owners: i64, after: Option<&Due>) -> Result<Vec<Due>> {
    let since = after.map(|due| due.since);
    let (kind, id) = after.map(|due| (due.owner.kind.as_str(), due.owner.id.as_str())).unzip();
    DUE.write(values![as_of, max_owners, since, kind, id], |row| {
        Ok(Due { owner: accounts::owner_of(row, 1)?, since: row.get(3)? })
    })
}

/// Rows of the queue that an evaluation takes upon itself.
pub struct Held(Vec<HeldRow>);

struct HeldRow {
    owner: Owner,
    entry: Uuid,
    due: Instant,
}

/// Holds the rows of these owners that are due, before their spend is looked at: posting leaves an
/// overdue row that nobody holds as it is, and adds one beside a row that somebody does. One that
/// posting holds stays, and leads to one more evaluation.
///
/// A snapshot that is older than this holds nothing: a row may stand for charges that it does not
/// show.
///
/// Locks: the owners' states, which the caller has taken; then rows of the queue, waiting for none.
pub fn hold(owners: &[Owner], as_of: Instant) -> Result<Held> {
    if spi::keeps_snapshot() {
        return Ok(Held(Vec::new()));
    }
    let (kinds, ids) = accounts::columns(owners);
    let held = HOLD.write(values![kinds, ids, as_of], |row| {
        Ok(HeldRow { owner: accounts::owner_of(row, 1)?, entry: row.get(3)?, due: row.get(4)? })
    })?;
    Ok(Held(held))
}

/// The first charge of each owner that an evaluation left out, because it is dated later.
pub type Later = BTreeMap<Owner, Instant>;

/// Owners without alerts, and as of when they were evaluated before: only suggestions come of evaluating
/// them, by the spend of a week.
pub type WithoutAlerts<'a> = BTreeMap<&'a Owner, Option<Instant>>;

impl HeldRow {
    /// The row of an owner without alerts stays for a rest: while it waits, posting adds none. It goes after
    /// that, until the owner is charged again.
    fn rests(&self, without_alerts: &WithoutAlerts) -> bool {
        let rested_since = self.due.plus_microseconds(-guc::evaluation_rest_microseconds());
        without_alerts.get(&self.owner).is_some_and(|last| *last != Some(rested_since))
    }
}

impl Held {
    /// What these rows stand for and an evaluation as of this instant leaves out: charges dated ahead
    /// of the clock, or made while the evaluation waited for its turn. On the caller's snapshot.
    pub fn charged_later(&self, as_of: Instant) -> Result<Later> {
        let owners: BTreeSet<&Owner> = self.0.iter().map(|row| &row.owner).collect();
        if owners.is_empty() {
            return Ok(Later::new());
        }
        let (kinds, ids): (Vec<_>, Vec<_>) =
            owners.iter().map(|owner| (owner.kind.as_str(), owner.id.as_str())).unzip();
        // Nothing is recorded that lies further ahead of the clock.
        let end = spi::clock().plus_microseconds(2 * CLOCK_TOLERANCE_MICROSECONDS);
        let later = CHARGED_LATER.read(values![kinds, ids, as_of, end], |row| {
            Ok((accounts::owner_of(row, 1)?, row.get(3)?))
        })?;
        Ok(later.into_iter().collect())
    }

    /// What they stand for has been evaluated as of this instant, but for later charges: those become due like
    /// any other. Of an owner without alerts the next evaluation is some time off.
    pub fn settle(self, as_of: Instant, later: &Later, without: &WithoutAlerts) -> Result<()> {
        let (clock, delay) = (spi::clock(), guc::evaluation_delay_microseconds());
        let rested = as_of.plus_microseconds(guc::evaluation_rest_microseconds());
        // One row of each is enough.
        let mut seen = BTreeSet::new();
        let (mut postponed, mut due_at, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for row in self.0 {
            // One dated ahead is looked for again and again: others may come before its time.
            let due = match later.get(&row.owner) {
                Some(first) => Some((*first).min(clock).plus_microseconds(delay)),
                None => (row.rests(without) && rested > clock).then_some(rested),
            };
            match due {
                Some(due) if seen.insert(row.owner.clone()) => {
                    postponed.push(row);
                    due_at.push(due);
                }
                _ => done.push(row),
            }
        }
        Held(done).remove()?;
        if postponed.is_empty() {
            return Ok(());
        }
        let (kinds, ids, entries) = columns(&postponed);
        POSTPONE.execute(values![kinds, ids, entries, due_at])
    }

    fn remove(self) -> Result<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        let (kinds, ids, entries) = columns(&self.0);
        REMOVE.execute(values![kinds, ids, entries])
    }
}

fn columns(rows: &[HeldRow]) -> (Vec<&str>, Vec<&str>, Vec<Uuid>) {
    let (mut kinds, mut ids, mut entries) = (Vec::new(), Vec::new(), Vec::new());
    for HeldRow { owner, entry, .. } in rows {
        kinds.push(owner.kind.as_str());
        ids.push(owner.id.as_str());
        entries.push(*entry);
    }
    (kinds, ids, entries)
}

/// Ends the rest of an owner whose alerts are enabled: what is charged from now on is evaluated after the delay.
///
/// Locks: the owner's row of the queue. The caller has those of the account, so that posting adds none
/// meanwhile, and of the owner's state, so that nobody evaluates.
pub fn end_rest(owner: &Owner) -> Result<()> {
    let due = spi::clock().plus_microseconds(guc::evaluation_delay_microseconds());
    BRING_FORWARD.execute(values![owner.kind.as_str(), &owner.id, due])
}

/// Puts an owner back whose evaluation failed; the pauses grow. While one lasts, nothing is added.
pub fn put_back(owner: &Owner, reason: &str) -> Result<()> {
    let clock = spi::clock();
    let (kind, id) = (owner.kind.as_str(), &owner.id);
    let found = FAILURES
        .write_row(values![kind, id, clock], |row| Ok((row.get::<i32>(1)?, row.get::<bool>(2)?)))?;
    let (failures, waits_already) = found.unwrap_or_default();
    hold(std::slice::from_ref(owner), clock)?.remove()?;
    if waits_already {
        return Ok(());
    }
    let due = clock.plus_microseconds(pause_microseconds(failures));
    let reason: String = reason.chars().take(MAX_REASON_CHARS).collect();
    PUT.execute(values![kind, id, due, failures.saturating_add(1), &reason])
}

const MAX_REASON_CHARS: usize = 500;
const FIRST_PAUSE_SECONDS: i64 = 30;
const LONGEST_PAUSE_SECONDS: i64 = 3600;

/// The pause after so many failures before this one: it doubles, up to an hour.
fn pause_microseconds(failures: i32) -> i64 {
    let doublings = u32::try_from(failures).unwrap_or_default().min(16);
    let seconds = (FIRST_PAUSE_SECONDS << doublings).min(LONGEST_PAUSE_SECONDS);
    seconds * MICROSECONDS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_an_hour() {
        let seconds = |failures| pause_microseconds(failures) / MICROSECONDS_PER_SECOND;
        assert_eq!([0, 1, 2, 6, 7, i32::MAX].map(seconds), [30, 60, 120, 1920, 3600, 3600]);
    }
}
