//! Several mailers at once: nobody gets what another one has, and of those who finish one delivery
//! exactly one is heard.

mod common;
mod notifications_common;
mod sessions;

use std::collections::BTreeSet;

use common::{one, run_sql};
use notifications_common::*;
use sessions::{IMPATIENT, in_sessions, verify};

#[test]
fn mailers_never_share_a_delivery() {
    const MAILERS: usize = 8;
    const DELIVERIES: usize = 400;
    let db = served_books();
    let mut client = db.client();
    for n in 0..DELIVERIES {
        low(&mut client, "user", &format!("user-{n}"));
    }
    let handed_out = in_sessions(&db, MAILERS, IMPATIENT, |_, client| {
        let mut got = Vec::new();
        // While others hold the rest, a claim may be empty too early; the count tells the end.
        let open =
            "SELECT count(*) FROM exa_billing.notification_deliveries WHERE status = 'pending'";
        loop {
            let claimed = claim(client, "7");
            for one in &claimed {
                assert!(complete(client, one));
            }
            got.extend(claimed);
            if one::<i64>(client, open, &[]) == 0 {
                return got;
            }
        }
    });
    let all: Vec<&Claimed> = handed_out.iter().flatten().collect();
    let different: BTreeSet<_> = all.iter().map(|claimed| claimed.delivery).collect();
    assert_eq!((all.len(), different.len()), (DELIVERIES, DELIVERIES));
    assert!(all.iter().all(|claimed| claimed.attempt == 1));
    assert!(handed_out.iter().filter(|got| !got.is_empty()).count() > 1, "more than one had work");
    let sent = "SELECT count(*) FROM exa_billing.notification_deliveries WHERE status = 'sent'";
    assert_eq!(one::<i64>(&mut client, sent, &[]), DELIVERIES as i64);
    verify(&mut client);
}

/// What one of those did who raced for a delivery.
#[derive(Debug, PartialEq)]
enum Did {
    Complete(bool),
    Fail(Option<String>),
    Claim(usize),
}

#[test]
fn of_complete_fail_and_claim_exactly_one_is_heard() {
    let db = served_books();
    let mut client = db.client();
    for round in 0..60 {
        low(&mut client, "user", &format!("user-{round}"));
        // Its lease has run out, so all three may have it.
        let claimed = claim_one(&mut client, "1 microsecond");
        let did = in_sessions(&db, 3, IMPATIENT, |session, client| match session {
            0 => Did::Complete(complete(client, &claimed)),
            1 => Did::Fail(fail(client, &claimed, Some("busy"))),
            _ => Did::Claim(claim(client, "5").len()),
        });
        let pending = || Some("pending".to_owned());
        let (status, attempts, error) = status(&mut client, &claimed);
        let expected = match status.as_str() {
            "sent" => [Did::Complete(true), Did::Fail(None), Did::Claim(0)],
            "pending" => [Did::Complete(false), Did::Fail(pending()), Did::Claim(0)],
            "sending" => [Did::Complete(false), Did::Fail(None), Did::Claim(1)],
            other => panic!("{other}"),
        };
        assert_eq!(did, expected, "round {round}");
        assert_eq!(attempts, if status == "sending" { 2 } else { 1 });
        assert_eq!(error.is_some(), status == "pending");
        run_sql(&mut client, "DELETE FROM exa_billing.notification_deliveries");
    }
}

#[test]
fn two_who_complete_with_one_token_hear_the_same() {
    let db = served_books();
    let mut client = db.client();
    for round in 0..30 {
        low(&mut client, "user", &format!("user-{round}"));
        let claimed = claim_one(&mut client, "5 minutes");
        let heard = in_sessions(&db, 4, IMPATIENT, |_, client| complete(client, &claimed));
        assert_eq!(heard, [true; 4], "round {round}");
    }
}

#[test]
fn leases_that_run_out_are_handed_out_five_times_however_many_ask() {
    let db = served_books();
    let mut client = db.client();
    low(&mut client, "user", "ann");
    let handed_out = in_sessions(&db, 6, IMPATIENT, |_, client| {
        (0..40).flat_map(|_| claim(client, "3, '1 microsecond'")).collect::<Vec<_>>()
    });
    let all: Vec<Claimed> = handed_out.into_iter().flatten().collect();
    let tokens: BTreeSet<_> = all.iter().map(|claimed| claimed.token).collect();
    let attempts: BTreeSet<_> = all.iter().map(|claimed| claimed.attempt).collect();
    assert_eq!((all.len(), tokens.len()), (5, 5));
    assert_eq!(attempts, BTreeSet::from([1, 2, 3, 4, 5]));
    assert_eq!(status(&mut client, &all[0]).0, "dead");
}

/// A mailer that holds what it has claimed in an open transaction keeps nobody else waiting.
#[test]
fn a_claim_that_is_not_committed_holds_nobody_back() {
    let db = served_books();
    let (mut client, mut other) = (db.client(), db.client_with(IMPATIENT));
    low(&mut client, "user", "ann");
    let mut open = client.transaction().unwrap();
    let ann = claim_one(&mut open, "5 minutes");
    low(&mut other, "user", "bob");
    let bob = claim_one(&mut other, "5 minutes");
    assert_eq!((ann.recipient.as_str(), bob.recipient.as_str()), ("ann", "bob"));
    assert!(complete(&mut other, &bob));
    open.commit().unwrap();
    assert!(complete(&mut other, &ann));
}
