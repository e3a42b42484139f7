//! An attached ledger charges in its writer's transaction, at every level of isolation: both are
//! committed, or neither.

mod common;
mod ledger_books;
mod sessions;
mod usage_common;

use common::{one, run_sql, sqlstate};
use ledger_books::*;
use postgres::Client;
use sessions::{IMPATIENT, pid, wait_for_lock_of};
use usage_common::{assert_books_hold, session};

const ROW: &str =
    "INSERT INTO public.llm VALUES (1, 'ann', NULL, 700, '2024-05-01 10:20Z', 'opus')";
const BACKFILL: &str = ", backfill => true";

#[test]
fn what_is_rolled_back_is_not_charged() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, &format!("BEGIN; {ROW}"));
    assert_eq!(used(&mut c, "user", "ann"), 700);
    run_sql(&mut c, "ROLLBACK");
    assert_eq!((figures(&mut c), waiting(&mut c)), (vec![], 0));
    run_sql(&mut c, ROW);
    run_sql(&mut c, "BEGIN; UPDATE public.llm SET cost = 5; DELETE FROM public.llm; ROLLBACK");
    assert_eq!(used(&mut c, "user", "ann"), 700);
    // A statement that fails after the capture takes it back too.
    let error = c.batch_execute(
        "WITH more AS (INSERT INTO public.llm VALUES (2, 'ann', NULL, 5, '2024-05-01Z', 'opus') RETURNING id)
         INSERT INTO public.llm SELECT 1, 'ann', NULL, 5, '2024-05-01Z', 'opus' FROM more",
    );
    assert_eq!(sqlstate(error), "23505");
    assert_charged(&mut c, CHARGES);
}

#[test]
fn what_is_undone_up_to_a_savepoint_is_not_charged() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(
        &mut c,
        "BEGIN;
         INSERT INTO public.llm VALUES (1, 'ann', NULL, 1, '2024-05-01 10:00Z', 'opus');
         SAVEPOINT a;
         INSERT INTO public.llm VALUES (2, 'ann', NULL, 20, '2024-05-01 10:00Z', 'opus');
         SAVEPOINT b;
         UPDATE public.llm SET cost = cost * 100, who = 'bob';
         ROLLBACK TO b;
         INSERT INTO public.llm VALUES (3, 'ann', NULL, 300, '2024-05-01 10:00Z', 'opus');
         RELEASE b;
         ROLLBACK TO a;
         INSERT INTO public.llm VALUES (4, 'ann', NULL, 4000, '2024-05-01 10:00Z', 'opus')",
    );
    assert_eq!(used(&mut c, "user", "ann"), 4001);
    run_sql(
        &mut c,
        "DO $$ BEGIN
             UPDATE public.llm SET cost = 7;
             RAISE EXCEPTION 'not so';
         EXCEPTION WHEN raise_exception THEN
             INSERT INTO public.llm VALUES (5, 'ann', NULL, 50000, '2024-05-01 10:00Z', 'opus');
         END $$;
         COMMIT",
    );
    assert_eq!(hours(&mut c, "ann"), [("2024-05-01 10".to_owned(), 54001, 3)]);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn writers_at_every_level_of_isolation_charge() {
    let (db, mut c) = books_with_ledger(BACKFILL);
    let mut other = session(&db);
    for (level, id) in [("READ COMMITTED", 1), ("REPEATABLE READ", 2), ("SERIALIZABLE", 3)] {
        run_sql(
            &mut c,
            &format!(
                "BEGIN ISOLATION LEVEL {level};
                 INSERT INTO public.llm VALUES ({id}, 'ann', NULL, 1000, '2024-05-01 10:20Z', 'model-{id}')"
            ),
        );
        // What others write and post meanwhile is not this transaction's, unless it may see it.
        run_sql(
            &mut other,
            &format!(
                "INSERT INTO public.llm VALUES (10 + {id}, 'bob', NULL, 5, '2024-05-01 10:20Z', 'new-{id}')"
            ),
        );
        post(&mut other);
        run_sql(
            &mut c,
            &format!(
                "UPDATE public.llm SET cost = cost + 1 WHERE id = {id};
                 INSERT INTO public.llm VALUES (20 + {id}, 'ann', NULL, 30, '2024-05-01 10:20Z', 'new-{id}');
                 DELETE FROM public.llm WHERE id = 20 + {id}"
            ),
        );
        let seen = if level == "READ COMMITTED" { 5 } else { 5 * (id - 1) };
        assert_eq!(
            (used(&mut c, "user", "ann"), used(&mut c, "user", "bob")),
            (1001 * id, seen),
            "{level}"
        );
        run_sql(&mut c, "COMMIT");
        assert_eq!(
            (used(&mut c, "user", "ann"), used(&mut c, "user", "bob")),
            (1001 * id, 5 * id),
            "{level}"
        );
    }
    assert_charged(&mut c, CHARGES);
}

#[test]
fn a_prepared_transaction_charges_when_it_is_committed() {
    let (db, mut c) = books_with_ledger(BACKFILL);
    let name = db.name().to_owned();
    run_sql(&mut c, &format!("BEGIN; {ROW}; PREPARE TRANSACTION '{name} a'"));
    assert_eq!(figures(&mut c), Vec::<String>::new());
    run_sql(
        &mut c,
        &format!(
            "BEGIN; INSERT INTO public.llm VALUES (2, 'ann', NULL, 5, '2024-05-01 10:20Z', 'opus');
             PREPARE TRANSACTION '{name} b'"
        ),
    );
    run_sql(&mut c, &format!("COMMIT PREPARED '{name} a'"));
    run_sql(&mut c, &format!("ROLLBACK PREPARED '{name} b'"));
    assert_eq!(hours(&mut c, "ann"), [("2024-05-01 10".to_owned(), 700, 1)]);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn no_session_gets_around_the_capture_by_calling_itself_a_replica() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, &format!("SET session_replication_role = replica; {ROW}"));
    assert_eq!(used(&mut c, "user", "ann"), 700);
    run_sql(&mut c, "UPDATE public.llm SET cost = 500, who = 'bob'");
    assert_eq!((used(&mut c, "user", "ann"), used(&mut c, "user", "bob")), (0, 500));
    run_sql(&mut c, "SET session_replication_role = local; DELETE FROM public.llm");
    assert_eq!(used(&mut c, "user", "bob"), 0);
    run_sql(&mut c, "RESET session_replication_role");
    assert_charged(&mut c, CHARGES);
}

#[test]
fn settings_of_the_writers_session_change_nothing() {
    let (_db, mut c) = books_with_ledger(BACKFILL);
    for (number, settings) in [
        "SET TimeZone = 'Asia/Kathmandu'",
        "SET DateStyle = 'German, DMY'",
        "SET search_path = pg_temp, public; CREATE TEMP TABLE llm (id int); CREATE TEMP TABLE exa_billing_new (id int)",
        "SET standard_conforming_strings = off; SET backslash_quote = on",
        "SET transform_null_equals = on; SET row_security = off",
        "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan",
    ]
    .iter()
    .enumerate()
    {
        run_sql(
            &mut c,
            &format!(
                "{settings};
                 INSERT INTO public.llm VALUES ({number}, 'ann', NULL, 1, '2024-05-01T23:40:00Z', 'opus')"
            ),
        );
    }
    run_sql(&mut c, "RESET ALL; DISCARD TEMP");
    assert_eq!(hours(&mut c, "ann"), [("2024-05-01 23".to_owned(), 6, 6)]);
    assert_charged(&mut c, CHARGES);
}

/// Its snapshot does not know of the attached table; its rows were written after the attach.
#[test]
fn a_transaction_with_a_snapshot_from_before_the_attach_charges() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let (db, mut c) = usage_common::books();
        run_sql(&mut c, TABLE);
        let mut old = session(&db);
        run_sql(&mut old, &format!("BEGIN ISOLATION LEVEL {level}"));
        assert_eq!(one::<i64>(&mut old, "SELECT count(*) FROM exa_billing.spend_sources", &[]), 2);
        attach(&mut c, BACKFILL);
        run_sql(&mut old, ROW);
        run_sql(&mut old, "UPDATE public.llm SET cost = cost + 7");
        run_sql(&mut old, "COMMIT");
        assert_eq!(used(&mut c, "user", "ann"), 707, "{level}");
        assert_charged(&mut c, CHARGES);
    }
}

/// Neither an attach nor a detach shows in a snapshot from before it.
#[test]
fn an_old_snapshot_goes_on_seeing_what_it_saw() {
    let (db, mut c) = usage_common::books();
    run_sql(&mut c, TABLE);
    run_sql(&mut c, ROW);
    let mut old = session(&db);
    let see = |old: &mut Client, amount: i64, what: &str| {
        assert_eq!(used(old, "user", "ann"), amount, "{what}");
        let recomputed = "SELECT new_microdollars_used FROM recompute_user_balances('ann', true)";
        assert_eq!(one::<i64>(old, recomputed, &[]), amount, "{what}");
        assert_books_hold(old);
    };
    run_sql(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    see(&mut old, 0, "before");
    attach(&mut c, BACKFILL);
    see(&mut old, 0, "beside an attach");
    run_sql(&mut c, "SELECT post_spend()");
    see(&mut old, 0, "posted");
    run_sql(&mut old, "COMMIT");
    // Detaching waits for those who have read the table; this one only has its snapshot.
    run_sql(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(one::<i64>(&mut old, "SELECT count(*) FROM spend_sources", &[]), 3);
    run_sql(
        &mut c,
        "INSERT INTO public.llm VALUES (2, 'ann', NULL, 5, '2024-05-01 10:20Z', 'opus')",
    );
    assert_eq!(detach(&mut c, "llm"), 1);
    see(&mut old, 700, "beside a detach");
    run_sql(&mut c, "UPDATE public.llm SET cost = 1; SELECT post_spend()");
    see(&mut old, 700, "beside changes that nobody captures");
    run_sql(&mut old, "COMMIT");
    see(&mut old, 705, "detached");
}

#[test]
fn attaching_waits_for_those_who_are_writing() {
    let (db, mut c) = usage_common::books();
    run_sql(&mut c, TABLE);
    run_sql(&mut c, &format!("BEGIN; {ROW}"));
    let mut other = db.client_with(IMPATIENT);
    let other_pid = pid(&mut other);
    let attaching = std::thread::spawn(move || attach(&mut other, BACKFILL));
    wait_for_lock_of(&mut session(&db), other_pid);
    run_sql(&mut c, "COMMIT");
    assert_eq!(attaching.join().unwrap(), 1, "what was committed meanwhile is captured");
    assert_eq!(used(&mut c, "user", "ann"), 700);
    assert_charged(&mut c, CHARGES);
}

#[test]
fn detaching_waits_for_those_who_are_writing() {
    let (db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, &format!("BEGIN; {ROW}"));
    let mut other = db.client_with(IMPATIENT);
    let other_pid = pid(&mut other);
    let detaching = std::thread::spawn(move || detach(&mut other, "llm"));
    wait_for_lock_of(&mut session(&db), other_pid);
    run_sql(&mut c, "COMMIT");
    assert_eq!(detaching.join().unwrap(), 1);
    assert_eq!(used(&mut c, "user", "ann"), 700);
    // From here on the table is nobody's journal.
    run_sql(&mut c, "UPDATE public.llm SET cost = 9; DELETE FROM public.llm");
    assert_eq!(used(&mut c, "user", "ann"), 700);
    assert_books_hold(&mut c);
}

/// It has read the ledger before a detach asks for it, and writes to it while the detach waits.
#[test]
fn a_transaction_that_reads_and_then_writes_does_not_collide_with_a_detach() {
    let (db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, "BEGIN; SELECT count(*) FROM public.llm");
    let mut other = db.client_with(IMPATIENT);
    let other_pid = pid(&mut other);
    let detaching = std::thread::spawn(move || detach(&mut other, "llm"));
    wait_for_lock_of(&mut session(&db), other_pid);
    run_sql(&mut c, ROW);
    run_sql(&mut c, "UPDATE public.llm SET cost = cost + 1");
    run_sql(&mut c, "COMMIT");
    assert_eq!(detaching.join().unwrap(), 1);
    assert_eq!(used(&mut c, "user", "ann"), 701);
    assert_books_hold(&mut c);
}

#[test]
fn of_two_that_detach_a_table_one_does() {
    let (db, mut c) = books_with_ledger(BACKFILL);
    run_sql(&mut c, ROW);
    run_sql(&mut c, "BEGIN");
    assert_eq!(detach(&mut c, "llm"), 1);
    let mut other = db.client_with(IMPATIENT);
    let other_pid = pid(&mut other);
    let detaching = std::thread::spawn(move || {
        sqlstate(other.batch_execute("SELECT exa_billing.detach_spend_source('llm')"))
    });
    wait_for_lock_of(&mut session(&db), other_pid);
    run_sql(&mut c, "COMMIT");
    assert_eq!(detaching.join().unwrap(), "P0002");
    assert_eq!(used(&mut c, "user", "ann"), 700);
    assert_books_hold(&mut c);
}

#[test]
fn an_attach_and_a_detach_can_be_rolled_back() {
    let (_db, mut c) = usage_common::books();
    run_sql(&mut c, TABLE);
    run_sql(&mut c, ROW);
    run_sql(&mut c, "BEGIN");
    assert_eq!(attach(&mut c, BACKFILL), 1);
    assert_eq!(used(&mut c, "user", "ann"), 700);
    run_sql(&mut c, "ROLLBACK");
    assert_eq!(figures(&mut c), Vec::<String>::new());
    run_sql(&mut c, "DELETE FROM public.llm");
    attach(&mut c, BACKFILL);
    run_sql(&mut c, ROW);
    run_sql(&mut c, "BEGIN");
    assert_eq!(detach(&mut c, "llm"), 1);
    run_sql(&mut c, "ROLLBACK");
    run_sql(&mut c, "UPDATE public.llm SET cost = cost + 1");
    assert_eq!(used(&mut c, "user", "ann"), 701);
    assert_charged(&mut c, CHARGES);
    assert_eq!(one::<i64>(&mut c, "SELECT count(*) FROM exa_billing.spend_log", &[]), 0);
}

#[test]
fn attaching_and_detaching_want_to_see_what_others_committed() {
    let (_db, mut c) = usage_common::books();
    run_sql(&mut c, TABLE);
    let attach_sql = format!(
        "SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway', '{MAP}')"
    );
    for (level, call) in [
        ("REPEATABLE READ", attach_sql.as_str()),
        ("SERIALIZABLE", attach_sql.as_str()),
        ("REPEATABLE READ", "SELECT exa_billing.detach_spend_source('llm')"),
    ] {
        run_sql(&mut c, &format!("BEGIN ISOLATION LEVEL {level}"));
        assert_eq!(sqlstate(c.batch_execute(call)), "55000", "{level} {call}");
        run_sql(&mut c, "ROLLBACK");
    }
    run_sql(&mut c, "BEGIN READ ONLY");
    assert_eq!(sqlstate(c.batch_execute(&attach_sql)), "25006");
    run_sql(&mut c, "ROLLBACK");
    assert_books_hold(&mut c);
}
