//! Looking after attached tables: names that changed, partitions that came, and what must not go.

use super::mapping::{ColumnType, TableColumn};
use super::registry::{self, Ledger, Table};
use super::table;
use super::triggers::{self, Detaching, TRIGGERS};
use crate::books;
use crate::error::{BillingError, Kind, Result};
use crate::spi::{self, Answer, Statement, values};
use pgrx::prelude::*;

static REFRESH: Statement = Statement::fresh(
    "UPDATE exa_billing.spend_sources AS s
     SET relation_schema = n.nspname, relation_name = c.relname, relation_oid = c.oid,
         partition_oids = $3, column_map = $4::jsonb
     FROM pg_catalog.pg_class AS c
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE s.source_name = $1 AND c.oid = $2
       AND (s.relation_schema, s.relation_name, s.relation_oid, s.partition_oids, s.column_map)
           IS DISTINCT FROM (n.nspname::text, c.relname::text, c.oid, $3, $4::jsonb)",
);
// As sql/verify/guards.sql looks at them.
static IS_GUARDED: Statement = Statement::fresh(
    "SELECT count(*) = 4 FROM pg_catalog.pg_trigger AS t
     JOIN pg_catalog.pg_proc AS f ON f.oid = t.tgfoid
     JOIN (VALUES ('exa_billing_capture_insert', 4, 'capture_spend'),
                  ('exa_billing_capture_update', 16, 'capture_spend'),
                  ('exa_billing_capture_delete', 8, 'capture_spend'),
                  ('exa_billing_refuse_truncate', 2 + 32, 'refuse_truncate')) AS w(name, kind, function)
         ON t.tgname = w.name AND t.tgtype = w.kind AND f.proname = w.function
     WHERE t.tgrelid = $1 AND t.tgenabled = 'A' AND t.tgqual IS NULL
       AND f.pronamespace = 'exa_billing'::regnamespace
       AND t.tgargs = convert_to($2, getdatabaseencoding()) || decode('00', 'hex')",
);
// Tables are told by their oids and by their names: in a restored database the registry has other
// oids. A trigger's table may be a partition, which only its oid tells of.
static DROPPED: Statement = Statement::kept(
    "SELECT d.object_identity
     FROM pg_catalog.pg_event_trigger_dropped_objects() AS d
     JOIN exa_billing.spend_sources AS s ON NOT s.is_own AND s.detached_at IS NULL
     WHERE d.object_type = 'trigger' AND d.address_names[3] = ANY ($1) AND (
             (s.relation_schema, s.relation_name) = (d.address_names[1], d.address_names[2])
             OR EXISTS (
                 SELECT FROM pg_catalog.pg_class AS c
                 JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
                 WHERE n.nspname = d.address_names[1]::name AND c.relname = d.address_names[2]::name
                   AND c.oid = ANY (s.partition_oids)))
        OR d.object_type IN ('table', 'foreign table') AND d.objid = ANY (s.partition_oids)
           AND EXISTS (SELECT FROM pg_catalog.pg_trigger AS t
                       WHERE t.tgrelid = s.relation_oid AND t.tgname = ANY ($1))
        OR d.object_type = 'table column'
           AND (d.objid = s.relation_oid
                OR (s.relation_schema, s.relation_name) = (d.address_names[1], d.address_names[2]))
           AND EXISTS (
               SELECT FROM jsonb_path_query(s.column_map, 'strict $.**.name') AS used
               WHERE used #>> '{}' = d.address_names[3])
     LIMIT 1",
);
// An attached table, a partition, a schema; a new partition, a new child, a new parent; in a
// restored database, where the registry has other oids, a table with our triggers.
static CHANGED: Statement = Statement::kept(
    "SELECT DISTINCT s.source_name
     FROM pg_catalog.pg_event_trigger_ddl_commands() AS d
     JOIN exa_billing.spend_sources AS s
         ON NOT s.is_own AND s.detached_at IS NULL
        AND (d.objid = s.relation_oid OR d.objid = ANY (s.partition_oids)
             OR d.object_type = 'schema'
             OR EXISTS (
                 SELECT FROM pg_catalog.pg_inherits AS i
                 WHERE i.inhrelid = d.objid
                   AND (i.inhparent = s.relation_oid OR i.inhparent = ANY (s.partition_oids))
                    OR i.inhrelid = s.relation_oid AND i.inhparent = d.objid)
             OR EXISTS (
                 SELECT FROM pg_catalog.pg_trigger AS t
                 WHERE t.tgrelid = d.objid AND t.tgname = ANY ($1)))",
);
// Partitions are those the registry knows and those of the same owner that bear our triggers: in a
// restored database it knows others. Triggers that somebody else made prove nothing.
static LEFT_TREE: Statement = Statement::fresh(
    "SELECT c.oid::regclass::text
     FROM exa_billing.spend_sources AS s
     JOIN pg_catalog.pg_class AS root ON root.oid = $2
     JOIN pg_catalog.pg_class AS c
         ON s.relation_oid = $2 AND c.oid = ANY (s.partition_oids)
         OR c.relowner = root.relowner AND c.oid IN (
             SELECT t.tgrelid FROM pg_catalog.pg_trigger AS t
             WHERE t.tgname = 'exa_billing_capture_insert'
               AND t.tgargs = convert_to(s.source_name, getdatabaseencoding()) || decode('00', 'hex'))
     WHERE s.source_name = $1 AND c.oid <> $2
       AND coalesce(pg_catalog.pg_partition_root(c.oid::regclass)::oid, c.oid) <> $2
     LIMIT 1",
);

// Without a schema any attached table of the name may be meant.
static ATTACHED_AS: Statement = Statement::kept(
    "SELECT c.oid::regclass::text
     FROM exa_billing.spend_sources AS s
     JOIN pg_catalog.pg_class AS c ON c.oid = s.relation_oid OR c.oid = ANY (s.partition_oids)
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE NOT s.is_own AND s.detached_at IS NULL AND c.relkind = 'p'
       AND c.relname = $2::name AND ($1 IS NULL OR n.nspname = $1::name)
     LIMIT 1",
);

/// Brings the registry up to what the catalog says and gives new partitions their triggers. A
/// table for which that fails is reported by a warning and keeps nobody else waiting.
///
/// Locks: where a trigger is missing, SHARE ROW EXCLUSIVE on that table, briefly.
pub fn tend() -> Result<()> {
    if !registry::exists()? {
        return Ok(());
    }
    let entries = spi::on_latest_snapshot(registry::entries)?;
    for entry in entries {
        let Some(ledger) = entry.ledger else {
            spi::warn(&format!("attached table {} does not exist", entry.last_name));
            continue;
        };
        match spi::in_subtransaction(|| tend_one(&ledger)) {
            Err(failure) if failure.is_interruption() => return failure.raise(),
            Err(failure) => {
                let name = &ledger.table.name;
                let reason = failure.message();
                spi::warn(&format!("attached table {name} could not be looked after: {reason}"));
            }
            Ok(()) => {}
        }
    }
    Ok(())
}

fn tend_one(ledger: &Ledger) -> Result<()> {
    let tree = table::tree(&ledger.table)?;
    for part in &tree {
        let arguments = values![part.oid, &ledger.source_name];
        let guarded = IS_GUARDED.write_row(arguments, |row| row.get::<bool>(1))?;
        if guarded != Some(true) {
            spi::as_table_owner(part.owner, || triggers::guard(part, &ledger.source_name))?;
        }
    }
    refresh(ledger, &tree)
}

/// In a restored database columns have other numbers; they are looked up by their names.
fn refresh(ledger: &Ledger, tree: &[Table]) -> Result<()> {
    let columns = table::columns(&ledger.table)?;
    require_readable(ledger, &columns)?;
    let mut mapping = ledger.mapping.clone();
    mapping.each_column(|column| {
        if let Some(found) = columns.iter().find(|found| found.name == column.name) {
            column.number = found.number;
        }
    });
    let map = serde_json::to_string(&mapping)
        .map_err(|error| BillingError::internal(error.to_string()))?;
    let oids: Vec<pg_sys::Oid> = tree.iter().map(|part| part.oid).collect();
    REFRESH.execute(values![&ledger.source_name, ledger.table.oid, oids, &map])
}

/// Refuses a change after which a mapped column can no longer be read as it was.
fn require_readable(ledger: &Ledger, columns: &[TableColumn]) -> Result<()> {
    for mapped in ledger.mapping.columns().values() {
        let found = columns.iter().find(|column| column.name == mapped.name);
        let has_type = |name: &str| ColumnType::named(name) == Some(mapped.kind);
        if !found.is_some_and(|column| has_type(&column.type_name)) {
            return Err(attached(&format!("column {} of {}", mapped.name, ledger.table.name)));
        }
    }
    Ok(())
}

const DETACH_FIRST: &str = "End it as a journal first, with exa_billing.detach_spend_source().";

fn attached(what: &str) -> BillingError {
    BillingError::new(Kind::WrongState, format!("{what} is part of an attached spend source"))
        .detail("Without it the charges it records could not be told any more.")
        .hint(DETACH_FIRST)
}

/// Refuses to drop what an attached table is read from.
#[pg_extern(sql = false)]
fn guard_dropped_objects() -> Answer<()> {
    if Detaching::is_on() || !registry::exists()? {
        return Ok(());
    }
    let names: Vec<&str> = TRIGGERS.to_vec();
    let dropped = DROPPED.write_row(values![names], |row| row.maybe::<String>(1))?;
    match dropped.flatten() {
        Some(object) => Err(attached(&object).into()),
        None => Ok(()),
    }
}

/// Follows renamed tables and columns and new partitions; refuses to take a partition out, to change
/// the type of a mapped column, and what would make the table one that cannot be attached.
#[pg_extern(sql = false)]
fn follow_altered_tables() -> Answer<()> {
    if !registry::exists()? {
        return Ok(());
    }
    let names: Vec<&str> = TRIGGERS.to_vec();
    let changed = CHANGED.write(values![names], |row| row.get::<String>(1))?;
    if changed.is_empty() {
        return Ok(());
    }
    // Looked at before the books are entered: a table that moves into their schema has to be told
    // from one that somebody else has put there.
    let mut kept = Vec::new();
    for source_name in changed {
        let entry = spi::on_latest_snapshot(|| registry::named(&source_name))?;
        if let Some(ledger) = entry.and_then(|entry| entry.ledger) {
            require_attachable(&ledger)?;
            kept.push(ledger);
        }
    }
    books::enter_for_writing("exa_billing.follow_altered_tables()")?;
    for ledger in kept {
        refresh(&ledger, &table::tree(&ledger.table)?)?;
    }
    Ok(())
}

fn require_attachable(ledger: &Ledger) -> Result<()> {
    let left = LEFT_TREE
        .write_row(values![&ledger.source_name, ledger.table.oid], |row| row.maybe::<String>(1))?;
    if let Some(partition) = left.flatten() {
        return Err(attached(&format!("partition {partition}")));
    }
    if let Some(obstacle) = table::obstacle(ledger.table.oid)? {
        let what = format!("table {} is an attached spend source", ledger.table.name);
        return Err(BillingError::new(Kind::WrongState, what)
            .detail(format!("It could not be one like this: {obstacle}."))
            .hint(DETACH_FIRST));
    }
    Ok(())
}

/// Refuses DETACH PARTITION … CONCURRENTLY before it begins: it commits half-way, and the rows would
/// be gone from the journal before anybody could refuse it.
#[pg_extern(sql = false)]
fn guard_concurrent_detach(call: pg_sys::FunctionCallInfo) -> Answer<()> {
    let Some((schema, name)) = spi::concurrent_detach(call) else { return Ok(()) };
    if !registry::exists()? {
        return Ok(());
    }
    let arguments = values![schema.as_deref(), &name];
    let table = ATTACHED_AS.write_row(arguments, |row| row.get::<String>(1))?;
    match table {
        Some(table) => Err(attached(&format!("table {table}")).into()),
        None => Ok(()),
    }
}
