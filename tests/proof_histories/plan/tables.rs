//! What happens to the application's own table.

use super::{Cast, May, Scene};
use crate::model::calendar::{DAY, HOUR, hour_of, on};
use crate::model::evidence::known_from;
use crate::model::tables::{Attached, Change, Map, Row, Table};
use crate::model::{At, Model, Owner};
use crate::step::Step;

impl Scene {
    /// All rows of an hour have one instant: closing rows are one per hour, and dated by the last
    /// row that they stand for.
    fn row_time(&mut self) -> At {
        if self.percent(6) {
            return on(2090, 1, 5, 10) + self.rng.i64(0..3) * HOUR;
        }
        let at = if self.percent(80) { self.at } else { self.at - self.rng.i64(0..5 * DAY) };
        let minutes = i64::try_from(self.seed % 50).expect("a minute");
        (hour_of(at) + minutes * HOUR / 60).max(hour_of(known_from()) + HOUR)
    }

    fn row(&mut self, cast: &Cast, map: Map) -> Row {
        let owner = self.owner(cast);
        let (who, team) = self.who(cast, &owner);
        let amount = if self.percent(8) { -self.amount() } else { self.amount() };
        let cost = if map.negate { -amount } else { amount };
        Row {
            id: self.number(),
            who,
            team,
            cost: (!self.percent(4)).then_some(cost),
            at: self.row_time(),
            model: self.percent(80).then(|| self.pick(&["claude", "gpt 5"]).to_owned()),
            asked: self.percent(30).then(|| "opus".to_owned()),
            is_ok: self.percent(85),
        }
    }

    /// The two columns that say whose a row is; an organization's may name nobody else.
    fn who(&mut self, cast: &Cast, owner: &Owner) -> (Option<String>, Option<String>) {
        if self.percent(1) {
            return (None, None);
        }
        if !owner.is_organization {
            return (Some(owner.id.clone()), None);
        }
        (self.percent(70).then(|| self.pick(&cast.users)), Some(owner.id.clone()))
    }

    fn attached(&mut self, map: Map) -> Attached {
        Attached {
            category: if self.percent(70) { "variable" } else { "scheduled" },
            source: self.pick(&["ai_gateway", "their own"]).to_owned(),
            map,
            keeps: self.percent(40),
            counts_from: None,
        }
    }

    /// How this history's table is to be read: always the same.
    fn map(&self) -> Map {
        let bit = |place: u32| self.seed >> place & 1 == 1;
        Map { negate: bit(1), only_ok: bit(2), asked_first: bit(3) }
    }

    pub fn table_step(&mut self, cast: &Cast, model: &Model, may: May) -> Option<Step> {
        let (name, map) = (self.table.clone()?, self.map());
        let none = Table::default();
        let table = model.tables.iter().find(|table| table.name == name).unwrap_or(&none);
        let may_attach = may.touch_all && may.read_committed;
        if may_attach && table.attached.is_none() && self.percent(40) {
            let (attached, backfill) = (self.attached(map), self.percent(75));
            return Some(Step::Attach { table: name, attached, backfill });
        }
        if may_attach && self.percent(if table.attached.is_some() { 8 } else { 2 }) {
            return Some(Step::Detach { table: name });
        }
        // Rows of others are not touched while another transaction may hold them.
        let is_of = |row: &&Row| match (&row.team, &row.who) {
            (Some(team), who) => {
                cast.organizations.contains(team)
                    && who.as_ref().is_none_or(|who| cast.users.contains(who))
            }
            (None, Some(who)) => cast.users.contains(who),
            (None, None) => may.touch_all,
        };
        let mut ids: Vec<i64> = table.rows.iter().filter(is_of).map(|row| row.id).collect();
        self.rng.shuffle(&mut ids);
        ids.truncate(self.rng.usize(1..4));
        let change = self.change(cast, map, ids);
        Some(Step::Change { table: name, change })
    }

    pub fn insertion(&mut self, cast: &Cast) -> Option<Step> {
        let (table, map) = (self.table.clone()?, self.map());
        let change = self.change(cast, map, Vec::new());
        Some(Step::Change { table, change })
    }

    fn change(&mut self, cast: &Cast, map: Map, ids: Vec<i64>) -> Change {
        if ids.is_empty() || self.percent(50) {
            let count = self.rng.usize(1..5);
            return Change::Insert((0..count).map(|_| self.row(cast, map)).collect());
        }
        match self.rng.u32(..10) {
            0 | 1 => {
                let cost = self.amount();
                Change::Cost(ids, Some(if map.negate { -cost } else { cost }))
            }
            2 => Change::Cost(ids, None),
            3 => Change::Model(ids, self.percent(70).then(|| "haiku".to_owned())),
            4 => {
                let owner = self.owner(cast);
                let (who, team) = self.who(cast, &owner);
                Change::Owner(ids, who, team)
            }
            5 => Change::Time(ids, self.row_time()),
            6 => Change::Status(ids, self.percent(50)),
            _ => Change::Delete(ids),
        }
    }
}
