//! All ranges and rolling windows of an owner, out of one reading: what a page shows at once.

use super::document::{Known, document, with_amounts};
use super::drivers::Drivers;
use super::figures::Hourly;
use super::range::RANGES;
use super::reading::Spend;
use super::window::Interval;
use crate::error::Result;
use crate::owner::Owner;
use crate::sources::{self, Category};
use crate::time::Instant;
use serde_json::{Map, Value as Json, json};

/// The figures are those of `spend_evidence` and `rolling_spend`; journals and rollups are read once,
/// as far as the longest range goes.
pub struct AllRanges<'a> {
    owner: &'a Owner,
    as_of: Instant,
    spend: Spend<'a>,
    hourly: Hourly,
}

impl<'a> AllRanges<'a> {
    /// What the longest range is read for; an error when there is no such time before `as_of`.
    pub fn window(as_of: Instant) -> Result<Interval> {
        let [.., longest] = RANGES;
        longest.window(as_of)
    }

    /// Charges before `as_of`, on the caller's snapshot.
    pub fn read(owner: &'a Owner, as_of: Instant) -> Result<Self> {
        let spend = Spend::read(owner, Self::window(as_of)?, as_of)?;
        let hourly = spend.hourly()?;
        Ok(Self { owner, as_of, spend, hourly })
    }

    /// A document as of `spend_evidence` for each range, by its name.
    pub fn documents(&self) -> Result<Json> {
        let (coverage, hourly) = (&self.spend.coverage, &self.hourly);
        let known = Known { owner: self.owner, as_of: self.as_of, coverage, hourly };
        let mut documents = Map::new();
        // All ranges have the same end: a longer one adds the hours before the shorter one.
        let mut drivers = Drivers::default();
        let mut read_from = self.as_of.hour_start().plus_hours(1);
        for range in RANGES {
            let window = range.window(self.as_of)?;
            let more = Interval { from: window.from, to: read_from };
            self.spend.of_hours(more).add_drivers(&mut drivers)?;
            read_from = window.from;
            documents.insert(range.name.to_owned(), document(&known, range, window, &drivers)?);
        }
        Ok(Json::Object(documents))
    }

    /// What was spent in so many hours before `as_of`, to the microsecond.
    pub fn rolling(&self, hours: i64) -> Result<Json> {
        let window = Interval { from: self.as_of.plus_hours(-hours), to: self.as_of };
        let (first, next) = (window.from.hour_start(), window.from.hour_ceiling());
        if first == window.from {
            return self.figures(window, &self.hourly);
        }
        // Of its first hour only a part is meant.
        let mut hourly = self.hourly.without(first);
        for charge in sources::charges(self.owner, window.from, next)? {
            let category = Category::parse(Some(charge.dimension.category))?;
            hourly.add(charge.hour_start, category, charge.amount, charge.records);
        }
        self.figures(window, &hourly)
    }

    /// What was spent in the UTC hour that `as_of` lies in, so far.
    pub fn current_hour(&self) -> Result<Json> {
        let from = self.as_of.hour_start();
        self.figures(Interval { from, to: from.plus_hours(1) }, &self.hourly)
    }

    fn figures(&self, window: Interval, hourly: &Hourly) -> Result<Json> {
        let mut object = Map::new();
        object.insert("from_time".to_owned(), json!(window.from.iso8601()));
        object.insert("to_time".to_owned(), json!(window.to.iso8601()));
        object.insert("is_complete".to_owned(), json!(hourly.is_complete(window)));
        Ok(with_amounts(object, hourly.amounts(window)?))
    }
}
