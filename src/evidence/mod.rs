//! What was spent when and on what, exact at an instant: whole hours from the rollups, the rest
//! from the journals.

mod by_hour;
mod document;
mod drivers;
mod figures;
mod range;
mod ranges;
mod reading;
mod rolling;
mod series;
mod stretches;
mod top_drivers;
mod totals;
mod window;

pub use document::driver_of_category as driver_document;
pub use ranges::AllRanges;
pub use reading::{Spend, hourly};
pub use totals::each_total;
pub use window::{Interval, Parts};
