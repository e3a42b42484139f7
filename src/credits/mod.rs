//! Credits: what an owner has acquired, used and has left.

mod balance;
mod expiration;
mod grants;
mod replay;

pub use balance::read_locked as read_balance_locked;
