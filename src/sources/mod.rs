//! What spend is: the taxonomy every journal shares, and how a journal's row is queued for
//! posting.

mod charges;
mod dimension;
mod entries;
mod ledger;
mod queue;
mod spend;

pub use charges::{
    Charge, attached_charges, attached_charges_of, charges, columns, covered_from, is_any_attached,
};
pub use dimension::{Category, Dimension, exa_dimension_id, normalised, recorded_source};
pub use entries::{each_entry, each_entry_of};
pub use ledger::{each_month as each_month_of_ledgers, months as attached_months, tend};
pub use queue::{Waiting, blocked_and_time, queue, unposted_microdollars, walk};
pub use spend::{NewSpend, append_spend};

/// The names under which the product's own journals queue their rows.
pub const EXA: &str = "exa";
pub const SPEND: &str = "spend";
