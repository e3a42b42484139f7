//! Rights: PUBLIC has none; an application, an operator and an auditor get theirs by one call each.

mod grant;
mod matrix;

pub use grant::grant_again;
