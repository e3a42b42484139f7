//! Recording and asking inside the caller's transaction.

mod common;
mod usage_common;

use common::{Server, error_of, one, run_sql};
use usage_common::{
    assert_books_hold, assert_unchanged, balance, books, column, decision, no_free_allowance,
    session, state, usage,
};

/// One call of each function that writes.
const WRITING: [&str; 12] = [
    "record_exa_usage('u', '/search', 5)",
    "record_exa_response('u', '/search', '{\"costDollars\": {\"total\": 0.005}}')",
    "record_exa_usage_batch(
         '[{\"user_id\": \"u\", \"path\": \"/search\", \"cost_microdollars\": 5}]')",
    "record_spend('user', 'u', 5, 'variable', 'other', 'shop')",
    "record_spend('user', 'u', 5, 'variable', 'other', 'shop', require_balance => true)",
    "grant_credit('user', 'u', 5)",
    "set_free_allowance(5, '2030-01-01')",
    "set_organization_member('org', 'u', 'owner')",
    "remove_organization_member('org', 'u')",
    "maintain_partitions()",
    "post_spend()",
    "retry_blocked_spend()",
];

const READING: [&str; 8] = [
    "check_exa_usage('u')",
    "exa_monthly_usage('u')",
    "account_balance('user', 'u')",
    "credit_blocks('user', 'u')",
    "account_statement('user', 'u', now() - interval '1 day', now())",
    "recompute_baselines('user', 'u')",
    "recompute_user_balances('u', dry_run => true)",
    "verify_books()",
];

#[test]
fn functions_that_write_refuse_a_read_only_transaction() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    run_sql(&mut c, "select grant_credit('user', 'u', 50), record_exa_usage('u', '/search', 5)");
    let before = state(&mut c);
    let mut accepted = Vec::new();
    for call in WRITING {
        let mut read_only = c.build_transaction().read_only(true).start().expect("a transaction");
        match read_only.batch_execute(&format!("select {call}")) {
            Ok(()) => accepted.push(call),
            Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{call}"),
        }
    }
    assert_unchanged(&mut c, &before, "one of them");
    assert_eq!(accepted, Vec::<&str>::new());
    assert_books_hold(&mut c);
}

#[test]
fn a_read_only_transaction_makes_no_partition() {
    let (_db, mut c) = books();
    run_sql(&mut c, "set exa_billing.late_usage_limit = '200d'");
    let before = state(&mut c);
    let late = "created_at => now() - interval '150 days')";
    for call in [
        format!("record_exa_usage('u', '/search', 5, {late}"),
        format!("record_spend('user', 'u', 5, 'variable', 'other', 'shop', {late}"),
    ] {
        let error = error_of(&mut c, &format!("begin read only; select {call}"));
        assert_eq!(error.code, "25006", "{call}");
        run_sql(&mut c, "rollback");
    }
    assert_unchanged(&mut c, &before, "a read-only transaction");
}

#[test]
fn functions_that_read_work_in_a_read_only_transaction() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select record_exa_usage('u', '/search', 5)");
    run_sql(&mut c, "begin read only");
    for call in READING {
        run_sql(&mut c, &format!("select * from {call}"));
    }
    assert_eq!(decision(&mut c, "'u'").month_used, 5);
    // They take no transaction id, so that they work on a standby.
    let id = "select pg_current_xact_id_if_assigned()::text";
    assert_eq!(one::<Option<String>>(&mut c, id, &[]), None);
    run_sql(&mut c, "commit");
}

#[test]
fn without_books_reading_calls_name_setup() {
    let db = Server::shared().database();
    let mut c = session(&db);
    for call in READING {
        let error = error_of(&mut c, &format!("select * from {call}"));
        assert_eq!(error.code, "55000", "{call}");
        let hint = error.hint.unwrap_or_default();
        assert!(hint.contains("exa_billing.setup()"), "{call}: {hint}");
    }
    let tables = "select count(*) from pg_class
                  where relnamespace = 'exa_billing'::regnamespace and relkind in ('r', 'p')";
    assert_eq!(one::<i64>(&mut c, tables, &[]), 0);
    // A writing call in a read-only transaction makes no books either.
    assert_eq!(
        error_of(&mut c, "begin read only; select grant_credit('user', 'u', 5)").code,
        "25006"
    );
    run_sql(&mut c, "rollback");
    assert_eq!(one::<i64>(&mut c, tables, &[]), 0);
}

#[test]
fn the_first_writing_call_makes_the_books() {
    let db = Server::shared().database();
    let mut c = session(&db);
    assert_eq!(usage(&mut c, "'user-1', '/search', 5000").figures(), (5_000, 5_000, 0));
    assert_eq!(decision(&mut c, "'user-1'").month_used, 5_000);
    assert_books_hold(&mut c);
}

#[test]
fn the_first_call_of_all_may_be_rolled_back() {
    let db = Server::shared().database();
    let mut c = session(&db);
    let tables = "select count(*) from pg_class
                  where relnamespace = 'exa_billing'::regnamespace and relkind in ('r', 'p')";
    run_sql(
        &mut c,
        "begin; savepoint s; select record_exa_usage('u', '/search', 5); rollback to s",
    );
    assert_eq!(one::<i64>(&mut c, tables, &[]), 0);
    usage(&mut c, "'u', '/search', 7");
    run_sql(&mut c, "rollback");
    assert_eq!(one::<i64>(&mut c, tables, &[]), 0);
    usage(&mut c, "'u', '/search', 9");
    assert_eq!(decision(&mut c, "'u'").month_used, 9);
    assert_books_hold(&mut c);
}

#[test]
fn a_transaction_rolled_back_leaves_nothing() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(100, '2020-01-01', null, 'split')");
    usage(&mut c, "'u', '/search', 60, 'org', 'kept'");
    let before = state(&mut c);
    run_sql(
        &mut c,
        "begin;
         select record_exa_usage('u', '/search', 500, 'org', 'gone');
         select record_exa_usage('new', '/search', 500);
         select record_spend('user', 'new', 5, 'variable', 'new source', 'new product');
         select grant_credit('user', 'new', 5, idempotency_key => 'gone');
         select record_exa_response('u', '/x', '{\"requestId\": \"gone too\",
                                                \"costDollars\": {\"total\": 1}}');
         select post_spend();
         rollback",
    );
    assert_unchanged(&mut c, &before, "a transaction rolled back");
    assert_eq!(decision(&mut c, "'u'").month_used, 60);
    // The keys are free again.
    let again = usage(&mut c, "'u', '/search', 50, 'org', 'gone'");
    assert_eq!((again.figures(), again.is_replay), ((50, 40, 10), false));
    assert_books_hold(&mut c);
}

#[test]
fn a_savepoint_rolled_back_leaves_nothing_of_what_came_after_it() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(100, '2020-01-01', null, 'split')");
    run_sql(&mut c, "begin");
    assert_eq!(usage(&mut c, "'u', '/search', 60").figures(), (60, 60, 0));
    run_sql(&mut c, "savepoint s");
    assert_eq!(usage(&mut c, "'u', '/search', 60, null, 'k'").figures(), (60, 40, 20));
    // So does a call that fails: the transaction goes on at the savepoint.
    assert_eq!(error_of(&mut c, "select record_exa_usage('u', '/search', -1)").code, "22023");
    run_sql(&mut c, "rollback to s");
    assert_eq!(decision(&mut c, "'u'").month_used, 60);
    let again = usage(&mut c, "'u', '/search', 45, null, 'k'");
    assert_eq!((again.figures(), again.is_replay), ((45, 40, 5), false));
    run_sql(&mut c, "commit");
    assert_eq!(
        column::<i64>(&mut c, "select cost_microdollars from exa_usage_log order by 1"),
        [45, 60]
    );
    assert_eq!(balance(&mut c, "user", "u"), -5);
    assert_books_hold(&mut c);
}

#[test]
fn a_figure_changed_in_a_transaction_is_read_in_its_next_statement() {
    let (db, mut c) = books();
    no_free_allowance(&mut c);
    let mut other = session(&db);
    for isolation in ["read committed", "repeatable read", "serializable"] {
        let before = balance(&mut c, "user", "u");
        run_sql(&mut c, &format!("begin isolation level {isolation}"));
        usage(&mut c, "'u', '/search', 3");
        assert_eq!(balance(&mut c, "user", "u"), before - 3, "{isolation}");
        assert_eq!(decision(&mut c, "'u'").balance, Some(before - 3), "{isolation}");
        assert_eq!(balance(&mut other, "user", "u"), before, "{isolation}");
        run_sql(&mut c, "commit");
        assert_eq!(balance(&mut other, "user", "u"), before - 3, "{isolation}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn several_calls_in_one_statement_count_each() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select set_free_allowance(10, '2020-01-01', null, 'split')");
    let charged = column::<i64>(
        &mut c,
        "select (record_exa_usage('u', '/search', 4)).charged_microdollars
         from generate_series(1, 5)",
    );
    assert_eq!(charged, [0, 0, 2, 4, 4]);
    let replays = column::<bool>(
        &mut c,
        "select (record_exa_usage('u', '/search', 4, null, 'key ' || n % 2)).is_replay
         from generate_series(1, 4) as n",
    );
    assert_eq!(replays, [false, false, true, true]);
    let lateral = column::<i64>(
        &mut c,
        "select r.charged_microdollars
         from generate_series(1, 3) as n,
              record_spend('user', 'u', n, 'variable', 'other', 'p') as r",
    );
    assert_eq!(lateral, [1, 2, 3]);
    run_sql(&mut c, "select grant_credit('user', 'u', 100) from generate_series(1, 3)");
    assert_eq!(balance(&mut c, "user", "u"), 300 - 10 - 8 - 6);
    assert_eq!(one::<i64>(&mut c, "select count(*) from exa_usage_log", &[]), 7);
    assert_books_hold(&mut c);
}

#[test]
fn calls_from_a_procedural_language_and_a_prepared_statement_count_as_well() {
    let (_db, mut c) = books();
    no_free_allowance(&mut c);
    run_sql(
        &mut c,
        "do $$
         declare recorded exa_billing.recorded_usage;
         begin
             for n in 1 .. 3 loop
                 recorded := record_exa_usage('u', '/search', n);
                 begin
                     perform record_exa_usage('u', '/search', 100);
                     raise exception 'undone';
                 exception when raise_exception then
                     null;
                 end;
             end loop;
         end $$",
    );
    let statement = c
        .prepare(
            "select charged_microdollars from record_exa_usage($1, $2, $3, idempotency_key => $4)",
        )
        .expect("a statement");
    let key: Option<&str> = None;
    for cost in [10_i64, 20] {
        let row = c.query_one(&statement, &[&"u", &"/search", &cost, &key]).expect("a charge");
        assert_eq!(row.get::<_, i64>(0), cost);
    }
    assert_eq!(balance(&mut c, "user", "u"), -36);
    assert_books_hold(&mut c);
}
