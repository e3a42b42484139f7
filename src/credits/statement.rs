//! `account_statement`: what happened to an owner's credit, line by line, with the balance after
//! each.

use super::ledger;
use crate::books;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::partitions;
use crate::sources;
use crate::spi::{Answer, Composite, RowSet, Statement, values};
use crate::time::{self, Day, Instant};
use pgrx::prelude::*;
use std::collections::BTreeMap;

static ENTRIES: Statement = Statement::kept(
    "SELECT created_at,
            CASE WHEN original_transaction_id IS NOT NULL THEN 'expiration'
                 WHEN credit_category = 'opening_balance' THEN 'opening_balance'
                 WHEN credit_category = 'accounting_adjustment' THEN 'adjustment'
                 ELSE 'grant' END,
            coalesce(description, credit_category), amount_microdollars
     FROM exa_billing.credit_transactions
     WHERE owner_kind = $1 AND owner_id = $2 AND created_at >= $3 AND created_at < $4
     ORDER BY created_at, id",
);
static GRANTED_BEFORE: Statement = Statement::kept(
    "SELECT coalesce(sum(amount_microdollars), 0)::bigint FROM exa_billing.credit_transactions
     WHERE owner_kind = $1 AND owner_id = $2 AND created_at < $3",
);
static SPEND: Statement = Statement::fresh(include_str!("../../sql/statements/spend_per_day.sql"));

const ATTACHED: &str = "SELECT max(created_at), (created_at AT TIME ZONE 'UTC')::date, product_key,
        count(*), sum(amount)::bigint FROM ({rows}) AS l GROUP BY 2, 3";

/// One line; `amount` is signed: spend takes away.
struct Line {
    at: Instant,
    kind: String,
    description: Option<String>,
    amount: i64,
}

fn lines(owner: &Owner, from: Instant, to: Instant) -> Result<Vec<Line>> {
    let (kind, id) = (owner.kind.as_str(), owner.id.as_str());
    let mut lines = ENTRIES.read(values![kind, id, from, to], |row| {
        let (at, kind, description) = (row.get(1)?, row.get(2)?, row.maybe(3)?);
        Ok(Line { at, kind, description, amount: row.get(4)? })
    })?;
    for month in partitions::months()? {
        let (start, end) = (month.start().max(from), month.next()?.start().min(to));
        if start >= end {
            continue;
        }
        lines.extend(SPEND.read(values![kind, id, start, end], |row| {
            let amount = row.get::<i64>(3)?;
            Ok(Line {
                at: row.get(1)?,
                kind: "spend".to_owned(),
                description: row.maybe(2)?,
                amount: -amount,
            })
        })?);
    }
    lines.extend(attached_lines(owner, from, to)?);
    // Stable: at one instant the entries come first, as usage there counts as after them.
    lines.sort_by_key(|line| line.at);
    Ok(lines)
}

/// The charges of attached tables per UTC day and product.
fn attached_lines(owner: &Owner, from: Instant, to: Instant) -> Result<Vec<Line>> {
    let mut days: BTreeMap<(Day, String), (Instant, i64, i64)> = BTreeMap::new();
    sources::each_month_of_ledgers(ATTACHED, Some(owner), (from, to), &[], |_, row| {
        let product = sources::normalised(row.maybe::<String>(3)?.as_deref());
        let (at, count, amount) = (row.get(1)?, row.get::<i64>(4)?, row.get::<i64>(5)?);
        let sum = days.entry((row.get(2)?, product)).or_insert((at, 0, 0));
        *sum = (sum.0.max(at), sum.1 + count, sum.2.saturating_add(amount));
        Ok(())
    })?;
    let lines = days.into_iter().map(|((day, product), (at, count, amount))| {
        let charges = if count == 1 { "charge" } else { "charges" };
        let description = Some(format!("{product} on {day}, {count} {charges}"));
        Line { at, kind: "spend".to_owned(), description, amount: -amount }
    });
    Ok(lines.collect())
}

/// The owner's balance before an instant, as the entries and journals have it.
fn balance_before(owner: &Owner, instant: Instant) -> Result<i64> {
    let arguments = values![owner.kind.as_str(), &owner.id, instant];
    let granted = GRANTED_BEFORE.read_row(arguments, |row| row.get::<i64>(1))?.unwrap_or_default();
    granted
        .checked_sub(ledger::usage_before(owner, instant)?)
        .ok_or_else(|| BillingError::out_of_range("the balance is out of range"))
}

/// Entries and daily spend of an owner in time order, with the running balance.
#[pg_extern(sql = false)]
fn account_statement(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    from_time: Option<Instant>,
    to_time: Option<Instant>,
) -> Answer<RowSet> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let bound = |argument, value: Option<Instant>| {
        time::finite(argument, value.ok_or_else(|| BillingError::missing(argument))?)
    };
    let (from, to) = (bound("from_time", from_time)?, bound("to_time", to_time)?);
    if to < from {
        return Err(BillingError::invalid("to_time must not be before from_time").into());
    }
    books::enter_for_reading("exa_billing.account_statement()")?;
    let mut balance = balance_before(&owner, from)?;
    let nothing: Option<&str> = None;
    let mut rows =
        vec![Composite::new(values![from, "balance_brought_forward", nothing, 0_i64, balance])];
    for line in lines(&owner, from, to)? {
        balance = balance
            .checked_add(line.amount)
            .ok_or_else(|| BillingError::out_of_range("the balance is out of range"))?;
        let (kind, description) = (line.kind.as_str(), line.description.as_deref());
        rows.push(Composite::new(values![line.at, kind, description, line.amount, balance]));
    }
    Ok(rows.into_iter().collect())
}
