//! Tables of the application that are, or were, journals of spend.

use super::calendar::hour_of;
use super::{
    At, BAD, Charge, Model, Owner, Purpose, Refused, Spend, UNKNOWN, WRONG_STATE, counted_source,
    label,
};
use std::collections::{BTreeMap, BTreeSet};

/// How the columns are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Map {
    /// The table has what was spent as negative amounts.
    pub negate: bool,
    /// Only rows whose status is `ok` are charges.
    pub only_ok: bool,
    /// The model that was asked for goes before the one that answered.
    pub asked_first: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub id: i64,
    pub who: Option<String>,
    pub team: Option<String>,
    pub cost: Option<i64>,
    pub at: At,
    pub model: Option<String>,
    pub asked: Option<String>,
    pub is_ok: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub category: &'static str,
    pub source: String,
    pub map: Map,
    pub keeps: bool,
    /// Rows dated earlier are in no figure.
    pub counts_from: Option<At>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Table {
    pub name: String,
    pub rows: Vec<Row>,
    pub attached: Option<Attached>,
    /// Rows dated earlier were taken over when it was detached.
    pub closed_before: Option<At>,
}

impl Attached {
    fn amount(&self, row: &Row) -> Option<i64> {
        let amount = if self.map.negate { -row.cost? } else { row.cost? };
        let counts = self.counts_from.is_none_or(|from| row.at >= from);
        (amount > 0 && counts && (row.is_ok || !self.map.only_ok)).then_some(amount)
    }

    /// What a row charges; refused when nobody is charged.
    fn charge(&self, row: &Row) -> Result<Option<Charge>, Refused> {
        let Some(amount) = self.amount(row) else { return Ok(None) };
        let owner = match (&row.team, &row.who) {
            (Some(team), _) => Owner::organization(team),
            (None, Some(who)) => Owner::user(who),
            (None, None) => return Err(BAD),
        };
        let asked = row.asked.as_ref().filter(|_| self.map.asked_first);
        let model = asked.or(row.model.as_ref()).map_or("other".to_owned(), |text| label(text));
        let other = || "other".to_owned();
        Ok(Some(Charge {
            owner,
            actor: row.who.clone(),
            purpose: Purpose {
                category: self.category,
                source: counted_source(&self.source),
                product: other(),
                feature: other(),
                model,
                provider: other(),
            },
            amount,
            at: row.at,
            recorded: None,
            is_attached: true,
        }))
    }
}

impl Table {
    pub fn charges(&self) -> Vec<Charge> {
        let Some(attached) = &self.attached else { return Vec::new() };
        self.rows.iter().filter_map(|row| attached.charge(row).ok().flatten()).collect()
    }

    /// A row of `spend_log` that takes the place of a row of the table.
    fn closing(attached: &Attached, row: &Row) -> Option<Spend> {
        let charge = attached.charge(row).ok().flatten()?;
        Some(Spend {
            owner: charge.owner,
            actor: charge.actor,
            purpose: charge.purpose,
            source: attached.source.clone(),
            amount: charge.amount,
            at: charge.at,
            recorded: None,
        })
    }
}

/// Whose, by whom, what for, in which hour.
type Group = (Owner, Option<String>, Purpose, At);

fn sums(charges: &[Charge]) -> BTreeMap<Group, (i64, i64)> {
    let mut sums: BTreeMap<Group, (i64, i64)> = BTreeMap::new();
    for Charge { owner, actor, purpose, amount, at, .. } in charges.iter().cloned() {
        let sum = sums.entry((owner, actor, purpose, hour_of(at))).or_default();
        *sum = (sum.0 + amount, sum.1 + 1);
    }
    sums
}

/// What a statement does to the rows of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Insert(Vec<Row>),
    /// To these rows.
    Cost(Vec<i64>, Option<i64>),
    Model(Vec<i64>, Option<String>),
    Owner(Vec<i64>, Option<String>, Option<String>),
    Time(Vec<i64>, At),
    Status(Vec<i64>, bool),
    Delete(Vec<i64>),
}

impl Model {
    pub fn table(&mut self, name: &str) -> &mut Table {
        if !self.tables.iter().any(|table| table.name == name) {
            self.tables.push(Table { name: name.to_owned(), ..Table::default() });
        }
        self.tables.iter_mut().find(|table| table.name == name).expect("it is there")
    }

    pub fn change(&mut self, name: &str, change: &Change) -> Result<(), Refused> {
        let before = self.clone();
        let old = self.charges();
        let table = self.table(name);
        let attached = table.attached.clone();
        let edit = |table: &mut Table, ids: &[i64], edit: &dyn Fn(&mut Row)| {
            table.rows.iter_mut().filter(|row| ids.contains(&row.id)).for_each(edit);
        };
        let mut kept = Vec::new();
        match change {
            Change::Insert(rows) => table.rows.extend(rows.iter().cloned()),
            Change::Cost(ids, cost) => edit(table, ids, &|row| row.cost = *cost),
            Change::Model(ids, model) => edit(table, ids, &|row| row.model = model.clone()),
            Change::Owner(ids, who, team) => edit(table, ids, &|row| {
                (row.who, row.team) = (who.clone(), team.clone());
            }),
            Change::Time(ids, at) => edit(table, ids, &|row| row.at = *at),
            Change::Status(ids, is_ok) => edit(table, ids, &|row| row.is_ok = *is_ok),
            Change::Delete(ids) => {
                let gone = table.rows.iter().filter(|row| ids.contains(&row.id));
                if let Some(attached) = attached.as_ref().filter(|attached| attached.keeps) {
                    kept = gone.filter_map(|row| Table::closing(attached, row)).collect();
                }
                table.rows.retain(|row| !ids.contains(&row.id));
            }
        }
        let is_refused = attached
            .as_ref()
            .is_some_and(|attached| table.rows.iter().any(|row| attached.charge(row).is_err()));
        if is_refused {
            *self = before;
            return Err(BAD);
        }
        self.spends.extend(kept);
        self.note_waiting(&old);
        Ok(())
    }

    /// Whose charges have changed waits to be posted.
    fn note_waiting(&mut self, old: &[Charge]) {
        let (old, new) = (sums(old), sums(&self.charges()));
        let keys: BTreeSet<&Group> = old.keys().chain(new.keys()).collect();
        let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
        let owners: Vec<Owner> = changed.map(|key| key.0.clone()).collect();
        owners.iter().for_each(|owner| self.wait(owner, true));
    }

    /// Attaches; says how many rows were captured.
    pub fn attach(
        &mut self,
        name: &str,
        mut attached: Attached,
        backfill: bool,
        now: At,
    ) -> Result<usize, Refused> {
        let old = self.charges();
        let table = self.table(name);
        let closed = table.closed_before;
        if table.attached.is_some() || closed.is_some_and(|closed| closed > now) {
            return Err(WRONG_STATE);
        }
        attached.counts_from = if backfill { closed } else { Some(now) };
        let counting = table.rows.iter().map(|row| attached.charge(row));
        let Ok(charges) = counting.collect::<Result<Vec<_>, _>>() else { return Err(BAD) };
        // Without backfill nothing is captured that is there already.
        let captured = charges.iter().flatten().count();
        table.attached = Some(attached);
        self.note_waiting(&old);
        Ok(captured)
    }

    /// Detaches; says how many closing rows take the place of the table's: one per owner, hour and
    /// driver.
    pub fn detach(&mut self, name: &str, now: At) -> Result<usize, Refused> {
        let table = self.table(name);
        let Some(attached) = table.attached.take() else { return Err(UNKNOWN) };
        let closings: Vec<Spend> =
            table.rows.iter().filter_map(|row| Table::closing(&attached, row)).collect();
        let last = closings.iter().map(|spend| spend.at + 1).max();
        table.closed_before = table.closed_before.max(Some(last.map_or(now, |last| last.max(now))));
        let groups: BTreeSet<_> = closings
            .iter()
            .map(|spend| (&spend.owner, &spend.actor, &spend.purpose, hour_of(spend.at)))
            .collect();
        let count = groups.len();
        self.spends.extend(closings);
        Ok(count)
    }
}
