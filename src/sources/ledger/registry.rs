//! `spend_sources`: which tables are attached, and how they are read.

use super::mapping::Mapping;
use crate::error::{BillingError, Kind, Result};
use crate::owner::Owner;
use crate::sources::Category;
use crate::spi::{self, Row, Statement, values};
use crate::time::Instant;
use pgrx::pg_sys::Oid;
use std::collections::HashMap;

/// What becomes of charges whose rows are deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDelete {
    /// They are no longer spend.
    Reverse,
    /// The ledger only keeps its rows for a while: closing rows of `spend_log` take their place.
    Keep,
}

impl OnDelete {
    pub fn as_str(self) -> &'static str {
        match self {
            OnDelete::Reverse => "reverse",
            OnDelete::Keep => "keep",
        }
    }

    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            Some("reverse") => Ok(OnDelete::Reverse),
            Some("keep") => Ok(OnDelete::Keep),
            None => Err(BillingError::missing("on_delete")),
            Some(_) => Err(BillingError::invalid("on_delete is not known")
                .hint("Give 'reverse' (a deleted row is no longer spend) or 'keep'.")),
        }
    }
}

/// An attached table.
pub struct Ledger {
    pub source_name: String,
    pub table: Table,
    pub category: Category,
    /// As it was given; an unknown one is counted as other.
    pub source: String,
    pub mapping: Mapping,
    pub on_delete: OnDelete,
    /// Rows dated earlier do not count.
    pub counts_from: Option<Instant>,
}

#[derive(Debug, Clone)]
pub struct Table {
    pub oid: Oid,
    pub owner: Oid,
    /// With its schema, quoted.
    pub name: String,
}

static ATTACHED: Statement =
    Statement::kept(include_str!("../../../sql/statements/attached_ledgers.sql"));

static IS_OURS: Statement =
    Statement::kept("SELECT pg_catalog.has_table_privilege('exa_billing.spend_sources', 'SELECT')");

/// A row of `spend_sources`; its table may be gone.
pub struct Entry {
    pub last_name: String,
    pub ledger: Option<Ledger>,
}

fn entry(row: &Row) -> Result<Entry> {
    let source_name: String = row.get(1)?;
    let last_name = row.get(10)?;
    let Some(oid) = row.maybe::<Oid>(2)? else {
        return Ok(Entry { last_name, ledger: None });
    };
    let map: String = row.get(7)?;
    let mut mapping: Mapping = serde_json::from_str(&map)
        .map_err(|_| BillingError::internal("spend_sources has a column_map of another version"))?;
    if let Some(names) = row.maybe::<String>(11)? {
        rename(&mut mapping, &names)?;
    }
    let ledger = Ledger {
        source_name,
        table: Table { oid, owner: row.get(3)?, name: row.get(4)? },
        category: Category::parse(row.maybe::<String>(5)?.as_deref())?,
        source: row.get(6)?,
        mapping,
        on_delete: OnDelete::parse(row.maybe::<String>(8)?.as_deref())?,
        counts_from: row.maybe(9)?,
    };
    Ok(Entry { last_name, ledger: Some(ledger) })
}

/// Gives the mapped columns the names they have now. Names are kept up with by an event trigger, so
/// they go first; the number finds a column that was renamed while that was switched off.
fn rename(mapping: &mut Mapping, names: &str) -> Result<()> {
    let names: HashMap<i16, String> = serde_json::from_str(names)
        .map_err(|_| BillingError::internal("unreadable column names"))?;
    mapping.each_column(|column| {
        let is_there = names.values().any(|name| *name == column.name);
        if let (false, Some(name)) = (is_there, names.get(&column.number)) {
            column.name.clone_from(name);
        }
    });
    Ok(())
}

/// Whether there is a registry that can be read. A database may be half restored, when the table
/// is not there yet or not ours yet, and its DDL goes on all the same.
pub fn exists() -> Result<bool> {
    if !spi::relation_exists("spend_sources") {
        return Ok(false);
    }
    Ok(IS_OURS.read_row(&[], |row| row.get(1))? == Some(true))
}

/// Every attached table, on the caller's snapshot.
pub fn entries() -> Result<Vec<Entry>> {
    let all: Option<&str> = None;
    ATTACHED.read(values![all], entry)
}

/// The attached tables as journals, for one owner or for all. One that is gone cannot be read, and
/// without it no figure that needs it would be right.
///
/// The registry is read as the books' own, so that nobody's missing right or policy leaves a journal
/// out in silence; and so whom the caller may not see is asked first.
pub fn ledgers(owner: Option<&Owner>) -> Result<Vec<Ledger>> {
    let entries = spi::as_books_role(entries)?;
    if entries.is_empty() || !may_see(owner)? {
        return Ok(Vec::new());
    }
    entries.into_iter().map(|entry| entry.ledger.ok_or_else(|| missing(&entry.last_name))).collect()
}

pub fn named(source_name: &str) -> Result<Option<Entry>> {
    ATTACHED.read_row(values![source_name], entry)
}

static SEES: Statement = Statement::over_queue(
    "SELECT NOT pg_catalog.row_security_active('exa_billing.spend_log'::regclass) OR EXISTS (
                SELECT FROM pg_catalog.pg_policy AS p, unnest(p.polroles) AS member(role)
                WHERE p.polrelid = 'exa_billing.spend_log'::regclass AND p.polname = 'staff'
                  AND p.polpermissive AND pg_catalog.pg_get_expr(p.polqual, p.polrelid) = 'true'
                  AND CASE WHEN member.role <> 0 THEN pg_catalog.pg_has_role(member.role, 'USAGE') END
                  AND NOT EXISTS (SELECT FROM pg_catalog.pg_policy AS other
                                  WHERE other.polrelid = p.polrelid AND NOT other.polpermissive
                                    AND EXISTS (SELECT FROM unnest(other.polroles) AS met(role)
                                                WHERE CASE WHEN met.role = 0 THEN true
                                                      ELSE pg_catalog.pg_has_role(met.role, 'USAGE') END))),
            EXISTS (SELECT FROM exa_billing.accounts WHERE owner_kind = $1 AND owner_id = $2)
            OR EXISTS (SELECT FROM exa_billing.unposted_spend WHERE owner_kind = $1 AND owner_id = $2)",
);

/// Attached tables are read with the rights of their owners; where policies restrict the caller,
/// an owner of whom they show nothing stays hidden there too. The policy `staff` restricts nobody.
fn may_see(owner: Option<&Owner>) -> Result<bool> {
    let kind = owner.map(|owner| owner.kind.as_str());
    let id = owner.map(|owner| owner.id.as_str());
    let seen = SEES.read_row(values![kind, id], |row| {
        Ok((row.get::<bool>(1)?, row.maybe::<bool>(2)?.unwrap_or_default()))
    })?;
    match (seen, owner) {
        (Some((true, _)), _) => Ok(true),
        (Some((false, is_visible)), Some(_)) => Ok(is_visible),
        _ => Err(BillingError::new(
            Kind::NoRight,
            "row security hides parts of the books from this role",
        )
        .hint("Ask for one owner, or as a role that no policy restricts.")),
    }
}

fn missing(table: &str) -> BillingError {
    BillingError::new(Kind::WrongState, format!("attached table {table} does not exist"))
        .hint("Restore it, or end it as a journal with exa_billing.detach_spend_source().")
}
