//! Who is evaluated when: the queue that posting feeds, owners whose evaluation fails, and the sweep.

mod alerts_common;
mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use alerts_common::*;
use common::{Database, one, run_sql, wait_until};
use evidence_common::post_all;
use postgres::Client;
use usage_common::{assert_books_hold, column, state};

const DUE: &str = "evaluate_due_owners()";

/// Owners with a threshold of 5 USD each.
fn owners(ids: &[&str]) -> (Database, Client) {
    let (db, mut c) = books();
    for id in ids {
        enable(&mut c, id, r#", "threshold_24h_usd": "5""#);
    }
    (db, c)
}

/// A charge of now, posted.
fn charge(c: &mut Client, id: &str, usd: i64) {
    spend(c, id, usd * USD, "scheduled", "clock_timestamp() - interval '1 second'");
    post_all(c);
}

/// When each row of the queue is due.
fn due_at(c: &mut Client) -> Vec<String> {
    column(c, "select owner_id || ' ' || due_at from evaluation_queue order by owner_id, due_at")
}

/// Which tables are not as they were.
fn written(c: &mut Client, before: &usage_common::State) -> Vec<String> {
    let after = state(c);
    before.keys().filter(|name| before[*name] != after[*name]).cloned().collect()
}

#[test]
fn a_charge_is_due_some_seconds_after_it_was_posted() {
    let (_db, mut c) = owners(&["u", "org"]);
    assert_eq!(queue(&mut c), [""; 0]);
    spend(&mut c, "u", 5 * USD, "variable", "now()");
    assert_eq!(queue(&mut c), [""; 0], "a charge itself writes nothing");
    run_sql(&mut c, "create table public.before as select clock_timestamp() as at");
    charge(&mut c, "org", 5);
    assert_eq!(queue(&mut c), ["org 0 f", "u 0 f"]);
    let delay = "select bool_and(due_at between at + interval '10 s' and clock_timestamp() + interval '10 s')
                 from evaluation_queue, public.before";
    assert!(one::<bool>(&mut c, delay, &[]));
    assert_eq!(summary(&mut c, DUE), (0, 0, 0, 0, 0, true));
    make_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (2, 2, 0, 0, 0, true));
    assert_eq!(queue(&mut c), [""; 0]);
    assert_eq!(summary(&mut c, DUE), (0, 0, 0, 0, 0, true));
    assert_eq!(events(&mut c, "u"), ["config_changed", "threshold_crossed threshold_24h"]);
    assert_books_hold(&mut c);
}

#[test]
fn an_owner_without_settings_is_queued_like_any_other() {
    let (_db, mut c) = books();
    charge(&mut c, "u", 500);
    make_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (1, 0, 0, 0, 0, true));
    assert_eq!(events(&mut c, "u"), [""; 0]);
    let evaluated = "select last_evaluated_at is not null from spend_alert_states";
    assert!(one::<bool>(&mut c, evaluated, &[]));
}

#[test]
fn a_busy_owner_stays_due_since_its_first_charge() {
    let (_db, mut c) = owners(&["u"]);
    charge(&mut c, "u", 1);
    let first = due_at(&mut c);
    for _ in 0..5 {
        charge(&mut c, "u", 1);
        assert_eq!(due_at(&mut c), first);
    }
    // Nor does it get a second row while nobody has taken the first upon himself.
    run_sql(&mut c, "update evaluation_queue set due_at = clock_timestamp()");
    let first = due_at(&mut c);
    for _ in 0..3 {
        charge(&mut c, "u", 1);
        assert_eq!(due_at(&mut c), first);
    }
    assert_eq!(summary(&mut c, DUE), (1, 1, 0, 0, 0, true));
    assert_eq!(queue(&mut c), [""; 0]);
    assert_books_hold(&mut c);
}

#[test]
fn those_that_wait_longest_come_first() {
    let (_db, mut c) = owners(&["a", "b", "c", "d"]);
    for (id, hours) in [("a", 2), ("b", 4), ("c", 1), ("d", 3)] {
        charge(&mut c, id, 5);
        let sql = format!(
            "update evaluation_queue set due_at = now() - interval '{hours} hours' where owner_id = '{id}'"
        );
        run_sql(&mut c, &sql);
    }
    let told = "select string_agg(owner_id, ' ' order by event_id) from cost_insight_events
                where event_type = 'threshold_crossed'";
    for (complete, expected) in [(false, "b"), (false, "b d"), (false, "b d a"), (false, "b d a c")]
    {
        let done = summary(&mut c, "evaluate_due_owners(max_owners => 1)");
        assert_eq!(done, (1, 1, 0, 0, 0, complete));
        assert_eq!(one::<String>(&mut c, told, &[]), expected);
    }
    assert_eq!(summary(&mut c, "evaluate_due_owners(max_owners => 1)"), (0, 0, 0, 0, 0, true));
}

#[test]
fn an_earlier_instant_takes_only_what_was_due_then() {
    let (_db, mut c) = owners(&["a", "b"]);
    for (id, hour) in [("a", 190), ("b", 195)] {
        charge(&mut c, id, 5);
        let sql = format!(
            "update evaluation_queue set due_at = at('{hour} hours') where owner_id = '{id}'"
        );
        run_sql(&mut c, &sql);
    }
    let due = "evaluate_due_owners(at('194 hours'))";
    assert_eq!(summary(&mut c, due), (1, 0, 0, 0, 0, true));
    // Its charge, made only now, is not among what was evaluated.
    assert_eq!(queue(&mut c), ["a 0 f", "b 0 t"]);
    assert_eq!(summary(&mut c, "evaluate_due_owners(at('195 hours'))"), (1, 0, 0, 0, 0, true));
}

// What an evaluation has not seen must not be taken for evaluated.
#[test]
fn an_owner_charged_beside_an_evaluation_stays_due() {
    let (db, mut c) = owners(&["u"]);
    let mut open = db.client();
    charge(&mut c, "u", 1);
    make_due(&mut c);
    run_sql(&mut open, "begin");
    assert_eq!(summary(&mut open, DUE), (1, 0, 0, 0, 0, true));
    charge(&mut c, "u", 4);
    run_sql(&mut open, "commit");
    assert_eq!(queue(&mut c), ["u 0 f"]);
    make_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (1, 1, 0, 0, 0, true));
    assert_eq!(queue(&mut c), [""; 0]);
}

/// Lets the only row of the queue be due in a moment.
fn due_soon(c: &mut Client) {
    run_sql(c, "update evaluation_queue set due_at = clock_timestamp() + interval '2 seconds'");
}

fn wait_until_due(c: &mut Client) {
    wait_until("the row is due", || {
        one(c, "select min(due_at) < clock_timestamp() from exa_billing.evaluation_queue", &[])
    });
}

#[test]
fn an_owner_charged_after_an_old_snapshot_stays_due() {
    for isolation in ["repeatable read", "serializable"] {
        let (db, mut c) = owners(&["u"]);
        let mut old = db.client();
        charge(&mut c, "u", 1);
        due_soon(&mut c);
        run_sql(&mut old, &format!("begin isolation level {isolation}"));
        run_sql(&mut old, "select from exa_billing.accounts");
        // The row that waits is enough for this charge too, as long as nobody takes it unseen.
        charge(&mut c, "u", 4);
        wait_until_due(&mut c);
        assert_eq!(summary(&mut old, DUE).1, 0);
        run_sql(&mut old, "commit");
        assert_eq!(queue(&mut c), ["u 0 t"], "{isolation}");
        assert_eq!(summary(&mut c, DUE), (1, 1, 0, 0, 0, true));
    }
}

#[test]
fn an_owner_charged_in_a_transaction_that_posts_and_lasts_stays_due() {
    let (db, mut c) = owners(&["u"]);
    let mut open = db.client();
    charge(&mut c, "u", 1);
    due_soon(&mut c);
    run_sql(&mut open, "begin; savepoint s");
    spend(&mut open, "u", 4 * USD, "scheduled", "now()");
    run_sql(&mut open, "release s; select exa_billing.post_spend()");
    wait_until_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (1, 0, 0, 0, 0, true));
    run_sql(&mut open, "commit");
    assert_eq!(queue(&mut c).len(), 1);
    make_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (1, 1, 0, 0, 0, true));
    assert_books_hold(&mut c);
}

#[test]
fn an_owner_whose_evaluation_fails_delays_nobody_and_is_tried_again() {
    let ids = ["a", "b", "c", "d", "e", "f", "g"];
    let (_db, mut c) = owners(&ids);
    refuse_events(&mut c, "threshold_crossed", "d");
    for id in ids {
        charge(&mut c, id, 5);
    }
    make_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (6, 6, 0, 1, 0, true));
    assert_eq!(queue(&mut c), ["d 1 f"]);
    let failures = |c: &mut Client| -> (i32, i64, String) {
        let sql = "select failure_count, round(extract(epoch from due_at - clock_timestamp()) / 30)::bigint,
                          last_error from evaluation_queue";
        let row = c.query_one(sql, &[]).unwrap();
        (row.get(0), row.get(1), row.get(2))
    };
    // In half minutes: the pauses grow.
    for (failure, pause) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 16)] {
        let (count, waits, error) = failures(&mut c);
        assert_eq!((count, waits), (failure, pause));
        assert!(error.contains("planted"), "{error}");
        // Charges while it waits do not bring it forward, and others go on being evaluated.
        charge(&mut c, "d", 1);
        assert_eq!(queue(&mut c), [format!("d {failure} f")]);
        charge(&mut c, "a", 1);
        make_due(&mut c);
        assert_eq!(summary(&mut c, DUE), (1, 0, 0, 1, 0, true));
    }
    assert_eq!(events(&mut c, "d"), ["config_changed"]);
    let untouched =
        "select last_evaluated_at = at('-100 days') from spend_alert_states where owner_id = 'd'";
    assert!(one::<bool>(&mut c, untouched, &[]));

    // The others: a sweep and a call of its own report it too.
    let sweep = "run_spend_alert_sweep()";
    assert_eq!(summary(&mut c, sweep), (6, 0, 0, 1, 0, true));
    let own = "evaluate_spend_alerts('user', 'd')";
    assert_eq!(summary(&mut c, own), (0, 0, 0, 1, 0, false));
    assert_eq!(queue(&mut c).len(), 1);

    allow_events(&mut c);
    make_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (1, 1, 0, 0, 0, true));
    assert_eq!(queue(&mut c), [""; 0]);
    assert_eq!(events(&mut c, "d"), ["config_changed", "threshold_crossed threshold_24h"]);
    // A later failure begins from the shortest pause.
    refuse_events(&mut c, "threshold_crossed", "d");
    assert!(change(&mut c, "d", r#"{"threshold_24h_usd": "6"}"#).is_pending);
    assert_eq!(failures(&mut c).0, 1);
    allow_events(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn a_sum_that_no_number_holds_fails_for_its_owner_alone() {
    let (_db, mut c) = owners(&["a", "b", "c"]);
    for id in ["a", "b", "c"] {
        spend(&mut c, id, 5 * USD, "scheduled", "clock_timestamp() - interval '2 hours'");
        spend(&mut c, id, 5 * USD, "scheduled", "clock_timestamp() - interval '3 hours'");
    }
    post_and_make_due(&mut c);
    run_sql(&mut c, "create table public.right_days as table spend_daily_totals");
    for table in ["spend_hourly_totals", "spend_daily_totals"] {
        let spoil = "set total_microdollars = 9223372036854775807 where owner_id = 'b'";
        run_sql(&mut c, &format!("update {table} {spoil}"));
    }
    assert_eq!(summary(&mut c, DUE), (2, 2, 0, 1, 0, true));
    assert_eq!(queue(&mut c), ["b 1 f"]);
    let error: String = one(&mut c, "select last_error from evaluation_queue", &[]);
    assert!(error.contains("out of range"), "{error}");
    run_sql(
        &mut c,
        "update spend_hourly_totals set total_microdollars = 5000000 where owner_id = 'b';
         delete from spend_daily_totals; insert into spend_daily_totals table public.right_days",
    );
    make_due(&mut c);
    assert_eq!(summary(&mut c, DUE), (1, 1, 0, 0, 0, true));
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn an_owner_that_somebody_holds_delays_nobody() {
    let (db, mut c) = owners(&["a", "b"]);
    let mut open = db.client();
    charge(&mut c, "a", 5);
    make_due(&mut c);
    charge(&mut c, "b", 5);
    run_sql(&mut c, "update evaluation_queue set due_at = at('200 hours') where owner_id = 'b'");
    run_sql(&mut open, "begin");
    change(&mut open, "a", r#"{"cost_suggestions_enabled": false}"#);
    let one_only = "evaluate_due_owners(max_owners => 1)";
    assert_eq!(summary(&mut c, one_only), (1, 1, 0, 0, 1, false));
    assert_eq!(queue(&mut c), ["a 0 t"]);
    assert_eq!(summary(&mut c, one_only), (0, 0, 0, 0, 1, false));
    run_sql(&mut open, "rollback");
    assert_eq!(summary(&mut c, one_only), (1, 1, 0, 0, 0, false));
}

#[test]
fn evaluating_again_changes_nothing() {
    let ids = ["a", "b", "c", "org1", "org2"];
    let (_db, mut c) = owners(&ids);
    for id in ids {
        for (usd, hour) in [(3, 170), (3, 195), (30, 199), (12, 200)] {
            spend_hours(&mut c, id, &[(hour, usd)]);
        }
    }
    for as_of in ["at('199 hours 30 minutes')", "at('200 hours 30 minutes')", "at('230 hours')"] {
        let sweep = format!("run_spend_alert_sweep({as_of})");
        let done = summary(&mut c, &sweep);
        assert!(done.0 == 5 && done.1 + done.2 > 0, "{as_of}: {done:?}");
        let before = state(&mut c);
        assert_eq!(summary(&mut c, &sweep), (5, 0, 0, 0, 0, true));
        assert_eq!(written(&mut c, &before), ["procedure_progress"]);
        post_and_make_due(&mut c);
        summary(&mut c, &format!("evaluate_due_owners({as_of})"));
        let before = state(&mut c);
        for id in ids {
            assert_eq!(evaluate(&mut c, id, as_of), (0, 0));
        }
        assert_eq!(summary(&mut c, &format!("evaluate_due_owners({as_of})")).0, 0);
        assert_eq!(written(&mut c, &before), [""; 0]);
    }
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}
