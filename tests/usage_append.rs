//! Rows of a charge are appended past the executor: what an INSERT would do and refuse must be done
//! and refused all the same, also when a table changes under sessions that have charged before.

mod common;
mod usage_common;

use common::{Database, Server, error_of, one, run_sql};
use postgres::Client;
use usage_common::{assert_books_hold, no_free_allowance};

const CHARGE: &str = "select exa_billing.record_exa_usage('u', '/search', 5)";
const LOGGED: &str = "select count(*) from exa_billing.exa_usage_log";

/// A session that has charged already, and one that changes tables.
fn charging() -> (Database, Client, Client) {
    let db = Server::shared().books();
    let mut admin = db.client_with("-c search_path=exa_billing,public");
    no_free_allowance(&mut admin);
    let mut charging = db.client();
    run_sql(&mut charging, CHARGE);
    run_sql(&mut charging, CHARGE);
    (db, charging, admin)
}

/// The month that charges of now go to.
fn partition(client: &mut Client) -> String {
    let name =
        "select 'exa_billing.exa_usage_log_' || to_char(now() at time zone 'UTC', 'YYYY_MM')";
    one(client, name, &[])
}

fn assert_refused(charging: &mut Client, code: &str, words: &str) {
    let error = error_of(charging, CHARGE);
    assert_eq!(error.code, code, "{error:?}");
    assert!(error.message.contains(words), "{error:?}");
}

#[test]
fn a_constraint_that_is_added_refuses_the_very_next_charge() {
    let (_db, mut charging, mut admin) = charging();
    let month = partition(&mut admin);
    for (table, constraint) in [
        ("exa_usage_log", "check (cost_microdollars > 5)"),
        ("unposted_spend", "check (amount_microdollars > 5)"),
        ("unposted_spend", "check (cost_microdollars is null)"),
        (&month, "check (feature_id is not null)"),
    ] {
        // The rows before it would break it too.
        run_sql(
            &mut admin,
            &format!("alter table {table} add constraint dear {constraint} not valid"),
        );
        assert_refused(&mut charging, "23514", "dear");
        run_sql(&mut admin, &format!("alter table {table} drop constraint dear"));
        run_sql(&mut charging, CHARGE);
    }
    assert_eq!(one::<i64>(&mut admin, LOGGED, &[]), 6);
    assert_books_hold(&mut admin);
}

#[test]
fn an_index_that_is_added_has_every_charge() {
    let (_db, mut charging, mut admin) = charging();
    for index in [
        "index extra on exa_usage_log (path, created_at)",
        "index extra on exa_usage_log (path) where cost_microdollars = 5",
        "index extra on exa_usage_log ((upper(path)))",
        "index extra on exa_usage_log using brin (created_at)",
        "index extra on exa_usage_log using hash (path)",
        "index concurrently extra on unposted_spend (journal, created_at)",
    ] {
        run_sql(&mut admin, &format!("create {index}"));
        run_sql(&mut charging, CHARGE);
        run_sql(&mut charging, CHARGE);
        let column =
            if index.contains("upper") { "upper(path) = '/SEARCH'" } else { "path = '/search'" };
        let by_index = format!(
            "select count(*) from exa_usage_log where {column} and cost_microdollars = 5
                and created_at > '2000-01-01'"
        );
        run_sql(&mut admin, "set enable_seqscan = off");
        let by_index: i64 = one(&mut admin, &by_index, &[]);
        run_sql(&mut admin, "reset enable_seqscan");
        assert_eq!(by_index, one::<i64>(&mut admin, LOGGED, &[]), "{index}");
        run_sql(&mut admin, "drop index extra");
    }
    run_sql(&mut charging, CHARGE);
    assert_eq!(one::<i64>(&mut admin, LOGGED, &[]), 15);
    assert_books_hold(&mut admin);
}

#[test]
fn a_unique_index_that_is_added_refuses_a_second_charge() {
    let (_db, mut charging, mut admin) = charging();
    let month = partition(&mut admin);
    run_sql(&mut admin, "delete from unposted_spend");
    run_sql(&mut admin, "create unique index one_each on unposted_spend (owner_id)");
    run_sql(
        &mut admin,
        &format!(
            "create unique index one_of_all on {month} (path, feature_id) where feature_id = 'f'"
        ),
    );
    run_sql(&mut charging, CHARGE);
    assert_refused(&mut charging, "23505", "one_each");
    // A savepoint is enough to go on after it.
    run_sql(&mut charging, "begin; savepoint s");
    assert_refused(&mut charging, "23505", "one_each");
    let other = "select exa_billing.record_exa_usage('v', '/search', 5, feature_id => 'f')";
    run_sql(&mut charging, &format!("rollback to s; {other}; commit"));
    let error = error_of(&mut charging, &other.replace("'v'", "'w'"));
    assert!(error.code == "23505" && error.message.contains("one_of_all"), "{error:?}");
    run_sql(&mut admin, "drop index one_each, one_of_all");
    run_sql(&mut charging, CHARGE);
    assert_eq!(one::<i64>(&mut admin, LOGGED, &[]), 5);
}

#[test]
fn a_foreign_key_that_is_added_is_obeyed() {
    let (_db, mut charging, mut admin) = charging();
    run_sql(
        &mut admin,
        "create table public.paths (path text collate \"C\" primary key);
         alter table public.paths owner to exa_billing_owner;
         insert into public.paths values ('/search');
         alter table exa_usage_log add foreign key (path) references public.paths",
    );
    run_sql(&mut charging, CHARGE);
    let error = error_of(&mut charging, &CHARGE.replace("search", "contents"));
    assert_eq!(error.code, "23503", "{error:?}");
    assert_books_hold(&mut admin);
}

/// Columns in another order, as in a month that was attached by hand.
#[test]
fn a_month_with_its_columns_in_another_order_takes_them_by_name() {
    let (_db, mut charging, mut admin) = charging();
    let month = partition(&mut admin);
    let bounds: String = one(
        &mut admin,
        "select pg_get_expr(relpartbound, oid) from pg_class where oid = $1::text::regclass",
        &[&month],
    );
    let checks: String = one(
        &mut admin,
        "select string_agg(format(', constraint %I %s', conname, pg_get_constraintdef(oid)), '')
         from pg_constraint where conrelid = 'exa_usage_log'::regclass and contype = 'c'",
        &[],
    );
    run_sql(
        &mut admin,
        &format!(
            "alter table exa_usage_log detach partition {month};
             alter table {month} rename to before;
             create table {month} (path text collate \"C\" not null, user_id text collate \"C\" not null,
                 recorded_at timestamptz not null, created_at timestamptz not null, usage_id uuid not null,
                 organization_id text collate \"C\", feature_id text collate \"C\", request_type text collate \"C\",
                 charged_microdollars bigint not null, cost_microdollars bigint not null,
                 charged_to_balance boolean not null{checks});
             alter table {month} owner to exa_billing_owner;
             insert into {month} select path, user_id, recorded_at, created_at, usage_id, organization_id,
                 feature_id, request_type, charged_microdollars, cost_microdollars, charged_to_balance from before;
             drop table before;
             alter table exa_usage_log attach partition {month} {bounds};
             select setup()"
        ),
    );
    run_sql(&mut charging, CHARGE);
    run_sql(
        &mut charging,
        "select exa_billing.record_exa_usage('v', '/contents', 7, 'o', feature_id => 'f')",
    );
    let last: String = one(
        &mut admin,
        "select concat_ws(' ', user_id, organization_id, path, cost_microdollars, feature_id)
         from exa_usage_log order by created_at desc, usage_id desc limit 1",
        &[],
    );
    assert_eq!(last, "v o /contents 7 f");
    assert_eq!(one::<i64>(&mut admin, LOGGED, &[]), 4);
    assert_books_hold(&mut admin);
}

#[test]
fn a_charge_waits_for_who_changes_the_table_and_then_obeys_the_change() {
    let (_db, mut charging, mut admin) = charging();
    run_sql(
        &mut admin,
        "begin; alter table exa_usage_log add constraint dear check (cost_microdollars > 5) not valid",
    );
    run_sql(&mut charging, "set lock_timeout = '20ms'");
    assert_refused(&mut charging, "55P03", "lock timeout");
    run_sql(&mut charging, "set lock_timeout = '60s'");
    let charged = std::thread::scope(|scope| {
        let charged = scope.spawn(|| error_of(&mut charging, CHARGE).code);
        common::wait_until("it waits", || {
            let waits = "select exists (select from pg_locks where not granted and relation = 'exa_usage_log'::regclass)";
            one(&mut admin, waits, &[])
        });
        run_sql(&mut admin, "commit");
        charged.join().expect("a charge")
    });
    assert_eq!(charged, "23514");
}

/// What is kept for a table must not grow with what is appended to it.
#[test]
fn ten_thousand_charges_and_as_many_refusals_take_no_more_memory_than_a_thousand() {
    let (_db, mut charging, mut admin) = charging();
    run_sql(
        &mut admin,
        "alter table exa_usage_log add constraint dear check (cost_microdollars < 1000)",
    );
    let memory = "select sum(total_bytes)::bigint from pg_backend_memory_contexts";
    let mut grown = Vec::new();
    for rounds in [1_000, 10_000] {
        run_sql(
            &mut charging,
            &format!(
                "do $$ begin for n in 1 .. {rounds} loop
                    perform exa_billing.record_exa_usage('u' || n % 7, '/search', 5);
                    begin
                        perform exa_billing.record_exa_usage('u', '/search', 5000);
                        raise 'it was not refused';
                    exception when check_violation then null; end;
                    if n % 100 = 0 then commit; end if;
                end loop; end $$"
            ),
        );
        grown.push(one::<i64>(&mut charging, memory, &[]));
    }
    assert!(grown[1] - grown[0] < 500_000, "{grown:?} bytes");
}

#[test]
fn an_allowance_is_found_in_a_table_that_was_changed() {
    let (_db, mut charging, mut admin) = charging();
    let charged = "select count(*) from exa_usage_log where charged_microdollars = 5";
    for (change, free) in [
        ("alter table exa_monthly_allowance add column note text", "w"),
        ("alter table exa_monthly_allowance drop column note", "x"),
        (
            "alter table exa_monthly_allowance
                 drop constraint exa_monthly_allowance_pkey,
                 add constraint other primary key (user_id, month)",
            "y",
        ),
    ] {
        run_sql(&mut admin, change);
        let before: i64 = one(&mut admin, charged, &[]);
        // One whose allowance is used up, and one whose first request locks one in.
        run_sql(&mut charging, CHARGE);
        run_sql(
            &mut admin,
            &format!(
                "select set_free_allowance(9, date_trunc('month', now() at time zone 'UTC')::date,
                                           '{free}')"
            ),
        );
        let request = format!("select exa_billing.record_exa_usage('{free}', '/search', 5)");
        for _ in 0..3 {
            run_sql(&mut charging, &request);
        }
        assert_eq!(one::<i64>(&mut admin, charged, &[]), before + 2, "{change}");
    }
    assert_books_hold(&mut admin);
}
