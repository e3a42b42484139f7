//! `verify_books()`: every promise of the books, checked in one snapshot, a month at a time.

use crate::error::Result;
use crate::owner::{Owner, OwnerKind};
use crate::sources::Charge;
use crate::spi::{self, Answer, Composite, Row, RowSet, Statement, Value, values};
use crate::time::{Day, Instant, Month};
use crate::{accounts, books, partitions, progress, sources};
use pgrx::prelude::*;
use std::collections::BTreeSet;

static GUARDS: Statement = Statement::fresh(include_str!("../sql/verify/guards.sql"));
static ROW_SECURITY: Statement = Statement::fresh(include_str!("../sql/verify/row_security.sql"));
static OWNERS: Statement = Statement::fresh(include_str!("../sql/verify/owners.sql"));
static MONTH: Statement = Statement::fresh(include_str!("../sql/verify/month.sql"));

static MONTHS_OF_FIGURES: Statement = Statement::fresh(
    "SELECT DISTINCT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_totals
     WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
     UNION SELECT DISTINCT date_trunc('month', day_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_daily_totals
     WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
     UNION SELECT DISTINCT month FROM exa_billing.exa_monthly_usage
     WHERE $1 IS NULL OR CASE $1 WHEN 'user' THEN user_id = ANY ($2) ELSE organization_id = ANY ($2) END
     UNION SELECT DISTINCT month FROM exa_billing.exa_monthly_allowance
     WHERE $1 IS NULL OR ($1 = 'user' AND user_id = ANY ($2))
     UNION SELECT DISTINCT month FROM exa_billing.unposted_entries
     WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
     UNION SELECT DISTINCT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_drivers
     WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
     UNION SELECT DISTINCT date_trunc('month', usage_date::timestamp)::date FROM exa_billing.organization_member_usage
     WHERE $1 IS NULL OR ($1 = 'organization' AND organization_id = ANY ($2))
     UNION SELECT DISTINCT date_trunc('month', entry_created_at AT TIME ZONE 'UTC')::date FROM exa_billing.idempotency_keys
     WHERE $1 IS NULL",
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

/// Whose books are proved.
#[derive(Clone, Copy)]
enum Whose<'a> {
    Everybodys,
    /// Of one kind: one statement looks at all of them.
    Some(OwnerKind, &'a [Owner]),
}

impl Whose<'_> {
    fn arguments(self) -> [Value; 2] {
        match self {
            Whose::Everybodys => [Value::from(None::<&str>), Value::from(Vec::<&str>::new())],
            Whose::Some(kind, owners) => {
                let ids: Vec<&str> = owners.iter().map(|owner| owner.id.as_str()).collect();
                [Value::from(kind.as_str()), Value::from(ids)]
            }
        }
    }

    fn attached_months(self) -> Result<BTreeSet<Month>> {
        let months = |owner| sources::attached_months(owner, Instant(i64::MIN), Instant(i64::MAX));
        match self {
            Whose::Everybodys => months(None),
            Whose::Some(_, owners) => {
                let each: Result<Vec<_>> = owners.iter().map(Some).map(months).collect();
                Ok(each?.into_iter().flatten().collect())
            }
        }
    }

    fn attached_charges(self, from: Instant, to: Instant) -> Result<Vec<Charge>> {
        match self {
            Whose::Everybodys => sources::attached_charges(None, from, to),
            Whose::Some(_, owners) => sources::attached_charges_of(owners, from, to),
        }
    }
}

/// What is nobody's in particular: guards and row security that are missing.
fn of_nobody() -> Result<Vec<Violation>> {
    let mut found = GUARDS.read(&[], violation)?;
    found.extend(ROW_SECURITY.read(&[], violation)?);
    Ok(found)
}

/// The months of the journals, and those that only figures made from them still speak of: a month
/// whose journal is gone must not go unnoticed.
fn months(whose: Whose) -> Result<BTreeSet<Month>> {
    let mut months: BTreeSet<Month> = partitions::months()?.into_iter().collect();
    months.extend(whose.attached_months()?);
    for day in MONTHS_OF_FIGURES.read(&whose.arguments(), |row| row.get::<Day>(1))? {
        months.insert(day.month()?);
    }
    Ok(months)
}

fn violations(whose: Whose) -> Result<Vec<Violation>> {
    let is_everybody = matches!(whose, Whose::Everybodys);
    let mut found = Vec::new();
    if is_everybody {
        progress::begin_telling();
        found.extend(of_nobody()?);
    }
    let [kind, ids] = whose.arguments();
    let place = Value::from(accounts::place_of_queue());
    found.extend(OWNERS.read(&[kind, ids, place], violation)?);
    let months = months(whose)?;
    for (done, month) in months.iter().enumerate() {
        if is_everybody {
            progress::tell(done, months.len(), "months verified");
        }
        let (from, to) = (month.start(), month.next()?.start());
        found.extend(spi::in_own_memory(|| {
            let mut arguments = whose.arguments().to_vec();
            arguments.extend(values![from, to, month.first_day()]);
            arguments.extend(sources::columns(&whose.attached_charges(from, to)?));
            MONTH.read(&arguments, violation)
        })?);
    }
    Ok(found)
}

/// What is wrong with these owners, and, when asked for, with the guards that are nobody's in
/// particular; each in words.
pub fn violations_of(owners: &[Owner], with_guards: bool) -> Result<Vec<String>> {
    let mut found = if with_guards { of_nobody()? } else { Vec::new() };
    for owners in owners.chunk_by(|one, other| one.kind == other.kind) {
        found.extend(violations(Whose::Some(owners[0].kind, owners))?);
    }
    let in_words = |violation: &Violation| {
        violation.iter().flatten().map(String::as_str).collect::<Vec<_>>().join(" ")
    };
    Ok(found.iter().map(in_words).collect())
}

/// The guards and the row security that are missing, each in words.
pub fn missing_guards() -> Result<Vec<String>> {
    let details = of_nobody()?.into_iter().map(|[.., detail]| detail.unwrap_or_default());
    Ok(details.collect())
}

/// One row per violated invariant; none when the books hold.
#[pg_extern(sql = false)]
fn verify_books(owner_kind: Option<&str>, owner_id: Option<&str>) -> Answer<RowSet> {
    let owner = match (owner_kind, owner_id) {
        (None, None) => None,
        _ => Some(Owner::parse(owner_kind, owner_id)?),
    };
    books::enter_for_reading("exa_billing.verify_books()")?;
    let whose = owner
        .as_ref()
        .map_or(Whose::Everybodys, |owner| Whose::Some(owner.kind, std::slice::from_ref(owner)));
    Ok(violations(whose)?.iter().map(into_row).collect())
}
