//! The step of `recompute_all_balances`: one owner, in the procedure's current transaction.

use super::recompute::recompute_changes;
use crate::books;
use crate::error::{BillingError, Result};
use crate::owner::{Owner, OwnerKind};
use crate::spi::{self, Answer, Composite, Statement, values};
use pgrx::prelude::*;

const PROCEDURE: &str = "recompute_all_balances";

static BEGIN: Statement = Statement::kept(
    "INSERT INTO exa_billing.procedure_progress AS p
         (procedure_name, arguments, after_owner_kind, after_owner_id, total, done, changed, failed,
          started_at, updated_at, finished_at)
     SELECT $1, $2, '', '', count(*), 0, 0, 0, now(), now(), NULL FROM exa_billing.accounts
     ON CONFLICT (procedure_name, arguments) DO UPDATE
     SET after_owner_kind = '', after_owner_id = '', total = excluded.total, done = 0, changed = 0,
         failed = 0, started_at = now(), updated_at = now(), finished_at = NULL
     WHERE p.finished_at IS NOT NULL",
);
static POSITION: Statement = Statement::kept(
    "SELECT after_owner_kind, after_owner_id, done, total FROM exa_billing.procedure_progress
     WHERE procedure_name = $1 AND arguments = $2 FOR UPDATE",
);
static NEXT_OWNER: Statement = Statement::kept(
    "SELECT owner_kind, owner_id FROM exa_billing.accounts
     WHERE (owner_kind, owner_id) > ($1, $2) ORDER BY owner_kind, owner_id LIMIT 1",
);
static NOTE: Statement = Statement::kept(
    "UPDATE exa_billing.procedure_progress
     SET after_owner_kind = $3, after_owner_id = $4, done = done + 1, changed = changed + $5,
         failed = failed + $6, updated_at = clock_timestamp()
     WHERE procedure_name = $1 AND arguments = $2",
);
static FINISH: Statement = Statement::kept(
    "UPDATE exa_billing.procedure_progress SET updated_at = clock_timestamp(), finished_at = clock_timestamp()
     WHERE procedure_name = $1 AND arguments = $2
     RETURNING format('%s of %s owners recomputed, %s changed, %s failed', done, total, changed, failed)",
);

/// Recomputes the next owner. A run that was stopped goes on after the last owner it finished,
/// and two runs at once share the work.
///
/// Locks: the progress row; then what recomputing the owner takes.
fn step(is_first: bool, dry_run: bool, keep_balance: bool) -> Result<(bool, Option<String>)> {
    let arguments = format!("dry_run => {dry_run}, keep_balance => {keep_balance}");
    let run = values![PROCEDURE, &arguments];
    if is_first {
        BEGIN.execute(run)?;
    }
    let is_due = spi::notice_is_due(is_first);
    let position = POSITION.write_row(run, |row| {
        Ok((row.get::<String>(1)?, row.get::<String>(2)?, row.get::<i64>(3)?, row.get::<i64>(4)?))
    })?;
    let (kind, id, done, total) =
        position.ok_or_else(|| BillingError::internal("no progress is kept of this run"))?;
    let next = NEXT_OWNER.write_row(values![&kind, &id], |row| {
        let kind = OwnerKind::parse(Some(&row.get::<String>(1)?))?;
        Ok(Owner { kind, id: row.get(2)? })
    })?;
    let Some(owner) = next else {
        let summary = FINISH.write_row(run, |row| row.get::<String>(1))?;
        return Ok((true, summary));
    };
    let (changed, failed) = recompute_or_report(&owner, dry_run, keep_balance)?;
    let (kind, id) = (owner.kind.as_str(), &owner.id);
    NOTE.execute(values![PROCEDURE, &arguments, kind, id, changed, failed])?;
    Ok((false, is_due.then(|| format!("{} of {total} owners recomputed", done + 1))))
}

/// A failing owner is reported and skipped. Returns (changed, failed), each 0 or 1.
fn recompute_or_report(owner: &Owner, dry_run: bool, keep_balance: bool) -> Result<(i64, i64)> {
    match spi::in_subtransaction(|| recompute_changes(owner, dry_run, keep_balance)) {
        Ok(changed) => Ok((i64::from(changed), 0)),
        Err(failure) if failure.is_of_data() => {
            let (kind, reason) = (owner.kind.as_str(), failure.message());
            pgrx::warning!("{kind} {} was not recomputed: {reason}", owner.id);
            Ok((0, 1))
        }
        Err(failure) => failure.raise(),
    }
}

/// One owner of `recompute_all_balances`; called by the procedure, which commits after it.
#[pg_extern(sql = false)]
fn recompute_next_owner(
    is_first: Option<bool>,
    dry_run: Option<bool>,
    keep_balance: Option<bool>,
) -> Answer<Composite> {
    let required =
        |argument, value: Option<bool>| value.ok_or_else(|| BillingError::missing(argument));
    let is_first = required("is_first", is_first)?;
    let dry_run = required("dry_run", dry_run)?;
    let keep_balance = required("keep_balance", keep_balance)?;
    books::enter_for_writing("exa_billing.recompute_all_balances()")?;
    let (is_finished, notice) = step(is_first, dry_run, keep_balance)?;
    Ok(Composite::new(values![is_finished, notice.as_deref()]))
}
