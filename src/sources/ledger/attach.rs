//! `attach_spend_source`: makes a table of the application a journal.

use super::column_map;
use super::read::{self, ALWAYS, Reading, Rules};
use super::registry::{self, Ledger, OnDelete, Table};
use super::table::{self, Candidate, Lock};
use super::triggers;
use super::write;
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::owner::{self, quoted};
use crate::sources::{self, Category, EXA, SPEND};
use crate::spi::{self, Answer, Json, Statement, values};
use crate::time::Instant;
use pgrx::prelude::*;

// A table is known by every table that was part of it: it may have become a partition meanwhile, or
// its partition a table of its own.
static KNOWN: Statement = Statement::fresh(
    "SELECT source_name, detached_at IS NULL, closed_before, is_same
     FROM exa_billing.spend_sources AS s
     CROSS JOIN LATERAL (
         SELECT coalesce(s.relation_oid = ANY ($2) OR s.partition_oids && $2, false)
                OR (s.relation_schema = $3 AND s.relation_name = $4) AS is_same
     ) AS compared
     WHERE NOT is_own AND (source_name = $1 OR is_same)
     ORDER BY detached_at IS NULL DESC, source_name",
);
static REGISTER: Statement = Statement::fresh(
    "INSERT INTO exa_billing.spend_sources
         (source_name, is_own, relation_schema, relation_name, relation_oid, partition_oids,
          spend_category, source, column_map, on_delete, counts_from, covered_from, attached_at)
     VALUES ($1, false, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12)
     ON CONFLICT (source_name) DO UPDATE
     SET relation_schema = excluded.relation_schema, relation_name = excluded.relation_name,
         relation_oid = excluded.relation_oid, partition_oids = excluded.partition_oids,
         spend_category = excluded.spend_category, source = excluded.source,
         column_map = excluded.column_map, on_delete = excluded.on_delete,
         counts_from = excluded.counts_from, covered_from = excluded.covered_from,
         attached_at = excluded.attached_at, detached_at = NULL
     WHERE spend_sources.detached_at IS NOT NULL
     RETURNING true",
);
static COVERED_FROM: Statement = Statement::fresh(
    "UPDATE exa_billing.spend_sources SET covered_from = least(covered_from, $2)
     WHERE source_name = $1",
);

static TEXT: Statement = Statement::kept("SELECT $1::text");

/// What is asked for.
struct Wanted<'a> {
    source_name: &'a str,
    category: Category,
    source: &'a str,
    backfill: bool,
    on_delete: OnDelete,
}

/// A source's name: that of a journal, so not one of the product's own.
pub fn source_name(value: Option<&str>) -> Result<&str> {
    let name =
        owner::label("source_name", value.ok_or_else(|| BillingError::missing("source_name"))?)?;
    if [EXA, SPEND].contains(&name) {
        return Err(BillingError::invalid("source_name is one of the product's own journals")
            .detail(format!("source_name is {}.", quoted(name))));
    }
    Ok(name)
}

/// Rows dated before this instant stand in spend_log already, from when the table was attached
/// before. An error when table or name are attached now.
fn closed_before(
    wanted: &Wanted,
    candidate: &Candidate,
    tree: &[Table],
) -> Result<Option<Instant>> {
    let oids: Vec<pg_sys::Oid> = tree.iter().map(|part| part.oid).collect();
    let (schema, name) = (&candidate.schema, &candidate.name);
    let known = KNOWN.write(values![wanted.source_name, oids, schema, name], |row| {
        let closed_before = row.maybe::<Instant>(3)?;
        Ok((row.get::<String>(1)?, row.get::<bool>(2)?, closed_before, row.get::<bool>(4)?))
    })?;
    if let Some((attached, ..)) = known.iter().find(|(_, is_attached, ..)| *is_attached) {
        return Err(attached_already(attached, wanted.source_name, candidate));
    }
    if known.iter().any(|(.., is_same_table)| !is_same_table) {
        let name = quoted(wanted.source_name);
        return Err(BillingError::new(
            Kind::WrongState,
            format!("spend source {name} was another table"),
        )
        .detail("What was recorded under that name stays with that table.")
        .hint("Choose another source_name."));
    }
    Ok(known.into_iter().filter_map(|(_, _, closed_before, _)| closed_before).max())
}

fn attached_already(attached: &str, wanted: &str, candidate: &Candidate) -> BillingError {
    let what = if attached == wanted {
        format!("spend source {} is attached already", quoted(attached))
    } else {
        format!("table {} is attached already", candidate.table.name)
    };
    BillingError::new(Kind::WrongState, what)
        .detail(format!("It is the spend source {}.", quoted(attached)))
        .hint("Detach it first, with exa_billing.detach_spend_source().")
}

/// Locks, in this order: the table, SHARE ROW EXCLUSIVE (nobody writes to it until the transaction
/// ends); then the row of the registry. With the caller's rights, but for what is written to the
/// books.
fn attach(wanted: &Wanted, oid: pg_sys::Oid, map: &serde_json::Value) -> Result<i64> {
    let candidate = table::candidate(oid)?;
    let table = &candidate.table;
    table::lock(table, Lock::ShareRowExclusive)?;
    let mapping = column_map::parse(map, &table::columns(table)?)?;
    spi::as_books_role(|| books::enter_for_writing("exa_billing.attach_spend_source()"))?;
    let tree = table::tree(table)?;
    table::require_rights_of_owner(table)?;
    let closed = spi::as_books_role(|| closed_before(wanted, &candidate, &tree))?;
    let now = spi::clock();
    let counts_from = if wanted.backfill { closed } else { Some(closed.unwrap_or(now).max(now)) };
    if let Some(closed) = closed.filter(|closed| *closed > now) {
        // What is charged until then could not be told from what was taken over.
        return Err(BillingError::new(
            Kind::WrongState,
            format!("table {} had rows of the future when it was detached", table.name),
        )
        .detail(format!("Rows dated before {closed} were taken over; the clock says {now}."))
        .hint("Attach it after that time, or attach another table for new rows."));
    }
    if let (true, Some(closed)) = (wanted.backfill, closed) {
        pgrx::notice!(
            "rows dated before {closed} do not count: what counted of them was taken over when \
             the table was detached"
        );
    }
    for part in &tree {
        triggers::guard(part, wanted.source_name)?;
    }
    table::grant(table, &mapping, true)?;
    let is_registered = spi::as_books_role(|| {
        let map = serde_json::to_string(&mapping)
            .map_err(|error| BillingError::internal(error.to_string()))?;
        let arguments = values![
            wanted.source_name,
            &candidate.schema,
            &candidate.name,
            table.oid,
            tree.iter().map(|part| part.oid).collect::<Vec<_>>(),
            wanted.category.as_str(),
            wanted.source,
            &map,
            wanted.on_delete.as_str(),
            counts_from,
            counts_from.unwrap_or(now).hour_start(),
            now
        ];
        REGISTER.write_row(arguments, |row| row.get::<bool>(1))
    })?;
    if is_registered.is_none() {
        // Somebody gave that name to another table meanwhile.
        return Err(attached_already(wanted.source_name, wanted.source_name, &candidate));
    }
    // Without backfill too: rows that are there and dated ahead of the clock count.
    let rows = backfill(wanted.source_name)?;
    table::warn_of_missing_indexes(table, &mapping)?;
    Ok(rows)
}

/// Captures the rows that are there and count; returns how many.
fn backfill(source_name: &str) -> Result<i64> {
    let (mut rows, mut first_hour) = (0, None);
    let ledger = registered(source_name)?;
    spi::on_fresh_snapshot(|| {
        let reading = Reading::unchecked(&ledger);
        reading.in_batches(None, ALWAYS, Rules::OfWriters, |groups| {
            let charges = read::merged_charges(groups)?;
            rows += charges.iter().map(|charge| charge.records).sum::<i64>();
            let first = charges.iter().map(|charge| charge.hour_start).min();
            first_hour = first_hour.into_iter().chain(first).min();
            spi::as_books_role(|| write::queue(source_name, &charges))
        })
    })?;
    if let Some(first_hour) = first_hour {
        spi::as_books_role(|| COVERED_FROM.execute(values![source_name, first_hour]))?;
    }
    Ok(rows)
}

fn registered(source_name: &str) -> Result<Ledger> {
    let entry = spi::as_books_role(|| spi::on_fresh_snapshot(|| registry::named(source_name)))?;
    entry
        .and_then(|entry| entry.ledger)
        .ok_or_else(|| BillingError::internal("a spend source vanished while it was attached"))
}

fn parsed(column_map: Json) -> Result<serde_json::Value> {
    let text = TEXT.read_row(values![column_map], |row| row.get::<String>(1))?.unwrap_or_default();
    serde_json::from_str(&text).map_err(|error| {
        BillingError::invalid("column_map cannot be read").detail(format!("Parsing it: {error}."))
    })
}

/// Makes a table a journal of spend; returns how many of its rows were captured at once.
#[pg_extern(sql = false)]
fn attach_spend_source(
    source_name: Option<&str>,
    relation: Option<pg_sys::Oid>,
    spend_category: Option<&str>,
    source: Option<&str>,
    column_map: Option<Json>,
    backfill: Option<bool>,
    on_delete: Option<&str>,
) -> Answer<i64> {
    let wanted = Wanted {
        source_name: self::source_name(source_name)?,
        category: Category::parse(spend_category)?,
        source: sources::recorded_source(source)?,
        backfill: backfill.ok_or_else(|| BillingError::missing("backfill"))?,
        on_delete: OnDelete::parse(on_delete)?,
    };
    let relation = relation.ok_or_else(|| BillingError::missing("relation"))?;
    let map = parsed(column_map.ok_or_else(|| BillingError::missing("column_map"))?)?;
    spi::require_writable("exa_billing.attach_spend_source()");
    spi::require_read_committed("exa_billing.attach_spend_source()")?;
    Ok(attach(&wanted, relation, &map)?)
}
