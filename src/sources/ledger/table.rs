//! The application's table: what the catalog says of it, and who may do what with it.

use super::mapping::{Mapping, TableColumn};
use super::registry::Table;
use super::text::quoted_name;
use crate::error::{BillingError, Kind, Result};
use crate::spi::{self, Statement, values};
use pgrx::pg_sys::Oid;

static DESCRIBE: Statement = Statement::fresh(
    "SELECT c.relname::text, n.nspname::text, c.relowner,
            pg_catalog.pg_has_role(c.relowner, 'USAGE'),
            CASE WHEN c.relkind NOT IN ('r', 'p') THEN 'it is no ordinary or partitioned table'
                 WHEN n.nspname = 'exa_billing' THEN 'it belongs to the books themselves'
                 WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')
                     THEN 'it belongs to the system'
                 WHEN c.relpersistence = 't' THEN 'it is temporary'
                 WHEN c.relpersistence = 'u' THEN 'it is unlogged: a crash would empty it'
                 WHEN c.relispartition THEN 'it is a partition: attach the partitioned table'
                 WHEN c.relforcerowsecurity THEN 'its owner is subject to row security'
                 WHEN c.relkind = 'r' AND EXISTS (
                     SELECT FROM pg_catalog.pg_inherits WHERE c.oid IN (inhrelid, inhparent))
                     THEN 'it takes part in inheritance'
                 WHEN EXISTS (
                     SELECT FROM pg_catalog.pg_partition_tree(c.oid::regclass) AS p
                     JOIN pg_catalog.pg_class AS f ON f.oid = p.relid WHERE f.relkind = 'f')
                     THEN 'it has foreign partitions' END
     FROM pg_catalog.pg_class AS c
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = $1",
);
static COLUMNS: Statement = Statement::fresh(
    "SELECT a.attname::text, a.attnum::int,
            CASE WHEN a.attgenerated = 'v' THEN 'that of a virtual column'
                 WHEN t.typnamespace = 'pg_catalog'::regnamespace THEN t.typname::text
                 ELSE pg_catalog.format_type(t.oid, NULL) END
     FROM pg_catalog.pg_attribute AS a
     JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attnum",
);
static PARTITIONS: Statement = Statement::fresh(
    "SELECT c.oid, c.relowner, pg_catalog.format('%I.%I', n.nspname, c.relname)
     FROM (
         SELECT $1 AS oid UNION SELECT relid::oid FROM pg_catalog.pg_partition_tree($1::regclass)
     ) AS tree
     JOIN pg_catalog.pg_class AS c ON c.oid = tree.oid
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     ORDER BY 3",
);
// Figures are read, and later partitions get their triggers, with the rights of the owner.
static RIGHTS_OF_OWNER: Statement = Statement::fresh(
    "SELECT pg_catalog.pg_get_userbyid(c.relowner)::text,
            CASE WHEN NOT pg_catalog.has_schema_privilege(c.relowner, c.relnamespace, 'USAGE')
                     THEN pg_catalog.format('USAGE ON SCHEMA %I', n.nspname)
                 WHEN NOT pg_catalog.has_schema_privilege(c.relowner, 'exa_billing', 'USAGE')
                     THEN 'USAGE ON SCHEMA exa_billing'
                 ELSE (SELECT 'EXECUTE ON FUNCTION ' || f.oid::regprocedure
                       FROM pg_catalog.pg_proc AS f
                       WHERE f.pronamespace = 'exa_billing'::regnamespace
                         AND f.proname IN ('capture_spend', 'refuse_truncate')
                         AND NOT pg_catalog.has_function_privilege(c.relowner, f.oid, 'EXECUTE')
                       ORDER BY f.proname LIMIT 1) END
     FROM pg_catalog.pg_class AS c
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid = $1",
);
static INDEXED: Statement = Statement::fresh(
    "SELECT EXISTS (
         SELECT FROM pg_catalog.pg_index AS i
         WHERE i.indrelid = $1 AND i.indisvalid AND i.indkey[0] = $2 AND i.indkey[1] = $3)",
);

/// A table somebody wants to attach.
pub struct Candidate {
    pub table: Table,
    pub schema: String,
    pub name: String,
}

/// The table, whether the caller owns it, and what keeps it from being a spend source.
fn describe(oid: Oid) -> Result<(Candidate, bool, Option<String>)> {
    let found = DESCRIBE.write_row(values![oid], |row| {
        let (name, schema) = (row.get::<String>(1)?, row.get::<String>(2)?);
        let quoted = format!("{}.{}", quoted_name(&schema), quoted_name(&name));
        let table = Table { oid, owner: row.get(3)?, name: quoted };
        let candidate = Candidate { table, schema, name };
        Ok((candidate, row.get::<bool>(4)?, row.maybe::<String>(5)?))
    })?;
    found.ok_or_else(|| BillingError::invalid("relation does not exist"))
}

/// The table, if the caller may attach it; with the caller's rights.
pub fn candidate(oid: Oid) -> Result<Candidate> {
    let (candidate, is_owned, obstacle) = describe(oid)?;
    let name = &candidate.table.name;
    if let Some(obstacle) = obstacle {
        return Err(BillingError::invalid(format!("relation {name} cannot be attached"))
            .detail(format!("Because {obstacle}."))
            .hint("Attach a permanent ordinary or partitioned table of the application."));
    }
    require_owned(&candidate, is_owned)?;
    Ok(candidate)
}

/// Whatever has become of the table: its owner may detach it.
pub fn require_owner(oid: Oid) -> Result<()> {
    let (candidate, is_owned, _) = describe(oid)?;
    require_owned(&candidate, is_owned)
}

fn require_owned(candidate: &Candidate, is_owned: bool) -> Result<()> {
    if is_owned {
        return Ok(());
    }
    let name = &candidate.table.name;
    Err(BillingError::new(Kind::NoRight, format!("must be owner of table {name}")))
}

/// What keeps a table from being a spend source, if anything does.
pub fn obstacle(oid: Oid) -> Result<Option<String>> {
    describe(oid).map(|(_, _, obstacle)| obstacle)
}

/// How a table is locked until the transaction ends; waits for those who use it otherwise.
#[derive(Clone, Copy)]
pub enum Lock {
    /// Nobody writes to it.
    ShareRowExclusive,
    /// Nobody reads it either.
    AccessExclusive,
}

pub fn lock(table: &Table, lock: Lock) -> Result<()> {
    let mode = match lock {
        Lock::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
        Lock::AccessExclusive => "ACCESS EXCLUSIVE",
    };
    spi::run_script(&format!("LOCK TABLE {} IN {mode} MODE", table.name))
}

pub fn columns(table: &Table) -> Result<Vec<TableColumn>> {
    COLUMNS.write(values![table.oid], |row| {
        let number = i16::try_from(row.get::<i32>(2)?).unwrap_or_default();
        Ok(TableColumn { name: row.get(1)?, number, type_name: row.get(3)? })
    })
}

/// The table itself and all its partitions, of every level.
pub fn tree(table: &Table) -> Result<Vec<Table>> {
    PARTITIONS.write(values![table.oid], |row| {
        Ok(Table { oid: row.get(1)?, owner: row.get(2)?, name: row.get(3)? })
    })
}

/// Refuses a table whose owner cannot read it, or cannot give later partitions their triggers.
pub fn require_rights_of_owner(table: &Table) -> Result<()> {
    let missing = RIGHTS_OF_OWNER.write_row(values![table.oid], |row| {
        Ok((row.get::<String>(1)?, row.maybe::<String>(2)?))
    })?;
    let Some((owner, Some(right))) = missing else { return Ok(()) };
    let name = &table.name;
    let message = format!("the owner of table {name} lacks a right that attaching it needs");
    Err(BillingError::new(Kind::NoRight, message)
        .hint(format!("GRANT {right} TO {};", quoted_name(&owner))))
}

/// Lets exa_billing_owner read what is mapped, and nothing else; or no longer.
pub fn grant(table: &Table, mapping: &Mapping, is_granted: bool) -> Result<()> {
    let names: Vec<String> =
        mapping.columns().values().map(|column| quoted_name(&column.name)).collect();
    let (verb, preposition) = if is_granted { ("GRANT", "TO") } else { ("REVOKE", "FROM") };
    spi::run_script(&format!(
        "{verb} SELECT ({}) ON {} {preposition} exa_billing_owner",
        names.join(", "),
        table.name
    ))
}

/// Warns when reading the charges of one owner would go through the whole table.
pub fn warn_of_missing_indexes(table: &Table, mapping: &Mapping) -> Result<()> {
    use super::mapping::Part;
    for part in [&mapping.user_id, &mapping.organization_id] {
        let Part::Columns(columns) = part else { continue };
        let [column] = columns.as_slice() else { continue };
        let numbers = [i32::from(column.number), i32::from(mapping.created_at.number)];
        let found = INDEXED
            .write_row(values![table.oid, numbers[0], numbers[1]], |row| row.get::<bool>(1))?;
        if found == Some(false) {
            pgrx::warning!(
                "without an index, figures of one owner read all of {0}; CREATE INDEX ON {0} ({1}, {2});",
                table.name,
                quoted_name(&column.name),
                quoted_name(&mapping.created_at.name)
            );
        }
    }
    Ok(())
}
