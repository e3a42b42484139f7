//! What happened to an owner's spend, and who has to hear of it: written in the transaction in which
//! it happens, read by rooms that come later.

mod kind;
mod low_balance;
mod record;
mod retention;
mod states;
mod tables;
mod text;
mod told;

pub use kind::{AlertKind, EventType, SuggestionKind};
pub use low_balance::{check as check_low_balances, check_untold as check_untold_low_balances};
pub use record::{NewEvent, record};
pub use retention::{KEPT_MICROSECONDS, delete_old_without_waiting};
pub use states::{MAX_STATES_OPENED, lock_state, lock_state_to_delete, lock_states_unless_busy};
pub use tables::lock_or_fail as lock_tables_or_fail;
pub use text::{Text, amount, describe, describe_alert};
pub use told::in_this_transaction as told_in_this_transaction;
