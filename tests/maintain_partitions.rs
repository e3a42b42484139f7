//! `maintain_partitions()`: which months it makes, how it reports, and that one that fails stops
//! no other.

mod common;
mod partitioned;
mod sessions;

use std::thread;

use common::{Server, error_of, one, run_sql};
use partitioned::*;
use postgres::Client;
use sessions::*;

/// What `maintain_partitions(months_ahead)` reports: name, created, error.
fn maintain(client: &mut Client, months_ahead: i32) -> Vec<(String, bool, Option<String>)> {
    let sql = "SELECT partition_name, created, error FROM exa_billing.maintain_partitions($1)";
    let rows = client.query(sql, &[&months_ahead]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// The names of both journals' partitions, from one month to another, both relative to this one.
fn names(client: &mut Client, from: i32, to: i32) -> Vec<String> {
    let sql = "SELECT journal || to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + n * interval '1 month', '_YYYY_MM')
               FROM generate_series($1::int, $2::int) AS n, unnest(ARRAY['exa_usage_log', 'spend_log']) AS journal
               ORDER BY n, journal";
    client.query(sql, &[&from, &to]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// How many months back the default limit for late usage reaches.
fn months_back(client: &mut Client) -> i32 {
    let sql = "SELECT (12 * extract(year FROM age) + extract(month FROM age))::int
               FROM age(date_trunc('month', now() AT TIME ZONE 'UTC'),
                        date_trunc('month', (now() - interval '35 days') AT TIME ZONE 'UTC')) AS age";
    one(client, sql, &[])
}

fn created(reports: &[(String, bool, Option<String>)]) -> Vec<String> {
    reports.iter().filter(|report| report.1).map(|report| report.0.clone()).collect()
}

fn attached(client: &mut Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent IN
               ('exa_billing.exa_usage_log'::regclass, 'exa_billing.spend_log'::regclass)";
    one(client, sql, &[])
}

#[test]
fn setup_makes_the_months_that_late_usage_reaches_and_twelve_ahead() {
    let db = books();
    let mut client = db.client();
    let back = months_back(&mut client);
    let reports = maintain(&mut client, 12);
    assert_eq!(created(&reports), Vec::<String>::new());
    assert!(reports.iter().all(|report| report.2.is_none()));
    let all: Vec<String> = reports.into_iter().map(|report| report.0).collect();
    assert_eq!(all, names(&mut client, -back, 12));
    assert_eq!(attached(&mut client), i64::from(2 * (back + 13)));
    assert_eq!(badly_made(&mut client), Vec::<String>::new());
    verify(&mut client);
}

#[test]
fn maintaining_twice_makes_nothing_the_second_time() {
    let db = books();
    let mut client = db.client();
    let before = attached(&mut client);
    let reports = maintain(&mut client, 15);
    assert_eq!(created(&reports), names(&mut client, 13, 15));
    assert!(reports.iter().all(|report| report.2.is_none()));
    assert_eq!(created(&maintain(&mut client, 15)), Vec::<String>::new());
    assert_eq!(created(&maintain(&mut client, 0)), Vec::<String>::new());
    assert_eq!(attached(&mut client), before + 6);
    assert_eq!(badly_made(&mut client), Vec::<String>::new());

    run_sql(&mut client, "SET exa_billing.late_usage_limit = '200d'");
    assert!(created(&maintain(&mut client, 12)).len() >= 8);
    assert_eq!(late_partitions(&mut client), BOTH);
    verify(&mut client);
}

#[test]
fn ten_years_can_be_made_ahead_and_no_more() {
    let db = books();
    let mut client = db.client();
    assert_eq!(created(&maintain(&mut client, 120)), names(&mut client, 13, 120));
    assert_eq!(badly_made(&mut client), Vec::<String>::new());
    for bad in ["-1", "121", "NULL", "2147483647"] {
        let error =
            error_of(&mut client, &format!("SELECT exa_billing.maintain_partitions({bad})"));
        assert_eq!(error.code, "22023", "{bad}");
    }
    verify(&mut client);
}

#[test]
fn reports_say_from_when_to_when() {
    let db = books();
    let mut client = db.client_with("-c timezone=America/St_Johns");
    let wrong = "SELECT count(*) FROM exa_billing.maintain_partitions(14)
                 WHERE NOT coalesce(
                     from_time = to_timestamp(right(partition_name, 7) || ' +00', 'YYYY_MM TZH')
                     AND to_time = (from_time AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC'
                     AND created IS NOT NULL AND error IS NULL, false)";
    assert_eq!(one::<i64>(&mut client, wrong, &[]), 0);
    verify(&mut client);
}

#[test]
fn many_sessions_that_maintain_at_once_make_each_month_once() {
    let db = books();
    let reports = in_sessions(&db, 8, IMPATIENT, |_, client| maintain(client, 14));
    assert!(reports.iter().flatten().all(|report| report.2.is_none()));
    let made: Vec<String> = reports.iter().flat_map(|reports| created(reports)).collect();
    let mut client = db.client();
    assert_eq!(made, names(&mut client, 13, 14));
    assert_eq!(badly_made(&mut client), Vec::<String>::new());
    verify(&mut client);
}

/// Takes the place of one month ahead with `ddl`, in which `%name%` and `%month%` are replaced,
/// and expects that month to be reported and all others to be made.
fn one_month_fails(ddl: &str) {
    let db = books();
    let mut client = db.client();
    let broken = names(&mut client, 14, 14)[0].clone();
    let month = broken[broken.len() - 7..].replace('_', "-") + "-01";
    let ddl = ddl.replace("%name%", &broken).replace("%month%", &month);
    run_sql(&mut client, &format!("SET ROLE exa_billing_owner; {ddl}; RESET ROLE"));

    let reports = maintain(&mut client, 15);
    let mut expected = names(&mut client, 13, 15);
    expected.retain(|name| *name != broken);
    assert_eq!(created(&reports), expected);
    let failed: Vec<_> = reports.iter().filter(|report| report.2.is_some()).collect();
    assert_eq!(failed.len(), 1, "one failure is reported: {reports:?}");
    assert_eq!(failed[0].0, broken);
    // Charges go on.
    run_sql(&mut client, "SELECT exa_billing.record_exa_usage('user-1', '/search', 5)");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]), 1);
}

#[test]
fn a_table_in_the_place_of_a_partition_is_reported() {
    one_month_fails("CREATE TABLE exa_billing.%name% (n int)");
}

#[test]
fn a_partition_of_another_name_in_the_place_of_one_is_reported() {
    one_month_fails(
        "CREATE TABLE exa_billing.odd PARTITION OF exa_billing.exa_usage_log
         FOR VALUES FROM ('%month% 07:00+00') TO ('%month% 09:00+00')",
    );
}

// Detached by hand, or lost in a restore that was cut short: it looks as if it were there.
#[test]
fn a_partition_that_is_detached_is_reported_or_attached_again() {
    let db = books();
    let mut client = db.client();
    let detached = names(&mut client, 3, 3)[0].clone();
    let before = attached(&mut client);
    let detach =
        format!("ALTER TABLE exa_billing.exa_usage_log DETACH PARTITION exa_billing.{detached}");
    run_sql(&mut client, &detach);
    let reports = maintain(&mut client, 13);
    let next = names(&mut client, 13, 13);
    assert!(next.iter().all(|name| created(&reports).contains(name)), "{reports:?}");
    let is_attached = attached(&mut client) == before + 2;
    let report = reports.iter().find(|report| report.0 == detached).expect("each month's report");
    assert!(is_attached || report.2.is_some(), "neither attached nor reported: {report:?}");
}

// A long ANALYZE, which attaching must wait for, holds up nobody but the one who maintains.
#[test]
fn maintaining_waits_for_an_open_analyze_and_charges_do_not_wait_for_it() {
    let db = books();
    let (mut open, mut other, mut client) = (db.client(), db.client(), db.client_with(IMPATIENT));
    run_sql(&mut open, "BEGIN; ANALYZE exa_billing.exa_usage_log");
    let waiting = pid(&mut other);
    thread::scope(|scope| {
        let maintaining = scope.spawn(|| maintain(&mut other, 13));
        wait_for_lock_of(&mut client, waiting);
        run_sql(&mut client, "SELECT exa_billing.record_exa_usage('user-1', '/search', 5)");
        assert_eq!(one::<i64>(&mut client, "SELECT exa_billing.post_spend()", &[]), 1);
        run_sql(&mut open, "COMMIT");
        assert_eq!(created(&maintaining.join().unwrap()).len(), 2);
    });
    verify(&mut client);
}

#[test]
fn partitions_are_alike_whatever_the_session_has_set() {
    let db = Server::shared().database();
    let odd = "-c timezone=Pacific/Auckland -c datestyle=German -c intervalstyle=sql_standard \
               -c search_path=pg_temp -c exa_billing.late_usage_limit=200d \
               -c default_transaction_isolation=serializable -c row_security=off";
    // Made by setup, by maintenance and by a charge.
    run_sql(&mut db.client_with("-c timezone=Asia/Kathmandu"), "SELECT exa_billing.setup()");
    let mut client = db.client_with(odd);
    run_sql(&mut client, &late_request("user-1"));
    run_sql(&mut client, "SELECT exa_billing.maintain_partitions(20)");
    let mut plain = db.client();
    assert_eq!(badly_made(&mut plain), Vec::<String>::new());

    // The first and the last instant of a month are in it, and in no other.
    let edges = "WITH months AS (
            SELECT date_trunc('month', now(), 'UTC') AS start)
        SELECT exa_billing.record_exa_usage('edge', '/search', 5, created_at => at)
        FROM months, unnest(ARRAY[start, start - interval '1 microsecond']) AS at";
    run_sql(&mut client, edges);
    let misplaced = "SELECT count(*) FROM exa_billing.exa_usage_log
                     WHERE tableoid::regclass::text <> 'exa_billing.exa_usage_log' ||
                           to_char(created_at AT TIME ZONE 'UTC', '_YYYY_MM')";
    assert_eq!(one::<i64>(&mut plain, misplaced, &[]), 0);
    assert_eq!(one::<i64>(&mut plain, "SELECT count(*) FROM exa_billing.exa_usage_log", &[]), 3);
    verify(&mut plain);
}

#[test]
fn a_partition_made_by_a_charge_is_guarded_like_any_other() {
    let db = books();
    let mut client = db.client_with(LATE);
    run_sql(&mut client, &late_request("user-1"));
    run_sql(&mut client, &late_spend("user-1"));
    for journal in BOTH {
        let sql =
            format!("SELECT '{journal}' || to_char({LONG_AGO} AT TIME ZONE 'UTC', '_YYYY_MM')");
        let table: String = one(&mut client, &sql, &[]);
        for change in [
            format!("UPDATE exa_billing.{table} SET recorded_at = now()"),
            format!("DELETE FROM exa_billing.{table}"),
            format!("TRUNCATE exa_billing.{table}"),
            format!("SET session_replication_role = replica; DELETE FROM exa_billing.{table}"),
        ] {
            assert_eq!(error_of(&mut client, &change).code, "55000", "{change}");
            run_sql(&mut client, "RESET session_replication_role");
        }
        let rows = format!("SELECT count(*) FROM exa_billing.{table}");
        assert_eq!(one::<i64>(&mut client, &rows, &[]), 1);
    }
    verify(&mut client);
}
