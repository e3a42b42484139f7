//! Which partitions there must be, and what they are called.

use crate::error::{BillingError, Result};
use crate::time::{Instant, MICROSECONDS_PER_SECOND, Month};

/// The product's own journals; each is partitioned by UTC month of `created_at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Journal {
    ExaUsageLog,
    SpendLog,
}

pub const JOURNALS: [Journal; 2] = [Journal::ExaUsageLog, Journal::SpendLog];

/// More months than this in one go would take more locks than a default lock table holds.
const MAX_MONTHS_AHEAD: i32 = 120;

impl Journal {
    pub fn table(self) -> &'static str {
        match self {
            Journal::ExaUsageLog => "exa_usage_log",
            Journal::SpendLog => "spend_log",
        }
    }

    pub fn partition(self, month: Month) -> String {
        format!("{}_{}", self.table(), month.suffix())
    }
}

/// Every month from the one late usage may still reach to `months_ahead` after the current one.
pub fn months_to_keep_ready(
    now: Instant,
    late_limit_seconds: i64,
    months_ahead: Option<i32>,
) -> Result<Vec<Month>> {
    let months_ahead = months_ahead.ok_or_else(|| BillingError::missing("months_ahead"))?;
    if !(0..=MAX_MONTHS_AHEAD).contains(&months_ahead) {
        return Err(BillingError::invalid("months_ahead is out of range").detail(format!(
            "months_ahead is {months_ahead}; 0 … {MAX_MONTHS_AHEAD} are allowed."
        )));
    }
    // Settings of years would reach back to months nobody has data for; those few requests that
    // need them get them on demand.
    const MAX_SECONDS_BACK: i64 = 400 * 86_400;
    let back = late_limit_seconds.min(MAX_SECONDS_BACK) * MICROSECONDS_PER_SECOND;
    let first = now.plus_microseconds(-back).month()?;
    first.through(now.month()?.plus(months_ahead.unsigned_abs())?)
}

/// The DDL that makes one partition. It is attached only when it is complete, so that a row can
/// never get into a partition that lacks its guards.
pub fn ddl(journal: Journal, month: Month) -> Result<String> {
    let (parent, partition) = (journal.table(), journal.partition(month));
    let (from, to) = (month.start(), month.next()?.start());
    let guard = guard_ddl(&format!("\"{partition}\""));
    Ok(format!(
        r#"CREATE TABLE exa_billing."{partition}"
               (LIKE exa_billing."{parent}" INCLUDING ALL EXCLUDING IDENTITY);
           {guard}
           ALTER TABLE exa_billing."{parent}" ATTACH PARTITION exa_billing."{partition}"
               FOR VALUES FROM ('{from}') TO ('{to}');"#
    ))
}

/// What protects one partition, whose name is given quoted: nobody's rows without a policy, and no
/// change of what is recorded.
pub fn guard_ddl(quoted_partition: &str) -> String {
    format!(
        "ALTER TABLE exa_billing.{quoted_partition} ENABLE ROW LEVEL SECURITY;
         CREATE OR REPLACE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE
             ON exa_billing.{quoted_partition}
             FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_change();
         ALTER TABLE exa_billing.{quoted_partition} ENABLE ALWAYS TRIGGER append_only;"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;

    #[test]
    fn ready_months_reach_back_and_ahead() {
        let names = |now, days: i64, ahead| -> Vec<String> {
            months_to_keep_ready(now, days * 86_400, Some(ahead))
                .unwrap()
                .iter()
                .map(|month| month.suffix())
                .collect()
        };
        assert_eq!(
            names(utc(2026, 11, 22, 0, 0), 35, 2),
            ["2026_10", "2026_11", "2026_12", "2027_01"]
        );
        assert_eq!(names(utc(2028, 3, 1, 0, 0), 1, 0), ["2028_02", "2028_03"]);
        assert_eq!(names(utc(2026, 11, 22, 0, 0), 0, 0), ["2026_11"]);
    }

    #[test]
    fn months_ahead_are_bounded() {
        let now = utc(2026, 11, 22, 0, 0);
        for bad in [None, Some(-1), Some(121), Some(i32::MAX), Some(i32::MIN)] {
            assert!(months_to_keep_ready(now, 0, bad).is_err());
        }
    }

    #[test]
    fn a_partition_is_guarded_before_it_is_attached() {
        let month = utc(2026, 12, 5, 0, 0).month().unwrap();
        let ddl = ddl(Journal::SpendLog, month).unwrap();
        let place = |what: &str| ddl.find(what).unwrap_or_else(|| panic!("{what}: {ddl}"));
        let attach = place("ATTACH PARTITION exa_billing.\"spend_log_2026_12\"");
        for guard in [
            "exa_billing.\"spend_log_2026_12\" ENABLE ROW LEVEL SECURITY",
            "BEFORE UPDATE OR DELETE OR TRUNCATE",
            "ENABLE ALWAYS TRIGGER append_only",
        ] {
            assert!(place(guard) < attach, "{guard}");
        }
    }

    #[test]
    fn bounds_carry_their_zone() {
        let month = utc(2026, 12, 5, 0, 0).month().unwrap();
        let ddl = ddl(Journal::ExaUsageLog, month).unwrap();
        assert!(ddl.contains("FROM ('2026-12-01 00:00:00+00') TO ('2027-01-01 00:00:00+00')"));
        assert!(ddl.contains(r#"exa_billing."exa_usage_log_2026_12""#));
    }
}
