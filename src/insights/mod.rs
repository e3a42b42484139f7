//! What there is to see of alerts, suggestions and what happened: read only, with the caller's rights.

mod activity;
mod attention;
mod cards;
mod filter;
mod overview;
mod page;
mod status;
