//! The months that journals or rollups have anything of: what a long range is walked by.

use super::hours::Hours;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{Statement, values};
use crate::time::{Day, Month};
use crate::{partitions, sources};
use std::collections::BTreeSet;

static OF_OWNER: Statement = Statement::over_queue(
    "SELECT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_totals
     WHERE owner_kind = $1 AND owner_id = $2 AND hour_start >= $3 AND hour_start < $4
     UNION SELECT date_trunc('month', day_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_daily_totals
     WHERE owner_kind = $1 AND owner_id = $2 AND day_start >= $3 AND day_start < $4
     UNION SELECT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_drivers
     WHERE owner_kind = $1 AND owner_id = $2 AND hour_start >= $3 AND hour_start < $4
     UNION SELECT date_trunc('month', usage_date::timestamp)::date FROM exa_billing.organization_member_usage
     WHERE $1 = 'organization' AND organization_id = $2
     UNION SELECT date_trunc('month', created_at AT TIME ZONE 'UTC')::date FROM exa_billing.unposted_spend
     WHERE owner_kind = $1 AND owner_id = $2",
);
static OF_ALL: Statement = Statement::fresh(
    "SELECT DISTINCT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_totals
     WHERE hour_start >= $1 AND hour_start < $2
     UNION SELECT DISTINCT date_trunc('month', day_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_daily_totals
     WHERE day_start >= $1 AND day_start < $2
     UNION SELECT DISTINCT date_trunc('month', hour_start AT TIME ZONE 'UTC')::date FROM exa_billing.spend_hourly_drivers
     WHERE hour_start >= $1 AND hour_start < $2
     UNION SELECT DISTINCT date_trunc('month', usage_date::timestamp)::date FROM exa_billing.organization_member_usage
     UNION SELECT DISTINCT date_trunc('month', created_at AT TIME ZONE 'UTC')::date FROM exa_billing.unposted_spend",
);

/// The months within a range that there is anything of, one owner's or (None) anybody's; on the
/// caller's snapshot.
pub fn months(owner: Option<&Owner>, range: Hours) -> Result<BTreeSet<Month>> {
    let first_day = |row: &crate::spi::Row| row.get::<Day>(1);
    let of_figures = match owner {
        Some(owner) => OF_OWNER
            .read(values![owner.kind.as_str(), &owner.id, range.from, range.to], first_day)?,
        None => OF_ALL.read(values![range.from, range.to], first_day)?,
    };
    let mut months: BTreeSet<Month> = partitions::months()?.into_iter().collect();
    for day in of_figures {
        months.insert(day.month()?);
    }
    // Also rows that were never captured, of times that no partition reaches.
    months.extend(sources::attached_months(owner, range.from, range.to)?);
    let mut within = BTreeSet::new();
    for month in months {
        if Hours::of_month(month)?.common(range).is_some() {
            within.insert(month);
        }
    }
    Ok(within)
}

/// A range cut into the months that there is anything of, one owner's or (None) anybody's.
pub fn pieces(owner: Option<&Owner>, range: Hours) -> Result<Vec<Hours>> {
    if Hours::of_month(range.from.month()?)?.common(range) == Some(range) {
        return Ok(vec![range]);
    }
    let mut pieces = Vec::new();
    for month in months(owner, range)? {
        pieces.extend(Hours::of_month(month)?.common(range));
    }
    Ok(pieces)
}
