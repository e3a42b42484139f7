//! Rights: PUBLIC has none; an application, an operator, an auditor and an end user get theirs by
//! one call each. Row security shows an end user what is theirs.

mod actor;
mod grant;
mod identity;
mod matrix;
mod policies;
mod row_security;
mod session;

pub use actor::{Actor, actor};
pub use grant::grant_again;
pub use row_security::keep as keep_row_security;
