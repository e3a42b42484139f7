//! What becomes of charges whose rows are changed or deleted, and of rows that can be no charge.

mod common;
mod ledger_books;
mod usage_common;

use common::{error_of, one, run_sql};
use ledger_books::*;
use postgres::Client;
use usage_common::{assert_books_hold, assert_unchanged, books, state};

const BACKFILL: &str = ", backfill => true";
const KEEP: &str = ", backfill => true, on_delete => 'keep'";

fn hour_of(hour: &str, amount: i64, records: i64) -> (String, i64, i64) {
    (format!("2024-{hour}"), amount, records)
}

/// Three rows of ann in the hour from 10, one of them for acme.
fn filled(more: &str) -> (common::Database, Client) {
    let (db, mut c) = books_with_ledger(more);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (1, 'ann', NULL, 100, '2024-05-31 10:10Z', 'opus'),
             (2, 'ann', NULL, 20, '2024-05-31 10:50Z', 'haiku'), (3, 'ann', 'acme', 3, '2024-05-31 10:20Z', 'opus')",
    );
    (db, c)
}

#[test]
fn a_changed_row_is_charged_as_it_is_now() {
    for is_posted in [false, true] {
        let (_db, mut c) = filled(BACKFILL);
        for (change, ann, acme) in [
            (
                "cost = 150 WHERE id = 1",
                vec![hour_of("05-31 10", 170, 2)],
                vec![hour_of("05-31 10", 3, 1)],
            ),
            (
                "cost = 50 WHERE id = 1",
                vec![hour_of("05-31 10", 70, 2)],
                vec![hour_of("05-31 10", 3, 1)],
            ),
            ("cost = cost * 2", vec![hour_of("05-31 10", 140, 2)], vec![hour_of("05-31 10", 6, 1)]),
            (
                "at = at + interval '20 minutes'",
                vec![hour_of("05-31 10", 100, 1), hour_of("05-31 11", 40, 1)],
                vec![hour_of("05-31 10", 6, 1)],
            ),
            (
                "at = '2024-06-01Z' WHERE id = 1",
                vec![hour_of("05-31 11", 40, 1), hour_of("06-01 00", 100, 1)],
                vec![hour_of("05-31 10", 6, 1)],
            ),
            (
                "team = 'acme' WHERE id = 2",
                vec![hour_of("06-01 00", 100, 1)],
                vec![hour_of("05-31 10", 6, 1), hour_of("05-31 11", 40, 1)],
            ),
            (
                "team = NULL WHERE id = 3",
                vec![hour_of("05-31 10", 6, 1), hour_of("06-01 00", 100, 1)],
                vec![hour_of("05-31 11", 40, 1)],
            ),
            (
                "team = NULL, at = '2024-05-31 10:00Z', cost = id",
                vec![hour_of("05-31 10", 6, 3)],
                vec![],
            ),
        ] {
            if is_posted {
                post(&mut c);
            }
            run_sql(&mut c, &format!("UPDATE public.llm SET {change}"));
            assert_eq!((hours(&mut c, "ann"), hours(&mut c, "acme")), (ann, acme), "{change}");
        }
        assert_charged(&mut c, CHARGES);
    }
}

#[test]
fn a_changed_model_or_actor_is_another_driver() {
    let (_db, mut c) = filled(BACKFILL);
    post(&mut c);
    run_sql(
        &mut c,
        "UPDATE public.llm SET model = 'sonnet' WHERE id = 2; UPDATE public.llm SET who = 'bob' WHERE id = 3",
    );
    let ann = || Some("ann".to_owned());
    let expected = [("opus".to_owned(), ann(), 100, 1), ("sonnet".to_owned(), ann(), 20, 1)];
    assert_eq!(models(&mut c, "ann"), expected);
    assert_eq!(models(&mut c, "acme"), [("opus".to_owned(), Some("bob".to_owned()), 3, 1)]);
    assert_eq!(hours(&mut c, "acme"), [hour_of("05-31 10", 3, 1)]);
    run_sql(&mut c, "UPDATE public.llm SET who = NULL WHERE id = 3");
    assert_eq!(models(&mut c, "acme"), [("opus".to_owned(), None, 3, 1)]);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_change_that_changes_no_figure_queues_nothing() {
    let (_db, mut c) = filled(BACKFILL);
    run_sql(
        &mut c,
        "ALTER TABLE public.llm ADD COLUMN note text; INSERT INTO public.llm VALUES (4, 'ann', NULL, 0, '2024-05-31 10:10Z', 'opus')",
    );
    post(&mut c);
    for change in [
        "UPDATE public.llm SET note = 'seen'",
        "UPDATE public.llm SET cost = cost, model = model",
        // Within the hour it does not matter when, nor which row has which amount.
        "UPDATE public.llm SET at = date_trunc('hour', at)",
        "UPDATE public.llm SET model = 'opus' WHERE id = 1",
        "UPDATE public.llm SET cost = -7 WHERE id = 4",
        "UPDATE public.llm SET id = id + 100",
        "UPDATE public.llm SET cost = 5 WHERE false",
        "DELETE FROM public.llm WHERE false",
        "DELETE FROM public.llm WHERE cost < 0",
        "INSERT INTO public.llm SELECT * FROM public.llm WHERE false",
    ] {
        run_sql(&mut c, change);
        assert_eq!(waiting(&mut c), 0, "{change}");
    }
    run_sql(&mut c, "UPDATE public.llm SET model = 'opus' WHERE id = 102");
    post(&mut c);
    run_sql(&mut c, "UPDATE public.llm SET cost = 120 - cost WHERE team IS NULL");
    assert_eq!(waiting(&mut c), 0, "two rows of one driver have changed places");
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_deleted_row_is_no_longer_spend() {
    for is_posted in [false, true] {
        let (_db, mut c) = filled(BACKFILL);
        if is_posted {
            post(&mut c);
        }
        run_sql(&mut c, "DELETE FROM public.llm WHERE id = 1");
        assert_eq!(hours(&mut c, "ann"), [hour_of("05-31 10", 20, 1)]);
        assert_charged(&mut c, CHARGES);
        run_sql(&mut c, "DELETE FROM public.llm");
        assert_eq!((figures(&mut c), used(&mut c, "user", "ann")), (vec![], 0));
        assert_charged(&mut c, CHARGES);
        assert_eq!(one::<i64>(&mut c, "SELECT count(*) FROM exa_billing.spend_log", &[]), 0);
    }
}

#[test]
fn a_ledger_that_forgets_leaves_its_figures() {
    for is_posted in [false, true] {
        let (_db, mut c) = filled(KEEP);
        run_sql(
            &mut c,
            "INSERT INTO public.llm VALUES (4, 'ann', NULL, 4000, '2024-05-31 10:15Z', 'opus'),
                 (5, 'ann', NULL, 50000, '2024-05-31 11:00Z', 'opus'), (6, 'ann', NULL, -6, '2024-05-31 11:00Z', 'opus')",
        );
        if is_posted {
            post(&mut c);
        }
        let before = everything(&mut c);
        run_sql(&mut c, "DELETE FROM public.llm WHERE id < 6");
        run_sql(&mut c, "DELETE FROM public.llm");
        assert_eq!(everything(&mut c), before);
        assert_eq!(
            hours(&mut c, "ann"),
            [hour_of("05-31 10", 4120, 3), hour_of("05-31 11", 50000, 1)]
        );
        // One closing row per owner, hour and driver.
        let closing: Vec<String> = usage_common::column(
            &mut c,
            "SELECT concat_ws(' ', owner_id, actor_user_id, source, model_or_plan_key, amount_microdollars,
                    spend_record_count, to_char(created_at AT TIME ZONE 'UTC', 'DD HH24:MI'))
             FROM exa_billing.spend_log ORDER BY 1",
        );
        assert_eq!(
            closing,
            [
                "acme ann ai_gateway opus 3 1 31 10:20",
                "ann ann ai_gateway haiku 20 1 31 10:50",
                "ann ann ai_gateway opus 4100 2 31 10:15",
                "ann ann ai_gateway opus 50000 1 31 11:00"
            ]
        );
        assert_books_hold(&mut c);
        post(&mut c);
        assert_eq!(everything(&mut c), before);
        assert_books_hold(&mut c);
    }
}

#[test]
fn what_a_forgetful_ledger_changes_or_rolls_back_is_as_everywhere() {
    let (_db, mut c) = filled(KEEP);
    run_sql(
        &mut c,
        "UPDATE public.llm SET cost = 7 WHERE id = 1; UPDATE public.llm SET cost = 0 WHERE id = 2",
    );
    run_sql(&mut c, "BEGIN; DELETE FROM public.llm; ROLLBACK");
    assert_charged(&mut c, CHARGES);
    run_sql(
        &mut c,
        "BEGIN ISOLATION LEVEL REPEATABLE READ;
         INSERT INTO public.llm VALUES (4, 'ann', NULL, 900, '2024-05-31 10:15Z', 'opus');
         DELETE FROM public.llm WHERE id IN (1, 4);
         COMMIT;
         -- The same rows again are charges again.
         INSERT INTO public.llm VALUES (1, 'ann', NULL, 7, '2024-05-31 10:10Z', 'opus')",
    );
    assert_eq!(hours(&mut c, "ann"), [hour_of("05-31 10", 914, 3)]);
    let before = everything(&mut c);
    assert_eq!(everything(&mut c), before);
    assert_books_hold(&mut c);
}

#[test]
fn what_cannot_be_kept_in_books_is_refused_in_the_writers_statement() {
    let (_db, mut c) = filled(BACKFILL);
    let before = state(&mut c);
    let ledger = "SELECT string_agg(l::text, ' ' ORDER BY id) FROM public.llm AS l";
    let rows: String = one(&mut c, ledger, &[]);
    for (row, message) in [
        ("NULL, NULL, 5, '2024-05-01Z', 'm'", "user_id must not be null"),
        ("'', NULL, 5, '2024-05-01Z', 'm'", "user_id must not be empty"),
        ("' ann', NULL, 5, '2024-05-01Z', 'm'", "user_id must not begin or end with white space"),
        (r"E'an\nn', NULL, 5, '2024-05-01Z', 'm'", "user_id must not contain control characters"),
        (
            r"E'ann\u0085', NULL, 5, '2024-05-01Z', 'm'",
            "user_id must not begin or end with white space",
        ),
        ("repeat('é', 256), NULL, 5, '2024-05-01Z', 'm'", "user_id is too long"),
        ("'ann', '', 5, '2024-05-01Z', 'm'", "organization_id must not be empty"),
        ("'ann', repeat('x', 256), 5, '2024-05-01Z', 'm'", "organization_id is too long"),
        ("'', 'acme', 5, '2024-05-01Z', 'm'", "user_id must not be empty"),
        ("'ann ', 'acme', 5, '2024-05-01Z', 'm'", "user_id must not begin or end with white space"),
        ("'ann', NULL, 5, NULL, 'm'", "created_at must not be null"),
        ("'ann', NULL, 5, 'infinity', 'm'", "created_at must be finite"),
        ("'ann', NULL, 5, '-infinity', 'm'", "created_at must be finite"),
        ("'ann', NULL, 5, '294276-12-31Z', 'm'", "created_at is beyond the calendar"),
        ("'ann', NULL, 5, '10000-01-01Z', 'm'", "created_at is beyond the calendar"),
        ("'ann', NULL, 5, '9999-12-31 23:00Z', 'm'", "created_at is beyond the calendar"),
        ("'ann', NULL, 5, '0044-03-15Z BC', 'm'", "created_at is beyond the calendar"),
        ("'ann', NULL, 9007199254740992, '2024-05-01Z', 'm'", "amount is too large"),
        ("'ann', NULL, 9223372036854775807, '2024-05-01Z', 'm'", "amount is too large"),
    ] {
        let good = "(8, 'bob', NULL, 80, '2024-05-01Z', 'm')";
        for statement in [
            format!("INSERT INTO public.llm VALUES {good}, (9, {row})"),
            format!(
                "CREATE TEMP TABLE staged AS SELECT * FROM public.llm LIMIT 0;
                 INSERT INTO staged VALUES (9, {row});
                 UPDATE public.llm SET (who, team, cost, at, model) =
                     (SELECT who, team, cost, at, model FROM staged) WHERE id = 2"
            ),
        ] {
            let error = error_of(&mut c, &statement);
            assert_eq!(error.code, "22023", "{statement}: {error:?}");
            assert_eq!(error.message, format!("spend source llm: {message}"), "{statement}");
        }
    }
    assert_unchanged(&mut c, &before, "a refused write");
    assert_eq!(one::<String>(&mut c, ledger, &[]), rows);
    // The ends of what is allowed.
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (10, repeat('𝄞', 255), NULL, 9007199254740991, '0001-01-01Z', 'm'),
             (11, 'a  b', repeat('o', 255), 1, '9999-11-30 23:59:59.999999Z', 'm')",
    );
    assert_charged(&mut c, CHARGES);
    assert_eq!(detach(&mut c, "llm"), 5);
    assert_books_hold(&mut c);
}

/// However the rows of one statement add up, none of them may be too large.
#[test]
fn a_bad_amount_does_not_hide_among_others() {
    let (_db, mut c) = filled(BACKFILL);
    let most = 9_007_199_254_740_991_i64;
    run_sql(
        &mut c,
        &format!(
            "UPDATE public.llm SET model = 'opus', team = NULL, at = '2024-05-31 10:00Z', cost = CASE id WHEN 1 THEN 2 ELSE {most} END"
        ),
    );
    let expected = figures(&mut c);
    for costs in [
        format!("WHEN 1 THEN {} ELSE 1", most + 1),
        format!("WHEN 1 THEN {} WHEN 2 THEN 1 ELSE {most}", most + 1),
        format!("WHEN 1 THEN {} ELSE 0", most + 1),
    ] {
        let error = error_of(&mut c, &format!("UPDATE public.llm SET cost = CASE id {costs} END"));
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("22023", "spend source llm: amount is too large"),
            "{costs}"
        );
    }
    assert_eq!(figures(&mut c), expected);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn the_least_number_turned_round_is_too_large() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "CREATE TABLE public.t (who text, cost bigint, at timestamptz);
         INSERT INTO public.t VALUES ('ann', -9223372036854775808, now() - interval '1 day')",
    );
    let map = r#"{"user_id": "who", "organization_id": {"value": null}, "amount": "cost", "created_at": "at", "negate": true}"#;
    attach_as(&mut c, "t", "public.t", map, "");
    run_sql(&mut c, "INSERT INTO public.t VALUES ('ann', -5, clock_timestamp())");
    let error = error_of(
        &mut c,
        "INSERT INTO public.t VALUES ('ann', -9223372036854775808, clock_timestamp())",
    );
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("22023", "spend source t: amount is too large")
    );
    assert_eq!(used(&mut c, "user", "ann"), 5);
    assert_books_hold(&mut c);
}
