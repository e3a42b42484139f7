//! Erasing a user: what says something about them goes; ids are opaque and stay in the journals, for the
//! books must go on adding up.

use crate::books::{self, Permission};
use crate::error::Result;
use crate::owner::{self, Owner};
use crate::spi::{self, Answer, Statement, values};
use crate::{accounts, events};
use pgrx::prelude::*;

static FORGET_MINIMUM: Statement = Statement::kept(
    "UPDATE exa_billing.accounts SET minimum_balance_microdollars = NULL, low_balance_since = NULL
     WHERE owner_kind = 'user' AND owner_id = $1
       AND (minimum_balance_microdollars IS NOT NULL OR low_balance_since IS NOT NULL)",
);
static FORGET_DESCRIPTIONS: Statement = Statement::over_queue(
    "UPDATE exa_billing.credit_transactions SET description = NULL
     WHERE owner_kind = 'user' AND owner_id = $1 AND description IS NOT NULL",
);
// An open interval is still needed; only why somebody recorded it is not.
static FORGET_REASONS: Statement = Statement::kept(
    "UPDATE exa_billing.spend_degraded_intervals SET reason = 'erased'
     WHERE owner_kind = 'user' AND owner_id = $1 AND reason <> 'erased'",
);

// Plans may be made while the tables are empty: index scans only.
static LEAVE_ORGANIZATIONS: Statement =
    Statement::over_queue("DELETE FROM exa_billing.organization_members WHERE user_id = $1");
static DELETE_DELIVERIES: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.notification_deliveries WHERE recipient_user_id = $1",
);
static DELETE_EVENTS: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.cost_insight_events WHERE owner_kind = 'user' AND owner_id = $1",
);
static DELETE_SUGGESTIONS: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.cost_suggestions WHERE owner_kind = 'user' AND owner_id = $1",
);
static DELETE_EPISODES: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.spend_alert_episodes WHERE owner_kind = 'user' AND owner_id = $1",
);
static DELETE_SETTINGS: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.spend_alert_settings WHERE owner_kind = 'user' AND owner_id = $1",
);
static DELETE_EVALUATIONS: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.evaluation_queue WHERE owner_kind = 'user' AND owner_id = $1",
);
static DELETE_STATE: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.spend_alert_states WHERE owner_kind = 'user' AND owner_id = $1",
);

/// In the order of locks after the account and the owner's state.
const REST: [&Statement; 11] = [
    &FORGET_MINIMUM,
    &FORGET_DESCRIPTIONS,
    &DELETE_EVALUATIONS,
    &DELETE_SETTINGS,
    &DELETE_EPISODES,
    &DELETE_SUGGESTIONS,
    &DELETE_EVENTS,
    &DELETE_DELIVERIES,
    &LEAVE_ORGANIZATIONS,
    &FORGET_REASONS,
    &DELETE_STATE,
];

/// Locks: the user's account row, if there is one (posting and expirations of it come before or after);
/// then the opening lock of the user's alert state and its row; then each row that goes.
fn erase(user_id: &str) -> Result<()> {
    let owner = Owner::of_request(user_id, None);
    accounts::lock_existing(&owner)?;
    events::lock_state_to_delete(&owner)?;
    let _permission = Permission::to_erase_texts();
    REST.into_iter().try_for_each(|statement| statement.execute(values![user_id]))
}

/// Takes out what says something about a user; as often as one likes.
#[pg_extern(sql = false)]
fn erase_user(user_id: Option<&str>) -> Answer<()> {
    let user_id = owner::identifier("user_id", user_id)?;
    books::enter_for_writing("exa_billing.erase_user()")?;
    // With an older snapshot what was written meanwhile would stay.
    spi::require_read_committed("exa_billing.erase_user()")?;
    Ok(erase(user_id)?)
}
