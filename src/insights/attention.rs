//! `cost_insights_attention`: how much waits for somebody to look at it.

use crate::books;
use crate::error::{BillingError, Result};
use crate::owner::Owner;
use crate::spi::{Answer, Statement, values};
use pgrx::prelude::*;

static WAITING: Statement = Statement::over_queue(
    "SELECT (SELECT count(*) FROM exa_billing.spend_alert_episodes AS e
             WHERE e.owner_kind = $1 AND e.owner_id = $2 AND e.reviewed_at IS NULL)
          + (SELECT count(*) FROM exa_billing.cost_suggestions AS s
             WHERE s.owner_kind = $1 AND s.owner_id = $2 AND s.status = 'open' AND NOT EXISTS (
                 SELECT FROM exa_billing.spend_alert_settings AS a
                 WHERE a.owner_kind = $1 AND a.owner_id = $2 AND NOT a.cost_suggestions_enabled))",
);

/// Alerts that nobody has reviewed and suggestions that are open, on the caller's snapshot.
pub fn count(owner: &Owner) -> Result<i32> {
    let waiting =
        WAITING.read_row(values![owner.kind.as_str(), &owner.id], |row| row.get::<i64>(1))?;
    i32::try_from(waiting.unwrap_or_default())
        .map_err(|_| BillingError::internal("an owner has more suggestions than there can be"))
}

/// How many alerts and suggestions of an owner wait for somebody.
#[pg_extern(sql = false)]
fn cost_insights_attention(owner_kind: Option<&str>, owner_id: Option<&str>) -> Answer<i32> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    books::enter_for_reading("exa_billing.cost_insights_attention()")?;
    Ok(count(&owner)?)
}
