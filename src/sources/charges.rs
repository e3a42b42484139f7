//! What the journals say was spent: the product's own and the attached ones, read alike.

use super::ledger::Whose;
use super::{Dimension, ledger};
use crate::error::Result;
use crate::owner::{Owner, OwnerKind};
use crate::partitions;
use crate::spi::{self, Row, Statement, Value, values};
use crate::time::Instant;
use std::collections::BTreeMap;

/// The charges of one owner in one UTC hour that have the same driver, added up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    pub owner: Owner,
    pub hour_start: Instant,
    pub dimension: Dimension,
    /// Who acted; for a user's own charges that user, for an organization's perhaps nobody known.
    pub actor_user_id: Option<String>,
    pub amount: i64,
    pub records: i64,
}

static OWN: Statement = Statement::fresh(
    "SELECT date_trunc('hour', created_at, 'UTC') AS hour_start, spend_category, source, product_key,
            feature_key, model_or_plan_key, provider_key, actor_user_id,
            sum(amount_microdollars)::bigint, sum(spend_record_count)::bigint
     FROM exa_billing.spend_entries
     WHERE owner_kind = $1 AND owner_id = $2 AND created_at >= $3 AND created_at < $4
     GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
);
static ANY_ATTACHED: Statement = Statement::kept(
    "SELECT EXISTS (
         SELECT FROM exa_billing.spend_sources WHERE NOT is_own AND detached_at IS NULL)",
);
static COVERED_FROM: Statement =
    Statement::kept("SELECT min(covered_from) FROM exa_billing.spend_sources");

/// Everything an owner was charged in `[from, to)` according to the journals, on the caller's
/// snapshot: exact to the microsecond at both ends, whether it is posted or not. One month of a
/// journal per statement.
pub fn charges(owner: &Owner, from: Instant, to: Instant) -> Result<Vec<Charge>> {
    let mut charges = Vec::new();
    for (start, end) in months_within(from, to)? {
        let arguments = values![owner.kind.as_str(), &owner.id, start, end];
        charges.extend(OWN.read(arguments, |row| own_charge(owner, row))?);
    }
    charges.extend(ledger::charges(Whose::One(owner), from, to)?);
    Ok(charges)
}

/// `[from, to)` cut into the months that journals have. Within one month there is nothing to look
/// up: a month that no journal has is read for nothing.
fn months_within(from: Instant, to: Instant) -> Result<Vec<(Instant, Instant)>> {
    if let (Ok(first), Ok(last)) = (from.month(), to.plus_microseconds(-1).month())
        && first == last
    {
        return Ok(if from < to { vec![(from, to)] } else { Vec::new() });
    }
    let mut months = Vec::new();
    for month in partitions::months()? {
        let (start, end) = (month.start().max(from), month.next()?.start().min(to));
        if start < end {
            months.push((start, end));
        }
    }
    Ok(months)
}

fn own_charge(owner: &Owner, row: &Row) -> Result<Charge> {
    Ok(Charge {
        owner: owner.clone(),
        hour_start: row.get(1)?,
        dimension: Dimension::known(
            &row.get::<String>(2)?,
            [
                &row.get::<String>(3)?,
                &row.get::<String>(4)?,
                &row.get::<String>(5)?,
                &row.get::<String>(6)?,
                &row.get::<String>(7)?,
            ],
        )?,
        actor_user_id: row.maybe(8)?,
        amount: row.get(9)?,
        records: row.get(10)?,
    })
}

/// What attached tables say was charged in `[from, to)`, to one owner or (None) to everybody; for
/// statements that read the product's own journals themselves.
pub fn attached_charges(owner: Option<&Owner>, from: Instant, to: Instant) -> Result<Vec<Charge>> {
    ledger::charges(Whose::of(owner), from, to)
}

/// The same for some owners, all of a kind by one statement for each table.
pub fn attached_charges_of<'a>(
    owners: impl IntoIterator<Item = &'a Owner>,
    from: Instant,
    to: Instant,
) -> Result<Vec<Charge>> {
    let mut charges = Vec::new();
    if is_any_attached()? {
        let mut ids_of: BTreeMap<OwnerKind, Vec<&str>> = BTreeMap::new();
        for owner in owners {
            ids_of.entry(owner.kind).or_default().push(&owner.id);
        }
        for (kind, ids) in &ids_of {
            charges.extend(ledger::charges(Whose::Several(*kind, ids), from, to)?);
        }
    }
    Ok(charges)
}

/// Whether any table is attached: where none is, none need be asked for charges. The same for everybody,
/// whatever the caller may read of the registry.
pub fn is_any_attached() -> Result<bool> {
    let read = || ANY_ATTACHED.read_row(&[], |row| row.get::<bool>(1));
    Ok(spi::as_books_role(read)? == Some(true))
}

/// The UTC hour from which on some journal of spend is known; before it, nothing is. The same for
/// everybody, whatever the caller may read of the registry.
pub fn covered_from() -> Result<Option<Instant>> {
    let read = || COVERED_FROM.read_row(&[], |row| row.maybe::<Instant>(1));
    Ok(spi::as_books_role(read)?.flatten())
}

/// Charges as twelve array arguments: owner kinds and ids, hours, categories, sources, products,
/// features, models or plans, providers, actors, amounts, record counts.
pub fn columns(charges: &[Charge]) -> [Value; 12] {
    fn texts<'a>(charges: &'a [Charge], text: impl Fn(&'a Charge) -> &'a str) -> Value {
        Value::from(charges.iter().map(text).collect::<Vec<_>>())
    }
    [
        texts(charges, |charge| charge.owner.kind.as_str()),
        texts(charges, |charge| &charge.owner.id),
        Value::from(charges.iter().map(|charge| charge.hour_start).collect::<Vec<_>>()),
        texts(charges, |charge| charge.dimension.category),
        texts(charges, |charge| charge.dimension.source),
        texts(charges, |charge| &charge.dimension.product),
        texts(charges, |charge| &charge.dimension.feature),
        texts(charges, |charge| &charge.dimension.model_or_plan),
        texts(charges, |charge| &charge.dimension.provider),
        Value::from(
            charges.iter().map(|charge| charge.actor_user_id.as_deref()).collect::<Vec<_>>(),
        ),
        Value::from(charges.iter().map(|charge| charge.amount).collect::<Vec<_>>()),
        Value::from(charges.iter().map(|charge| charge.records).collect::<Vec<_>>()),
    ]
}
