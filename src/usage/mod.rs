//! Usage: may it be made, what is free of it, what was recorded.

mod allowance;
mod allowance_rows;
mod batch;
mod batch_input;
mod batch_rows;
mod check;
mod decision;
mod journal;
mod members;
mod monthly;
mod record;
mod request;
mod response;
mod response_rules;
mod spend;
