//! Who an end user is: what the application has set, and what a trusted token claims. Every doubt
//! is a refusal: nobody must become somebody else by way of a text that was read differently.

use crate::error::{BillingError, Kind, Result};
use crate::owner::{self, quoted};
use serde_json::Value as Json;

pub const USER_ID: &str = "exa_billing.user_id";
pub const CLAIMS: &str = "request.jwt.claims";

pub fn refused(message: impl Into<String>) -> BillingError {
    BillingError::new(Kind::NoRight, message)
}

/// A user's id as a setting has it.
pub fn user(named: &str, id: &str) -> Result<String> {
    owner::identifier(named, Some(id))
        .map(str::to_owned)
        .map_err(|error| BillingError { kind: Kind::NoRight, ..error })
}

/// The `sub` of a token's claims; None when they name nobody.
pub fn claimed(claims: &str) -> Result<Option<String>> {
    let Ok(Json::Object(claims)) = serde_json::from_str(claims) else {
        return Err(refused(format!("{CLAIMS} is not a JSON object")));
    };
    match claims.get("sub") {
        None => Ok(None),
        Some(Json::String(sub)) => user(&format!("sub of {CLAIMS}"), sub).map(Some),
        Some(_) => Err(refused(format!("sub of {CLAIMS} is not a text"))),
    }
}

/// The one user whom both name.
pub fn agreed(set: Option<String>, claimed: Option<String>) -> Result<Option<String>> {
    match (set, claimed) {
        (Some(set), Some(claimed)) if set != claimed => {
            let (set, claimed) = (quoted(&set), quoted(&claimed));
            Err(refused(format!("{USER_ID} and {CLAIMS} name different users"))
                .detail(format!("{USER_ID} is {set}, sub is {claimed}."))
                .hint(format!("Set one of them only: RESET {USER_ID};")))
        }
        (set, claimed) => Ok(set.or(claimed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_names_its_sub_and_nothing_else() {
        let named = |claims| claimed(claims).unwrap();
        assert_eq!(named(r#"{"sub": "user-1", "role": "x"}"#).as_deref(), Some("user-1"));
        assert_eq!(named(r#"{"sub": "\u0075"}"#).as_deref(), Some("u"));
        assert_eq!(named("{}"), None);
        assert_eq!(named(r#"{"role": "anon", "user": {"sub": "user-1"}}"#), None);
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let deep = "[".repeat(100_000);
        for claims in [
            " ",
            "user-1",
            "null",
            r#""user-1""#,
            r#"["sub", "user-1"]"#,
            r#"{"sub": null}"#,
            r#"{"sub": 7}"#,
            r#"{"sub": ["user-1"]}"#,
            r#"{"sub": ""}"#,
            r#"{"sub": " user-1"}"#,
            r#"{"sub": "a\u0000b"}"#,
            r#"{"sub": "user-1"} x"#,
            &deep,
        ] {
            assert_eq!(claimed(claims).unwrap_err().kind, Kind::NoRight, "{claims:.40}");
        }
    }

    #[test]
    fn two_names_must_be_one() {
        let some = |id: &str| Some(id.to_owned());
        assert_eq!(agreed(None, None), Ok(None));
        assert_eq!(agreed(some("a"), None), Ok(some("a")));
        assert_eq!(agreed(None, some("a")), Ok(some("a")));
        assert_eq!(agreed(some("a"), some("a")), Ok(some("a")));
        assert_eq!(agreed(some("a"), some("A")).unwrap_err().kind, Kind::NoRight);
    }

    proptest! {
        #[test]
        fn every_id_survives_its_token(id in "\\PC{1,40}") {
            let claims = serde_json::json!({ "sub": id }).to_string();
            match user(USER_ID, &id) {
                Ok(id) => prop_assert_eq!(claimed(&claims), Ok(Some(id))),
                Err(_) => prop_assert!(claimed(&claims).is_err()),
            }
        }
    }
}
