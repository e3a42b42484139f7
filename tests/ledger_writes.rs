//! An attached ledger charges with whatever statement writes to it, in that statement.

mod common;
mod ledger_books;
mod usage_common;

use std::io::Write as _;

use common::{error_of, one, run_sql};
use ledger_books::*;
use usage_common::assert_books_hold;

const BACKFILL: &str = ", backfill => true";

#[test]
fn an_inserted_row_is_a_charge_of_its_user_or_its_organization() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (1, 'ann', NULL, 700, '2024-05-01 10:20Z', 'opus');
         INSERT INTO public.llm VALUES (2, 'ann', 'acme', 30, '2024-05-01 10:59:59.999999Z', 'opus'),
                                       (3, 'bob', 'acme', 5, '2024-05-01 11:00Z', NULL),
                                       (4, NULL, 'acme', 2, '2024-05-01 11:00Z', 'opus')",
    );
    for posted in [false, true] {
        assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "organization", "acme")), (700, 37));
        assert_eq!(hours(&mut c, "ann"), [("2024-05-01 10".to_owned(), 700, 1)]);
        assert_eq!(
            hours(&mut c, "acme"),
            [("2024-05-01 10".to_owned(), 30, 1), ("2024-05-01 11".to_owned(), 7, 2)]
        );
        let (ann, bob) = (Some("ann".to_owned()), Some("bob".to_owned()));
        assert_eq!(
            models(&mut c, "acme"),
            [
                ("opus".to_owned(), ann, 30, 1),
                ("opus".to_owned(), None, 2, 1),
                ("other".to_owned(), bob, 5, 1)
            ]
        );
        if !posted {
            assert_eq!(waiting(&mut c), 4);
            assert_charged(&mut c, CHARGES);
        }
    }
}

#[test]
fn what_has_no_amount_is_no_spend_whoever_it_is_of() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES
             (1, 'ann', NULL, NULL, '2024-05-01 10:20Z', 'opus'), (2, 'ann', NULL, 0, '2024-05-01 10:20Z', 'opus'),
             (3, 'ann', NULL, -5, '2024-05-01 10:20Z', 'opus'), (4, NULL, NULL, 0, 'infinity', 'opus'),
             (5, ' bad ', '', NULL, NULL, NULL)",
    );
    assert_eq!((waiting(&mut c), figures(&mut c)), (0, vec![]));
    // Whatever has an amount later is charged when it has it.
    run_sql(&mut c, "UPDATE public.llm SET cost = 9 WHERE id <= 3");
    assert_eq!(hours(&mut c, "ann"), [("2024-05-01 10".to_owned(), 27, 3)]);
    assert_charged(&mut c, CHARGES);
    run_sql(
        &mut c,
        "UPDATE public.llm SET cost = CASE id WHEN 1 THEN NULL WHEN 2 THEN 0 ELSE -9 END",
    );
    assert_eq!(figures(&mut c), Vec::<String>::new());
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_copied_ledger_is_charged() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    let mut copy = c.copy_in("COPY public.llm FROM STDIN").unwrap();
    for n in 0..1000 {
        let row =
            format!("{n}\tuser-{}\t\\N\t{n}\t2024-05-0{} 10:30:00Z\topus\n", n % 7, 1 + n % 3);
        copy.write_all(row.as_bytes()).unwrap();
    }
    assert_eq!(copy.finish().unwrap(), 1000);
    let all: i64 =
        one(&mut c, "SELECT sum(microdollars_used)::bigint FROM exa_billing.account_balances", &[]);
    assert_eq!(all, 999 * 1000 / 2);
    assert_eq!(waiting(&mut c), 21, "one queue row per owner, hour and driver of a statement");
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_hundred_thousand_rows_of_one_statement_are_charged() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "INSERT INTO public.llm
         SELECT n, 'user-' || n % 100, CASE WHEN n % 2 = 0 THEN 'org-' || n % 10 END, n,
                '2024-05-01Z'::timestamptz + n * interval '1 second', 'model-' || n % 3
         FROM generate_series(1, 100000) AS n",
    );
    let all: i64 =
        one(&mut c, "SELECT sum(microdollars_used)::bigint FROM exa_billing.account_balances", &[]);
    assert_eq!(all, 100_000 * 100_001 / 2);
    assert_charged(&mut c, CHARGES);
    run_sql(&mut c, "UPDATE public.llm SET cost = cost + 1 WHERE id <= 50000");
    run_sql(&mut c, "DELETE FROM public.llm WHERE id > 99000");
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_ledger_filled_out_of_another_table_is_charged() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "CREATE TABLE public.staged (LIKE public.llm);
         INSERT INTO public.staged SELECT n, 'ann', 'acme', 10, '2024-05-01 10:00Z', 'opus' FROM generate_series(1, 9) AS n;
         INSERT INTO public.llm SELECT * FROM public.staged WHERE id > 4;
         INSERT INTO public.llm SELECT id + 100, who, NULL, cost, at, model FROM public.llm;
         INSERT INTO public.llm SELECT * FROM public.staged WHERE id > 40",
    );
    assert_eq!((used(&mut c, "organization", "acme"), used(&mut c, "user", "ann")), (50, 50));
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_conflict_that_is_ignored_charges_nothing_and_one_that_updates_charges_the_difference() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (1, 'ann', NULL, 700, '2024-05-01 10:20Z', 'opus');
         INSERT INTO public.llm VALUES (1, 'ann', NULL, 900, '2024-05-01 10:20Z', 'opus'),
                                       (2, 'ann', NULL, 50, '2024-05-01 10:30Z', 'opus')
         ON CONFLICT DO NOTHING",
    );
    assert_eq!(hours(&mut c, "ann"), [("2024-05-01 10".to_owned(), 750, 2)]);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (1, 'ann', 'acme', 900, '2024-05-01 12:20Z', 'haiku'),
                                       (2, 'ann', NULL, 1, '2024-05-01 10:30Z', 'opus'),
                                       (3, 'bob', NULL, 5, '2024-05-01 10:30Z', 'opus')
         ON CONFLICT (id) DO UPDATE
         SET cost = llm.cost + excluded.cost, team = excluded.team, at = excluded.at, model = excluded.model
         WHERE llm.cost > 50",
    );
    assert_eq!(hours(&mut c, "ann"), [("2024-05-01 10".to_owned(), 50, 1)]);
    assert_eq!(hours(&mut c, "acme"), [("2024-05-01 12".to_owned(), 1600, 1)]);
    assert_eq!(used(&mut c, "user", "bob"), 5);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_merge_charges_what_it_inserts_updates_and_deletes() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "INSERT INTO public.llm SELECT n, 'ann', NULL, 100 * n, '2024-05-01 10:20Z', 'opus' FROM generate_series(1, 4) AS n;
         MERGE INTO public.llm AS l
         USING (VALUES (2, 'ann', 1), (3, 'ann', 0), (7, 'bob', 9)) AS s(id, who, cost) ON l.id = s.id
         WHEN MATCHED AND s.cost = 0 THEN DELETE
         WHEN MATCHED THEN UPDATE SET cost = l.cost + s.cost, at = '2024-05-02 10:00Z'
         WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.who, NULL, s.cost, '2024-05-01 10:20Z', 'opus')",
    );
    assert_eq!(
        hours(&mut c, "ann"),
        [("2024-05-01 10".to_owned(), 500, 2), ("2024-05-02 10".to_owned(), 201, 1)]
    );
    assert_eq!(hours(&mut c, "bob"), [("2024-05-01 10".to_owned(), 9, 1)]);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn several_writes_in_one_statement_are_all_charged() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "WITH a AS (INSERT INTO public.llm VALUES (1, 'ann', NULL, 10, '2024-05-01 10:00Z', 'opus') RETURNING 1),
              b AS (INSERT INTO public.llm VALUES (2, 'bob', NULL, 20, '2024-05-01 10:00Z', 'opus') RETURNING 1)
         SELECT FROM a, b;
         -- Moving a row out and into the ledger, and changing another one beside.
         WITH gone AS (DELETE FROM public.llm WHERE id = 1 RETURNING *),
              more AS (UPDATE public.llm SET cost = cost + 1 WHERE id = 2 RETURNING 1)
         INSERT INTO public.llm SELECT id, 'carl', 'acme', cost, at, model FROM gone, more",
    );
    assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "user", "bob")), (0, 21));
    assert_eq!(used(&mut c, "organization", "acme"), 10);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn what_triggers_of_the_table_change_is_charged_as_they_leave_it() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "CREATE FUNCTION public.double() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF new.cost = 13 THEN RETURN NULL; END IF; new.cost := 2 * new.cost; RETURN new; END';
         CREATE TRIGGER double BEFORE INSERT ON public.llm FOR EACH ROW EXECUTE FUNCTION public.double();
         -- Writes to the ledger again, from inside of a write to it.
         CREATE FUNCTION public.fee() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN IF new.id < 100 THEN
                  INSERT INTO public.llm VALUES (new.id + 100, new.who, new.team, 1, new.at, ''fee'');
              END IF; RETURN NULL; END';
         CREATE TRIGGER fee AFTER INSERT ON public.llm FOR EACH ROW EXECUTE FUNCTION public.fee();
         INSERT INTO public.llm VALUES (1, 'ann', NULL, 10, '2024-05-01 10:00Z', 'opus'),
                                       (2, 'ann', NULL, 13, '2024-05-01 10:00Z', 'opus'),
                                       (3, 'ann', NULL, 30, '2024-05-01 10:00Z', 'opus')",
    );
    let ann = || Some("ann".to_owned());
    let expected = [("fee".to_owned(), ann(), 4, 2), ("opus".to_owned(), ann(), 80, 2)];
    assert_eq!(models(&mut c, "ann"), expected);
    assert_charged(&mut c, CHARGES);
}

/// Two parents of the ledger, and rows of both.
const PARENTS: &str = "
    CREATE TABLE public.people (name text PRIMARY KEY);
    CREATE TABLE public.teams (name text PRIMARY KEY);
    INSERT INTO public.people VALUES ('ann'), ('bob');
    INSERT INTO public.teams VALUES ('acme');
    ALTER TABLE public.llm
        ADD FOREIGN KEY (who) REFERENCES public.people ON DELETE CASCADE ON UPDATE CASCADE,
        ADD FOREIGN KEY (team) REFERENCES public.teams ON DELETE SET NULL;
    INSERT INTO public.llm VALUES (1, 'ann', NULL, 10, '2024-05-01 10:00Z', 'opus'),
                                  (2, 'ann', 'acme', 200, '2024-05-01 10:00Z', 'opus'),
                                  (3, 'bob', 'acme', 3000, '2024-05-01 11:00Z', 'opus'),
                                  (4, 'bob', NULL, 40000, '2024-05-01 11:00Z', 'opus');";

#[test]
fn rows_that_a_foreign_key_takes_along_are_taken_back() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, PARENTS);
    run_sql(&mut c, "DELETE FROM public.people WHERE name = 'ann'");
    assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "organization", "acme")), (0, 3000));
    assert_charged(&mut c, CHARGES);
    run_sql(&mut c, "DELETE FROM public.people");
    assert_eq!(figures(&mut c), Vec::<String>::new());
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_renamed_user_takes_the_charges_along() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, PARENTS);
    post(&mut c);
    run_sql(&mut c, "UPDATE public.people SET name = 'ann b.' WHERE name = 'ann'");
    assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "user", "ann b.")), (0, 10));
    assert_eq!(used(&mut c, "organization", "acme"), 3200);
    let actors: Vec<_> =
        models(&mut c, "acme").into_iter().map(|(_, actor, amount, _)| (actor, amount)).collect();
    assert_eq!(actors, [(Some("ann b.".to_owned()), 200), (Some("bob".to_owned()), 3000)]);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn without_their_organization_charges_are_the_users_own() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, PARENTS);
    run_sql(&mut c, "DELETE FROM public.teams");
    assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "user", "bob")), (210, 43000));
    assert_eq!(used(&mut c, "organization", "acme"), 0);
    assert_charged(&mut c, CHARGES);
    // A charge of nobody cannot be: whoever would leave one behind is refused.
    run_sql(
        &mut c,
        "INSERT INTO public.teams VALUES ('acme');
         INSERT INTO public.llm VALUES (5, NULL, 'acme', 5, '2024-05-01 10:00Z', 'opus')",
    );
    let error = error_of(&mut c, "DELETE FROM public.teams");
    assert_eq!(error.code, "22023");
    assert_eq!(error.message, "spend source llm: user_id must not be null");
    assert_eq!(used(&mut c, "organization", "acme"), 5);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn emptying_the_ledger_in_one_stroke_is_refused() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, PARENTS);
    for truncate in [
        "TRUNCATE public.llm",
        "TRUNCATE public.people CASCADE",
        "TRUNCATE public.people, public.teams, public.llm RESTART IDENTITY",
        "SET session_replication_role = replica; TRUNCATE public.llm",
    ] {
        let error = error_of(&mut c, truncate);
        assert_eq!(error.code, "55000", "{truncate}");
        assert_eq!(error.message, "an attached table refuses TRUNCATE");
        assert!(error.hint.unwrap().contains("detach_spend_source()"));
    }
    run_sql(&mut c, "SET session_replication_role = origin");
    assert_charged(&mut c, CHARGES);
    assert_eq!(detach(&mut c, "llm"), 4);
    run_sql(&mut c, "TRUNCATE public.llm");
    assert_eq!(used(&mut c, "user", "bob"), 40000);
    assert_books_hold(&mut c);
}
