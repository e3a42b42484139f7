//! Numbers of transactions.

/// A transaction's number in full, which never comes again on its server. Later transactions have higher
/// ones; zero is nobody's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionId(pub u64);
