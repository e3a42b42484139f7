//! `reconcile_rollups`: each kind of mismatch, planted and told with its figures; nothing on clean
//! books, also while charging goes on.

mod common;
mod rollups_common;
mod sessions;
mod usage_common;

use std::sync::mpsc;

use common::{Server, one, run_sql, wait_until};
use postgres::{Client, NoTls};
use rollups_common::*;
use sessions::{beside, in_sessions, posting_beside};
use usage_common::{assert_books_hold, assert_unchanged, column, state};

/// The rows of a report, each column by column; nulls are dashes.
fn report(c: &mut Client, arguments: &str) -> Vec<String> {
    column(
        c,
        &format!(
            "select concat_ws(' | ', mismatch_type, coalesce(to_char(hour_start at time zone 'UTC', 'DD HH24'), '-'),
                    coalesce(owner_kind, '-'), coalesce(owner_id, '-'), coalesce(spend_category, '-'),
                    coalesce(expected_microdollars::text, '-'), coalesce(actual_microdollars::text, '-'),
                    coalesce(expected_record_count::text, '-'), coalesce(actual_record_count::text, '-'), detail)
             from exa_billing.reconcile_rollups({arguments})"
        ),
    )
}

/// Books in which user u has spent 500 + 700 posted and 30 unposted microdollars in one hour.
struct Planted {
    client: Client,
    _db: common::Database,
}

impl Planted {
    fn new() -> Planted {
        let (_db, mut client) = books();
        run_sql(
            &mut client,
            "select record_spend('user', 'u', 500, 'variable', 'kiloclaw', 'p', created_at => '2025-02-03 10:10Z');
             select record_spend('user', 'u', 700, 'variable', 'kiloclaw', 'p', created_at => '2025-02-03 10:20Z');
             select record_spend('user', 'v', 11, 'scheduled', 'coding_plan', 'p', created_at => '2025-02-03 10:20Z');
             select post_spend();
             select record_spend('user', 'u', 30, 'variable', 'kiloclaw', 'p', created_at => '2025-02-03 10:30Z')",
        );
        let mut planted = Planted { client, _db };
        planted.finds("select", &[]);
        planted
    }

    /// What is told after some damage, which then is undone.
    #[track_caller]
    fn finds(&mut self, damage: &str, expected: &[&str]) {
        run_sql(&mut self.client, &format!("begin; {damage}"));
        assert_eq!(report(&mut self.client, ALL), expected, "{damage}");
        run_sql(&mut self.client, "rollback");
    }
}

#[test]
fn totals_that_are_missing_or_differ() {
    let mut books = Planted::new();
    let of_u = "where owner_id = 'u'";
    books.finds(
        &format!("delete from spend_hourly_totals {of_u}"),
        &["missing_total | 03 10 | user | u | variable | 1230 | 30 | 3 | 1"],
    );
    let totals = |set: &str| {
        format!("update spend_hourly_totals set {set} = {set} + 1 where owner_id = 'u'")
    };
    let amount = "amount_difference | 03 10 | user | u | variable | 1230 | 1231 | 3 | 3";
    books.finds(&totals("total_microdollars"), &[amount]);
    books.finds(
        &totals("spend_record_count"),
        &["record_count_difference | 03 10 | user | u | variable | 1230 | 1230 | 3 | 4"],
    );
    books.finds(
        &format!("{}; {}", totals("total_microdollars"), totals("spend_record_count")),
        &[
            "amount_difference | 03 10 | user | u | variable | 1230 | 1231 | 3 | 4",
            "record_count_difference | 03 10 | user | u | variable | 1230 | 1231 | 3 | 4",
        ],
    );
    // Of an hour, an owner and a month that no journal knows.
    books.finds(
        "insert into spend_hourly_totals values ('organization', 'o', '2025-02-01 05:00Z', 'variable', 5, 0)",
        &["amount_difference | 01 05 | organization | o | variable | 0 | 5 | 0 | 0"],
    );
    run_sql(
        &mut books.client,
        "begin; insert into spend_hourly_totals values ('user', 'u', '2021-05-01 05:00Z', 'variable', 0, 2)",
    );
    assert_eq!(
        report(&mut books.client, EVER)[1..],
        ["record_count_difference | 01 05 | user | u | variable | 0 | 0 | 0 | 2"]
    );
}

#[test]
fn drivers_that_do_not_add_up() {
    let mut books = Planted::new();
    books.finds(
        "delete from spend_hourly_drivers where owner_id = 'u'",
        &["driver_sum_difference | 03 10 | user | u | variable | 1230 | 30 | 3 | 1"],
    );
    books.finds(
        "update spend_hourly_drivers set spend_record_count = 7 where owner_id = 'u'",
        &["driver_sum_difference | 03 10 | user | u | variable | 1230 | 1230 | 3 | 8"],
    );
    // Under a dimension that does not exist they are of no category.
    books.finds(
        "update spend_hourly_drivers set dimension_id = gen_random_uuid() where owner_id = 'v'",
        &[
            "driver_sum_difference | 03 10 | user | v | scheduled | 11 | 0 | 1 | 0",
            "driver_sum_difference | 03 10 | user | v | - | 0 | 11 | 0 | 1",
        ],
    );
}

/// Lost and invented rows of the queue show as what they make of the figures.
#[test]
fn the_queue_counts() {
    let mut books = Planted::new();
    books.finds(
        "delete from unposted_spend",
        &[
            "amount_difference | 03 10 | user | u | variable | 1230 | 1200 | 3 | 2",
            "driver_sum_difference | 03 10 | user | u | variable | 1230 | 1200 | 3 | 2",
            "record_count_difference | 03 10 | user | u | variable | 1230 | 1200 | 3 | 2",
        ],
    );
    books.finds("update unposted_spend set blocked_reason = 'bad'", &[]);
    books.finds(
        "update unposted_spend set owner_id = 'w'; delete from spend_hourly_totals where owner_id = 'v'",
        &[
            "amount_difference | 03 10 | user | u | variable | 1230 | 1200 | 3 | 2",
            "driver_sum_difference | 03 10 | user | u | variable | 1230 | 1200 | 3 | 2",
            "record_count_difference | 03 10 | user | u | variable | 1230 | 1200 | 3 | 2",
            "missing_total | 03 10 | user | v | scheduled | 11 | 0 | 1 | 0",
            "amount_difference | 03 10 | user | w | variable | 0 | 30 | 0 | 1",
            "driver_sum_difference | 03 10 | user | w | variable | 0 | 30 | 0 | 1",
            "record_count_difference | 03 10 | user | w | variable | 0 | 30 | 0 | 1",
        ],
    );
    // A charge that never got into the queue.
    books.finds(
        "insert into spend_log values (gen_random_uuid(), 'organization', 'o', null, 'variable', 'other', 'p', 'f',
             'm', 'x', 7, 1, '2025-02-04 00:00Z', now())",
        &[
            "driver_sum_difference | 04 00 | organization | o | variable | 7 | 0 | 1 | 0",
            "missing_total | 04 00 | organization | o | variable | 7 | 0 | 1 | 0",
        ],
    );
}

/// An opening balance is the product's own.
#[test]
fn sources_that_nobody_knows() {
    let mut books = Planted::new();
    run_sql(
        &mut books.client,
        "select import_opening_balance('user', 'taken', 9, 5, '2025-02-02 08:00Z', 'k');
         select record_spend('user', 'u', 40 + n, 'variable', 'my-shop', 'p', created_at => '2025-01-30 10:00Z'::timestamptz + n * interval '1 day')
         from generate_series(0, 4) as n;
         select record_spend('user', 'u', 1, 'scheduled', 'AI_GATEWAY', 'p', created_at => '2025-02-03 10:00Z'),
                record_spend('user', 'u', 1, 'scheduled', 'too-late', 'p', created_at => '2025-02-09 00:00Z')",
    );
    books.finds(
        "select",
        &[
            "unknown_taxonomy_value | - | - | - | - | - | 1 | - | 1 | source \"AI_GATEWAY\" is counted as other",
            "unknown_taxonomy_value | - | - | - | - | - | 210 | - | 5 | source \"my-shop\" is counted as other",
        ],
    );
    books.finds(
        "create table public.shop (who text, cost bigint, at timestamptz);
         create table public.gateway (like public.shop);
         create table public.gone (like public.shop);
         select attach_spend_source(name, ('public.' || name)::regclass, 'variable', source,
                    '{\"user_id\": \"who\", \"organization_id\": {\"value\": null},
                      \"amount\": \"cost\", \"created_at\": \"at\"}')
         from (values ('shop', 'their-shop'), ('gateway', 'ai_gateway'), ('gone', 'gone')) as t(name, source);
         select detach_spend_source('gone')",
        &[
            "unknown_taxonomy_value | - | - | - | - | - | 1 | - | 1 | source \"AI_GATEWAY\" is counted as other",
            "unknown_taxonomy_value | - | - | - | - | - | 210 | - | 5 | source \"my-shop\" is counted as other",
            "unknown_taxonomy_value | - | - | - | - | - | - | - | - | source \"their-shop\" of the attached table \"shop\" is counted as other",
        ],
    );
}

#[test]
fn hours_that_nobody_vouches_for() {
    let mut books = Planted::new();
    run_sql(
        &mut books.client,
        "update spend_sources set covered_from = '2025-02-02 07:00Z' where source_name = 'exa';
         update spend_sources set covered_from = '2025-02-05Z' where source_name = 'spend';
         select record_degraded_interval('2025-02-01Z', '2025-02-06Z', 'restored', 'user', 'u');
         select record_degraded_interval('2025-02-08 23:00Z', '2025-02-10Z', 'for all');
         select record_degraded_interval('2025-01-01Z', '2025-02-01Z', 'for all');
         select record_degraded_interval('2025-02-09Z', '2025-02-11Z', 'after the range'),
                record_degraded_interval('2025-01-28Z', '2025-01-30Z', 'before the range');
         select resolve_degraded_interval(record_degraded_interval('2025-02-07Z', '2025-02-08Z', 'over'))",
    );
    books.finds(
        "select",
        &[
            "coverage_hole | 30 00 | - | - | - | - | - | - | - | until 2025-02-02 07:00:00+00: not backfilled",
            "coverage_hole | 30 00 | - | - | - | - | - | - | - | until 2025-02-01 00:00:00+00: for all",
            "coverage_hole | 01 00 | user | u | - | - | - | - | - | until 2025-02-06 00:00:00+00: restored",
            "coverage_hole | 08 23 | - | - | - | - | - | - | - | until 2025-02-09 00:00:00+00: for all",
        ],
    );
    books.finds(
        "delete from spend_sources; delete from spend_degraded_intervals",
        &["coverage_hole | 30 00 | - | - | - | - | - | - | - | until 2025-02-09 00:00:00+00: not backfilled"],
    );
}

#[test]
fn clean_books_are_clean_whatever_waits() {
    let (_db, mut c) = filled();
    let before = state(&mut c);
    let none: [&str; 0] = [];
    assert_eq!(report(&mut c, ALL), none);
    assert_eq!(report(&mut c, "'2020-01-01Z', '200000-01-01Z'"), none);
    assert_unchanged(&mut c, &before, "a reconciliation");
    run_sql(&mut c, "select retry_blocked_spend(), post_spend()");
    assert_eq!(report(&mut c, ALL), none);
    assert_books_hold(&mut c);
}

#[test]
fn live_charging_and_posting_give_no_false_alarm() {
    let (db, mut c) = busy_books();
    let look = |c: &mut Client| {
        let (tidy, all) = ("set search_path = exa_billing", format!("{ALL}, 5"));
        run_sql(c, tidy);
        assert_eq!(report(c, &all), [""; 0]);
        run_sql(
            c,
            &format!("begin isolation level repeatable read; select from reconcile_rollups({ALL})"),
        );
        assert_eq!(report(c, &all), [""; 0]);
        run_sql(c, "commit");
    };
    posting_beside(&db, || beside(&db, &[&look], || in_sessions(&db, 8, SESSION, charge_at_once)));
    assert_eq!(report(&mut c, ALL), [""; 0]);
    assert_books_hold(&mut c);
}

#[test]
fn at_most_so_many_are_told_and_a_notice_says_how_many_there_are() {
    let (db, mut c) = filled();
    run_sql(
        &mut c,
        "update spend_hourly_totals set total_microdollars = total_microdollars + 1, spend_record_count = 9;
         insert into spend_hourly_totals values ('user', 'u', '2024-05-01 05:00Z', 'variable', 1, 0);
         select record_degraded_interval('2025-02-01Z', '2025-02-06Z', 'restored')",
    );
    let range = "'2024-01-01Z', '2025-02-09Z'";
    let all = report(&mut c, range);
    let totals: i64 = one(&mut c, "select count(*) from spend_hourly_totals", &[]);
    assert_eq!(i64::try_from(all.len()).unwrap(), 1 + 2 * totals - 1);
    let differences: Vec<&String> = all.iter().filter(|line| line.contains("difference")).collect();
    assert!(differences[0].starts_with("amount_difference | 01 05 | user | u "), "{differences:?}");

    let (sender, told) = mpsc::channel();
    let mut config = db.config();
    config.notice_callback(move |notice| {
        let _ = sender.send(notice.message().to_owned());
    });
    let mut caller = config.connect(NoTls).expect("a session");
    for count in [0, 1, 2, 3, all.len() - 1] {
        assert_eq!(report(&mut caller, &format!("{range}, {count}")), all[..count], "{count}");
        let notice =
            format!("{count} of {} mismatches are shown; max_details is {count}", all.len());
        assert_eq!(told.try_iter().collect::<Vec<_>>(), [notice]);
    }
    for count in [all.len(), 2_147_483_647] {
        assert_eq!(report(&mut caller, &format!("{range}, {count}")), all);
        assert_eq!(told.try_iter().count(), 0);
    }
}

/// One owner's figures beyond any bigint hide nobody else's.
#[test]
fn figures_beyond_the_range_are_told_as_they_are() {
    let mut books = Planted::new();
    books.finds(
        "insert into spend_log
         select gen_random_uuid(), 'user', 'm', null, 'variable', 'other', 'p', 'f', 'x', 'y', 9007199254740991, 1,
                '2025-02-04 10:20Z', now()
         from generate_series(1, 1100);
         update spend_hourly_totals set total_microdollars = -9223372036854775808,
                spend_record_count = 9223372036854775807 where owner_id = 'u'",
        &[
            "amount_difference | 03 10 | user | u | variable | 1230 | -9223372036854775778 | 3 | 9223372036854775808",
            "record_count_difference | 03 10 | user | u | variable | 1230 | -9223372036854775778 | 3 | 9223372036854775808",
            "driver_sum_difference | 04 10 | user | m | variable | 9907919180215090100 | 0 | 1100 | 0",
            "missing_total | 04 10 | user | m | variable | 9907919180215090100 | 0 | 1100 | 0",
        ],
    );
}

#[test]
fn a_standby_tells_the_same() {
    let server = Server::start("reconcile", &[]);
    let (db, mut primary) = books_on(&server);
    fill(&mut primary);
    run_sql(
        &mut primary,
        "update spend_hourly_totals set spend_record_count = 9;
         select record_degraded_interval('2025-02-01Z', '2025-02-06Z', 'restored')",
    );
    let standby_server = server.basebackup_standby("reconcile");
    let mut standby = standby_server.client(db.name());
    let lsn: String = one(&mut primary, "select pg_current_wal_lsn()::text", &[]);
    wait_until("the standby has replayed it", || {
        one(&mut standby, "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn", &[&lsn])
    });
    let told = report(&mut primary, ALL);
    assert!(told.len() > 50, "{told:?}");
    assert_eq!(report(&mut standby, ALL), told);
}
