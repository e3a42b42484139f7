//! `detach_spend_source`: the table is no longer a journal; what it said stays.

use super::attach::source_name;
use super::read::{ALWAYS, Reading, Rules};
use super::registry::{self, Entry, Ledger};
use super::table::{self, Lock};
use super::text::Whose;
use super::triggers::{self, Detaching};
use super::write;
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::owner::quoted;
use crate::spi::{self, Answer, Statement, values};
use crate::time::Instant;
use pgrx::prelude::*;

// What the rollups know of the table's hours they know of spend_log's from now on.
static END: Statement = Statement::fresh(
    "WITH ended AS (
         UPDATE exa_billing.spend_sources
         SET detached_at = $2, closed_before = greatest(closed_before, $3)
         WHERE source_name = $1 RETURNING covered_from
     )
     UPDATE exa_billing.spend_sources AS s SET covered_from = least(s.covered_from, ended.covered_from)
     FROM ended WHERE s.source_name = 'spend'",
);

/// Locks, in this order: the table, ACCESS EXCLUSIVE (dropping its triggers takes that; taken in two
/// steps, a transaction that reads the table and then writes to it would get into a deadlock); the
/// partition lock, where a month has no partition; then the rows of the registry. With the caller's
/// rights, but for what is written to the books.
fn detach(source_name: &str) -> Result<i64> {
    spi::as_books_role(|| books::enter_for_writing("exa_billing.detach_spend_source()"))?;
    let entry = attached(source_name)?;
    let Some(found) = entry.ledger else {
        pgrx::warning!(
            "table {} does not exist; what it said is lost to recomputing",
            entry.last_name
        );
        spi::as_books_role(|| end(source_name, spi::clock()))?;
        return Ok(0);
    };
    table::require_owner(found.table.oid)?;
    table::lock(&found.table, Lock::AccessExclusive)?;
    // Its name and columns may have changed before the lock was had, or somebody else detached it.
    let Some(ledger) = attached(source_name)?.ledger else { return Err(unknown(source_name)) };
    let (rows, last_at) = close_all(&ledger)?;
    let detaching = Detaching::begin();
    // A partition of somebody else's is not left behind with triggers that refuse every row.
    let mut parts = table::tree(&ledger.table)?;
    parts.extend(triggers::guarded(&ledger.source_name)?);
    parts.sort_by(|one, other| one.name.cmp(&other.name));
    parts.dedup_by_key(|part| part.oid);
    for part in &parts {
        triggers::unguard(part)?;
    }
    drop(detaching);
    table::grant(&ledger.table, &ledger.mapping, false)?;
    let now = spi::clock();
    spi::as_books_role(|| {
        end(source_name, last_at.map_or(now, |last| last.plus_microseconds(1).max(now)))
    })?;
    Ok(rows)
}

fn attached(source_name: &str) -> Result<Entry> {
    spi::as_books_role(|| spi::on_fresh_snapshot(|| registry::named(source_name)))?
        .ok_or_else(|| unknown(source_name))
}

fn unknown(source_name: &str) -> BillingError {
    let what = format!("no spend source {} is attached", quoted(source_name));
    BillingError::new(Kind::Unknown, what)
}

fn end(source_name: &str, closed_before: Instant) -> Result<()> {
    END.execute(values![source_name, spi::clock(), closed_before])
}

/// Writes closing rows for everything that counts. What could never be kept in books is no charge.
fn close_all(ledger: &Ledger) -> Result<(i64, Option<Instant>)> {
    let (mut rows, mut last_at) = (0, None);
    spi::on_fresh_snapshot(|| {
        let cuts = spi::as_books_role(|| write::cuts(ALWAYS))?;
        let reading = Reading::new(ledger, Whose::Everybodys);
        reading.in_batches(Some(cuts), ALWAYS, Rules::OfReaders, |groups| {
            last_at = groups.iter().map(|group| group.last_at).chain(last_at).max();
            rows += spi::as_books_role(|| write::close(ledger, groups))?;
            Ok(())
        })
    })?;
    Ok((rows, last_at))
}

/// Ends a table as a journal; returns how many rows of `spend_log` take the place of its rows.
#[pg_extern(sql = false)]
fn detach_spend_source(source_name: Option<&str>) -> Answer<i64> {
    let source_name = self::source_name(source_name)?;
    spi::require_writable("exa_billing.detach_spend_source()");
    spi::require_read_committed("exa_billing.detach_spend_source()")?;
    Ok(detach(source_name)?)
}
