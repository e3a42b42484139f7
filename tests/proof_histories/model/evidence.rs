//! Who spent what, when, on what: sums of charges between two instants.

use super::calendar::{DAY, HOUR, day_of, hour_of};
use super::{At, Charge, Model, Owner, Purpose};
use std::collections::BTreeMap;

/// From when on an hour without charges is known to have none. The books of the histories are told
/// so, in the midst of a month in which some of them play.
pub const KNOWN_FROM_DAY: (i32, u32, u32, u32) = (2024, 2, 12, 5);

pub fn known_from() -> At {
    let (year, month, day, hour) = KNOWN_FROM_DAY;
    super::calendar::on(year, month, day, hour)
}

/// Sums of charges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    pub variable: i64,
    pub scheduled: i64,
    pub records: i64,
}

impl Sums {
    pub fn of<'a>(charges: impl Iterator<Item = &'a Charge>) -> Self {
        let mut sums = Sums::default();
        for charge in charges {
            match charge.purpose.category {
                "variable" => sums.variable += charge.amount,
                _ => sums.scheduled += charge.amount,
            }
            sums.records += 1;
        }
        sums
    }

    pub fn total(self) -> i64 {
        self.variable + self.scheduled
    }

    fn told(self) -> String {
        format!("{} {} {} {}", self.total(), self.variable, self.scheduled, self.records)
    }
}

const NOTHING_KNOWN: &str = "- - - -";

/// A driver: what for, and by whom; nobody known comes first.
pub type Driver = (Purpose, Option<String>);

impl Model {
    /// Whether anything is known of an hour, charges until an instant counted.
    fn is_known(&self, owner: &Owner, hour: At, until: At) -> bool {
        hour >= known_from() || !self.between(owner, hour, (hour + HOUR).min(until)).is_empty()
    }

    fn is_degraded(&self, owner: &Owner, hour: At) -> bool {
        let open = self.degraded.iter().filter(|one| one.is_open && one.owner == *owner);
        open.into_iter().any(|one| (one.from..one.to).contains(&hour))
    }

    fn is_covered(&self, owner: &Owner, hour: At) -> bool {
        hour >= known_from() && !self.is_degraded(owner, hour)
    }

    /// Figures of hours, of which charges until an instant count; none where nothing is known.
    fn figures(&self, owner: &Owner, from: At, to: At, until: At) -> String {
        let is_known = hours(from, to).any(|hour| self.is_known(owner, hour, until));
        if !is_known {
            return NOTHING_KNOWN.to_owned();
        }
        Sums::of(self.between(owner, from, to.min(until)).iter()).told()
    }

    pub fn by_hour(&self, owner: &Owner, from: At, to: At) -> Vec<String> {
        let line = |hour| {
            let figures = self.figures(owner, hour, hour + HOUR, to);
            format!("{hour} {} {figures}", self.is_covered(owner, hour))
        };
        hours(from, to).map(line).collect()
    }

    pub fn rolling(&self, owner: &Owner, span: At, as_of: At) -> String {
        let from = as_of - span;
        let has_charges = |hour: At| {
            let charges = self.between(owner, from.max(hour), as_of.min(hour + HOUR));
            !charges.is_empty()
        };
        let mut touched = hours(hour_of(from), as_of);
        let is_complete = touched.all(|hour| hour >= known_from() || has_charges(hour));
        let is_known = known_from() < as_of || hours(hour_of(from), as_of).any(has_charges);
        let sums = Sums::of(self.between(owner, from, as_of).iter());
        let figures = if is_known { sums.told() } else { NOTHING_KNOWN.to_owned() };
        format!("{figures} {is_complete}")
    }

    /// The buckets of a range: start, end, covered hours, hours, figures.
    pub fn series(&self, owner: &Owner, range: &str, as_of: At) -> Vec<String> {
        let (from, to) = window(range, as_of);
        let days = match range {
            "7d" | "30d" => Some(1),
            "90d" => Some(7),
            _ => None,
        };
        let (mut lines, mut start) = (Vec::new(), from);
        while start < to {
            let end = days.map_or(start + HOUR, |days| day_of(start) + days * DAY).min(to);
            let covered = hours(start, end).filter(|hour| self.is_covered(owner, *hour)).count();
            let figures = self.figures(owner, start, end, as_of);
            lines.push(format!("{start} {end} {covered} {} {figures}", hours(start, end).count()));
            start = end;
        }
        lines
    }

    /// Totals of a range, and whether every hour of it is known.
    pub fn evidence(&self, owner: &Owner, range: &str, as_of: At) -> String {
        let (from, to) = window(range, as_of);
        let mut touched = hours(from, to);
        let is_complete = touched.all(|hour| self.is_known(owner, hour, as_of));
        format!("{} {is_complete}", self.figures(owner, from, to, as_of))
    }

    pub fn drivers(
        &self,
        owner: &Owner,
        from: At,
        to: At,
        only: Option<&str>,
    ) -> Vec<(Driver, i64, i64)> {
        let mut sums: BTreeMap<Driver, (i64, i64)> = BTreeMap::new();
        for charge in self.between(owner, from, to) {
            if only.is_none_or(|category| category == charge.purpose.category) {
                let sum = sums.entry((charge.purpose, charge.actor)).or_default();
                *sum = (sum.0 + charge.amount, sum.1 + 1);
            }
        }
        let mut drivers: Vec<_> =
            sums.into_iter().map(|(driver, (amount, count))| (driver, amount, count)).collect();
        drivers.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
        drivers
    }

    pub fn top(
        &self,
        owner: &Owner,
        from: At,
        to: At,
        only: Option<&str>,
        count: usize,
    ) -> Vec<String> {
        let mut drivers = self.drivers(owner, from, to, only);
        drivers.truncate(count);
        let line = |((purpose, actor), amount, count): (Driver, i64, i64)| {
            let actor = actor.unwrap_or("-".to_owned());
            format!("{} {actor} {amount} {count}", purpose_told(&purpose))
        };
        drivers.into_iter().map(line).collect()
    }
}

pub fn purpose_told(purpose: &Purpose) -> String {
    let Purpose { category, source, product, feature, model, provider } = purpose;
    format!("{category} {source} {product} {feature} {model} {provider}")
}

/// A range ends with the hour of its instant.
pub fn window(range: &str, as_of: At) -> (At, At) {
    let hours = match range {
        "1h" => 1,
        "24h" => 24,
        "7d" => 168,
        "30d" => 720,
        _ => 2_160,
    };
    let end = hour_of(as_of) + HOUR;
    (end - hours * HOUR, end)
}

/// The starts of hours from one of them on.
fn hours(from: At, to: At) -> impl Iterator<Item = At> {
    (0..).map(move |number| from + number * HOUR).take_while(move |hour| *hour < to)
}
