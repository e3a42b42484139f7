//! Credits: what an owner has acquired, used and has left; what expires; and the proof of it all
//! from the journals.

mod adjust;
mod balance;
mod blocks;
mod expiration;
mod expire;
mod grants;
mod ledger;
mod opening;
mod recompute;
mod recompute_all;
mod recompute_rows;
mod replay;
mod statement;

pub use balance::{expired_by, left, read as read_balance};
pub use expire::expire_due;
