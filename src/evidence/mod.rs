//! What was spent when and on what, exact at an instant: whole hours from the rollups, the rest
//! from the journals.

mod by_hour;
mod document;
mod drivers;
mod figures;
mod range;
mod reading;
mod rolling;
mod series;
mod top_drivers;
mod window;
