//! Where a key is unique, and which calls are the same call.

use crate::error::{BillingError, Kind};
use crate::owner::{Owner, quoted};
use crate::time::Instant;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Where a key is unique. Lengths are part of the text wherever two free parts meet, so that no
/// two spaces can be spelt alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySpace(String);

impl KeySpace {
    /// Exa requests: one space per user, whatever the context.
    pub fn exa(user_id: &str) -> Self {
        Self(format!("exa/{user_id}"))
    }

    pub fn spend(owner: &Owner, source: &str) -> Self {
        Self(format!("spend/{}/{source}/{}/{}", source.len(), owner.kind.as_str(), owner.id))
    }

    pub fn credit(owner: &Owner) -> Self {
        Self(format!("credit/{}/{}", owner.kind.as_str(), owner.id))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A hash of all arguments but `created_at` and the key itself. Equal hashes are equal calls;
/// the journal row is only read to say what differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadHash(pub [u8; 16]);

impl PayloadHash {
    /// Parts are told apart by their length, absent ones by a length no text has.
    pub fn of(parts: &[Option<&str>]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            let length = part.map_or(u64::MAX, |text| text.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        let mut first_half = [0; 16];
        first_half.copy_from_slice(&hash.finalize()[..16]);
        Self(first_half)
    }
}

/// What a key recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub entry_id: Uuid,
    pub created_at: Instant,
    pub created_at_given: bool,
    pub payload_hash: Vec<u8>,
}

impl Known {
    /// Whether a later call asks for the same thing. `created_at` counts only when both calls
    /// gave it: a retry that leaves it out means the same event.
    pub fn is_same_call(&self, hash: PayloadHash, created_at: Option<Instant>) -> bool {
        let same_time = match created_at {
            Some(given) if self.created_at_given => given == self.created_at,
            _ => true,
        };
        self.payload_hash == hash.0 && same_time
    }
}

/// One argument, as it was and as it is now.
pub struct Compared<'a> {
    pub argument: &'a str,
    pub recorded: Option<String>,
    pub given: Option<String>,
}

/// `created_at` as it was and is; equal unless both calls gave one.
pub fn compared_times(known: &Known, given: Option<Instant>) -> Compared<'static> {
    let both_given = known.created_at_given && given.is_some();
    let shown = |time: Option<Instant>| time.filter(|_| both_given).map(|time| time.to_string());
    Compared {
        argument: "created_at",
        recorded: shown(Some(known.created_at)),
        given: shown(given),
    }
}

/// The error for a key that is used again for something else: it names what differs.
pub fn reused(key: &str, arguments: &[Compared]) -> BillingError {
    let shown = |value: &Option<String>| value.as_deref().map_or("null".to_owned(), quoted);
    let mut differences: Vec<String> = arguments
        .iter()
        .filter(|compared| compared.recorded != compared.given)
        .map(|compared| {
            let (was, is) = (shown(&compared.recorded), shown(&compared.given));
            format!("{} was {was}, is now {is}", compared.argument)
        })
        .collect();
    if differences.is_empty() {
        differences.push("an argument differs that is not recorded as it was given".to_owned());
    }
    BillingError::new(
        Kind::KeyReused,
        format!("idempotency key {} was used for another call", quoted(key)),
    )
    .detail(format!("{}.", differences.join("; ")))
    .hint("Give every event a key of its own, and a retry exactly the arguments of the first call.")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::OwnerKind;
    use proptest::prelude::*;

    #[test]
    fn spaces_cannot_be_spelt_alike() {
        let owner = |id: &str| Owner { kind: OwnerKind::User, id: id.to_owned() };
        assert_ne!(
            KeySpace::spend(&owner("b"), "a/user/x"),
            KeySpace::spend(&owner("x/user/b"), "a")
        );
        assert_ne!(KeySpace::exa("u"), KeySpace::credit(&owner("u")));
    }

    #[test]
    fn times_count_only_when_both_calls_gave_one() {
        let hash = PayloadHash::of(&[Some("a")]);
        let known = |given| Known {
            entry_id: Uuid::nil(),
            created_at: Instant(5),
            created_at_given: given,
            payload_hash: hash.0.to_vec(),
        };
        assert!(known(true).is_same_call(hash, Some(Instant(5))));
        assert!(!known(true).is_same_call(hash, Some(Instant(6))));
        assert!(known(false).is_same_call(hash, Some(Instant(6))));
        assert!(known(true).is_same_call(hash, None));
        assert!(!known(true).is_same_call(PayloadHash::of(&[Some("b")]), None));
    }

    #[test]
    fn times_differ_only_where_both_calls_gave_one() {
        let hash = PayloadHash::of(&[]).0.to_vec();
        for (known_given, given, shown) in [
            (
                true,
                Some(Instant(1)),
                [Some("2000-01-01 00:00:00+00"), Some("2000-01-01 00:00:00.000001+00")],
            ),
            (true, None, [None, None]),
            (false, Some(Instant(1)), [None, None]),
            (false, None, [None, None]),
        ] {
            let (entry_id, payload_hash) = (Uuid::nil(), hash.clone());
            let known = Known {
                entry_id,
                created_at: Instant(0),
                created_at_given: known_given,
                payload_hash,
            };
            let compared = compared_times(&known, given);
            assert_eq!([compared.recorded.as_deref(), compared.given.as_deref()], shown);
        }
    }

    #[test]
    fn spaces_say_whose_they_are() {
        let owner = Owner { kind: OwnerKind::Organization, id: "o".to_owned() };
        assert_eq!(KeySpace::exa("u").as_str(), "exa/u");
        assert_eq!(KeySpace::spend(&owner, "shop").as_str(), "spend/4/shop/organization/o");
        assert_eq!(KeySpace::credit(&owner).as_str(), "credit/organization/o");
    }

    #[test]
    fn the_error_names_what_differs_and_only_that() {
        let compared = |argument, recorded: &str, given: &str| Compared {
            argument,
            recorded: Some(recorded.to_owned()),
            given: Some(given.to_owned()),
        };
        let error =
            reused("k", &[compared("path", "/search", "/answer"), compared("cost", "1", "1")]);
        assert_eq!(error.detail.unwrap(), r#"path was "/search", is now "/answer"."#);
    }

    proptest! {
        #[test]
        fn hashes_keep_parts_apart(a in "[ab]{0,4}", b in "[ab]{0,4}", c in "[ab]{0,4}", d in "[ab]{0,4}") {
            let same = (a.as_str(), b.as_str()) == (c.as_str(), d.as_str());
            let left = PayloadHash::of(&[Some(&a), Some(&b)]);
            let right = PayloadHash::of(&[Some(&c), Some(&d)]);
            prop_assert_eq!(left == right, same);
            prop_assert_ne!(PayloadHash::of(&[None]), PayloadHash::of(&[Some(a.as_str())]));
        }
    }
}
