//! The tables of what happened, for whom it is less urgent than money.

use crate::error::Result;
use crate::spi;

/// Makes sure that writing events waits for nobody who has locked their tables as a whole: fails with
/// 55P03 instead. Everything else about them is written without waiting.
pub fn lock_or_fail() -> Result<()> {
    spi::run_script(
        "LOCK TABLE exa_billing.cost_insight_events, exa_billing.notification_deliveries
             IN ROW EXCLUSIVE MODE NOWAIT;
         LOCK TABLE exa_billing.organization_members IN ACCESS SHARE MODE NOWAIT",
    )
}
