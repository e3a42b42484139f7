//! `reconcile_rollups()`: where the rollups differ from the journals, and what they cannot tell.

use super::coverage::Coverage;
use super::history;
use super::hours::Hours;
use crate::error::{BillingError, Result};
use crate::owner::quoted;
use crate::spi::{Answer, Composite, RowSet, Statement, Value, values};
use crate::time::Instant;
use crate::{books, progress, sources};
use pgrx::prelude::*;
use std::collections::BTreeMap;

static OPEN_INTERVALS: Statement = Statement::fresh(
    "SELECT owner_kind::text, owner_id::text, from_hour, to_hour, reason
     FROM exa_billing.spend_degraded_intervals
     WHERE resolved_at IS NULL AND from_hour < $2 AND to_hour > $1
     ORDER BY greatest(from_hour, $1), owner_kind NULLS FIRST, owner_id, to_hour, interval_id",
);
static UNKNOWN_SOURCES: Statement = Statement::fresh(
    "SELECT source::text, sum(amount_microdollars)::text, sum(spend_record_count)::text
     FROM exa_billing.spend_log
     WHERE created_at >= $1 AND created_at < $2
       AND source NOT IN ('ai_gateway', 'kiloclaw', 'coding_plan', 'other', 'opening_balance')
     GROUP BY source",
);
static UNKNOWN_ATTACHED_SOURCES: Statement = Statement::fresh(
    "SELECT source_name::text, source::text FROM exa_billing.spend_sources
     WHERE NOT is_own AND detached_at IS NULL
       AND source NOT IN ('ai_gateway', 'kiloclaw', 'coding_plan', 'other')
     ORDER BY source, source_name",
);
static MONTH: Statement =
    Statement::fresh(include_str!("../../sql/statements/reconcile_month.sql"));

/// One row of the report. Sums are numbers as PostgreSQL writes them.
#[derive(Default)]
struct Mismatch {
    mismatch_type: String,
    hour_start: Option<Instant>,
    owner_kind: Option<String>,
    owner_id: Option<String>,
    spend_category: Option<String>,
    expected_microdollars: Option<String>,
    actual_microdollars: Option<String>,
    expected_record_count: Option<String>,
    actual_record_count: Option<String>,
    detail: Option<String>,
}

impl From<Mismatch> for Composite {
    fn from(row: Mismatch) -> Self {
        Composite::new(values![
            &row.mismatch_type,
            row.hour_start,
            row.owner_kind.as_deref(),
            row.owner_id.as_deref(),
            row.spend_category.as_deref(),
            Value::numeric(row.expected_microdollars.as_deref()),
            Value::numeric(row.actual_microdollars.as_deref()),
            Value::numeric(row.expected_record_count.as_deref()),
            Value::numeric(row.actual_record_count.as_deref()),
            row.detail.as_deref()
        ])
    }
}

/// The report so far: as many rows as are wanted, and how many there are.
struct Report {
    max_details: i64,
    rows: Vec<Mismatch>,
    found: i64,
}

impl Report {
    fn add(&mut self, mismatch: Mismatch) {
        self.found += 1;
        if self.room() > 0 {
            self.rows.push(mismatch);
        }
    }

    fn room(&self) -> i64 {
        self.max_details - i64::try_from(self.rows.len()).unwrap_or(i64::MAX)
    }
}

/// Hours that the rollups do not vouch for: one row for those before everything, one for each
/// open degraded interval.
fn add_holes(report: &mut Report, hours: Hours) -> Result<()> {
    let hole = |part: Hours, why: &str| Mismatch {
        mismatch_type: "coverage_hole".to_owned(),
        hour_start: Some(part.from),
        detail: Some(format!("until {}: {why}", part.to)),
        ..Mismatch::default()
    };
    let known_from = Coverage::read(None, hours.from, hours.to)?.known_from;
    let unknown = Hours { from: Instant(i64::MIN), to: known_from };
    if let Some(part) = hours.common(unknown) {
        report.add(hole(part, "not backfilled"));
    }
    let intervals = OPEN_INTERVALS.read(values![hours.from, hours.to], |row| {
        let owner = (row.maybe::<String>(1)?, row.maybe::<String>(2)?);
        Ok((owner, Hours { from: row.get(3)?, to: row.get(4)? }, row.get::<String>(5)?))
    })?;
    for ((owner_kind, owner_id), interval, reason) in intervals {
        if let Some(part) = hours.common(interval) {
            report.add(Mismatch { owner_kind, owner_id, ..hole(part, &reason) });
        }
    }
    Ok(())
}

/// Sources that are counted as `other`, each as it was called.
fn add_unknown_sources(report: &mut Report, months: &[Hours]) -> Result<()> {
    let mut sums: BTreeMap<String, [i128; 2]> = BTreeMap::new();
    for month in months {
        let number = |text: String| {
            text.parse::<i128>().map_err(|_| BillingError::internal("a sum is not a whole number"))
        };
        let found = UNKNOWN_SOURCES.read(values![month.from, month.to], |row| {
            Ok((row.get::<String>(1)?, [number(row.get(2)?)?, number(row.get(3)?)?]))
        })?;
        for (source, [amount, records]) in found {
            let sum = sums.entry(source).or_default();
            *sum = [sum[0] + amount, sum[1] + records];
        }
    }
    for (source, [amount, records]) in sums {
        report.add(Mismatch {
            mismatch_type: "unknown_taxonomy_value".to_owned(),
            actual_microdollars: Some(amount.to_string()),
            actual_record_count: Some(records.to_string()),
            detail: Some(format!("source {} is counted as other", quoted(&source))),
            ..Mismatch::default()
        });
    }
    let attached = UNKNOWN_ATTACHED_SOURCES
        .read(&[], |row| Ok((row.get::<String>(1)?, row.get::<String>(2)?)))?;
    for (name, source) in attached {
        let (name, source) = (quoted(&name), quoted(&source));
        report.add(Mismatch {
            mismatch_type: "unknown_taxonomy_value".to_owned(),
            detail: Some(format!(
                "source {source} of the attached table {name} is counted as other"
            )),
            ..Mismatch::default()
        });
    }
    Ok(())
}

/// What differs in the hours of one month.
fn add_differences(report: &mut Report, hours: Hours) -> Result<()> {
    let attached = sources::attached_charges(None, hours.from, hours.to)?;
    let mut arguments = values![hours.from, hours.to].to_vec();
    arguments.extend(sources::columns(&attached));
    // Also without room a row is wanted: it tells how many there are.
    arguments.push(Value::from(report.room().max(1)));
    let mut found = 0;
    let mismatches = MONTH.read(&arguments, |row| {
        found = row.get(10)?;
        Ok(Mismatch {
            mismatch_type: row.get(1)?,
            hour_start: row.maybe(2)?,
            owner_kind: row.maybe(3)?,
            owner_id: row.maybe(4)?,
            spend_category: row.maybe(5)?,
            expected_microdollars: row.maybe(6)?,
            actual_microdollars: row.maybe(7)?,
            expected_record_count: row.maybe(8)?,
            actual_record_count: row.maybe(9)?,
            detail: None,
        })
    })?;
    let room = usize::try_from(report.room()).unwrap_or_default();
    report.found += found;
    report.rows.extend(mismatches.into_iter().take(room));
    Ok(())
}

/// The whole report, on the caller's snapshot: what concerns many hours first, then the
/// differences in order of time.
fn reconcile(hours: Hours, max_details: i64) -> Result<Report> {
    progress::begin_telling();
    let mut report = Report { max_details, rows: Vec::new(), found: 0 };
    let months = history::pieces(None, hours)?;
    add_holes(&mut report, hours)?;
    add_unknown_sources(&mut report, &months)?;
    let total = months.len();
    for (done, month) in months.into_iter().enumerate() {
        progress::tell(done, total, "months compared");
        add_differences(&mut report, month)?;
    }
    Ok(report)
}

/// One row per difference between rollups and journals, and per hole in the coverage.
#[pg_extern(sql = false)]
fn reconcile_rollups(
    from_hour: Option<Instant>,
    to_hour: Option<Instant>,
    max_details: Option<i32>,
) -> Answer<RowSet> {
    let hours = Hours::parse(from_hour, to_hour)?;
    let max_details = max_details.ok_or_else(|| BillingError::missing("max_details"))?;
    if max_details < 0 {
        return Err(BillingError::invalid("max_details must not be negative")
            .detail(format!("max_details is {max_details}."))
            .into());
    }
    books::enter_for_reading("exa_billing.reconcile_rollups()")?;
    let report = reconcile(hours, i64::from(max_details))?;
    let (shown, found) = (report.rows.len(), report.found);
    if found > i64::from(max_details) {
        pgrx::notice!("{shown} of {found} mismatches are shown; max_details is {max_details}");
    }
    Ok(report.rows.into_iter().map(Composite::from).collect())
}
