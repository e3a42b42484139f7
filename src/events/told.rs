//! Which events of the running transaction somebody has to be told of.

use crate::spi;
use std::cell::RefCell;
use uuid::Uuid;

thread_local! {
    /// The transaction, and its events so far. What a subtransaction took back is among them.
    static TOLD: RefCell<(Option<u64>, Vec<Uuid>)> = const { RefCell::new((None, Vec::new())) };
}

pub fn remember(events: impl Iterator<Item = Uuid>) {
    let transaction = spi::transaction_id();
    TOLD.with_borrow_mut(|(of, told)| {
        if *of != transaction {
            *of = transaction;
            told.clear();
        }
        told.extend(events);
    });
}

/// The events with deliveries that this transaction has written, whether or not they still stand.
pub fn in_this_transaction() -> Vec<Uuid> {
    let transaction = spi::transaction_id();
    TOLD.with_borrow(|(of, told)| {
        if transaction.is_some() && *of == transaction { told.clone() } else { Vec::new() }
    })
}
