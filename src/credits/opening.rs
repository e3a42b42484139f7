//! `import_opening_balance`: taking an owner over from an existing system.

use super::ledger::{self, NewTransaction, OPENING_BALANCE};
use super::recompute_rows as rows;
use crate::error::{BillingError, Kind, Result};
use crate::idempotency::{self, Compared, KeySpace, Known, PayloadHash};
use crate::money;
use crate::owner::{self, Owner};
use crate::partitions::{self, Journal};
use crate::sources::{self, Category, Dimension, NewSpend};
use crate::spi::{self, Answer, Statement, values};
use crate::time::{self, Instant};
use crate::{accounts, books};
use pgrx::prelude::*;
use uuid::Uuid;

static RECORDED: Statement = Statement::fresh(
    "SELECT t.amount_microdollars, t.created_at, coalesce(max(s.amount_microdollars), 0)
     FROM exa_billing.credit_transactions AS t
     LEFT JOIN exa_billing.spend_log AS s
         ON s.owner_kind = t.owner_kind AND s.owner_id = t.owner_id AND s.source = $2
        AND s.created_at = t.created_at
     WHERE t.id = $1 GROUP BY t.id",
);

struct Opening<'a> {
    owner: Owner,
    acquired: i64,
    used: i64,
    as_of: Instant,
    key: &'a str,
}

impl Opening<'_> {
    fn payload_hash(&self) -> PayloadHash {
        PayloadHash::of(&[
            Some(OPENING_BALANCE),
            Some(&self.acquired.to_string()),
            Some(&self.used.to_string()),
            Some(&self.as_of.to_string()),
        ])
    }

    /// Locks, in this order: the partition lock (only when the month has no partition); the
    /// account row (opening it); the key.
    fn record(&self, clock: Instant) -> Result<Uuid> {
        let space = KeySpace::credit(&self.owner);
        if let Some(id) = self.replay(&space)? {
            return Ok(id);
        }
        partitions::ensure(Journal::SpendLog, self.as_of.month()?)?;
        accounts::lock(&self.owner)?;
        let id = Uuid::now_v7();
        let entry = Known {
            entry_id: id,
            created_at: self.as_of,
            created_at_given: true,
            payload_hash: self.payload_hash().0.to_vec(),
        };
        if !idempotency::claim(&space, self.key, &entry)? {
            let replayed = self.replay(&space)?;
            return replayed.ok_or_else(|| BillingError::internal("a claimed key vanished"));
        }
        spi::on_fresh_snapshot(|| self.require_first())?;
        ledger::add(
            &self.owner,
            &NewTransaction {
                id,
                amount: self.acquired,
                expiry: None,
                baseline: 0,
                category: Some(OPENING_BALANCE),
                description: Some("Taken over from another system"),
                is_free: false,
                created_at: self.as_of,
                recorded_at: clock,
            },
        )?;
        ledger::change_account(&self.owner, self.acquired, None)?;
        if self.used > 0 {
            self.append_usage(clock)?;
        }
        Ok(id)
    }

    /// Usage is what journals say, so what was used elsewhere gets a journal row too. Without it
    /// a recompute would take the usage away again.
    fn append_usage(&self, clock: Instant) -> Result<()> {
        let product = Some("opening-balance");
        let dimension =
            Dimension::new(Category::Scheduled, OPENING_BALANCE, product, None, None, None);
        sources::append_spend(&NewSpend {
            id: Uuid::now_v7(),
            owner: &self.owner,
            actor_user_id: None,
            source: OPENING_BALANCE,
            dimension: &dimension,
            amount: self.used,
            created_at: self.as_of,
            recorded_at: clock,
        })
    }

    fn require_first(&self) -> Result<()> {
        let figures = rows::figures(&self.owner)?;
        let has_charges = figures.posted != 0 || figures.unposted != 0;
        if !has_charges && rows::transactions(&self.owner)?.is_empty() {
            return Ok(());
        }
        Err(BillingError::new(Kind::WrongState, "the owner already has entries")
            .detail("An opening balance comes once, before any grant or charge.")
            .hint("Correct the balance with exa_billing.adjust_credit()."))
    }

    fn replay(&self, space: &KeySpace) -> Result<Option<Uuid>> {
        let Some(known) = idempotency::find(space, self.key)? else { return Ok(None) };
        if known.is_same_call(self.payload_hash(), Some(self.as_of)) {
            return Ok(Some(known.entry_id));
        }
        let compared = RECORDED.write_row(values![known.entry_id, OPENING_BALANCE], |row| {
            let amount = |argument, recorded: i64, given: i64| Compared {
                argument,
                recorded: Some(recorded.to_string()),
                given: Some(given.to_string()),
            };
            Ok(vec![
                amount("total_microdollars_acquired", row.get(1)?, self.acquired),
                amount("microdollars_used", row.get(3)?, self.used),
                Compared {
                    argument: "as_of",
                    recorded: Some(row.get::<Instant>(2)?.to_string()),
                    given: Some(self.as_of.to_string()),
                },
            ])
        })?;
        Err(idempotency::reused(self.key, &compared.unwrap_or_default()))
    }
}

/// Takes an owner's figures over; returns the id of the opening transaction.
#[pg_extern(sql = false)]
fn import_opening_balance(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    total_microdollars_acquired: Option<i64>,
    microdollars_used: Option<i64>,
    as_of: Option<Instant>,
    idempotency_key: Option<&str>,
) -> Answer<pgrx::Uuid> {
    let clock = spi::clock();
    let opening = Opening {
        owner: Owner::parse(owner_kind, owner_id)?,
        acquired: money::cost("total_microdollars_acquired", total_microdollars_acquired)?,
        used: money::cost("microdollars_used", microdollars_used)?,
        as_of: time::as_of_past(as_of, clock)?,
        key: owner::idempotency_key(idempotency_key)?
            .ok_or_else(|| BillingError::missing("idempotency_key"))?,
    };
    books::enter_for_writing("exa_billing.import_opening_balance()")?;
    Ok(spi::uuid(opening.record(clock)?))
}
