//! Grants: credit comes in.

use super::ledger::{self, NewTransaction};
use crate::error::{BillingError, Result};
use crate::idempotency::{self, Compared, KeySpace, Known, PayloadHash};
use crate::money;
use crate::owner::{self, MAX_DESCRIPTION_CHARS, Owner};
use crate::spi::{self, Answer, Statement, values};
use crate::time::{self, Instant};
use crate::{accounts, books};
use pgrx::prelude::*;
use uuid::Uuid;

static RECORDED: Statement = Statement::kept(
    "SELECT amount_microdollars, expiry_date, credit_category, description, is_free
     FROM exa_billing.credit_transactions WHERE id = $1",
);
static NEXT_EXPIRATION: Statement = Statement::kept(
    "SELECT next_credit_expiration_at FROM exa_billing.accounts
     WHERE owner_kind = $1 AND owner_id = $2",
);

/// A credit entry as it is asked for: a grant, or an adjustment.
pub struct Credit<'a> {
    pub owner: Owner,
    pub amount: i64,
    pub expiry: Option<Instant>,
    pub category: Option<&'a str>,
    pub description: Option<&'a str>,
    pub is_free: bool,
    pub key: Option<&'a str>,
    pub created_at: Option<Instant>,
}

impl Credit<'_> {
    fn payload_hash(&self) -> PayloadHash {
        let expiry = self.expiry.map(|expiry| expiry.to_string());
        PayloadHash::of(&[
            Some(&self.amount.to_string()),
            expiry.as_deref(),
            self.category,
            self.description,
            Some(&self.is_free.to_string()),
        ])
    }

    /// Locks, in this order: the account row (opening it when there is none); then the key.
    /// Credit entries are rare; charging never locks an account.
    pub fn record(&self) -> Result<Uuid> {
        let space = KeySpace::credit(&self.owner);
        if let Some(id) = self.replay(&space)? {
            return Ok(id);
        }
        let clock = spi::clock();
        if let Some(given) = self.created_at {
            time::not_ahead_of_clock("created_at", given, clock)?;
        }
        accounts::lock(&self.owner)?;
        let settled = spi::on_fresh_snapshot(|| ledger::last_closure(&self.owner))?;
        let created_at = self.moment(settled)?;
        self.require_expiry_after(created_at)?;
        let entry = Known {
            entry_id: Uuid::now_v7(),
            created_at,
            created_at_given: self.created_at.is_some(),
            payload_hash: self.payload_hash().0.to_vec(),
        };
        if let Some(key) = self.key
            && !idempotency::claim(&space, key, &entry)?
        {
            let replayed = self.replay(&space)?;
            return replayed.ok_or_else(|| BillingError::internal("a claimed key vanished"));
        }
        let (baseline, next) = spi::on_fresh_snapshot(|| self.facts(created_at))?;
        ledger::add(
            &self.owner,
            &NewTransaction {
                id: entry.entry_id,
                amount: self.amount,
                expiry: self.expiry,
                baseline,
                category: self.category,
                description: self.description,
                is_free: self.is_free,
                created_at,
                recorded_at: clock,
            },
        )?;
        let next = next.into_iter().chain(self.expiry).min();
        ledger::change_account(&self.owner, self.amount, next)?;
        Ok(entry.entry_id)
    }

    fn require_expiry_after(&self, created_at: Instant) -> Result<()> {
        let Some(expiry) = self.expiry else { return Ok(()) };
        if time::finite("expires_at", expiry)? > created_at {
            return Ok(());
        }
        Err(BillingError::invalid("expires_at must be after the grant")
            .detail(format!("expires_at is {expiry}; the grant is of {created_at}.")))
    }

    /// When the entry counts. What is settled by a closing row is not reopened by dating something
    /// before it; without a date of its own an entry simply comes after that row.
    fn moment(&self, settled: Option<Instant>) -> Result<Instant> {
        let settled = settled.unwrap_or(Instant(i64::MIN));
        match self.created_at {
            None => Ok(spi::transaction_time().max(settled)),
            Some(given) if given >= settled => Ok(given),
            Some(given) => {
                Err(BillingError::invalid("created_at is before the owner's last expiration")
                    .detail(format!("created_at is {given}; credit expired at {settled}.")))
            }
        }
    }

    /// The usage before the entry, and when the owner's credit expires next so far.
    fn facts(&self, created_at: Instant) -> Result<(i64, Option<Instant>)> {
        let owner = values![self.owner.kind.as_str(), &self.owner.id];
        let next = NEXT_EXPIRATION.read_row(owner, |row| row.maybe::<Instant>(1))?.flatten();
        Ok((ledger::usage_before(&self.owner, created_at)?, next))
    }

    fn replay(&self, space: &KeySpace) -> Result<Option<Uuid>> {
        let Some(key) = self.key else { return Ok(None) };
        let Some(known) = idempotency::find(space, key)? else { return Ok(None) };
        if known.is_same_call(self.payload_hash(), self.created_at) {
            return Ok(Some(known.entry_id));
        }
        Err(idempotency::reused(key, &self.compared_with(&known)?))
    }

    fn compared_with(&self, known: &Known) -> Result<Vec<Compared<'static>>> {
        let compared = RECORDED.write_row(values![known.entry_id], |row| {
            let text = |value: Option<&str>| value.map(str::to_owned);
            let shown = |time: Option<Instant>| time.map(|time| time.to_string());
            Ok(vec![
                Compared {
                    argument: "amount_microdollars",
                    recorded: Some(row.get::<i64>(1)?.to_string()),
                    given: Some(self.amount.to_string()),
                },
                Compared {
                    argument: "expires_at",
                    recorded: shown(row.maybe(2)?),
                    given: shown(self.expiry),
                },
                Compared {
                    argument: "credit_category",
                    recorded: row.maybe(3)?,
                    given: text(self.category),
                },
                Compared {
                    argument: "description",
                    recorded: row.maybe(4)?,
                    given: text(self.description),
                },
                Compared {
                    argument: "is_free",
                    recorded: Some(row.get::<bool>(5)?.to_string()),
                    given: Some(self.is_free.to_string()),
                },
                idempotency::compared_times(known, self.created_at),
            ])
        })?;
        Ok(compared.unwrap_or_default())
    }
}

/// Text that is only kept: bounded, or absent.
pub fn kept_text<'a>(
    argument: &str,
    value: Option<&'a str>,
    max_chars: usize,
) -> Result<Option<&'a str>> {
    value.map(|value| owner::bounded(argument, value, max_chars)).transpose()
}

/// Gives credit to an owner; returns the transaction's id.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "the SQL signature is the contract")]
fn grant_credit(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    amount_microdollars: Option<i64>,
    expires_at: Option<Instant>,
    credit_category: Option<&str>,
    description: Option<&str>,
    is_free: Option<bool>,
    idempotency_key: Option<&str>,
    created_at: Option<Instant>,
) -> Answer<pgrx::Uuid> {
    let grant = Credit {
        owner: Owner::parse(owner_kind, owner_id)?,
        amount: money::positive_amount("amount_microdollars", amount_microdollars)?,
        expiry: expires_at.map(|expiry| time::finite("expires_at", expiry)).transpose()?,
        category: kept_text("credit_category", credit_category, owner::MAX_ID_CHARS)?,
        description: kept_text("description", description, MAX_DESCRIPTION_CHARS)?,
        is_free: is_free.ok_or_else(|| BillingError::missing("is_free"))?,
        key: owner::idempotency_key(idempotency_key)?,
        created_at,
    };
    books::enter_for_writing("exa_billing.grant_credit()")?;
    Ok(spi::uuid(grant.record()?))
}
