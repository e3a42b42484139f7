//! The months the journals have.

use crate::error::Result;
use crate::spi::Statement;
use crate::time::{Instant, Month};

/// From the oldest partition to the newest: the names end in year and month.
static ENDS: Statement = Statement::fresh(
    "SELECT min(month), max(month) FROM (
         SELECT to_timestamp(right(p.relname, 7) || ' +00', 'YYYY_MM TZH') AS month
         FROM pg_catalog.pg_inherits AS i
         JOIN pg_catalog.pg_class AS p ON p.oid = i.inhrelid
         JOIN pg_catalog.pg_class AS c ON c.oid = i.inhparent
         WHERE c.relnamespace = 'exa_billing'::pg_catalog.regnamespace
           AND c.relname IN ('exa_usage_log', 'spend_log') AND p.relkind = 'r'
     ) AS months",
);

/// Every month a journal may have rows in, in order. History is read one month a statement: the
/// locks of a thousand partitions do not fit a default lock table.
pub fn months() -> Result<Vec<Month>> {
    let ends =
        ENDS.read_row(&[], |row| Ok((row.maybe::<Instant>(1)?, row.maybe::<Instant>(2)?)))?;
    match ends {
        Some((Some(first), Some(last))) => first.month()?.through(last.month()?),
        _ => Ok(Vec::new()),
    }
}
