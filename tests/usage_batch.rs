//! Many requests at once: what one by one would have recorded, or nothing.

mod common;
mod usage_common;

use common::{error_of, one, run_sql, wait_until};
use postgres::Client;
use serde_json::{Value, json};
use usage_common::{
    Recorded, assert_books_hold, assert_unchanged, balance, books, column, decision,
    no_free_allowance, recorded, session, state, usage,
};

fn batch(c: &mut Client, elements: &Value) -> Vec<Recorded> {
    let rows = c.query("select * from record_exa_usage_batch($1)", &[elements]);
    rows.unwrap_or_else(|error| panic!("{elements}\n{error:?}"))
        .iter()
        .map(Recorded::from)
        .collect()
}

fn call(elements: &str) -> String {
    format!("select record_exa_usage_batch($json${elements}$json$)")
}

#[test]
fn elements_are_recorded_in_their_order() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(100, '2020-01-01', null, 'split')");
    let results = batch(
        &mut c,
        &json!([
            {"user_id": "u", "path": "/search", "cost_microdollars": 60},
            {"user_id": "v", "path": "/search", "cost_microdollars": 90, "organization_id": "org"},
            {"user_id": "u", "path": "/answer", "cost_microdollars": 60, "organization_id": "org"},
            {"user_id": "u", "path": "/x", "cost_microdollars": 5, "feature_id": "f",
             "request_type": "t", "idempotency_key": null, "organization_id": null},
            {"user_id": "v", "path": "/search", "cost_microdollars": 0},
            {"user_id": "v", "path": "/search", "cost_microdollars": 11},
        ]),
    );
    let figures: Vec<_> = results.iter().map(Recorded::figures).collect();
    let expected = [(60, 60, 0), (90, 90, 0), (60, 40, 20), (5, 0, 5), (0, 0, 0), (11, 10, 1)];
    assert_eq!(figures, expected);
    assert!(results.iter().all(|result| result.allowance == Some(100) && !result.is_replay));
    let journal = column::<String>(
        &mut c,
        "select concat_ws(' ', user_id, organization_id, path, cost_microdollars,
                          charged_microdollars, feature_id, request_type)
         from exa_usage_log where created_at = (select min(created_at) from exa_usage_log)
         order by usage_id",
    );
    assert_eq!(
        journal,
        [
            "u /search 60 0",
            "v org /search 90 0",
            "u org /answer 60 20",
            "u /x 5 5 f t",
            "v /search 0 0",
            "v /search 11 1"
        ]
    );
    for _ in 0..2 {
        assert_eq!(balance(&mut c, "organization", "org"), -20);
        assert_eq!(balance(&mut c, "user", "u"), -5);
        assert_eq!(balance(&mut c, "user", "v"), -1);
        assert_eq!(decision(&mut c, "'u'").month_used, 100);
        assert_books_hold(&mut c);
        run_sql(&mut c, "select post_spend()");
    }
}

#[test]
fn a_key_repeated_inside_a_batch_is_a_replay() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let known = usage(&mut c, "'u', '/search', 7, null, 'known'");
    let element = |key: &str, cost: i64| {
        json!({"user_id": "u", "path": "/search", "cost_microdollars": cost,
               "idempotency_key": key})
    };
    let mut of_another = element("new", 9);
    of_another["user_id"] = "v".into();
    let mut dated = element("new", 5);
    dated["created_at"] = "2020-01-01T00:00:00Z".into();
    let results = batch(
        &mut c,
        &json!([
            element("new", 5),
            element("known", 7),
            element("new", 5),
            of_another,
            element("known", 7),
            // Its time does not count, since the first gave none.
            dated,
        ]),
    );
    assert_eq!(results[1], known.replayed());
    assert_eq!(results[2], results[0].replayed());
    assert_eq!((results[3].charged, results[3].is_replay), (9, false));
    assert_eq!(results[4], known.replayed());
    assert_eq!(results[5], results[0].replayed());
    assert_eq!(one::<i64>(&mut c, "select count(*) from exa_usage_log", &[]), 3);
    assert_eq!(balance(&mut c, "user", "u"), -12);

    // And the whole batch can be sent again, as can each of its elements.
    let before = state(&mut c);
    let again = batch(&mut c, &json!([element("new", 5), element("known", 7)]));
    assert_eq!(again, [results[0].replayed(), known.replayed()]);
    assert_eq!(usage(&mut c, "'u', '/search', 5, null, 'new'"), results[0].replayed());
    assert_unchanged(&mut c, &before, "a replay");
    assert_books_hold(&mut c);
}

#[test]
fn a_key_repeated_for_something_else_names_its_element() {
    let (_db, mut c) = books();
    usage(&mut c, "'u', '/search', 7, null, 'known'");
    let before = state(&mut c);
    let good =
        r#"{"user_id": "u", "path": "/search", "cost_microdollars": 5, "idempotency_key": "new"}"#;
    for (other, key, detail) in [
        (
            r#"{"user_id": "u", "path": "/answer", "cost_microdollars": 5,
                "idempotency_key": "new"}"#,
            "new",
            r#"path was "/search", is now "/answer"."#,
        ),
        (
            r#"{"user_id": "u", "path": "/search", "cost_microdollars": 8,
                "idempotency_key": "known"}"#,
            "known",
            r#"cost_microdollars was "7", is now "8"."#,
        ),
    ] {
        let error = error_of(&mut c, &call(&format!("[{good}, {good}, {other}]")));
        assert_eq!(error.code, "23505");
        let message = format!("usage[2]: idempotency key \"{key}\" was used for another call");
        assert_eq!((error.message, error.detail.as_deref()), (message, Some(detail)));
        assert_unchanged(&mut c, &before, "a refused batch");
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_bad_element_is_named_and_nothing_is_written() {
    let (_db, mut c) = books();
    let good =
        json!({"user_id": "u", "path": "/search", "cost_microdollars": 5, "idempotency_key": "k"});
    let before = state(&mut c);
    for (field, value, named) in [
        ("user", json!("u"), "unknown key \"user\""),
        ("User_id", json!("u"), "unknown key \"User_id\""),
        ("", json!(1), "unknown key \"\""),
        ("month", Value::Null, "unknown key \"month\""),
        ("user_id", Value::Null, "user_id"),
        ("user_id", json!(5), "user_id"),
        ("user_id", json!(["u"]), "user_id"),
        ("user_id", json!(""), "user_id"),
        ("user_id", json!(" u"), "user_id"),
        ("user_id", json!("u\tv"), "user_id"),
        ("user_id", json!("x".repeat(256)), "user_id"),
        ("path", Value::Null, "path"),
        ("path", json!(true), "path"),
        ("path", json!("search"), "path"),
        ("path", json!(format!("/{}", "p".repeat(1024))), "path"),
        ("cost_microdollars", Value::Null, "cost_microdollars"),
        ("cost_microdollars", json!("5"), "cost_microdollars"),
        ("cost_microdollars", json!(0.5), "cost_microdollars"),
        ("cost_microdollars", json!(-1), "cost_microdollars"),
        ("cost_microdollars", json!(9_007_199_254_740_992_i64), "cost_microdollars"),
        ("cost_microdollars", json!(u64::MAX), "cost_microdollars"),
        ("cost_microdollars", json!({}), "cost_microdollars"),
        ("organization_id", json!(""), "organization_id"),
        ("organization_id", json!(1), "organization_id"),
        ("idempotency_key", json!(1), "idempotency_key"),
        ("idempotency_key", json!("x".repeat(256)), "idempotency_key"),
        ("feature_id", json!("x".repeat(129)), "feature_id"),
        ("feature_id", json!(1), "feature_id"),
        ("request_type", json!("x".repeat(129)), "request_type"),
        ("request_type", json!([]), "request_type"),
        ("created_at", json!("2026-11-22"), "created_at"),
        ("created_at", json!("2026-11-22T10:30:00"), "created_at"),
        ("created_at", json!("2026-02-30T10:30:00Z"), "created_at"),
        ("created_at", json!("yesterday"), "created_at"),
        ("created_at", json!("infinity"), "created_at"),
        ("created_at", json!(""), "created_at"),
        ("created_at", json!(1_795_343_400), "created_at"),
        ("created_at", json!("2020-01-01T00:00:00Z"), "created_at"),
        ("created_at", json!("9999-12-31T23:59:59Z"), "created_at"),
    ] {
        let mut bad = good.clone();
        bad[field] = value;
        bad["idempotency_key"] =
            if field == "idempotency_key" { bad[field].clone() } else { json!("other") };
        let error = error_of(&mut c, &call(&json!([good, bad, good]).to_string()));
        assert_eq!(error.code, "22023", "{bad}: {error:?}");
        let beginning = format!("usage[1]: {named}");
        assert!(error.message.starts_with(&beginning), "{bad}: {}", error.message);
        assert_unchanged(&mut c, &before, "a refused batch");
    }
    for bad in ["5", "\"text\"", "null", "[]", "true"] {
        let error = error_of(&mut c, &call(&format!("[{good}, {bad}]")));
        assert_eq!(error.code, "22023", "{bad}");
        assert_eq!(error.message, "usage[1]: must be a JSON object");
    }
    // The last of many spoils them all.
    let mut many = vec![json!({"user_id": "u", "path": "/search", "cost_microdollars": 5}); 999];
    many.push(json!({"user_id": "u", "path": "/search", "cost_microdollars": -5}));
    let error = error_of(&mut c, &call(&Value::from(many).to_string()));
    assert_eq!(error.message, "usage[999]: cost_microdollars must not be negative");
    assert_unchanged(&mut c, &before, "a refused batch");
    assert_books_hold(&mut c);
}

#[test]
fn what_is_no_batch_is_refused() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    for no_array in ["{}", "null", "5", "\"[]\"", "true"] {
        let error = error_of(&mut c, &call(no_array));
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("22023", "usage must be a JSON array")
        );
    }
    let nested = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let error = error_of(&mut c, &call(&nested));
    assert_eq!(error.code, "22023");
    assert!(error.message.starts_with("usage"), "{}", error.message);
    let null = error_of(&mut c, "select record_exa_usage_batch(null)");
    assert_eq!((null.code.as_str(), null.message.as_str()), ("22023", "usage must not be null"));
    assert_eq!(error_of(&mut c, &call("[")).code, "22P02");
    assert_unchanged(&mut c, &before, "a refused batch");
}

#[test]
fn a_batch_has_up_to_ten_thousand_elements() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(1000000, '2020-01-01', null, 'split')");
    let elements = |count: i64| -> Value {
        let element = |n: i64| {
            json!({"user_id": format!("user {}", n % 7), "path": "/search", "cost_microdollars": n,
                   "idempotency_key": format!("key {n}"),
                   "organization_id": if n % 3 == 0 { json!("org") } else { Value::Null }})
        };
        (0..count).map(element).collect()
    };
    let before = state(&mut c);
    let error = error_of(&mut c, &call(&elements(10_001).to_string()));
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("22023", "usage has too many elements")
    );
    assert!(error.detail.unwrap_or_default().contains("10001"));
    assert_unchanged(&mut c, &before, "a refused batch");

    let results = batch(&mut c, &elements(10_000));
    assert_eq!(results.len(), 10_000);
    assert!(results.iter().zip(0..).all(|(result, n)| result.cost == n && !result.is_replay));
    let free: i64 = results.iter().map(|result| result.free).sum();
    assert_eq!(free, 7_000_000);
    let charged: i64 = results.iter().map(|result| result.charged).sum();
    assert_eq!(charged, 9_999 * 10_000 / 2 - 7_000_000);
    let recorded =
        "select count(*) from exa_usage_log where charged_to_balance = (charged_microdollars > 0)";
    assert_eq!(one::<i64>(&mut c, recorded, &[]), 10_000);
    for _ in 0..2 {
        let used = "select sum(microdollars_used)::bigint from account_balances";
        assert_eq!(one::<i64>(&mut c, used, &[]), charged);
        assert_books_hold(&mut c);
        run_sql(&mut c, "select post_spend()");
    }
    let again = batch(&mut c, &elements(10_000));
    assert!(again.iter().zip(&results).all(|(again, first)| *again == first.replayed()));
}

#[test]
fn an_empty_batch_records_nothing() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    assert_eq!(batch(&mut c, &json!([])), []);
    assert_unchanged(&mut c, &before, "an empty batch");
}

#[test]
fn times_are_read_with_their_zone() {
    let (_db, mut c) = books();
    run_sql(&mut c, "set timezone = 'Asia/Kathmandu'");
    let day: String = one(
        &mut c,
        "select to_char(now() at time zone 'UTC' - interval '2 days', 'YYYY-MM-DD')",
        &[],
    );
    for (time, utc) in [
        ("T10:30:00Z", "10:30:00"),
        ("T10:30:00.5Z", "10:30:00.5"),
        ("T10:30:00.123456789+00:00", "10:30:00.123457"),
        ("T12:30:00+02:00", "10:30:00"),
        ("T05:00:00-05:30", "10:30:00"),
    ] {
        let element = json!([{"user_id": "u", "path": "/x", "cost_microdollars": 1,
                              "created_at": format!("{day}{time}")}]);
        let recorded = batch(&mut c, &element);
        let same: bool = one(
            &mut c,
            &format!("select $1::timestamptz = '{day} {utc}+00'"),
            &[&recorded[0].created_at],
        );
        assert!(same, "{time}: {}", recorded[0].created_at);
    }
    // As PostgreSQL itself writes a time into JSON, in any zone.
    let own = "record_exa_usage_batch(jsonb_build_array(jsonb_build_object('user_id', 'u',
                   'path', '/x', 'cost_microdollars', 1, 'created_at', now())))";
    let told = recorded(&mut c, own);
    let recorded = "select recorded_at - created_at between '0' and '1 minute' from exa_usage_log
                    where usage_id = $1";
    assert!(one::<bool>(&mut c, recorded, &[&told.usage_id]));
    assert_books_hold(&mut c);
}

/// One lock order everywhere: by user and month, whether a month's row is
/// there already or is made by this batch.
#[test]
fn a_batch_locks_allowances_in_order_also_those_it_locks_in() {
    let (db, mut c) = books();
    usage(&mut c, "'a', '/search', 1");
    run_sql(&mut c, "begin; select record_exa_usage('a', '/search', 10)");
    let mut other = session(&db);
    let pid: i32 = one(&mut other, "select pg_backend_pid()", &[]);
    let mut observer = session(&db);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            let elements = json!([
                {"user_id": "b", "path": "/search", "cost_microdollars": 100},
                {"user_id": "a", "path": "/search", "cost_microdollars": 100},
            ]);
            batch(&mut other, &elements)
        });
        wait_until("the batch waits for the row of user a", || {
            let waits = "select exists (select from pg_locks where pid = $1 and not granted)";
            one(&mut observer, waits, &[&pid])
        });
        // The row of user b comes after that one, so it is not the batch's yet.
        run_sql(&mut c, "select record_exa_usage('b', '/search', 10); commit");
        assert_eq!(waiting.join().expect("the batch").len(), 2);
    });
    assert_eq!(decision(&mut c, "'a'").month_used, 111);
    assert_eq!(decision(&mut c, "'b'").month_used, 110);
    assert_books_hold(&mut c);
}
