//! Asking and recording: the free allowance and what is charged beyond it.

mod common;
mod usage_common;

use common::{error_of, one, run_sql};
use usage_common::{
    Decision, assert_books_hold, assert_unchanged, balance, books, column, decision,
    no_free_allowance, recorded, session, state, usage,
};

#[test]
fn the_fixed_figures() {
    let (_db, mut c) = books();
    assert_eq!(usage(&mut c, "'u', '/search', 9990000").figures(), (9_990_000, 9_990_000, 0));
    let before = decision(&mut c, "'u'");
    assert_eq!(
        before,
        Decision {
            allowed: true,
            reason: "free_allowance".into(),
            is_paid: false,
            month_used: 9_990_000,
            allowance: 10_000_000,
            balance: Some(0),
            limit_remaining: None,
        }
    );

    // It starts under the allowance, so it is wholly free.
    let crossing = usage(&mut c, "'u', '/search', 5000000");
    assert_eq!(crossing.figures(), (5_000_000, 5_000_000, 0));
    assert_eq!(crossing.allowance, Some(10_000_000));
    let used_up = Decision {
        allowed: false,
        reason: "no_credit_balance".into(),
        is_paid: true,
        month_used: 14_990_000,
        ..before
    };
    assert_eq!(decision(&mut c, "'u'"), used_up);

    run_sql(&mut c, "select grant_credit('user', 'u', 20000000)");
    let with_credit = Decision {
        allowed: true,
        reason: "credit_balance".into(),
        balance: Some(20_000_000),
        ..used_up.clone()
    };
    assert_eq!(decision(&mut c, "'u'"), with_credit);

    let charge = "'u', '/search', 5000, idempotency_key => 'k'";
    let charged = usage(&mut c, charge);
    assert_eq!(charged.figures(), (5_000, 0, 5_000));
    assert!(!charged.is_replay);
    let left = Decision { balance: Some(19_995_000), ..with_credit };
    assert_eq!(decision(&mut c, "'u'"), left);
    assert_eq!(balance(&mut c, "user", "u"), 19_995_000);

    let written = state(&mut c);
    assert_eq!(usage(&mut c, charge), charged.replayed());
    assert_unchanged(&mut c, &written, "a replay");
    assert_eq!(decision(&mut c, "'u'"), left);

    // Posting moves figures and changes none.
    assert_eq!(one::<i64>(&mut c, "select post_spend()", &[]), 3);
    assert_eq!(decision(&mut c, "'u'"), left);
    assert_eq!(balance(&mut c, "user", "u"), 19_995_000);
    let posted = state(&mut c);
    assert_eq!(one::<i64>(&mut c, "select post_spend()", &[]), 0);
    assert_eq!(usage(&mut c, charge), charged.replayed());
    assert_unchanged(&mut c, &posted, "a replay or a second posting");
    assert_books_hold(&mut c);
}

#[test]
fn the_split_rule_charges_exactly_what_is_beyond() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(10000000, '2020-01-01', null, 'split')");
    for (cost, free, charged, used) in [
        (9_990_000, 9_990_000, 0, 9_990_000),
        (5_000_000, 10_000, 4_990_000, 10_000_000),
        (7, 0, 7, 10_000_000),
    ] {
        let recorded = usage(&mut c, &format!("'u', '/search', {cost}"));
        assert_eq!(recorded.figures(), (cost, free, charged));
        assert_eq!(decision(&mut c, "'u'").month_used, used);
    }
    assert_eq!(balance(&mut c, "user", "u"), -4_990_007);

    // To the microdollar: what fits exactly is free, and nothing is left then.
    assert_eq!(usage(&mut c, "'exact', '/search', 10000000").charged, 0);
    assert!(decision(&mut c, "'exact'").is_paid);
    assert_eq!(usage(&mut c, "'exact', '/search', 1").figures(), (1, 0, 1));
    assert_books_hold(&mut c);
}

#[test]
fn the_whole_rule_charges_from_the_request_that_starts_at_the_allowance() {
    let (_db, mut c) = books();
    for (cost, charged, used) in [(9_999_999, 0, 9_999_999), (1, 0, 10_000_000), (1, 1, 10_000_000)]
    {
        assert_eq!(usage(&mut c, &format!("'u', '/answer', {cost}")).charged, charged);
        let asked = decision(&mut c, "'u'");
        assert_eq!((asked.month_used, asked.is_paid), (used, used >= 10_000_000));
    }
    assert_books_hold(&mut c);
}

#[test]
fn the_largest_amount_is_recorded_and_the_sum_of_many() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    for _ in 0..3 {
        let recorded = usage(&mut c, "'u', '/search', 9007199254740991");
        assert_eq!(recorded.charged, 9_007_199_254_740_991);
    }
    assert_eq!(balance(&mut c, "user", "u"), -27_021_597_764_222_973);
    run_sql(&mut c, "select post_spend()");
    assert_eq!(balance(&mut c, "user", "u"), -27_021_597_764_222_973);
    assert_books_hold(&mut c);
}

#[test]
fn the_first_request_locks_the_allowance_and_its_rule_in() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(1000, '2020-01-01', null, 'split')");
    // Asking locks nothing in.
    assert_eq!(decision(&mut c, "'u'").allowance, 1_000);
    run_sql(&mut c, "select set_free_allowance(2000, '2020-01-01', null, 'split')");
    assert_eq!(decision(&mut c, "'u'").allowance, 2_000);
    assert_eq!(usage(&mut c, "'u', '/search', 500").figures(), (500, 500, 0));

    run_sql(
        &mut c,
        "select set_free_allowance(9000000, '2020-01-01', null, 'whole'),
                set_free_allowance(8000000, '2020-01-01', 'u', 'whole')",
    );
    let asked = decision(&mut c, "'u'");
    assert_eq!((asked.allowance, asked.month_used), (2_000, 500));
    let crossing = usage(&mut c, "'u', '/search', 5000");
    assert_eq!((crossing.figures(), crossing.allowance), ((5_000, 1_500, 3_500), Some(2_000)));
    let locked = "select free_allowance_microdollars from exa_monthly_usage('u')";
    assert_eq!(one::<i64>(&mut c, locked, &[]), 2_000);

    let other = usage(&mut c, "'other', '/search', 5000");
    assert_eq!((other.figures(), other.allowance), ((5_000, 5_000, 0), Some(9_000_000)));
    // No superuser's statement changes what is locked in either.
    let change = "update exa_monthly_allowance set free_allowance_microdollars = 1";
    assert_eq!(error_of(&mut c, change).code, "55000");
    assert_books_hold(&mut c);
}

#[test]
fn policies_hold_from_their_month_until_the_next_entry() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select set_free_allowance(100, '2030-02-01'),
                set_free_allowance(700, '2030-04-01'),
                set_free_allowance(5, '2030-03-01', 'u', 'split'),
                set_free_allowance(null, '2030-05-01', 'u'),
                set_free_allowance(null, '2030-06-01'),
                set_free_allowance(0, '2030-07-01', 'u')",
    );
    let mut in_force = |user: &str, month: u32| {
        decision(&mut c, &format!("'{user}', as_of => '2030-{month:02}-15 12:00+00'")).allowance
    };
    for (month, everyone, own) in [
        (1, 10_000_000, 10_000_000),
        (2, 100, 100),
        (3, 100, 5),
        (4, 700, 5),
        (5, 700, 700),
        (6, 10_000_000, 10_000_000),
        (7, 10_000_000, 0),
        (12, 10_000_000, 0),
    ] {
        assert_eq!((in_force("anyone", month), in_force("u", month)), (everyone, own), "{month}");
    }
}

#[test]
fn an_entry_set_again_replaces_the_one_of_its_month() {
    let (_db, mut c) = books();
    for amount in ["3", "4", "null", "6"] {
        run_sql(&mut c, &format!("select set_free_allowance({amount}, '2020-01-01', 'u')"));
    }
    assert_eq!(decision(&mut c, "'u'").allowance, 6);
    assert_eq!(one::<i64>(&mut c, "select count(*) from free_allowances", &[]), 1);
}

#[test]
fn an_own_entry_without_a_rule_takes_everyones() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select set_free_allowance(100, '2020-01-01', null, 'split'),
                set_free_allowance(10, '2020-01-01', 'own amount'),
                set_free_allowance(10, '2020-01-01', 'own rule', 'whole')",
    );
    for (user, charged) in [("anyone", 0), ("own amount", 20), ("own rule", 0)] {
        assert_eq!(usage(&mut c, &format!("'{user}', '/search', 30")).charged, charged, "{user}");
    }
    assert_eq!(usage(&mut c, "'anyone', '/search', 100").figures(), (100, 70, 30));
    assert_books_hold(&mut c);
}

#[test]
fn an_allowance_of_nothing_makes_the_very_first_request_paid() {
    let (_db, mut c) = books();
    for rule in ["whole", "split"] {
        run_sql(&mut c, &format!("select set_free_allowance(0, '2020-01-01', '{rule}', '{rule}')"));
        let asked = decision(&mut c, &format!("'{rule}'"));
        assert_eq!((asked.answer(), asked.is_paid), ((false, "no_credit_balance"), true));
        let first = usage(&mut c, &format!("'{rule}', '/search', 5000"));
        assert_eq!((first.figures(), first.allowance), ((5_000, 0, 5_000), Some(0)));
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_policy_names_the_first_day_of_a_month() {
    let (_db, mut c) = books();
    for day in ["2030-01-02", "2030-01-31", "2028-02-29"] {
        let error = error_of(&mut c, &format!("select set_free_allowance(1, '{day}')"));
        assert_eq!(error.code, "22023", "{day}");
        assert!(error.message.contains("effective_month"), "{}", error.message);
    }
    assert_eq!(one::<i64>(&mut c, "select count(*) from free_allowances", &[]), 0);
}

#[test]
fn one_allowance_serves_all_contexts_and_the_context_pays() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(10000000, '2020-01-01', null, 'split')");
    for (context, cost, charged) in [
        ("null", 4_000_000, 0),
        ("'org-a'", 3_000_000, 0),
        ("'org-b'", 4_000_000, 1_000_000),
        ("'org-a'", 250_000, 250_000),
        ("null", 70_000, 70_000),
    ] {
        let recorded = usage(&mut c, &format!("'u', '/search', {cost}, {context}"));
        assert_eq!(recorded.charged, charged, "{context} {cost}");
    }
    // Another member of the organization has an allowance of their own.
    assert_eq!(usage(&mut c, "'v', '/search', 1000, 'org-a'").charged, 0);
    // An organization that is called like the user is somebody else.
    assert_eq!(usage(&mut c, "'u', '/search', 9, 'u'").charged, 9);

    let figures = "select array[total_cost_microdollars, total_charged_microdollars, request_count]
                   from exa_monthly_usage('u')";
    let contexts = "select format('%s %s %s %s', coalesce(organization_id, '-'),
                        total_cost_microdollars, total_charged_microdollars, request_count)
                    from exa_monthly_usage_current where user_id = 'u' order by 1";
    for _ in 0..2 {
        for (kind, id, left) in [
            ("organization", "org-a", -250_000),
            ("organization", "org-b", -1_000_000),
            ("organization", "u", -9),
            ("user", "u", -70_000),
            ("user", "v", 0),
        ] {
            assert_eq!(balance(&mut c, kind, id), left, "{kind} {id}");
        }
        assert_eq!(one::<Vec<i64>>(&mut c, figures, &[]), [11_320_009, 1_320_009, 6]);
        let per_context = column::<String>(&mut c, contexts);
        assert_eq!(
            per_context,
            ["- 4070000 70000 2", "org-a 3250000 250000 2", "org-b 4000000 1000000 1", "u 9 9 1"]
        );
        assert_books_hold(&mut c);
        run_sql(&mut c, "select post_spend()");
    }
}

#[test]
fn a_request_that_costs_nothing_is_recorded_and_charges_nothing() {
    let (_db, mut c) = books();
    let first = usage(&mut c, "'u', '/search', 0");
    assert_eq!((first.figures(), first.allowance), ((0, 0, 0), Some(10_000_000)));
    no_free_allowance(&mut c);
    let paid = usage(&mut c, "'v', '/search', 0, 'org'");
    assert_eq!((paid.figures(), paid.allowance), ((0, 0, 0), Some(0)));
    for _ in 0..2 {
        let counted = "select array[sum(total_cost_microdollars)::bigint,
                           sum(total_charged_microdollars)::bigint, sum(request_count)::bigint]
                       from exa_monthly_usage_current";
        assert_eq!(one::<Vec<i64>>(&mut c, counted, &[]), [0, 0, 2]);
        assert_eq!(one::<i64>(&mut c, "select count(*) from spend_hourly", &[]), 0);
        assert_eq!(balance(&mut c, "organization", "org"), 0);
        assert_books_hold(&mut c);
        run_sql(&mut c, "select post_spend()");
    }
}

#[test]
fn recording_never_refuses_a_request_that_has_happened() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    // Nobody's member, no account, no credit; then a balance far below zero.
    for charged in [1, 1_000_000_000_000] {
        assert_eq!(usage(&mut c, &format!("'u', '/x', {charged}, 'org'")).charged, charged);
    }
    run_sql(
        &mut c,
        "select set_organization_member('org', 'u', 'member', 0);
         select remove_organization_member('org', 'u')",
    );
    assert_eq!(usage(&mut c, "'u', '/x', 5, 'org'").charged, 5);
    assert_eq!(balance(&mut c, "organization", "org"), -1_000_000_000_006);
    assert_books_hold(&mut c);
}

#[test]
fn the_journal_keeps_what_was_told() {
    let (_db, mut c) = books();
    let told = usage(
        &mut c,
        "'Ünï', '/research/v1?q=1', 7, 'org', 'key', null, '  any feature ', E'tab\\there'",
    );
    let kept: String = one(
        &mut c,
        "select format('%s|%s|%s|%s|%s|%s|%s|%s', user_id, organization_id, path, cost_microdollars,
                charged_microdollars, charged_to_balance, feature_id, request_type)
         from exa_usage_log where usage_id = $1 and recorded_at >= created_at",
        &[&told.usage_id],
    );
    assert_eq!(kept, "Ünï|org|/research/v1?q=1|7|0|f|  any feature |tab\there");
    // The id carries its time, so that the journal stays sorted.
    assert_eq!(told.usage_id.get_version_num(), 7);
}

#[test]
fn the_five_paths_are_features_and_any_other_is_other() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    for path in
        ["/search", "/contents", "/findSimilar", "/answer", "/context", "/Search", "/search/", "/"]
    {
        usage(&mut c, &format!("'u', '{path}', 1"));
    }
    let drivers = "select format('%s %s', feature_key, sum(spend_record_count))
                   from spend_drivers_hourly
                   where (spend_category, source, product_key, model_or_plan_key, provider_key,
                          actor_user_id) = ('variable', 'other', 'exa', 'other', 'exa', 'u')
                   group by feature_key order by feature_key collate \"C\"";
    let expected = ["answer 1", "contents 1", "context 1", "findSimilar 1", "other 3", "search 1"];
    assert_eq!(column::<String>(&mut c, drivers), expected);
    run_sql(&mut c, "select post_spend()");
    assert_eq!(column::<String>(&mut c, drivers), expected);
    assert_books_hold(&mut c);
}

#[test]
fn both_ways_to_call_return_the_same_columns() {
    let (db, mut c) = books();
    let as_value: String = one(
        &mut c,
        "select record_exa_usage('u', '/search', 5, idempotency_key => 'k')::text",
        &[],
    );
    let as_row: String = one(
        &mut session(&db),
        "select r::text from record_exa_usage('u', '/search', 5, idempotency_key => 'k') as r",
        &[],
    );
    assert!(as_value.ends_with(",5,5,0,10000000,f)"), "{as_value}");
    assert_eq!(as_row, as_value.replace(",f)", ",t)"));
    let by_name = recorded(
        &mut c,
        "record_exa_usage(cost_microdollars => 5, path => '/search', user_id => 'u',
                          idempotency_key => 'k')",
    );
    assert!(by_name.is_replay);
}
