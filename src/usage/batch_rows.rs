//! The set-based statements of a batch: each touches all of its rows at once, in sorted order.

use super::allowance::{Allowance, Charge, OverageRule, PolicyEntry, in_force};
use super::allowance_rows::policy_entry;
use super::journal::Entry;
use super::request::Request;
use crate::error::{BillingError, Result};
use crate::idempotency::{KeySpace, Known};
use crate::sources::{EXA, exa_dimension_id};
use crate::spi::{Statement, values};
use crate::time::{Day, Month};
use std::collections::BTreeMap;

/// A user's month; sorted, it is the order in which allowance rows are locked.
pub type UserMonth = (String, Month);

/// A key within its space.
pub type Key = (String, String);

static FIND_KEYS: Statement = Statement::kept(
    "SELECT k.entry_id, k.entry_created_at, k.created_at_given, k.payload_hash,
            wanted.key_space, wanted.idempotency_key
     FROM unnest($1, $2) AS wanted(key_space, idempotency_key)
     JOIN exa_billing.idempotency_keys AS k
         ON k.key_space = wanted.key_space AND k.idempotency_key = wanted.idempotency_key",
);
static CLAIM_KEYS: Statement = Statement::kept(
    "INSERT INTO exa_billing.idempotency_keys
         (key_space, idempotency_key, entry_id, entry_created_at, created_at_given, payload_hash)
     SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
         AS new(key_space, idempotency_key, entry_id, entry_created_at, created_at_given, payload_hash)
     ORDER BY new.key_space COLLATE \"C\", new.idempotency_key COLLATE \"C\"
     ON CONFLICT DO NOTHING",
);
static READ_ALLOWANCES: Statement = Statement::kept(
    "SELECT a.user_id, a.month, a.free_allowance_microdollars, a.overage_rule, a.used_microdollars
     FROM unnest($1, $2) AS wanted(user_id, month)
     JOIN exa_billing.exa_monthly_allowance AS a
         ON a.user_id = wanted.user_id AND a.month = wanted.month",
);
static LOCK_ALLOWANCES: Statement = Statement::kept(
    "SELECT a.user_id, a.month, a.free_allowance_microdollars, a.overage_rule, a.used_microdollars
     FROM unnest($1, $2) AS wanted(user_id, month)
     JOIN exa_billing.exa_monthly_allowance AS a
         ON a.user_id = wanted.user_id AND a.month = wanted.month
     ORDER BY a.user_id, a.month
     FOR NO KEY UPDATE OF a",
);
static POLICIES: Statement = Statement::kept(
    "SELECT wanted.place, policy.is_own, policy.free_allowance_microdollars, policy.overage_rule
     FROM unnest($1, $2) WITH ORDINALITY AS wanted(user_id, month, place)
     CROSS JOIN LATERAL (
         (SELECT true AS is_own, f.free_allowance_microdollars, f.overage_rule
          FROM exa_billing.free_allowances AS f
          WHERE f.user_id = wanted.user_id AND f.effective_month <= wanted.month
          ORDER BY f.effective_month DESC LIMIT 1)
         UNION ALL
         (SELECT false, f.free_allowance_microdollars, f.overage_rule
          FROM exa_billing.free_allowances AS f
          WHERE f.user_id IS NULL AND f.effective_month <= wanted.month
          ORDER BY f.effective_month DESC LIMIT 1)
     ) AS policy",
);
static LOCK_IN_ALLOWANCES: Statement = Statement::kept(
    "INSERT INTO exa_billing.exa_monthly_allowance
         (user_id, month, free_allowance_microdollars, overage_rule, used_microdollars)
     SELECT new.user_id, new.month, new.free, new.rule, 0
     FROM unnest($1, $2, $3, $4) AS new(user_id, month, free, rule)
     ORDER BY new.user_id COLLATE \"C\", new.month
     ON CONFLICT DO NOTHING",
);
static COUNT_ALLOWANCES: Statement = Statement::kept(
    "UPDATE exa_billing.exa_monthly_allowance AS a SET used_microdollars = counted.used
     FROM unnest($1, $2, $3) AS counted(user_id, month, used)
     WHERE a.user_id = counted.user_id AND a.month = counted.month",
);
static APPEND: Statement =
    Statement::kept(include_str!("../../sql/statements/append_exa_batch.sql"));

pub fn find_keys(keys: &[Key]) -> Result<BTreeMap<Key, Known>> {
    let (spaces, names) = two_columns(keys);
    let found = FIND_KEYS.write(values![spaces, names], |row| {
        Ok(((row.get::<String>(5)?, row.get::<String>(6)?), Known::read(row, 1)?))
    })?;
    Ok(found.into_iter().collect())
}

/// Claims the keys that are still free; waits for transactions that are claiming them.
pub fn claim_keys(claims: &[(Key, Known)]) -> Result<()> {
    let spaces: Vec<&str> = claims.iter().map(|((space, _), _)| space.as_str()).collect();
    let names: Vec<&str> = claims.iter().map(|((_, name), _)| name.as_str()).collect();
    let hashes: Vec<_> =
        claims.iter().map(|(_, known)| known.payload_hash.first_chunk::<16>()).collect();
    CLAIM_KEYS.execute(values![
        spaces,
        names,
        claims.iter().map(|(_, known)| known.entry_id).collect::<Vec<_>>(),
        claims.iter().map(|(_, known)| known.created_at).collect::<Vec<_>>(),
        claims.iter().map(|(_, known)| known.created_at_given).collect::<Vec<_>>(),
        hashes
    ])
}

pub fn key_of(request: &Request) -> Option<Key> {
    request.key.map(|key| (KeySpace::exa(request.user_id).as_str().to_owned(), key.to_owned()))
}

/// Reads the allowances of all wanted months and locks those that are not used up, locking in the
/// ones that have no request yet. The wanted months are sorted, and each is locked in its turn:
/// neighbours that are all there, or all missing, share a statement.
pub fn lock_allowances(wanted: &[UserMonth]) -> Result<BTreeMap<UserMonth, Allowance>> {
    let mut allowances = allowance_rows(&READ_ALLOWANCES, wanted)?;
    let undecided: Vec<UserMonth> = wanted
        .iter()
        .filter(|key| !allowances.get(key).is_some_and(Allowance::is_used_up))
        .cloned()
        .collect();
    let is_there: Vec<bool> = undecided.iter().map(|key| allowances.contains_key(key)).collect();
    let mut from = 0;
    for alike in is_there.chunk_by(|one, next| one == next) {
        let neighbours = &undecided[from..from + alike.len()];
        from += alike.len();
        if !alike[0] {
            lock_in(neighbours)?;
        }
        allowances.extend(allowance_rows(&LOCK_ALLOWANCES, neighbours)?);
    }
    Ok(allowances)
}

fn allowance_rows(
    statement: &'static Statement,
    wanted: &[UserMonth],
) -> Result<BTreeMap<UserMonth, Allowance>> {
    if wanted.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (users, months) = user_months(wanted);
    let rows = statement.write(values![users, months], |row| {
        let allowance = Allowance {
            free_microdollars: row.get(3)?,
            rule: OverageRule::parse(&row.get::<String>(4)?)?,
            used_microdollars: row.get(5)?,
        };
        Ok(((row.get::<String>(1)?, row.get::<Day>(2)?.month()?), allowance))
    })?;
    Ok(rows.into_iter().collect())
}

fn lock_in(missing: &[UserMonth]) -> Result<()> {
    let (users, months) = user_months(missing);
    let mut policies: BTreeMap<(usize, bool), PolicyEntry> = BTreeMap::new();
    POLICIES.write(values![users.clone(), months.clone()], |row| {
        let place = usize::try_from(row.get::<i64>(1)? - 1)
            .map_err(|_| BillingError::internal("a place before the first"))?;
        policies.insert((place, row.get(2)?), policy_entry(row, 3)?);
        Ok(())
    })?;
    let in_force: Vec<Allowance> = (0..missing.len())
        .map(|place| {
            in_force(policies.get(&(place, true)).copied(), policies.get(&(place, false)).copied())
        })
        .collect();
    LOCK_IN_ALLOWANCES.execute(values![
        users,
        months,
        in_force.iter().map(|policy| policy.free_microdollars).collect::<Vec<_>>(),
        in_force.iter().map(|policy| policy.rule.as_str()).collect::<Vec<_>>()
    ])
}

pub fn count_allowances(counted: &[(&UserMonth, Allowance)]) -> Result<()> {
    COUNT_ALLOWANCES.execute(values![
        counted.iter().map(|((user, _), _)| user.as_str()).collect::<Vec<_>>(),
        counted.iter().map(|((_, month), _)| month.first_day()).collect::<Vec<_>>(),
        counted.iter().map(|(_, allowance)| allowance.used_microdollars).collect::<Vec<_>>()
    ])
}

/// Appends all new rows to journal and queue.
pub fn append(rows: &[(&Request, Entry, Charge)]) -> Result<()> {
    let Some((_, Entry { recorded_at, .. }, _)) = rows.first() else { return Ok(()) };
    let requests = || rows.iter().map(|(request, _, _)| request);
    APPEND.execute(values![
        rows.iter().map(|(_, entry, _)| entry.usage_id).collect::<Vec<_>>(),
        requests().map(|request| request.user_id).collect::<Vec<_>>(),
        requests().map(|request| request.organization_id).collect::<Vec<_>>(),
        requests().map(|request| request.path).collect::<Vec<_>>(),
        requests().map(|request| request.cost).collect::<Vec<_>>(),
        rows.iter().map(|(_, _, charge)| charge.charged).collect::<Vec<_>>(),
        requests().map(|request| request.feature_id).collect::<Vec<_>>(),
        requests().map(|request| request.request_type).collect::<Vec<_>>(),
        rows.iter().map(|(_, entry, _)| entry.created_at).collect::<Vec<_>>(),
        *recorded_at,
        EXA,
        requests().map(|request| exa_dimension_id(request.path)).collect::<Vec<_>>()
    ])
}

fn two_columns(pairs: &[(String, String)]) -> (Vec<&str>, Vec<&str>) {
    pairs.iter().map(|(first, second)| (first.as_str(), second.as_str())).unzip()
}

fn user_months(keys: &[UserMonth]) -> (Vec<&str>, Vec<Day>) {
    keys.iter().map(|(user, month)| (user.as_str(), month.first_day())).unzip()
}
