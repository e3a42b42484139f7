//! Waking mailers that wait. Only the worker does: NOTIFY makes all transactions of the server that
//! use it commit one after the other, and no charge shall ever wait for that.

use crate::error::Result;
use crate::events;
use crate::spi::{self, Statement, values};
use crate::time::Instant;
use std::cell::Cell;

// A delivery that a subtransaction wrote and took back is not to be seen.
static WAKE: Statement = Statement::over_queue(
    "SELECT pg_catalog.pg_notify('exa_billing_notifications', '')
     WHERE EXISTS (SELECT FROM exa_billing.notification_deliveries WHERE event_id = ANY ($1))",
);
static REMIND: Statement = Statement::over_queue(
    "SELECT pg_catalog.pg_notify('exa_billing_notifications', '')
     WHERE EXISTS (SELECT FROM exa_billing.notification_deliveries
                   WHERE status IN ('pending', 'sending')
                     AND next_attempt_at > $1 AND next_attempt_at <= $2)",
);

thread_local! {
    /// Mailers know of everything that was due then.
    static WOKEN_AT: Cell<Instant> = const { Cell::new(Instant(i64::MIN)) };
}

/// Wakes mailers when this transaction has written deliveries; once, however often it is called.
pub fn wake_mailers() -> Result<()> {
    let told = events::told_in_this_transaction();
    if told.is_empty() {
        return Ok(());
    }
    let clock = spi::clock();
    if !WAKE.write(values![told], |_| Ok(()))?.is_empty() {
        WOKEN_AT.set(clock);
    }
    Ok(())
}

/// Wakes mailers when something has become due since they were woken last: a delivery that failed
/// before, one whose lease has run out, one that another session has written.
pub fn remind_mailers() -> Result<()> {
    let clock = spi::clock();
    REMIND.execute(values![WOKEN_AT.get(), clock])?;
    WOKEN_AT.set(clock);
    Ok(())
}
