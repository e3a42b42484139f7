//! Recompute: an owner's usage and every baseline, from the journals in time order.

use super::ledger::{self, ADJUSTMENT, NewTransaction};
use super::recompute_rows::{self as rows, Figures};
use super::replay::{self, Baselines, Transaction};
use crate::error::{BillingError, Result};
use crate::owner::{self, Owner, OwnerKind};
use crate::spi::{self, Answer, Composite, RowSet, values};
use crate::time::Instant;
use crate::{accounts, books, posting};
use pgrx::prelude::*;
use uuid::Uuid;

/// What recomputing finds, and what it would write. Amounts in microdollars.
struct Plan {
    figures: Figures,
    previously_used: i64,
    used: i64,
    acquired: i64,
    /// Visible balance − ledger balance.
    balance_error: i64,
    adjustment: i64,
    transactions: Vec<Transaction>,
    baselines: Vec<Baselines>,
    late_arrivals: i64,
    next_expiration: Option<Instant>,
    usage_before_clock: i64,
}

impl Plan {
    /// Reads everything on the snapshot the caller has chosen.
    fn read(owner: &Owner, keep_balance: bool, clock: Instant) -> Result<Self> {
        let figures = rows::figures(owner)?;
        let transactions = rows::transactions(owner)?;
        let mut instants: Vec<Instant> =
            transactions.iter().map(|transaction| transaction.created_at).collect();
        // The last cut is for an adjustment that may be written now.
        let position = instants.partition_point(|instant| *instant <= clock);
        instants.insert(position, clock);
        let (closed_at, closed_by) = replay::late_marks(&transactions);
        let mut usage = rows::usage(owner, &instants, &closed_at, &closed_by)?;
        let usage_before_clock = usage.before.remove(position);

        let granted: i128 = transactions.iter().map(|entry| i128::from(entry.amount)).sum();
        let previously_used = i128::from(figures.posted) + i128::from(figures.unposted);
        let visible = i128::from(figures.acquired) - previously_used;
        let ledger = granted - i128::from(usage.total);
        let balance_error = in_range(visible - ledger)?;
        let adjustment = if keep_balance { balance_error } else { 0 };
        Ok(Self {
            used: usage.total,
            previously_used: in_range(previously_used)?,
            acquired: in_range(granted + i128::from(adjustment))?,
            balance_error,
            adjustment,
            baselines: replay::baselines(&transactions, &usage.before),
            late_arrivals: usage.late_arrivals,
            next_expiration: replay::next_expiration(&transactions),
            usage_before_clock,
            figures,
            transactions,
        })
    }

    fn changed(&self, differs: impl Fn(&Transaction, &Baselines) -> bool) -> i64 {
        let pairs = self.transactions.iter().zip(&self.baselines);
        i64::try_from(pairs.filter(|(stored, new)| differs(stored, new)).count())
            .unwrap_or(i64::MAX)
    }

    /// The transactions whose stored baselines differ.
    fn changes(&self) -> Vec<(Uuid, Baselines)> {
        self.transactions
            .iter()
            .zip(&self.baselines)
            .filter(|(stored, new)| {
                stored.original_baseline != new.original
                    || stored.expiration_baseline != new.expiration
            })
            .map(|(stored, new)| (stored.id, *new))
            .collect()
    }

    /// Whether the account's own figures would change.
    fn moves_account(&self) -> bool {
        self.used != self.previously_used || self.acquired != self.figures.acquired
    }

    fn is_change(&self) -> bool {
        self.moves_account() || !self.changes().is_empty()
    }

    fn apply(&self, owner: &Owner, clock: Instant) -> Result<()> {
        rows::write_baselines(&self.changes())?;
        // What cannot be posted stays in the queue, where every read counts it.
        let posted = in_range(i128::from(self.used) - i128::from(self.figures.unposted))?;
        rows::write_account(owner, self.acquired, posted, self.next_expiration)?;
        if self.adjustment == 0 {
            return Ok(());
        }
        ledger::add(
            owner,
            &NewTransaction {
                id: Uuid::now_v7(),
                amount: self.adjustment,
                expiry: None,
                baseline: self.usage_before_clock,
                category: Some(ADJUSTMENT),
                description: Some("Recomputed from the journals; the visible balance was kept"),
                is_free: true,
                created_at: clock,
                recorded_at: clock,
            },
        )
    }

    fn into_row(self, owner: &Owner, applied: bool) -> Composite {
        Composite::new(values![
            owner.kind.as_str(),
            &owner.id,
            self.previously_used,
            self.used,
            self.figures.acquired,
            self.acquired,
            self.balance_error,
            self.adjustment,
            self.changed(|stored, new| stored.original_baseline != new.original),
            self.changed(|stored, new| stored.expiration_baseline != new.expiration),
            self.late_arrivals,
            applied
        ])
    }
}

fn in_range(sum: i128) -> Result<i64> {
    i64::try_from(sum).map_err(|_| BillingError::out_of_range("the balance is out of range"))
}

/// Recomputes one owner. A dry run takes no lock and writes nothing.
///
/// Locks: the account row; then the owner's queue rows while they are posted. Charges go on: they
/// append rows that the snapshot does not see and that stay in the queue.
fn recompute(owner: &Owner, dry_run: bool, keep_balance: bool) -> Result<(Plan, bool)> {
    let clock = spi::clock();
    if dry_run {
        return Ok((Plan::read(owner, keep_balance, clock)?, false));
    }
    if !accounts::lock_existing(owner)? {
        let plan = spi::on_fresh_snapshot(|| Plan::read(owner, keep_balance, clock))?;
        if !plan.is_change() && plan.figures.unposted == 0 {
            return Ok((plan, false));
        }
        accounts::lock(owner)?;
    }
    posting::post_owner(owner)?;
    let plan = spi::on_fresh_snapshot(|| Plan::read(owner, keep_balance, clock))?;
    plan.apply(owner, clock)?;
    Ok((plan, true))
}

/// For the procedure: whether recomputing one owner changes, or would change, anything.
pub fn recompute_changes(owner: &Owner, dry_run: bool, keep_balance: bool) -> Result<bool> {
    Ok(recompute(owner, dry_run, keep_balance)?.0.is_change())
}

fn answer(
    owner: &Owner,
    dry_run: Option<bool>,
    keep_balance: Option<bool>,
    function: &str,
) -> Answer<Composite> {
    let dry_run = dry_run.ok_or_else(|| BillingError::missing("dry_run"))?;
    let keep_balance = keep_balance.ok_or_else(|| BillingError::missing("keep_balance"))?;
    if dry_run {
        books::enter_for_reading(function)?;
    } else {
        books::enter_for_writing(function)?;
    }
    let (plan, applied) = recompute(owner, dry_run, keep_balance)?;
    Ok(plan.into_row(owner, applied))
}

/// Repairs a user's figures from the journals.
#[pg_extern(sql = false)]
fn recompute_user_balances(
    user_id: Option<&str>,
    dry_run: Option<bool>,
    keep_balance: Option<bool>,
) -> Answer<Composite> {
    let id = owner::identifier("user_id", user_id)?.to_owned();
    let owner = Owner { kind: OwnerKind::User, id };
    answer(&owner, dry_run, keep_balance, "exa_billing.recompute_user_balances()")
}

/// Repairs an organization's figures from the journals.
#[pg_extern(sql = false)]
fn recompute_organization_balances(
    organization_id: Option<&str>,
    dry_run: Option<bool>,
    keep_balance: Option<bool>,
) -> Answer<Composite> {
    let id = owner::identifier("organization_id", organization_id)?.to_owned();
    let owner = Owner { kind: OwnerKind::Organization, id };
    answer(&owner, dry_run, keep_balance, "exa_billing.recompute_organization_balances()")
}

/// Stored and recomputed baselines of each transaction.
#[pg_extern(sql = false)]
fn recompute_baselines(owner_kind: Option<&str>, owner_id: Option<&str>) -> Answer<RowSet> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    books::enter_for_reading("exa_billing.recompute_baselines()")?;
    let plan = Plan::read(&owner, true, spi::clock())?;
    let rows = plan.transactions.iter().zip(&plan.baselines).map(|(stored, new)| {
        Composite::new(values![
            stored.id,
            stored.created_at,
            stored.amount,
            stored.expiry,
            stored.original_baseline,
            new.original,
            stored.expiration_baseline,
            new.expiration
        ])
    });
    Ok(rows.collect())
}
