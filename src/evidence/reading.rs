//! Reading an owner's spend: rollups where they are to be trusted, journals elsewhere, all on the
//! caller's snapshot.

use super::drivers::{Driver, Drivers};
use super::figures::{Amounts, Hourly};
use super::totals;
use super::window::{Interval, Parts};
use crate::accounts;
use crate::error::Result;
use crate::owner::Owner;
use crate::rollups::Coverage;
use crate::sources::{self, Category, Charge, Dimension};
use crate::spi::{Statement, Value};
use crate::time::Instant;

static QUEUE: Statement =
    Statement::over_queue(include_str!("../../sql/statements/spend_of_queue.sql"));
static DRIVERS: Statement =
    Statement::over_queue(include_str!("../../sql/statements/drivers_of_hours.sql"));

/// An owner's spend in a window: what is known of its hours, and what the journals hold of those
/// parts for which the rollups do not answer.
pub struct Spend<'a> {
    owner: &'a Owner,
    pub coverage: Coverage,
    parts: Parts,
    charges: Vec<Charge>,
}

impl<'a> Spend<'a> {
    /// Charges count until `until`; coverage is known for the whole window.
    pub fn read(owner: &'a Owner, window: Interval, until: Instant) -> Result<Self> {
        let coverage = Coverage::read(Some(owner), window.from, window.to)?;
        let counted = window.cut_to(Interval { from: window.from, to: until });
        let parts = Parts::of(counted, &coverage);
        let mut charges = Vec::new();
        for part in &parts.direct {
            charges.extend(sources::charges(owner, part.from, part.to)?);
        }
        Ok(Self { owner, coverage, parts, charges })
    }

    pub fn hourly(&self) -> Result<Hourly> {
        let mut hourly = Hourly::new(self.coverage.clone());
        for charge in &self.charges {
            let category = Category::parse(Some(charge.dimension.category))?;
            hourly.add(charge.hour_start, category, charge.amount, charge.records);
        }
        self.parts.add_rolled(self.owner, Grain::Hours, &mut hourly)?;
        Ok(hourly)
    }

    pub fn drivers(&self) -> Result<Drivers> {
        let mut drivers = Drivers::default();
        self.add_drivers(&mut drivers)?;
        Ok(drivers)
    }

    pub fn add_drivers(&self, drivers: &mut Drivers) -> Result<()> {
        for charge in &self.charges {
            let driver = Driver {
                dimension: charge.dimension.clone(),
                actor_user_id: charge.actor_user_id.clone(),
            };
            drivers.add(driver, charge.amount, charge.records);
        }
        if let Some(arguments) = self.parts.rolled_arguments(self.owner) {
            DRIVERS.read(&arguments, |row| {
                let text = |column| row.get::<String>(column);
                let parts = [text(2)?, text(3)?, text(4)?, text(5)?, text(6)?];
                let driver = Driver {
                    dimension: Dimension::known(&text(1)?, parts.each_ref().map(String::as_str))?,
                    actor_user_id: row.maybe(7)?,
                };
                drivers.add(driver, row.get(8)?, row.get(9)?);
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Of this reading whole UTC hours, without reading the journals again.
    pub fn of_hours(&self, hours: Interval) -> Self {
        let is_inside =
            |charge: &&Charge| hours.from <= charge.hour_start && charge.hour_start < hours.to;
        Self {
            owner: self.owner,
            coverage: self.coverage.clone(),
            parts: self.parts.cut_to(hours),
            charges: self.charges.iter().filter(is_inside).cloned().collect(),
        }
    }
}

/// How finely an owner's spend is told apart.
#[derive(Clone, Copy)]
enum Grain {
    Hours,
    /// UTC days that are known as a whole stand at their first hour.
    Days,
}

/// What an owner has spent in each hour of a window, charges before `until` counted; not what for, so that
/// no statement need be planned for partial hours.
pub fn hourly(owner: &Owner, window: Interval, until: Instant) -> Result<Hourly> {
    spent_by(Grain::Hours, owner, window, until)
}

/// The same for sums of whole UTC days and of what of the window lies before and after these.
pub fn daily(owner: &Owner, window: Interval, until: Instant) -> Result<Hourly> {
    spent_by(Grain::Days, owner, window, until)
}

fn spent_by(grain: Grain, owner: &Owner, window: Interval, until: Instant) -> Result<Hourly> {
    let coverage = Coverage::read(Some(owner), window.from, window.to)?;
    let counted = window.cut_to(Interval { from: window.from, to: until });
    let parts = Parts::of(counted, &coverage);
    let mut hourly = Hourly::new(coverage);
    let is_any_attached = !parts.direct.is_empty() && sources::is_any_attached()?;
    for part in &parts.direct {
        add_entries(owner, *part, is_any_attached, &mut hourly)?;
    }
    parts.add_rolled(owner, grain, &mut hourly)?;
    Ok(hourly)
}

fn add_entries(
    owner: &Owner,
    part: Interval,
    is_any_attached: bool,
    hourly: &mut Hourly,
) -> Result<()> {
    let is_read = sources::each_entry(owner, (part.from, part.to), |entry| {
        let hour = entry.created_at.hour_start();
        hourly.add(hour, entry.category, entry.amount, entry.records);
        Ok(())
    })?;
    let charges = match (is_read, is_any_attached) {
        (true, false) => return Ok(()),
        (true, true) => sources::attached_charges(Some(owner), part.from, part.to)?,
        (false, _) => sources::charges(owner, part.from, part.to)?,
    };
    for charge in &charges {
        let category = Category::parse(Some(charge.dimension.category))?;
        hourly.add(charge.hour_start, category, charge.amount, charge.records);
    }
    Ok(())
}

impl Parts {
    /// Adds what the rollups and the queue have of the rolled hours.
    fn add_rolled(&self, owner: &Owner, grain: Grain, hourly: &mut Hourly) -> Result<()> {
        let Some([kind, id, from, to, edges]) = self.rolled_arguments(owner) else {
            return Ok(());
        };
        for hours in &self.rolled {
            let days = match grain {
                Grain::Hours => Interval { from: hours.to, to: hours.to },
                Grain::Days => hours.whole_days(),
            };
            let before = Interval { from: hours.from, to: days.from };
            let after = Interval { from: days.to, to: hours.to };
            for (totals, part) in
                [(&totals::HOURS, before), (&totals::DAYS, days), (&totals::HOURS, after)]
            {
                if part.from < part.to {
                    totals.each(owner, part, |start, category, amount, records| {
                        hourly.add(start, category, amount, records);
                        Ok(())
                    })?;
                }
            }
        }
        let begin = Value::from(accounts::read(owner)?.posted_before);
        QUEUE.read(&[kind, id, from, to, edges, begin], |row| {
            let category = Category::parse(Some(&row.get::<String>(2)?))?;
            hourly.add(row.get(1)?, category, row.get(3)?, row.get(4)?);
            Ok(())
        })?;
        Ok(())
    }

    /// What the statements are asked: the owner, from the first rolled hour to the last, and where
    /// between these rolled hours begin and end. None without any.
    fn rolled_arguments(&self, owner: &Owner) -> Option<[Value; 5]> {
        let (first, last) = (self.rolled.first()?, self.rolled.last()?);
        Some([
            Value::from(owner.kind.as_str()),
            Value::from(&owner.id),
            Value::from(first.from),
            Value::from(last.to),
            Value::from(self.edges()),
        ])
    }
}

/// Total, variable, scheduled and record count as four result columns; null where nothing is known.
pub fn amount_columns(amounts: Option<Amounts>) -> [Value; 4] {
    let column = |figure: fn(&Amounts) -> i64| Value::from(amounts.as_ref().map(figure));
    [
        column(|amounts| amounts.total),
        column(|amounts| amounts.variable),
        column(|amounts| amounts.scheduled),
        column(|amounts| amounts.records),
    ]
}
