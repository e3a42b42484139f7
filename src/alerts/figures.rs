//! The spend of many owners at one instant, by a handful of statements whatever their number.

use super::decision::{Figures, Moment};
use super::history;
use super::settings_rules::WINDOWS;
use super::standing::{Known, at};
use crate::error::{BillingError, Result};
use crate::evidence::{self, Interval};
use crate::owner::Owner;
use crate::sources::{self, Category};
use crate::spi::{Statement, values};
use crate::time::Instant;
use std::collections::BTreeMap;

static QUEUE: Statement =
    Statement::over_queue(include_str!("../../sql/statements/queue_of_owners.sql"));
// Where the journals are not as they were made, or the time is of two months. Planned each time, so that
// few partitions are looked at. Each owner by itself: a join over the view would read everybody's month.
static PART_OF_HOUR: Statement = Statement::fresh_over_queue(
    "SELECT (o.place - 1)::int, f.spend_category, least(f.amount, 9223372036854775807)::bigint
     FROM unnest($1, $2) WITH ORDINALITY AS o(owner_kind, owner_id, place)
     CROSS JOIN LATERAL (
         SELECT e.spend_category, sum(e.amount_microdollars) AS amount
         FROM exa_billing.spend_entries AS e
         WHERE e.owner_kind = o.owner_kind AND e.owner_id = o.owner_id
           AND e.created_at >= $3 AND e.created_at < $4
         GROUP BY e.spend_category
     ) AS f",
);
static DEGRADED: Statement = Statement::kept(
    "SELECT DISTINCT (o.place - 1)::int
     FROM unnest($1, $2) WITH ORDINALITY AS o(owner_kind, owner_id, place)
     JOIN exa_billing.spend_degraded_intervals AS d
         ON d.owner_kind IS NULL OR (d.owner_kind = o.owner_kind AND d.owner_id = o.owner_id)
     WHERE d.resolved_at IS NULL AND d.from_hour < $4 AND d.to_hour > $3",
);

/// An owner whose spend is read, and what was found.
pub struct Reading<'a> {
    pub known: &'a Known,
    pub figures: Figures,
    /// Some hours' rollups are not trusted: everything is read the slow way.
    pub is_degraded: bool,
}

/// The figures of each owner, in their order, on the caller's snapshot.
pub fn read(known: &[Known], moment: Moment) -> Result<Vec<Figures>> {
    let mut readings: Vec<Reading> = known
        .iter()
        .map(|known| Reading { known, figures: Figures::default(), is_degraded: false })
        .collect();
    mark_degraded(&mut readings, moment)?;
    let windows = Windows::of(moment, sources::covered_from()?);
    add_hours(&mut readings, &windows)?;
    add_parts_of_hours(&mut readings, &windows)?;
    for reading in readings.iter_mut().filter(|reading| reading.is_degraded) {
        read_from_journals(reading, moment)?;
    }
    history::add(&mut readings, moment, windows.known_from)?;
    readings.iter().try_for_each(within_bigint)?;
    Ok(readings.into_iter().map(|reading| reading.figures).collect())
}

fn window_start(moment: Moment, window: usize) -> Instant {
    moment.as_of.plus_hours(-WINDOWS[window].2)
}

/// Which hours are read from the rollups. They hold every hour from `known_from` on; what lies before
/// it is in the journals alone.
struct Windows {
    as_of: Instant,
    known_from: Option<Instant>,
    starts: [Instant; 3],
    /// The first hours of the windows that the rollups answer for.
    rolled_from: [Instant; 3],
    /// The hour just completed, and where the rollups begin to answer for it.
    previous: Instant,
    previous_rolled_from: Instant,
    /// The start of the hour that is not over yet.
    end: Instant,
}

impl Windows {
    fn of(moment: Moment, known_from: Option<Instant>) -> Self {
        let end = moment.as_of.hour_start();
        let previous = end.plus_hours(-1);
        let starts = [0, 1, 2].map(|window| window_start(moment, window));
        let rolled = |start: Instant| match known_from {
            Some(known_from) => start.hour_ceiling().max(known_from.hour_ceiling()).min(end),
            None => end,
        };
        Self {
            as_of: moment.as_of,
            known_from,
            starts,
            rolled_from: starts.map(rolled),
            previous,
            previous_rolled_from: rolled(previous),
            end,
        }
    }
}

pub fn columns<'a>(readings: &[&'a mut Reading]) -> (Vec<&'a str>, Vec<&'a str>) {
    readings
        .iter()
        .map(|reading| (reading.known.owner.kind.as_str(), reading.known.owner.id.as_str()))
        .unzip()
}

fn mark_degraded(readings: &mut [Reading], moment: Moment) -> Result<()> {
    let earliest = readings.iter().map(|reading| history::start(reading.known, moment)).min();
    let from = earliest.unwrap_or(moment.as_of).min(window_start(moment, 2).hour_start());
    let (kinds, ids) = columns(&readings.iter_mut().collect::<Vec<_>>());
    DEGRADED.read(values![kinds, ids, from, moment.as_of], |row| {
        at(readings, row)?.is_degraded = true;
        Ok(())
    })?;
    Ok(())
}

/// The whole hours of the windows, and the hour just completed.
fn add_hours(readings: &mut [Reading], windows: &Windows) -> Result<()> {
    let mut asked: Vec<&mut Reading> = readings
        .iter_mut()
        .filter(|reading| reading.known.standing.settings.spend_alerts)
        .collect();
    let first_hours: Vec<Instant> = asked
        .iter()
        .map(|reading| {
            let thresholds = reading.known.standing.thresholds();
            let longest = thresholds.iter().rposition(Option::is_some);
            longest.map_or(windows.previous_rolled_from, |window| windows.rolled_from[window])
        })
        .collect();
    add_totals(&mut asked, &first_hours, windows)?;
    let (kinds, ids) = columns(&asked);
    let [day, week, month] = windows.rolled_from;
    let arguments =
        values![kinds, ids, first_hours, day, week, month, windows.previous, windows.end];
    QUEUE.read(arguments, |row| {
        let figures = &mut at(&mut asked, row)?.figures;
        for (total, column) in figures.totals.iter_mut().zip(2..) {
            *total = total.saturating_add(row.get(column)?);
        }
        figures.previous_hour = figures.previous_hour.saturating_add(row.get(5)?);
        Ok(())
    })?;
    Ok(())
}

/// What is posted of them, from the first hour that is asked for of each.
fn add_totals(
    readings: &mut [&mut Reading],
    first_hours: &[Instant],
    windows: &Windows,
) -> Result<()> {
    let mut sums = vec![([0_i128; 3], 0_i128); readings.len()];
    let asked: Vec<(&Owner, Interval)> = readings
        .iter()
        .zip(first_hours)
        .map(|(reading, &from)| (&reading.known.owner, Interval { from, to: windows.end }))
        .collect();
    let [day, week, month] = windows.rolled_from;
    let cuts = [day, week, month, windows.previous];
    let known_from = windows.known_from.unwrap_or(windows.end);
    evidence::each_total(&asked, &cuts, known_from, |place, start, category, amount| {
        let (totals, previous_hour) = &mut sums[place];
        for (total, from) in totals.iter_mut().zip(windows.rolled_from) {
            if start >= from {
                *total += amount;
            }
        }
        if start == windows.previous && category == Category::Variable {
            *previous_hour += amount;
        }
        Ok(())
    })?;
    for (reading, (totals, previous_hour)) in readings.iter_mut().zip(sums) {
        reading.figures.totals = totals.map(largest);
        reading.figures.previous_hour = largest(previous_hour);
    }
    Ok(())
}

/// What lies before the first of these hours, and the hour that is not over yet.
fn add_parts_of_hours(readings: &mut [Reading], windows: &Windows) -> Result<()> {
    let current = Interval { from: windows.end, to: windows.as_of };
    let mut asked: Vec<&mut Reading> = readings
        .iter_mut()
        .filter(|reading| reading.known.standing.settings.spend_alerts)
        .collect();
    add_part(&mut asked, current, |figures, category, amount| {
        for total in &mut figures.totals {
            *total = total.saturating_add(amount);
        }
        if category == Category::Variable {
            figures.current_hour = figures.current_hour.saturating_add(amount);
        }
    })?;
    let previous = Interval { from: windows.previous, to: windows.previous_rolled_from };
    add_part(&mut asked, previous, |figures, category, amount| {
        if category == Category::Variable {
            figures.previous_hour = figures.previous_hour.saturating_add(amount);
        }
    })?;
    for window in 0..WINDOWS.len() {
        let part = Interval { from: windows.starts[window], to: windows.rolled_from[window] };
        let has_threshold =
            |reading: &&mut Reading| reading.known.standing.thresholds()[window].is_some();
        let mut asked: Vec<&mut Reading> = readings.iter_mut().filter(has_threshold).collect();
        add_part(&mut asked, part, |figures, _, amount| {
            figures.totals[window] = figures.totals[window].saturating_add(amount);
        })?;
    }
    Ok(())
}

fn add_part(
    readings: &mut [&mut Reading],
    part: Interval,
    add: impl Fn(&mut Figures, Category, i64),
) -> Result<()> {
    if part.from >= part.to || readings.is_empty() {
        return Ok(());
    }
    if !add_entries(readings, part, &add)? {
        let (kinds, ids) = columns(readings);
        PART_OF_HOUR.read(values![kinds, ids, part.from, part.to], |row| {
            let category = Category::parse(Some(&row.get::<String>(2)?))?;
            add(&mut at(readings, row)?.figures, category, row.get(3)?);
            Ok(())
        })?;
    }
    let owners = readings.iter().map(|reading| &reading.known.owner);
    let attached = sources::attached_charges_of(owners, part.from, part.to)?;
    if attached.is_empty() {
        return Ok(());
    }
    let places: BTreeMap<&Owner, usize> =
        readings.iter().enumerate().map(|(place, reading)| (&reading.known.owner, place)).collect();
    let found = attached.iter().filter_map(|charge| Some((*places.get(&charge.owner)?, charge)));
    for (place, charge) in found.collect::<Vec<_>>() {
        let category = Category::parse(Some(charge.dimension.category))?;
        add(&mut readings[place].figures, category, charge.amount);
    }
    Ok(())
}

/// What the product's own journals hold of it; false when only a statement can tell.
fn add_entries(
    readings: &mut [&mut Reading],
    part: Interval,
    add: impl Fn(&mut Figures, Category, i64),
) -> Result<bool> {
    let owners: Vec<&Owner> = readings.iter().map(|reading| &reading.known.owner).collect();
    let mut sums: BTreeMap<(usize, Category), i128> = BTreeMap::new();
    let is_read = sources::each_entry_of(&owners, (part.from, part.to), |place, entry| {
        *sums.entry((place, entry.category)).or_default() += i128::from(entry.amount);
        Ok(())
    })?;
    for ((place, category), sum) in sums {
        add(&mut readings[place].figures, category, largest(sum));
    }
    Ok(is_read)
}

/// A sum that is larger than can be is refused in the end.
fn largest(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(i64::MAX)
}

fn read_from_journals(reading: &mut Reading, moment: Moment) -> Result<()> {
    let owner = &reading.known.owner;
    for (window, threshold) in reading.known.standing.thresholds().into_iter().enumerate() {
        if threshold.is_some() {
            let window_of = Interval { from: window_start(moment, window), to: moment.as_of };
            let hourly = evidence::hourly(owner, window_of, moment.as_of)?;
            reading.figures.totals[window] =
                hourly.amounts(window_of)?.map_or(0, |amounts| amounts.total);
        }
    }
    let end = moment.as_of.hour_start();
    let previous = Interval { from: end.plus_hours(-1), to: end };
    let variable = hours_from_journals(owner, previous)?;
    reading.figures.previous_hour = variable.values().copied().next().unwrap_or_default();
    Ok(())
}

/// Variable spend by hour, of the hours that have rows, wherever they are to be read from.
pub fn hours_from_journals(owner: &Owner, window: Interval) -> Result<BTreeMap<Instant, i64>> {
    let hourly = evidence::hourly(owner, window, window.to)?;
    let mut variable = BTreeMap::new();
    for from in window.hours() {
        let hour = Interval { from, to: from.plus_hours(1) };
        if let Some(amounts) = hourly.amounts(hour)?
            && amounts.records != 0
        {
            variable.insert(from, amounts.variable);
        }
    }
    Ok(variable)
}

/// A sum that is as large as can be may have been larger.
fn within_bigint(reading: &Reading) -> Result<()> {
    let Figures { totals, current_hour, previous_hour, history } = &reading.figures;
    let sums = totals.iter().chain([current_hour, previous_hour]).chain(history.variable.values());
    if sums.into_iter().any(|sum| *sum == i64::MAX) {
        return Err(BillingError::out_of_range("the spend of an owner is out of range"));
    }
    Ok(())
}
