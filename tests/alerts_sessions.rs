//! Alerts and many sessions at once: one event per crossing, no charge that waits for anybody.

mod alerts_common;
mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use alerts_common::*;
use common::{Database, error_of, one, run_sql};
use postgres::Client;
use sessions::{Dice, IMPATIENT, in_sessions, pid, post_all, verify, wait_for_lock_of};
use std::thread;
use usage_common::column;

/// The charging path never waits: a statement that did would fail at once.
const HASTY: &str =
    "-c search_path=exa_billing,public -c exa_billing.late_usage_limit=200d -c lock_timeout=1ms";

const OWNERS: [&str; 4] = ["u1", "u2", "org1", "org2"];

fn owners() -> (Database, Client) {
    let (db, mut c) = books();
    for id in OWNERS {
        enable(&mut c, id, r#", "threshold_24h_usd": "5", "threshold_7d_usd": "8""#);
    }
    (db, c)
}

fn charge_sql(id: &str, amount: i64) -> String {
    format!(
        "select exa_billing.record_spend('{}', '{id}', {amount}, 'scheduled', 'kiloclaw', 'p')",
        kind(id)
    )
}

/// One of the ways to evaluate; none may fail when nobody names an instant.
fn evaluate_somehow(client: &mut Client, way: i64, id: &str) {
    let call = match way {
        0 | 1 => format!("evaluate_spend_alerts('{}', '{id}')", kind(id)),
        2 => "evaluate_due_owners()".to_owned(),
        _ => "run_spend_alert_sweep(max_owners => 3)".to_owned(),
    };
    summary(client, &call);
}

#[test]
fn sixteen_evaluators_tell_of_a_crossing_once() {
    let (db, mut c) = owners();
    for id in OWNERS {
        run_sql(&mut c, &charge_sql(id, 30 * USD));
    }
    evidence_common::post_all(&mut c);
    make_due(&mut c);
    for round in 0..3 {
        let done = in_sessions(&db, 16, IMPATIENT, |session, client| {
            for step in 0..4 {
                let way = i64::try_from((session + step) % 4).unwrap();
                evaluate_somehow(client, way, OWNERS[(session / 4 + step) % 4]);
            }
        });
        assert_eq!(done.len(), 16);
        for id in OWNERS {
            // No anomaly: what is scheduled is none.
            let mut told = events(&mut c, id);
            told.sort();
            let crossings = ["threshold_crossed threshold_24h", "threshold_crossed threshold_7d"];
            assert_eq!(told[told.len() - 2..], crossings, "{round}");
            assert_eq!(told.len(), 3);
        }
    }
    let deliveries = "select count(*) from notification_deliveries group by event_id";
    assert!(column::<i64>(&mut c, deliveries).iter().all(|count| *count == 1));
    assert_told_right(&mut c);
    verify(&mut c);
}

#[test]
fn everything_at_once_keeps_every_rule() {
    let (db, mut c) = owners();
    in_sessions(&db, 16, IMPATIENT, |session, client| {
        let mut dice = Dice(session as u64 * 7 + 11);
        for _ in 0..30 {
            let id = OWNERS[usize::try_from(dice.up_to(4)).unwrap()];
            match (session % 4, dice.up_to(6)) {
                (0, _) => run_sql(client, &charge_sql(id, dice.up_to(3) * USD + 1)),
                (1, 0..3) => {
                    let usd = 1 + dice.up_to(20);
                    change(client, id, &format!("{{\"threshold_24h_usd\": \"{usd}\"}}"));
                }
                (1, _) => {
                    let enabled = dice.up_to(3) > 0;
                    change(client, id, &format!("{{\"spend_alerts_enabled\": {enabled}}}"));
                }
                (2, 0..2) => {
                    let sql = "select event_id from exa_billing.spend_alert_episodes order by event_id limit 1";
                    if let Some(event) = column(client, sql).into_iter().next() {
                        acknowledge(client, event);
                    }
                }
                (2, 2) => {
                    let _: i64 = one(client, "select exa_billing.post_spend(20)", &[]);
                    make_due(client);
                }
                (_, way) => evaluate_somehow(client, way % 4, id),
            }
        }
    });
    post_all(&mut c);
    verify(&mut c);

    // Replayed in the order in which they were written, under the lock of the owner: nothing is told
    // between a disabling and the next enabling, and of two crossings of a window one was recovered or
    // its threshold changed in between.
    for id in OWNERS {
        let rows = c
            .query(
                "select event_type, coalesce(alert_kind, ''), snapshot->'settings'->>'spend_alerts_enabled',
                        array(select jsonb_object_keys(snapshot->'changed')
                              where snapshot ? 'changed'), event_id, occurred_at
                 from cost_insight_events where owner_id = $1 order by recorded_at, event_id",
                &[&id],
            )
            .unwrap();
        let (mut is_enabled, mut crossed) = (false, Vec::<String>::new());
        let mut last = None;
        for row in rows {
            let (event, kind): (String, String) = (row.get(0), row.get(1));
            let at: chrono::DateTime<chrono::Utc> = row.get(5);
            match event.as_str() {
                "config_changed" | "disabled" => {
                    is_enabled = row.get::<_, Option<String>>(2).as_deref() == Some("true");
                    let changed: Vec<String> = row.get(3);
                    crossed.retain(|kind| {
                        is_enabled && !changed.contains(&format!("{kind}_microdollars"))
                    });
                }
                "threshold_crossed" => {
                    assert!(is_enabled, "{id} was told while disabled");
                    assert!(!crossed.contains(&kind), "{id} was told twice of {kind}");
                    crossed.push(kind);
                }
                "recovered" => crossed.retain(|one| *one != kind),
                _ => {}
            }
            if event != "alert_reviewed" {
                assert!(last.is_none_or(|last| last <= at), "{id}: {event} goes back in time");
                last = Some(at);
            }
        }
        crossed.sort();
        assert_eq!(episodes(&mut c, id), crossed, "{id}");
    }
    for _ in 0..2 {
        make_due(&mut c);
        let done = summary(&mut c, "evaluate_due_owners()");
        assert_eq!((done.3, done.4, done.5), (0, 0, true));
    }
    assert_eq!(queue(&mut c), [""; 0]);
    verify(&mut c);
}

#[test]
fn sets_leave_an_owner_whose_settings_are_being_changed_and_single_calls_wait() {
    let (db, mut c) = owners();
    for id in OWNERS {
        run_sql(&mut c, &charge_sql(id, 30 * USD));
    }
    evidence_common::post_all(&mut c);
    make_due(&mut c);
    let (mut open, mut single) = (db.client_with(IMPATIENT), db.client_with(IMPATIENT));
    run_sql(&mut open, "begin");
    change(&mut open, "u1", r#"{"spend_alerts_enabled": false}"#);
    run_sql(&mut c, "set lock_timeout = '1ms'");
    assert_eq!(summary(&mut c, "evaluate_due_owners()"), (3, 6, 0, 0, 1, false));
    assert_eq!(summary(&mut c, "run_spend_alert_sweep()"), (3, 0, 0, 0, 1, true));
    assert_eq!(queue(&mut c), ["u1 0 t"]);
    let waiting = pid(&mut single);
    thread::scope(|scope| {
        let told = scope.spawn(|| summary(&mut single, "evaluate_spend_alerts('user', 'u1')"));
        wait_for_lock_of(&mut c, waiting);
        run_sql(&mut open, "commit");
        assert_eq!(told.join().unwrap(), (1, 0, 0, 0, 0, true));
    });
    assert_eq!(events(&mut c, "u1"), ["config_changed", "disabled"]);
    assert_eq!(queue(&mut c), ["u1 0 f"], "without alerts it rests");
}

#[test]
fn a_single_call_that_waited_for_a_later_evaluation_is_content_with_it() {
    let (db, mut c) = owners();
    let (mut open, mut single) = (db.client_with(IMPATIENT), db.client_with(IMPATIENT));
    run_sql(&mut c, &charge_sql("u1", 30 * USD));
    run_sql(
        &mut open,
        "begin; select from exa_billing.spend_alert_states where owner_id = 'u1' for update",
    );
    let waiting = pid(&mut single);
    thread::scope(|scope| {
        let told = scope.spawn(|| summary(&mut single, "evaluate_spend_alerts('user', 'u1')"));
        wait_for_lock_of(&mut c, waiting);
        assert_eq!(
            summary(&mut open, "evaluate_spend_alerts('user', 'u1')"),
            (1, 2, 0, 0, 0, true)
        );
        run_sql(&mut open, "commit");
        assert_eq!(told.join().unwrap(), (0, 0, 0, 0, 1, false));
    });
    assert_eq!(events(&mut c, "u1").len(), 3);
    // Or was overtaken between its arguments and itself.
    run_sql(
        &mut c,
        "do $$
         declare overtaken timestamptz := clock_timestamp();
         begin
             perform exa_billing.evaluate_spend_alerts('user', 'u1');
             perform exa_billing.evaluate_spend_alerts('user', 'u1', overtaken);
         end $$",
    );
}

#[test]
fn the_first_evaluations_of_an_owner_at_once_are_one_after_the_other() {
    let (db, mut c) = books();
    for round in 0..3 {
        let id = format!("u{round}");
        run_sql(&mut c, &charge_sql(&id, USD));
        let evaluated: i64 = in_sessions(&db, 8, IMPATIENT, |session, client| {
            let call = match session % 2 {
                0 => format!("evaluate_spend_alerts('user', '{id}')"),
                _ => {
                    change(
                        client,
                        &id,
                        &format!("{{\"threshold_7d_microdollars\": {}}}", session + 1),
                    );
                    format!("evaluate_spend_alerts('user', '{id}')")
                }
            };
            summary(client, &call).0
        })
        .into_iter()
        .sum();
        assert!(evaluated >= 1);
        let states = "select count(*) from exa_billing.spend_alert_states where owner_id = $1";
        assert_eq!(one::<i64>(&mut c, states, &[&id]), 1);
    }
    verify(&mut c);
}

/// A charge of each kind, and its posting where that must not wait either.
fn charge_hastily(db: &Database, id: &str, posts: bool) {
    let mut hasty = db.client_with(HASTY);
    for sql in [
        charge_sql(id, USD),
        format!("select record_exa_usage('{id}', '/search', 5000)"),
        format!(
            "select record_exa_usage_batch('[{{\"user_id\": \"{id}\", \"path\": \"/answer\", \"cost_microdollars\": 5}}]')"
        ),
    ] {
        run_sql(&mut hasty, &sql);
    }
    if posts {
        while one::<i64>(&mut hasty, "select post_spend()", &[]) > 0 {}
    }
}

const TABLES: &str = "exa_billing.spend_alert_settings, exa_billing.spend_alert_states,
    exa_billing.spend_alert_episodes, exa_billing.cost_insight_events, exa_billing.notification_deliveries,
    exa_billing.cost_suggestions, exa_billing.suggestion_rules";

#[test]
fn a_charge_waits_for_no_table_of_alerts() {
    let (db, mut c) = owners();
    let mut open = db.client();
    for (tables, posts) in [(TABLES, true), ("exa_billing.evaluation_queue", false)] {
        run_sql(&mut open, &format!("begin; lock {tables} in access exclusive mode"));
        charge_hastily(&db, "u1", posts);
        run_sql(&mut open, "rollback");
    }
    evidence_common::post_all(&mut c);
    assert_eq!(queue(&mut c).len(), 1);
    make_due(&mut c);
    assert_eq!(summary(&mut c, "evaluate_due_owners()").0, 1);
    verify(&mut c);
}

#[test]
fn a_charge_waits_for_no_evaluation_and_no_change_of_settings() {
    let (db, mut c) = owners();
    let mut open = db.client();
    run_sql(&mut c, &charge_sql("u1", 30 * USD));
    evidence_common::post_all(&mut c);
    make_due(&mut c);
    for call in [
        "evaluate_due_owners()",
        "evaluate_spend_alerts('user', 'u1')",
        "run_spend_alert_sweep()",
        r#"update_spend_alert_settings('user', 'u1', '{"threshold_24h_usd": "3"}', 'u1')"#,
    ] {
        run_sql(&mut open, &format!("begin; select exa_billing.{call}"));
        charge_hastily(&db, "u1", true);
        run_sql(&mut open, "commit");
    }
    // The minimum balance is in the account: posting leaves the owner out meanwhile, and nobody else.
    let minimum = r#"{"minimum_balance_usd": "3"}"#;
    run_sql(&mut open, "begin");
    change(&mut open, "u1", minimum);
    charge_hastily(&db, "u1", true);
    charge_hastily(&db, "u2", true);
    let waiting = "select distinct owner_id from exa_billing.unposted_spend";
    assert_eq!(column::<String>(&mut c, waiting), ["u1"]);
    run_sql(&mut open, "commit");
    evidence_common::post_all(&mut c);
    assert_eq!(events(&mut c, "u1").last().map(String::as_str), Some("low_balance"));
    verify(&mut c);
}

#[test]
fn a_broken_row_of_settings_stops_neither_charges_nor_other_owners() {
    let (db, mut c) = owners();
    for id in OWNERS {
        run_sql(&mut c, &charge_sql(id, 30 * USD));
    }
    evidence_common::post_all(&mut c);
    make_due(&mut c);
    run_sql(
        &mut c,
        "alter table spend_alert_episodes drop constraint spend_alert_episodes_kind_check;
         insert into spend_alert_episodes
             (owner_kind, owner_id, alert_kind, event_id, threshold_microdollars, started_at, snapshot)
         values ('user', 'u2', 'threshold_9y', gen_random_uuid(), 5, now(), '{}')",
    );
    charge_hastily(&db, "u2", true);
    make_due(&mut c);
    assert_eq!(summary(&mut c, "evaluate_due_owners()"), (3, 6, 0, 1, 0, true));
    run_sql(&mut c, "delete from spend_alert_episodes where alert_kind = 'threshold_9y'");
    make_due(&mut c);
    assert_eq!(summary(&mut c, "evaluate_due_owners()").1, 2);
    verify(&mut c);
}

#[test]
fn a_charge_needs_no_table_of_alerts_and_posting_makes_up_for_it() {
    let (db, mut c) = owners();
    for table in ["evaluation_queue", "spend_alert_states", "cost_insight_events"] {
        run_sql(&mut c, &format!("alter table {table} rename to {table}_away"));
        // Sessions that charged before, and new ones.
        run_sql(&mut c, &charge_sql("u1", USD));
        charge_hastily(&db, "u1", false);
        let before: i64 = one(&mut c, "select count(*) from unposted_spend", &[]);
        let posted = c.execute("select post_spend()", &[]);
        let after: i64 = one(&mut c, "select count(*) from unposted_spend", &[]);
        assert_eq!(after, if posted.is_ok() { 0 } else { before }, "{table}");
        let blocked = "select count(*) from unposted_spend where blocked_reason is not null";
        assert_eq!(one::<i64>(&mut c, blocked, &[]), 0);
        run_sql(&mut c, &format!("alter table {table}_away rename to {table}"));
        evidence_common::post_all(&mut c);
        assert_eq!(queue(&mut c).len(), 1, "{table}");
        verify(&mut c);
    }
    make_due(&mut c);
    assert_eq!(summary(&mut c, "evaluate_due_owners()").0, 1);
}

#[test]
fn nobody_is_told_on_a_snapshot_from_before_a_disabling() {
    for isolation in ["repeatable read", "serializable"] {
        for call in [
            "evaluate_spend_alerts('user', 'u1')",
            "evaluate_due_owners()",
            "run_spend_alert_sweep()",
        ] {
            let (db, mut c) = owners();
            run_sql(&mut c, &charge_sql("u1", 30 * USD));
            evidence_common::post_all(&mut c);
            make_due(&mut c);
            let mut old = db.client_with(IMPATIENT);
            run_sql(&mut old, &format!("begin isolation level {isolation}"));
            run_sql(&mut old, "select from exa_billing.spend_alert_settings");
            change(&mut c, "u1", r#"{"spend_alerts_enabled": false}"#);
            let error = error_of(&mut old, &format!("select exa_billing.{call}"));
            assert_eq!(error.code, "40001", "{isolation}, {call}: {}", error.message);
            run_sql(&mut old, "rollback");
            assert_eq!(events(&mut c, "u1"), ["config_changed", "disabled"]);
            assert_eq!(queue(&mut c), ["u1 0 t"]);
            assert_eq!(summary(&mut c, "evaluate_due_owners()"), (1, 0, 0, 0, 0, true));
        }
    }
}
