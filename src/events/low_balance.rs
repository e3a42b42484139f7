//! Low balances: found where a balance falls, told once, armed again where it has risen.

use super::kind::EventType;
use super::record::{NewEvent, record};
use super::tables;
use crate::accounts;
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{self, Statement, values};
use serde_json::json;

// Sums stay numeric and are told as text: no balance, however far out of range, makes this fail.
static NOTE: Statement = Statement::over_queue(
    "WITH found AS MATERIALIZED (
         SELECT a.owner_kind, a.owner_id, a.minimum_balance_microdollars AS minimum,
                a.total_microdollars_acquired::numeric - a.microdollars_used - (
                    SELECT coalesce(sum(q.amount_microdollars), 0)
                    FROM exa_billing.unposted_spend AS q
                    WHERE q.owner_kind = a.owner_kind AND q.owner_id = a.owner_id
                      AND q.transaction_id >=
                          coalesce(CASE WHEN a.posted_where = $4 THEN a.posted_before END, '0')
                ) AS balance
         FROM unnest($1, $2) AS o(owner_kind, owner_id)
         JOIN exa_billing.accounts AS a USING (owner_kind, owner_id)
         WHERE a.minimum_balance_microdollars IS NOT NULL
     ), changed AS (
         UPDATE exa_billing.accounts AS a
         SET low_balance_since = CASE WHEN f.balance < f.minimum THEN $3::timestamptz END
         FROM found AS f
         WHERE a.owner_kind = f.owner_kind AND a.owner_id = f.owner_id
           AND (f.balance < f.minimum) <> (a.low_balance_since IS NOT NULL)
         RETURNING f.owner_kind, f.owner_id, f.minimum, f.balance, a.low_balance_since IS NOT NULL AS is_low
     )
     SELECT owner_kind, owner_id, minimum, trunc(balance)::text FROM changed WHERE is_low",
);

// By the index of those who have a minimum and were not told.
static UNTOLD: Statement = Statement::over_queue(
    "SELECT a.owner_kind, a.owner_id FROM exa_billing.accounts AS a
     WHERE a.minimum_balance_microdollars IS NOT NULL AND a.low_balance_since IS NULL
       AND a.total_microdollars_acquired::numeric - a.microdollars_used - (
               SELECT coalesce(sum(q.amount_microdollars), 0)
               FROM exa_billing.unposted_spend AS q
               WHERE q.owner_kind = a.owner_kind AND q.owner_id = a.owner_id)
           < a.minimum_balance_microdollars
     ORDER BY a.owner_kind, a.owner_id LIMIT $1",
);

const MAX_UNTOLD: i64 = 1000;

/// Looks at the balances of these owners: one that is newly below its minimum gets an event, one
/// that no longer is may get another one later. A failure is reported and stops nobody: money has
/// moved already, and who waits for a message has less to lose than who waits for the books. The
/// next posting for an owner that failed tries again, and so does `check_untold`.
///
/// Locks: the owners' account rows, which the caller has taken; nothing that anybody is waited for.
pub fn check(owners: &[Owner]) -> Result<()> {
    match spi::in_subtransaction(|| note(owners)) {
        Ok(()) => Ok(()),
        Err(failure) if failure.is_interruption() => failure.raise(),
        // One owner's event is refused: the others still get theirs.
        Err(failure) if failure.is_of_data() && owners.len() > 1 => {
            let (left, right) = owners.split_at(owners.len() / 2);
            check(left)?;
            check(right)
        }
        Err(failure) => {
            spi::warn(&format!("low balances could not be noted: {}", failure.message()));
            Ok(())
        }
    }
}

/// Looks for low balances that could not be told of when they were found: their owners may have
/// nothing left to spend, so that no posting would come past them again.
///
/// Locks: account rows, skipping those somebody else holds.
pub fn check_untold() -> Result<()> {
    let owners = UNTOLD.write(values![MAX_UNTOLD], |row| accounts::owner_of(row, 1))?;
    if owners.is_empty() {
        return Ok(());
    }
    let locked = accounts::lock_unless_busy(&owners)?;
    check(&locked.into_iter().map(|locked| locked.owner).collect::<Vec<_>>())
}

fn note(owners: &[Owner]) -> Result<()> {
    let clock = spi::clock();
    let (kinds, ids) = accounts::columns(owners);
    let place = accounts::place_of_queue();
    let events = NOTE.write(values![kinds, ids, clock, place], |row| {
        let owner = accounts::owner_of(row, 1)?;
        let balance: String = row.get(4)?;
        let snapshot = json!({
            "minimum_balance_microdollars": row.get::<i64>(3)?,
            // As a number wherever it is one that the books can hold.
            "balance_microdollars": balance.parse::<i64>().map_or(json!(balance), |n| json!(n)),
        });
        Ok(NewEvent {
            notify: true,
            ..NewEvent::new(owner, EventType::LowBalance, clock, snapshot)
        })
    })?;
    if events.is_empty() {
        return Ok(());
    }
    tables::lock_or_fail()?;
    record(&events).map(drop)
}
