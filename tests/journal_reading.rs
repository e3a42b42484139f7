//! Journals and hourly totals are read past the executor where that can be: what a statement would say must
//! be said all the same, whatever indexes there are, and where it cannot be.

mod common;
mod usage_common;

use common::{Database, Server, one, run_sql};
use postgres::Client;
use usage_common::{assert_books_hold, no_free_allowance};

/// A user and an organization with charges in this hour, of the last days and of two months, free and paid
/// ones, in both journals; a part of them is posted.
fn charged() -> (Database, Client) {
    let db = Server::shared().books();
    let mut client = db.client_with("-c search_path=exa_billing,public");
    no_free_allowance(&mut client);
    run_sql(
        &mut client,
        "select set_free_allowance(1000000, '2020-01-01', 'free');
         select set_organization_member('o', 'u', 'member');
         select set_organization_member('o', 'free', 'member');
         select count(record_exa_usage(u, '/search', 3 + n % 5, o, null, now() - n * interval '7 hours'))
         from generate_series(0, 110) as n,
              (values ('u', null), ('u', 'o'), ('free', null), ('free', 'o'), ('v', null)) as w(u, o);
         select count(record_spend(kind, id, 11, case n % 3 when 0 then 'scheduled' else 'variable' end,
                                   'kiloclaw', 'p', created_at => now() - n * interval '9 hours'))
         from generate_series(0, 90) as n, (values ('user', 'u'), ('organization', 'o')) as w(kind, id);
         select post_spend(700)",
    );
    run_sql(
        &mut client,
        "call backfill_rollups(date_trunc('hour', now(), 'UTC') - interval '40 days',
                               date_trunc('hour', now(), 'UTC'), false)",
    );
    (db, client)
}

const SPANS: [&str; 4] = ["90 minutes", "26 hours", "8 days", "45 days"];

/// What is asked, for each span and owner: by the functions, and by the view over the journals.
fn assert_alike(client: &mut Client) {
    for (kind, id) in
        [("user", "u"), ("organization", "o"), ("user", "free"), ("user", "v"), ("user", "w")]
    {
        for span in SPANS {
            let asked = format!(
                "select total_microdollars::text || ' ' || variable_microdollars || ' ' || spend_record_count
                 from rolling_spend('{kind}', '{id}', interval '{span}', now())"
            );
            let added_up = format!(
                "select coalesce(sum(amount_microdollars), 0) || ' '
                     || coalesce(sum(amount_microdollars) filter (where spend_category = 'variable'), 0) || ' '
                     || coalesce(sum(spend_record_count), 0)
                 from spend_entries
                 where owner_kind = '{kind}' and owner_id = '{id}'
                   and created_at >= now() - interval '{span}' and created_at < now()"
            );
            let both = format!("select ({asked}), ({added_up})");
            let row = client.query_one(&both, &[]).expect("figures");
            let (asked, added_up): (Option<String>, String) = (row.get(0), row.get(1));
            assert_eq!(asked, Some(added_up), "{kind} {id} {span}");
        }
    }
}

/// Recomputing is for those who look after the books.
fn assert_recomputed_alike(client: &mut Client) {
    assert_alike(client);
    for (kind, id) in [("user", "u"), ("organization", "o")] {
        let recomputed = format!(
            "select new_microdollars_used = (
                        select sum(amount_microdollars)::bigint from spend_entries
                        where owner_kind = '{kind}' and owner_id = '{id}')
             from recompute_{kind}_balances('{id}', dry_run => true)"
        );
        assert!(one::<bool>(client, &recomputed, &[]), "{kind} {id}");
    }
}

#[test]
fn sums_are_those_of_the_journals() {
    let (_db, mut client) = charged();
    assert_recomputed_alike(&mut client);
    run_sql(&mut client, "select record_exa_usage('u', '/search', 5)");
    assert_recomputed_alike(&mut client);
    assert_books_hold(&mut client);
}

#[test]
fn an_index_that_leaves_rows_out_or_orders_them_otherwise_is_no_help() {
    let (_db, mut client) = charged();
    run_sql(&mut client, "drop index exa_usage_log_user_idx");
    assert_recomputed_alike(&mut client);
    for index in [
        "(user_id, created_at) where charged_microdollars > 4",
        "(user_id, created_at) where organization_id is not null",
        "(user_id, created_at) where user_id is not null and path = '/answer'",
        "(user_id, created_at) where user_id is null",
        "(user_id text_pattern_ops, created_at)",
        "(user_id collate \"POSIX\", created_at)",
        "(lower(user_id), created_at)",
        "(created_at, user_id)",
        "(user_id desc, created_at desc)",
        "(user_id, created_at) where user_id is not null",
    ] {
        run_sql(&mut client, &format!("create index other_idx on exa_usage_log {index}"));
        assert_recomputed_alike(&mut client);
        run_sql(&mut client, "drop index other_idx");
    }
    run_sql(
        &mut client,
        "create index exa_usage_log_user_idx on exa_usage_log (user_id, created_at)",
    );
    assert_recomputed_alike(&mut client);
    assert_books_hold(&mut client);
}

#[test]
fn a_reader_sees_the_same_with_row_security_and_without() {
    let (db, mut client) = charged();
    let role = format!("journal_reader_{}", std::process::id());
    run_sql(&mut client, &format!("create role {role}; select grant_auditor('{role}'::regrole)"));
    let options = format!("-c role={role} -c search_path=exa_billing,public");
    assert_alike(&mut db.client_with(&options));
    run_sql(&mut client, "select enable_row_security()");
    assert_alike(&mut db.client_with(&options));
    run_sql(&mut client, &format!("drop owned by {role}; drop role {role}"));
}

#[test]
fn tables_with_another_column_are_read_by_statements() {
    let (_db, mut client) = charged();
    for table in ["exa_usage_log", "spend_log", "spend_hourly_totals", "unposted_spend", "accounts"]
    {
        run_sql(&mut client, &format!("alter table {table} add column note text"));
        assert_recomputed_alike(&mut client);
        run_sql(&mut client, "select record_exa_usage('w', '/search', 5)");
        assert_recomputed_alike(&mut client);
    }
    while one::<i64>(&mut client, "select post_spend(300)", &[]) != 0 {}
    assert_eq!(one::<i64>(&mut client, "select count(*) from unposted_spend", &[]), 0);
    assert_recomputed_alike(&mut client);
    assert_books_hold(&mut client);
}
