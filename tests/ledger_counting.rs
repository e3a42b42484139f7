//! From when on the rows of an attached ledger count.

mod common;
mod ledger_books;
mod usage_common;

use common::{Database, error_of, one, run_sql};
use ledger_books::*;
use postgres::Client;
use usage_common::{assert_books_hold, books, column};

/// A ledger with rows of the last days, one of them bad, and one dated ahead.
fn with_past() -> (Database, Client) {
    let (db, mut c) = books();
    run_sql(&mut c, TABLE);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (1, 'ann', NULL, 100, now() - interval '3 days', 'opus'),
             (2, 'ann', 'acme', 20, now() - interval '1 minute', 'opus'),
             (3, NULL, NULL, 5, now() - interval '2 days', 'opus'),
             (4, 'ann', NULL, 9007199254740993, now() - interval '2 days', 'opus')",
    );
    (db, c)
}

/// Nothing that anybody asks for knows of rows that do not count.
#[track_caller]
fn assert_nothing_counts(c: &mut Client) {
    assert_eq!(figures(c), Vec::<String>::new());
    for kind in ["user", "organization"] {
        let id = if kind == "user" { "ann" } else { "acme" };
        assert_eq!(used(c, kind, id), 0);
        let sql = format!(
            "SELECT new_microdollars_used FROM exa_billing.recompute_{kind}_balances($1, true)"
        );
        assert_eq!(one::<i64>(c, &sql, &[&id]), 0);
        let sql = "SELECT count(*) FROM exa_billing.account_statement($1, $2, '2000-01-01Z', '2100-01-01Z')";
        assert_eq!(one::<i64>(c, sql, &[&kind, &id]), 1, "only the balance brought forward");
    }
    assert_books_hold(c);
}

#[test]
fn rows_from_before_the_attach_are_in_no_figure() {
    let (_db, mut c) = with_past();
    assert_eq!(attach(&mut c, ""), 0);
    assert_nothing_counts(&mut c);
    for change in [
        "UPDATE public.llm SET cost = cost + 1, model = 'haiku'",
        "UPDATE public.llm SET who = 'bob' WHERE id = 1",
        "UPDATE public.llm SET who = 'ann' WHERE id = 1",
        "UPDATE public.llm SET at = at - interval '1 hour'",
        "DELETE FROM public.llm WHERE id > 2",
        // Late, and by somebody whose transaction began long ago.
        "INSERT INTO public.llm VALUES (5, 'ann', NULL, 5, now() - interval '1 hour', 'opus')",
        "DELETE FROM public.llm WHERE id = 1",
    ] {
        run_sql(&mut c, change);
        assert_nothing_counts(&mut c);
        assert_eq!(waiting(&mut c), 0, "{change}");
    }
    // What happens from now on counts, and closing the table changes nothing of that.
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (6, 'ann', NULL, 60, clock_timestamp(), 'opus')",
    );
    assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "organization", "acme")), (60, 0));
    let before = everything(&mut c);
    assert_eq!(detach(&mut c, "llm"), 1);
    assert_eq!(everything(&mut c), before);
    assert_books_hold(&mut c);
}

#[test]
fn a_row_counts_while_it_is_dated_after_the_attach() {
    for on_delete in ["reverse", "keep"] {
        let (_db, mut c) = with_past();
        attach(&mut c, &format!(", on_delete => '{on_delete}'"));
        let mut expect = |change: &str, ann: i64| {
            run_sql(&mut c, change);
            assert_eq!(used(&mut c, "user", "ann"), ann, "{change}");
            assert_books_hold(&mut c);
        };
        expect("UPDATE public.llm SET at = clock_timestamp() WHERE id = 1", 100);
        expect(
            "SELECT exa_billing.post_spend(); UPDATE public.llm SET cost = 700 WHERE id = 1",
            700,
        );
        expect("UPDATE public.llm SET at = now() - interval '1 day' WHERE id = 1", 0);
        expect("UPDATE public.llm SET cost = 800 WHERE id = 1", 0);
        expect(
            "UPDATE public.llm SET at = clock_timestamp() + interval '3 hours' WHERE id IN (1, 2)",
            800,
        );
        expect("UPDATE public.llm SET at = now() - interval '1 day', cost = 5 WHERE id = 1", 0);
        expect("DELETE FROM public.llm WHERE id = 1", 0);
        assert_eq!(used(&mut c, "organization", "acme"), 20);
    }
}

#[test]
fn rows_dated_ahead_count_whether_they_were_there_before_or_not() {
    let (_db, mut c) = with_past();
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (8, 'ann', NULL, 8, now() + interval '2 hours', 'opus')",
    );
    assert_eq!(attach(&mut c, ""), 1);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (9, 'ann', NULL, 900, now() + interval '2 hours', 'opus')",
    );
    assert_eq!(used(&mut c, "user", "ann"), 908);
    let ahead = format!("{CHARGES} AND at > now()");
    assert_charged(&mut c, &ahead);
    // Hours from the attach on are known, not only those of the row.
    let covered = "SELECT covered_from = date_trunc('hour', attached_at, 'UTC')
                   FROM exa_billing.spend_sources WHERE source_name = 'llm'";
    assert!(one::<bool>(&mut c, covered, &[]));
    run_sql(&mut c, "DELETE FROM public.llm WHERE id > 7");
    assert_nothing_counts(&mut c);
}

/// Without a backfill a time that is none must not be taken for an early one.
#[test]
fn a_time_that_is_none_is_refused_with_and_without_backfill() {
    for more in ["", ", backfill => true"] {
        let (_db, mut c) = books_with_ledger(more);
        for (time, message) in [
            ("NULL", "created_at must not be null"),
            ("'-infinity'", "created_at must be finite"),
            ("'infinity'", "created_at must be finite"),
        ] {
            let insert =
                format!("INSERT INTO public.llm VALUES (1, 'ann', NULL, 5, {time}, 'opus')");
            let error = error_of(&mut c, &insert);
            assert_eq!(
                (error.code.as_str(), error.message),
                ("22023", format!("spend source llm: {message}"))
            );
        }
        detach(&mut c, "llm");
        // Rows like that from before the attach are left in peace, as long as they do not change.
        run_sql(
            &mut c,
            "INSERT INTO public.llm SELECT n, 'ann', NULL, n, at, 'opus'
             FROM unnest(ARRAY[NULL, '-infinity', 'infinity']::timestamptz[]) WITH ORDINALITY AS t(at, n)",
        );
        assert_eq!(attach(&mut c, more), 0);
        assert_nothing_counts(&mut c);
        run_sql(&mut c, "UPDATE public.llm SET id = id + 10");
        assert_nothing_counts(&mut c);
        assert_eq!(error_of(&mut c, "UPDATE public.llm SET cost = cost + 1").code, "22023");
        run_sql(&mut c, "UPDATE public.llm SET at = clock_timestamp() WHERE id = 12");
        assert_eq!(used(&mut c, "user", "ann"), 2);
        assert_books_hold(&mut c);
        run_sql(&mut c, "DELETE FROM public.llm");
        assert_nothing_counts(&mut c);
    }
}

#[test]
fn a_backfill_captures_everything_at_once() {
    for is_posted in [false, true] {
        let (_db, mut c) = books();
        run_sql(&mut c, TABLE);
        run_sql(
            &mut c,
            "INSERT INTO public.llm
             SELECT n, 'user-' || n % 3, CASE WHEN n % 4 = 0 THEN 'acme' END, CASE WHEN n % 9 > 0 THEN n END,
                    '2021-12-30 10:30Z'::timestamptz + n * interval '7 days 5 hours', 'model-' || n % 2
             FROM generate_series(1, 250) AS n",
        );
        let charged = "SELECT count(*) FROM public.llm WHERE cost > 0";
        assert_eq!(attach(&mut c, ", backfill => true"), one::<i64>(&mut c, charged, &[]));
        assert_eq!(
            used(&mut c, "organization", "acme"),
            (1..=250).filter(|n| n % 4 == 0 && n % 9 > 0).sum::<i64>()
        );
        let covered: Vec<String> = column(
            &mut c,
            "SELECT to_char(covered_from AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') FROM exa_billing.spend_sources
             WHERE source_name = 'llm'",
        );
        assert_eq!(covered, ["2022-01-06 15:00"]);
        if is_posted {
            post(&mut c);
        }
        // Rows dated before all others count too.
        run_sql(
            &mut c,
            "INSERT INTO public.llm VALUES (0, 'ann', NULL, 3, '2019-02-03 04:05Z', 'opus')",
        );
        assert_eq!(hours(&mut c, "ann"), [("2019-02-03 04".to_owned(), 3, 1)]);
        assert_charged(&mut c, CHARGES);
    }
}

/// More than is captured or closed in one go.
#[test]
fn a_backfill_and_a_detach_of_many_drivers_leave_none_out() {
    let (_db, mut c) = books();
    run_sql(&mut c, TABLE);
    run_sql(
        &mut c,
        "INSERT INTO public.llm
         SELECT n, 'user-' || n % 5, CASE WHEN n % 2 = 0 THEN 'acme' END, n, '2024-05-01Z'::timestamptz + n * interval '1 minute',
                CASE n % 3 WHEN 0 THEN 'model-' || n WHEN 1 THEN 'odd one ' || n END
         FROM generate_series(1, 24000) AS n",
    );
    assert_eq!(attach(&mut c, ", backfill => true"), 24_000);
    assert_charged(&mut c, CHARGES_OF_MANY);
    let before = figures(&mut c);
    assert!(detach(&mut c, "llm") > 10_000);
    assert_eq!(figures(&mut c), before);
    let all: i64 =
        one(&mut c, "SELECT sum(amount_microdollars)::bigint FROM exa_billing.spend_log", &[]);
    assert_eq!(all, 24_000 * 24_001 / 2);
    assert_books_hold(&mut c);
}

/// `CHARGES` with the models that are none.
const CHARGES_OF_MANY: &str = "
    SELECT CASE WHEN team IS NULL THEN 'user' ELSE 'organization' END AS owner_kind,
           coalesce(team, who) AS owner_id, who AS actor_user_id, 'variable' AS spend_category,
           'ai_gateway' AS source, 'other' AS product_key, 'other' AS feature_key,
           CASE WHEN model LIKE 'model-%' THEN model ELSE 'other' END AS model_or_plan_key,
           'other' AS provider_key, cost AS amount, 1::bigint AS records, at
    FROM public.llm";

#[test]
fn a_table_with_rows_that_can_be_no_charges_cannot_be_backfilled() {
    let (_db, mut c) = with_past();
    let call = format!(
        "SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 's', '{MAP}', true)"
    );
    for mend in
        ["UPDATE public.llm SET who = 'ann' WHERE id = 3", "DELETE FROM public.llm WHERE id = 4"]
    {
        let error = error_of(&mut c, &call);
        assert_eq!(error.code, "22023");
        assert!(error.message.starts_with("spend source llm: "), "{error:?}");
        assert_nothing_counts(&mut c);
        run_sql(&mut c, mend);
    }
    assert_eq!(attach(&mut c, ", backfill => true"), 3);
    assert_charged(&mut c, CHARGES);
}
