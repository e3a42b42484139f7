//! Which hours the rollups can be trusted with.

use super::hours::{Hours, merged};
use crate::error::Result;
use crate::owner::Owner;
use crate::sources;
use crate::spi::{Statement, values};
use crate::time::Instant;

/// What is known of the hours of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The hour from which some journal is known. An hour without rows is zero from there on and
    /// unknown before.
    pub known_from: Instant,
    /// Hours that are not trusted, in order; they neither overlap nor touch.
    pub degraded: Vec<Hours>,
}

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

    /// Whether the rollups hold everything of this hour.
    pub fn covers(&self, hour_start: Instant) -> bool {
        let degraded = self.degraded.iter().any(|hours| hours.contains(hour_start));
        self.is_known(hour_start) && !degraded
    }

    /// Whether an hour without rows is known to be zero.
    pub fn is_known(&self, hour_start: Instant) -> bool {
        self.known_from <= hour_start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(from: i64, to: i64) -> Hours {
        Hours { from: Instant(from), to: Instant(to) }
    }

    #[test]
    fn a_degraded_hour_is_known_but_not_covered() {
        let coverage = Coverage { known_from: Instant(2), degraded: vec![hours(3, 5)] };
        let of = |hour| (coverage.is_known(Instant(hour)), coverage.covers(Instant(hour)));
        assert_eq!(
            [of(1), of(2), of(4), of(5)],
            [(false, false), (true, true), (true, false), (true, true)]
        );
    }
}
