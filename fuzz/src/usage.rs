//! The room `usage`, as far as what comes in goes.

#[path = "../../src/usage/batch_input.rs"]
pub mod batch_input;
#[path = "../../src/usage/request.rs"]
pub mod request;
#[path = "../../src/usage/response_rules.rs"]
pub mod response_rules;
