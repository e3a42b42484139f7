//! What the books must say of a history, worked out plainly.

use super::edges::{At, day_of, hour_of, month_of};
use super::history::{Charge, History, Way};
use chrono::NaiveDate;
use std::collections::BTreeMap;

/// A charge as a journal keeps it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: At,
    pub for_organization: bool,
    pub is_variable: bool,
    pub is_exa: bool,
    pub cost: i64,
    pub amount: i64,
    pub product: &'static str,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Month {
    pub allowance: i64,
    pub counted: i64,
    pub cost: i64,
    pub charged: i64,
    pub requests: i64,
}

pub struct Model<'a> {
    pub history: &'a History,
    pub entries: Vec<Entry>,
    /// The user's months, over all contexts.
    pub months: BTreeMap<NaiveDate, Month>,
}

/// Whose figures are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    User,
    Organization,
}

pub const BOTH: [Whose; 2] = [Whose::User, Whose::Organization];

/// Sums of charges: total, variable, scheduled, records.
pub type Sums = (i64, i64, i64, i64);

impl<'a> Model<'a> {
    pub fn new(history: &'a History) -> Self {
        Self { history, entries: Vec::new(), months: BTreeMap::new() }
    }

    pub fn id(&self, whose: Whose) -> &str {
        match whose {
            Whose::User => &self.history.user,
            Whose::Organization => &self.history.organization,
        }
    }

    pub fn kind(whose: Whose) -> &'static str {
        match whose {
            Whose::User => "user",
            Whose::Organization => "organization",
        }
    }

    /// The allowance in force for a month in which nothing was asked for yet.
    pub fn in_force(&self, month: NaiveDate) -> i64 {
        let entries = self.history.allowances.iter().filter(|(from, _)| *from <= month);
        entries.max_by_key(|(from, _)| *from).expect("an allowance").1
    }

    /// Takes the next charge; gives what is free of it and what is charged.
    pub fn take(&mut self, charge: &Charge) -> (i64, i64) {
        let cost = charge.amount;
        let free = if charge.is_exa() { self.free_part(charge) } else { 0 };
        let (is_variable, product) = match charge.way {
            Way::Spend { scheduled } => (!scheduled, "plan"),
            Way::Ledger => (true, "llm"),
            _ => (true, "exa"),
        };
        self.entries.push(Entry {
            at: charge.at,
            for_organization: charge.for_organization,
            is_variable,
            is_exa: charge.is_exa(),
            cost,
            amount: cost - free,
            product,
        });
        (free, cost - free)
    }

    fn free_part(&mut self, charge: &Charge) -> i64 {
        let month = month_of(charge.at);
        let in_force = self.in_force(month);
        let kept =
            self.months.entry(month).or_insert(Month { allowance: in_force, ..Month::default() });
        let left = (kept.allowance - kept.counted).max(0);
        let free = match (left > 0, self.history.is_split) {
            (false, _) => 0,
            (true, true) => charge.amount.min(left),
            (true, false) => charge.amount,
        };
        kept.counted += free;
        kept.cost += charge.amount;
        kept.charged += charge.amount - free;
        kept.requests += 1;
        free
    }

    /// What an owner was charged, dated in `[from, to)`.
    pub fn charged(&self, whose: Whose, from: At, to: At) -> impl Iterator<Item = &Entry> {
        let for_organization = whose == Whose::Organization;
        self.entries.iter().filter(move |entry| {
            entry.for_organization == for_organization
                && entry.amount > 0
                && from <= entry.at
                && entry.at < to
        })
    }

    pub fn sums(&self, whose: Whose, from: At, to: At) -> Sums {
        self.charged(whose, from, to).fold(
            (0, 0, 0, 0),
            |(total, variable, scheduled, records), entry| {
                let (of_use, of_plan) =
                    if entry.is_variable { (entry.amount, 0) } else { (0, entry.amount) };
                (total + entry.amount, variable + of_use, scheduled + of_plan, records + 1)
            },
        )
    }

    pub fn used_before(&self, whose: Whose, instant: At) -> i64 {
        self.sums(whose, At::MIN_UTC, instant).0
    }

    pub fn used(&self, whose: Whose) -> i64 {
        self.used_before(whose, At::MAX_UTC)
    }

    /// What the member has spent for the organization on a day.
    pub fn members_day(&self, day: NaiveDate) -> i64 {
        let of_day = self.charged(Whose::Organization, At::MIN_UTC, At::MAX_UTC);
        of_day.filter(|e| e.is_variable && day_of(e.at) == day).map(|e| e.amount).sum()
    }

    /// Sums of an owner by hour.
    pub fn hours(&self, whose: Whose) -> BTreeMap<At, Sums> {
        let mut hours = BTreeMap::new();
        for entry in self.charged(whose, At::MIN_UTC, At::MAX_UTC) {
            let hour = hour_of(entry.at);
            hours.insert(hour, self.sums(whose, hour, super::edges::hours_later(hour, 1)));
        }
        hours
    }

    pub fn is_degraded(&self, whose: Whose, hour: At) -> bool {
        let degraded = self.history.degraded.filter(|_| whose == Whose::Organization);
        degraded.is_some_and(|(from, to)| from <= hour && hour < to)
    }
}
