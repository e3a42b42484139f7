//! The windows of thresholds are exact to the microsecond, whatever the rollups, the queue, the
//! application's tables and the session's settings are like.

mod alerts_common;
mod common;
mod evidence_common;
mod ledger_books;
mod usage_common;

use alerts_common::*;
use common::{one, run_sql};
use evidence_common::{degrade, post_all, session_with};
use postgres::Client;
use usage_common::{assert_books_hold, column};

const WINDOWS: [(&str, &str); 3] =
    [("threshold_24h", "24 hours"), ("threshold_7d", "7 days"), ("threshold_30d", "30 days")];

const AS_OF: &str = "at('200 hours 30 minutes')";

/// Charges around the edges of a window; 7 microdollars of them are inside.
fn spend_around(
    c: &mut Client,
    id: &str,
    span: &str,
    as_of: &str,
    post: impl Fn(&mut Client, usize),
) {
    let start = format!("{as_of} - interval '{span}'");
    let microsecond = "interval '1 microsecond'";
    for (number, (amount, at)) in [
        (100, format!("{start} - {microsecond}")),
        (1, start.clone()),
        (2, format!("date_trunc('hour', {start} + interval '1 hour', 'UTC')")),
        (4, format!("{as_of} - {microsecond}")),
        (200, as_of.to_owned()),
    ]
    .into_iter()
    .enumerate()
    {
        let category = if number % 2 == 0 { "variable" } else { "scheduled" };
        spend(c, id, amount, category, &at);
        post(c, number);
    }
}

#[test]
fn a_window_is_exact_to_the_microsecond() {
    let (_db, mut c) = books();
    let instants = [
        "at('200 hours')",
        "at('200 hours 17 minutes 3.000001')",
        "(at('200 hours') - interval '1 microsecond')",
        "(at('200 hours') + interval '1 microsecond')",
    ];
    let mut expected = 0;
    for (instant, as_of) in instants.iter().enumerate() {
        for (key, span) in WINDOWS {
            for posted in 0..3 {
                for owner in ["u", "org"] {
                    let id = format!("{owner}-{instant}-{key}-{posted}");
                    let below = format!("{id}-below");
                    enable(&mut c, &id, &format!(r#", "{key}_microdollars": 7"#));
                    enable(&mut c, &below, &format!(r#", "{key}_microdollars": 8"#));
                    for id in [&id, &below] {
                        spend_around(&mut c, id, span, as_of, |c, number| match posted {
                            0 => {}
                            1 if number != 2 => {}
                            _ => post_all(c),
                        });
                    }
                    assert_eq!(evaluate(&mut c, &below, as_of), (0, 0), "{id}");
                    assert_eq!(evaluate(&mut c, &id, as_of), (1, 0), "{id}");
                    expected += 1;
                }
            }
        }
    }
    let totals = "select distinct (snapshot->'total_microdollars')::text from cost_insight_events
                  where event_type = 'threshold_crossed'";
    assert_eq!(column::<String>(&mut c, totals), ["7"]);
    assert_eq!(fired(&mut c), expected);
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn many_owners_evaluated_together_are_as_exact_as_one() {
    let (_db, mut c) = books();
    for as_of in ["at('200 hours 17 minutes 3.000001')", "at('201 hours')"] {
        let before = fired(&mut c);
        for number in 0..40 {
            let (owner, more) = (["u", "org"][number % 2], number % 3 / 2);
            let id = format!("{owner}-{number}-{}", &as_of[4..7]);
            let (key, span) = WINDOWS[number % 3];
            enable(&mut c, &id, &format!(r#", "{key}_microdollars": {}"#, 7 + more));
            spend_around(&mut c, &id, span, as_of, |_, _| {});
        }
        post_and_make_due(&mut c);
        // A threshold of 8 belongs to those with the last of the windows.
        let done = summary(&mut c, &format!("evaluate_due_owners({as_of})"));
        assert_eq!((done.0, done.2, done.3, done.4, done.5), (40, 0, 0, 0, true));
        assert_eq!(done.1, 27);
        assert_eq!(fired(&mut c), before + 27);
        // Each has a charge after that instant, and so is not done with.
        assert_eq!(one::<i64>(&mut c, "select count(*) from evaluation_queue", &[]), 40);
        run_sql(&mut c, "delete from evaluation_queue");
    }
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn rows_of_an_attached_table_count_like_charges() {
    let (_db, mut c) = books();
    run_sql(&mut c, ledger_books::TABLE);
    let rows = |who: &str, team: &str, first: i64| {
        let at = |place: i64| match place {
            0 => format!("{AS_OF} - interval '7 days' - interval '1 microsecond'"),
            1 => format!("{AS_OF} - interval '7 days'"),
            2 => format!("{AS_OF} - interval '3 days'"),
            3 => format!("{AS_OF} - interval '1 microsecond'"),
            _ => AS_OF.to_owned(),
        };
        let row = |place: i64| {
            format!(
                "({}, {who}, {team}, {}, {}, 'opus')",
                first + place,
                10_i64.pow(place as u32),
                at(place)
            )
        };
        let rows: Vec<String> = (0..5).map(row).collect();
        format!("insert into public.llm values {}", rows.join(", "))
    };
    // Some before it is attached and counted back, some after.
    run_sql(&mut c, &rows("'u1'", "null", 0));
    run_sql(&mut c, &rows("'u1'", "'org1'", 10));
    assert_eq!(ledger_books::attach(&mut c, ", backfill => true"), 10);
    run_sql(&mut c, "update spend_sources set covered_from = at('-100 days')");
    run_sql(&mut c, &rows("'u2'", "null", 20));
    run_sql(&mut c, &rows("null", "'org2'", 30));
    let ids = ["u1", "org1", "u2", "org2"];
    for id in ids {
        enable(&mut c, id, r#", "threshold_7d_microdollars": 1111"#);
        assert_eq!(
            evaluate(&mut c, id, &format!("{AS_OF} - interval '1 microsecond'")),
            (0, 0),
            "{id}"
        );
    }
    run_sql(&mut c, "update public.llm set cost = cost + 1 where id in (1, 11, 21, 31)");
    post_and_make_due(&mut c);
    let due = format!("evaluate_due_owners({AS_OF})");
    assert_eq!(summary(&mut c, &due), (4, 4, 0, 0, 0, true));
    for id in ids {
        let event = newest(&mut c, id, "threshold_crossed");
        assert_eq!(of_snapshot(&mut c, event, "snapshot->'total_microdollars'"), "1111");
    }
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

/// Charges by which every kind of alert fires at `AS_OF`.
fn spend_a_lot(c: &mut Client, id: &str) {
    for (usd, category, ago) in [
        (7, "variable", "720 hours"),
        (5, "scheduled", "168 hours"),
        (3, "scheduled", "167 hours 59 minutes 59.999999 seconds"),
        (9, "variable", "100 hours"),
        (2, "variable", "24 hours"),
        (4, "variable", "7 hours 10 minutes"),
        (40, "variable", "29 minutes"),
    ] {
        spend(c, id, usd * USD, category, &format!("{AS_OF} - interval '{ago}'"));
    }
}

/// What an owner was told, without ids.
fn told(c: &mut Client, id: &str) -> Vec<String> {
    column(
        c,
        &format!(
            "select concat_ws(' ', event_type, alert_kind, occurred_at at time zone 'UTC',
                              replace(snapshot::text, '{id}', 'somebody'))
             from cost_insight_events where owner_id = '{id}' order by recorded_at, event_id"
        ),
    )
}

const ALL: &str =
    r#", "threshold_24h_usd": "46", "threshold_7d_usd": "63", "threshold_30d_usd": "70""#;

#[test]
fn hours_that_are_not_trusted_are_read_from_the_journals() {
    let (_db, mut c) = books();
    let ids = ["u-plain", "u-degraded", "u-wrong", "u-queued"];
    for id in ids {
        enable(&mut c, id, ALL);
        spend_a_lot(&mut c, id);
        if id == "u-wrong" {
            post_all(&mut c);
        }
    }
    for id in ["u-degraded", "u-wrong"] {
        degrade(&mut c, &format!("'user', '{id}'"), "-100 days", "240 hours");
    }
    run_sql(
        &mut c,
        "delete from spend_hourly_totals where owner_id = 'u-wrong' and hour_start < at('190 hours');
         update spend_hourly_totals set total_microdollars = 1 where owner_id = 'u-wrong';
         update spend_daily_totals set total_microdollars = 1 where owner_id = 'u-wrong'",
    );
    for id in ids {
        assert_eq!(evaluate(&mut c, id, AS_OF), (4, 0), "{id}");
        assert_eq!(told(&mut c, id), told(&mut c, "u-plain"), "{id}");
    }
    assert_eq!(told(&mut c, "u-plain").len(), 5);
    assert_told_right(&mut c);

    // The same of everybody at once, with an interval that is about everybody.
    for id in ids {
        change_as_of(&mut c, id, r#"{"spend_alerts_enabled": false}"#, AS_OF);
        change_as_of(&mut c, id, r#"{"threshold_24h_usd": "45"}"#, AS_OF);
    }
    degrade(&mut c, "null, null", "-100 days", "240 hours");
    run_sql(
        &mut c,
        "delete from evaluation_queue; update spend_alert_settings set spend_alerts_enabled = true",
    );
    let sweep = format!("run_spend_alert_sweep({AS_OF})");
    assert_eq!(summary(&mut c, &sweep), (4, 12, 0, 0, 0, true));
    for id in ids {
        assert_eq!(told(&mut c, id), told(&mut c, "u-plain"), "{id}");
    }
    assert_told_right(&mut c);
}

#[test]
fn the_sessions_time_zone_and_date_style_play_no_part() {
    let (db, mut c) = books();
    let sessions = [
        "-c timezone=UTC",
        "-c timezone=America/New_York -c datestyle=SQL,DMY",
        "-c timezone=Pacific/Auckland -c datestyle=German",
        "-c timezone=Asia/Kathmandu -c datestyle=Postgres,MDY -c intervalstyle=sql_standard",
    ];
    for (number, settings) in sessions.into_iter().enumerate() {
        let id = format!("u-{number}");
        let mut session =
            session_with(&db, &format!("-c exa_billing.late_usage_limit=200d {settings}"));
        enable(&mut session, &id, ALL);
        spend_a_lot(&mut session, &id);
        if number == 3 {
            post_and_make_due(&mut session);
            let due = format!("evaluate_due_owners({AS_OF})");
            assert_eq!(summary(&mut session, &due).1, 4, "{settings}");
        } else {
            assert_eq!(evaluate(&mut session, &id, AS_OF), (4, 0), "{settings}");
        }
        assert_eq!(told(&mut c, &id), told(&mut c, "u-0"), "{settings}");
    }
    let hour: String = one(
        &mut c,
        "select snapshot->>'hour_start' from cost_insight_events where alert_kind = 'anomaly' limit 1",
        &[],
    );
    assert!(hour.ends_with("T08:00:00Z"), "{hour}");
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}
