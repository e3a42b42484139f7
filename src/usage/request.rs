//! One Exa request as it is reported, checked; and what recording it returns.

use crate::error::{BillingError, Result};
use crate::idempotency::{Compared, Known, PayloadHash, compared_times};
use crate::money;
use crate::owner::{self, MAX_LABEL_CHARS, MAX_PATH_CHARS, quoted};
use crate::time::Instant;
use uuid::Uuid;

/// A request whose arguments obey the rules.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub user_id: &'a str,
    pub organization_id: Option<&'a str>,
    pub path: &'a str,
    pub cost: i64,
    pub key: Option<&'a str>,
    pub created_at: Option<Instant>,
    pub feature_id: Option<&'a str>,
    pub request_type: Option<&'a str>,
}

/// The same as it came in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arguments<'a> {
    pub user_id: Option<&'a str>,
    pub path: Option<&'a str>,
    pub cost_microdollars: Option<i64>,
    pub organization_id: Option<&'a str>,
    pub idempotency_key: Option<&'a str>,
    pub created_at: Option<Instant>,
    pub feature_id: Option<&'a str>,
    pub request_type: Option<&'a str>,
}

impl<'a> Arguments<'a> {
    pub fn check(self) -> Result<Request<'a>> {
        let label = |argument, value: Option<&'a str>| {
            value.map(|value| owner::bounded(argument, value, MAX_LABEL_CHARS)).transpose()
        };
        Ok(Request {
            user_id: owner::identifier("user_id", self.user_id)?,
            organization_id: owner::optional_identifier("organization_id", self.organization_id)?,
            path: path(self.path)?,
            cost: money::cost("cost_microdollars", self.cost_microdollars)?,
            key: owner::idempotency_key(self.idempotency_key)?,
            created_at: self.created_at,
            feature_id: label("feature_id", self.feature_id)?,
            request_type: label("request_type", self.request_type)?,
        })
    }
}

fn path(value: Option<&str>) -> Result<&str> {
    let value = value.ok_or_else(|| BillingError::missing("path"))?;
    if !value.starts_with('/') {
        return Err(BillingError::invalid("path must begin with a slash")
            .detail(format!("path is {}.", quoted(value)))
            .hint("Give the path of the Exa endpoint, such as '/search'."));
    }
    owner::bounded("path", value, MAX_PATH_CHARS)
}

impl Request<'_> {
    pub fn payload_hash(&self) -> PayloadHash {
        PayloadHash::of(&[
            self.organization_id,
            Some(self.path),
            Some(&self.cost.to_string()),
            self.feature_id,
            self.request_type,
        ])
    }

    /// This request beside the journal row its key recorded.
    pub fn compared_with(&self, known: &Known, journal: &Journaled) -> Vec<Compared<'static>> {
        let text = |value: Option<&str>| value.map(str::to_owned);
        vec![
            Compared {
                argument: "organization_id",
                recorded: journal.organization_id.clone(),
                given: text(self.organization_id),
            },
            Compared {
                argument: "path",
                recorded: Some(journal.path.clone()),
                given: text(Some(self.path)),
            },
            Compared {
                argument: "cost_microdollars",
                recorded: Some(journal.cost.to_string()),
                given: Some(self.cost.to_string()),
            },
            Compared {
                argument: "feature_id",
                recorded: journal.feature_id.clone(),
                given: text(self.feature_id),
            },
            Compared {
                argument: "request_type",
                recorded: journal.request_type.clone(),
                given: text(self.request_type),
            },
            compared_times(known, self.created_at),
        ]
    }
}

/// What a journal row of `exa_usage_log` says, as far as a replay needs it.
#[derive(Debug, Clone)]
pub struct Journaled {
    pub organization_id: Option<String>,
    pub path: String,
    pub cost: i64,
    pub charged: i64,
    pub feature_id: Option<String>,
    pub request_type: Option<String>,
    pub free_allowance: Option<i64>,
}

/// What a recording function returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    pub usage_id: Uuid,
    pub created_at: Instant,
    pub cost: i64,
    pub charged: i64,
    pub free_allowance: Option<i64>,
    pub is_replay: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: Arguments = Arguments {
        user_id: Some("user-1"),
        path: Some("/search"),
        cost_microdollars: Some(5000),
        organization_id: None,
        idempotency_key: None,
        created_at: None,
        feature_id: None,
        request_type: None,
    };

    #[test]
    fn good_arguments_pass() {
        assert!(GOOD.check().is_ok());
        assert!(Arguments { cost_microdollars: Some(0), ..GOOD }.check().is_ok());
        assert!(Arguments { path: Some("/research/v1?x=1"), ..GOOD }.check().is_ok());
    }

    #[test]
    fn each_bad_argument_is_named() {
        let (long_path, long) = (format!("/{}", "p".repeat(1024)), "x".repeat(129));
        for (bad, argument) in [
            (Arguments { user_id: None, ..GOOD }, "user_id"),
            (Arguments { user_id: Some(""), ..GOOD }, "user_id"),
            (Arguments { organization_id: Some(" o"), ..GOOD }, "organization_id"),
            (Arguments { path: None, ..GOOD }, "path"),
            (Arguments { path: Some("search"), ..GOOD }, "path"),
            (Arguments { path: Some(&long_path), ..GOOD }, "path"),
            (Arguments { cost_microdollars: None, ..GOOD }, "cost_microdollars"),
            (Arguments { cost_microdollars: Some(-1), ..GOOD }, "cost_microdollars"),
            (Arguments { cost_microdollars: Some(1 << 53), ..GOOD }, "cost_microdollars"),
            (Arguments { idempotency_key: Some(""), ..GOOD }, "idempotency_key"),
            (Arguments { feature_id: Some(&long), ..GOOD }, "feature_id"),
            (Arguments { request_type: Some(&long), ..GOOD }, "request_type"),
        ] {
            let error = bad.check().unwrap_err();
            assert!(error.message.starts_with(argument), "{argument}: {error}");
        }
    }

    #[test]
    fn a_request_differs_from_its_journal_row_in_what_was_given_otherwise() {
        let request = Arguments {
            organization_id: Some("o"),
            feature_id: Some("f"),
            request_type: Some("t"),
            created_at: Some(Instant(1)),
            ..GOOD
        };
        let request = request.check().unwrap();
        let same = Journaled {
            organization_id: Some("o".to_owned()),
            path: "/search".to_owned(),
            cost: 5000,
            charged: 0,
            feature_id: Some("f".to_owned()),
            request_type: Some("t".to_owned()),
            free_allowance: None,
        };
        let known = |microseconds| Known {
            entry_id: Uuid::nil(),
            created_at: Instant(microseconds),
            created_at_given: true,
            payload_hash: Vec::new(),
        };
        let differing = |known: &Known, journal: &Journaled| -> Vec<&str> {
            let all = request.compared_with(known, journal);
            let differing = all.iter().filter(|compared| compared.recorded != compared.given);
            differing.map(|compared| compared.argument).collect()
        };
        assert_eq!(differing(&known(1), &same), [""; 0]);
        let other = Journaled {
            organization_id: None,
            path: "/answer".to_owned(),
            cost: 5001,
            feature_id: None,
            request_type: None,
            ..same
        };
        assert_eq!(
            differing(&known(2), &other),
            [
                "organization_id",
                "path",
                "cost_microdollars",
                "feature_id",
                "request_type",
                "created_at"
            ]
        );
    }

    #[test]
    fn the_hash_covers_every_argument_but_key_and_time() {
        let hash = |arguments: Arguments| arguments.check().unwrap().payload_hash();
        let base = hash(GOOD);
        assert_eq!(base, hash(Arguments { idempotency_key: Some("k"), ..GOOD }));
        assert_eq!(base, hash(Arguments { created_at: Some(Instant(1)), ..GOOD }));
        for other in [
            Arguments { organization_id: Some("o"), ..GOOD },
            Arguments { path: Some("/answer"), ..GOOD },
            Arguments { cost_microdollars: Some(5001), ..GOOD },
            Arguments { feature_id: Some("f"), ..GOOD },
            Arguments { request_type: Some("f"), ..GOOD },
        ] {
            assert_ne!(base, hash(other));
        }
    }
}
