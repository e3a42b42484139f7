//! `suggestion_rules`: what may be suggested, looked up at each evaluation.

use super::policy::Rule;
use crate::error::{BillingError, Result};
use crate::events::SuggestionKind;
use crate::owner::OwnerKind;
use crate::spi::{Row, Statement};
use serde_json::json;

static IN_FORCE: Statement = Statement::kept(
    "SELECT rule_key, suggestion_kind, owner_kind, provider_key, model_or_plan_key,
            minimum_observed_microdollars, price_microdollars, title, description, call_to_action, link,
            benefit_label, benefit_detail
     FROM exa_billing.suggestion_rules WHERE is_enabled ORDER BY priority, rule_key",
);

/// The rules that are enabled, the first to be tried first.
pub fn in_force() -> Result<Vec<Rule>> {
    IN_FORCE.read(&[], rule)
}

fn rule(row: &Row) -> Result<Rule> {
    let text = |column| row.get::<String>(column);
    let owner_kind = row.maybe::<String>(3)?;
    Ok(Rule {
        key: text(1)?,
        kind: kind_of(&text(2)?)?,
        owner_kind: owner_kind.map(|kind| OwnerKind::parse(Some(&kind))).transpose()?,
        provider: row.maybe(4)?,
        model_or_plan: row.maybe(5)?,
        minimum: row.get(6)?,
        price: row.get(7)?,
        content: json!({
            "title": text(8)?,
            "description": text(9)?,
            "call_to_action": text(10)?,
            "link": text(11)?,
            "benefit_label": text(12)?,
            "benefit_detail": text(13)?,
        }),
    })
}

/// A kind as the books have it; their constraints allow no other.
pub fn kind_of(word: &str) -> Result<SuggestionKind> {
    SuggestionKind::from_books(word)
        .ok_or_else(|| BillingError::internal(format!("unknown kind of suggestion: {word}")))
}
