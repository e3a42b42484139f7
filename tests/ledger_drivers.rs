//! What the charges of an attached ledger are for, and who made them: drivers and members.

mod common;
mod ledger_books;
mod usage_common;

use common::{one, run_sql};
use ledger_books::*;
use postgres::Client;
use usage_common::{assert_books_hold, books, column, decision, no_free_allowance};

/// Texts as an application may hand them on from anybody, and what the books make of them.
fn dimensions() -> Vec<(String, String)> {
    let other = "other".to_owned();
    let long = "m".repeat(300);
    let kept = [
        "anthropic/claude-sonnet-4",
        "a",
        "9",
        "A",
        "gpt-4.1_mini:free@2024+x",
        "NULL",
        "null",
        "other2",
        "E",
        "x--y",
    ];
    let refused = [
        "",
        " ",
        "\t",
        "-a",
        ".a",
        "_a",
        "modèle",
        "模型",
        "𝄞",
        "a b",
        "a\nb",
        "a\u{1}b",
        "a\u{7f}",
        "a\u{a0}b",
        "a'b",
        "a\"b",
        "a\\b",
        "\\'; DROP TABLE public.llm; --",
        "'); DELETE FROM exa_billing.accounts; --",
        "$1",
        "{rows}",
        "%s",
        "a,b",
        "(a,b)",
        "{a}",
        "a;b",
        "<script>",
        "а",
        "ａ",
        "e\u{301}",
        "\u{202e}a",
        "a\u{200b}",
    ];
    let mut all: Vec<(String, String)> =
        kept.iter().map(|text| ((*text).to_owned(), (*text).to_owned())).collect();
    all.extend(refused.iter().map(|text| ((*text).to_owned(), other.clone())));
    for (text, key) in [
        (format!("  {} ", "padded"), "padded".to_owned()),
        ("\u{3000}wide\n".to_owned(), "wide".to_owned()),
        (long.clone(), long[..128].to_owned()),
        (format!("{}n", &long[..128]), long[..128].to_owned()),
        (format!("{}n", &long[..127]), format!("{}n", &long[..127])),
        (format!(" {long}é"), other.clone()),
        (format!("{long} x"), other),
    ] {
        all.push((text, key));
    }
    all
}

#[test]
fn hostile_dimensions_are_normalised_alike_everywhere_and_never_mixed_up() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "CREATE TABLE public.t (id int, who text, cost bigint, at timestamptz, product text, feature text, model text, vendor text)",
    );
    let map = r#"{"user_id": "who", "organization_id": {"value": null}, "amount": "cost", "created_at": "at",
        "product_key": "product", "feature_key": "feature", "model_or_plan_key": "model", "provider_key": "vendor"}"#;
    attach_as(&mut c, "t", "public.t", map, "");
    let texts = dimensions();
    // Each text in each of the four places, all of them different amounts.
    let (mut id, mut expected) = (0_i64, Vec::new());
    for (text, key) in &texts {
        for place in 0..4 {
            id += 1;
            let parts: Vec<&str> =
                (0..4).map(|n| if n == place { text.as_str() } else { "plain" }).collect();
            let keys: Vec<&str> =
                (0..4).map(|n| if n == place { key.as_str() } else { "plain" }).collect();
            expected.push((keys.join(" "), id * id));
            c.execute(
                "INSERT INTO public.t SELECT $1::int8::int, 'ledger', $1 * $1, clock_timestamp(), $2, $3, $4, $5",
                &[&id, &parts[0], &parts[1], &parts[2], &parts[3]],
            )
            .expect("no dimension is refused");
            c.execute(
                "SELECT record_spend('user', 'own', $1::int8 * $1, 'variable', 'ai_gateway', $2, $3, $4, $5)",
                &[&id, &parts[0], &parts[1], &parts[2], &parts[3]],
            )
            .expect("no dimension is refused");
        }
    }
    let mut sums = std::collections::BTreeMap::<String, i64>::new();
    for (keys, amount) in expected {
        *sums.entry(keys).or_default() += amount;
    }
    let expected: Vec<String> =
        sums.iter().map(|(keys, amount)| format!("{keys} {amount}")).collect();
    assert!(expected.len() > 40, "{expected:?}");
    let drivers = |c: &mut Client, owner: &str| -> Vec<String> {
        let sql = format!(
            "SELECT concat_ws(' ', product_key, feature_key, model_or_plan_key, provider_key, sum(total_microdollars))
             FROM spend_drivers_hourly WHERE owner_id = '{owner}'
             GROUP BY product_key, feature_key, model_or_plan_key, provider_key
             ORDER BY concat_ws(' ', product_key, feature_key, model_or_plan_key, provider_key) COLLATE \"C\""
        );
        column(c, &sql)
    };
    for step in ["queued", "posted", "detached"] {
        assert_eq!(drivers(&mut c, "ledger"), expected, "{step}");
        assert_eq!(drivers(&mut c, "own"), expected, "{step}");
        assert_books_hold(&mut c);
        match step {
            "queued" => post(&mut c),
            "posted" => assert!(detach(&mut c, "t") > 0),
            _ => {}
        }
    }
}

#[test]
fn owners_that_look_alike_are_not_mixed_up() {
    let (_db, mut c) = books_with_ledger("");
    let ids = [
        "ann",
        "Ann",
        "ANN",
        "änn",
        "a\u{308}nn",
        "ann ann",
        "ann  ann",
        "'ann'",
        "\"ann\"",
        "ann'; --",
        "\\ann",
        "{ann}",
        "%",
        "_",
        "ann,ann",
        "(ann,)",
        "NULL",
        "null",
        "0",
        "00",
        "𝄞",
        "а",
    ];
    for (n, id) in (0_i64..).zip(ids) {
        c.execute(
            "INSERT INTO public.llm SELECT 2 * $1::int8, $2, NULL, (2 ^ $1)::bigint, clock_timestamp(), 'opus'
             UNION ALL SELECT 2 * $1 + 1, 'ann', $2, (3 * 2 ^ $1)::bigint, clock_timestamp(), 'opus'",
            &[&n, &id],
        )
        .expect("an id");
    }
    for posted in [false, true] {
        for (n, id) in (0..).zip(ids) {
            assert_eq!(
                (used(&mut c, "user", id), used(&mut c, "organization", id)),
                (1_i64 << n, 3 << n),
                "{id}"
            );
            let sql = "SELECT (recompute_user_balances($1, true)).new_microdollars_used";
            assert_eq!(one::<i64>(&mut c, sql, &[&id]), 1 << n, "{id}");
        }
        assert_books_hold(&mut c);
        if !posted {
            post(&mut c);
        }
    }
}

#[test]
fn an_unknown_source_is_counted_as_other_and_a_known_one_as_itself() {
    let (_db, mut c) = books();
    for (n, (source, counted)) in [
        ("ai_gateway", "ai_gateway"),
        ("coding_plan", "coding_plan"),
        ("AI_GATEWAY", "other"),
        ("l'été", "other"),
    ]
    .into_iter()
    .enumerate()
    {
        run_sql(
            &mut c,
            &format!(
                "CREATE TABLE public.t{n} (who text, cost bigint, at timestamptz);
                 SELECT attach_spend_source('t{n}', 'public.t{n}', 'scheduled', '{}',
                     '{{\"user_id\": \"who\", \"organization_id\": {{\"value\": null}}, \"amount\": \"cost\", \"created_at\": \"at\"}}');
                 INSERT INTO public.t{n} VALUES ('user-{n}', 5, clock_timestamp())",
                source.replace('\'', "''")
            ),
        );
        let driver = "SELECT spend_category || ' ' || source FROM spend_drivers_hourly WHERE owner_id = 'user-' || $1::int8";
        let n = i64::try_from(n).unwrap();
        assert_eq!(one::<String>(&mut c, driver, &[&n]), format!("scheduled {counted}"));
        detach(&mut c, &format!("t{n}"));
        assert_eq!(one::<String>(&mut c, driver, &[&n]), format!("scheduled {counted}"));
        let kept = "SELECT source FROM spend_log WHERE owner_id = 'user-' || $1::int8";
        assert_eq!(one::<String>(&mut c, kept, &[&n]), source);
    }
    assert_books_hold(&mut c);
}

/// What the member may still spend for acme on the day of an instant.
fn remaining(c: &mut Client, member: &str, as_of: &str) -> Option<i64> {
    decision(c, &format!("'{member}', 'acme', '{as_of}'")).limit_remaining
}

#[test]
fn a_members_daily_limit_counts_what_the_ledger_says_of_today() {
    let (_db, mut c) = books_with_ledger(", backfill => true");
    no_free_allowance(&mut c);
    let now: String =
        one(&mut c, "SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')", &[]);
    let map =
        r#"{"user_id": "who", "organization_id": "team", "amount": "cost", "created_at": "at"}"#;
    run_sql(
        &mut c,
        &format!(
            "CREATE TABLE public.plans (LIKE public.llm);
             SELECT attach_spend_source('plans', 'public.plans', 'scheduled', 'coding_plan', '{map}', true);
             SELECT grant_credit('organization', 'acme', 100000), set_organization_member('acme', 'ann', 'member', 1000),
                    set_organization_member('acme', 'bob', 'member', 1000);
             INSERT INTO public.llm VALUES (1, 'ann', 'acme', 600, '{now}', 'opus'),
                 -- The day's ends, the day before and after, the user's own, and nobody's.
                 (2, 'ann', 'acme', 30, date_trunc('day', '{now}'::timestamptz, 'UTC'), 'opus'),
                 (3, 'ann', 'acme', 5, date_trunc('day', '{now}'::timestamptz, 'UTC') + interval '86399.999999 s', 'opus'),
                 (4, 'ann', 'acme', 500, date_trunc('day', '{now}'::timestamptz, 'UTC') - interval '1 us', 'opus'),
                 (5, 'ann', 'acme', 500, date_trunc('day', '{now}'::timestamptz, 'UTC') + interval '24 h', 'opus'),
                 (6, 'ann', NULL, 500, '{now}', 'opus'), (7, NULL, 'acme', 500, '{now}', 'opus'),
                 (8, 'bob', 'globex', 500, '{now}', 'opus');
             INSERT INTO public.plans VALUES (1, 'ann', 'acme', 500, '{now}', 'pro')"
        ),
    );
    for posted in [false, true] {
        assert_eq!(
            (remaining(&mut c, "ann", &now), remaining(&mut c, "bob", &now)),
            (Some(365), Some(1000))
        );
        if !posted {
            post(&mut c);
        }
    }
    assert_eq!(
        decision(&mut c, &format!("'ann', 'acme', '{now}'")).answer(),
        (true, "credit_balance")
    );
    for (change, ann, bob) in [
        ("UPDATE public.llm SET cost = 965 WHERE id = 1", 0, 1000),
        ("UPDATE public.llm SET who = 'bob' WHERE id = 1", 965, 35),
        ("UPDATE public.llm SET team = NULL WHERE id = 1", 965, 1000),
        (
            "UPDATE public.llm SET who = 'ann', team = 'acme', at = at - interval '1 day' WHERE id = 1",
            965,
            1000,
        ),
        ("UPDATE public.llm SET at = at + interval '1 day' WHERE id = 1", 0, 1000),
        ("DELETE FROM public.llm WHERE id = 2", 30, 1000),
    ] {
        run_sql(&mut c, change);
        assert_eq!(
            (remaining(&mut c, "ann", &now), remaining(&mut c, "bob", &now)),
            (Some(ann), Some(bob)),
            "{change}"
        );
        let answer = if ann > 0 { (true, "credit_balance") } else { (false, "member_daily_limit") };
        assert_eq!(
            decision(&mut c, &format!("'ann', 'acme', '{now}'")).answer(),
            answer,
            "{change}"
        );
    }
    detach(&mut c, "llm");
    post(&mut c);
    assert_eq!(
        (remaining(&mut c, "ann", &now), remaining(&mut c, "bob", &now)),
        (Some(30), Some(1000))
    );
    assert_books_hold(&mut c);
}
