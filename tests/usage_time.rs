//! When a request happened: its month, day and hour, late or ahead, in every
//! time zone.

mod common;
mod usage_common;

use common::{Server, error_of, one, run_sql};
use postgres::Client;
use usage_common::{
    assert_books_hold, assert_unchanged, balance, books, column, decision, no_free_allowance,
    session, state, usage,
};

/// The first instant of the current month, as text with its zone.
fn month_start(c: &mut Client) -> String {
    one(
        c,
        "select to_char(date_trunc('month', now() at time zone 'UTC'), 'YYYY-MM-DD 00:00+00')",
        &[],
    )
}

#[test]
fn a_late_request_goes_to_its_own_month_day_and_hour() {
    let (_db, mut c) = books();
    let start = month_start(&mut c);
    run_sql(&mut c, "select set_free_allowance(1000, '2020-01-01', null, 'split')");
    usage(&mut c, &format!("'u', '/search', 5000, 'org', created_at => '{start}'"));
    run_sql(&mut c, "select post_spend()");

    // The month before has its own allowance, though this one's is used up.
    let last = format!("timestamptz '{start}' - interval '1 microsecond'");
    let late = usage(&mut c, &format!("'u', '/search', 1600, 'org', created_at => {last}"));
    assert_eq!((late.figures(), late.allowance), ((1_600, 1_000, 600), Some(1_000)));
    let past = decision(&mut c, &format!("'u', as_of => {last}"));
    assert_eq!((past.month_used, past.is_paid), (1_000, true));

    let months = format!(
        "select format('%s: %s %s %s', ago, u.total_cost_microdollars,
                u.total_charged_microdollars, u.request_count)
         from generate_series(0, 2) as ago,
              exa_monthly_usage('u', (timestamp '{start}' - ago * interval '1 month')::date) as u"
    );
    let hours = format!(
        "select format('%s %s %s', hour_start - '{start}', total_microdollars, spend_record_count)
         from spend_hourly order by hour_start"
    );
    for _ in 0..2 {
        assert_eq!(
            column::<String>(&mut c, &months),
            ["0: 5000 4000 1", "1: 1600 600 1", "2: 0 0 0"]
        );
        assert_eq!(column::<String>(&mut c, &hours), ["-01:00:00 600 1", "00:00:00 4000 1"]);
        run_sql(&mut c, "select post_spend()");
    }
    let days = format!(
        "select format('%s %s', usage_date - '{start}'::timestamp::date, microdollars_used)
         from organization_member_usage order by usage_date"
    );
    assert_eq!(column::<String>(&mut c, &days), ["-1 600", "0 4000"]);
    assert_books_hold(&mut c);
}

#[test]
fn an_event_may_be_five_minutes_ahead_of_the_clock() {
    let (_db, mut c) = books();
    let spend = "record_spend('user', 'u', 5, 'variable', 'other', 'p', created_at =>";
    let exa = "record_exa_usage('u', '/search', 5, created_at =>";
    let before = state(&mut c);
    for call in [spend, exa] {
        let ahead = format!("select {call} clock_timestamp() + interval '6 minutes')");
        let error = error_of(&mut c, &ahead);
        assert_eq!(error.code, "22023", "{ahead}");
        assert_eq!(error.message, "created_at is in the future");
    }
    assert_unchanged(&mut c, &before, "a refused call");
    for call in [spend, exa] {
        run_sql(&mut c, &format!("select {call} clock_timestamp() + interval '5 minutes')"));
    }
    assert_books_hold(&mut c);
}

#[test]
fn an_event_may_be_as_late_as_the_limit_says() {
    let (db, mut c) = books();
    no_free_allowance(&mut c);
    let call = |days: i32, seconds: i32| {
        format!(
            "select record_exa_usage('u', '/search', 5,
                 created_at => clock_timestamp() - interval '{days} days {seconds} seconds')"
        )
    };
    let before = state(&mut c);
    let error = error_of(&mut c, &call(35, 1));
    assert_eq!(
        (error.code.as_str(), error.message.as_str()),
        ("22023", "created_at is too long ago")
    );
    assert!(error.hint.unwrap_or_default().contains("exa_billing.late_usage_limit"));
    assert_unchanged(&mut c, &before, "a refused call");
    run_sql(&mut c, &call(34, 86_000));

    run_sql(&mut c, "set exa_billing.late_usage_limit = '200d'");
    assert_eq!(one::<String>(&mut c, "show exa_billing.late_usage_limit", &[]), "200d");
    assert_eq!(error_of(&mut c, &call(200, 1)).code, "22023");
    run_sql(&mut c, &call(199, 86_000));
    run_sql(&mut c, "reset exa_billing.late_usage_limit");
    assert_eq!(error_of(&mut c, &call(199, 86_000)).code, "22023");
    assert_eq!(balance(&mut c, "user", "u"), -10);
    assert_books_hold(&mut c);

    // Whoever may change it may put charges into any month.
    let role = format!("ordinary_{}", db.name());
    run_sql(&mut c, &format!("create role {role}; set role {role}"));
    assert_eq!(error_of(&mut c, "set exa_billing.late_usage_limit = '200d'").code, "42501");
    run_sql(&mut c, &format!("reset role; drop role {role}"));
}

#[test]
fn a_month_without_partition_gets_one_when_it_is_needed() {
    let (_db, mut c) = books();
    run_sql(&mut c, "set exa_billing.late_usage_limit = '400d'");
    let start = month_start(&mut c);
    let partitions = |c: &mut Client, months_ago: i32| {
        let sql = format!(
            "select relname::text from pg_class
             where relname ~ ('^(exa_usage|spend)_log_' || to_char(
                 timestamp '{start}' - interval '{months_ago} months', 'YYYY_MM') || '$')"
        );
        column::<String>(c, &sql).len()
    };
    let ago = |months| format!("timestamptz '{start}' - interval '{months} months'");
    for months in [3, 5, 7, 9, 11] {
        assert_eq!(partitions(&mut c, months), 0, "{months}");
    }
    // One charge makes the month in all journals.
    usage(&mut c, &format!("'u', '/search', 5, created_at => {}", ago(3)));
    run_sql(
        &mut c,
        &format!(
            "select record_spend('user', 'u', 7, 'variable', 'other', 'p', created_at => {})",
            ago(5)
        ),
    );
    // In a transaction that has already written to the journal, and in one statement.
    run_sql(
        &mut c,
        &format!(
            "begin; select record_exa_usage('u', '/search', 11);
             select record_exa_usage('u', '/search', 13,
                        created_at => timestamptz '{start}' - n * interval '1 month')
             from unnest(array[7, 9]) as n; commit"
        ),
    );
    // A charge rolled back leaves nothing of itself, whatever became of the partition.
    run_sql(
        &mut c,
        &format!(
            "begin; select record_exa_usage('u', '/search', 17, created_at => {}); rollback",
            ago(11)
        ),
    );
    for months in [3, 5, 7, 9] {
        assert_eq!(partitions(&mut c, months), 2, "{months}");
    }
    let cost = "select sum(total_cost_microdollars)::bigint from exa_monthly_usage_current";
    assert_eq!(one::<i64>(&mut c, cost, &[]), 5 + 11 + 13 + 13);
    assert_eq!(balance(&mut c, "user", "u"), -7);
    // Posting, and the guards of the new partitions, are as those of any other.
    run_sql(&mut c, "select post_spend()");
    assert_eq!(one::<i64>(&mut c, cost, &[]), 42);
    assert_books_hold(&mut c);
}

#[test]
fn the_very_first_call_may_be_of_a_month_long_ago() {
    let db = Server::shared().database();
    let mut c = session(&db);
    run_sql(&mut c, "set exa_billing.late_usage_limit = '800d'");
    let late = usage(&mut c, "'u', '/search', 5, created_at => now() - interval '750 days'");
    assert_eq!(late.figures(), (5, 5, 0));
    let month = "select request_count from exa_monthly_usage(
                     'u', ((now() - interval '750 days') at time zone 'UTC')::date)";
    assert_eq!(one::<i64>(&mut c, month, &[]), 1);
    assert_books_hold(&mut c);
}

#[test]
fn a_month_names_itself_by_any_of_its_days() {
    let (_db, mut c) = books();
    let start = month_start(&mut c);
    usage(&mut c, &format!("'u', '/search', 5, created_at => '{start}'"));
    let requests = format!(
        "select array_agg(request_count order by day) from unnest(array[-1, 0, 27]) as day,
             exa_monthly_usage('u', timestamp '{start}'::date + day)"
    );
    assert_eq!(one::<Vec<i64>>(&mut c, &requests, &[]), [0, 1, 1]);
    let told: String = one(
        &mut c,
        "select format('%s %s %s', user_id, month, free_allowance_microdollars)
         from exa_monthly_usage('u')",
        &[],
    );
    assert_eq!(told, format!("u {} 10000000", &start[..10]));
    // Nothing is locked in before the first request.
    let nobody = "select free_allowance_microdollars from exa_monthly_usage('nobody')";
    assert_eq!(one::<Option<i64>>(&mut c, nobody, &[]), None);
}
