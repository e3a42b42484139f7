//! What recomputing reads and writes.

use super::replay::{Baselines, Tally, Transaction};
use crate::books::Permission;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::sources;
use crate::spi::{Statement, values};
use crate::time::Instant;
use crate::{events, partitions};
use uuid::Uuid;

static TRANSACTIONS: Statement = Statement::kept(
    "SELECT id, amount_microdollars, created_at, recorded_at, expiry_date,
            original_baseline_microdollars_used, expiration_baseline_microdollars_used,
            original_transaction_id
     FROM exa_billing.credit_transactions
     WHERE owner_kind = $1 AND owner_id = $2 ORDER BY created_at, id",
);
static MONTH_OF_USAGE: Statement =
    Statement::fresh(include_str!("../../sql/statements/month_of_usage.sql"));
static FIGURES: Statement = Statement::over_queue(
    "SELECT total_microdollars_acquired, microdollars_used, (
                SELECT coalesce(sum(q.amount_microdollars), 0)::bigint
                FROM exa_billing.unposted_spend AS q
                WHERE q.owner_kind = $1 AND q.owner_id = $2)
     FROM (
         SELECT coalesce(max(total_microdollars_acquired), 0) AS total_microdollars_acquired,
                coalesce(max(microdollars_used), 0) AS microdollars_used
         FROM exa_billing.accounts WHERE owner_kind = $1 AND owner_id = $2
     ) AS account",
);
static WRITE_BASELINES: Statement = Statement::kept(
    "UPDATE exa_billing.credit_transactions AS t
     SET original_baseline_microdollars_used = new.original,
         expiration_baseline_microdollars_used = new.expiration
     FROM unnest($1, $2, $3) AS new(id, original, expiration) WHERE t.id = new.id",
);
static WRITE_ACCOUNT: Statement = Statement::kept(
    "UPDATE exa_billing.accounts
     SET total_microdollars_acquired = $3, microdollars_used = $4, next_credit_expiration_at = $5,
         posted_before = NULL, posted_where = NULL
     WHERE owner_kind = $1 AND owner_id = $2
     RETURNING minimum_balance_microdollars IS NOT NULL",
);

/// The same of attached tables. They do not say when a row was recorded, so none of theirs is late.
const ATTACHED: &str =
    "SELECT width_bucket(created_at, $5), sum(amount)::bigint FROM ({rows}) AS l GROUP BY 1";

/// The cached figures of an owner, in microdollars.
pub struct Figures {
    pub acquired: i64,
    pub posted: i64,
    pub unposted: i64,
}

/// All usage of an owner, cut at instants.
pub struct Usage {
    /// `before[i]` is the usage strictly before instant `i`.
    pub before: Vec<i64>,
    pub total: i64,
    pub late_arrivals: i64,
}

pub fn figures(owner: &Owner) -> Result<Figures> {
    let figures = FIGURES.read_row(values![owner.kind.as_str(), &owner.id], |row| {
        Ok(Figures { acquired: row.get(1)?, posted: row.get(2)?, unposted: row.get(3)? })
    })?;
    figures.ok_or_else(|| BillingError::internal("no figures of an owner"))
}

pub fn transactions(owner: &Owner) -> Result<Vec<Transaction>> {
    TRANSACTIONS.read(values![owner.kind.as_str(), &owner.id], |row| {
        Ok(Transaction {
            id: row.get(1)?,
            amount: row.get(2)?,
            created_at: row.get(3)?,
            recorded_at: row.get(4)?,
            expiry: row.maybe(5)?,
            original_baseline: row.get(6)?,
            expiration_baseline: row.maybe(7)?,
            closes: row.maybe::<Uuid>(8)?,
        })
    })
}

/// Adds up the owner's journals, a month at a time; memory grows with the transactions, not
/// with the charges. `instants` are sorted; `closed_at` and `closed_by` are `replay::late_marks`.
pub fn usage(
    owner: &Owner,
    instants: &[Instant],
    closed_at: &[Instant],
    closed_by: &[Instant],
) -> Result<Usage> {
    let mut tally = Tally::new(instants, closed_at, closed_by);
    for month in partitions::months()? {
        let times = (month.start(), month.next()?.start());
        let is_read = sources::each_entry(owner, times, |entry| {
            tally.charge(entry.created_at, entry.recorded_at, entry.amount);
            Ok(())
        })?;
        if !is_read {
            select_month(owner, times, [instants, closed_at, closed_by], &mut tally)?;
        }
    }
    let always = (Instant(i64::MIN), Instant(i64::MAX));
    let more = values![instants.to_vec()];
    sources::each_month_of_ledgers(ATTACHED, Some(owner), always, more, |_, row| {
        tally.add(usize::try_from(row.get::<i32>(1)?).unwrap_or_default(), row.get(2)?);
        Ok(())
    })?;
    let late_arrivals = tally.late_arrivals;
    let (before, total) = tally.sums();
    let in_range =
        |sum| i64::try_from(sum).map_err(|_| BillingError::out_of_range("usage is out of range"));
    let before = before.into_iter().map(in_range).collect::<Result<_>>()?;
    Ok(Usage { before, total: in_range(total)?, late_arrivals })
}

/// Where a month's journals must be read by a statement.
fn select_month(
    owner: &Owner,
    (start, end): (Instant, Instant),
    [instants, closed_at, closed_by]: [&[Instant]; 3],
    tally: &mut Tally,
) -> Result<()> {
    MONTH_OF_USAGE.read(
        values![
            owner.kind.as_str(),
            &owner.id,
            start,
            end,
            instants.to_vec(),
            closed_at.to_vec(),
            closed_by.to_vec()
        ],
        |row| {
            tally.add(usize::try_from(row.get::<i32>(1)?).unwrap_or_default(), row.get(2)?);
            tally.late_arrivals += row.get::<i64>(3)?;
            Ok(())
        },
    )?;
    Ok(())
}

/// Writes changed baselines; the account row is locked.
pub fn write_baselines(changes: &[(Uuid, Baselines)]) -> Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let _keeping = Permission::to_keep_baselines();
    WRITE_BASELINES.execute(values![
        changes.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
        changes.iter().map(|(_, baselines)| baselines.original).collect::<Vec<_>>(),
        changes.iter().map(|(_, baselines)| baselines.expiration).collect::<Vec<_>>()
    ])
}

/// Writes the account's figures; its row is locked.
pub fn write_account(
    owner: &Owner,
    acquired: i64,
    posted: i64,
    next_expiration: Option<Instant>,
) -> Result<()> {
    let (kind, id) = (owner.kind.as_str(), &owner.id);
    let arguments = values![kind, id, acquired, posted, next_expiration];
    if WRITE_ACCOUNT.write_row(arguments, |row| row.get::<bool>(1))? == Some(true) {
        events::check_low_balances(std::slice::from_ref(owner))?;
    }
    Ok(())
}
