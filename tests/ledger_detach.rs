//! Detaching a ledger leaves every figure as it was; attaching it again charges nothing twice.

mod common;
mod ledger_books;
mod usage_common;

use common::{Database, Server, error_of, one, run_sql, wait_until};
use ledger_books::*;
use postgres::Client;
use usage_common::{assert_books_hold, column, no_free_allowance};

/// Books that accept charges and grants of long ago.
fn books() -> (Database, Client) {
    let db = Server::shared().database();
    let mut c =
        db.client_with("-c search_path=exa_billing,public -c exa_billing.late_usage_limit=3000d");
    run_sql(&mut c, "SELECT setup()");
    no_free_allowance(&mut c);
    run_sql(&mut c, TABLE);
    (db, c)
}

/// Two hours of ann and of acme in which charges of the ledger, of the product's own journals,
/// grants and expiries take turns. With `is_posted`, posting goes on all the while.
fn history(c: &mut Client, is_posted: bool) {
    let owners = [("user", "ann", "NULL", 0), ("organization", "acme", "'acme'", 100)];
    for (minute, event) in [
        (5, "llm 300"),
        (10, "grant 1000 expiring 11:30"),
        (15, "llm 40"),
        (15, "own 7"),
        (20, "grant 500 expiring 10:40"),
        (25, "llm 200"),
        (30, "grant 900 expiring 11:10"),
        (35, "llm 90"),
        (40, "own 11"),
        (45, "llm 600"),
        (59, "expire 10:50"),
        (65, "llm 250"),
        (70, "grant 300 expiring never"),
        (75, "llm 900"),
        (80, "own 70"),
        (95, "llm 55"),
        (99, "expire 11:35"),
    ] {
        for (kind, id, team, first_id) in owners {
            let at = format!("'2024-05-31 10:00Z'::timestamptz + {minute} * interval '1 minute'");
            let words: Vec<&str> = event.split(' ').collect();
            let owner = format!("'{kind}', '{id}'");
            run_sql(
                c,
                &match words[..] {
                    ["llm", amount] => format!(
                        "INSERT INTO public.llm SELECT {first_id} + n * 1000 + {minute}, 'ann', {team}, n * {amount}, {at},
                             'model-' || n FROM generate_series(1, 2) AS n"
                    ),
                    ["own", amount] => format!("SELECT record_spend({owner}, {amount}, 'variable', 'kiloclaw', 'claw', created_at => {at})"),
                    ["grant", amount, _, "never"] => format!("SELECT grant_credit({owner}, {amount}, NULL, created_at => {at})"),
                    ["grant", amount, _, end] => format!("SELECT grant_credit({owner}, {amount}, '2024-05-31 {end}Z', created_at => {at})"),
                    ["expire", until] => format!("SELECT expire_credits({owner}, '2024-05-31 {until}Z')"),
                    _ => panic!("{event}"),
                },
            );
        }
        if is_posted && minute % 10 == 5 {
            post(c);
        }
    }
}

#[test]
fn detaching_leaves_every_figure_as_it_was() {
    for (is_posted, on_delete) in [(false, "reverse"), (true, "reverse"), (true, "keep")] {
        let (_db, mut c) = books();
        attach(&mut c, &format!(", backfill => true, on_delete => '{on_delete}'"));
        history(&mut c, is_posted);
        let before = everything(&mut c);
        assert_eq!(
            used(&mut c, "user", "ann"),
            3 * (300 + 40 + 200 + 90 + 600 + 250 + 900 + 55) + 88
        );
        assert!(
            before.iter().any(|line| line.contains("recompute (user,ann,7393,7393,")),
            "{before:#?}"
        );
        assert_books_hold(&mut c);
        detach(&mut c, "llm");
        assert_eq!(everything(&mut c), before, "posted {is_posted}, {on_delete}");
        assert_books_hold(&mut c);
        run_sql(&mut c, "DROP TABLE public.llm");
        post(&mut c);
        assert_eq!(everything(&mut c), before, "the table is gone");
        assert_books_hold(&mut c);
        // Nothing is left to repair.
        run_sql(
            &mut c,
            "SELECT recompute_user_balances('ann'), recompute_organization_balances('acme')",
        );
        assert_eq!(everything(&mut c), before);
    }
}

/// The closing rows lie between the same grants and expiries as what they stand for.
#[test]
fn a_deletion_that_keeps_leaves_baselines_as_they_were() {
    for is_posted in [false, true] {
        let (_db, mut c) = books();
        attach(&mut c, ", backfill => true, on_delete => 'keep'");
        history(&mut c, is_posted);
        let before = everything(&mut c);
        let baselines = "SELECT b::text FROM recompute_baselines('user', 'ann') AS b ORDER BY 1";
        let baselines_before: Vec<String> = column(&mut c, baselines);
        for deletion in
            ["at < '2024-05-31 10:37Z' AND id % 2 = 0", "at > '2024-05-31 10:40Z'", "true"]
        {
            run_sql(&mut c, &format!("DELETE FROM public.llm WHERE {deletion}"));
            assert_eq!(everything(&mut c), before, "{deletion}");
            assert_eq!(column::<String>(&mut c, baselines), baselines_before);
            assert_books_hold(&mut c);
        }
        let rows = "SELECT count(*) FROM public.llm";
        assert_eq!(one::<i64>(&mut c, rows, &[]), 0);
        run_sql(
            &mut c,
            "SELECT recompute_user_balances('ann'), recompute_organization_balances('acme')",
        );
        assert_eq!(everything(&mut c), before);
        assert_eq!(detach(&mut c, "llm"), 0);
        assert_eq!(everything(&mut c), before);
        assert_books_hold(&mut c);
    }
}

#[test]
fn closing_rows_add_up_an_owners_hour_and_driver() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        &format!(
            "SELECT attach_spend_source('shop', 'public.llm', 'scheduled', 'my-shop', '{MAP}', true);
             INSERT INTO public.llm VALUES
                 (1, 'ann', NULL, 1, '2024-04-30 23:10Z', 'opus'), (2, 'ann', NULL, 20, '2024-04-30 23:59Z', 'opus'),
                 (3, 'ann', NULL, 300, '2024-05-01 00:00Z', 'opus'), (4, 'ann', 'acme', 4000, '2024-05-01 00:30Z', 'opus'),
                 (5, 'bob', 'acme', 50000, '2024-05-01 00:20Z', 'opus'), (6, NULL, 'acme', 600000, '2024-05-01 00:10Z', 'o p u s'),
                 (7, NULL, 'acme', 7000000, '2024-05-01 00:15Z', NULL), (8, 'ann', NULL, 0, '2024-05-01 00:15Z', NULL)"
        ),
    );
    assert_eq!(detach(&mut c, "shop"), 5);
    let closing: Vec<String> = column(
        &mut c,
        "SELECT concat_ws(' ', owner_id, coalesce(actor_user_id, '-'), spend_category, source, model_or_plan_key,
                amount_microdollars, spend_record_count, to_char(created_at AT TIME ZONE 'UTC', 'MM-DD HH24:MI'))
         FROM spend_log ORDER BY amount_microdollars",
    );
    assert_eq!(
        closing,
        [
            "ann ann scheduled my-shop opus 21 2 04-30 23:59",
            "ann ann scheduled my-shop opus 300 1 05-01 00:00",
            "acme ann scheduled my-shop opus 4000 1 05-01 00:30",
            "acme bob scheduled my-shop opus 50000 1 05-01 00:20",
            "acme - scheduled my-shop other 7600000 2 05-01 00:15"
        ]
    );
    assert_eq!(
        hours(&mut c, "ann"),
        [("2024-04-30 23".to_owned(), 21, 2), ("2024-05-01 00".to_owned(), 300, 1)]
    );
    assert_books_hold(&mut c);
}

#[test]
fn only_what_is_attached_can_be_detached() {
    let (_db, mut c) = books();
    for name in ["llm", "LLM", "public.llm"] {
        let error = error_of(&mut c, &format!("SELECT detach_spend_source('{name}')"));
        assert_eq!(error.code, "P0002", "{error:?}");
        assert_eq!(error.message, format!("no spend source \"{name}\" is attached"));
    }
    for name in ["exa", "spend"] {
        assert_eq!(
            error_of(&mut c, &format!("SELECT detach_spend_source('{name}')")).code,
            "22023"
        );
    }
    attach(&mut c, "");
    assert_eq!(detach(&mut c, "llm"), 0);
    let error = error_of(&mut c, "SELECT detach_spend_source('llm')");
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("P0002", "no spend source \"llm\" is attached")
    );
    assert_books_hold(&mut c);
}

#[test]
fn a_table_is_attached_once_and_a_name_stays_with_its_table() {
    let (_db, mut c) = books();
    attach(&mut c, "");
    run_sql(&mut c, "CREATE TABLE public.other (LIKE public.llm)");
    let call = |name: &str, table: &str| {
        format!("SELECT attach_spend_source('{name}', 'public.{table}', 'variable', 's', '{MAP}')")
    };
    for (name, table, message) in [
        ("llm", "llm", "spend source \"llm\" is attached already"),
        ("again", "llm", "table \"public\".\"llm\" is attached already"),
        ("llm", "other", "spend source \"llm\" is attached already"),
    ] {
        let error = error_of(&mut c, &call(name, table));
        assert_eq!((error.code.as_str(), error.message.as_str()), ("55000", message));
    }
    detach(&mut c, "llm");
    let error = error_of(&mut c, &call("llm", "other"));
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("55000", "spend source \"llm\" was another table")
    );
    run_sql(&mut c, &call("other", "other"));
    run_sql(&mut c, &call("llm", "llm"));
    assert_books_hold(&mut c);
}

#[test]
fn attached_again_nothing_counts_twice() {
    // Attached again with or without a backfill, under the same or another name.
    for (name, more) in [
        ("llm", ""),
        ("llm", ", backfill => true"),
        ("second", ", backfill => true"),
        ("second", ""),
    ] {
        let (_db, mut c) = books();
        attach(&mut c, ", backfill => true");
        run_sql(
            &mut c,
            "INSERT INTO public.llm SELECT n, 'ann', NULL, 10, '2024-05-01Z'::timestamptz + n * interval '5 minutes', 'opus'
             FROM generate_series(1, 30) AS n",
        );
        post(&mut c);
        assert_eq!(detach(&mut c, "llm"), 3);
        // Nobody captures what happens in between,
        run_sql(
            &mut c,
            "UPDATE public.llm SET cost = 99 WHERE id = 1; DELETE FROM public.llm WHERE id = 2",
        );
        run_sql(
            &mut c,
            "INSERT INTO public.llm VALUES (40, 'bob', NULL, 5, clock_timestamp(), 'opus')",
        );
        assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "user", "bob")), (300, 0));
        // but a backfill finds what is new.
        let found = i64::from(more.contains("backfill"));
        assert_eq!(attach_as(&mut c, name, "public.llm", MAP, more), found, "{name} {more}");
        assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "user", "bob")), (300, 5 * found));
        assert_books_hold(&mut c);
        // What stands in closing rows is not the table's any more.
        run_sql(
            &mut c,
            "UPDATE public.llm SET cost = 1000 WHERE id < 20; DELETE FROM public.llm WHERE id = 20",
        );
        run_sql(
            &mut c,
            "INSERT INTO public.llm VALUES (50, 'bob', NULL, 700, clock_timestamp(), 'opus')",
        );
        assert_eq!(
            (used(&mut c, "user", "ann"), used(&mut c, "user", "bob")),
            (300, 700 + 5 * found)
        );
        assert_books_hold(&mut c);
        let before = everything(&mut c);
        // One hour of bob's, or two when the clock has just struck.
        assert!(detach(&mut c, name) <= 2);
        assert_eq!(everything(&mut c), before);
        attach_as(&mut c, "third", "public.llm", MAP, ", backfill => true");
        assert_eq!(everything(&mut c), before);
        assert_books_hold(&mut c);
    }
}

/// Also a renamed table is the same one. Until the time of its latest row, what is charged could not
/// be told from what was taken over.
#[test]
fn a_table_that_had_rows_of_the_future_is_attached_again_after_them() {
    let (_db, mut c) = books();
    attach(&mut c, "");
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (1, 'ann', NULL, 10, clock_timestamp() + interval '8 seconds', 'opus')",
    );
    let before = everything(&mut c);
    assert_eq!(detach(&mut c, "llm"), 1);
    run_sql(&mut c, "ALTER TABLE public.llm RENAME TO ledger");
    let again = format!(
        "SELECT exa_billing.attach_spend_source('llm', 'public.ledger', 'variable', 'ai_gateway',
                                                $map${MAP}$map$, backfill => true)"
    );
    let refused = error_of(&mut c, &again);
    assert_eq!(refused.code, "55000");
    assert!(refused.message.contains("rows of the future"), "{}", refused.message);
    wait_until("the table can be attached", || c.batch_execute(&again).is_ok());
    assert_eq!(everything(&mut c), before);
    run_sql(
        &mut c,
        "INSERT INTO public.ledger VALUES (2, 'ann', NULL, 700, clock_timestamp(), 'opus')",
    );
    assert_eq!(used(&mut c, "user", "ann"), 710);
    assert_books_hold(&mut c);
}
