//! What the product's own journals say an owner was charged, row by row in the order of time.

use super::Category;
use crate::error::{BillingError, Result};
use crate::owner::{Owner, OwnerKind};
use crate::spi::{Cells, Range};
use crate::time::Instant;

/// One charge; who acted and what for is left out.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub created_at: Instant,
    pub recorded_at: Instant,
    pub category: Category,
    pub amount: i64,
    pub records: i64,
}

const REQUESTS: &[&str] = &[
    "usage_id",
    "user_id",
    "organization_id",
    "path",
    "cost_microdollars",
    "charged_microdollars",
    "charged_to_balance",
    "feature_id",
    "request_type",
    "created_at",
    "recorded_at",
];
static REQUESTS_OF_USER: Range =
    Range { table: "exa_usage_log", is_partitioned: true, columns: REQUESTS, key: &[2], time: 10 };
static REQUESTS_OF_ORGANIZATION: Range =
    Range { table: "exa_usage_log", is_partitioned: true, columns: REQUESTS, key: &[3], time: 10 };
static SPEND: Range = Range {
    table: "spend_log",
    is_partitioned: true,
    columns: &[
        "spend_id",
        "owner_kind",
        "owner_id",
        "actor_user_id",
        "spend_category",
        "source",
        "product_key",
        "feature_key",
        "model_or_plan_key",
        "provider_key",
        "amount_microdollars",
        "spend_record_count",
        "created_at",
        "recorded_at",
    ],
    key: &[2, 3],
    time: 13,
};

/// The same rows as those of `spend_entries`: one journal and then the other, each in the order of time.
/// False when only that view can tell: nothing was read then.
pub fn each_entry(
    owner: &Owner,
    times: (Instant, Instant),
    mut each: impl FnMut(Entry) -> Result<()>,
) -> Result<bool> {
    let id = owner.id.as_str();
    let requests = requests_of(owner.kind);
    if !(requests.is_readable(times) && SPEND.is_readable(times)) {
        return Ok(false);
    }
    let are_read = requests.read(&[id], times, |cells| match request(owner, cells)? {
        Some(entry) => each(entry),
        None => Ok(()),
    })?;
    let is_read = SPEND.read(&[owner.kind.as_str(), id], times, |cells| each(spend(cells)?))?;
    if are_read && is_read { Ok(true) } else { Err(changed()) }
}

/// The same of many owners, all in the same time: whose by its place, in no order.
pub fn each_entry_of(
    owners: &[&Owner],
    times: (Instant, Instant),
    mut each: impl FnMut(usize, Entry) -> Result<()>,
) -> Result<bool> {
    let kinds = [OwnerKind::Organization, OwnerKind::User];
    let are_readable = kinds.iter().all(|kind| requests_of(*kind).is_readable(times));
    if !(are_readable && SPEND.is_readable(times)) {
        return Ok(false);
    }
    for kind in kinds {
        let places: Vec<usize> =
            (0..owners.len()).filter(|place| owners[*place].kind == kind).collect();
        let asked = places.iter().map(|place| ([owners[*place].id.as_str()], times));
        let are_read = requests_of(kind).read_many(times, asked, |number, cells| {
            let place = places[number];
            match request(owners[place], cells)? {
                Some(entry) => each(place, entry),
                None => Ok(()),
            }
        })?;
        if !are_read {
            return Err(changed());
        }
    }
    let asked = owners.iter().map(|owner| ([owner.kind.as_str(), owner.id.as_str()], times));
    let is_read = SPEND.read_many(times, asked, |place, cells| each(place, spend(cells)?))?;
    if is_read { Ok(true) } else { Err(changed()) }
}

fn requests_of(kind: OwnerKind) -> &'static Range {
    match kind {
        OwnerKind::User => &REQUESTS_OF_USER,
        OwnerKind::Organization => &REQUESTS_OF_ORGANIZATION,
    }
}

/// What was readable stays so while it is locked.
fn changed() -> BillingError {
    BillingError::internal("a journal changed while it was read")
}

/// None for a free one, and for one that somebody else pays for.
fn request(owner: &Owner, cells: &Cells) -> Result<Option<Entry>> {
    let amount = cells.get(6)?;
    let is_own = owner.kind == OwnerKind::Organization || cells.is_null(3);
    if amount == 0 || !is_own {
        return Ok(None);
    }
    Ok(Some(Entry {
        created_at: cells.get(10)?,
        recorded_at: cells.get(11)?,
        category: Category::Variable,
        amount,
        records: 1,
    }))
}

fn spend(cells: &Cells) -> Result<Entry> {
    Ok(Entry {
        created_at: cells.get(13)?,
        recorded_at: cells.get(14)?,
        category: Category::parse(Some(cells.text(5)?))?,
        amount: cells.get(11)?,
        records: cells.get(12)?,
    })
}
