//! The room `alerts`, as far as settings go.

#[path = "../../src/alerts/settings_rules.rs"]
pub mod settings_rules;
