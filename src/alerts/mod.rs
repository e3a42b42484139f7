//! Alerts: what an owner wants to be told of, and telling it once when the figures say so.
//!
//! Nothing here is on the way of a charge: posting leaves a row for each owner that was charged, and
//! evaluations come later, in transactions of their own.

mod acknowledge;
mod decision;
mod episodes;
mod evaluate;
mod figures;
mod findings;
mod history;
mod many;
mod one;
mod policy;
mod queue;
mod settings;
mod settings_rules;
mod standing;

pub use many::{evaluate_due, sweep};
pub use settings_rules::Settings;
pub use standing::settings_of;
