//! Idempotency keys: a retry replays, anything else under the same key is told
//! what differs.

mod common;
mod usage_common;

use common::{error_of, one, run_sql};
use postgres::Client;
use usage_common::{
    assert_books_hold, assert_unchanged, balance, books, column, no_free_allowance, recorded,
    state, usage,
};
use uuid::Uuid;

/// How a call of each function that takes a key begins.
const EXA: &str = "record_exa_usage(user_id => 'u'";
const SPEND: &str = "record_spend(owner_kind => 'user', owner_id => 'u'";
const CREDIT: &str = "grant_credit(owner_kind => 'user', owner_id => 'u'";

/// A call under key `k` with its usual arguments, of which some are others.
fn call(beginning: &str, usual: &[(&str, &str)], others: &[(&str, &str)]) -> String {
    let mut arguments = vec![("idempotency_key", "'k'")];
    arguments.extend(usual);
    for (name, value) in others {
        match arguments.iter_mut().find(|(known, _)| known == name) {
            Some(argument) => argument.1 = value,
            None => arguments.push((name, value)),
        }
    }
    let named: String =
        arguments.iter().map(|(name, value)| format!(", {name} => {value}")).collect();
    format!("{beginning}{named})")
}

const EXA_USUAL: [(&str, &str); 2] = [("path", "'/search'"), ("cost_microdollars", "5000")];
const SPEND_USUAL: [(&str, &str); 4] = [
    ("amount_microdollars", "5000"),
    ("spend_category", "'variable'"),
    ("source", "'shop'"),
    ("product_key", "'p'"),
];
const CREDIT_USUAL: [(&str, &str); 1] = [("amount_microdollars", "5000")];

#[test]
fn a_retry_returns_the_first_result_and_writes_nothing() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(7000, '2020-01-01', null, 'split')");
    let retried = [
        call(EXA, &EXA_USUAL, &[]),
        call(EXA, &EXA_USUAL, &[("idempotency_key", "'crossing'")]),
        call(EXA, &EXA_USUAL, &[("idempotency_key", "'paid'"), ("organization_id", "'org'")]),
        call(EXA, &EXA_USUAL, &[("idempotency_key", "'nothing'"), ("cost_microdollars", "0")]),
        call(SPEND, &SPEND_USUAL, &[]),
        "record_exa_response('u', '/x', '{\"requestId\": \"r\", \"costDollars\": {\"total\": 1}}')"
            .into(),
    ];
    let firsts: Vec<_> = retried.iter().map(|call| recorded(&mut c, call)).collect();
    let figures: Vec<_> = firsts.iter().map(|first| first.figures()).collect();
    assert_eq!(
        figures,
        [
            (5_000, 5_000, 0),
            (5_000, 2_000, 3_000),
            (5_000, 0, 5_000),
            (0, 0, 0),
            (5_000, 0, 5_000),
            (1_000_000, 0, 1_000_000)
        ]
    );
    let grant = format!("select {}", call(CREDIT, &CREDIT_USUAL, &[]));
    let granted: Uuid = one(&mut c, &grant, &[]);

    for (round, next) in [
        ("unposted", "select post_spend()"),
        ("posted", "select set_free_allowance(0, '2020-01-01')"),
        ("under another policy", "select set_organization_member('org', 'u', 'billing_manager')"),
        ("in a role that may not spend", "select remove_organization_member('org', 'u')"),
    ] {
        let before = state(&mut c);
        for (call, first) in retried.iter().zip(&firsts) {
            assert_eq!(recorded(&mut c, call), first.replayed(), "{round}: {call}");
            let as_value: String = one(&mut c, &format!("select ({call})::text"), &[]);
            assert!(as_value.contains(&first.usage_id.to_string()), "{round}: {as_value}");
            assert!(as_value.ends_with(",t)"), "{round}: {as_value}");
        }
        assert_eq!(one::<Uuid>(&mut c, &grant, &[]), granted, "{round}");
        assert_unchanged(&mut c, &before, round);
        run_sql(&mut c, next);
    }
    assert_books_hold(&mut c);
}

/// Asserts that the usual call, once recorded, is told exactly these differences.
#[track_caller]
fn differs(c: &mut Client, call: &str, detail: &str) {
    let before = state(c);
    let error = error_of(c, &format!("select {call}"));
    assert_eq!(error.code, "23505", "{call}");
    assert_eq!(error.message, "idempotency key \"k\" was used for another call", "{call}");
    assert_eq!(error.detail.as_deref(), Some(detail), "{call}");
    assert_unchanged(c, &before, call);
}

#[test]
fn another_request_under_the_same_key_is_told_what_differs() {
    let (_db, mut c) = books();
    let usual = [EXA_USUAL[0], EXA_USUAL[1], ("feature_id", "'f'")];
    recorded(&mut c, &call(EXA, &usual, &[]));
    for (name, value, detail) in [
        ("path", "'/answer'", r#"path was "/search", is now "/answer"."#),
        ("path", "'/search '", r#"path was "/search", is now "/search "."#),
        ("cost_microdollars", "5001", r#"cost_microdollars was "5000", is now "5001"."#),
        ("cost_microdollars", "0", r#"cost_microdollars was "5000", is now "0"."#),
        ("organization_id", "'org'", r#"organization_id was null, is now "org"."#),
        ("feature_id", "null", r#"feature_id was "f", is now null."#),
        ("feature_id", "''", r#"feature_id was "f", is now ""."#),
        ("request_type", "'null'", r#"request_type was null, is now "null"."#),
    ] {
        differs(&mut c, &call(EXA, &usual, &[(name, value)]), detail);
    }
    differs(
        &mut c,
        &call(
            EXA,
            &usual,
            &[
                ("organization_id", "'org'"),
                ("path", "'/answer'"),
                ("cost_microdollars", "1"),
                ("feature_id", "'g'"),
                ("request_type", "'t'"),
            ],
        ),
        "organization_id was null, is now \"org\"; path was \"/search\", is now \"/answer\"; \
         cost_microdollars was \"5000\", is now \"1\"; feature_id was \"f\", is now \"g\"; \
         request_type was null, is now \"t\".",
    );
    assert_books_hold(&mut c);
}

#[test]
fn another_charge_under_the_same_key_is_told_what_differs() {
    let (_db, mut c) = books();
    let usual =
        [SPEND_USUAL[0], SPEND_USUAL[1], SPEND_USUAL[2], SPEND_USUAL[3], ("feature_key", "'f'")];
    recorded(&mut c, &call(SPEND, &usual, &[]));
    for (name, value, detail) in [
        ("amount_microdollars", "1", r#"amount_microdollars was "5000", is now "1"."#),
        ("spend_category", "'scheduled'", r#"spend_category was "variable", is now "scheduled"."#),
        ("product_key", "'q'", r#"product_key was "p", is now "q"."#),
        ("feature_key", "'g'", r#"feature_key was "f", is now "g"."#),
        ("model_or_plan_key", "'m'", r#"model_or_plan_key was "other", is now "m"."#),
        ("provider_key", "'m'", r#"provider_key was "other", is now "m"."#),
        ("actor_user_id", "'u'", r#"actor_user_id was null, is now "u"."#),
    ] {
        differs(&mut c, &call(SPEND, &usual, &[(name, value)]), detail);
    }
    differs(
        &mut c,
        &call(SPEND, &usual, &[("amount_microdollars", "7"), ("provider_key", "'m'")]),
        "amount_microdollars was \"5000\", is now \"7\"; provider_key was \"other\", is now \"m\".",
    );
    assert_books_hold(&mut c);
}

#[test]
fn another_grant_under_the_same_key_is_told_what_differs() {
    let (_db, mut c) = books();
    run_sql(&mut c, &format!("select {}", call(CREDIT, &CREDIT_USUAL, &[])));
    for (name, value, detail) in [
        ("amount_microdollars", "1", r#"amount_microdollars was "5000", is now "1"."#),
        ("credit_category", "'promo'", r#"credit_category was null, is now "promo"."#),
        ("description", "'for you'", r#"description was null, is now "for you"."#),
        ("is_free", "true", r#"is_free was "false", is now "true"."#),
    ] {
        differs(&mut c, &call(CREDIT, &CREDIT_USUAL, &[(name, value)]), detail);
    }
    assert_eq!(balance(&mut c, "user", "u"), 5_000);
    assert_books_hold(&mut c);
}

#[test]
fn a_purchase_under_the_key_of_a_plain_charge_is_told_so() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select grant_credit('user', 'u', 100000)");
    recorded(&mut c, &call(SPEND, &SPEND_USUAL, &[]));
    let purchase = call(SPEND, &SPEND_USUAL, &[("require_balance", "true")]);
    let error = error_of(&mut c, &format!("select {purchase}"));
    assert_eq!(error.code, "23505");
    let detail = error.detail.unwrap_or_default();
    assert_eq!(detail, r#"require_balance was "false", is now "true"."#);
}

/// The journal keeps dimensions in plain form. Two that are the same there are
/// either the same call or named as what differs; anything else helps nobody.
#[test]
fn a_difference_that_the_journal_does_not_keep_is_a_replay_or_named() {
    let (_db, mut c) = books();
    recorded(&mut c, &call(SPEND, &SPEND_USUAL, &[("model_or_plan_key", "'modèle'")]));
    for (name, value) in [
        ("model_or_plan_key", "'模型'"),
        ("model_or_plan_key", "null"),
        ("model_or_plan_key", "'other'"),
        ("product_key", "' p'"),
        ("feature_key", "null"),
    ] {
        let others = [("model_or_plan_key", "'modèle'"), (name, value)];
        let again = call(SPEND, &SPEND_USUAL, &others);
        match c.query_one(&format!("select * from {again}"), &[]) {
            Ok(row) => assert!(row.get::<_, bool>("is_replay"), "{again}"),
            Err(error) => {
                let error = error.as_db_error().expect("an error of the server").clone();
                assert_eq!(error.code().code(), "23505", "{again}");
                let detail = error.detail().unwrap_or_default();
                assert!(detail.starts_with(name), "{again}: {detail}");
            }
        }
    }
    assert_eq!(one::<i64>(&mut c, "select count(*) from spend_log", &[]), 1);
}

#[test]
fn times_count_only_when_both_calls_gave_one() {
    let (_db, mut c) = books();
    run_sql(&mut c, "set timezone = 'UTC'");
    let day: String = one(
        &mut c,
        "select to_char(now() at time zone 'UTC' - interval '3 days', 'YYYY-MM-DD')",
        &[],
    );
    let given = format!("'{day} 10:00:00+00'");
    let zone = format!("'{day} 12:00:00.000000+02'");
    let other = format!("'{day} 10:00:00.000001+00'");
    let detail =
        format!(r#"created_at was "{day} 10:00:00+00", is now "{day} 10:00:00.000001+00"."#);
    for (beginning, usual) in
        [(EXA, &EXA_USUAL[..]), (SPEND, &SPEND_USUAL[..]), (CREDIT, &CREDIT_USUAL[..])]
    {
        // The first call gave one.
        let with = |time: &str| call(beginning, usual, &[("created_at", time)]);
        run_sql(&mut c, &format!("select {}", with(&given)));
        let before = state(&mut c);
        for same in [given.as_str(), zone.as_str(), "null"] {
            run_sql(&mut c, &format!("select {}", with(same)));
        }
        assert_unchanged(&mut c, &before, beginning);
        differs(&mut c, &with(&other), &detail);

        // The first call gave none.
        let with = |time: &str| with(time).replace("'k'", "'without'");
        run_sql(&mut c, &format!("select {}", with("null")));
        let before = state(&mut c);
        for any in [given.as_str(), other.as_str(), "null"] {
            run_sql(&mut c, &format!("select {}", with(any)));
        }
        assert_unchanged(&mut c, &before, beginning);
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_retry_replays_however_late_it_comes() {
    let (_db, mut c) = books();
    let time = one::<String>(&mut c, "select (now() - interval '150 days')::text", &[]);
    let at = format!("'{time}'");
    let dated = [("created_at", at.as_str())];
    let calls = [call(EXA, &EXA_USUAL, &dated), call(SPEND, &SPEND_USUAL, &dated)];
    run_sql(&mut c, "set exa_billing.late_usage_limit = '200d'");
    let firsts = calls.clone().map(|call| recorded(&mut c, &call));
    run_sql(&mut c, "reset exa_billing.late_usage_limit");
    let before = state(&mut c);
    for (call, first) in calls.iter().zip(&firsts) {
        assert_eq!(recorded(&mut c, call), first.replayed());
        // A call that is not known is too late.
        let error = error_of(&mut c, &format!("select {}", call.replace("'k'", "'new'")));
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("22023", "created_at is too long ago")
        );
    }
    let batch: bool = one(
        &mut c,
        &format!(
            "select is_replay from record_exa_usage_batch(jsonb_build_array(jsonb_build_object(
                 'user_id', 'u', 'path', '/search', 'cost_microdollars', 5000,
                 'idempotency_key', 'k', 'created_at', {at}::timestamptz)))"
        ),
        &[],
    );
    assert!(batch);
    assert_unchanged(&mut c, &before, "an old retry");
    assert_books_hold(&mut c);
}

#[test]
fn a_retry_is_known_before_its_own_time_is_looked_at() {
    let (_db, mut c) = books();
    let calls = [(EXA, &EXA_USUAL[..]), (SPEND, &SPEND_USUAL[..])];
    let firsts = calls.map(|(beginning, usual)| recorded(&mut c, &call(beginning, usual, &[])));
    let before = state(&mut c);
    for ((beginning, usual), first) in calls.iter().zip(&firsts) {
        // In a month without partition, and in the future.
        for time in ["now() - interval '3 years'", "now() + interval '3 years'"] {
            let again = call(beginning, usual, &[("created_at", time)]);
            assert_eq!(recorded(&mut c, &again), first.replayed(), "{again}");
        }
    }
    assert_unchanged(&mut c, &before, "a retry");
    assert_books_hold(&mut c);
}

#[test]
fn key_spaces_are_independent_of_each_other() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    // The same key everywhere, each time for something else.
    let separate = [
        "record_exa_usage('a', '/search', 1, null, 'k')",
        "record_exa_usage('b', '/search', 2, null, 'k')",
        "record_spend('user', 'a', 4, 'variable', 'shop', 'p', idempotency_key => 'k')",
        "record_spend('user', 'b', 8, 'variable', 'shop', 'p', idempotency_key => 'k')",
        "record_spend('organization', 'a', 16, 'variable', 'shop', 'p', idempotency_key => 'k')",
        "record_spend('user', 'a', 32, 'variable', 'other', 'p', idempotency_key => 'k')",
        "record_spend('user', 'a', 64, 'variable', 'kiloclaw', 'p', idempotency_key => 'k')",
    ];
    for call in separate {
        assert!(!recorded(&mut c, call).is_replay, "{call}");
    }
    let grants = column::<Uuid>(
        &mut c,
        "select grant_credit(kind, id, 1000, idempotency_key => 'k')
         from (values ('user', 'a'), ('user', 'b'), ('organization', 'a')) as owners(kind, id)",
    );
    assert_eq!(grants.len(), 3);
    let before = state(&mut c);
    for call in separate {
        assert!(recorded(&mut c, call).is_replay, "{call}");
    }
    assert_unchanged(&mut c, &before, "a replay");
    for (kind, id, left) in [("user", "a", 899), ("user", "b", 990), ("organization", "a", 984)] {
        assert_eq!(balance(&mut c, kind, id), left, "{kind} {id}");
    }
    // A user's requests share one space, for whomever they are made.
    let other_context = "record_exa_usage('a', '/search', 1, 'org', 'k')";
    differs(&mut c, other_context, r#"organization_id was null, is now "org"."#);
    assert_books_hold(&mut c);
}

#[test]
fn keys_that_only_look_alike_are_different() {
    let (_db, mut c) = books();
    for key in ["key", "Key", "KEY", "ke y", "e\u{301}", "\u{e9}", "key.", "%", "null"] {
        let recorded = usage(&mut c, &format!("'u', '/search', 5, null, '{key}'"));
        assert!(!recorded.is_replay, "{key:?}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn without_a_key_nothing_is_taken_for_a_retry() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select record_exa_usage('u', '/search', 5),
                record_exa_usage('u', '/search', 5, null, null),
                record_spend('user', 'u', 5, 'variable', 'shop', 'p'),
                record_spend('user', 'u', 5, 'variable', 'shop', 'p'),
                grant_credit('user', 'u', 7), grant_credit('user', 'u', 7)",
    );
    assert_eq!(one::<i64>(&mut c, "select count(*) from exa_usage_log", &[]), 2);
    assert_eq!(balance(&mut c, "user", "u"), 4);
    assert_eq!(one::<i64>(&mut c, "select count(*) from idempotency_keys", &[]), 0);
    assert_books_hold(&mut c);
}

/// An index row has room for 2,704 bytes, and PostgreSQL would compress a text
/// that repeats itself: these do not.
#[test]
fn the_longest_keys_ids_and_sources_of_the_widest_characters_work_together() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let mut seed = 1_u32;
    let mut wide = |characters: usize| -> String {
        let mut next = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // A plane of four-byte characters without gaps.
            char::from_u32(0x2_0000 + (seed >> 8) % 0xa000).expect("a character")
        };
        (0..characters).map(|_| next()).collect()
    };
    let (user, organization, key, source) = (wide(255), wide(255), wide(255), wide(128));
    assert_eq!(key.len(), 1020);
    let exa = "select is_replay from record_exa_usage($1, '/x', 5, $2, $3)";
    let spend = "select is_replay from record_spend('organization', $2, 5, 'variable', $4, $1,
                     actor_user_id => $1, idempotency_key => $3)";
    let batch = "select is_replay from record_exa_usage_batch(jsonb_build_array(jsonb_build_object(
                     'user_id', $1::text, 'path', '/x', 'cost_microdollars', 5,
                     'organization_id', $2::text, 'idempotency_key', $3::text)))";
    for is_replay in [false, true] {
        assert_eq!(one::<bool>(&mut c, exa, &[&user, &organization, &key]), is_replay);
        let of_spend: bool = one(&mut c, spend, &[&user, &organization, &key, &source]);
        assert_eq!(of_spend, is_replay);
        assert!(one::<bool>(&mut c, batch, &[&user, &organization, &key]));
        run_sql(&mut c, "select post_spend()");
    }
    let grant = "select grant_credit('organization', $1, 100, idempotency_key => $2)";
    let granted: Uuid = one(&mut c, grant, &[&organization, &key]);
    assert_eq!(one::<Uuid>(&mut c, grant, &[&organization, &key]), granted);
    c.execute("select set_organization_member($1, $2, 'member', 50)", &[&organization, &user])
        .expect("a member");
    let remaining = "select member_limit_remaining_microdollars from check_exa_usage($1, $2)";
    assert_eq!(one::<i64>(&mut c, remaining, &[&user, &organization]), 40);
    assert_eq!(balance(&mut c, "organization", &organization), 90);
    assert_books_hold(&mut c);
}
