//! Examples that have a name: days that are none, leap days, months far ahead, the hour of an anomaly.

use super::compared;
use super::edges::{
    At, at, day_of, days_later, hours_later, later, month_after, month_of, shown, start_of,
};
use super::history::SECOND;
use super::writing::{Books, assert_month, assert_months, post, row, rows};
use super::zones::SETTINGS;
use crate::usage_common::assert_books_hold;
use chrono::{NaiveDate, Utc};
use serde_json::Value as Json;

fn date(text: &str) -> NaiveDate {
    text.parse().expect("a day")
}

/// 2000 could be divided by 400, 2100 cannot: the one has a leap day, the other has none.
#[test]
fn the_year_2000_has_a_leap_day_and_2100_has_none() {
    let mut books = Books::new();
    for (number, settings) in SETTINGS.into_iter().enumerate() {
        let mut c = books.session(settings);
        let user = format!("u-{number}");
        for (month, amount) in [("2000-01-01", 0_i64), ("2000-03-01", 1_000), ("2100-03-01", 2_000)]
        {
            let sql = "select exa_billing.set_free_allowance($1, $2, $3, 'split')";
            row(&mut c, sql, &[&amount, &date(month), &user]);
        }
        let leap_day = at("2000-02-29T23:59:59.999999Z");
        for (when, charged) in [(leap_day, 70_i64), (later(leap_day, 1), 0)] {
            let sql = "select charged_microdollars from exa_billing.record_exa_usage(
                           $1, '/search', 70, created_at => $2)";
            compared(
                &row(&mut c, sql, &[&user, &when]).get(0),
                &charged,
                settings,
                "the leap day of 2000",
            );
        }
        let sql = "select request_count from exa_billing.exa_monthly_usage($1, $2)";
        for day in ["2000-02-01", "2000-02-29", "2000-03-01", "2000-03-31"] {
            compared(&row(&mut c, sql, &[&user, &date(day)]).get(0), &1_i64, settings, day);
        }

        // Forecasts: the month after 28 days, grants that end with it, and a month back from its end.
        let march = at("2100-03-01T00:00:00Z");
        let sql =
            "select free_allowance_microdollars from exa_billing.check_exa_usage($1, null, $2)";
        for (as_of, allowance) in [(later(march, -1), 1_000_i64), (march, 2_000)] {
            compared(&row(&mut c, sql, &[&user, &as_of]).get(0), &allowance, settings, "2100");
        }
        let sql = "select exa_billing.grant_credit('user', $1, 500, $2, created_at => $3)";
        row(&mut c, sql, &[&user, &march, &at("2000-02-29T00:00:00Z")]);
        let sql = "select balance_microdollars from exa_billing.account_balance('user', $1, $2)";
        for (as_of, balance) in [(later(march, -1), 430_i64), (march, 0)] {
            compared(
                &row(&mut c, sql, &[&user, &as_of]).get(0),
                &balance,
                settings,
                "a grant until 2100",
            );
        }
        let sql = "select bucket_start from exa_billing.spend_series('user', $1, '30d', $2)";
        let days: Vec<NaiveDate> = rows(&mut c, sql, &[&user, &hours_later(march, 12)])
            .iter()
            .map(|row| day_of(row.get(0)))
            .collect();
        let expected: Vec<NaiveDate> =
            (0..31).map(|day| days_later(date("2100-01-30"), day)).collect();
        compared(&days, &expected, settings, "the days until 1 March 2100");
        // The charge of the leap day of 2000 lies a hundred years and a day before 1 March 2100.
        let sql = "select total_microdollars from exa_billing.rolling_spend('user', $1, $2::text::interval, $3)";
        for (span, as_of, total) in [
            ("100 years", later(march, -1), 70_i64),
            ("100 years 1 day", march, 70),
            ("100 years 23 hours 59 minutes 59.999999 seconds", later(leap_day, 100), 70),
            ("100 years", march, 0),
        ] {
            compared(&row(&mut c, sql, &[&user, &span, &as_of]).get(0), &total, settings, span);
        }
    }
    assert_books_hold(&mut books.plain);
    assert_months(&mut books.plain);
}

/// Ten years ahead, with their leap days; each month begins where the one before it ends.
#[test]
fn months_far_ahead_are_those_of_the_calendar_whoever_makes_them() {
    let mut books = Books::new();
    let mut made = 0;
    for (settings, ahead) in SETTINGS[1..].iter().zip([14, 40, 41, 42]) {
        let mut c = books.session(&format!("{settings} -c exa_billing.late_usage_limit=0"));
        let sql = "select partition_name, from_time, to_time, created, error
                   from exa_billing.maintain_partitions($1) order by partition_name like 'spend%', from_time";
        let reports = rows(&mut c, sql, &[&ahead]);
        let count = usize::try_from(ahead).unwrap() + 1;
        assert_eq!(reports.len(), 2 * count, "{settings}");
        for journal in reports.chunks(count) {
            let mut month = month_of(Utc::now());
            for report in journal {
                let error: Option<String> = report.get(4);
                assert_eq!(error, None, "{settings}");
                made += usize::from(report.get::<_, bool>(3));
                let (name, from): (String, At) = (report.get(0), report.get(1));
                compared(&shown(from), &shown(start_of(month)), settings, &name);
                assert_month(&name, from, report.get(2));
                month = month_after(month);
            }
        }
    }
    assert_eq!(made, 2 * (42 - 12));
    assert!(assert_months(&mut books.plain) >= 2 * 43);
}

/// Spend in the last microsecond of an hour is that hour's: the sweep of the next hour tells it so.
#[test]
fn an_anomaly_belongs_to_its_utc_hour_in_every_session() {
    let mut books = Books::new();
    // Where Lord Howe is, 2:00 is 1:30 again, in the middle of a UTC hour; a leap day; a year's end.
    for edge in ["2024-03-01T00:00:00Z", "2024-04-06T15:00:00Z", "2025-01-01T00:00:00Z"] {
        let edge = at(edge);
        let owner = |number: usize| format!("u-{}-{number}", edge.timestamp());
        for (number, settings) in SETTINGS.into_iter().enumerate() {
            let mut c = books.session(settings);
            let changes = r#"{"spend_alerts_enabled": true, "cost_suggestions_enabled": false}"#;
            let sql = "select exa_billing.update_spend_alert_settings(
                           'user', $1, $2::text::jsonb, 'actor', $3)";
            row(&mut c, sql, &[&owner(number), &changes, &hours_later(edge, -3)]);
            for (when, amount) in [(later(edge, -1), 25_000_000_i64), (edge, 24_999_999)] {
                let sql = "select exa_billing.record_spend(
                               'user', $1, $2, 'variable', 'other', 'p', created_at => $3)";
                row(&mut c, sql, &[&owner(number), &amount, &when]);
            }
        }
        let mut c = books.session(SETTINGS[2]);
        post(&mut c);
        let sessions = i64::try_from(SETTINGS.len()).unwrap();
        // At the edge the hour before it is complete; what the next one has is not enough.
        for (minutes, fired) in [(0, sessions), (59, 0), (60, 0), (61, 0)] {
            let sql = "select fired from exa_billing.run_spend_alert_sweep($1, 1000)";
            let as_of = later(edge, minutes * 60 * SECOND);
            compared(
                &row(&mut c, sql, &[&as_of]).get(0),
                &fired,
                &shown(as_of),
                "run_spend_alert_sweep",
            );
        }
        for (number, settings) in SETTINGS.into_iter().enumerate() {
            let sql = "select snapshot::text, occurred_at from exa_billing.cost_insight_events
                       where owner_id = $1 and event_type = 'anomaly_alert'";
            let told = row(&mut c, sql, &[&owner(number)]);
            let snapshot: Json = serde_json::from_str(told.get(0)).expect("a snapshot");
            let hour = snapshot["hour_start"].as_str().map(at);
            let amount = snapshot["hour_variable_microdollars"].as_i64();
            let expected = (Some(hours_later(edge, -1)), Some(25_000_000), edge);
            compared(&(hour, amount, told.get(1)), &expected, settings, "an anomaly");
        }
    }
    assert_books_hold(&mut books.plain);
}

/// Coverage begins with a whole hour: what lies before is known only where something was spent.
#[test]
fn hours_before_the_coverage_are_unknown_and_not_zero_in_every_session() {
    let mut books = Books::new();
    let edge = at("2024-10-27T01:00:00Z");
    let sql = "update exa_billing.spend_sources set covered_from = $1";
    books.plain.execute(sql, &[&edge]).expect("coverage");
    for (number, settings) in SETTINGS.into_iter().enumerate() {
        let mut c = books.session(settings);
        let user = format!("u-{number}");
        for when in [later(hours_later(edge, -1), -1), edge] {
            let sql = "select exa_billing.record_spend('user', $1, 5, 'variable', 'other', 'p', created_at => $2)";
            row(&mut c, sql, &[&user, &when]);
        }
        for _ in 0..2 {
            let sql = "select hour_start, is_covered, total_microdollars
                       from exa_billing.spend_by_hour('user', $1, $2, $3)";
            let told: Vec<(At, bool, Option<i64>)> =
                rows(&mut c, sql, &[&user, &hours_later(edge, -3), &hours_later(edge, 2)])
                    .iter()
                    .map(|row| (row.get(0), row.get(1), row.get(2)))
                    .collect();
            let expected = [None, Some(5), None, Some(5), Some(0)];
            let expected: Vec<_> = (-3..)
                .zip(expected)
                .map(|(hour, total)| (hours_later(edge, hour), hour >= 0, total))
                .collect();
            compared(&told, &expected, settings, "spend_by_hour");
            for (hours, as_of, total, is_complete) in [
                (1, edge, None, false),
                (1, hours_later(edge, 1), Some(5_i64), true),
                (2, later(edge, 1), Some(10), false),
                (2, edge, Some(5), false),
            ] {
                let sql = "select total_microdollars, is_complete
                           from exa_billing.rolling_spend('user', $1, $2::text::interval, $3)";
                let told = row(&mut c, sql, &[&user, &format!("{hours} hours"), &as_of]);
                let told: (Option<i64>, bool) = (told.get(0), told.get(1));
                compared(&told, &(total, is_complete), settings, "rolling_spend");
            }
            post(&mut c);
        }
    }
    assert_books_hold(&mut books.plain);
}

/// What is taken over from elsewhere counts from its very instant.
#[test]
fn an_opening_balance_counts_from_its_instant_in_every_session() {
    let mut books = Books::new();
    let edge = at("2025-01-01T00:00:00Z");
    for (number, settings) in SETTINGS.into_iter().enumerate() {
        let mut c = books.session(settings);
        for (name, as_of) in [("last", later(edge, -1)), ("first", edge)] {
            let user = format!("u-{number}-{name}");
            let sql = "select exa_billing.import_opening_balance('user', $1, 900, 300, $2, 'k')";
            row(&mut c, sql, &[&user, &as_of]);
            let sql =
                "select total_microdollars from exa_billing.spend_by_hour('user', $1, $2, $3)";
            let told = rows(&mut c, sql, &[&user, &hours_later(edge, -1), &hours_later(edge, 1)]);
            let told: Vec<i64> = told.iter().map(|row| row.get(0)).collect();
            let expected = if as_of < edge { vec![300, 0] } else { vec![0, 300] };
            compared(&told, &expected, settings, name);
            let sql = "select balance_microdollars from exa_billing.account_statement('user', $1, $2, $3)";
            let brought: i64 = rows(&mut c, sql, &[&user, &edge, &later(edge, 1)])[0].get(0);
            compared(&brought, &if as_of < edge { 600 } else { 0 }, settings, name);
        }
    }
    assert_books_hold(&mut books.plain);
}
