//! Grants, adjustments, the take-over of a balance, and the guards of the ledger.

mod common;
mod credits_common;
mod usage_common;

use common::{error_of, one, run_sql, sqlstate};
use credits_common::*;
use postgres::Client;
use usage_common::{assert_books_hold, assert_unchanged, column, state};
use uuid::Uuid;

fn id_of(c: &mut Client, call: &str) -> Uuid {
    one(c, &format!("select exa_billing.{call}"), &[])
}

#[test]
fn a_grant_is_one_row_and_its_amount_more_credit() {
    let (_db, mut c) = books();
    user("u").llm(&mut c, 7, "2025-04-01");
    let id = id_of(
        &mut c,
        "grant_credit('user', 'u', 100, '2040-01-01 00:00+00', 'promo', 'welcome', true, 'k', '2025-04-02 00:00+00')",
    );
    let row: String = one(
        &mut c,
        "select concat_ws(' ', owner_kind, owner_id, amount_microdollars, to_char(expiry_date at time zone 'UTC', 'YYYY-MM-DD'),
             original_baseline_microdollars_used, expiration_baseline_microdollars_used, credit_category,
             description, is_free, original_transaction_id is null, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD'),
             recorded_at between now() - interval '1 minute' and clock_timestamp())
         from credit_transactions where id = $1",
        &[&id],
    );
    assert_eq!(row, "user u 100 2040-01-01 7 7 promo welcome t t 2025-04-02 t");
    assert_eq!(user("u").figures(&mut c, "now"), (100, 7, 93));
    let lasting = id_of(&mut c, "grant_credit('user', 'u', 50)");
    let row: String = one(
        &mut c,
        "select concat_ws(' ', original_baseline_microdollars_used, expiration_baseline_microdollars_used is null,
             credit_category is null, description is null, is_free, created_at <= recorded_at)
         from credit_transactions where id = $1",
        &[&lasting],
    );
    assert_eq!(row, "7 t t t f t");
    assert_eq!(user("u").next(&mut c, "now"), (Some("2040-01-01 00:00:00".into()), Some(100)));
    assert_books_hold(&mut c);
}

#[test]
fn a_retry_with_the_same_key_grants_nothing_more() {
    let (_db, mut c) = books();
    let call = "grant_credit('user', 'u', 100, '2040-01-01', 'promo', 'welcome', true, 'k')";
    let first = id_of(&mut c, call);
    let before = state(&mut c);
    assert_eq!(id_of(&mut c, call), first);
    // Also when it expires before today's date, or was given a date in the meantime.
    let dated = call.replace("'k')", "'k', '2025-01-01')");
    assert_eq!(id_of(&mut c, &dated), first);
    for (other, named) in [
        (call.replace("100", "101"), "amount_microdollars"),
        (call.replace("2040", "2041"), "expires_at"),
        (call.replace("promo", "paid"), "credit_category"),
        (call.replace("welcome", "again"), "description"),
        (call.replace("true", "false"), "is_free"),
    ] {
        let error = error_of(&mut c, &format!("select {other}"));
        assert_eq!(error.code, "23505", "{other}");
        assert!(error.detail.unwrap_or_default().contains(named), "{other}");
    }
    assert_unchanged(&mut c, &before, "a replay");
    // The key is the owner's own.
    assert_ne!(id_of(&mut c, &call.replace("'u'", "'v'")), first);
    assert_ne!(id_of(&mut c, &call.replace("'user'", "'organization'")), first);
    assert_books_hold(&mut c);
}

// The key is looked up before the dates: a late retry is a retry still.
#[test]
fn a_retry_after_the_expiration_returns_the_closed_grant() {
    let (_db, mut c) = books();
    let call = "grant_credit('user', 'u', 100, '2025-04-10 00:00+00', idempotency_key => 'k', created_at => AT)";
    let first = id_of(&mut c, &call.replace("AT", "'2025-04-01 00:00+00'"));
    assert_eq!(user("u").expire(&mut c, "now"), 100);
    let before = state(&mut c);
    for at in ["'2025-04-01 00:00+00'", "null"] {
        assert_eq!(id_of(&mut c, &call.replace("AT", at)), first, "created_at {at}");
    }
    assert_unchanged(&mut c, &before, "a retry");
    assert_books_hold(&mut c);
}

#[test]
fn a_grant_ends_after_it_begins() {
    let (_db, mut c) = books();
    user("u").grant(&mut c, "A", 100, "2025-04-01", "");
    let before = state(&mut c);
    for times in [
        "now(), created_at => now()",
        "now() - interval '1 microsecond', created_at => now()",
        "'2025-04-01 00:00+00', created_at => '2025-04-01 00:00+00'",
        "now()",
        "'2025-04-01'",
    ] {
        let error = error_of(&mut c, &format!("select grant_credit('user', 'u', 5, {times})"));
        let found = (error.code.as_str(), error.message.as_str());
        assert_eq!(found, ("22023", "expires_at must be after the grant"), "{times}");
    }
    assert_unchanged(&mut c, &before, "a refused grant");
    run_sql(
        &mut c,
        "select grant_credit('user', 'u', 5, now() + interval '1 microsecond', created_at => now())",
    );
    assert_books_hold(&mut c);
}

#[test]
fn a_grant_is_dated_back_to_the_last_expiration_and_a_little_ahead() {
    let (_db, mut c) = books();
    let u = user("u");
    u.grant(&mut c, "A", 100, "2025-04-01", "2025-04-10");
    u.llm(&mut c, 7, "2025-04-02");
    u.grant(&mut c, "older", 5, "2010-01-01", "");
    assert_eq!(u.expire(&mut c, "2025-05-01"), 93);
    let before = state(&mut c);
    for at in ["'2025-04-09 23:59:59.999999+00'", "'2010-01-01'"] {
        let call = format!("select grant_credit('user', 'u', 5, created_at => {at})");
        let error = error_of(&mut c, &call);
        assert_eq!(error.code, "22023");
        assert!(error.message.contains("created_at"), "{}", error.message);
    }
    let ahead = "select grant_credit('user', 'u', 5, created_at => clock_timestamp() + interval '301 seconds')";
    assert_eq!(error_of(&mut c, ahead).code, "22023");
    assert_unchanged(&mut c, &before, "a refused grant");
    u.grant(&mut c, "B", 20, "2025-04-10 00:00+00", "2025-04-20");
    run_sql(
        &mut c,
        "select grant_credit('user', 'u', 1, created_at => clock_timestamp() + interval '290 seconds')",
    );
    assert_eq!(u.baseline(&mut c, "B"), 7);
    assert_eq!(u.expire(&mut c, "2025-05-01"), 20);
    u.assert_recomputed(&mut c, 7, 13);
    assert_books_hold(&mut c);
}

// Whoever gives no date dates nothing back; the transaction began before somebody's close-out.
#[test]
fn an_entry_without_a_date_is_accepted_whatever_was_closed_meanwhile() {
    let (db, mut c) = books();
    let mut other = session(&db);
    for entry in ["grant_credit('user', 'u', 7)", "adjust_credit('user', 'u', 7, 'refund')"] {
        let u = user("u");
        run_sql(&mut c, "select grant_credit('user', 'u', 5, '2040-01-01')");
        run_sql(&mut c, "begin; select 1");
        assert_eq!(u.close_out(&mut other, "now"), 5);
        run_sql(&mut c, &format!("select {entry}"));
        run_sql(&mut c, "commit");
    }
    assert_eq!(user("u").figures(&mut c, "now"), (14, 0, 14));
    user("u").assert_recomputed(&mut c, 0, 14);
    assert_books_hold(&mut c);
}

#[test]
fn an_adjustment_is_signed_and_never_expires() {
    let (_db, mut c) = books();
    let o = organization("o");
    o.llm(&mut c, 10, "2025-04-01");
    let id =
        id_of(&mut c, "adjust_credit('organization', 'o', 25, 'refund of a failed request', 'k')");
    assert_eq!(
        id_of(&mut c, "adjust_credit('organization', 'o', 25, 'refund of a failed request', 'k')"),
        id
    );
    id_of(&mut c, "adjust_credit('organization', 'o', -40, 'chargeback')");
    assert_eq!(o.figures(&mut c, "now"), (-15, 10, -25));
    let sql =
        "select concat_ws(' ', amount_microdollars, credit_category, is_free, expiry_date is null,
                   original_baseline_microdollars_used, description)
               from credit_transactions order by id";
    let rows = [
        "25 accounting_adjustment t t 10 refund of a failed request",
        "-40 accounting_adjustment t t 10 chargeback",
    ];
    assert_eq!(column::<String>(&mut c, sql), rows);
    let before = state(&mut c);
    for (call, code) in [
        ("0, 'nothing'", "22023"),
        ("5, null", "22023"),
        ("5, ''", "22023"),
        ("5, E' \\n '", "22023"),
        ("-9007199254740992, 'too much'", "22023"),
        ("26, 'refund of a failed request', 'k'", "23505"),
        ("25, 'another reason', 'k'", "23505"),
    ] {
        let sql = format!("select adjust_credit('organization', 'o', {call})");
        assert_eq!(error_of(&mut c, &sql).code, code, "{call}");
    }
    // A key of an adjustment is none of a grant, and the other way round.
    assert_eq!(
        error_of(&mut c, "select grant_credit('organization', 'o', 25, idempotency_key => 'k')")
            .code,
        "23505"
    );
    assert_unchanged(&mut c, &before, "a refused adjustment");
    o.assert_recomputed(&mut c, 10, -15);
    assert_books_hold(&mut c);
}

#[test]
fn an_opening_balance_comes_first_and_stays() {
    let (_db, mut c) = books();
    let at = "2025-04-03 08:15+00";
    for owner in [user("u"), organization("o")] {
        let who = owner.arguments();
        let call =
            format!("import_opening_balance({who}, 50000000, 12000000, '{at}', 'take-over')");
        let id = id_of(&mut c, &call);
        let before = state(&mut c);
        assert_eq!(id_of(&mut c, &call), id);
        for (changed, named) in [
            (call.replace("50000000", "50000001"), "total_microdollars_acquired"),
            (call.replace("12000000", "12000001"), "microdollars_used"),
            (call.replace("08:15", "08:16"), "as_of"),
        ] {
            let error = error_of(&mut c, &format!("select {changed}"));
            assert_eq!(error.code, "23505", "{changed}");
            assert!(error.detail.unwrap_or_default().contains(named), "{changed}");
        }
        let again = format!("select {}", call.replace("take-over", "another"));
        assert_eq!(error_of(&mut c, &again).code, "55000");
        assert_unchanged(&mut c, &before, "a second take-over");
        assert_eq!(owner.figures(&mut c, "now"), (50_000_000, 12_000_000, 38_000_000));
        owner.assert_recomputed(&mut c, 12_000_000, 50_000_000);
        owner.grant(&mut c, "G", 1_000, "2025-04-04", "2025-05-01");
        owner.exa(&mut c, 400, "2025-04-05");
        let ledger = [
            entry("Taken over from another system", 50_000_000, 0, None),
            entry("G", 1_000, 12_000_000, Some(12_000_000)),
        ];
        assert_eq!(owner.ledger(&mut c), ledger);
        assert_eq!(owner.expire(&mut c, "now"), 600);
        post(&mut c);
        owner.assert_recomputed(&mut c, 12_000_400, 50_000_400);
    }
    assert_books_hold(&mut c);
}

#[test]
fn an_opening_balance_comes_before_every_other_entry() {
    let (_db, mut c) = books();
    user("granted").grant(&mut c, "G", 5, "2025-04-01", "");
    user("charged").llm(&mut c, 5, "2025-04-01");
    user("posted").llm(&mut c, 5, "2025-04-01");
    post(&mut c);
    user("waiting").exa(&mut c, 5, "2025-04-01");
    let before = state(&mut c);
    for id in ["granted", "charged", "posted", "waiting"] {
        let call =
            format!("select import_opening_balance('user', '{id}', 7, 5, '2025-04-01', 'k')");
        assert_eq!(error_of(&mut c, &call).code, "55000", "{id}");
    }
    assert_unchanged(&mut c, &before, "a late take-over");
    // Nothing used, and nothing acquired, are taken over too.
    id_of(&mut c, "import_opening_balance('user', 'unused', 7, 0, '2025-04-01', 'k')");
    id_of(&mut c, "import_opening_balance('user', 'indebted', 0, 9, '2025-04-01', 'k')");
    assert_eq!(user("unused").figures(&mut c, "now"), (7, 0, 7));
    assert_eq!(user("indebted").figures(&mut c, "now"), (0, 9, -9));
    assert_books_hold(&mut c);
}

#[test]
fn a_take_over_from_times_without_months_is_refused_by_name() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    for at in ["0044-03-15 12:00+00 BC", "infinity", "-infinity"] {
        let call = format!("select import_opening_balance('user', 'new', 7, 5, '{at}', 'k')");
        let error = error_of(&mut c, &call);
        assert_eq!(error.code, "22023", "{at}: {}", error.message);
        assert!(error.message.contains("as_of"), "{at}: {}", error.message);
    }
    assert_unchanged(&mut c, &before, "a refused take-over");
}

#[test]
fn nobody_changes_the_ledger_by_hand() {
    let (_db, mut c) = books();
    let u = user("u");
    u.grant(&mut c, "A", 100, "2025-04-01", "2025-04-10");
    u.grant(&mut c, "B", 100, "2025-04-01", "2025-05-10");
    u.llm(&mut c, 30, "2025-04-02");
    let before = state(&mut c);
    let columns: Vec<String> = column(
        &mut c,
        "select attname::text from pg_attribute
         where attrelid = 'credit_transactions'::regclass and attnum > 0 and not attisdropped",
    );
    assert_eq!(columns.len(), 13);
    let mut statements: Vec<String> = columns
        .iter()
        .map(|name| format!("update credit_transactions set {name} = {name}"))
        .collect();
    for other in [
        "update credit_transactions set original_baseline_microdollars_used = 1 where false",
        "delete from credit_transactions",
        "delete from credit_transactions where false",
        "truncate credit_transactions",
        "truncate credit_transactions, accounts cascade",
        "insert into credit_transactions select * from credit_transactions
             on conflict (id) do update set expiration_baseline_microdollars_used = 1",
        "merge into credit_transactions as t using credit_transactions as s on t.id = s.id
             when matched then update set original_baseline_microdollars_used = 9",
        "merge into credit_transactions as t using credit_transactions as s on t.id = s.id
             when matched then delete",
    ] {
        statements.push(other.to_owned());
    }
    for settings in
        ["set session_replication_role = origin", "set session_replication_role = replica"]
    {
        run_sql(&mut c, settings);
        for statement in &statements {
            assert_eq!(error_of(&mut c, statement).code, "55000", "{settings}: {statement}");
        }
    }
    run_sql(&mut c, "reset session_replication_role");
    // Neither in the transaction of a function that keeps baselines, nor after one that failed.
    run_sql(&mut c, "begin");
    assert_eq!(u.expire(&mut c, "2025-04-20"), 70);
    run_sql(&mut c, "savepoint s");
    for statement in &statements {
        assert_eq!(error_of(&mut c, statement).code, "55000", "after expiring: {statement}");
        run_sql(&mut c, "rollback to s");
    }
    assert_eq!(u.baseline(&mut c, "B"), 30);
    run_sql(&mut c, "rollback");
    let one_statement = "with e as materialized (select expire_credits('user', 'u', '2025-04-20') as amount)
                         update credit_transactions set original_baseline_microdollars_used = 5 from e where e.amount > 0";
    assert_eq!(sqlstate(c.batch_execute(one_statement)), "55000");
    run_sql(&mut c, "set role exa_billing_owner");
    for statement in &statements {
        let code = error_of(&mut c, statement).code;
        assert!(code == "55000" || code == "42501", "{code} as the owner: {statement}");
    }
    run_sql(&mut c, "reset role");
    assert_unchanged(&mut c, &before, "a refused change");
    assert_books_hold(&mut c);
}
