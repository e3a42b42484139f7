//! What is known of owners' completed hours, for those of whom it matters.

use super::decision::Moment;
use super::figures::{Reading, columns, hours_from_journals};
use super::policy::{HISTORY_HOURS, History};
use super::standing::{Known, at};
use crate::error::Result;
use crate::evidence::Interval;
use crate::spi::{Statement, values};
use crate::time::Instant;

static HOURS: Statement =
    Statement::over_queue(include_str!("../../sql/statements/hours_of_owners.sql"));
static SPENT_BEFORE: Statement =
    Statement::over_queue(include_str!("../../sql/statements/spent_before.sql"));
// Hours before the rollups, or that are not to be trusted, may be in the journals alone.
// OFFSET keeps the question one of each owner by itself: a join would read everybody's journals.
static IN_JOURNALS_BEFORE: Statement = Statement::fresh_over_queue(
    "SELECT (o.place - 1)::int
     FROM unnest($1, $2, $3) WITH ORDINALITY AS o(owner_kind, owner_id, from_hour, place)
     WHERE EXISTS (
         SELECT FROM exa_billing.spend_entries AS e
         WHERE e.owner_kind = o.owner_kind AND e.owner_id = o.owner_id
           AND e.created_at < o.from_hour AND e.created_at < $4
         OFFSET 0)",
);

/// The first hour from which on an owner's completed hours say what is usual.
pub fn start(known: &Known, moment: Moment) -> Instant {
    let earliest = moment.as_of.hour_start().plus_hours(-HISTORY_HOURS - 1);
    let since_episode =
        known.standing.anomaly_hour().map(|hour| hour.plus_hours(1 - HISTORY_HOURS));
    since_episode.map_or(earliest, |since| since.min(earliest))
}

/// What is usual, where it matters.
pub fn add(readings: &mut [Reading], moment: Moment, known_from: Option<Instant>) -> Result<()> {
    let end = moment.as_of.hour_start();
    let mut asked: Vec<&mut Reading> = readings
        .iter_mut()
        .filter(|reading| reading.known.standing.needs_history(moment, &reading.figures))
        .collect();
    if asked.is_empty() {
        return Ok(());
    }
    let from: Vec<Instant> = asked.iter().map(|reading| start(reading.known, moment)).collect();
    let (kinds, ids) = columns(&asked);
    HOURS.read(values![kinds, ids, from.clone(), end], |row| {
        let reading = at(&mut asked, row)?;
        reading.figures.history.variable.insert(row.get(2)?, row.get(3)?);
        Ok(())
    })?;
    for (reading, &from) in asked.iter_mut().zip(&from) {
        if reading.is_degraded || known_from.is_none_or(|known_from| from < known_from) {
            let window = Interval { from, to: end };
            reading.figures.history.variable = hours_from_journals(&reading.known.owner, window)?;
        }
    }
    let first_hours = first_spend(&asked, &from)?;
    for (reading, first_spend_hour) in asked.into_iter().zip(first_hours) {
        let variable = std::mem::take(&mut reading.figures.history.variable);
        reading.figures.history = History { first_spend_hour, known_from, variable };
    }
    Ok(())
}

/// Since when each of them has spent: the first hour asked for stands for all before it.
fn first_spend(asked: &[&mut Reading], from: &[Instant]) -> Result<Vec<Option<Instant>>> {
    let mut spent_before = vec![false; asked.len()];
    let (kinds, ids) = columns(asked);
    SPENT_BEFORE.read(values![kinds, ids, from.to_vec()], |row| {
        *at(&mut spent_before, row)? = true;
        Ok(())
    })?;
    if spent_before.contains(&false) {
        let (kinds, ids) = columns(asked);
        let latest = from.iter().max().copied();
        IN_JOURNALS_BEFORE.read(values![kinds, ids, from.to_vec(), latest], |row| {
            *at(&mut spent_before, row)? = true;
            Ok(())
        })?;
    }
    let first = |((reading, &from), spent_before): ((&&mut Reading, &Instant), bool)| {
        let first_with_rows = || reading.figures.history.variable.keys().next().copied();
        if spent_before { Some(from) } else { first_with_rows() }
    };
    Ok(asked.iter().zip(from).zip(spent_before).map(first).collect())
}
