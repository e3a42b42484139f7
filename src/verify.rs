//! `verify_books()`: every promise of the books, checked in one snapshot, a month at a time.

use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{self, Answer, Composite, Row, RowSet, Statement, Value, values};
use crate::time::{Day, Instant, Month};
use crate::{books, partitions, progress, sources};
use pgrx::prelude::*;
use std::collections::BTreeSet;

static GUARDS: Statement = Statement::fresh(include_str!("../sql/verify/guards.sql"));
static ROW_SECURITY: Statement = Statement::fresh(include_str!("../sql/verify/row_security.sql"));
static OWNERS: Statement = Statement::fresh(include_str!("../sql/verify/owners.sql"));
static MONTH: Statement = Statement::fresh(include_str!("../sql/verify/month.sql"));

static MONTHS_OF_FIGURES: Statement = Statement::fresh(
    "SELECT DISTINCT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_totals
     UNION SELECT DISTINCT month FROM exa_billing.exa_monthly_usage
     UNION SELECT DISTINCT month FROM exa_billing.exa_monthly_allowance
     UNION SELECT DISTINCT month FROM exa_billing.unposted_entries
     UNION SELECT DISTINCT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_drivers
     UNION SELECT DISTINCT date_trunc('month', usage_date::timestamp)::date FROM exa_billing.organization_member_usage
     UNION SELECT DISTINCT date_trunc('month', entry_created_at AT TIME ZONE 'UTC')::date FROM exa_billing.idempotency_keys",
);

/// The seven columns of a violation, as text: what a statement's memory holds is given back after it.
type Violation = [Option<String>; 7];

fn violation(row: &Row) -> Result<Violation> {
    let mut columns = Violation::default();
    for (number, column) in columns.iter_mut().enumerate() {
        *column = row.maybe(number + 1)?;
    }
    Ok(columns)
}

fn into_row(violation: &Violation) -> Composite {
    let [invariant, kind, id, period, expected, actual, detail] =
        violation.each_ref().map(Option::as_deref);
    let (expected, actual) = (Value::numeric(expected), Value::numeric(actual));
    Composite::new(values![invariant, kind, id, period, expected, actual, detail])
}

/// The months of the journals, and those that only figures made from them still speak of: a month
/// whose journal is gone must not go unnoticed.
fn months(owner: Option<&Owner>) -> Result<BTreeSet<Month>> {
    let mut months: BTreeSet<Month> = partitions::months()?.into_iter().collect();
    months.extend(sources::attached_months(owner, Instant(i64::MIN), Instant(i64::MAX))?);
    for day in MONTHS_OF_FIGURES.read(&[], |row| row.get::<Day>(1))? {
        months.insert(day.month()?);
    }
    Ok(months)
}

fn violations(owner: Option<&Owner>) -> Result<Vec<Violation>> {
    let kind = owner.map(|owner| owner.kind.as_str());
    let id = owner.map(|owner| owner.id.as_str());
    let mut found = Vec::new();
    if owner.is_none() {
        progress::begin_telling();
        found.extend(GUARDS.read(&[], violation)?);
        found.extend(ROW_SECURITY.read(&[], violation)?);
    }
    found.extend(OWNERS.read(values![kind, id], violation)?);
    let months = months(owner)?;
    for (done, month) in months.iter().enumerate() {
        if owner.is_none() {
            progress::tell(done, months.len(), "months verified");
        }
        let (from, to) = (month.start(), month.next()?.start());
        found.extend(spi::in_own_memory(|| {
            let mut arguments = values![kind, id, from, to, month.first_day()].to_vec();
            arguments.extend(sources::columns(&sources::attached_charges(owner, from, to)?));
            MONTH.read(&arguments, violation)
        })?);
    }
    Ok(found)
}

/// What is wrong with these owners, and, when asked for, with the guards that are nobody's in
/// particular; each in words.
pub fn violations_of(owners: &[Owner], with_guards: bool) -> Result<Vec<String>> {
    let mut found = Vec::new();
    if with_guards {
        found.extend(GUARDS.read(&[], violation)?);
        found.extend(ROW_SECURITY.read(&[], violation)?);
    }
    for owner in owners {
        found.extend(violations(Some(owner))?);
    }
    let in_words = |violation: &Violation| {
        violation.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    Ok(found.iter().map(in_words).collect())
}

/// The guards and the row security that are missing, each in words.
pub fn missing_guards() -> Result<Vec<String>> {
    let mut missing = GUARDS.read(&[], |row| row.get::<String>(7))?;
    missing.extend(ROW_SECURITY.read(&[], |row| row.get::<String>(7))?);
    Ok(missing)
}

/// One row per violated invariant; none when the books hold.
#[pg_extern(sql = false)]
fn verify_books(owner_kind: Option<&str>, owner_id: Option<&str>) -> Answer<RowSet> {
    let owner = match (owner_kind, owner_id) {
        (None, None) => None,
        _ => Some(Owner::parse(owner_kind, owner_id)?),
    };
    books::enter_for_reading("exa_billing.verify_books()")?;
    Ok(violations(owner.as_ref())?.iter().map(into_row).collect())
}
