//! Charges that are not Exa requests, and the views over all of them.

mod common;
mod usage_common;

use common::{error_of, one, run_sql};
use postgres::Client;
use usage_common::{
    assert_books_hold, assert_unchanged, balance, books, column, no_free_allowance, recorded,
    state, usage,
};

/// The five parts of every driver, in the view's own words.
const DRIVERS: &str = "
    select format('%s|%s|%s|%s|%s %s', source, product_key, feature_key, model_or_plan_key,
                  provider_key, sum(total_microdollars))
    from spend_drivers_hourly
    group by owner_id, source, product_key, feature_key, model_or_plan_key, provider_key
    order by 1";

#[test]
fn a_charge_is_charged_in_full_and_opens_the_account() {
    let (_db, mut c) = books();
    for kind in ["user", "organization"] {
        let spent = recorded(
            &mut c,
            &format!("record_spend('{kind}', 'id', 20000000, 'scheduled', 'coding_plan', 'plan')"),
        );
        assert_eq!(spent.figures(), (20_000_000, 0, 20_000_000));
        assert_eq!((spent.allowance, spent.is_replay), (None, false));
        assert_eq!(balance(&mut c, kind, "id"), -20_000_000);
    }
    run_sql(&mut c, "select post_spend()");
    let accounts = "select owner_kind || microdollars_used from accounts order by 1";
    assert_eq!(column::<String>(&mut c, accounts), ["organization20000000", "user20000000"]);
    // Free allowances and Exa's counters know nothing of it.
    assert_eq!(one::<i64>(&mut c, "select count(*) from exa_monthly_allowance", &[]), 0);
    assert_eq!(one::<i64>(&mut c, "select count(*) from exa_monthly_usage_current", &[]), 0);
    assert_books_hold(&mut c);
}

#[test]
fn the_journal_keeps_a_charge_and_its_source_as_given() {
    let (_db, mut c) = books();
    for source in
        ["ai_gateway", "kiloclaw", "coding_plan", "other", "my-shop", "AI_GATEWAY", "Größe"]
    {
        let call = format!("record_spend('user', 'u', 10, 'variable', '{source}', 'p')");
        let spent = recorded(&mut c, &call);
        let kept: String = one(
            &mut c,
            "select format('%s %s %s %s %s', owner_kind, owner_id, amount_microdollars,
                           spend_record_count, source) from spend_log where spend_id = $1",
            &[&spent.usage_id],
        );
        assert_eq!(kept, format!("user u 10 1 {source}"));
    }
    let counted = [
        "ai_gateway|p|other|other|other 10",
        "coding_plan|p|other|other|other 10",
        "kiloclaw|p|other|other|other 10",
        "other|p|other|other|other 40",
    ];
    assert_eq!(column::<String>(&mut c, DRIVERS), counted);
    run_sql(&mut c, "select post_spend()");
    assert_eq!(column::<String>(&mut c, DRIVERS), counted);
    assert_books_hold(&mut c);
}

#[test]
fn dimensions_are_kept_when_they_are_plain_and_other_when_not() {
    let (_db, mut c) = books();
    let long = "m".repeat(300);
    let texts = [
        ("anthropic/claude-sonnet-4.5:free@v1+x_y", "anthropic/claude-sonnet-4.5:free@v1+x_y"),
        ("  padded\t", "padded"),
        ("7", "7"),
        ("Case Kept", "other"),
        ("CaseKept", "CaseKept"),
        ("", "other"),
        ("   ", "other"),
        ("-dash", "other"),
        (".dot", "other"),
        ("modèle", "other"),
        ("模型", "other"),
        ("a\nb", "other"),
        ("'; drop table exa_billing.accounts; --", "other"),
        ("{a,b}", "other"),
        ("a\"b", "other"),
        ("a\\b", "other"),
        ("null", "null"),
        (long.as_str(), &long[..128]),
    ];
    for (number, (given, _)) in texts.iter().enumerate() {
        let user = format!("user {number:02}");
        c.execute(
            "select record_spend('user', $2, 1, 'variable', 'other', $1, $1, $1, $1)",
            &[given, &user],
        )
        .expect("a charge");
    }
    let expected: Vec<String> =
        texts.iter().map(|(_, kept)| format!("other|{kept}|{kept}|{kept}|{kept} 1")).collect();
    let by_user = DRIVERS.replace("order by 1", "order by owner_id");
    assert_eq!(column::<String>(&mut c, &by_user), expected);
    run_sql(&mut c, "select post_spend()");
    assert_eq!(column::<String>(&mut c, &by_user), expected);
    assert_books_hold(&mut c);
}

#[test]
fn a_dimension_left_out_or_null_is_other() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select record_spend('user', 'u', 1, 'variable', 'other', 'p');
         select record_spend('user', 'u', 1, 'variable', 'other', 'p', null, null, null)",
    );
    assert_eq!(column::<String>(&mut c, DRIVERS), ["other|p|other|other|other 2"]);
    assert_books_hold(&mut c);
}

#[test]
fn drivers_that_differ_in_one_part_are_kept_apart() {
    let (_db, mut c) = books();
    let now: String = one(&mut c, "select now()::text", &[]);
    let rest = format!("created_at => '{now}'");
    for arguments in [
        "'variable', 'other', 'a', 'b', 'c', 'd'",
        "'scheduled', 'other', 'a', 'b', 'c', 'd'",
        "'variable', 'kiloclaw', 'a', 'b', 'c', 'd'",
        "'variable', 'other', 'b', 'a', 'c', 'd'",
        "'variable', 'other', 'a', 'b', 'd', 'c'",
        "'variable', 'other', 'a', 'b', 'c', 'd', 'actor'",
    ] {
        run_sql(&mut c, &format!("select record_spend('user', 'u', 1, {arguments}, {rest})"));
        run_sql(&mut c, &format!("select record_spend('user', 'u', 2, {arguments}, {rest})"));
    }
    let kept_apart = "select total_microdollars::bigint from spend_drivers_hourly
                      where spend_record_count = 2";
    assert_eq!(column::<i64>(&mut c, kept_apart), [3; 6]);
    run_sql(&mut c, "select post_spend()");
    assert_eq!(column::<i64>(&mut c, kept_apart), [3; 6]);
    assert_eq!(one::<i64>(&mut c, "select count(*) from spend_hourly_drivers", &[]), 6);
    assert_books_hold(&mut c);
}

#[test]
fn the_actor_is_who_spent() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select record_spend('organization', 'org', 1, 'variable', 'other', 'p',
                             actor_user_id => 'u'),
                record_spend('organization', 'org', 2, 'variable', 'other', 'p'),
                record_spend('user', 'u', 4, 'variable', 'other', 'p'),
                record_spend('user', 'u', 8, 'variable', 'other', 'p', actor_user_id => 'u'),
                record_spend('user', 'u', 16, 'variable', 'other', 'p', actor_user_id => 'admin')",
    );
    let actors =
        "select format('%s %s %s', owner_id, coalesce(actor_user_id, '-'), total_microdollars)
                  from spend_drivers_hourly order by 1";
    for _ in 0..2 {
        assert_eq!(
            column::<String>(&mut c, actors),
            ["org - 2", "org u 1", "u admin 16", "u u 12"]
        );
        run_sql(&mut c, "select post_spend()");
    }
    let kept = "select array_agg(coalesce(actor_user_id, '-') order by amount_microdollars)
                from spend_log";
    assert_eq!(one::<Vec<String>>(&mut c, kept, &[]), ["u", "-", "-", "u", "admin"]);
    assert_books_hold(&mut c);
}

fn purchase(amount: i64) -> String {
    format!(
        "record_spend('user', 'u', {amount}, 'scheduled', 'coding_plan', 'plan',
                      require_balance => true)"
    )
}

#[test]
fn a_purchase_beyond_the_balance_writes_nothing() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let refused = |c: &mut Client, amount: i64, left: i64| {
        let before = state(c);
        let error = error_of(c, &format!("select {}", purchase(amount)));
        assert_eq!((error.code.as_str(), error.message.as_str()), ("53400", "insufficient credit"));
        let detail = error.detail.unwrap_or_default();
        let figures = format!(" is {left} microdollars, the amount is {amount}.");
        assert!(detail.ends_with(&figures), "{detail}");
        assert_unchanged(c, &before, "a refused purchase");
    };
    refused(&mut c, 1, 0);
    run_sql(&mut c, "select grant_credit('user', 'u', 1000)");
    refused(&mut c, 1_001, 1000);

    // Charges count at once, posted or not, and only those of this owner.
    usage(&mut c, "'u', '/search', 300");
    usage(&mut c, "'u', '/search', 100000, 'org'");
    refused(&mut c, 701, 700);
    run_sql(&mut c, "select post_spend()");
    usage(&mut c, "'u', '/search', 100");
    refused(&mut c, 601, 600);

    // All of it may be spent.
    assert_eq!(recorded(&mut c, &purchase(600)).figures(), (600, 0, 600));
    assert_eq!(balance(&mut c, "user", "u"), 0);
    refused(&mut c, 1, 0);
    run_sql(&mut c, "select record_spend('user', 'u', 50, 'variable', 'other', 'p')");
    refused(&mut c, 1, -50);
    assert_books_hold(&mut c);
}

#[test]
fn a_purchase_replays_although_its_credit_is_spent() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select grant_credit('user', 'u', 600)");
    let call = purchase(600).replace("=> true", "=> true, idempotency_key => 'k'");
    let bought = recorded(&mut c, &call);
    let before = state(&mut c);
    assert_eq!(recorded(&mut c, &call), bought.replayed());
    assert_unchanged(&mut c, &before, "a replay");
    assert_books_hold(&mut c);
}

#[test]
fn every_view_says_the_same_before_and_after_posting() {
    let (_db, mut c) = books();
    let hour = one::<String>(&mut c, "select date_trunc('hour', now(), 'UTC')::text", &[]);
    run_sql(
        &mut c,
        &format!(
            "select set_free_allowance(100, '2020-01-01', null, 'split');
             select grant_credit('user', 'u', 5000), grant_credit('organization', 'org', 7000);
             select record_exa_usage('u', '/search', 150, created_at => '{hour}'),
                    record_exa_usage('u', '/answer', 20, 'org', created_at => '{hour}'),
                    record_exa_usage('v', '/answer', 30, 'org', created_at => '{hour}'),
                    record_spend('organization', 'org', 1000, 'scheduled', 'coding_plan', 'plan',
                                 created_at => '{hour}'),
                    record_spend('organization', 'org', 7, 'variable', 'shop', 'new', 'thing',
                                 actor_user_id => 'v', created_at => '{hour}')"
        ),
    );
    let expected = [
        ("account_balances", "organization org 7000 1027 5973\nuser u 5000 50 4950"),
        ("exa_monthly_usage_current", "u - 150 50 1 100\nu org 20 20 1 100\nv org 30 0 1 100"),
        (
            "spend_hourly",
            "organization org scheduled 1000 1
organization org variable 27 2
user u variable 50 1",
        ),
        (
            "spend_drivers_hourly",
            "org scheduled coding_plan plan other - 1000 1
org variable other exa answer u 20 1
org variable other new thing v 7 1
u variable other exa search u 50 1",
        ),
    ];
    let columns = [
        "owner_kind, owner_id, total_microdollars_acquired, microdollars_used,
         balance_microdollars",
        "user_id, coalesce(organization_id, '-'), total_cost_microdollars,
         total_charged_microdollars, request_count, free_allowance_microdollars",
        "owner_kind, owner_id, spend_category, total_microdollars, spend_record_count",
        "owner_id, spend_category, source, product_key, feature_key, coalesce(actor_user_id, '-'),
         total_microdollars, spend_record_count",
    ];
    // Unposted, half posted, posted.
    for rows in [0, 2, 1000] {
        if rows > 0 {
            run_sql(&mut c, &format!("select post_spend({rows})"));
        }
        for ((view, lines), columns) in expected.iter().zip(columns) {
            let sql = format!(
                "select string_agg(line, E'\\n' order by line collate \"C\")
                 from {view}, concat_ws(' ', {columns}) as line"
            );
            assert_eq!(one::<String>(&mut c, &sql, &[]), *lines, "{view} after {rows}");
        }
        let hours = "select array_agg(distinct hour_start::text) from spend_hourly";
        assert_eq!(one::<Vec<String>>(&mut c, hours, &[]), [hour.as_str()]);
        assert_books_hold(&mut c);
    }
    assert_eq!(one::<i64>(&mut c, "select count(*) from unposted_spend", &[]), 0);
}
