//! `rebuild_rollups()`: an owner's totals, drivers and member days, put right out of the
//! journals while charging goes on.

use super::history;
use super::hours::Hours;
use super::repair::{Changes, Figure, changes};
use super::rows::{self, DayKey, DriverKey, Entry, TotalKey, What};
use crate::error::Result;
use crate::owner::{Owner, OwnerKind};
use crate::sources::{self, Category, Charge, Dimension};
use crate::spi::{self, Answer};
use crate::time::{Day, Instant};
use crate::{accounts, books};
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a rebuild has done.
#[derive(Default)]
pub struct Rebuilt {
    /// Totals of hours and days, hourly drivers and member days that were wrong.
    pub figures: i64,
    /// Whether the lock of new dimensions is held now.
    pub added_dimensions: bool,
}

/// What differs in the hours of one month.
struct Differences {
    hours: Changes<TotalKey>,
    days: Changes<TotalKey>,
    drivers: Changes<DriverKey>,
    member_days: Changes<DayKey>,
    dimension_ids: BTreeMap<Dimension, Uuid>,
}

impl Differences {
    /// What posted rows must be is what the journals say, less what waits: both are read here, on
    /// the caller's one snapshot. A charge that commits later is in neither, and will be posted.
    fn read(owner: &Owner, hours: Hours) -> Result<Self> {
        // A day is made of all its hours.
        let read = hours.whole_days()?;
        let journals: Vec<Entry> =
            sources::charges(owner, read.from, read.to)?.into_iter().map(Entry::from).collect();
        let unposted = rows::unposted(owner, read)?;
        let mut dimension_ids = BTreeMap::new();
        let posted_drivers = rows::drivers(owner, hours, &mut dimension_ids)?;
        let member_days = if owner.kind == OwnerKind::Organization {
            let posted = rows::member_days(&owner.id, read)?;
            changes(member_days(&journals)?, member_days(&unposted)?, posted)?
        } else {
            changes([], [], [])?
        };
        Ok(Self {
            hours: changes(
                totals(&journals, hours),
                totals(&unposted, hours),
                rows::HOURS.read(owner, hours)?,
            )?,
            days: changes(
                of_days(totals(&journals, read)),
                of_days(totals(&unposted, read)),
                rows::DAYS.read(owner, read)?,
            )?,
            drivers: changes(drivers(&journals, hours), drivers(&unposted, hours), posted_drivers)?,
            member_days,
            dimension_ids,
        })
    }

    fn are_none(&self) -> bool {
        self.hours.are_none()
            && self.days.are_none()
            && self.drivers.are_none()
            && self.member_days.are_none()
    }

    fn apply(mut self, owner: &Owner) -> Result<Rebuilt> {
        let wanted: BTreeSet<Dimension> =
            self.drivers.put.iter().filter_map(|(key, _)| key.what.known()).cloned().collect();
        let added_dimensions = rows::make_known(&wanted, &mut self.dimension_ids)?;
        rows::write_member_days(&owner.id, &self.member_days.put, &self.member_days.remove)?;
        rows::HOURS.write(owner, &self.hours)?;
        rows::DAYS.write(owner, &self.days)?;
        let drivers = &self.drivers;
        rows::write_drivers(owner, &drivers.put, &drivers.remove, &self.dimension_ids)?;
        let figures =
            self.hours.wrong + self.days.wrong + self.drivers.wrong + self.member_days.wrong;
        Ok(Rebuilt { figures, added_dimensions })
    }
}

impl From<Charge> for Entry {
    fn from(charge: Charge) -> Self {
        Entry {
            hour_start: charge.hour_start,
            dimension: charge.dimension,
            actor_user_id: charge.actor_user_id,
            figure: Figure { amount: charge.amount, records: charge.records },
        }
    }
}

fn totals(entries: &[Entry], hours: Hours) -> impl Iterator<Item = (TotalKey, Figure)> {
    let within = entries.iter().filter(move |entry| hours.contains(entry.hour_start));
    within.map(|entry| ((entry.hour_start, entry.dimension.category.to_owned()), entry.figure))
}

fn of_days(
    totals: impl Iterator<Item = (TotalKey, Figure)>,
) -> impl Iterator<Item = (TotalKey, Figure)> {
    totals.map(|((hour_start, category), figure)| ((hour_start.day_start(), category), figure))
}

fn drivers(entries: &[Entry], hours: Hours) -> impl Iterator<Item = (DriverKey, Figure)> {
    let within = entries.iter().filter(move |entry| hours.contains(entry.hour_start));
    within.map(|entry| {
        let key = DriverKey {
            hour_start: entry.hour_start,
            what: What::Known(entry.dimension.clone()),
            actor_user_id: entry.actor_user_id.clone().unwrap_or_default(),
        };
        (key, entry.figure)
    })
}

/// Variable spend of known actors.
fn member_days(entries: &[Entry]) -> Result<Vec<(DayKey, Figure)>> {
    let variable =
        entries.iter().filter(|entry| entry.dimension.category == Category::Variable.as_str());
    let of_actors = variable
        .filter_map(|entry| Some((entry.actor_user_id.clone()?, entry.hour_start, entry.figure)));
    of_actors
        .map(|(actor, hour_start, figure): (String, Instant, Figure)| {
            let day: Day = hour_start.day()?;
            Ok(((actor, day), Figure { amount: figure.amount, records: 0 }))
        })
        .collect()
}

/// Puts the rollups of an owner right in a range of any length, a month at a time.
///
/// Locks: the account row (opened only when there is something to put right), under which nobody
/// posts; then, where the journals bring a dimension that is not known, the lock of new
/// dimensions. Charges go on: they append to journal and queue.
pub fn rebuild(owner: &Owner, hours: Hours) -> Result<Rebuilt> {
    let pieces = || history::pieces(Some(owner), hours);
    if !accounts::lock_existing(owner)? {
        let is_right = spi::on_fresh_snapshot(|| {
            for piece in pieces()? {
                if !Differences::read(owner, piece)?.are_none() {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        if is_right {
            return Ok(Rebuilt::default());
        }
        accounts::lock(owner)?;
    }
    spi::on_fresh_snapshot(|| {
        let mut all = Rebuilt::default();
        for piece in pieces()? {
            let rebuilt = Differences::read(owner, piece)?.apply(owner)?;
            all.figures += rebuilt.figures;
            all.added_dimensions |= rebuilt.added_dimensions;
        }
        Ok(all)
    })
}

/// Puts an owner's totals, drivers and member days right; returns how many were wrong.
#[pg_extern(sql = false)]
fn rebuild_rollups(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    from_hour: Option<Instant>,
    to_hour: Option<Instant>,
) -> Answer<i64> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let hours = Hours::parse(from_hour, to_hour)?;
    books::enter_for_writing("exa_billing.rebuild_rollups()")?;
    Ok(rebuild(&owner, hours)?.figures)
}
