//! Bad input: every parameter of every function is tried with what it must
//! refuse. The error names the parameter, and nothing is written.

mod common;
#[path = "bad_input/insights.rs"]
mod insights;
#[path = "bad_input/more.rs"]
mod more;
#[path = "bad_input/table.rs"]
mod table;
mod usage_common;
#[path = "bad_input/values.rs"]
mod values;

use common::{Database, Server, one, run_sql};
use insights::INSIGHTS;
use more::{DELIVERY, LEDGER_MAP, LEDGERS};
use postgres::Client;
use postgres::error::DbError;
use std::collections::BTreeSet;
use table::Function;
use usage_common::{assert_books_hold, assert_unchanged, session, state};

/// Books, and what the calls of the table are about.
fn books() -> (Database, Client) {
    let (db, mut c) = usage_common::books();
    run_sql(&mut c, LEDGERS);
    run_sql(&mut c, DELIVERY);
    run_sql(&mut c, INSIGHTS);
    run_sql(&mut c, "select exa_billing.enable_row_security(), exa_billing.start_worker()");
    run_sql(
        &mut c,
        &format!(
            "select exa_billing.attach_spend_source('taken', 'public.taken_ledger', 'variable', 's', {LEDGER_MAP})"
        ),
    );
    (db, c)
}

fn functions() -> impl Iterator<Item = &'static Function> {
    table::FUNCTIONS.iter().chain(more::FUNCTIONS).chain(insights::FUNCTIONS)
}

/// The error of a call that must fail, after a look at all of its words.
#[track_caller]
fn refusal(c: &mut Client, call: &str) -> DbError {
    let Err(error) = c.batch_execute(call) else { panic!("this was accepted: {call}") };
    let Some(error) = error.as_db_error() else { panic!("{call}: {error}") };
    let words = [Some(error.message()), error.detail(), error.hint(), error.where_()];
    for words in words.into_iter().flatten() {
        // Neither the language it is written in shows, nor all of a long value.
        for inside in ["panicked", "unwrap", "backtrace", ".rs"] {
            assert!(!words.to_lowercase().contains(inside), "{call}: {words}");
        }
        assert!(words.chars().count() < 1_000, "{call}: {words}");
    }
    error.clone()
}

/// Tries so many values of everything that is bad; returns what was not refused
/// as it should be.
fn try_all(c: &mut Client, of_each: usize) -> Vec<String> {
    let mut problems = Vec::new();
    for function in functions() {
        for (argument, _, classes) in function.arguments {
            for value in classes.iter().flat_map(|class| class.values().into_iter().take(of_each)) {
                let error = refusal(c, &function.call(argument, &value));
                let (code, message) = (error.code().code(), error.message());
                if code != "22023" || !message.contains(argument) {
                    let name = function.name;
                    problems.push(format!("{name}({argument} => {value}): {code} {message}"));
                }
            }
        }
    }
    problems
}

#[test]
fn every_call_of_the_table_is_accepted_as_it_stands() {
    let (_db, mut c) = books();
    for function in functions() {
        run_sql(&mut c, &format!("begin; {}; rollback", function.call("", "")));
    }
}

#[test]
fn the_table_has_every_parameter_of_every_function() {
    let (_db, mut c) = books();
    let tried: BTreeSet<String> = functions()
        .flat_map(|f| f.arguments.iter().map(|(argument, ..)| format!("{}.{argument}", f.name)))
        .collect();
    let declared: Vec<String> = one(
        &mut c,
        "select array_agg(proname || '.' || argument)
         from pg_proc, unnest(proargnames[:pronargs]) as argument
         where pronamespace = 'exa_billing'::regnamespace and prokind = 'f'",
        &[],
    );
    let declared: BTreeSet<String> = declared.into_iter().collect();
    let untried: Vec<_> = declared.difference(&tried).collect();
    let unknown: Vec<_> = tried.difference(&declared).collect();
    assert!(untried.is_empty() && unknown.is_empty(), "untried {untried:?}, unknown {unknown:?}");
}

/// It commits by itself, so it stands beside the table.
#[test]
fn the_procedure_names_its_bad_arguments() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select record_exa_usage('u', '/search', 5)");
    let before = state(&mut c);
    for (arguments, named) in [("null, true", "dry_run"), ("false, null", "keep_balance")] {
        let call = format!("call exa_billing.recompute_all_balances({arguments})");
        let error = refusal(&mut c, &call);
        assert_eq!(error.code().code(), "22023", "{arguments}");
        assert_eq!(error.message(), format!("{named} must not be null"));
    }
    assert_unchanged(&mut c, &before, "a bad call");
}

#[test]
fn bad_arguments_are_named_and_write_nothing() {
    let (_db, mut c) = books();
    run_sql(&mut c, "select record_exa_usage('u', '/search', 5), grant_credit('user', 'u', 5)");
    let before = state(&mut c);
    let problems = try_all(&mut c, usize::MAX);
    assert_unchanged(&mut c, &before, "a bad call");
    assert!(problems.is_empty(), "{problems:#?}");
    assert_books_hold(&mut c);
}

#[test]
fn what_cannot_be_called_like_this_says_so() {
    let (_db, mut c) = books();
    for (call, code, message) in [
        ("refuse_change()", "55000", "this function is called by triggers only"),
        ("refuse_direct_change()", "55000", "this function is called by triggers only"),
        ("refuse_truncate()", "55000", "this function is called by triggers only"),
        ("capture_spend()", "55000", "this function is called by triggers only"),
        (
            "recompute_next_owner(false, true, true)",
            "55000",
            "no such run of recompute_all_balances has begun",
        ),
        (
            "backfill_next_hours(false, '2026-11-20 10:00Z', '2026-11-22 10:00Z', true)",
            "55000",
            "no such run of backfill_rollups has begun",
        ),
        ("grant_operator('4294967295')", "22023", "role must be one that exists"),
        ("grant_application('0')", "22023", "role must be one that exists"),
    ] {
        let error = refusal(&mut c, &format!("select exa_billing.{call}"));
        assert_eq!((error.code().code(), error.message()), (code, message), "{call}");
    }
}

#[test]
fn bad_arguments_make_no_books() {
    let db = Server::shared().database();
    let mut c = session(&db);
    run_sql(&mut c, LEDGERS);
    let problems = try_all(&mut c, 1);
    let tables = "select count(*) from pg_class
                  where relnamespace = 'exa_billing'::regnamespace and relkind <> 'c'";
    assert_eq!(one::<i64>(&mut c, tables, &[]), 0);
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn a_value_of_a_million_characters_is_refused_in_few_words() {
    let (_db, mut c) = books();
    for character in ["x", "𝄞", " ", "\\x", "/"] {
        let long = format!("repeat('{character}', 1000000)");
        for (function, argument) in [
            ("check_exa_usage", "user_id"),
            ("record_exa_usage", "path"),
            ("record_exa_usage", "idempotency_key"),
            ("record_exa_usage", "feature_id"),
            ("record_spend", "spend_category"),
            ("record_spend", "source"),
            ("grant_credit", "description"),
            ("set_free_allowance", "overage_rule"),
            ("set_organization_member", "role"),
            ("account_balance", "owner_kind"),
            ("record_exa_usage_batch", "usage"),
            ("record_exa_response", "response"),
        ] {
            let function = functions().find(|f| f.name == function).expect("in the table");
            let value = match argument {
                "usage" => format!("jsonb_build_array(jsonb_build_object({long}, 1))"),
                "response" => format!("jsonb_build_object('costDollars', {long})"),
                _ => long.clone(),
            };
            let error = refusal(&mut c, &function.call(argument, &value));
            assert_eq!(error.code().code(), "22023", "{character} as {argument}");
        }
    }
}

#[test]
fn what_postgresql_cannot_read_never_arrives() {
    let (_db, mut c) = books();
    let before = state(&mut c);
    for (call, code) in [
        ("record_exa_usage('u', '/x', 'many')", "22P02"),
        ("record_exa_usage('u', '/x', '1.5')", "22P02"),
        ("record_exa_usage('u', '/x', '9223372036854775808')", "22003"),
        ("record_exa_usage('u', '/x', 5, created_at => 'yesterday noonish')", "22007"),
        ("record_exa_usage('u', '/x', 5, created_at => '2026-02-30 10:00')", "22008"),
        ("record_exa_usage_batch('[{]')", "22P02"),
        ("record_exa_usage_batch('')", "22P02"),
        ("record_exa_response('u', '/x', '{\"costDollars\": {\"total\": Infinity}}')", "22P02"),
        ("record_exa_response('u', '/x', '{\"requestId\": \"\\u0000\"}')", "22P05"),
        (
            "record_spend('user', 'u', 5, 'variable', 's', 'p', require_balance => 'perhaps')",
            "22P02",
        ),
        ("set_free_allowance(5, '2030-13-01')", "22008"),
        ("exa_monthly_usage('u', 'this month')", "22007"),
        ("post_spend('all')", "22P02"),
    ] {
        assert_eq!(
            refusal(&mut c, &format!("select exa_billing.{call}")).code().code(),
            code,
            "{call}"
        );
    }
    assert_unchanged(&mut c, &before, "a bad call");
}

#[test]
fn the_limits_themselves_are_accepted() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select record_exa_usage(repeat('𝄞', 255), '/' || repeat('é', 1023), 9007199254740991,
                    repeat('o', 255), repeat('k', 255), clock_timestamp() + interval '4 minutes',
                    repeat('ü', 128), repeat('x', 128));
         select record_spend('organization', 'a  b', 1, 'scheduled', repeat('s', 128), '', '', '',
                    '', 'x', repeat('ß', 255), now() - interval '34 days');
         select grant_credit('user', 'é', 9007199254740991, null, repeat('c', 255),
                    repeat(E'\\n', 2000), true, '-', '2001-01-01 00:00+00');
         select set_free_allowance(0, '0001-01-01'),
                set_free_allowance(9007199254740991, '9999-12-01');
         select set_organization_member('o', 'u', 'owner', 9007199254740991);
         select maintain_partitions(0), post_spend(1), post_spend(1000000);
         select check_exa_usage('u', as_of => '9999-12-31 23:59:59+00'),
                check_exa_usage('u', as_of => '1000-01-01 00:00+00'),
                exa_monthly_usage('u', '9999-12-31'), account_balance('user', 'u', '9999-12-31')",
    );
    assert_eq!(one::<i64>(&mut c, "select count(*) from exa_usage_log", &[]), 1);
    assert_eq!(one::<i64>(&mut c, "select count(*) from spend_log", &[]), 1);
    assert_eq!(one::<i64>(&mut c, "select count(*) from credit_transactions", &[]), 1);
    assert_books_hold(&mut c);
}

#[test]
fn an_error_in_the_callers_transaction_undoes_only_up_to_its_savepoint() {
    let (_db, mut c) = books();
    run_sql(&mut c, "begin; select record_exa_usage('u', '/search', 5); savepoint s");
    for function in functions() {
        for (argument, _, classes) in function.arguments {
            let Some(value) = classes.first().and_then(|class| class.values().into_iter().next())
            else {
                continue;
            };
            refusal(&mut c, &function.call(argument, &value));
            run_sql(&mut c, "rollback to s");
        }
    }
    run_sql(&mut c, "select record_exa_usage('u', '/search', 7); commit");
    let used = "select month_used_microdollars from check_exa_usage('u')";
    assert_eq!(one::<i64>(&mut c, used, &[]), 12);
    assert_books_hold(&mut c);
}
