//! Dimensions: what spend is for, apart from who spent it.

use crate::error::{BillingError, Result};
use crate::owner::{self, MAX_LABEL_CHARS, quoted};
use uuid::Uuid;

pub const OTHER: &str = "other";

/// Request-metered or subscription-like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    Variable,
    Scheduled,
}

impl Category {
    pub fn as_str(self) -> &'static str {
        match self {
            Category::Variable => "variable",
            Category::Scheduled => "scheduled",
        }
    }

    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            Some("variable") => Ok(Category::Variable),
            Some("scheduled") => Ok(Category::Scheduled),
            None => Err(BillingError::missing("spend_category")),
            Some(unknown) => Err(BillingError::invalid("spend_category is not known")
                .detail(format!("spend_category is {}.", quoted(unknown)))
                .hint("Give 'variable' or 'scheduled'.")),
        }
    }
}

/// The source as the journal keeps it: as given.
pub fn recorded_source(source: Option<&str>) -> Result<&str> {
    owner::label("source", source.ok_or_else(|| BillingError::missing("source"))?)
}

/// What spend is for, normalised: every part is short ASCII, so that neither length nor script
/// nor quoting can mix one driver up with another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dimension {
    pub category: &'static str,
    pub source: &'static str,
    pub product: String,
    pub feature: String,
    pub model_or_plan: String,
    pub provider: String,
}

impl Dimension {
    pub fn new(
        category: Category,
        source: &str,
        product: Option<&str>,
        feature: Option<&str>,
        model_or_plan: Option<&str>,
        provider: Option<&str>,
    ) -> Self {
        Self {
            category: category.as_str(),
            source: known_source(source),
            product: normalised(product),
            feature: normalised(feature),
            model_or_plan: normalised(model_or_plan),
            provider: normalised(provider),
        }
    }
}

impl Dimension {
    /// Out of the parts that a journal or rollup keeps: category; then source, product, feature,
    /// model or plan, provider, all of them normalised before.
    pub fn known(category: &str, parts: [&str; 5]) -> Result<Self> {
        let [source, product, feature, model_or_plan, provider] = parts.map(str::to_owned);
        Ok(Self {
            category: Category::parse(Some(category))?.as_str(),
            source: known_source(&source),
            product,
            feature,
            model_or_plan,
            provider,
        })
    }
}

/// An unknown source is counted as `other`; the journal keeps what it was called.
fn known_source(source: &str) -> &'static str {
    ["ai_gateway", "kiloclaw", "coding_plan"]
        .into_iter()
        .find(|&known| known == source)
        .unwrap_or(OTHER)
}

/// Trimmed, `[A-Za-z0-9][A-Za-z0-9._:/@+-]*`, the first 128 characters; else `other`.
pub fn normalised(text: Option<&str>) -> String {
    let text = text.unwrap_or_default().trim();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@+-".contains(&byte);
    let begins_well = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if !begins_well || !text.bytes().all(allowed) {
        return OTHER.to_owned();
    }
    text.chars().take(MAX_LABEL_CHARS).collect()
}

const EXA_FEATURES: [&str; 5] = ["search", "contents", "findSimilar", "answer", "context"];

/// The dimension of an Exa request. setup() puts these rows there under fixed
/// ids, so that the charging path never looks one up.
pub fn exa_dimension_id(path: &str) -> Uuid {
    const FIRST: u128 = 0x0000_0000_0000_8000_8000_6578_6100_0001;
    let position = EXA_FEATURES
        .iter()
        .position(|feature| path.strip_prefix('/') == Some(*feature))
        .unwrap_or(EXA_FEATURES.len());
    Uuid::from_u128(FIRST + position as u128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn categories_are_read_as_they_are_written() {
        for (category, text) in
            [(Category::Variable, "variable"), (Category::Scheduled, "scheduled")]
        {
            assert_eq!((category.as_str(), Category::parse(Some(text))), (text, Ok(category)));
        }
        assert!(Category::parse(None).is_err() && Category::parse(Some("Variable")).is_err());
    }

    #[test]
    fn hostile_dimensions_become_other() {
        let long = "m".repeat(300);
        for (given, kept) in [
            ("anthropic/claude-sonnet-4", "anthropic/claude-sonnet-4"),
            ("  padded ", "padded"),
            ("", "other"),
            ("-dash-first", "other"),
            ("modèle", "other"),
            ("a; DROP TABLE x", "other"),
            (long.as_str(), &long[..128]),
        ] {
            assert_eq!(normalised(Some(given)), kept);
        }
        assert_eq!(normalised(None), "other");
    }

    #[test]
    fn unknown_sources_count_as_other() {
        assert_eq!(known_source("kiloclaw"), "kiloclaw");
        assert_eq!(known_source("my-shop"), "other");
        assert_eq!(recorded_source(Some("my-shop")).unwrap(), "my-shop");
        assert!(recorded_source(Some(&"s".repeat(129))).is_err());
    }

    #[test]
    fn exa_paths_have_fixed_dimensions() {
        let seeds = include_str!("../../sql/books/seeds.sql");
        for path in ["/search", "/contents", "/findSimilar", "/answer", "/context", "/research/v1"]
        {
            let feature = path.strip_prefix('/').filter(|name| EXA_FEATURES.contains(name));
            let row = format!(
                "('{}', 'variable', 'other', 'exa', '{}', 'other', 'exa')",
                exa_dimension_id(path),
                feature.unwrap_or("other")
            );
            assert!(seeds.contains(&row), "{row}");
        }
        assert_eq!(exa_dimension_id("/Search"), exa_dimension_id("/anything"));
        assert_eq!(exa_dimension_id("search"), exa_dimension_id("/anything"));
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{0,200}") {
            let once = normalised(Some(&text));
            prop_assert_eq!(normalised(Some(&once)), once.clone());
            prop_assert!((1..=MAX_LABEL_CHARS).contains(&once.len()));
            prop_assert!(once.is_ascii());
        }
    }
}
