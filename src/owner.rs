//! Who spends: one user or one organization; and the rules every text argument obeys.

use crate::error::{BillingError, Result};

pub const MAX_ID_CHARS: usize = 255;
pub const MAX_KEY_CHARS: usize = 255;
pub const MAX_PATH_CHARS: usize = 1024;
pub const MAX_LABEL_CHARS: usize = 128;
pub const MAX_DESCRIPTION_CHARS: usize = 2000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    // The order is that of the texts, which is the order in which account rows are locked.
    Organization,
    User,
}

impl OwnerKind {
    pub fn as_str(self) -> &'static str {
        match self {
            OwnerKind::Organization => "organization",
            OwnerKind::User => "user",
        }
    }

    pub fn parse(text: Option<&str>) -> Result<Self> {
        match text {
            Some("user") => Ok(OwnerKind::User),
            Some("organization") => Ok(OwnerKind::Organization),
            None => Err(BillingError::missing("owner_kind")),
            Some(other) => Err(BillingError::invalid("owner_kind is not known")
                .detail(format!("owner_kind is {}.", quoted(other)))
                .hint("Give 'user' or 'organization'.")),
        }
    }
}

/// One spend owner. A request made for an organization is owned by it; the user is its actor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    pub kind: OwnerKind,
    pub id: String,
}

impl Owner {
    pub fn parse(kind: Option<&str>, id: Option<&str>) -> Result<Self> {
        let kind = OwnerKind::parse(kind)?;
        Ok(Self { kind, id: identifier("owner_id", id)?.to_owned() })
    }

    /// The owner of a request of `user_id`, made for `organization_id` or for themselves.
    pub fn of_request(user_id: &str, organization_id: Option<&str>) -> Self {
        match organization_id {
            Some(id) => Self { kind: OwnerKind::Organization, id: id.to_owned() },
            None => Self { kind: OwnerKind::User, id: user_id.to_owned() },
        }
    }
}

/// Ids are opaque: 1 … 255 characters, not padded, no control characters.
pub fn identifier<'a>(argument: &str, value: Option<&'a str>) -> Result<&'a str> {
    let value = value.ok_or_else(|| BillingError::missing(argument))?;
    unpadded(argument, value, MAX_ID_CHARS)
}

pub fn optional_identifier<'a>(argument: &str, value: Option<&'a str>) -> Result<Option<&'a str>> {
    value.map(|value| unpadded(argument, value, MAX_ID_CHARS)).transpose()
}

pub fn idempotency_key(value: Option<&str>) -> Result<Option<&str>> {
    value.map(|value| unpadded("idempotency_key", value, MAX_KEY_CHARS)).transpose()
}

/// A short label such as a feature or a source: the rules of an id, within 128 characters.
pub fn label<'a>(argument: &str, value: &'a str) -> Result<&'a str> {
    unpadded(argument, value, MAX_LABEL_CHARS)
}

/// Text that is only kept, never looked up: any content within its length.
pub fn bounded<'a>(argument: &str, value: &'a str, max_chars: usize) -> Result<&'a str> {
    let chars = value.chars().count();
    if chars > max_chars {
        return Err(too_long(argument, chars, max_chars));
    }
    Ok(value)
}

fn unpadded<'a>(argument: &str, value: &'a str, max_chars: usize) -> Result<&'a str> {
    if value.is_empty() {
        return Err(BillingError::invalid(format!("{argument} must not be empty")));
    }
    if value.trim() != value {
        return Err(BillingError::invalid(format!(
            "{argument} must not begin or end with white space"
        ))
        .detail(format!("{argument} is {}.", quoted(value))));
    }
    if value.chars().any(char::is_control) {
        return Err(BillingError::invalid(format!(
            "{argument} must not contain control characters"
        ))
        .detail(format!("{argument} is {}.", quoted(value))));
    }
    bounded(argument, value, max_chars)
}

fn too_long(argument: &str, chars: usize, max_chars: usize) -> BillingError {
    BillingError::invalid(format!("{argument} is too long"))
        .detail(format!("{argument} has {chars} characters; at most {max_chars} are allowed."))
}

/// A value as a message shows it: escaped, and cut so that no message grows without bound.
pub fn quoted(value: &str) -> String {
    const SHOWN_CHARS: usize = 80;
    let mut shown: String = value.chars().take(SHOWN_CHARS).collect();
    if value.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    format!("{shown:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_have_their_limits() {
        assert!(identifier("user_id", Some("user-1")).is_ok());
        assert!(identifier("user_id", Some(&"𝄞".repeat(255))).is_ok());
        for bad in ["", " a", "a ", "a\tb", "\u{a0}a", "a\u{7}"] {
            assert!(identifier("user_id", Some(bad)).is_err(), "{bad:?}");
        }
        assert!(identifier("user_id", Some(&"x".repeat(256))).is_err());
        assert!(identifier("user_id", None).is_err());
    }

    #[test]
    fn owner_kinds_sort_as_their_texts() {
        assert!(OwnerKind::Organization < OwnerKind::User);
        assert!(OwnerKind::Organization.as_str() < OwnerKind::User.as_str());
    }

    #[test]
    fn a_request_belongs_to_its_context() {
        assert_eq!(Owner::of_request("u", None).kind, OwnerKind::User);
        let owner = Owner::of_request("u", Some("o"));
        assert_eq!((owner.kind, owner.id.as_str()), (OwnerKind::Organization, "o"));
    }

    proptest! {
        #[test]
        fn what_passes_keeps_the_rule(text in "\\PC{0,300}") {
            if let Ok(id) = identifier("user_id", Some(&text)) {
                prop_assert_eq!(id.trim(), id);
                prop_assert!((1..=MAX_ID_CHARS).contains(&id.chars().count()));
            }
        }

        #[test]
        fn messages_stay_short(text in "\\PC{0,3000}") {
            prop_assert!(quoted(&text).chars().count() < 1200);
        }
    }
}
