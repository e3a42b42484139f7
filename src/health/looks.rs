//! Looking at the books and at what waits in them: each look is a few index probes, however much waits.

use super::books_rules::{self, Hole, Missing, Proof};
use super::finding::Finding;
use super::waiting_rules::{self, Failing, MAX_COUNTED_ROWS, MAX_COUNTED_TROUBLES};
use crate::error::{Kind, Result};
use crate::spi::{Statement, values};
use crate::time::{Instant, MICROSECONDS_PER_HOUR};
use crate::{books, partitions, verify};
use uuid::Uuid;

/// Owners of the queue whose first row is looked at, where there are more rows than are counted.
const MAX_OWNERS: i64 = 1_000;
/// Those of sql/install/sources.sql.
const EVENT_TRIGGER_NAMES: [&str; 3] = [
    "exa_billing_guard_dropped_objects",
    "exa_billing_follow_altered_tables",
    "exa_billing_guard_concurrent_detach",
];

// In the order in which they lie there: following an index would look up each row by itself.
static ROWS: Statement = Statement::fresh(
    "SELECT count(*) FROM (SELECT FROM exa_billing.unposted_spend LIMIT $1) AS few",
);
// Ids are made in the order of time.
static OLDEST_OF_FEW: Statement = Statement::fresh(
    "SELECT owner_kind || '/' || owner_id, entry_id, created_at
     FROM (SELECT owner_kind, owner_id, entry_id, created_at, blocked_reason
           FROM exa_billing.unposted_spend LIMIT $1) AS few
     WHERE blocked_reason IS NULL ORDER BY entry_id LIMIT 1",
);
// Each owner's first row is the oldest. Of an owner whose first row is blocked all rows are.
static OLDEST_OF_OWNERS: Statement = Statement::over_queue(
    "WITH RECURSIVE owners AS (
         (SELECT owner_kind, owner_id, entry_id, created_at, blocked_reason
          FROM exa_billing.unposted_spend ORDER BY owner_kind, owner_id, transaction_id, entry_id LIMIT 1)
         UNION ALL
         SELECT next.*
         FROM owners
         CROSS JOIN LATERAL (
             SELECT u.owner_kind, u.owner_id, u.entry_id, u.created_at, u.blocked_reason
             FROM exa_billing.unposted_spend AS u
             WHERE (u.owner_kind, u.owner_id) > (owners.owner_kind, owners.owner_id)
             ORDER BY u.owner_kind, u.owner_id, u.transaction_id, u.entry_id LIMIT 1
         ) AS next
     )
     SELECT owner_kind || '/' || owner_id, entry_id, created_at
     FROM (SELECT * FROM owners LIMIT $1) AS few
     WHERE blocked_reason IS NULL ORDER BY entry_id LIMIT 1",
);
static LAST_POSTING: Statement =
    Statement::kept("SELECT last_ended_at FROM exa_billing.job_runs WHERE job_name = $1");
static BLOCKED: Statement = Statement::over_queue(
    "SELECT count(*), min(blocked_reason) FROM (
         SELECT blocked_reason FROM exa_billing.unposted_spend
         WHERE blocked_reason IS NOT NULL LIMIT $1) AS few",
);
static DEAD_ROWS: Statement = Statement::kept(
    "SELECT pg_catalog.pg_stat_get_dead_tuples('exa_billing.unposted_spend'::regclass)",
);
static OLDEST_DUE: Statement = Statement::over_queue(
    "SELECT due_at FROM exa_billing.evaluation_queue ORDER BY due_at LIMIT 1",
);
static FAILING: Statement = Statement::over_queue(
    "SELECT count(*) OVER (), owner_kind, owner_id, failure_count::bigint, coalesce(last_error, '')
     FROM (SELECT owner_kind, owner_id, failure_count, last_error FROM exa_billing.evaluation_queue
           WHERE failure_count > 0 LIMIT $1) AS few
     ORDER BY failure_count DESC LIMIT 1",
);
static OLDEST_DELIVERY: Statement = Statement::over_queue(
    "SELECT next_attempt_at FROM exa_billing.notification_deliveries
     WHERE status IN ('pending', 'sending') ORDER BY next_attempt_at LIMIT 1",
);
static DEAD_DELIVERIES: Statement = Statement::over_queue(
    "SELECT last_error FROM exa_billing.notification_deliveries
     WHERE status = 'dead' AND finished_at > $1 ORDER BY finished_at DESC LIMIT $2",
);
static PROOFS: Statement = Statement::kept(
    "SELECT finished_at IS NOT NULL, coalesce(finished_at, started_at), violation_count, first_violation
     FROM exa_billing.books_proof",
);
static HOLES: Statement = Statement::over_queue(
    "SELECT count(*) OVER (), interval_id, detected_at, owner_kind, owner_id, from_hour, to_hour, reason
     FROM (SELECT * FROM exa_billing.spend_degraded_intervals
           WHERE resolved_at IS NULL ORDER BY from_hour, to_hour LIMIT $1) AS few
     ORDER BY detected_at LIMIT 1",
);
// Members of the extension: neither verify_books() nor setup() looks after them.
static EVENT_TRIGGERS: Statement = Statement::kept(
    "SELECT wanted.name
     FROM unnest($1) AS wanted(name)
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_event_trigger AS e
                       WHERE e.evtname = wanted.name AND e.evtenabled = 'A')
     ORDER BY wanted.name",
);

fn counted(statement: &'static Statement, limit: i64) -> Result<i64> {
    Ok(statement.read_row(values![limit], |row| row.get::<i64>(1))?.unwrap_or_default())
}

/// How many rows wait, whose waits longest, and since when: of all rows, or where more wait than are
/// looked at, of these and of the first owners'.
fn waiting() -> Result<(i64, Option<(String, Instant)>)> {
    let read = |statement: &'static Statement, limit: i64| {
        statement.read_row(values![limit], |row| {
            let id = row.get::<Uuid>(2)?;
            Ok((id, row.get::<String>(1)?, waiting_rules::queued_at(id, row.get(3)?)))
        })
    };
    let rows = counted(&ROWS, MAX_COUNTED_ROWS)?;
    let mut oldest = read(&OLDEST_OF_FEW, MAX_COUNTED_ROWS)?;
    if rows >= MAX_COUNTED_ROWS {
        let of_owners = read(&OLDEST_OF_OWNERS, MAX_OWNERS)?;
        oldest = oldest.into_iter().chain(of_owners).min();
    }
    Ok((rows, oldest.map(|(_, owner, since)| (owner, since))))
}

pub fn unposted(now: Instant) -> Result<Finding> {
    let (rows, oldest) = waiting()?;
    Ok(waiting_rules::unposted(rows, oldest.map(|(_, since)| since), now))
}

pub fn skipped(now: Instant, posting: &str) -> Result<Finding> {
    let (_, oldest) = waiting()?;
    let last = LAST_POSTING.read_row(values![posting], |row| row.maybe::<Instant>(1))?;
    let oldest = oldest.as_ref().map(|(owner, since)| (owner.as_str(), *since));
    Ok(waiting_rules::skipped(oldest, last.flatten(), now))
}

pub fn blocked(_now: Instant) -> Result<Finding> {
    let found = BLOCKED.read_row(values![MAX_COUNTED_TROUBLES], |row| {
        Ok((row.get::<i64>(1)?, row.maybe::<String>(2)?))
    })?;
    let (rows, reason) = found.unwrap_or_default();
    Ok(waiting_rules::blocked(rows, reason.as_deref()))
}

pub fn dead_rows(_now: Instant) -> Result<Finding> {
    let rows = DEAD_ROWS.read_row(&[], |row| row.maybe::<i64>(1))?;
    Ok(waiting_rules::dead_rows(rows.flatten().unwrap_or_default()))
}

pub fn evaluation_backlog(now: Instant) -> Result<Finding> {
    let due = OLDEST_DUE.read_row(&[], |row| row.get::<Instant>(1))?;
    Ok(waiting_rules::evaluation_backlog(due, now))
}

pub fn failing_evaluations(_now: Instant) -> Result<Finding> {
    let found = FAILING.read_row(values![MAX_COUNTED_TROUBLES], |row| {
        let worst = Failing {
            owner_kind: row.get(2)?,
            owner_id: row.get(3)?,
            failures: row.get(4)?,
            error: row.get(5)?,
        };
        Ok((row.get::<i64>(1)?, worst))
    })?;
    let count = found.as_ref().map_or(0, |(count, _)| *count);
    Ok(waiting_rules::failing_evaluations(count, found.as_ref().map(|(_, worst)| worst)))
}

pub fn deliveries_pending(now: Instant) -> Result<Finding> {
    let due = OLDEST_DELIVERY.read_row(&[], |row| row.get::<Instant>(1))?;
    Ok(waiting_rules::deliveries_pending(due, now))
}

pub fn deliveries_dead(now: Instant) -> Result<Finding> {
    let since = now.plus_microseconds(-24 * MICROSECONDS_PER_HOUR);
    let arguments = values![since, MAX_COUNTED_TROUBLES];
    let errors = DEAD_DELIVERIES.read(arguments, |row| row.maybe::<String>(1))?;
    let count = i64::try_from(errors.len()).unwrap_or(i64::MAX);
    Ok(waiting_rules::deliveries_dead(count, errors.first().and_then(Option::as_deref)))
}

pub fn proof(now: Instant) -> Result<Finding> {
    let proofs = PROOFS.read(&[], |row| {
        Ok(Proof {
            is_finished: row.get(1)?,
            at: row.get(2)?,
            violations: row.get(3)?,
            first: row.maybe(4)?,
        })
    })?;
    Ok(books_rules::proof(&proofs, now))
}

pub fn coverage(now: Instant) -> Result<Finding> {
    let found = HOLES.read_row(values![MAX_COUNTED_TROUBLES], |row| {
        let hole = Hole {
            id: row.get(2)?,
            since: row.get(3)?,
            owner: row.maybe(4)?.zip(row.maybe(5)?),
            from: row.get(6)?,
            to: row.get(7)?,
            reason: row.get(8)?,
        };
        Ok((row.get::<i64>(1)?, hole))
    })?;
    let count = found.as_ref().map_or(0, |(count, _)| *count);
    Ok(books_rules::coverage(count, found.as_ref().map(|(_, hole)| hole), now))
}

pub fn functions(_now: Instant) -> Result<Finding> {
    let (installed, library) = books::versions_of_functions()?;
    Ok(books_rules::functions(installed.as_deref(), library))
}

pub fn guards(_now: Instant) -> Result<Finding> {
    let guards = verify::missing_guards()?.into_iter().map(Missing::Guard);
    let wanted = EVENT_TRIGGER_NAMES.to_vec();
    let disabled = EVENT_TRIGGERS.read(values![wanted], |row| row.get::<String>(1))?;
    let event_triggers = disabled.into_iter().map(Missing::EventTrigger);
    Ok(books_rules::guards(&guards.chain(event_triggers).collect::<Vec<_>>()))
}

pub fn tampering(_now: Instant) -> Result<Finding> {
    match books::require_untampered() {
        Ok(()) => Ok(books_rules::tampering(None)),
        Err(error) if error.kind == Kind::NoRight => {
            Ok(books_rules::tampering(Some(&error.detail.unwrap_or(error.message))))
        }
        Err(error) => Err(error),
    }
}

pub fn months_ahead(now: Instant) -> Result<Finding> {
    books_rules::months_ahead(now.month()?, &partitions::months_of_journals()?)
}
