//! Posting adds to figures past the executor: what an UPDATE would do and refuse must be done and refused all
//! the same, also when a table changes under a session that has posted before.

mod common;
mod sessions;

use common::{Database, one, run_sql};
use postgres::Client;
use sessions::{books, post_all, verify};

const TABLES: [&str; 5] = [
    "exa_monthly_usage",
    "organization_member_usage",
    "spend_hourly_totals",
    "spend_daily_totals",
    "spend_hourly_drivers",
];

/// A session that has posted already, and one that changes tables.
fn posting() -> (Database, Client, Client) {
    let db = books();
    let (mut client, admin) = (db.client(), db.client());
    run_sql(&mut client, "SELECT exa_billing.set_free_allowance(0, '2020-01-01')");
    for _ in 0..2 {
        charge_and_post(&mut client);
    }
    (db, client, admin)
}

/// One charge of a user for an organization, and one of the user alone.
fn charge(client: &mut Client) {
    run_sql(
        client,
        "SELECT exa_billing.record_exa_usage('ann', '/search', 5000, 'acme');
         SELECT exa_billing.record_exa_usage('ann', '/search', 5000)",
    );
}

fn charge_and_post(client: &mut Client) {
    charge(client);
    post_all(client);
}

/// What each of the tables holds, added up.
fn figures(client: &mut Client) -> Vec<i64> {
    let sum = |(table, figure): (&&str, &str)| {
        format!("(SELECT coalesce(sum({figure}), 0)::bigint FROM exa_billing.{table})")
    };
    let figures = [
        "total_charged_microdollars + request_count",
        "microdollars_used",
        "total_microdollars + spend_record_count",
        "total_microdollars + spend_record_count",
        "total_microdollars + spend_record_count",
    ];
    let sums: Vec<String> = TABLES.iter().zip(figures).map(sum).collect();
    one(client, &format!("SELECT ARRAY[{}]", sums.join(", ")), &[])
}

/// After so many times two charges.
fn assert_figures(client: &mut Client, times: i64) {
    let both = times * (2 * 5000 + 2);
    assert_eq!(figures(client), [both, times * 5000, both, both, both]);
    verify(client);
}

fn updates(client: &mut Client, table: &str) -> (i64, i64) {
    run_sql(client, "SELECT pg_stat_force_next_flush()");
    let sql = "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables
               WHERE schemaname = 'exa_billing' AND relname = $1";
    let row = client.query_one(sql, &[&table]).expect("a table");
    (row.get(0), row.get(1))
}

#[test]
fn rows_are_added_to_within_their_pages() {
    let (_db, mut client, _) = posting();
    let before = TABLES.map(|table| updates(&mut client, table));
    for _ in 0..5 {
        charge_and_post(&mut client);
    }
    for (table, (before, hot_before)) in TABLES.iter().zip(before) {
        let (all, hot) = updates(&mut client, table);
        assert!(all > before && all - before == hot - hot_before, "{table}");
    }
    assert_figures(&mut client, 2 + 5);
}

#[test]
fn the_newest_of_many_versions_is_added_to() {
    let (db, mut client, _) = posting();
    let mut old = db.client();
    run_sql(&mut old, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_figures(&mut old, 2);
    for _ in 0..200 {
        charge_and_post(&mut client);
    }
    assert_figures(&mut client, 202);
    let (all, hot) = updates(&mut client, "spend_daily_totals");
    assert!(hot < all, "some have left their page: {hot} of {all} have not");
    let known = figures(&mut old);
    assert_eq!(known[1], 2 * 5000, "and the old snapshot shows what it has shown");
    run_sql(&mut old, "COMMIT");
    charge_and_post(&mut client);
    assert_figures(&mut client, 203);
}

#[test]
fn an_index_that_is_added_has_every_version() {
    let (_db, mut client, mut admin) = posting();
    for (times, index) in [(3, "total_microdollars"), (4, "(total_microdollars + 1)")] {
        run_sql(
            &mut admin,
            &format!(
                "CREATE INDEX ON exa_billing.spend_daily_totals ({index});
                 ALTER TABLE exa_billing.spend_daily_totals OWNER TO exa_billing_owner"
            ),
        );
        charge_and_post(&mut client);
        let by_index = format!(
            "SELECT sum(total_microdollars)::bigint FROM exa_billing.spend_daily_totals WHERE {index} > 0"
        );
        run_sql(&mut admin, "SET enable_seqscan = off; SET enable_bitmapscan = off");
        assert_eq!(one::<i64>(&mut admin, &by_index, &[]), times * 10_000);
    }
    assert_figures(&mut client, 4);
}

#[test]
fn a_constraint_that_is_added_is_obeyed_by_the_very_next_posting() {
    let (_db, mut client, mut admin) = posting();
    for table in ["spend_hourly_totals", "exa_monthly_usage"] {
        let figure =
            if table == "exa_monthly_usage" { "request_count" } else { "spend_record_count" };
        run_sql(
            &mut admin,
            &format!(
                "ALTER TABLE exa_billing.{table} ADD CONSTRAINT few CHECK ({figure} < 3) NOT VALID"
            ),
        );
        charge(&mut client);
        while one::<i64>(&mut client, "SELECT exa_billing.post_spend()", &[]) > 0 {}
        let reasons =
            "SELECT string_agg(DISTINCT blocked_reason, ', ') FROM exa_billing.unposted_spend";
        let expected =
            format!("new row for relation \"{table}\" violates check constraint \"few\"");
        assert_eq!(one::<String>(&mut client, reasons, &[]), expected);
        verify(&mut client);
        run_sql(
            &mut admin,
            &format!(
                "ALTER TABLE exa_billing.{table} DROP CONSTRAINT few;
                 SELECT exa_billing.retry_blocked_spend()"
            ),
        );
        post_all(&mut client);
    }
    assert_figures(&mut client, 4);
}

#[test]
fn a_table_with_other_columns_is_left_to_a_statement() {
    let (_db, mut client, mut admin) = posting();
    for (times, change) in [(3, "ADD COLUMN note text"), (4, "DROP COLUMN note")] {
        for table in TABLES {
            run_sql(&mut admin, &format!("ALTER TABLE exa_billing.{table} {change}"));
        }
        charge_and_post(&mut client);
        assert_figures(&mut client, times);
    }
}

#[test]
fn who_posts_on_a_snapshot_older_than_another_posting_has_to_try_again() {
    let (db, mut client, _) = posting();
    let mut other = db.client();
    charge(&mut client);
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        run_sql(&mut other, &format!("BEGIN ISOLATION LEVEL {isolation}"));
        run_sql(&mut other, "SELECT FROM exa_billing.accounts");
        charge_and_post(&mut client);
        charge(&mut client);
        let error = other.batch_execute("SELECT exa_billing.post_spend()").unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("40001"));
        run_sql(&mut other, "ROLLBACK");
    }
    post_all(&mut client);
    assert_figures(&mut client, 2 + 1 + 4);
}
