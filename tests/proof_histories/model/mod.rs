//! The books by their definition: lists of what has happened, and every figure a sum over them.
//!
//! Nothing here is the product's, neither a line nor a thought: there is no queue, no posting, no
//! counter, no rollup and no lock. What is slow is meant to be.

pub mod alerts;
pub mod calendar;
pub mod credit;
pub mod evidence;
pub mod suggestions;
pub mod tables;
pub mod usage;

use alerts::Alerts;
use credit::Entry;
use std::collections::{BTreeMap, BTreeSet};
use tables::Table;
use usage::{Member, Policy, Request};

/// Microseconds since 1970, UTC.
pub type At = i64;

/// The SQLSTATE of what is refused.
pub type Refused = &'static str;
pub const BAD: Refused = "22023";
pub const REUSED: Refused = "23505";
pub const UNKNOWN: Refused = "P0002";
pub const WRONG_STATE: Refused = "55000";
pub const NO_CREDIT: Refused = "53400";

/// The largest amount.
pub const MAX_AMOUNT: i64 = 9_007_199_254_740_991;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub is_organization: bool,
    pub id: String,
}

impl Owner {
    pub fn user(id: &str) -> Self {
        Owner { is_organization: false, id: id.to_owned() }
    }

    pub fn organization(id: &str) -> Self {
        Owner { is_organization: true, id: id.to_owned() }
    }

    pub fn kind(&self) -> &'static str {
        if self.is_organization { "organization" } else { "user" }
    }
}

/// What spend is for, as it is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Purpose {
    pub category: &'static str,
    pub source: String,
    pub product: String,
    pub feature: String,
    pub model: String,
    pub provider: String,
}

/// Money that was spent, whatever journal says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub owner: Owner,
    pub actor: Option<String>,
    pub purpose: Purpose,
    pub amount: i64,
    pub at: At,
    /// The step that recorded it; none where nobody says when that was.
    pub recorded: Option<u64>,
    pub is_attached: bool,
}

/// A row of `spend_log`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spend {
    pub owner: Owner,
    pub actor: Option<String>,
    pub purpose: Purpose,
    /// As it was given.
    pub source: String,
    pub amount: i64,
    pub at: At,
    pub recorded: Option<u64>,
}

/// An idempotency key with what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub space: String,
    pub key: String,
    pub payload: String,
    /// When it happened, and whether the caller had said so.
    pub at: At,
    pub is_at_given: bool,
    /// What the first call answered, but for whether it is a replay.
    pub answer: String,
}

/// Hours whose rollups are not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Degraded {
    pub id: String,
    pub owner: Owner,
    pub from: At,
    pub to: At,
    pub reason: String,
    pub is_open: bool,
}

#[derive(Debug, Clone, Default)]
pub struct Model {
    /// Steps so far: the order in which things were recorded.
    pub step: u64,
    pub policies: Vec<Policy>,
    pub members: Vec<Member>,
    pub requests: Vec<Request>,
    pub spends: Vec<Spend>,
    pub tables: Vec<Table>,
    pub entries: Vec<Entry>,
    pub keys: Vec<Key>,
    pub degraded: Vec<Degraded>,
    pub alerts: BTreeMap<Owner, Alerts>,
    /// Who has something that waits to be posted, and whether it moves the balance. No figure
    /// depends on it, only when somebody is told.
    pub waiting: BTreeMap<Owner, bool>,
    /// Who was posted, and so waits to be evaluated.
    pub posted: BTreeSet<Owner>,
}

impl Model {
    /// Everything that was ever charged and still is, in no order.
    pub fn charges(&self) -> Vec<Charge> {
        let requests = self.requests.iter().filter(|request| request.charged > 0);
        let mut charges: Vec<Charge> = requests.map(Request::charge).collect();
        charges.extend(self.spends.iter().map(Spend::charge));
        charges.extend(self.tables.iter().flat_map(Table::charges));
        charges
    }

    pub fn charges_of(&self, owner: &Owner) -> Vec<Charge> {
        self.between(owner, At::MIN, At::MAX)
    }

    /// An owner's charges from an instant until before another.
    pub fn between(&self, owner: &Owner, from: At, to: At) -> Vec<Charge> {
        let during = |at: At| (from..to).contains(&at);
        let requests = self.requests.iter().filter(|one| one.charged > 0 && during(one.at));
        let requests = requests.filter(|one| one.ask.is_of(owner));
        let mut charges: Vec<Charge> = requests.map(Request::charge).collect();
        let spends = self.spends.iter().filter(|one| during(one.at) && one.owner == *owner);
        charges.extend(spends.map(Spend::charge));
        let attached = self.tables.iter().flat_map(Table::charges);
        charges.extend(attached.filter(|one| during(one.at) && one.owner == *owner));
        charges
    }

    pub fn used(&self, owner: &Owner) -> i64 {
        self.charges_of(owner).iter().map(|charge| charge.amount).sum()
    }

    /// What had been used when nothing of this instant had happened yet.
    pub fn used_before(&self, owner: &Owner, at: At) -> i64 {
        let charges = self.charges_of(owner);
        charges.iter().filter(|charge| charge.at < at).map(|charge| charge.amount).sum()
    }

    /// What a key stands for, if it was used: the answer, or a refusal when it was used for
    /// something else. A time matters only where both calls give one.
    pub fn find_key(
        &self,
        space: &str,
        key: Option<&str>,
        payload: &str,
        at: Option<At>,
    ) -> Result<Option<&Key>, Refused> {
        let Some(key) = key else { return Ok(None) };
        let Some(known) = self.keys.iter().find(|one| one.space == space && one.key == key) else {
            return Ok(None);
        };
        let is_same_time = !known.is_at_given || at.is_none_or(|at| at == known.at);
        if known.payload == payload && is_same_time { Ok(Some(known)) } else { Err(REUSED) }
    }

    /// Something of an owner waits to be posted.
    pub fn wait(&mut self, owner: &Owner, moves: bool) {
        *self.waiting.entry(owner.clone()).or_default() |= moves;
    }

    pub fn alerts_of(&mut self, owner: &Owner) -> &mut Alerts {
        self.alerts.entry(owner.clone()).or_default()
    }

    /// Intervals of one owner and reason that meet become one, under the id of the oldest.
    pub fn degrade(&mut self, new: Degraded) -> String {
        let (mut from, mut to, mut id) = (new.from, new.to, None);
        let met = |one: &Degraded, from: At, to: At| {
            one.is_open
                && (&one.owner, &one.reason) == (&new.owner, &new.reason)
                && one.from <= to
                && from <= one.to
        };
        while let Some(place) = self.degraded.iter().position(|one| met(one, from, to)) {
            let one = self.degraded.remove(place);
            (from, to) = (from.min(one.from), to.max(one.to));
            // They are kept oldest first.
            let is_older = id.as_ref().is_none_or(|(old, _)| place < *old);
            id = if is_older { Some((place, one.id)) } else { id };
        }
        match id {
            Some((place, id)) => {
                self.degraded.insert(place, Degraded { id: id.clone(), from, to, ..new });
                id
            }
            None => {
                let id = new.id.clone();
                self.degraded.push(new);
                id
            }
        }
    }
}

impl Spend {
    fn charge(&self) -> Charge {
        // A user's own charge was made by that user.
        let own = || (!self.owner.is_organization).then(|| self.owner.id.clone());
        Charge {
            owner: self.owner.clone(),
            actor: self.actor.clone().or_else(own),
            purpose: self.purpose.clone(),
            amount: self.amount,
            at: self.at,
            recorded: self.recorded,
            is_attached: false,
        }
    }
}

/// A free text as it is counted: what is no plain label is `other`.
pub fn label(text: &str) -> String {
    let text = text.trim();
    let plain = |letter: char| letter.is_ascii_alphanumeric();
    let good = text.chars().next().is_some_and(plain)
        && text.chars().all(|letter| plain(letter) || "._:/@+-".contains(letter));
    if good { text.chars().take(128).collect() } else { "other".to_owned() }
}

/// A source as it is counted.
pub fn counted_source(given: &str) -> String {
    let known = ["ai_gateway", "kiloclaw", "coding_plan"].contains(&given);
    if known { given.to_owned() } else { "other".to_owned() }
}
