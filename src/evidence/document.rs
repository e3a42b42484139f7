//! `spend_evidence`: all of it in one compact document, for a page or for a language model.

use super::drivers::{Drivers, Ranked};
use super::figures::{Amounts, Hourly};
use super::range::Range;
use super::reading::Spend;
use super::series::{self, Point};
use super::window::Interval;
use crate::books;
use crate::error::Result;
use crate::owner::Owner;
use crate::rollups::{Coverage, Hours};
use crate::sources::Category;
use crate::spi::Answer;
use crate::time::{self, Instant};
use pgrx::JsonB;
use pgrx::prelude::*;
use serde_json::{Map, Value as Json, json};

const DRIVERS_SHOWN: usize = 5;

/// Null where nothing is known: never zero.
pub fn with_amounts(mut object: Map<String, Json>, amounts: Option<Amounts>) -> Json {
    let mut put = |name: &str, figure: fn(Amounts) -> i64| {
        object.insert(name.to_owned(), json!(amounts.map(figure)));
    };
    put("total_microdollars", |amounts| amounts.total);
    put("variable_microdollars", |amounts| amounts.variable);
    put("scheduled_microdollars", |amounts| amounts.scheduled);
    put("spend_record_count", |amounts| amounts.records);
    Json::Object(object)
}

fn bucket(point: &Point) -> Json {
    let mut object = Map::new();
    object.insert("bucket_start".to_owned(), json!(point.bucket.from.iso8601()));
    object.insert("bucket_end".to_owned(), json!(point.bucket.to.iso8601()));
    object.insert("covered_hours".to_owned(), json!(point.covered_hours));
    object.insert("total_hours".to_owned(), json!(point.bucket.hour_count()));
    with_amounts(object, point.amounts)
}

fn driver(ranked: &Ranked) -> Json {
    let dimension = &ranked.driver.dimension;
    json!({
        "source": dimension.source,
        "product_key": dimension.product,
        "feature_key": dimension.feature,
        "model_or_plan_key": dimension.model_or_plan,
        "provider_key": dimension.provider,
        "actor_user_id": ranked.driver.actor_user_id,
        "total_microdollars": ranked.amount,
        "spend_record_count": ranked.records,
    })
}

/// A driver with what was spent on it, among drivers of both categories.
pub fn driver_of_category(ranked: &Ranked) -> Json {
    let mut document = driver(ranked);
    document["spend_category"] = json!(ranked.driver.dimension.category);
    document
}

fn top(drivers: &Drivers, category: Category) -> Result<Vec<Json>> {
    Ok(drivers.top(Some(category), DRIVERS_SHOWN)?.iter().map(driver).collect())
}

fn degraded(coverage: &Coverage, window: Interval) -> Vec<Json> {
    let shown = |hours: &Hours| {
        let shown = Interval { from: hours.from, to: hours.to }.cut_to(window);
        json!({ "from_hour": shown.from.iso8601(), "to_hour": shown.to.iso8601() })
    };
    let touches = |hours: &&Hours| hours.from < window.to && window.from < hours.to;
    coverage.degraded.iter().filter(touches).map(shown).collect()
}

/// What was read for a range, or for a longer one.
pub struct Known<'a> {
    pub owner: &'a Owner,
    pub as_of: Instant,
    pub coverage: &'a Coverage,
    pub hourly: &'a Hourly,
}

pub fn document(known: &Known, range: Range, window: Interval, drivers: &Drivers) -> Result<Json> {
    let Known { owner, as_of, coverage, hourly } = known;
    let points = series::points(range, window, hourly)?;
    Ok(json!({
        "owner": { "owner_kind": owner.kind.as_str(), "owner_id": owner.id },
        "range": range.name,
        "as_of": as_of.iso8601(),
        "window": { "from_time": window.from.iso8601(), "to_time": window.to.iso8601() },
        "is_complete": hourly.is_complete(window),
        "totals": with_amounts(Map::new(), hourly.amounts(window)?),
        "series": points.iter().map(bucket).collect::<Vec<_>>(),
        "top_drivers": {
            "variable": top(drivers, Category::Variable)?,
            "scheduled": top(drivers, Category::Scheduled)?,
        },
        "degraded_intervals": degraded(coverage, window),
    }))
}

/// Totals, series, drivers and doubts of a range, read once.
#[pg_extern(sql = false)]
fn spend_evidence(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    range: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<JsonB> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let range = Range::parse(range)?;
    let as_of = time::as_of(as_of)?;
    let window = range.window(as_of)?;
    books::enter_for_reading("exa_billing.spend_evidence()")?;
    let spend = Spend::read(&owner, window, as_of)?;
    let (coverage, hourly) = (&spend.coverage, &spend.hourly()?);
    let known = Known { owner: &owner, as_of, coverage, hourly };
    Ok(JsonB(document(&known, range, window, &spend.drivers()?)?))
}
