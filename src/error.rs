//! The one error of the product: what went wrong, the figures, and the call that helps.
//!
//! Messages follow PostgreSQL's style (lower case, no full stop); DETAIL and HINT are sentences.
//! This file knows nothing of the server, so that pure rules can fail with the same error the
//! caller will see; the `spi` room turns it into an `ereport`.

/// The SQLSTATEs the product raises, by meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 22023
    InvalidParameter,
    /// 22003
    OutOfRange,
    /// 23505
    KeyReused,
    /// 40001
    Retry,
    /// 42501
    NoRight,
    /// 53400
    InsufficientCredit,
    /// P0002
    Unknown,
    /// 55000
    WrongState,
    /// XX000: a bug of this library, never an answer to bad input.
    Internal,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BillingError {
    pub kind: Kind,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

pub type Result<T> = std::result::Result<T, BillingError>;

impl BillingError {
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), detail: None, hint: None }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidParameter, message)
    }

    pub fn missing(argument: &str) -> Self {
        Self::invalid(format!("{argument} must not be null"))
    }

    pub fn out_of_range(message: impl Into<String>) -> Self {
        Self::new(Kind::OutOfRange, message)
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::Internal, message)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error, said of one element of a batch.
    pub fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}
