//! The step of `recompute_all_balances`: one owner, in the procedure's current transaction.

use super::recompute::recompute_changes;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::progress::{Counts, Position, Run, Step};
use crate::spi::{self, Answer, Composite, Statement, values};
use crate::{accounts, books, progress};
use pgrx::prelude::*;

const PROCEDURE: &str = "recompute_all_balances";

static COUNT: Statement = Statement::kept("SELECT count(*) FROM exa_billing.accounts");
static NEXT_OWNER: Statement = Statement::kept(
    "SELECT owner_kind, owner_id FROM exa_billing.accounts
     WHERE (owner_kind, owner_id) > ($1, $2) ORDER BY owner_kind, owner_id LIMIT 1",
);

/// Recomputes the next owner. A run that was stopped goes on after the last owner it finished,
/// and two runs at once share the work.
///
/// Locks: the progress row; then what recomputing the owner takes.
fn step(is_first: bool, dry_run: bool, keep_balance: bool) -> Result<(bool, Option<String>)> {
    let arguments = format!("dry_run => {dry_run}, keep_balance => {keep_balance}");
    let run = Run { procedure: PROCEDURE, arguments };
    if is_first {
        let owners = COUNT.write_row(&[], |row| row.get::<i64>(1))?;
        run.begin(owners.unwrap_or_default(), None)?;
    }
    let is_due = progress::is_due(is_first);
    let Position { after_owner: (kind, id), done, total, .. } = run.position()?;
    let next = NEXT_OWNER.write_row(values![&kind, &id], |row| accounts::owner_of(row, 1))?;
    let Some(owner) = next else {
        let Counts { done, total, changed, failed } = run.finish()?;
        let summary =
            format!("{done} of {total} owners recomputed, {changed} changed, {failed} failed");
        return Ok((true, Some(summary)));
    };
    let (changed, failed) = recompute_or_report(&owner, dry_run, keep_balance)?;
    let after_owner = (owner.kind.as_str(), owner.id.as_str());
    run.note(&Step { after_owner, before_hour: None, done: 1, changed, failed })?;
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
