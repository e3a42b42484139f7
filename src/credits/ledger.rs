//! `credit_transactions` and the account's credit columns: typed reading and writing.

use super::expiration::{Closing, OpenGrant};
use crate::books::Permission;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{Row, Statement, values};
use crate::time::Instant;
use crate::{events, sources};
use std::collections::BTreeMap;
use uuid::Uuid;

pub const EXPIRED: &str = "credits_expired";
pub const ADJUSTMENT: &str = "accounting_adjustment";
pub const OPENING_BALANCE: &str = "opening_balance";

/// A new transaction.
#[derive(Debug, Clone, Copy)]
pub struct NewTransaction<'a> {
    pub id: Uuid,
    pub amount: i64,
    pub expiry: Option<Instant>,
    pub baseline: i64,
    pub category: Option<&'a str>,
    pub description: Option<&'a str>,
    pub is_free: bool,
    pub created_at: Instant,
    pub recorded_at: Instant,
}

static USAGE_BEFORE: Statement =
    Statement::fresh_over_queue(include_str!("../../sql/statements/usage_before.sql"));
static OPEN_GRANTS: Statement = Statement::kept(
    "SELECT g.id, g.amount_microdollars, g.expiration_baseline_microdollars_used, g.expiry_date, g.created_at
     FROM exa_billing.credit_transactions AS g
     WHERE g.owner_kind = $1 AND g.owner_id = $2 AND g.expiry_date IS NOT NULL
       AND NOT EXISTS (SELECT FROM exa_billing.credit_transactions AS c
                       WHERE c.original_transaction_id = g.id)
     ORDER BY g.expiry_date, g.created_at, g.id",
);
static LAST_CLOSURE: Statement = Statement::kept(
    "SELECT max(created_at) FROM exa_billing.credit_transactions
     WHERE owner_kind = $1 AND owner_id = $2 AND original_transaction_id IS NOT NULL",
);
static ADD: Statement = Statement::kept(
    "INSERT INTO exa_billing.credit_transactions
         (id, owner_kind, owner_id, amount_microdollars, expiry_date,
          original_baseline_microdollars_used, expiration_baseline_microdollars_used,
          credit_category, description, is_free, original_transaction_id, created_at, recorded_at)
     VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $5 IS NOT NULL THEN $6 END, $7, $8, $9, NULL, $10, $11)",
);
static ADD_CLOSURES: Statement = Statement::kept(
    "INSERT INTO exa_billing.credit_transactions
         (id, owner_kind, owner_id, amount_microdollars, expiry_date,
          original_baseline_microdollars_used, expiration_baseline_microdollars_used,
          credit_category, description, is_free, original_transaction_id, created_at, recorded_at)
     SELECT closing.id, g.owner_kind, g.owner_id, -closing.expired, NULL, closing.usage_before, NULL, $6,
            left('Expired: ' || coalesce(g.description, g.credit_category, 'credit'), 2000),
            g.is_free, g.id, closing.at, $7
     FROM unnest($1, $2, $3, $4, $5) AS closing(id, grant_id, expired, usage_before, at)
     JOIN exa_billing.credit_transactions AS g ON g.id = closing.grant_id",
);
static RAISE_BASELINES: Statement = Statement::kept(
    "UPDATE exa_billing.credit_transactions AS t
     SET expiration_baseline_microdollars_used = raised.baseline
     FROM unnest($1, $2) AS raised(id, baseline) WHERE t.id = raised.id",
);
static CHANGE_ACCOUNT: Statement = Statement::kept(
    "UPDATE exa_billing.accounts
     SET total_microdollars_acquired = total_microdollars_acquired + $3,
         next_credit_expiration_at = $4
     WHERE owner_kind = $1 AND owner_id = $2
     RETURNING minimum_balance_microdollars IS NOT NULL",
);

/// The part of an hour that only an attached table itself knows.
const ATTACHED: &str = "SELECT coalesce(sum(amount), 0)::bigint FROM ({rows}) AS l";

/// The owner's usage strictly before an instant, on the caller's snapshot.
pub fn usage_before(owner: &Owner, instant: Instant) -> Result<i64> {
    let hour_start = instant.hour_start();
    let arguments = values![owner.kind.as_str(), &owner.id, instant, hour_start];
    let mut used =
        i128::from(USAGE_BEFORE.read_row(arguments, |row| row.get::<i64>(1))?.unwrap_or_default());
    let window = (hour_start, instant);
    sources::each_month_of_ledgers(ATTACHED, Some(owner), window, &[], |_, row| {
        used += i128::from(row.get::<i64>(1)?);
        Ok(())
    })?;
    i64::try_from(used).map_err(|_| BillingError::out_of_range("usage is out of range"))
}

/// The owner's usage before each of these instants, asking for each only once.
pub fn usage_before_each(
    owner: &Owner,
    instants: impl Iterator<Item = Instant>,
) -> Result<Vec<(Instant, i64)>> {
    let mut known: BTreeMap<Instant, i64> = BTreeMap::new();
    instants
        .map(|instant| {
            if let Some(&used) = known.get(&instant) {
                return Ok((instant, used));
            }
            let used = usage_before(owner, instant)?;
            known.insert(instant, used);
            Ok((instant, used))
        })
        .collect()
}

/// The owner's open expiring grants, in the order in which they are closed.
pub fn open_grants(owner: &Owner) -> Result<Vec<OpenGrant>> {
    OPEN_GRANTS.read(values![owner.kind.as_str(), &owner.id], |row: &Row| {
        Ok(OpenGrant {
            id: row.get(1)?,
            amount: row.get(2)?,
            baseline: row.get(3)?,
            expiry: row.get(4)?,
            created_at: row.get(5)?,
        })
    })
}

/// The date of the owner's last closing row: history before it is settled.
pub fn last_closure(owner: &Owner) -> Result<Option<Instant>> {
    let found = LAST_CLOSURE
        .read_row(values![owner.kind.as_str(), &owner.id], |row| row.maybe::<Instant>(1))?;
    Ok(found.flatten())
}

/// Adds a transaction; the account row is locked.
pub fn add(owner: &Owner, new: &NewTransaction) -> Result<()> {
    ADD.execute(values![
        new.id,
        owner.kind.as_str(),
        &owner.id,
        new.amount,
        new.expiry,
        new.baseline,
        new.category,
        new.description,
        new.is_free,
        new.created_at,
        new.recorded_at
    ])
}

/// Writes closing rows and raised baselines; the account row is locked. The unique
/// `original_transaction_id` is the last guard against closing a grant twice.
pub fn write_closing(closing: &Closing, recorded_at: Instant) -> Result<()> {
    let closures = &closing.closures;
    ADD_CLOSURES.execute(values![
        closures.iter().map(|_| Uuid::now_v7()).collect::<Vec<_>>(),
        closures.iter().map(|closure| closure.grant).collect::<Vec<_>>(),
        closures.iter().map(|closure| closure.expired).collect::<Vec<_>>(),
        closures.iter().map(|closure| closure.usage_before).collect::<Vec<_>>(),
        closures.iter().map(|closure| closure.at).collect::<Vec<_>>(),
        EXPIRED,
        recorded_at
    ])?;
    if closing.raised.is_empty() {
        return Ok(());
    }
    let _keeping = Permission::to_keep_baselines();
    RAISE_BASELINES.execute(values![
        closing.raised.keys().copied().collect::<Vec<_>>(),
        closing.raised.values().copied().collect::<Vec<_>>()
    ])
}

/// Adds to what the owner has acquired and says when the next open grant expires; the account row
/// is locked.
pub fn change_account(owner: &Owner, amount: i64, next_expiration: Option<Instant>) -> Result<()> {
    let arguments = values![owner.kind.as_str(), &owner.id, amount, next_expiration];
    if CHANGE_ACCOUNT.write_row(arguments, |row| row.get::<bool>(1))? == Some(true) {
        events::check_low_balances(std::slice::from_ref(owner))?;
    }
    Ok(())
}
