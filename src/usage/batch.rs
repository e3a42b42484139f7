//! `record_exa_usage_batch`: many requests at once, with the results of one by one.

use super::allowance::Allowance;
use super::batch_input::{self, MAX_ROWS, place};
use super::batch_rows::{self, Key, UserMonth};
use super::journal::{self, Entry};
use super::record::{happened_at, key_entry, lost_key};
use super::request::{Journaled, Recorded, Request};
use crate::books;
use crate::error::{BillingError, Result};
use crate::idempotency::{self, Known};
use crate::partitions::{self, Journal};
use crate::spi::{self, Answer, Json, RowSet, Statement, values};
use pgrx::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

static TEXT_OF_ARRAY: Statement = Statement::kept(
    "SELECT jsonb_typeof($1), n, CASE WHEN n <= $2 THEN $1::text END
     FROM (SELECT CASE jsonb_typeof($1) WHEN 'array' THEN jsonb_array_length($1) END AS n) AS counted",
);

/// What becomes of one element of the batch.
enum Fate {
    /// Its key was recorded before this batch.
    Known(Known),
    /// Its key was given by an earlier element.
    Repeats(usize),
    New(Entry),
}

/// Records a whole batch, all or nothing.
///
/// Locks, in this order: the partition lock (only for months without partitions); the allowance
/// rows that are not used up, sorted by user and month; the keys' index entries, sorted.
fn record_batch(requests: &[Request]) -> Result<Vec<Recorded>> {
    let mut known = known_keys(requests)?;
    loop {
        let fates = fates(requests, &known)?;
        match lock_and_claim(requests, &fates)? {
            Locked::Allowances(allowances) => return append(requests, &fates, allowances),
            // Other transactions recorded these keys while this one waited for them.
            Locked::Lost(keys) => known.extend(keys),
        }
    }
}

enum Locked {
    Allowances(BTreeMap<UserMonth, Allowance>),
    Lost(BTreeMap<Key, Known>),
}

/// Locks allowances, then claims keys. When a key is lost all of it is undone: what turns out to
/// be a replay must not have locked an allowance in.
fn lock_and_claim(requests: &[Request], fates: &[Fate]) -> Result<Locked> {
    let wanted = user_months(requests, fates)?;
    for month in wanted.iter().map(|(_, month)| *month).collect::<BTreeSet<_>>() {
        partitions::ensure(Journal::ExaUsageLog, month)?;
    }
    let mut lost = BTreeMap::new();
    let locked = spi::in_subtransaction(|| {
        let allowances = batch_rows::lock_allowances(&wanted)?;
        lost = claim_keys(requests, fates)?;
        if lost.is_empty() { Ok(allowances) } else { Err(lost_key()) }
    });
    match locked {
        Ok(allowances) => Ok(Locked::Allowances(allowances)),
        Err(failure) if failure.is_ours(&lost_key()) => Ok(Locked::Lost(lost)),
        Err(failure) => failure.raise(),
    }
}

/// Decides and appends, in the order of the array.
fn append(
    requests: &[Request],
    fates: &[Fate],
    mut allowances: BTreeMap<UserMonth, Allowance>,
) -> Result<Vec<Recorded>> {
    let mut rows = Vec::new();
    let mut counted: BTreeSet<UserMonth> = BTreeSet::new();
    let mut results: Vec<Recorded> = Vec::with_capacity(requests.len());
    for (index, (request, fate)) in requests.iter().zip(fates).enumerate() {
        let recorded = match fate {
            Fate::Known(known) => {
                journal::replay_of(request, request.key.unwrap_or_default(), known)
                    .map_err(|error| error.at(&place(index)))?
            }
            Fate::Repeats(first) => Recorded { is_replay: true, ..results[*first] },
            Fate::New(entry) => {
                let user_month = (request.user_id.to_owned(), entry.created_at.month()?);
                let allowance = allowances
                    .get_mut(&user_month)
                    .ok_or_else(|| BillingError::internal("an allowance was not locked"))?;
                let charge = allowance.take(request.cost);
                let free_allowance = Some(allowance.free_microdollars);
                if charge.free > 0 {
                    counted.insert(user_month);
                }
                rows.push((request, *entry, charge));
                Recorded {
                    usage_id: entry.usage_id,
                    created_at: entry.created_at,
                    cost: request.cost,
                    charged: charge.charged,
                    free_allowance,
                    is_replay: false,
                }
            }
        };
        results.push(recorded);
    }
    batch_rows::append(&rows)?;
    let counted: Vec<_> =
        allowances.iter().filter(|(key, _)| counted.contains(*key)).map(|(k, a)| (k, *a)).collect();
    if !counted.is_empty() {
        batch_rows::count_allowances(&counted)?;
    }
    Ok(results)
}

fn known_keys(requests: &[Request]) -> Result<BTreeMap<Key, Known>> {
    let keys: BTreeSet<Key> = requests.iter().filter_map(batch_rows::key_of).collect();
    if keys.is_empty() {
        return Ok(BTreeMap::new());
    }
    batch_rows::find_keys(&keys.into_iter().collect::<Vec<_>>())
}

fn fates(requests: &[Request], known: &BTreeMap<Key, Known>) -> Result<Vec<Fate>> {
    let clock = spi::clock();
    let mut first_with: BTreeMap<Key, usize> = BTreeMap::new();
    let mut fates = Vec::with_capacity(requests.len());
    for (index, request) in requests.iter().enumerate() {
        let key = batch_rows::key_of(request);
        if let Some(recorded) = key.as_ref().and_then(|key| known.get(key)) {
            fates.push(Fate::Known(recorded.clone()));
            continue;
        }
        if let Some(&first) = key.as_ref().and_then(|key| first_with.get(key)) {
            require_same(request, &requests[first]).map_err(|error| error.at(&place(index)))?;
            fates.push(Fate::Repeats(first));
            continue;
        }
        let created_at =
            happened_at(request.created_at, clock).map_err(|error| error.at(&place(index)))?;
        fates.push(Fate::New(Entry { usage_id: Uuid::now_v7(), created_at, recorded_at: clock }));
        first_with.extend(key.map(|key| (key, index)));
    }
    Ok(fates)
}

/// A key repeated inside the batch is a replay of the first element that gave it.
fn require_same(request: &Request, first: &Request) -> Result<()> {
    let recorded_at_any_time = spi::transaction_time();
    let known = Known {
        entry_id: Uuid::nil(),
        created_at: first.created_at.unwrap_or(recorded_at_any_time),
        created_at_given: first.created_at.is_some(),
        payload_hash: first.payload_hash().0.to_vec(),
    };
    if known.is_same_call(request.payload_hash(), request.created_at) {
        return Ok(());
    }
    let text = |value: Option<&str>| value.map(str::to_owned);
    let journaled = Journaled {
        organization_id: text(first.organization_id),
        path: first.path.to_owned(),
        cost: first.cost,
        charged: 0,
        feature_id: text(first.feature_id),
        request_type: text(first.request_type),
        free_allowance: None,
    };
    let key = request.key.unwrap_or_default();
    Err(idempotency::reused(key, &request.compared_with(&known, &journaled)))
}

/// The months whose allowances decide, sorted and each once.
fn user_months(requests: &[Request], fates: &[Fate]) -> Result<Vec<UserMonth>> {
    let mut wanted = BTreeSet::new();
    for (request, fate) in requests.iter().zip(fates) {
        if let Fate::New(entry) = fate {
            wanted.insert((request.user_id.to_owned(), entry.created_at.month()?));
        }
    }
    Ok(wanted.into_iter().collect())
}

/// Claims the keys of all new elements; returns those that somebody else got first.
fn claim_keys(requests: &[Request], fates: &[Fate]) -> Result<BTreeMap<Key, Known>> {
    let claims: Vec<(Key, Known)> = requests
        .iter()
        .zip(fates)
        .filter_map(|(request, fate)| match fate {
            Fate::New(entry) => {
                batch_rows::key_of(request).map(|key| (key, key_entry(request, entry)))
            }
            _ => None,
        })
        .collect();
    if claims.is_empty() {
        return Ok(BTreeMap::new());
    }
    batch_rows::claim_keys(&claims)?;
    let keys: Vec<Key> = claims.iter().map(|(key, _)| key.clone()).collect();
    let mut held = batch_rows::find_keys(&keys)?;
    for (key, ours) in &claims {
        match held.get(key) {
            Some(holder) if holder.entry_id == ours.entry_id => held.remove(key),
            Some(_) => continue,
            None => return Err(BillingError::internal("a claimed key vanished")),
        };
    }
    Ok(held)
}

/// Records a JSON array of requests; returns one row per element, in order.
#[pg_extern(sql = false)]
fn record_exa_usage_batch(usage: Option<Json>) -> Answer<RowSet> {
    let usage = usage.ok_or_else(|| BillingError::missing("usage"))?;
    let text = text_of_array(usage)?;
    let elements = batch_input::parse(&text)?;
    let requests: Vec<Request> = elements
        .iter()
        .enumerate()
        .map(|(index, element)| element.request().map_err(|error| error.at(&place(index))))
        .collect::<Result<_>>()?;
    books::enter_for_writing("exa_billing.record_exa_usage_batch()")?;
    Ok(record_batch(&requests)?.into_iter().map(Recorded::into_row).collect())
}

fn text_of_array(usage: Json) -> Result<String> {
    let limit = i32::try_from(MAX_ROWS).expect("a small constant");
    let (kind, length, text) = TEXT_OF_ARRAY
        .read_row(values![usage, limit], |row| {
            Ok((row.maybe::<String>(1)?, row.maybe::<i32>(2)?, row.maybe::<String>(3)?))
        })?
        .unwrap_or_default();
    match (length, text) {
        (_, Some(text)) => Ok(text),
        (Some(length), None) => Err(BillingError::invalid("usage has too many elements")
            .detail(format!("usage has {length} elements; at most {MAX_ROWS} are allowed."))
            .hint("Split the batch.")),
        (None, None) => Err(BillingError::invalid("usage must be a JSON array")
            .detail(format!("usage is a JSON {}.", kind.unwrap_or_default()))),
    }
}
