//! The months the journals have.

use super::plan::JOURNALS;
use crate::error::Result;
use crate::spi::{self, Statement, values};
use crate::time::{Instant, Month};
use std::collections::BTreeSet;

/// The lower bounds of the partitions; to be run where times are written so that they are read
/// back as the same ones. No backslash: without standard_conforming_strings it would vanish.
static STARTS: Statement = Statement::fresh(
    "SELECT DISTINCT (regexp_match(pg_catalog.pg_get_expr(p.relpartbound, p.oid),
                                   'FROM [(]''([^'']+)''[)]'))[1]::timestamptz AS start
     FROM pg_catalog.pg_inherits AS i
     JOIN pg_catalog.pg_class AS p ON p.oid = i.inhrelid
     JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
     WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
       AND c.relname IN ('exa_usage_log', 'spend_log')
     ORDER BY start",
);

/// Every month a journal has a partition for, in order. History is read one month a statement:
/// a plan over a thousand partitions would take as many locks at once.
pub fn months() -> Result<Vec<Month>> {
    let starts = spi::with_iso_dates(|| STARTS.read(&[], |row| row.maybe::<Instant>(1)))?;
    starts.into_iter().flatten().map(Instant::month).collect()
}

static STARTS_OF_ONE: Statement = Statement::fresh(
    "SELECT (regexp_match(pg_catalog.pg_get_expr(p.relpartbound, p.oid),
                          'FROM [(]''([^'']+)''[)]'))[1]::timestamptz
     FROM pg_catalog.pg_inherits AS i
     JOIN pg_catalog.pg_class AS p ON p.oid = i.inhrelid
     JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
     WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace AND c.relname = $1",
);

/// The months of each journal.
pub fn months_of_journals() -> Result<Vec<(&'static str, BTreeSet<Month>)>> {
    let months = |table: &'static str| {
        let starts = spi::with_iso_dates(|| {
            STARTS_OF_ONE.read(values![table], |row| row.maybe::<Instant>(1))
        })?;
        let months: Result<_> = starts.into_iter().flatten().map(Instant::month).collect();
        Ok((table, months?))
    };
    JOURNALS.into_iter().map(|journal| months(journal.table())).collect()
}
