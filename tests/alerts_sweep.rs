//! The sweep: everybody once an hour, in steps that can be stopped anywhere.

mod alerts_common;
mod common;
mod evidence_common;
mod usage_common;

use alerts_common::*;
use common::{one, run_sql};
use evidence_common::post_all;
use postgres::Client;
use usage_common::{assert_books_hold, column};

fn progress(c: &mut Client) -> String {
    let sql =
        "select concat_ws(' ', p.after_owner_kind, p.after_owner_id, v.done, v.changed, v.failed,
                                v.finished_at is not null)
               from progress as v join procedure_progress as p using (procedure_name)
               where v.procedure_name = 'run_spend_alert_sweep'";
    one(c, sql, &[])
}

fn ids() -> Vec<String> {
    (0..10).map(|number| format!("{}{number}", if number < 4 { "org" } else { "u" })).collect()
}

#[test]
fn a_sweep_goes_on_where_it_stopped() {
    let (db, mut c) = books();
    for id in ids() {
        enable(&mut c, &id, r#", "threshold_24h_usd": "5""#);
        spend_hours(&mut c, &id, &[(200, 5)]);
    }
    let sweep = "run_spend_alert_sweep(at('201 hours'), 3)";
    for (done, position) in [
        ((3, 3, 0, 0, 0, false), "organization org2 3 3 0 f"),
        ((3, 3, 0, 0, 0, false), "user u5 6 6 0 f"),
        ((3, 3, 0, 0, 0, false), "user u8 9 9 0 f"),
        ((1, 1, 0, 0, 0, true), "user u9 10 10 0 t"),
        // The next one begins anew.
        ((3, 0, 0, 0, 0, false), "organization org2 3 0 0 f"),
    ] {
        // Each time by somebody else.
        let mut session = evidence_common::session(&db);
        assert_eq!(summary(&mut session, sweep), done);
        assert_eq!(progress(&mut c), position);
    }
    // One that is taken back has not happened.
    run_sql(&mut c, "begin");
    assert_eq!(summary(&mut c, sweep), (3, 0, 0, 0, 0, false));
    run_sql(&mut c, "rollback");
    assert_eq!(progress(&mut c), "organization org2 3 0 0 f");
    // An owner that comes meanwhile, before the position, has to wait for the next one.
    enable(&mut c, "org", "");
    enable(&mut c, "u55", "");
    assert_eq!(summary(&mut c, "run_spend_alert_sweep(at('201 hours'))"), (8, 0, 0, 0, 0, true));
    assert_eq!(summary(&mut c, "run_spend_alert_sweep(at('201 hours'))"), (12, 0, 0, 0, 0, true));
    assert_told_right(&mut c);
    assert_books_hold(&mut c);
}

#[test]
fn steps_that_come_out_even_end_with_an_empty_one() {
    let (_db, mut c) = books();
    for id in ["a", "b"] {
        enable(&mut c, id, "");
    }
    let sweep = "run_spend_alert_sweep(max_owners => 2)";
    assert_eq!(summary(&mut c, sweep), (2, 0, 0, 0, 0, false));
    assert_eq!(summary(&mut c, sweep), (0, 0, 0, 0, 0, true));
    assert_eq!(progress(&mut c), "user b 2 0 0 t");
    assert_eq!(summary(&mut c, sweep), (2, 0, 0, 0, 0, false));
}

#[test]
fn there_is_one_sweep_at_a_time() {
    let (db, mut c) = books();
    let mut open = evidence_common::session(&db);
    for id in ids() {
        enable(&mut c, &id, "");
    }
    run_sql(&mut open, "begin");
    assert_eq!(
        summary(&mut open, "run_spend_alert_sweep(max_owners => 4)"),
        (4, 0, 0, 0, 0, false)
    );
    let sweep = "run_spend_alert_sweep()";
    assert_eq!(summary(&mut c, sweep), (0, 0, 0, 0, 0, false));
    run_sql(&mut open, "commit");
    assert_eq!(summary(&mut c, sweep), (6, 0, 0, 0, 0, true));
}

#[test]
fn who_has_settings_or_has_spent_lately_is_swept() {
    let (_db, mut c) = books();
    change(&mut c, "disabled", r#"{"threshold_24h_usd": "5"}"#);
    enable(&mut c, "enabled", "");
    spend(&mut c, "posted", 1, "scheduled", "now() - interval '6 days'");
    spend(&mut c, "long-ago", 1, "variable", "now() - interval '9 days'");
    spend(&mut c, "org-posted", 1, "variable", "now()");
    post_all(&mut c);
    run_sql(&mut c, "select grant_credit('user', 'rich', 5)");
    let expected = ["org-posted", "disabled", "enabled", "posted"];
    assert_eq!(summary(&mut c, "run_spend_alert_sweep()"), (4, 0, 0, 0, 0, true));
    let swept = "select owner_id from spend_alert_states where last_evaluated_at is not null
                     and (owner_kind, owner_id) <> ('user', 'long-ago') order by owner_kind, owner_id";
    assert_eq!(column::<String>(&mut c, swept), expected);
    let unswept = "select count(*) from spend_alert_states where owner_id in ('long-ago', 'rich')";
    assert_eq!(one::<i64>(&mut c, unswept, &[]), 0);
    // What is not posted yet counts too, once the owner is known.
    spend(&mut c, "long-ago", 1, "variable", "now()");
    assert_eq!(summary(&mut c, "run_spend_alert_sweep()"), (5, 0, 0, 0, 0, true));
}

#[test]
fn a_sweep_finds_what_time_alone_has_changed() {
    let (_db, mut c) = books();
    for id in ids() {
        enable(&mut c, &id, r#", "threshold_24h_usd": "5""#);
        spend_hours(&mut c, &id, &[(170, 5)]);
    }
    assert_eq!(summary(&mut c, "run_spend_alert_sweep(at('171 hours'))"), (10, 10, 0, 0, 0, true));
    assert_eq!(summary(&mut c, "run_spend_alert_sweep(at('194 hours'))"), (10, 0, 0, 0, 0, true));
    assert_eq!(summary(&mut c, "run_spend_alert_sweep(at('195 hours'))"), (10, 0, 10, 0, 0, true));
}

#[test]
fn owners_that_fail_or_are_held_do_not_stop_a_sweep() {
    let (db, mut c) = books();
    let mut open = evidence_common::session(&db);
    for id in ids() {
        enable(&mut c, &id, r#", "threshold_24h_usd": "5""#);
        spend_hours(&mut c, &id, &[(200, 5)]);
    }
    refuse_events(&mut c, "threshold_crossed", "%5");
    run_sql(&mut open, "begin");
    change(&mut open, "u7", r#"{"threshold_7d_usd": "5"}"#);
    assert_eq!(summary(&mut c, "run_spend_alert_sweep(at('201 hours'))"), (8, 8, 0, 1, 1, true));
    assert_eq!(progress(&mut c), "user u9 8 8 1 t");
    run_sql(&mut open, "rollback");
    assert_eq!(queue(&mut c), ["u5 1 f"]);
    allow_events(&mut c);
    assert_eq!(summary(&mut c, "run_spend_alert_sweep(at('201 hours'))"), (10, 2, 0, 0, 0, true));
    // It is evaluated, but the queue does not know that of a row that is not due.
    assert_eq!(queue(&mut c), ["u5 1 f"]);
    assert_told_right(&mut c);
}
