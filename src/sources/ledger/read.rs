//! Reading attached tables as journals.

use super::mapping;
use super::registry::{self, Ledger};
use super::text::{self, Rows, Scope, Whose};
use crate::error::{BillingError, Kind, Result};
use crate::money;
use crate::owner::{self, Owner, OwnerKind};
use crate::sources::{Charge, Dimension};
use crate::spi::{self, Row, Value, values};
use crate::time::{self, Instant, Month};
use std::collections::{BTreeMap, BTreeSet};

/// The charges of some rows, by everything that tells them apart; `{rows}` is `Rows::sql`, `{cuts}`
/// an array of instants that no group reaches across.
const GROUPS: &str = "SELECT owner_kind, owner_id, actor_user_id,
        date_trunc('hour', created_at, 'UTC') AS hour_start, product_key, feature_key,
        model_or_plan_key, provider_key,
        CASE WHEN abs(sum(sign * amount)) < 9223372036854775808 THEN sum(sign * amount)::bigint END,
        sum(sign)::bigint,
        max(amount) FILTER (WHERE sign > 0), max(created_at),
        width_bucket(created_at, {cuts}) AS slot
    FROM ({rows}) AS l
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, slot
    HAVING sum(sign * amount) <> 0 OR sum(sign) <> 0
        OR max(amount) FILTER (WHERE sign > 0) > 9007199254740991";

/// Every time there is.
pub const ALWAYS: (Instant, Instant) = (Instant(i64::MIN), Instant(i64::MAX));

pub const NO_CUTS: &str = "ARRAY[]::timestamptz[]";

pub fn groups_sql(rows: &str, cuts: &str) -> String {
    GROUPS.replace("{cuts}", cuts).replace("{rows}", rows)
}

/// A group of rows, as the table has them.
pub struct Group {
    pub charge: Charge,
    /// Between which cuts it lies.
    pub slot: i32,
    /// The latest of its rows.
    pub last_at: Instant,
}

/// Whether a row that the books would not take is an error or no charge.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// Its writer hears of it.
    OfWriters,
    /// It was written before the table was attached, or got past the capture.
    OfReaders,
}

/// One row of `GROUPS`. An error when it is no charge that can be kept in books.
pub fn group(ledger: &Ledger, row: &Row, rules: Rules) -> Result<Group> {
    let kind = OwnerKind::parse(row.maybe::<String>(1)?.as_deref())?;
    let said = |error: BillingError| error.at(&format!("spend source {}", ledger.source_name));
    let id: Option<String> = row.maybe(2)?;
    let argument = match kind {
        OwnerKind::User => "user_id",
        OwnerKind::Organization => "organization_id",
    };
    let id = owner::identifier(argument, id.as_deref()).map_err(said)?.to_owned();
    let mut actor: Option<String> = row.maybe(3)?;
    if let Err(error) = owner::optional_identifier("user_id", actor.as_deref()) {
        if rules == Rules::OfWriters {
            return Err(said(error));
        }
        actor = None;
    }
    let last_at = time_of(row).map_err(said)?;
    if let Some(amount) = row.maybe(11)? {
        money::positive_amount("amount", Some(amount)).map_err(said)?;
    }
    let dimension = Dimension::new(
        ledger.category,
        &ledger.source,
        row.maybe::<String>(5)?.as_deref(),
        row.maybe::<String>(6)?.as_deref(),
        row.maybe::<String>(7)?.as_deref(),
        row.maybe::<String>(8)?.as_deref(),
    );
    let actor_user_id = match kind {
        OwnerKind::User => Some(id.clone()),
        OwnerKind::Organization => actor,
    };
    let charge = Charge {
        owner: Owner { kind, id },
        hour_start: row.get(4)?,
        dimension,
        actor_user_id,
        amount: row.maybe(9)?.ok_or_else(|| {
            said(BillingError::out_of_range("the spend of an hour is out of range"))
        })?,
        records: row.get(10)?,
    };
    Ok(Group { charge, slot: row.get(13)?, last_at })
}

/// When the last row of a group happened.
fn time_of(row: &Row) -> Result<Instant> {
    let at = row.maybe(12)?.ok_or_else(|| BillingError::missing("created_at"))?;
    // Its month gets a partition of spend_log one day, whose bounds are written as text.
    let month = time::finite("created_at", at)?.month()?;
    if ![month.start(), month.next()?.start()].into_iter().all(mapping::has_four_digit_year) {
        return Err(BillingError::invalid("created_at is beyond the calendar")
            .hint("Charges are dated from the year 1 to November 9999."));
    }
    Ok(at)
}

/// One attached table being read as a journal: the rows that count, of some owners or of everybody, on
/// the caller's snapshot and with the rights of the table's owner.
pub struct Reading<'a> {
    ledger: &'a Ledger,
    whose: Whose<'a>,
    rows: String,
}

impl<'a> Reading<'a> {
    pub fn new(ledger: &'a Ledger, whose: Whose<'a>) -> Self {
        let (mapping, relation) = (&ledger.mapping, ledger.table.name.as_str());
        let rows = Rows { mapping, relation, sign: 1, scope: Scope::Charges, whose }.sql();
        Self { ledger, whose, rows }
    }

    /// Of everybody, amounts that are no charges included: for who must hear of them.
    pub fn unchecked(ledger: &'a Ledger) -> Self {
        let (mapping, relation) = (&ledger.mapping, ledger.table.name.as_str());
        let whose = Whose::Everybodys;
        let rows = Rows { mapping, relation, sign: 1, scope: Scope::Present, whose }.sql();
        Self { ledger, whose, rows }
    }

    /// Hands the groups in a window over, some thousands at a time: one pass through the table,
    /// whatever its size. What the server makes of a batch is given back after it.
    pub fn in_batches(
        &self,
        cuts: Option<Vec<Instant>>,
        window: (Instant, Instant),
        rules: Rules,
        mut each: impl FnMut(Vec<Group>) -> Result<()>,
    ) -> Result<()> {
        const GROUPS_AT_ONCE: i64 = 10_000;
        let sql = groups_sql(&self.rows, if cuts.is_some() { "$5" } else { NO_CUTS });
        let mut arguments = self.arguments(window);
        arguments.extend(cuts.map(Value::from));
        let owner = self.ledger.table.owner;
        let cursor = spi::as_table_owner(owner, || spi::Cursor::open(&sql, &arguments))?;
        let mut is_at_end = false;
        while !is_at_end {
            spi::in_own_memory(|| {
                let fetched = spi::as_table_owner(owner, || {
                    cursor.fetch(GROUPS_AT_ONCE, |row| Ok(group(self.ledger, row, rules)))
                })?;
                is_at_end = fetched.is_empty();
                // What is too much for an hour's figure is money all the same, and not left out here.
                let is_heard = |error: &BillingError| {
                    rules == Rules::OfWriters || error.kind == Kind::OutOfRange
                };
                let groups = fetched
                    .into_iter()
                    .filter(|group| group.as_ref().err().is_none_or(is_heard))
                    .collect::<Result<Vec<_>>>()?;
                each(groups)
            })?;
        }
        cursor.close()
    }

    fn arguments(&self, (from, to): (Instant, Instant)) -> Vec<Value> {
        let (from, to) = mapping::within_four_digit_years(from, to);
        let ids = match self.whose {
            Whose::Several(kind, ids) => {
                Value::from(text::possible_ids(&self.ledger.mapping, kind, ids))
            }
            whose => Value::from(whose.owner().map(|owner| owner.id.as_str())),
        };
        values![self.ledger.counts_from, from, to, ids].to_vec()
    }

    /// The first row in `[from, to)` and the end of its month: what one statement reads. None when
    /// there is no row.
    fn next_month(&self, from: Instant, to: Instant) -> Result<Option<(Instant, Instant)>> {
        let rows = "SELECT min(created_at) FROM ({rows}) AS l";
        let mut first = None;
        self.read(rows, (from, to), &[], |row| {
            first = row.maybe::<Instant>(1)?;
            Ok(())
        })?;
        first.map(|first| Ok((first, first.month()?.next()?.start().min(to)))).transpose()
    }

    /// Hands over the windows of `next_month`, one after the other.
    fn walk(
        &self,
        (mut from, to): (Instant, Instant),
        mut each: impl FnMut(Instant, Instant) -> Result<()>,
    ) -> Result<()> {
        while let Some((start, end)) = self.next_month(from, to)? {
            each(start, end)?;
            from = end;
        }
        Ok(())
    }

    /// Runs a statement over the rows in a window; its parameters from `$5` on are `more`.
    pub fn read(
        &self,
        template: &str,
        window: (Instant, Instant),
        more: &[Value],
        each: impl FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        let sql = template.replace("{rows}", &self.rows);
        let mut arguments = self.arguments(window);
        arguments.extend(more);
        spi::as_table_owner(self.ledger.table.owner, || {
            spi::read_text(&sql, &arguments, each).map(drop)
        })
    }
}

/// Reads what attached tables say of `[from, to)`, one month of a table per statement, and only
/// months that have rows. `{rows}` in the template are the rows that count.
pub fn each_month(
    template: &str,
    owner: Option<&Owner>,
    window: (Instant, Instant),
    more: &[Value],
    each: impl FnMut(&Ledger, &Row) -> Result<()>,
) -> Result<()> {
    each_month_of(template, Whose::of(owner), window, more, each)
}

fn each_month_of(
    template: &str,
    whose: Whose,
    window: (Instant, Instant),
    more: &[Value],
    mut each: impl FnMut(&Ledger, &Row) -> Result<()>,
) -> Result<()> {
    for ledger in registry::ledgers(whose.owner())? {
        let reading = Reading::new(&ledger, whose);
        let mut read =
            |start, end| reading.read(template, (start, end), more, |row| each(&ledger, row));
        if is_within_a_month(window) {
            read(window.0, window.1)?;
        } else {
            reading.walk(window, read)?;
        }
    }
    Ok(())
}

fn is_within_a_month((from, to): (Instant, Instant)) -> bool {
    let (first, last) = (from.month(), to.plus_microseconds(-1).month());
    first.is_ok_and(|first| last.is_ok_and(|last| first == last))
}

/// The months in which attached tables have charges dated in `[from, to)`.
pub fn months(owner: Option<&Owner>, from: Instant, to: Instant) -> Result<BTreeSet<Month>> {
    let mut months = BTreeSet::new();
    for ledger in registry::ledgers(owner)? {
        Reading::new(&ledger, Whose::of(owner)).walk((from, to), |start, _| {
            months.insert(start.month()?);
            Ok(())
        })?;
    }
    Ok(months)
}

/// The charges of attached tables. A row that cannot be kept in books, written before the table
/// was attached, is no charge.
pub fn charges(whose: Whose, from: Instant, to: Instant) -> Result<Vec<Charge>> {
    let mut groups = Vec::new();
    let template = GROUPS.replace("{cuts}", NO_CUTS);
    each_month_of(&template, whose, (from, to), &[], |ledger, row| {
        groups.extend(group(ledger, row, Rules::OfReaders).ok());
        Ok(())
    })?;
    merged_charges(groups)
}

/// Groups that only differed in what normalising takes away are one.
pub fn merged(groups: Vec<Group>) -> Result<Vec<Group>> {
    type Key = (Owner, Instant, Dimension, Option<String>, i32);
    let mut sums: BTreeMap<Key, (i64, i64, Instant)> = BTreeMap::new();
    for Group { charge, slot, last_at } in groups {
        let key = (charge.owner, charge.hour_start, charge.dimension, charge.actor_user_id, slot);
        let sum = sums.entry(key).or_insert((0, 0, last_at));
        let added = (sum.0.checked_add(charge.amount), sum.1.checked_add(charge.records));
        let (Some(amount), Some(records)) = added else {
            return Err(BillingError::out_of_range("the spend of an hour is out of range"));
        };
        *sum = (amount, records, sum.2.max(last_at));
    }
    let groups = sums.into_iter().map(|(key, (amount, records, last_at))| {
        let (owner, hour_start, dimension, actor_user_id, slot) = key;
        let charge = Charge { owner, hour_start, dimension, actor_user_id, amount, records };
        Group { charge, slot, last_at }
    });
    Ok(groups.collect())
}

/// Groups as the charges they add up to.
pub fn merged_charges(groups: Vec<Group>) -> Result<Vec<Charge>> {
    Ok(merged(groups)?.into_iter().map(|group| group.charge).collect())
}
