//! Grants: credit comes in.

use crate::error::{BillingError, Kind, Result};
use crate::idempotency::{self, Compared, KeySpace, Known, PayloadHash};
use crate::money;
use crate::owner::{self, MAX_DESCRIPTION_CHARS, Owner};
use crate::spi::{self, Answer, Statement, values};
use crate::time::{self, Instant};
use crate::{accounts, books};
use pgrx::prelude::*;
use uuid::Uuid;

static ADD_TO_ACCOUNT: Statement = Statement::kept(
    "UPDATE exa_billing.accounts
     SET total_microdollars_acquired = total_microdollars_acquired + $3
     WHERE owner_kind = $1 AND owner_id = $2",
);
/// The baseline is the usage before the grant's instant, out of posted hours, the journals' rows
/// of the hour the instant lies in, and what is not yet posted: its cost does not grow with
/// history.
static ADD_TRANSACTION: Statement =
    Statement::fresh(include_str!("../../sql/statements/add_credit_transaction.sql"));
static RECORDED: Statement = Statement::kept(
    "SELECT amount_microdollars, credit_category, description, is_free
     FROM exa_billing.credit_transactions WHERE id = $1",
);

struct Grant<'a> {
    owner: Owner,
    amount: i64,
    category: Option<&'a str>,
    description: Option<&'a str>,
    is_free: bool,
    key: Option<&'a str>,
    created_at: Option<Instant>,
}

impl Grant<'_> {
    fn payload_hash(&self) -> PayloadHash {
        let (amount, is_free) = (self.amount.to_string(), self.is_free.to_string());
        PayloadHash::of(&[Some(&amount), self.category, self.description, Some(&is_free)])
    }

    /// Locks, in this order: the account row (opening it when there is none); then the key.
    fn record(&self) -> Result<Uuid> {
        let space = KeySpace::credit(&self.owner);
        if let Some(id) = self.replay(&space)? {
            return Ok(id);
        }
        let clock = spi::clock();
        let created_at = match self.created_at {
            Some(given) => time::not_ahead_of_clock("created_at", given, clock)?,
            None => spi::transaction_time(),
        };
        accounts::lock(&self.owner)?;
        let entry = Known {
            entry_id: Uuid::now_v7(),
            created_at,
            created_at_given: self.created_at.is_some(),
            payload_hash: self.payload_hash().0.to_vec(),
        };
        if let Some(key) = self.key
            && !idempotency::claim(&space, key, &entry)?
        {
            return self
                .replay(&space)?
                .ok_or_else(|| BillingError::internal("a claimed key vanished"));
        }
        let owner = (self.owner.kind.as_str(), self.owner.id.as_str());
        ADD_TO_ACCOUNT.execute(values![owner.0, owner.1, self.amount])?;
        ADD_TRANSACTION.execute(values![
            entry.entry_id,
            owner.0,
            owner.1,
            self.amount,
            self.category,
            self.description,
            self.is_free,
            created_at,
            clock
        ])?;
        Ok(entry.entry_id)
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
            let text = |text: Option<&str>| text.map(str::to_owned);
            Ok(vec![
                Compared {
                    argument: "amount_microdollars",
                    recorded: Some(row.get::<i64>(1)?.to_string()),
                    given: Some(self.amount.to_string()),
                },
                Compared {
                    argument: "credit_category",
                    recorded: row.maybe(2)?,
                    given: text(self.category),
                },
                Compared {
                    argument: "description",
                    recorded: row.maybe(3)?,
                    given: text(self.description),
                },
                Compared {
                    argument: "is_free",
                    recorded: Some(row.get::<bool>(4)?.to_string()),
                    given: Some(self.is_free.to_string()),
                },
                idempotency::compared_times(known, self.created_at),
            ])
        })?;
        Ok(compared.unwrap_or_default())
    }
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
    let text = |argument, value: Option<&str>, limit| -> Result<()> {
        value.map_or(Ok(()), |value| owner::bounded(argument, value, limit).map(drop))
    };
    text("credit_category", credit_category, owner::MAX_ID_CHARS)?;
    text("description", description, MAX_DESCRIPTION_CHARS)?;
    let grant = Grant {
        owner: Owner::parse(owner_kind, owner_id)?,
        amount: money::positive_amount("amount_microdollars", amount_microdollars)?,
        category: credit_category,
        description,
        is_free: is_free.ok_or_else(|| BillingError::missing("is_free"))?,
        key: owner::idempotency_key(idempotency_key)?,
        created_at,
    };
    if expires_at.is_some() {
        return Err(BillingError::new(Kind::NotSupported, "expiring credit is not supported yet")
            .hint("Leave expires_at out.")
            .into());
    }
    books::enter_for_writing("exa_billing.grant_credit()")?;
    Ok(pgrx::Uuid::from_bytes(*grant.record()?.as_bytes()))
}
