//! The step of `backfill_rollups`: one UTC day, or the part of it in the range, in the procedure's
//! current transaction.

use super::hours::{Chunk, Hours, newest_chunk};
use super::rebuild::{Rebuilt, rebuild};
use super::{degraded, history};
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::progress::{Counts, Position, Run, Step};
use crate::spi::{self, Answer, Composite, Statement, values};
use crate::time::{Instant, Month};
use crate::{accounts, books, progress, sources};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeSet;

const PROCEDURE: &str = "backfill_rollups";
/// Each rebuilt owner's account stays locked until the transaction ends.
const OWNERS_AT_ONCE: usize = 100;
const FAILED: &str = "backfill_rollups could not put these hours right";

/// What a session has looked up in an earlier step of its call. Neither can be too old: what is
/// charged meanwhile, in whatever month, is posted and needs no rebuilding, and a rebuild looks
/// again.
struct Known {
    range: Hours,
    months: BTreeSet<Month>,
    /// The chunk that is under way, with the owners who differ in it, in order.
    differing: Option<(Hours, Vec<Owner>)>,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
}

static OWNERS_TO_REBUILD: Statement =
    Statement::fresh(include_str!("../../sql/statements/owners_to_rebuild.sql"));
// Only where the hours that are covered already follow without a gap.
static EXTEND_COVERAGE: Statement = Statement::kept(
    "UPDATE exa_billing.spend_sources SET covered_from = $1
     WHERE is_own AND covered_from > $1 AND covered_from <= $2",
);

/// What became of a chunk, or of the part of it that fits a transaction.
#[derive(Default)]
struct Outcome {
    changed: i64,
    failed: i64,
    /// Where to go on, when there is more of this chunk.
    stopped_after: Option<Owner>,
}

/// Works on the newest chunk that remains. A run that was stopped goes on where it was, and two
/// runs at once share the work.
///
/// Locks: the progress row; then, of each owner in order, what rebuilding takes; then those of
/// degraded intervals and of the sources' coverage.
fn step(is_first: bool, hours: Hours, dry_run: bool) -> Result<(bool, Option<String>)> {
    let arguments =
        format!("from_hour => {}, to_hour => {}, dry_run => {dry_run}", hours.from, hours.to);
    let run = Run { procedure: PROCEDURE, arguments };
    if is_first {
        run.begin(hours.count(), Some(hours.to))?;
        KNOWN.take();
    }
    let is_due = progress::is_due(is_first);
    let Position { after_owner: after, before_hour, done, total } = run.position()?;
    let before = before_hour.unwrap_or(hours.to);
    if before <= hours.from {
        return Ok((true, Some(summary(run.finish()?, dry_run))));
    }
    let remaining = Hours { from: hours.from, to: before };
    // An error on the way leaves nothing behind.
    let mut known = match KNOWN.take() {
        Some(known) if known.range == hours => known,
        _ => Known {
            range: hours,
            months: spi::on_fresh_snapshot(|| history::months(None, hours))?,
            differing: None,
        },
    };
    let chunk = newest_chunk(remaining, &known.months)?;
    let outcome = work_on(chunk, &after, dry_run, &mut known.differing)?;
    KNOWN.set(Some(known));
    let finished = outcome.stopped_after.is_none();
    let (before, hours_done) =
        if finished { (chunk.hours.from, chunk.hours.count()) } else { (before, 0) };
    let after_owner =
        outcome.stopped_after.as_ref().map_or(("", ""), |owner| (owner.kind.as_str(), &owner.id));
    run.note(&Step {
        after_owner,
        before_hour: Some(before),
        done: hours_done,
        changed: outcome.changed,
        failed: outcome.failed,
    })?;
    if finished && !dry_run {
        EXTEND_COVERAGE.execute(values![chunk.hours.from, chunk.hours.to])?;
    }
    Ok((false, is_due.then(|| format!("{} of {total} hours done", done + hours_done))))
}

fn summary(counts: Counts, dry_run: bool) -> String {
    let Counts { done, total, changed, failed } = counts;
    if dry_run {
        return format!("{done} of {total} hours compared, {changed} owners differ");
    }
    format!("{done} of {total} hours done, {changed} owners put right, {failed} failed")
}

fn work_on(
    chunk: Chunk,
    after: &(String, String),
    dry_run: bool,
    differing: &mut Option<(Hours, Vec<Owner>)>,
) -> Result<Outcome> {
    if !chunk.has_entries {
        return Ok(Outcome::default());
    }
    let is_new = after.0.is_empty();
    let owners = match differing.take() {
        Some((hours, owners)) if hours == chunk.hours && !is_new => owners,
        _ => spi::on_fresh_snapshot(|| owners_to_rebuild(chunk.hours))?,
    };
    let (_, owners) = differing.insert((chunk.hours, owners));
    let done =
        owners.partition_point(|owner| (owner.kind.as_str(), &owner.id) <= (&after.0, &after.1));
    rebuild_each(&owners[done..], chunk.hours, dry_run)
}

fn rebuild_each(owners: &[Owner], hours: Hours, dry_run: bool) -> Result<Outcome> {
    if dry_run {
        let changed = i64::try_from(owners.len()).unwrap_or(i64::MAX);
        return Ok(Outcome { changed, ..Outcome::default() });
    }
    let mut outcome = Outcome::default();
    let mut failed = Vec::new();
    for (place, owner) in owners.iter().enumerate() {
        let rebuilt = rebuild_or_report(owner, hours)?;
        match &rebuilt {
            Some(rebuilt) => outcome.changed += i64::from(rebuilt.figures > 0),
            None => failed.push(owner),
        }
        // With the lock of new dimensions in hand no further account is waited for: somebody who
        // holds that account may wait for the lock.
        let is_full = place + 1 == OWNERS_AT_ONCE || rebuilt.is_some_and(|r| r.added_dimensions);
        if is_full && place + 1 < owners.len() {
            outcome.stopped_after = Some(owner.clone());
            break;
        }
    }
    // The hours become covered all the same; of these owners they are read from the journals.
    for owner in failed {
        outcome.failed += 1;
        degraded::record(Some(owner), hours, FAILED)?;
    }
    Ok(outcome)
}

/// On the caller's snapshot, in order.
fn owners_to_rebuild(hours: Hours) -> Result<Vec<Owner>> {
    let days = hours.whole_days()?;
    let attached = sources::attached_charges(None, days.from, days.to)?;
    let mut arguments = values![hours.from, hours.to, days.from, days.to].to_vec();
    arguments.extend(sources::columns(&attached));
    OWNERS_TO_REBUILD.read(&arguments, |row| accounts::owner_of(row, 1))
}

/// A failing owner is reported and skipped: None.
fn rebuild_or_report(owner: &Owner, hours: Hours) -> Result<Option<Rebuilt>> {
    match spi::in_subtransaction(|| rebuild(owner, hours)) {
        Ok(rebuilt) => Ok(Some(rebuilt)),
        Err(failure) if failure.is_of_data() => {
            let (kind, reason) = (owner.kind.as_str(), failure.message());
            let from = hours.from;
            pgrx::warning!("{kind} {} was not rebuilt from {from} on: {reason}", owner.id);
            Ok(None)
        }
        Err(failure) => failure.raise(),
    }
}

/// One chunk of `backfill_rollups`; called by the procedure, which commits after it.
#[pg_extern(sql = false)]
fn backfill_next_hours(
    is_first: Option<bool>,
    from_hour: Option<Instant>,
    to_hour: Option<Instant>,
    dry_run: Option<bool>,
) -> Answer<Composite> {
    let required =
        |argument, value: Option<bool>| value.ok_or_else(|| BillingError::missing(argument));
    let is_first = required("is_first", is_first)?;
    let hours = Hours::parse(from_hour, to_hour)?;
    let dry_run = required("dry_run", dry_run)?;
    books::enter_for_writing("exa_billing.backfill_rollups()")?;
    let (is_finished, notice) = step(is_first, hours, dry_run)?;
    Ok(Composite::new(values![is_finished, notice.as_deref()]))
}
