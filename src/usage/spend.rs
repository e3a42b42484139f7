//! `record_spend`: every charge that is not an Exa request.

use super::record::happened_at;
use super::request::Recorded;
use crate::error::{BillingError, Kind, Result};
use crate::idempotency::{self, Compared, KeySpace, Known, PayloadHash};
use crate::owner::{self, Owner};
use crate::partitions::{self, Journal};
use crate::sources::{self, Category, Dimension, NewSpend};
use crate::spi::{self, Answer, Composite, Statement, values};
use crate::time::Instant;
use crate::{accounts, books, credits, money};
use pgrx::prelude::*;
use uuid::Uuid;

static RECORDED: Statement = Statement::fresh(
    "SELECT amount_microdollars, spend_category, product_key, feature_key, model_or_plan_key,
            provider_key, actor_user_id
     FROM exa_billing.spend_log WHERE spend_id = $1 AND created_at = $2",
);

struct Spend<'a> {
    owner: Owner,
    amount: i64,
    category: Category,
    source: &'a str,
    dimension: Dimension,
    actor_user_id: Option<&'a str>,
    key: Option<&'a str>,
    created_at: Option<Instant>,
    require_balance: bool,
}

impl Spend<'_> {
    /// Of what is recorded: dimensions count as they are normalised.
    fn payload_hash(&self, require_balance: bool) -> PayloadHash {
        let dimension = &self.dimension;
        PayloadHash::of(&[
            Some(&self.amount.to_string()),
            Some(self.category.as_str()),
            Some(&dimension.product),
            Some(&dimension.feature),
            Some(&dimension.model_or_plan),
            Some(&dimension.provider),
            self.actor_user_id,
            Some(&require_balance.to_string()),
        ])
    }

    /// Locks, in this order: the partition lock (only when the month has no partition); the
    /// account row (only with `require_balance`); the key's index entry.
    fn record(&self) -> Result<Recorded> {
        let space = KeySpace::spend(&self.owner, self.source);
        if let Some(replayed) = self.replay(&space)? {
            return Ok(replayed);
        }
        let clock = spi::clock();
        let created_at = happened_at(self.created_at, clock)?;
        partitions::ensure(Journal::SpendLog, created_at.month()?)?;
        if self.require_balance {
            accounts::lock_for_decision(&self.owner)?;
            // The call this one repeats may have been the one it waited for.
            if let Some(replayed) = self.replay(&space)? {
                return Ok(replayed);
            }
            self.require_credit()?;
        }
        let entry = Known {
            entry_id: Uuid::now_v7(),
            created_at,
            created_at_given: self.created_at.is_some(),
            payload_hash: self.payload_hash(self.require_balance).0.to_vec(),
        };
        if let Some(key) = self.key
            && !idempotency::claim(&space, key, &entry)?
        {
            let replayed = self.replay(&space)?;
            return replayed.ok_or_else(|| BillingError::internal("a claimed key vanished"));
        }
        sources::append_spend(&NewSpend {
            id: entry.entry_id,
            owner: &self.owner,
            actor_user_id: self.actor_user_id,
            source: self.source,
            dimension: &self.dimension,
            amount: self.amount,
            created_at,
            recorded_at: clock,
        })?;
        Ok(self.recorded(&entry, false))
    }

    /// Under the account's lock two purchases cannot both see the same credit.
    fn require_credit(&self) -> Result<()> {
        let now = spi::clock();
        let balance = spi::on_fresh_snapshot(|| credits::read_balance(&self.owner, now)?.left())?;
        if balance >= self.amount {
            return Ok(());
        }
        Err(BillingError::new(Kind::InsufficientCredit, "insufficient credit")
            .detail(format!(
                "The balance of {} {} is {balance} microdollars, the amount is {}.",
                self.owner.kind.as_str(),
                owner::quoted(&self.owner.id),
                self.amount
            ))
            .hint("Give credit with exa_billing.grant_credit()."))
    }

    fn replay(&self, space: &KeySpace) -> Result<Option<Recorded>> {
        let Some(key) = self.key else { return Ok(None) };
        let Some(known) = idempotency::find(space, key)? else { return Ok(None) };
        if known.is_same_call(self.payload_hash(self.require_balance), self.created_at) {
            return Ok(Some(self.recorded(&known, true)));
        }
        Err(idempotency::reused(key, &self.compared_with(&known)?))
    }

    /// The hash covers the amount, so a replay's amount is this call's.
    fn recorded(&self, entry: &Known, is_replay: bool) -> Recorded {
        Recorded {
            usage_id: entry.entry_id,
            created_at: entry.created_at,
            cost: self.amount,
            charged: self.amount,
            free_allowance: None,
            is_replay,
        }
    }

    fn compared_with(&self, known: &Known) -> Result<Vec<Compared<'static>>> {
        // No journal keeps this condition; the hash tells whether it was the other way.
        let flipped = known.payload_hash == self.payload_hash(!self.require_balance).0;
        let condition = Compared {
            argument: "require_balance",
            recorded: Some((self.require_balance != flipped).to_string()),
            given: Some(self.require_balance.to_string()),
        };
        let compared = RECORDED.write_row(values![known.entry_id, known.created_at], |row| {
            let text = |argument, column, given: &str| -> Result<Compared<'static>> {
                Ok(Compared {
                    argument,
                    recorded: row.maybe(column)?,
                    given: Some(given.to_owned()),
                })
            };
            Ok(vec![
                Compared {
                    argument: "amount_microdollars",
                    recorded: Some(row.get::<i64>(1)?.to_string()),
                    given: Some(self.amount.to_string()),
                },
                text("spend_category", 2, self.category.as_str())?,
                text("product_key", 3, &self.dimension.product)?,
                text("feature_key", 4, &self.dimension.feature)?,
                text("model_or_plan_key", 5, &self.dimension.model_or_plan)?,
                text("provider_key", 6, &self.dimension.provider)?,
                Compared {
                    argument: "actor_user_id",
                    recorded: row.maybe(7)?,
                    given: self.actor_user_id.map(str::to_owned),
                },
                idempotency::compared_times(known, self.created_at),
            ])
        })?;
        Ok(compared.into_iter().flatten().chain([condition]).collect())
    }
}

/// Records a charge in full; with `require_balance` only against sufficient credit.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "the SQL signature is the contract")]
fn record_spend(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    amount_microdollars: Option<i64>,
    spend_category: Option<&str>,
    source: Option<&str>,
    product_key: Option<&str>,
    feature_key: Option<&str>,
    model_or_plan_key: Option<&str>,
    provider_key: Option<&str>,
    actor_user_id: Option<&str>,
    idempotency_key: Option<&str>,
    created_at: Option<Instant>,
    require_balance: Option<bool>,
) -> Answer<Composite> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let amount = money::positive_amount("amount_microdollars", amount_microdollars)?;
    let category = Category::parse(spend_category)?;
    let source = sources::recorded_source(source)?;
    let product_key = product_key.ok_or_else(|| BillingError::missing("product_key"))?;
    let free_texts = [Some(product_key), feature_key, model_or_plan_key, provider_key];
    let actor_user_id = owner::optional_identifier("actor_user_id", actor_user_id)?;
    let require_balance =
        require_balance.ok_or_else(|| BillingError::missing("require_balance"))?;
    let [product, feature, model_or_plan, provider] = free_texts;
    let spend = Spend {
        dimension: Dimension::new(category, source, product, feature, model_or_plan, provider),
        key: owner::idempotency_key(idempotency_key)?,
        owner,
        amount,
        category,
        source,
        actor_user_id,
        created_at,
        require_balance,
    };
    books::enter_for_writing("exa_billing.record_spend()")?;
    Ok(spend.record()?.into_row())
}
