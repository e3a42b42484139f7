//! Refuses books that somebody else has had a hand in.
//!
//! Writing functions run with the rights of exa_billing_owner. A trigger, default or rule on a
//! table of the books would run with these rights too, so there may be none that setup() did not
//! make. Looking at the catalog in each charge would be slow; instead the answer is remembered
//! until PostgreSQL tells this backend that a relation of the books has changed.

use crate::error::{BillingError, Kind, Result};
use crate::spi::{self, Statement, values};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};

thread_local! {
    /// Counts the changes PostgreSQL told of, and how many of them the last good look has seen.
    static CHANGES: Cell<u64> = const { Cell::new(1) };
    static CHANGES_SEEN: Cell<u64> = const { Cell::new(0) };
    /// The relations looked at; some dozens.
    static LOOKED_AT: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
}

/// Every table of the books, with what is wrong with it. Triggers of ours bear one of five
/// names and call, unconditionally, a C function of the schema, which only a superuser can have put
/// there: a condition would be code of somebody else as well.
static LOOK: Statement = Statement::kept(
    "SELECT c.oid,
            CASE WHEN c.relowner <> owner.oid
                     THEN pg_catalog.format('table %I belongs to another role', c.relname)
                 WHEN EXISTS (
                     SELECT FROM pg_catalog.pg_trigger AS t
                     JOIN pg_catalog.pg_proc AS p ON p.oid = t.tgfoid
                     JOIN pg_catalog.pg_language AS l ON l.oid = p.prolang
                     WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
                       AND NOT (p.pronamespace = c.relnamespace AND l.lanname = 'c'
                                AND t.tgqual IS NULL
                                AND t.tgname IN ('append_only', 'by_functions_only', 'by_erasure_only',
                                                 'locked_in', 'no_truncate')))
                     THEN pg_catalog.format('table %I has a trigger of somebody else', c.relname)
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_rewrite AS r WHERE r.ev_class = c.oid)
                     THEN pg_catalog.format('table %I has a rule', c.relname)
                 WHEN EXISTS (SELECT FROM pg_catalog.pg_attrdef AS d WHERE d.adrelid = c.oid)
                     THEN pg_catalog.format('table %I has a column default', c.relname)
                 WHEN c.relforcerowsecurity -- would hide the books from their own functions
                     THEN pg_catalog.format('table %I forces row security on its owner', c.relname)
            END
     FROM pg_catalog.pg_class AS c
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     JOIN pg_catalog.pg_roles AS owner ON owner.rolname = $1
     WHERE n.nspname = 'exa_billing' AND c.relkind IN ('r', 'p', 'f')
     ORDER BY c.oid",
);

/// Asks PostgreSQL to tell of every change of a relation.
pub fn init() {
    // SAFETY: registered once per backend, when the library is loaded.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(on_relation_change), pg_sys::Datum::null())
    };
}

pub fn require_untampered() -> Result<()> {
    // What others have committed meanwhile must be known before the count is looked at.
    spi::see_what_others_committed();
    // Read before the look: a change that arrives during it makes the next call look again.
    let changes = CHANGES.get();
    if CHANGES_SEEN.get() == changes {
        return Ok(());
    }
    let tables = spi::on_latest_snapshot(|| {
        LOOK.read(values!["exa_billing_owner"], |row| {
            Ok((row.get::<pg_sys::Oid>(1)?, row.maybe::<String>(2)?))
        })
    })?;
    let problem = tables.iter().find_map(|(_, problem)| problem.clone());
    LOOKED_AT.replace(tables.into_iter().map(|(oid, _)| oid).collect());
    if let Some(problem) = problem {
        return Err(BillingError::new(
            Kind::NoRight,
            "the exa_billing books have been tampered with",
        )
        .detail(format!("{problem}."))
        .hint("Remove what does not belong to exa_billing; nothing is recorded until then."));
    }
    CHANGES_SEEN.set(changes);
    Ok(())
}

/// Called by PostgreSQL with the changed relation, or with 0 for all of them.
#[pg_guard]
unsafe extern "C-unwind" fn on_relation_change(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let of_books = relation == pg_sys::InvalidOid
        || LOOKED_AT.with(|oids| {
            oids.try_borrow().map_or(true, |oids| oids.is_empty() || oids.contains(&relation))
        });
    if of_books {
        CHANGES.set(CHANGES.get().wrapping_add(1));
    }
}
