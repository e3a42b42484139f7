//! Notifications: the outbox that a mailer outside the database empties.
//!
//! Deliveries are written by `events`, in the transaction of what they tell of. Here they are
//! handed out under a lease, finished, and waiting mailers are woken.

mod claim;
mod finish;
mod rules;
mod wake;

pub use wake::{remind_mailers, wake_mailers};
