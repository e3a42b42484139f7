//! The capture trigger: what a statement writes to an attached table is queued in the writer's own
//! transaction.

use super::read::{self, Group, NO_CUTS, Rules, groups_sql};
use super::registry::{self, Ledger, OnDelete};
use super::text::{Rows, Scope, Whose};
use super::triggers::{NEW_ROWS, OLD_ROWS, TRIGGERS};
use super::write;
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::owner::quoted;
use crate::spi::{self, Answer, Event, Statement, Trigger, Value, values};
use crate::time::Instant;
use pgrx::prelude::*;

static ROOT: Statement =
    Statement::kept("SELECT coalesce(pg_catalog.pg_partition_root($1::regclass)::oid, $1)");

/// The rows of the transition tables that count, as groups.
fn groups(trigger: &Trigger, ledger: &Ledger, cuts: Option<Vec<Instant>>) -> Result<Vec<Group>> {
    let rows = |relation, sign| {
        let mapping = &ledger.mapping;
        Rows { mapping, relation, sign, scope: Scope::Written, whose: Whose::Everybodys }.sql()
    };
    let rows = match trigger.event() {
        Event::Insert => rows(NEW_ROWS, 1),
        Event::Update => format!("{} UNION ALL {}", rows(NEW_ROWS, 1), rows(OLD_ROWS, -1)),
        _ => rows(OLD_ROWS, -1),
    };
    let sql = groups_sql(&rows, if cuts.is_some() { "$2" } else { NO_CUTS });
    let mut arguments = vec![Value::from(ledger.counts_from)];
    arguments.extend(cuts.map(Value::from));
    let read = trigger.read(sql, &arguments, |row| {
        let has_new_rows = row.maybe::<i64>(11)?.is_some();
        match read::group(ledger, row, Rules::OfWriters) {
            // What never counted need not be taken back.
            Err(_) if !has_new_rows => Ok(None),
            group => group.map(Some),
        }
    })?;
    Ok(read.into_iter().flatten().collect())
}

fn capture(trigger: &Trigger, ledger: &Ledger) -> Result<()> {
    if trigger.event() == Event::Delete && ledger.on_delete == OnDelete::Keep {
        return keep(trigger, ledger);
    }
    let groups = groups(trigger, ledger, None)?;
    let changes: Vec<_> = read::merged_charges(groups)?
        .into_iter()
        .filter(|charge| charge.amount != 0 || charge.records != 0)
        .collect();
    write::queue(&ledger.source_name, &changes)
}

/// The ledger forgets rows; what they say goes on counting.
fn keep(trigger: &Trigger, ledger: &Ledger) -> Result<()> {
    let deleted = groups(trigger, ledger, None)?;
    let hours = deleted.iter().map(|group| group.charge.hour_start);
    let (Some(from), Some(to)) = (hours.clone().min(), hours.max()) else { return Ok(()) };
    let cuts = write::cuts((from, to.plus_hours(1)))?;
    let mut groups = if cuts.is_empty() { deleted } else { groups(trigger, ledger, Some(cuts))? };
    for group in &mut groups {
        group.charge.amount = -group.charge.amount;
        group.charge.records = -group.charge.records;
    }
    write::close(ledger, groups).map(drop)
}

/// The attached table the trigger belongs to. The registry decides: a trigger alone, which the
/// owner of any table can make, charges nobody.
fn ledger_of(trigger: &Trigger) -> Result<Ledger> {
    let not_attached = || {
        BillingError::new(Kind::WrongState, "the table is not attached as a spend source")
            .hint("Attach it with exa_billing.attach_spend_source(), or drop the trigger.")
    };
    let source_name = trigger.argument().ok_or_else(not_attached)?;
    // The triggers count from the moment they are committed, also for a transaction whose
    // snapshot is older than the registration.
    let (entry, root) = spi::on_latest_snapshot(|| {
        let root = ROOT.read_row(values![trigger.relation()], |row| row.get::<pg_sys::Oid>(1))?;
        Ok((registry::named(&source_name)?, root))
    })?;
    entry
        .and_then(|entry| entry.ledger)
        .filter(|ledger| Some(ledger.table.oid) == root)
        .ok_or_else(not_attached)
}

/// A trigger that somebody else made, or renamed, would capture what ours captures a second time.
fn require_own(trigger: &Trigger) -> Result<()> {
    let [insert, update, delete, truncate] = TRIGGERS;
    let own = match trigger.event() {
        Event::Insert => insert,
        Event::Update => update,
        Event::Delete => delete,
        Event::Truncate => truncate,
    };
    let name = trigger.name();
    if name == own && !trigger.is_of_rows() {
        return Ok(());
    }
    let what = format!("trigger {} is not as attach_spend_source() makes it", quoted(&name));
    Err(BillingError::new(Kind::WrongState, what)
        .detail(format!("Its name would be {}, for each statement.", quoted(own)))
        .hint("Give it its name back, or drop it and call exa_billing.setup()."))
}

/// Queues what the statement that fired it has written. On a subscriber nothing is captured: the
/// publisher has done it.
///
/// Locks: none that others could wait for, except where a deleted row's month has to be made.
#[pg_extern(sql = false)]
fn capture_spend(call: pg_sys::FunctionCallInfo) -> Answer<()> {
    let trigger = Trigger::that_calls(call)?;
    if spi::is_subscriber() {
        return Ok(());
    }
    require_own(&trigger)?;
    books::enter_for_writing("exa_billing.capture_spend()")?;
    let ledger = ledger_of(&trigger)?;
    Ok(capture(&trigger, &ledger)?)
}

/// Refuses to empty an attached table in one stroke: no row would be seen going.
#[pg_extern(sql = false)]
fn refuse_truncate(call: pg_sys::FunctionCallInfo) -> Answer<()> {
    let trigger = Trigger::that_calls(call)?;
    let source = trigger.argument().unwrap_or_default();
    let error = BillingError::new(Kind::WrongState, "an attached table refuses TRUNCATE")
        .detail(format!("It is the spend source {}.", quoted(&source)))
        .hint("Delete its rows, or end it as a journal with exa_billing.detach_spend_source().");
    Err(error.into())
}
