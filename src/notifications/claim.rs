//! Handing deliveries out to mailers.

use super::rules::{self, Verdict};
use crate::error::Result;
use crate::spi::{self, Answer, Composite, Json, RowSet, Statement, values};
use crate::time::{Instant, Span};
use crate::{books, registration};
use pgrx::prelude::*;
use uuid::Uuid;

// Few of very many deliveries are due, and a plan may be made while there are none at all: index
// scans only. Whoever has a row locked decides about it; nobody waits.
static PICK: Statement = Statement::over_queue(
    "SELECT d.delivery_id, d.attempt_count,
            CASE d.owner_kind
                WHEN 'user' THEN d.recipient_user_id = d.owner_id
                ELSE EXISTS (
                    SELECT FROM exa_billing.organization_members AS m
                    WHERE m.organization_id = d.owner_id AND m.user_id = d.recipient_user_id
                      AND m.role IN ('owner', 'billing_manager'))
            END
     FROM exa_billing.notification_deliveries AS d
     WHERE d.status IN ('pending', 'sending') AND d.next_attempt_at <= $1
     ORDER BY d.next_attempt_at LIMIT $2
     FOR UPDATE OF d SKIP LOCKED",
);
static END: Statement = Statement::over_queue(
    "UPDATE exa_billing.notification_deliveries
     SET status = $2, last_error = $3, claim_token = NULL, leased_until = NULL, finished_at = $4
     WHERE delivery_id = ANY ($1)",
);
static HAND_OUT: Statement = Statement::over_queue(
    "WITH handed_out AS (
         UPDATE exa_billing.notification_deliveries AS d
         SET status = 'sending', attempt_count = d.attempt_count + 1,
             claim_token = gen_random_uuid(), leased_until = $2, next_attempt_at = $2
         FROM unnest($1) WITH ORDINALITY AS picked(delivery_id, place)
         WHERE d.delivery_id = picked.delivery_id
         RETURNING picked.place, d.delivery_id, d.claim_token, d.recipient_user_id, d.owner_kind,
                   d.owner_id, d.event_id, d.event_type, d.alert_kind, d.occurred_at, d.payload,
                   d.attempt_count
     )
     SELECT delivery_id, claim_token, recipient_user_id, owner_kind, owner_id, event_id, event_type,
            alert_kind, occurred_at, payload, attempt_count
     FROM handed_out ORDER BY place",
);

/// Deliveries that are ended take nobody's place, but one call ends no more than about so many.
const MAX_ENDED: usize = 10_000;

/// Hands out up to `max_rows` deliveries that are due, longest due first, until `lease_end`; ends on
/// its way those that are not to be sent any more.
///
/// Locks: deliveries, skipping those somebody else holds.
fn claim(max_rows: i64, clock: Instant, lease_end: Instant) -> Result<Vec<Composite>> {
    let (mut rows, mut ended) = (Vec::new(), 0);
    loop {
        let claimed = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        // What was handed out is due after the clock, and so is never picked again here.
        let picked = PICK.write(values![clock, max_rows - claimed], |row| {
            Ok((row.get::<Uuid>(1)?, rules::verdict(row.get(2)?, row.get(3)?)))
        })?;
        let of = |verdict| {
            let chosen = picked.iter().filter(move |one| one.1 == verdict);
            chosen.map(|one| one.0).collect::<Vec<Uuid>>()
        };
        let (skipped, given_up) = (of(Verdict::Skip), of(Verdict::GiveUp));
        let ended_now = skipped.len() + given_up.len();
        end(skipped, "skipped", "the recipient may not hear of this owner any more", clock)?;
        end(given_up, "dead", "the lease of the last attempt ran out", clock)?;
        rows.extend(hand_out(of(Verdict::Attempt), lease_end)?);
        ended += ended_now;
        // Only those that were ended leave places open.
        if ended_now == 0 || ended >= MAX_ENDED {
            return Ok(rows);
        }
    }
}

fn end(deliveries: Vec<Uuid>, status: &str, reason: &str, clock: Instant) -> Result<()> {
    if deliveries.is_empty() {
        return Ok(());
    }
    END.execute(values![deliveries, status, reason, clock])
}

fn hand_out(deliveries: Vec<Uuid>, lease_end: Instant) -> Result<Vec<Composite>> {
    if deliveries.is_empty() {
        return Ok(Vec::new());
    }
    HAND_OUT.write(values![deliveries, lease_end], |row| {
        Ok(Composite::new(values![
            row.get::<Uuid>(1)?,
            row.get::<Uuid>(2)?,
            &row.get::<String>(3)?,
            &row.get::<String>(4)?,
            &row.get::<String>(5)?,
            row.get::<Uuid>(6)?,
            &row.get::<String>(7)?,
            row.maybe::<String>(8)?.as_deref(),
            row.get::<Instant>(9)?,
            row.get::<Json>(10)?,
            row.get::<i32>(11)?,
        ]))
    })
}

/// Hands out deliveries that are due, each to one mailer at a time.
#[pg_extern(sql = false)]
fn claim_notifications(max_rows: Option<i32>, lease: Option<Span>) -> Answer<RowSet> {
    let max_rows = rules::max_rows(max_rows)?;
    let clock = spi::clock();
    let lease_end = rules::lease_end(lease, clock)?;
    books::enter_for_writing("exa_billing.claim_notifications()")?;
    registration::require_started("exa_billing.claim_notifications()")?;
    Ok(claim(max_rows, clock, lease_end)?.into_iter().collect())
}
