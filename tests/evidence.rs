//! What was spent when: hours, series and rolling windows, to the microsecond, told the same
//! before and after posting, with zero and unknown told apart.

mod common;
mod evidence_common;
mod usage_common;

use common::{one, run_sql, sqlstate};
use evidence_common::{
    AMOUNTS, books, charge, cover_from, degrade, post_all, rolling, rows, session, session_with,
};
use postgres::Client;
use usage_common::assert_books_hold;

/// The hours of user `u` between two times: hour, whether covered, amounts.
fn hours(client: &mut Client, from: &str, to: &str) -> Vec<String> {
    let hour = "to_char(hour_start at time zone 'UTC', 'HH24'), is_covered::text";
    let call = format!("spend_by_hour('user', 'u', at('{from}'), at('{to}'))");
    rows(client, &format!("{hour}, {AMOUNTS}"), &call)
}

/// The buckets of user `u`: days after midnight and hour, hours covered and in all, amounts.
fn series(client: &mut Client, range: &str, as_of: &str) -> Vec<String> {
    let bucket = "floor(extract(epoch from bucket_start - at('0')) / 86400)::text || 'd' ||
                  to_char(bucket_start at time zone 'UTC', 'HH24'),
                  covered_hours::text || '/' || total_hours::text,
                  total_microdollars::text, spend_record_count::text";
    rows(client, bucket, &format!("spend_series('user', 'u', '{range}', {as_of})"))
}

/// The same question before anything is posted and after everything is.
fn before_and_after_posting<T: PartialEq + std::fmt::Debug>(
    client: &mut Client,
    mut question: impl FnMut(&mut Client) -> T,
) -> T {
    let before = question(client);
    post_all(client);
    assert_eq!(question(client), before, "after posting");
    before
}

#[test]
fn every_hour_has_a_row_with_its_amounts_in_order() {
    let (_db, mut c) = books();
    charge(&mut c, 100, "variable", "at('02:00')");
    charge(&mut c, 20, "scheduled", "at('02:59:59.999999')");
    charge(&mut c, 3, "variable", "at('05:30')");
    charge(&mut c, 7, "variable", "at('06:00')");
    let told = before_and_after_posting(&mut c, |c| hours(c, "01:00", "06:00"));
    assert_eq!(
        told,
        [
            "01 true 0 0 0 0",
            "02 true 120 100 20 2",
            "03 true 0 0 0 0",
            "04 true 0 0 0 0",
            "05 true 3 3 0 1"
        ]
    );
    assert_books_hold(&mut c);
}

#[test]
fn an_hour_before_the_books_is_unknown_unless_it_has_rows() {
    let (_db, mut c) = books();
    cover_from(&mut c, "04:00");
    charge(&mut c, 9, "variable", "at('02:10')");
    let told = before_and_after_posting(&mut c, |c| hours(c, "01:00", "06:00"));
    assert_eq!(
        told,
        [
            "01 false - - - -",
            "02 false 9 9 0 1",
            "03 false - - - -",
            "04 true 0 0 0 0",
            "05 true 0 0 0 0"
        ]
    );
    // A request that was free is no spend: nothing is known of its hour.
    run_sql(&mut c, "select record_exa_usage('u', '/search', 5, created_at => at('03:10'))");
    assert_eq!(hours(&mut c, "03:00", "04:00"), ["03 false - - - -"]);
    assert_eq!(rolling(&mut c, "1 hour", "at('04:00')"), "- - - - false");
    assert_eq!(rolling(&mut c, "1 hour", "at('03:00')"), "9 9 0 1 true");
    assert_eq!(rolling(&mut c, "2 hours", "at('04:00')"), "9 9 0 1 false");
    assert_eq!(rolling(&mut c, "00:59", "at('05:00')"), "0 0 0 0 true");
    assert_eq!(rolling(&mut c, "01:01", "at('05:00')"), "0 0 0 0 false");
    // The part of an hour that is asked for decides, not what lies beside it.
    assert_eq!(rolling(&mut c, "5 minutes", "at('02:10')"), "- - - - false");
    assert_eq!(rolling(&mut c, "5 minutes", "at('02:10:00.000001')"), "9 9 0 1 true");
    assert_books_hold(&mut c);
}

#[test]
fn degraded_hours_are_read_from_the_journals_and_only_they() {
    let (_db, mut c) = books();
    for hour in 1..6 {
        charge(&mut c, 10 + hour, "variable", &format!("at('0{hour}:15')"));
    }
    post_all(&mut c);
    assert_books_hold(&mut c);
    degrade(&mut c, "'user', 'u'", "02:00", "03:00");
    degrade(&mut c, "null, null", "04:00", "05:00");
    degrade(&mut c, "'user', 'somebody else'", "01:00", "09:00");
    // What the rollups say is wrong everywhere, so that one sees who was asked.
    run_sql(
        &mut c,
        "update spend_hourly_totals set total_microdollars = 1000 + total_microdollars",
    );
    assert_eq!(
        hours(&mut c, "01:00", "06:00"),
        [
            "01 true 1011 1011 0 1",
            "02 false 12 12 0 1",
            "03 true 1013 1013 0 1",
            "04 false 14 14 0 1",
            "05 true 1015 1015 0 1"
        ]
    );
    // Partial hours come from the journals, too.
    assert_eq!(rolling(&mut c, "4 hours", "at('05:30')"), "1054 1054 0 4 true");
    assert_eq!(rolling(&mut c, "4 hours", "at('05:00')"), "2050 2050 0 4 true");
    run_sql(&mut c, "update spend_degraded_intervals set resolved_at = now()");
    assert_eq!(rolling(&mut c, "4 hours", "at('05:00')"), "4050 4050 0 4 true");
    run_sql(
        &mut c,
        "update spend_hourly_totals set total_microdollars = total_microdollars - 1000",
    );
    assert_eq!(rolling(&mut c, "4 hours", "at('05:00')"), "50 50 0 4 true");
    assert_books_hold(&mut c);
}

#[test]
fn a_rolling_window_has_its_first_microsecond_and_not_its_last() {
    let (_db, mut c) = books();
    for (amount, at) in [
        (1, "00:29:59.999999"),
        (2, "00:30"),
        (4, "00:59:59.999999"),
        (8, "01:00"),
        (16, "12:00"),
        (32, "23:59:59.999999"),
        (64, "24:00"),
        (128, "24:29:59.999999"),
        (256, "24:30"),
    ] {
        charge(
            &mut c,
            amount,
            if amount == 16 { "scheduled" } else { "variable" },
            &format!("at('{at}')"),
        );
    }
    let told = before_and_after_posting(&mut c, |c| {
        [
            "24 hours",
            "24:00:00.000001",
            "23:59:59.999999",
            "1 day",
            "00:00:00.000001",
            "23 hours 30 minutes",
            "1 hour",
        ]
        .map(|span| rolling(c, span, "at('1 day 00:30')"))
    });
    assert_eq!(
        told,
        [
            "254 238 16 7 true",
            "255 239 16 8 true",
            "252 236 16 6 true",
            "254 238 16 7 true",
            "128 128 0 1 true",
            "248 232 16 5 true",
            "224 224 0 3 true"
        ]
    );
    // Within one hour, and over nothing.
    assert_eq!(rolling(&mut c, "10 minutes", "at('00:35')"), "3 3 0 2 true");
    assert_eq!(rolling(&mut c, "00:00:00.000001", "at('00:30')"), "1 1 0 1 true");
    assert_eq!(rolling(&mut c, "1 hour", "at('2 days')"), "0 0 0 0 true");
    assert_books_hold(&mut c);
}

#[test]
fn a_span_goes_back_in_the_utc_calendar() {
    let (_db, mut c) = books();
    let equal = "select count(*) from (values ('1 month'), ('2 months -1 day'), ('90 days'), ('1 day'),
             ('23:59:59.999999'), ('1 mon 1 day 01:00:00.000001'), ('2000 years')) as s(span),
         generate_series(timestamptz '2026-01-28 22:30Z', '2028-04-02 22:30Z', interval '15 days 5 hours') as as_of,
         rolling_spend('user', 'u', span::interval, as_of) as r,
         lateral (select (as_of at time zone 'UTC' - span::interval) at time zone 'UTC') as w(start)
     where r.is_complete <> (w.start >= (select min(covered_from) from spend_sources))";
    for zone in ["UTC", "America/New_York", "Pacific/Auckland"] {
        run_sql(&mut c, &format!("set timezone = '{zone}'"));
        // The hour before which nothing is known goes through all of these windows' starts.
        for covered in ["2026-03-01 03:00Z", "2027-02-28 22:00Z", "2027-12-31 00:00Z"] {
            run_sql(&mut c, &format!("update spend_sources set covered_from = '{covered}'"));
            assert_eq!(one::<i64>(&mut c, equal, &[]), 0, "{zone} {covered}");
        }
    }
    let mut refused = vec![
        "0",
        "-1 day",
        "-1 month",
        "1 day -24 hours",
        "7000 years",
        "-178000000 years",
        "2147483647 days",
    ];
    if one::<i32>(&mut c, "select current_setting('server_version_num')::int", &[]) >= 170_000 {
        refused.extend(["infinity", "-infinity"]);
    }
    for span in refused {
        let sql = format!("select rolling_spend('user', 'u', interval '{span}')");
        let error = c.batch_execute(&sql).expect_err(&sql);
        let error = error.as_db_error().expect("an error of the server");
        assert_eq!(error.code().code(), "22023", "{span}");
        assert!(error.message().starts_with("span "), "{span}: {}", error.message());
    }
    assert_books_hold(&mut c);
}

#[test]
fn a_series_has_the_buckets_of_its_range() {
    let (_db, mut c) = books();
    charge(&mut c, 1, "variable", "at('-7 days 13:00')"); // the first hour of 7d
    charge(&mut c, 2, "variable", "at('-7 days 12:59:59.999999')");
    charge(&mut c, 4, "scheduled", "at('-1 day 12:59')");
    charge(&mut c, 8, "variable", "at('-1 day 13:00')"); // the first hour of 24h
    charge(&mut c, 16, "variable", "at('0')");
    charge(&mut c, 32, "variable", "at('12:00')"); // the first hour of 1h
    charge(&mut c, 64, "variable", "at('12:29:59.999999')");
    charge(&mut c, 128, "variable", "at('12:30')"); // not yet
    let now = "at('12:30')";
    let told = before_and_after_posting(&mut c, |c| {
        ["1h", "24h", "7d"].map(|range| series(c, range, now))
    });
    assert_eq!(told[0], ["0d12 1/1 96 2"]);
    assert_eq!(told[1].len(), 24);
    assert_eq!((told[1][0].as_str(), told[1][23].as_str()), ("-1d13 1/1 8 1", "0d12 1/1 96 2"));
    assert_eq!(told[1][11], "0d00 1/1 16 1");
    assert_eq!(
        told[2],
        [
            "-7d13 11/11 1 1",
            "-6d00 24/24 0 0",
            "-5d00 24/24 0 0",
            "-4d00 24/24 0 0",
            "-3d00 24/24 0 0",
            "-2d00 24/24 0 0",
            "-1d00 24/24 12 2",
            "0d00 13/13 112 3"
        ]
    );
    let month = series(&mut c, "30d", now);
    assert_eq!(
        (month.len(), month[0].as_str(), month[23].as_str()),
        (31, "-30d13 11/11 0 0", "-7d00 24/24 3 2")
    );
    // Groups of seven days from the first on, which is a part of a day.
    let groups = series(&mut c, "90d", now);
    assert_eq!(groups.len(), 13);
    assert_eq!(
        (groups[0].as_str(), groups[1].as_str()),
        ("-90d13 155/155 0 0", "-83d00 168/168 0 0")
    );
    assert_eq!(
        (groups[11].as_str(), groups[12].as_str()),
        ("-13d00 168/168 3 2", "-6d00 157/157 124 5")
    );
    // At the very hour its range ends with that hour, which is empty so far.
    assert_eq!(series(&mut c, "1h", "at('12:00')"), ["0d12 1/1 0 0"]);
    assert_eq!(series(&mut c, "1h", "at('11:59:59.999999')"), ["0d11 1/1 0 0"]);
    // What is to come is zero and covered.
    assert_eq!(series(&mut c, "1h", "at('30 days')"), ["30d00 1/1 0 0"]);
    assert_books_hold(&mut c);
}

#[test]
fn a_bucket_adds_up_what_is_known_and_is_null_where_nothing_is() {
    let (_db, mut c) = books();
    cover_from(&mut c, "-2 days 06:00");
    charge(&mut c, 5, "variable", "at('-4 days 10:00')");
    charge(&mut c, 70, "variable", "at('-2 days 07:00')");
    degrade(&mut c, "'user', 'u'", "-1 day 03:00", "-1 day 05:00");
    degrade(&mut c, "null, null", "-1 day 05:00", "-1 day 06:00");
    let told = before_and_after_posting(&mut c, |c| series(c, "7d", "at('22:10')"));
    assert_eq!(
        told,
        [
            "-7d23 0/1 - -",
            "-6d00 0/24 - -",
            "-5d00 0/24 - -",
            "-4d00 0/24 5 1",
            "-3d00 0/24 - -",
            "-2d00 18/24 70 1",
            "-1d00 21/24 0 0",
            "0d00 23/23 0 0"
        ]
    );
    assert_books_hold(&mut c);
}

#[test]
fn another_owners_spend_is_in_no_figure() {
    let (_db, mut c) = books();
    charge(&mut c, 5, "variable", "at('02:10')");
    run_sql(
        &mut c,
        "select set_free_allowance(0, '2020-01-01');
         select record_spend('organization', 'u', 70, 'variable', 'kiloclaw', 'p', actor_user_id => 'u',
                             created_at => at('02:10'));
         select record_exa_usage('u', '/search', 900, 'org', created_at => at('02:10'));
         select record_exa_usage('u', '/search', 2000, created_at => at('02:10'))",
    );
    let told = before_and_after_posting(&mut c, |c| {
        (rolling(c, "2 hours", "at('04:00')"), rolling(c, "2 hours", "at('03:30')"))
    });
    assert_eq!(told.0, "2005 2005 0 2 true");
    assert_eq!(told.1, told.0);
    assert_books_hold(&mut c);
}

#[test]
fn a_sum_beyond_bigint_is_an_error_of_that_owner_and_that_window_only() {
    let (_db, mut c) = books();
    run_sql(
        &mut c,
        "select record_spend('user', 'rich', 9007199254740991, 'variable', 'kiloclaw', 'p',
                             created_at => at('0') + n * interval '10 minutes')
         from generate_series(0, 1024) as n",
    );
    charge(&mut c, 5, "variable", "at('02:10')");
    for call in [
        "rolling_spend('user', 'rich', '10 days', at('9 days'))",
        "top_spend_drivers('user', 'rich', at('0'), at('9 days'))",
        "spend_evidence('user', 'rich', '30d', at('9 days'))",
    ] {
        let refused = c.batch_execute(&format!("select * from {call}"));
        assert_eq!(sqlstate(refused), "22003", "{call}");
    }
    // Day by day it can be told.
    let days = "select count(*) from spend_series('user', 'rich', '30d', at('9 days'))
                where total_microdollars > 0";
    assert_eq!(one::<i64>(&mut c, days, &[]), 8);
    assert_eq!(rolling(&mut c, "10 days", "at('9 days')"), "5 5 0 1 true");
    let call = "rolling_spend('user', 'rich', '10 hours', at('9:00'))";
    assert_eq!(rows(&mut c, "total_microdollars::text", call), ["486388759756013514"]);
    run_sql(&mut c, "select post_spend()");
}

#[test]
fn the_sessions_settings_change_nothing() {
    let (db, mut c) = books();
    cover_from(&mut c, "-3 days");
    for n in 0..40 {
        charge(
            &mut c,
            100 + n,
            "variable",
            &format!("at('-4 days') + {n} * interval '3 hours 17 minutes'"),
        );
    }
    degrade(&mut c, "'user', 'u'", "-1 day", "-22 hours");
    run_sql(&mut c, "select post_spend(25)");
    let all = "select array_agg(t) from (
        select concat_ws(' ', extract(epoch from hour_start), is_covered, h.total_microdollars) as t
            from exa_billing.spend_by_hour('user', 'u', public.at('-4 days'), public.at('1 day')) as h
        union all select concat_ws(' ', extract(epoch from bucket_start), covered_hours, s.total_microdollars)
            from exa_billing.spend_series('user', 'u', '7d', public.at('12:34:56.789')) as s
        union all select r::text from exa_billing.rolling_spend('user', 'u', '2 days 5 hours', public.at('12:34')) as r
        union all select d::text from exa_billing.top_spend_drivers('user', 'u', public.at('-3 days -1 hour'), public.at('7')) as d
        union all select exa_billing.spend_evidence('user', 'u', '24h', public.at('12:34:56.789'))::text) as all_of_it";
    let before: Vec<String> = one(&mut c, all, &[]);
    assert_eq!(before.len(), 120 + 8 + 1 + 1 + 1);
    for settings in [
        "-c timezone=Pacific/Auckland -c datestyle=SQL,DMY",
        "-c timezone=America/St_Johns -c datestyle=German -c intervalstyle=iso_8601",
        "-c timezone=<odd>-00:44 -c datestyle=Postgres,MDY -c intervalstyle=sql_standard",
        "-c enable_indexscan=off -c enable_indexonlyscan=off -c plan_cache_mode=force_custom_plan",
        "-c search_path=pg_temp -c extra_float_digits=-15",
    ] {
        let told: Vec<String> = one(&mut session_with(&db, settings), all, &[]);
        assert_eq!(told, before, "{settings}");
    }
    assert_books_hold(&mut session(&db));
}

// In other styles than ISO a partition's bound is written with the abbreviation of a zone, which may
// be that of another one.
#[test]
fn the_months_of_the_journals_are_found_in_every_style_of_dates_and_strings() {
    let (db, mut c) = books();
    cover_from(&mut c, "1000 days");
    run_sql(
        &mut c,
        "set exa_billing.late_usage_limit = '800d';
         select record_spend('user', 'u', (10 ^ n)::bigint, 'variable', 'kiloclaw', 'p',
             created_at => (date_trunc('month', now() at time zone 'UTC') - n * interval '1 month'
                            + interval '14 days') at time zone 'UTC')
         from generate_series(1, 13) as n",
    );
    for settings in [
        "-c timezone=UTC",
        "-c timezone=Europe/Dublin -c datestyle=SQL,DMY",
        "-c timezone=Asia/Kolkata -c datestyle=Postgres,MDY",
        "-c timezone=<odd>-00:44 -c datestyle=German",
        "-c timezone=America/Havana -c datestyle=SQL,MDY",
        "-c standard_conforming_strings=off -c backslash_quote=off",
    ] {
        let told = rolling(&mut session_with(&db, settings), "500 days", "now()");
        assert_eq!(told, "11111111111110 11111111111110 0 13 false", "{settings}");
    }
    assert_books_hold(&mut c);
}

#[test]
fn readers_need_the_right_to_read_the_books() {
    let (db, mut c) = books();
    let role = format!("reader_{}", db.name());
    run_sql(
        &mut c,
        &format!(
            "create role {role} login; grant usage on schema exa_billing to {role};
        grant execute on all functions in schema exa_billing to {role}"
        ),
    );
    for call in [
        "spend_by_hour('user', 'u', '2026-01-01 00:00Z', '2026-01-01 01:00Z')",
        "spend_series('user', 'u', '1h')",
        "rolling_spend('user', 'u', '1 hour')",
        "top_spend_drivers('user', 'u', now() - interval '1 hour', now())",
        "spend_evidence('user', 'u', '1h')",
    ] {
        let refused = db.client_as(&role).batch_execute(&format!("select exa_billing.{call}"));
        assert_eq!(sqlstate(refused), "42501", "{call}");
    }
    run_sql(&mut c, &format!("drop owned by {role}; drop role {role}"));
}
