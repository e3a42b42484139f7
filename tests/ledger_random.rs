//! Random statements against an attached ledger, one session's and many at once: the figures are
//! always what plain SQL over the table says.

mod common;
mod ledger_books;
mod sessions;
mod usage_common;

use common::{one, run_sql};
use ledger_books::*;
use postgres::Client;
use sessions::{Dice, IMPATIENT, in_sessions, posting_beside};
use usage_common::assert_books_hold;

/// Owners, times and models of a row. Some times lie before the attach, some ahead of the clock,
/// and two of the models are the same to the books.
fn row(dice: &mut Dice) -> (String, String, String) {
    let who = ["'ann'", "'bob'", "'carl'", "NULL"][usize::try_from(dice.up_to(4)).unwrap()];
    let team = match (who, dice.up_to(3)) {
        ("NULL", 0) | (_, 1) => "'acme'",
        ("NULL", _) | (_, 2) => "'globex'",
        _ => "NULL",
    };
    let at = format!("(SELECT start FROM clock) + interval '{} minutes'", dice.up_to(600) - 300);
    let model = ["'opus'", "'haiku'", "NULL", "'n o n e'"][usize::try_from(dice.up_to(4)).unwrap()];
    (format!("{who}, {team}"), at, model.to_owned())
}

/// Rows that a change may be about.
fn some_rows(dice: &mut Dice) -> String {
    let first = dice.up_to(120);
    match dice.up_to(3) {
        0 => format!("id = {first}"),
        1 => format!("id BETWEEN {first} AND {first} + {}", dice.up_to(30)),
        _ => format!("id % 17 = {} AND team IS NOT NULL", first % 17),
    }
}

/// Deleted rows go on counting where `forgotten` keeps them.
fn deletion(rows: &str) -> String {
    format!(
        "WITH gone AS (DELETE FROM public.llm WHERE {rows} RETURNING *)
         INSERT INTO public.forgotten SELECT gone.* FROM gone, clock WHERE clock.keeps"
    )
}

fn statement(dice: &mut Dice) -> String {
    let (owner, at, model) = row(dice);
    let rows = some_rows(dice);
    let (id, amount) = (dice.up_to(120), dice.up_to(5_000) - 500);
    match dice.up_to(12) {
        0..=2 => format!(
            "INSERT INTO public.llm VALUES ({id}, {owner}, {amount}, {at}, {model})
             ON CONFLICT (id) DO UPDATE SET cost = llm.cost + 1, model = excluded.model"
        ),
        3 => format!(
            "INSERT INTO public.llm SELECT n, {owner}, {amount} + n, {at} + n * interval '7 minutes', {model}
             FROM generate_series({id}, {id} + 9) AS n ON CONFLICT DO NOTHING"
        ),
        4 => format!("UPDATE public.llm SET cost = cost + {} WHERE {rows}", amount / 10),
        5 => format!("UPDATE public.llm SET cost = nullif(-cost, 7) WHERE {rows}"),
        6 => format!("UPDATE public.llm SET (who, team) = (SELECT {owner}) WHERE {rows}"),
        7 => format!("UPDATE public.llm SET at = {at} + id * interval '1 minute' WHERE {rows}"),
        8 => format!("UPDATE public.llm SET model = {model}, cost = cost WHERE {rows}"),
        9 => deletion(&rows),
        10 => format!(
            "BEGIN; UPDATE public.llm SET cost = 77 WHERE {rows}; SAVEPOINT s; {}; ROLLBACK TO s;
             UPDATE public.llm SET model = {model} WHERE {rows}; {}",
            deletion("true"),
            if id % 2 == 0 { "COMMIT" } else { "ROLLBACK" }
        ),
        // Refused, where one of the rows is a charge.
        _ => format!("UPDATE public.llm SET who = NULL, team = NULL WHERE {rows}"),
    }
}

fn execute(c: &mut Client, statement: &str) {
    let Err(error) = c.batch_execute(statement) else { return };
    let code = error.code().map(|code| code.code().to_owned());
    assert!(
        // Sessions that are at the same rows crosswise: one of them gives way.
        matches!(code.as_deref(), Some("22023" | "40P01")),
        "{statement}: {:?}",
        error.as_db_error()
    );
    let _ = c.batch_execute("ROLLBACK");
}

/// What counts of the table, and of what a forgetful ledger has deleted.
const COUNTED: &str = "
    SELECT CASE WHEN team IS NULL THEN 'user' ELSE 'organization' END AS owner_kind,
           coalesce(team, who) AS owner_id, who AS actor_user_id, 'variable' AS spend_category,
           'ai_gateway' AS source, 'other' AS product_key, 'other' AS feature_key,
           CASE WHEN model IN ('opus', 'haiku') THEN model ELSE 'other' END AS model_or_plan_key,
           'other' AS provider_key, cost AS amount, 1::bigint AS records, at
    FROM (SELECT * FROM public.llm UNION ALL SELECT * FROM public.forgotten) AS l, public.clock
    WHERE cost > 0 AND at >= counts_from";

/// The ledger attached in the midst of its rows' times, as everything that was written before.
fn books(on_delete: &str, more: &str) -> (common::Database, Client) {
    let (db, mut c) = usage_common::books();
    run_sql(&mut c, TABLE);
    run_sql(&mut c, "CREATE TABLE public.forgotten (LIKE public.llm)");
    attach(&mut c, &format!(", on_delete => '{on_delete}' {more}"));
    run_sql(
        &mut c,
        "CREATE TABLE public.clock AS
         SELECT attached_at AS start, coalesce(counts_from, '-infinity') AS counts_from, on_delete = 'keep' AS keeps
         FROM exa_billing.spend_sources WHERE source_name = 'llm'",
    );
    (db, c)
}

fn three_hundred_statements(on_delete: &str, more: &str, seed: u64) {
    let (_db, mut c) = books(on_delete, more);
    let mut dice = Dice(seed);
    for round in 0..6 {
        for _ in 0..50 {
            execute(&mut c, &statement(&mut dice));
            if round % 2 == 0 && dice.up_to(3) == 0 {
                run_sql(&mut c, "SELECT exa_billing.post_spend()");
            }
        }
        let expected = figures_of(&mut c, COUNTED);
        assert!(expected.len() > 30, "too little is charged: {expected:?}");
        assert_eq!(figures(&mut c), expected, "round {round}, {on_delete} {more}");
        assert_books_hold(&mut c);
    }
    let before = everything(&mut c);
    assert!(detach(&mut c, "llm") > 0);
    assert_eq!(everything(&mut c), before);
    post(&mut c);
    assert_eq!(everything(&mut c), before);
    assert_books_hold(&mut c);
}

#[test]
fn random_statements_charge_what_plain_sql_says() {
    three_hundred_statements("reverse", ", backfill => true", 0x5eed_1edf_e201);
}

#[test]
fn random_statements_around_the_attach_charge_what_plain_sql_says() {
    three_hundred_statements("reverse", "", 0x5eed_1edf_e202);
}

#[test]
fn random_statements_to_a_forgetful_ledger_charge_what_plain_sql_says() {
    three_hundred_statements("keep", ", backfill => true", 0x5eed_1edf_e203);
}

#[test]
fn sessions_that_write_to_one_ledger_at_once_charge_what_plain_sql_says() {
    let (db, mut c) = books("reverse", ", backfill => true");
    // Whoever waits crosswise is to notice soon.
    let options = format!("{IMPATIENT} -c deadlock_timeout=20ms");
    posting_beside(&db, || {
        in_sessions(&db, 8, &options, |number, client| {
            let mut dice = Dice(0x5eed_0000 + u64::try_from(number).unwrap() * 7919 + 1);
            let level =
                ["read committed", "repeatable read", "read committed", "serializable"][number % 4];
            run_sql(client, &format!("SET default_transaction_isolation = '{level}'"));
            for _ in 0..60 {
                execute_with_retries(client, &statement(&mut dice));
            }
        })
    });
    let expected = figures_of(&mut c, COUNTED);
    assert!(expected.len() > 30, "too little is charged: {expected:?}");
    assert_eq!(figures(&mut c), expected);
    assert_books_hold(&mut c);
    assert_eq!(one::<i64>(&mut c, "SELECT count(*) FROM exa_billing.unposted_spend", &[]), 0);
}

fn execute_with_retries(c: &mut Client, statement: &str) {
    loop {
        match c.batch_execute(statement) {
            Err(error) if error.code().is_some_and(|code| code.code() == "40001") => {
                let _ = c.batch_execute("ROLLBACK");
            }
            Err(error)
                if error.code().is_some_and(|code| ["22023", "40P01"].contains(&code.code())) =>
            {
                let _ = c.batch_execute("ROLLBACK");
                return;
            }
            result => {
                return result
                    .unwrap_or_else(|error| panic!("{statement}: {:?}", error.as_db_error()));
            }
        }
    }
}
