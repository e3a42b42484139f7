//! Asking for a request made for an organization: membership and daily limits.

mod common;
mod usage_common;

use common::{one, run_sql};
use postgres::Client;
use usage_common::{assert_books_hold, books, decision, no_free_allowance, usage};

/// The instant at which a test asks and spends, so that its day never ends
/// while it runs.
fn instant(c: &mut Client) -> String {
    one(c, "select to_char(now() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')", &[])
}

fn remaining(c: &mut Client, user: &str, as_of: &str) -> Option<i64> {
    decision(c, &format!("'{user}', 'org', '{as_of}'")).limit_remaining
}

#[test]
fn owners_and_members_may_spend_and_nobody_else() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    run_sql(
        &mut c,
        "select grant_credit('organization', 'org', 100), grant_credit('user', 'stranger', 100);
         select set_organization_member('org', 'the owner', 'owner'),
                set_organization_member('org', 'the manager', 'billing_manager'),
                set_organization_member('org', 'the member', 'member'),
                set_organization_member('other org', 'stranger', 'owner')",
    );
    for (user, answer, balance) in [
        ("the owner", (true, "credit_balance"), Some(100)),
        ("the member", (true, "credit_balance"), Some(100)),
        ("the manager", (false, "not_a_member"), Some(100)),
        // It is none of a stranger's business.
        ("stranger", (false, "not_a_member"), None),
    ] {
        let asked = decision(&mut c, &format!("'{user}', 'org'"));
        assert_eq!(asked.answer(), answer, "{user}");
        assert_eq!((asked.balance, asked.limit_remaining), (balance, None), "{user}");
        assert!(asked.is_paid);
    }
    assert_eq!(decision(&mut c, "'stranger'").answer(), (true, "credit_balance"));

    run_sql(
        &mut c,
        "select set_organization_member('org', 'the manager', 'member', 30),
                set_organization_member('org', 'the owner', 'billing_manager');
         select remove_organization_member('org', 'the member'),
                remove_organization_member('org', 'nobody')",
    );
    for (user, answer) in [
        ("the owner", (false, "not_a_member")),
        ("the member", (false, "not_a_member")),
        ("the manager", (true, "credit_balance")),
    ] {
        assert_eq!(decision(&mut c, &format!("'{user}', 'org'")).answer(), answer, "{user}");
    }
    // Whoever was removed can come back.
    run_sql(&mut c, "select set_organization_member('org', 'the member', 'owner', 20)");
    let back = decision(&mut c, "'the member', 'org'");
    assert_eq!((back.answer(), back.limit_remaining), ((true, "credit_balance"), Some(20)));
    assert_books_hold(&mut c);
}

#[test]
fn free_requests_ask_for_neither_membership_nor_limit_nor_balance() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select set_organization_member('org', 'limited', 'member', 0),
                set_organization_member('org', 'manager', 'billing_manager')",
    );
    for user in ["limited", "manager", "stranger"] {
        let asked = decision(&mut c, &format!("'{user}', 'org'"));
        assert_eq!((asked.answer(), asked.is_paid), ((true, "free_allowance"), false), "{user}");
    }
}

#[test]
fn the_reasons_of_a_denial_come_in_their_order() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    // Nothing is right yet; then one thing after the other is mended.
    let at = instant(&mut c);
    let call = format!("'u', 'org', '{at}'");
    assert_eq!(decision(&mut c, &call).answer(), (false, "not_a_member"));
    run_sql(&mut c, "select set_organization_member('org', 'u', 'billing_manager', 0)");
    assert_eq!(decision(&mut c, &call).answer(), (false, "not_a_member"));
    run_sql(&mut c, "select set_organization_member('org', 'u', 'member', 0)");
    assert_eq!(decision(&mut c, &call).answer(), (false, "no_credit_balance"));
    run_sql(&mut c, "select grant_credit('organization', 'org', 1)");
    assert_eq!(decision(&mut c, &call).answer(), (false, "member_daily_limit"));
    run_sql(&mut c, "select set_organization_member('org', 'u', 'member', 1)");
    assert_eq!(decision(&mut c, &call).answer(), (true, "credit_balance"));
    run_sql(&mut c, "select remove_organization_member('org', 'u')");
    assert_eq!(decision(&mut c, &call).answer(), (false, "not_a_member"));
}

#[test]
fn a_daily_limit_counts_todays_spend_posted_and_unposted() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let at = instant(&mut c);
    run_sql(
        &mut c,
        "select grant_credit('organization', 'org', 1000000);
         select set_organization_member('org', 'u', 'member', 10000)",
    );
    assert_eq!(remaining(&mut c, "u", &at), Some(10_000));
    usage(&mut c, &format!("'u', '/search', 4000, 'org', created_at => '{at}'"));
    assert_eq!(remaining(&mut c, "u", &at), Some(6_000));
    run_sql(&mut c, "select post_spend()");
    assert_eq!(remaining(&mut c, "u", &at), Some(6_000));

    // From every source, half of it posted.
    let spend = "record_spend('organization', 'org', 3000, 'variable', 'ai_gateway', 'llm'";
    run_sql(&mut c, &format!("select {spend}, actor_user_id => 'u', created_at => '{at}')"));
    assert_eq!(remaining(&mut c, "u", &at), Some(3_000));

    // The last microdollar under the limit still allows a request.
    usage(&mut c, &format!("'u', '/search', 2999, 'org', created_at => '{at}'"));
    let asked = decision(&mut c, &format!("'u', 'org', '{at}'"));
    assert_eq!((asked.answer(), asked.limit_remaining), ((true, "credit_balance"), Some(1)));
    usage(&mut c, &format!("'u', '/search', 5000, 'org', created_at => '{at}'"));
    for _ in 0..2 {
        let asked = decision(&mut c, &format!("'u', 'org', '{at}'"));
        assert_eq!(asked.answer(), (false, "member_daily_limit"));
        assert_eq!((asked.limit_remaining, asked.balance), (Some(-4_999), Some(985_001)));
        run_sql(&mut c, "select post_spend()");
    }
    let posted = "select microdollars_used from organization_member_usage";
    assert_eq!(one::<i64>(&mut c, posted, &[]), 14_999);

    // Tomorrow is another day.
    let tomorrow = decision(&mut c, &format!("'u', 'org', timestamptz '{at}' + interval '1 day'"));
    assert_eq!(tomorrow.limit_remaining, Some(10_000));
    assert_books_hold(&mut c);
}

#[test]
fn only_this_members_variable_spend_of_this_day_and_organization_counts() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let at = instant(&mut c);
    let day = format!("date_trunc('day', timestamptz '{at}', 'UTC')");
    run_sql(
        &mut c,
        &format!(
            "select grant_credit('organization', 'org', 1000000);
             select set_organization_member('org', 'u', 'member', 10000);
             select record_exa_usage('u', '/search', 1, null, created_at => '{at}'),
                    record_exa_usage('u', '/search', 2, 'other org', created_at => '{at}'),
                    record_exa_usage('v', '/search', 4, 'org', created_at => '{at}'),
                    record_exa_usage('u', '/search', 8, 'org',
                                     created_at => {day} - interval '1 microsecond'),
                    record_spend('organization', 'org', 16, 'scheduled', 'coding_plan', 'plan',
                                 actor_user_id => 'u', created_at => '{at}'),
                    record_spend('organization', 'org', 32, 'variable', 'ai_gateway', 'llm',
                                 created_at => '{at}'),
                    record_spend('user', 'org', 64, 'variable', 'ai_gateway', 'llm',
                                 actor_user_id => 'u', created_at => '{at}')"
        ),
    );
    for _ in 0..2 {
        assert_eq!(remaining(&mut c, "u", &at), Some(10_000));
        let yesterday = format!("'u', 'org', {day} - interval '1 hour'");
        assert_eq!(decision(&mut c, &yesterday).limit_remaining, Some(9_992));
        run_sql(&mut c, "select post_spend()");
    }
    // The day's first microsecond is today.
    usage(&mut c, &format!("'u', '/search', 128, 'org', created_at => {day}"));
    assert_eq!(remaining(&mut c, "u", &at), Some(9_872));
    assert_books_hold(&mut c);
}

#[test]
fn what_remains_is_never_more_than_the_balance() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let at = instant(&mut c);
    run_sql(&mut c, "select set_organization_member('org', 'u', 'member', 50)");
    let mut step = |sql: &str| {
        run_sql(&mut c, &sql.replace("AT", &at));
        let asked = decision(&mut c, &format!("'u', 'org', '{at}'"));
        (asked.reason, asked.balance, asked.limit_remaining)
    };
    let spend = |amount| format!("select record_exa_usage('u', '/x', {amount}, 'org', null, 'AT')");
    let told = |reason: &str, balance, limit| (reason.to_owned(), Some(balance), Some(limit));
    assert_eq!(step("select 1"), told("no_credit_balance", 0, 0));
    assert_eq!(
        step("select grant_credit('organization', 'org', 30)"),
        told("credit_balance", 30, 30)
    );
    assert_eq!(step(&spend(10)), told("credit_balance", 20, 20));
    assert_eq!(
        step("select grant_credit('organization', 'org', 100)"),
        told("credit_balance", 120, 40)
    );
    assert_eq!(step(&spend(130)), told("no_credit_balance", -10, -90));
    assert_books_hold(&mut c);
}

#[test]
fn a_limit_can_be_changed_and_taken_away() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    let at = instant(&mut c);
    run_sql(&mut c, "select grant_credit('organization', 'org', 1000)");
    usage(&mut c, &format!("'u', '/search', 100, 'org', created_at => '{at}'"));
    for (limit, reason, left) in [
        ("0", "member_daily_limit", Some(-100)),
        ("100", "member_daily_limit", Some(0)),
        ("101", "credit_balance", Some(1)),
        ("9007199254740991", "credit_balance", Some(900)),
        ("null", "credit_balance", None),
    ] {
        run_sql(&mut c, &format!("select set_organization_member('org', 'u', 'owner', {limit})"));
        let asked = decision(&mut c, &format!("'u', 'org', '{at}'"));
        assert_eq!((asked.reason.as_str(), asked.limit_remaining), (reason, left), "{limit}");
    }
    assert_eq!(one::<i64>(&mut c, "select count(*) from organization_members", &[]), 1);
    assert_books_hold(&mut c);
}
