//! Recording with the cost out of Exa's own answer.

mod common;
mod usage_common;

use common::{error_of, one, run_sql};
use usage_common::{
    assert_books_hold, assert_unchanged, balance, books, column, no_free_allowance, recorded, state,
};

fn call(response: &str) -> String {
    format!("record_exa_response('u', '/search', $json${response}$json$)")
}

#[test]
fn dollars_are_rounded_half_up_to_microdollars() {
    let (_db, mut c) = books();
    for (total, cost) in [
        ("0.0049995", 5_000),
        ("0.0049994999999999999999", 4_999),
        ("0.005", 5_000),
        ("5e-3", 5_000),
        ("0.0000005", 1),
        ("0.0000015", 2),
        ("0.1", 100_000),
        ("1", 1_000_000),
        ("1.0", 1_000_000),
        ("12.345678", 12_345_678),
        ("1e3", 1_000_000_000),
        // Beyond what a double would keep.
        ("9007199254.7409914", 9_007_199_254_740_991),
        ("9007199254.740990", 9_007_199_254_740_990),
    ] {
        let response = format!(r#"{{"costDollars": {{"total": {total}}}}}"#);
        assert_eq!(recorded(&mut c, &call(&response)).cost, cost, "{total}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn the_rest_of_the_answer_does_not_matter() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let told = recorded(
        &mut c,
        "record_exa_response('u', '/contents', '{\"results\": [{\"total\": 9}, null], \"total\": 8,
            \"costDollars\": {\"search\": {\"neural\": 0.007}, \"total\": 0.006}}', 'org',
            feature_id => 'f', request_type => 't')",
    );
    assert_eq!(told.figures(), (6_000, 0, 6_000));
    let kept: String = one(
        &mut c,
        "select format('%s %s %s %s %s', user_id, organization_id, path, feature_id, request_type)
         from exa_usage_log",
        &[],
    );
    assert_eq!(kept, "u org /contents f t");
    assert_eq!(balance(&mut c, "organization", "org"), -6_000);
    assert_books_hold(&mut c);
}

#[test]
fn the_request_id_is_the_key() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let long = "ü".repeat(255);
    for id in ["req_1", "0", long.as_str()] {
        let response = format!(r#"{{"requestId": "{id}", "costDollars": {{"total": 0.005}}}}"#);
        let first = recorded(&mut c, &call(&response));
        let before = state(&mut c);
        assert_eq!(recorded(&mut c, &call(&response)), first.replayed());
        // The space is that of the user's requests, however they are told.
        let by_key = format!("record_exa_usage('u', '/search', 5000, null, '{id}')");
        assert_eq!(recorded(&mut c, &by_key), first.replayed());
        assert_unchanged(&mut c, &before, "a replay");
        let dearer = response.replace("0.005", "0.006");
        let error = error_of(&mut c, &format!("select {}", call(&dearer)));
        assert_eq!(error.code, "23505");
        let detail = error.detail.unwrap_or_default();
        assert_eq!(detail, r#"cost_microdollars was "5000", is now "6000"."#);
    }
    assert_eq!(balance(&mut c, "user", "u"), -15_000);
    assert_books_hold(&mut c);
}

#[test]
fn a_key_that_is_given_wins_over_the_request_id() {
    let (_db, mut c) = books();
    let with_key = |key: &str, id: &str| {
        format!(
            "record_exa_response('u', '/search', jsonb_build_object('requestId', '{id}',
                 'costDollars', '{{\"total\": 1}}'::jsonb), idempotency_key => '{key}')"
        )
    };
    let first = recorded(&mut c, &with_key("mine", "req_1"));
    assert_eq!(recorded(&mut c, &with_key("mine", "req_2")), first.replayed());
    assert!(!recorded(&mut c, &with_key("another", "req_1")).is_replay);
    let keys = "select idempotency_key from idempotency_keys order by 1";
    assert_eq!(column::<String>(&mut c, keys), ["another", "mine"]);
    assert_books_hold(&mut c);
}

#[test]
fn a_request_id_that_cannot_be_a_key_is_ignored() {
    let (_db, mut c) = books();
    let too_long = format!("\"{}\"", "r".repeat(256));
    for id in ["17", "\"\"", "null", "true", "[\"req\"]", "{\"id\": 1}", &too_long] {
        let response = format!(r#"{{"requestId": {id}, "costDollars": {{"total": 0.005}}}}"#);
        for _ in 0..2 {
            assert!(!recorded(&mut c, &call(&response)).is_replay, "{id}");
        }
    }
    assert_eq!(one::<i64>(&mut c, "select count(*) from exa_usage_log", &[]), 14);
    assert_eq!(one::<i64>(&mut c, "select count(*) from idempotency_keys", &[]), 0);
    assert_books_hold(&mut c);
}

/// The request has happened, and its id is not the caller's to mend: the charge
/// must not be lost over it.
#[test]
fn an_odd_request_id_refuses_no_charge() {
    let (_db, mut c) = books();
    for (count, id) in [" req_1", "req_1 ", "req\\t1", "\\u00a0req", " "].iter().enumerate() {
        let response = format!(r#"{{"requestId": "{id}", "costDollars": {{"total": 0.005}}}}"#);
        let result = c.execute(&format!("select {}", call(&response)), &[]);
        assert!(result.is_ok(), "{id:?}: {result:?}");
        let recorded: i64 = one(&mut c, "select count(*) from exa_usage_log", &[]);
        assert_eq!(recorded, count as i64 + 1);
    }
    assert_books_hold(&mut c);
}

#[test]
fn an_answer_that_costs_nothing_writes_nothing() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    for response in [
        "{}",
        r#"{"requestId": "req_1"}"#,
        r#"{"costDollars": null}"#,
        r#"{"costDollars": {}}"#,
        r#"{"costDollars": {"search": 1}}"#,
        r#"{"costDollars": {"total": null}}"#,
        r#"{"costDollars": {"total": 0}}"#,
        r#"{"costDollars": {"total": 0.000}}"#,
        r#"{"costDollars": {"total": -0}}"#,
        r#"{"costDollars": {"total": 0e-300}}"#,
    ] {
        let is_null: bool = one(&mut c, &format!("select {} is null", call(response)), &[]);
        assert!(is_null, "{response}");
        let row = c.query_one(&format!("select * from {}", call(response)), &[]).expect("a row");
        let id: Option<uuid::Uuid> = row.get("usage_id");
        assert_eq!(id, None, "{response}");
    }
    assert_unchanged(&mut c, &before, "an answer without a cost");
    // Nor does it use the key up.
    let answer = r#"{"requestId": "req_1", "costDollars": {"total": 0.005}}"#;
    assert!(!recorded(&mut c, &call(answer)).is_replay);
    assert_books_hold(&mut c);
}

#[test]
fn a_cost_that_is_none_is_refused() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    let many_digits = format!("{}.5", "9".repeat(3_000));
    for (total, message) in [
        ("\"0.005\"", "costDollars.total must be a JSON number"),
        ("\"NaN\"", "costDollars.total must be a JSON number"),
        ("true", "costDollars.total must be a JSON number"),
        ("[0.005]", "costDollars.total must be a JSON number"),
        ("{\"usd\": 1}", "costDollars.total must be a JSON number"),
        ("-0.005", "costDollars.total must not be negative"),
        ("-0.0000001", "costDollars.total must not be negative"),
        ("0.0000001", "costDollars.total is less than half a microdollar"),
        ("0.0000004999999", "costDollars.total is less than half a microdollar"),
        ("1e-300", "costDollars.total is less than half a microdollar"),
        ("1e400", "costDollars.total is too large"),
        ("9007199254.7409915", "costDollars.total is too large"),
        ("9007199254.740992", "costDollars.total is too large"),
        (many_digits.as_str(), "costDollars.total is too large"),
    ] {
        let response = format!(r#"{{"costDollars": {{"total": {total}}}}}"#);
        let error = error_of(&mut c, &format!("select {}", call(&response)));
        assert_eq!((error.code.as_str(), error.message.as_str()), ("22023", message), "{total}");
        assert!(error.detail.is_none_or(|detail| detail.len() < 200), "{total}");
    }
    for (response, named) in [
        ("[]", "response"),
        ("\"text\"", "response"),
        ("null", "response"),
        ("5", "response"),
        (r#"{"costDollars": 0.005}"#, "costDollars"),
        (r#"{"costDollars": [1]}"#, "costDollars"),
        (r#"{"costDollars": "free"}"#, "costDollars"),
    ] {
        let error = error_of(&mut c, &format!("select {}", call(response)));
        assert_eq!(error.code, "22023", "{response}");
        assert!(error.message.starts_with(named), "{response}: {}", error.message);
    }
    // No JSON at all: PostgreSQL's own words.
    for broken in ["{", r#"{"costDollars": {"total": NaN}}"#, r#"{"costDollars": {"total": .5}}"#] {
        assert_eq!(error_of(&mut c, &format!("select {}", call(broken))).code, "22P02", "{broken}");
    }
    assert_unchanged(&mut c, &before, "a refused answer");
    run_sql(&mut c, &format!("select {}", call(r#"{"costDollars": {"total": 0.005}}"#)));
    assert_books_hold(&mut c);
}
