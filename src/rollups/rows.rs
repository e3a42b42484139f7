//! What rebuilding an owner's rollups reads and writes.

use super::hours::Hours;
use super::repair::{Changes, Figure};
use crate::error::{BillingError, Kind, Result};
use crate::owner::Owner;
use crate::posting;
use crate::sources::Dimension;
use crate::spi::{self, Row, Statement, values};
use crate::time::{Day, Instant};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The beginning of an hour or a day, and a category.
pub type TotalKey = (Instant, String);
/// A member and a day.
pub type DayKey = (String, Day);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DriverKey {
    pub hour_start: Instant,
    pub what: What,
    /// Empty: nobody known.
    pub actor_user_id: String,
}

/// What a driver is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Known(Dimension),
    /// A posted row whose dimension is missing or no such as the product writes.
    Unknown(Uuid),
}

/// One driver's charges of an hour.
pub struct Entry {
    pub hour_start: Instant,
    pub dimension: Dimension,
    pub actor_user_id: Option<String>,
    pub figure: Figure,
}

static UNPOSTED: Statement = Statement::over_queue(
    "SELECT hour_start, spend_category, source, product_key, feature_key, model_or_plan_key,
            provider_key, actor_user_id, sum(amount_microdollars)::bigint, sum(spend_record_count)::bigint
     FROM exa_billing.unposted_entries
     WHERE owner_kind = $1 AND owner_id = $2 AND created_at >= $3 AND created_at < $4
       AND (amount_microdollars <> 0 OR spend_record_count <> 0)
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
);
static DRIVERS: Statement = Statement::kept(
    "SELECT p.hour_start, d.spend_category, d.source, d.product_key, d.feature_key,
            d.model_or_plan_key, d.provider_key, p.actor_user_id, p.total_microdollars,
            p.spend_record_count, p.dimension_id
     FROM exa_billing.spend_hourly_drivers AS p
     LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
     WHERE p.owner_kind = $1 AND p.owner_id = $2 AND p.hour_start >= $3 AND p.hour_start < $4",
);
static MEMBER_DAYS: Statement = Statement::kept(
    "SELECT user_id, usage_date, microdollars_used FROM exa_billing.organization_member_usage
     WHERE organization_id = $1 AND usage_date >= $2 AND usage_date < $3",
);

/// Where totals are kept, of hours or of days.
pub struct Totals {
    read: Statement,
    put: Statement,
    remove: Statement,
}

pub static HOURS: Totals = Totals {
    read: Statement::kept(
        "SELECT hour_start, spend_category, total_microdollars, spend_record_count
         FROM exa_billing.spend_hourly_totals
         WHERE owner_kind = $1 AND owner_id = $2 AND hour_start >= $3 AND hour_start < $4",
    ),
    put: Statement::kept(
        "INSERT INTO exa_billing.spend_hourly_totals
             (owner_kind, owner_id, hour_start, spend_category, total_microdollars, spend_record_count)
         SELECT $1, $2, * FROM unnest($3, $4, $5, $6)
         ON CONFLICT (owner_kind, owner_id, hour_start, spend_category) DO UPDATE
         SET total_microdollars = excluded.total_microdollars,
             spend_record_count = excluded.spend_record_count",
    ),
    remove: Statement::kept(
        "DELETE FROM exa_billing.spend_hourly_totals AS t USING unnest($3, $4) AS gone(hour_start, category)
         WHERE t.owner_kind = $1 AND t.owner_id = $2 AND t.hour_start = gone.hour_start
           AND t.spend_category = gone.category",
    ),
};
pub static DAYS: Totals = Totals {
    read: Statement::kept(
        "SELECT day_start, spend_category, total_microdollars, spend_record_count
         FROM exa_billing.spend_daily_totals
         WHERE owner_kind = $1 AND owner_id = $2 AND day_start >= $3 AND day_start < $4",
    ),
    put: Statement::kept(
        "INSERT INTO exa_billing.spend_daily_totals
             (owner_kind, owner_id, day_start, spend_category, total_microdollars, spend_record_count)
         SELECT $1, $2, * FROM unnest($3, $4, $5, $6)
         ON CONFLICT (owner_kind, owner_id, day_start, spend_category) DO UPDATE
         SET total_microdollars = excluded.total_microdollars,
             spend_record_count = excluded.spend_record_count",
    ),
    remove: Statement::kept(
        "DELETE FROM exa_billing.spend_daily_totals AS t USING unnest($3, $4) AS gone(day_start, category)
         WHERE t.owner_kind = $1 AND t.owner_id = $2 AND t.day_start = gone.day_start
           AND t.spend_category = gone.category",
    ),
};

static PUT_DRIVERS: Statement = Statement::kept(
    "INSERT INTO exa_billing.spend_hourly_drivers
         (owner_kind, owner_id, hour_start, dimension_id, actor_user_id, total_microdollars,
          spend_record_count)
     SELECT $1, $2, * FROM unnest($3, $4, $5, $6, $7)
     ON CONFLICT (owner_kind, owner_id, hour_start, dimension_id, actor_user_id) DO UPDATE
     SET total_microdollars = excluded.total_microdollars,
         spend_record_count = excluded.spend_record_count",
);
static REMOVE_DRIVERS: Statement = Statement::kept(
    "DELETE FROM exa_billing.spend_hourly_drivers AS d
     USING unnest($3, $4, $5) AS gone(hour_start, dimension_id, actor_user_id)
     WHERE d.owner_kind = $1 AND d.owner_id = $2 AND d.hour_start = gone.hour_start
       AND d.dimension_id = gone.dimension_id AND d.actor_user_id = gone.actor_user_id",
);
static PUT_MEMBER_DAYS: Statement = Statement::kept(
    "INSERT INTO exa_billing.organization_member_usage
         (organization_id, user_id, usage_date, microdollars_used)
     SELECT $1, * FROM unnest($2, $3, $4)
     ON CONFLICT (organization_id, user_id, usage_date) DO UPDATE
     SET microdollars_used = excluded.microdollars_used",
);
static REMOVE_MEMBER_DAYS: Statement = Statement::kept(
    "DELETE FROM exa_billing.organization_member_usage AS m USING unnest($2, $3) AS gone(user_id, usage_date)
     WHERE m.organization_id = $1 AND m.user_id = gone.user_id AND m.usage_date = gone.usage_date",
);

static FIND_DIMENSIONS: Statement = Statement::kept(
    "SELECT (wanted.place - 1)::int, d.dimension_id
     FROM unnest($1, $2, $3, $4, $5, $6) WITH ORDINALITY
         AS wanted(category, source, product, feature, model_or_plan, provider, place)
     JOIN exa_billing.spend_dimensions AS d
         ON d.spend_category = wanted.category AND d.source = wanted.source
        AND d.product_key = wanted.product AND d.feature_key = wanted.feature
        AND d.model_or_plan_key = wanted.model_or_plan AND d.provider_key = wanted.provider",
);
static ADD_DIMENSIONS: Statement = Statement::kept(
    "INSERT INTO exa_billing.spend_dimensions
         (dimension_id, spend_category, source, product_key, feature_key, model_or_plan_key, provider_key)
     SELECT gen_random_uuid(), * FROM unnest($1, $2, $3, $4, $5, $6)
     ON CONFLICT DO NOTHING",
);

/// What waits in the queue, blocked rows included.
pub fn unposted(owner: &Owner, hours: Hours) -> Result<Vec<Entry>> {
    UNPOSTED.read(values![owner.kind.as_str(), &owner.id, hours.from, hours.to], |row| {
        let What::Known(dimension) = what_of(row, Uuid::nil())? else {
            return Err(BillingError::new(
                Kind::WrongState,
                "a queue row names a dimension that does not exist",
            )
            .hint("Call exa_billing.setup(); it puts back the dimensions of Exa requests."));
        };
        Ok(Entry {
            hour_start: row.get(1)?,
            dimension,
            actor_user_id: row.maybe(8)?,
            figure: Figure { amount: row.get(9)?, records: row.get(10)? },
        })
    })
}

/// The dimension in columns 2 to 7, if it is one.
fn what_of(row: &Row, id: Uuid) -> Result<What> {
    let mut parts = Vec::with_capacity(6);
    for column in 2..=7 {
        match row.maybe::<String>(column)? {
            Some(part) => parts.push(part),
            None => return Ok(What::Unknown(id)),
        }
    }
    let [category, source, product, feature, model_or_plan, provider] = parts.as_slice() else {
        return Err(BillingError::internal("a dimension has six parts"));
    };
    let dimension =
        Dimension::known(category, [source, product, feature, model_or_plan, provider])?;
    Ok(if dimension.source == source { What::Known(dimension) } else { What::Unknown(id) })
}

/// The posted drivers, and under which ids their dimensions are known.
pub fn drivers(
    owner: &Owner,
    hours: Hours,
    ids: &mut BTreeMap<Dimension, Uuid>,
) -> Result<Vec<(DriverKey, Figure)>> {
    DRIVERS.read(values![owner.kind.as_str(), &owner.id, hours.from, hours.to], |row| {
        let id = row.get::<Uuid>(11)?;
        let what = what_of(row, id)?;
        if let What::Known(dimension) = &what {
            ids.insert(dimension.clone(), id);
        }
        let key = DriverKey { hour_start: row.get(1)?, what, actor_user_id: row.get(8)? };
        Ok((key, Figure { amount: row.get(9)?, records: row.get(10)? }))
    })
}

pub fn member_days(organization_id: &str, days: Hours) -> Result<Vec<(DayKey, Figure)>> {
    MEMBER_DAYS.read(values![organization_id, days.from.day()?, days.to.day()?], |row| {
        Ok(((row.get(1)?, row.get(2)?), Figure { amount: row.get(3)?, records: 0 }))
    })
}

pub fn write_drivers(
    owner: &Owner,
    put: &[(DriverKey, Figure)],
    remove: &[DriverKey],
    ids: &BTreeMap<Dimension, Uuid>,
) -> Result<()> {
    let (kind, id) = (owner.kind.as_str(), &owner.id);
    let columns = |keys: &[&DriverKey]| -> Result<(Vec<Instant>, Vec<Uuid>)> {
        let ids: Result<Vec<Uuid>> = keys.iter().map(|key| key.what.id(ids)).collect();
        Ok((keys.iter().map(|key| key.hour_start).collect(), ids?))
    };
    if !put.is_empty() {
        let keys: Vec<&DriverKey> = put.iter().map(|(key, _)| key).collect();
        let (hours, dimensions) = columns(&keys)?;
        let actors: Vec<&str> = keys.iter().map(|key| &*key.actor_user_id).collect();
        let (amounts, records) = figures(put);
        PUT_DRIVERS.execute(values![kind, id, hours, dimensions, actors, amounts, records])?;
    }
    if !remove.is_empty() {
        let keys: Vec<&DriverKey> = remove.iter().collect();
        let (hours, dimensions) = columns(&keys)?;
        let actors: Vec<&str> = keys.iter().map(|key| &*key.actor_user_id).collect();
        REMOVE_DRIVERS.execute(values![kind, id, hours, dimensions, actors])?;
    }
    Ok(())
}

pub fn write_member_days(
    organization_id: &str,
    put: &[(DayKey, Figure)],
    remove: &[DayKey],
) -> Result<()> {
    if !put.is_empty() {
        let users: Vec<&str> = put.iter().map(|((user, _), _)| &**user).collect();
        let days: Vec<Day> = put.iter().map(|((_, day), _)| *day).collect();
        PUT_MEMBER_DAYS.execute(values![organization_id, users, days, figures(put).0])?;
    }
    if !remove.is_empty() {
        let users: Vec<&str> = remove.iter().map(|(user, _)| &**user).collect();
        let days: Vec<Day> = remove.iter().map(|(_, day)| *day).collect();
        REMOVE_MEMBER_DAYS.execute(values![organization_id, users, days])?;
    }
    Ok(())
}

impl Totals {
    pub fn read(&'static self, owner: &Owner, hours: Hours) -> Result<Vec<(TotalKey, Figure)>> {
        self.read.read(values![owner.kind.as_str(), &owner.id, hours.from, hours.to], |row| {
            let figure = Figure { amount: row.get(3)?, records: row.get(4)? };
            Ok(((row.get(1)?, row.get(2)?), figure))
        })
    }

    pub fn write(&'static self, owner: &Owner, changes: &Changes<TotalKey>) -> Result<()> {
        let (kind, id) = (owner.kind.as_str(), &owner.id);
        let Changes { put, remove, .. } = changes;
        if !put.is_empty() {
            let starts: Vec<Instant> = put.iter().map(|((start, _), _)| *start).collect();
            let categories: Vec<&str> = put.iter().map(|((_, category), _)| &**category).collect();
            let (amounts, records) = figures(put);
            self.put.execute(values![kind, id, starts, categories, amounts, records])?;
        }
        if !remove.is_empty() {
            let starts: Vec<Instant> = remove.iter().map(|(start, _)| *start).collect();
            let categories: Vec<&str> = remove.iter().map(|(_, category)| &**category).collect();
            self.remove.execute(values![kind, id, starts, categories])?;
        }
        Ok(())
    }
}

fn figures<K>(put: &[(K, Figure)]) -> (Vec<i64>, Vec<i64>) {
    put.iter().map(|(_, figure)| (figure.amount, figure.records)).unzip()
}

impl What {
    pub fn known(&self) -> Option<&Dimension> {
        match self {
            What::Known(dimension) => Some(dimension),
            What::Unknown(_) => None,
        }
    }

    fn id(&self, ids: &BTreeMap<Dimension, Uuid>) -> Result<Uuid> {
        match self {
            What::Known(dimension) => ids.get(dimension).copied().ok_or_else(|| {
                BillingError::internal("a driver's dimension was not made known beforehand")
            }),
            What::Unknown(id) => Ok(*id),
        }
    }
}

/// Completes `ids` with those of `wanted`; true when dimensions had to be added for it.
///
/// Locks: the lock of new dimensions, which posting only tries, until the transaction ends; only
/// where there are new ones.
pub fn make_known(
    wanted: &BTreeSet<Dimension>,
    ids: &mut BTreeMap<Dimension, Uuid>,
) -> Result<bool> {
    let missing = |ids: &BTreeMap<Dimension, Uuid>| -> Vec<Dimension> {
        wanted.iter().filter(|dimension| !ids.contains_key(dimension)).cloned().collect()
    };
    find(&missing(ids), ids)?;
    if missing(ids).is_empty() {
        return Ok(false);
    }
    spi::lock_until_commit(posting::DIMENSION_LOCK)?;
    ADD_DIMENSIONS.execute(&columns(&missing(ids)))?;
    find(&missing(ids), ids)?;
    Ok(true)
}

fn find(dimensions: &[Dimension], ids: &mut BTreeMap<Dimension, Uuid>) -> Result<()> {
    if dimensions.is_empty() {
        return Ok(());
    }
    let found = FIND_DIMENSIONS.write(&columns(dimensions), |row| {
        Ok((usize::try_from(row.get::<i32>(1)?).unwrap_or_default(), row.get::<Uuid>(2)?))
    })?;
    ids.extend(found.into_iter().map(|(place, id)| (dimensions[place].clone(), id)));
    Ok(())
}

fn columns(dimensions: &[Dimension]) -> [spi::Value; 6] {
    let column = |part: fn(&Dimension) -> &str| {
        spi::Value::from(dimensions.iter().map(part).collect::<Vec<&str>>())
    };
    [
        column(|dimension| dimension.category),
        column(|dimension| dimension.source),
        column(|dimension| &dimension.product),
        column(|dimension| &dimension.feature),
        column(|dimension| &dimension.model_or_plan),
        column(|dimension| &dimension.provider),
    ]
}
