//! The numbers of the books' relations by their names, remembered until PostgreSQL tells of a change of
//! one of them.

use super::session::server_and_database;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::ffi::CString;

struct Known {
    /// As of how many changes.
    changes: u64,
    relations: Vec<(String, pg_sys::Oid)>,
}

thread_local! {
    /// Counts the changes that PostgreSQL told of.
    static CHANGES: Cell<u64> = const { Cell::new(0) };
    static KNOWN: RefCell<Known> = const { RefCell::new(Known { changes: 0, relations: Vec::new() }) };
}

/// A charge needs some; partitions of many months come and go.
const MOST_KNOWN: usize = 50;

/// Asks PostgreSQL to tell of every change of a relation or schema.
pub fn init() {
    let nothing = pg_sys::Datum::null();
    let schemas = pg_sys::SysCacheIdentifier::NAMESPACEOID.cast_signed();
    // SAFETY: registered once per backend, when the library is loaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation_change), nothing);
        pg_sys::CacheRegisterSyscacheCallback(schemas, Some(on_schema_change), nothing);
    }
}

/// Called by PostgreSQL with the changed relation, or with 0 for all of them.
#[pg_guard]
unsafe extern "C-unwind" fn on_relation_change(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let is_known = relation == pg_sys::InvalidOid
        || KNOWN.with(|known| {
            known
                .try_borrow()
                .map_or(true, |known| known.relations.iter().any(|(_, oid)| *oid == relation))
        });
    if is_known {
        CHANGES.set(CHANGES.get().wrapping_add(1));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_schema_change(_argument: pg_sys::Datum, _cache: i32, _hash: u32) {
    CHANGES.set(CHANGES.get().wrapping_add(1));
}

/// How often one of the relations that were asked for may have changed: what was worked out of them
/// holds for as long as this stays the same.
pub(super) fn changes() -> u64 {
    CHANGES.get()
}

/// The number of a relation of the schema. No query: it is remembered, or found in the catalog cache.
pub(super) fn relation_oid(name: &str) -> Option<pg_sys::Oid> {
    let known = KNOWN.with_borrow_mut(|known| {
        if known.relations.len() > MOST_KNOWN {
            // Nobody would tell of changes of those that are forgotten here.
            CHANGES.set(CHANGES.get().wrapping_add(1));
        }
        if known.changes != CHANGES.get() {
            *known = Known { changes: CHANGES.get(), relations: Vec::new() };
        }
        known.relations.iter().find(|(known, _)| known == name).map(|(_, oid)| *oid)
    });
    if known.is_some() {
        return known;
    }
    let found = find(name)?;
    KNOWN.with_borrow_mut(|known| known.relations.push((name.to_owned(), found)));
    Some(found)
}

/// Whether schema exa_billing has this relation.
pub fn relation_exists(name: &str) -> bool {
    relation_oid(name).is_some()
}

/// A number for a table of the schema on this server. No copy of it has the same: one in another
/// database or made from a dump is another table, and one on another server has another server's.
pub fn place_of(table: &str) -> i64 {
    let (server, _) = server_and_database();
    let table = relation_oid(table).map_or(0, pg_sys::Oid::to_u32);
    // The server's number has the time of its making in front.
    server ^ i64::from(table)
}

fn find(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: both functions only read the catalog cache.
    let relation = unsafe {
        let schema = pg_sys::get_namespace_oid(c"exa_billing".as_ptr(), true);
        if schema == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::get_relname_relid(name.as_ptr(), schema)
    };
    (relation != pg_sys::InvalidOid).then_some(relation)
}
