//! Looking at the spend of many owners at once for what could be suggested to them.

use super::policy::{self, Finding, Known, Rule, Spent, WINDOW_HOURS};
use super::rules;
use super::spent::Sums;
use crate::accounts;
use crate::error::{BillingError, Kind, Result};
use crate::evidence::{Interval, Parts, Spend};
use crate::owner::Owner;
use crate::rollups::Coverage;
use crate::sources::{self, Category};
use crate::spi::{Row, Statement, values};
use crate::time::Instant;
use serde_json::Value as Json;
use std::collections::BTreeMap;

// Kept plans that go by index, also where tables were empty when they were made.
static OWNERS: Statement =
    Statement::over_queue(include_str!("../../sql/statements/suggestion_owners.sql"));
static OF_HOURS: Statement =
    Statement::over_queue(include_str!("../../sql/statements/plan_drivers_of_hours.sql"));
static OF_JOURNALS: Statement =
    Statement::fresh_over_queue(include_str!("../../sql/statements/plan_drivers_of_journals.sql"));
static KNOWN: Statement =
    Statement::over_queue(include_str!("../../sql/statements/known_suggestions.sql"));

/// How an owner's spend is to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Too little was spent for any rule.
    None,
    Together,
    /// Some of the owner's hours are not to be trusted.
    Alone,
}

/// What has to be written about suggestions to these owners, by their spend in the seven days before
/// `as_of`; nothing for those who want none. On the caller's snapshot, in a few statements for all.
///
/// Locks: none; the caller holds the states of these owners.
pub fn read(owners: &[Owner], as_of: Instant) -> Result<Vec<Finding>> {
    let rules = rules::in_force()?;
    let window = Interval { from: as_of.plus_hours(-WINDOW_HOURS), to: as_of };
    let days = Interval { from: window.from.day_start(), to: window.to.day_ceiling() };
    let coverage = Coverage::read(None, days.from, days.to)?;
    let looks = looks(owners, &rules, days, &coverage)?;
    let concerned: Vec<Owner> = looks.keys().cloned().collect();
    let known = known(&concerned)?;
    let of_look = |wanted| {
        let those = looks.iter().filter(|(_, look)| **look == wanted);
        those.map(|(owner, _)| owner.clone()).collect::<Vec<_>>()
    };
    let mut spent = spent_together(&of_look(Look::Together), &Parts::of(window, &coverage))?;
    for owner in of_look(Look::Alone) {
        let one = spent_alone(&owner, window)?;
        spent.insert(owner, one);
    }
    let mut findings = Vec::new();
    for (owner, look) in &looks {
        let spent = match look {
            Look::None => None,
            _ => match spent.get(owner) {
                Some(Some(spent)) => Some(spent),
                Some(None) => continue, // beyond what the books can hold
                None => None,
            },
        };
        let known = known.get(owner).map(Vec::as_slice).unwrap_or_default();
        findings.extend(policy::decide(owner, &rules, spent, known, as_of));
    }
    Ok(findings)
}

/// The owners for whom anything can change, by the whole days that the window touches.
fn looks(
    owners: &[Owner],
    rules: &[Rule],
    days: Interval,
    coverage: &Coverage,
) -> Result<BTreeMap<Owner, Look>> {
    let (kinds, ids) = accounts::columns(owners);
    let minimum = rules.iter().map(|rule| rule.minimum).min().unwrap_or(i64::MAX);
    let is_unbounded = !rules.is_empty() && !days.hours().all(|hour| coverage.covers(hour));
    let arguments = values![kinds, ids, days.from, days.to, minimum, is_unbounded];
    let looks = OWNERS.read(&arguments[..], |row| {
        let (is_enough, is_degraded, has_open) =
            (row.get::<bool>(3)?, row.get::<bool>(4)?, row.get::<bool>(5)?);
        let look = match (is_degraded, is_enough) {
            (true, _) => Some(Look::Alone),
            (false, true) => Some(Look::Together),
            (false, false) => has_open.then_some(Look::None),
        };
        Ok(look.map(|look| Ok::<_, BillingError>((accounts::owner_of(row, 1)?, look))))
    })?;
    looks.into_iter().flatten().collect()
}

/// What these owners spent, whole trusted hours by their rollups, the rest by the journals. None for
/// one whose sums are beyond what the books can hold.
fn spent_together(owners: &[Owner], parts: &Parts) -> Result<BTreeMap<Owner, Option<Spent>>> {
    let mut sums: BTreeMap<Owner, Sums> = BTreeMap::new();
    if owners.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (kinds, ids) = accounts::columns(owners);
    let mut add = |row: &Row| -> Result<()> {
        let category = Category::parse(Some(&row.get::<String>(3)?))?;
        let figures = row.maybe::<i64>(6)?.zip(row.maybe::<i64>(7)?);
        let (provider, model): (String, String) = (row.get(4)?, row.get(5)?);
        let of_owner = sums.entry(accounts::owner_of(row, 1)?).or_default();
        of_owner.add(category, &provider, &model, figures);
        Ok(())
    };
    if let (Some(first), Some(last)) = (parts.rolled.first(), parts.rolled.last()) {
        let arguments = values![kinds.clone(), ids.clone(), first.from, last.to, parts.edges()];
        OF_HOURS.read(arguments, &mut add)?;
    }
    for part in &parts.direct {
        let arguments = values![kinds.clone(), ids.clone(), part.from, part.to];
        OF_JOURNALS.read(arguments, &mut add)?;
    }
    for part in &parts.direct {
        for charge in sources::attached_charges_of(owners, part.from, part.to)? {
            let category = Category::parse(Some(charge.dimension.category))?;
            let (provider, model) = (&charge.dimension.provider, &charge.dimension.model_or_plan);
            let figures = Some((charge.amount, charge.records));
            sums.entry(charge.owner).or_default().add(category, provider, model, figures);
        }
    }
    Ok(sums.into_iter().map(|(owner, sums)| (owner, sums.spent())).collect())
}

/// The same for one owner, whose own untrusted hours are read from the journals.
fn spent_alone(owner: &Owner, window: Interval) -> Result<Option<Spent>> {
    let drivers = match Spend::read(owner, window, window.to)?.drivers()?.top(None, usize::MAX) {
        Ok(drivers) => drivers,
        Err(error) if error.kind == Kind::OutOfRange => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut sums = Sums::default();
    for ranked in drivers {
        let dimension = &ranked.driver.dimension;
        let category = Category::parse(Some(dimension.category))?;
        let figures = Some((ranked.amount, ranked.records));
        sums.add(category, &dimension.provider, &dimension.model_or_plan, figures);
    }
    Ok(sums.spent())
}

fn known(owners: &[Owner]) -> Result<BTreeMap<Owner, Vec<Known>>> {
    let mut known: BTreeMap<Owner, Vec<Known>> = BTreeMap::new();
    if owners.is_empty() {
        return Ok(known);
    }
    let (kinds, ids) = accounts::columns(owners);
    KNOWN.read(values![kinds, ids], |row| {
        let one = Known {
            id: row.get(3)?,
            kind: rules::kind_of(&row.get::<String>(4)?)?,
            target: row.get(5)?,
            is_open: row.get(6)?,
            observed: row.get(7)?,
            price: row.get(8)?,
            driver: row.maybe::<String>(9)?.map(|text| document(&text)).transpose()?,
            content: document(&row.get::<String>(10)?)?,
            grounded_at: row.get(11)?,
        };
        known.entry(accounts::owner_of(row, 1)?).or_default().push(one);
        Ok(())
    })?;
    Ok(known)
}

fn document(text: &str) -> Result<Json> {
    serde_json::from_str(text).map_err(|_| BillingError::internal("a jsonb value is no JSON"))
}
