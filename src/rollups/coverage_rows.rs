//! Reading which hours are covered.

use super::coverage::Coverage;
use super::hours::{Hours, merged};
use crate::error::Result;
use crate::owner::Owner;
use crate::sources;
use crate::spi::{Statement, values};
use crate::time::Instant;

static DEGRADED: Statement = Statement::kept(
    "SELECT from_hour, to_hour FROM exa_billing.spend_degraded_intervals
     WHERE resolved_at IS NULL AND from_hour < $4 AND to_hour > $3
       AND (owner_kind IS NULL OR (owner_kind = $1 AND owner_id = $2))
     ORDER BY from_hour, to_hour",
);

impl Coverage {
    /// For the hours that `[from, to)` touches, of one owner; without an owner only intervals
    /// that hold for all are looked at. On the caller's snapshot.
    pub fn read(owner: Option<&Owner>, from: Instant, to: Instant) -> Result<Self> {
        let kind = owner.map(|owner| owner.kind.as_str());
        let id = owner.map(|owner| owner.id.as_str());
        let degraded = DEGRADED.read(values![kind, id, from.hour_start(), to], |row| {
            Ok(Hours { from: row.get(1)?, to: row.get(2)? })
        })?;
        let known_from = sources::covered_from()?.unwrap_or(Instant(i64::MAX));
        Ok(Self { known_from, degraded: merged(degraded) })
    }
}
