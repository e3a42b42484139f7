//! Random histories of many owners, evaluated in every way there is, beside a model that knows nothing
//! of rollups, queues or sets: a list of charges and the rules of alerts.

mod alerts_common;
#[path = "alerts_random/model.rs"]
mod model;
mod common;
mod evidence_common;
mod sessions;
mod usage_common;

use alerts_common::*;
use common::{one, run_sql};
use model::{Charge, HOUR, Model, Told, WINDOWS};
use postgres::Client;
use sessions::Dice;
use std::collections::BTreeSet;
use usage_common::column;

const OWNERS: usize = 24;
const STEPS: usize = 80;
/// Whose rollups are wrong and known to be.
const DEGRADED: usize = 3;
const KNOWN_FROM_HOUR: i64 = 55;
const MICROSECOND: &str = "interval '1 microsecond'";

fn id(owner: usize) -> String {
    format!("{}{owner}", if owner.is_multiple_of(3) { "org" } else { "u" })
}

fn at(microseconds: i64) -> String {
    format!("(at('0 hours') + {microseconds} * {MICROSECOND})")
}

/// Charges around `now`, most of them of the last hours, some late; multiples of 5 USD, so that sums
/// often reach what they must not pass, or a microdollar less.
fn charge(c: &mut Client, dice: &mut Dice, model: &mut Model, now: i64, count: i64) {
    let mut calls = Vec::new();
    for _ in 0..count {
        // Some are busy, so that some hours are usual to them.
        let owners = if dice.up_to(2) == 0 { 6 } else { OWNERS as i64 };
        let owner = usize::try_from(dice.up_to(owners)).unwrap();
        let back = match dice.up_to(10) {
            0 => dice.up_to(700 * HOUR),
            1 | 2 => dice.up_to(60 * HOUR),
            3 => dice.up_to(4) * HOUR + now.rem_euclid(HOUR),
            4 | 5 => 0,
            _ => dice.up_to(5 * HOUR),
        };
        let moment = now - back - dice.up_to(2);
        // Now and then much more than usual.
        let factor = if back == 0 && dice.up_to(4) == 0 { 25 } else { 1 };
        let amount = (1 + dice.up_to(3)) * factor * 5 * USD - dice.up_to(2);
        let is_variable = dice.up_to(5) > 0;
        let (id, moment_sql) = (id(owner), at(moment));
        let is_attached = is_variable && dice.up_to(4) == 0;
        if is_attached {
            let (who, team) = if kind(&id) == "user" { ("u", "null") } else { ("x", "o") };
            let who = if who == "u" { format!("'{id}'") } else { "'somebody'".to_owned() };
            let team = if team == "o" { format!("'{id}'") } else { "null".to_owned() };
            let number = model.charges.len();
            calls.push(format!(
                "insert into public.llm values ({number}, {who}, {team}, {amount}, {moment_sql})"
            ));
        } else {
            calls.push(format!(
                "select record_spend('{}', '{id}', {amount}, '{}', 'kiloclaw', 'p{}', created_at => {moment_sql})",
                kind(&id),
                if is_variable { "variable" } else { "scheduled" },
                dice.up_to(7),
            ));
        }
        model.charges.push(Charge { owner, is_variable, is_attached, amount, at: moment });
    }
    run_sql(c, &format!("begin; {}; commit", calls.join("; ")));
}

/// Takes some rows of the attached table back.
fn take_back(c: &mut Client, dice: &mut Dice, model: &mut Model) {
    for number in 0..model.charges.len() {
        if model.charges[number].is_attached
            && model.charges[number].amount > 0
            && dice.up_to(30) == 0
        {
            run_sql(c, &format!("delete from public.llm where n = {number}"));
            model.charges[number].amount = 0;
        }
    }
}

/// Posts some or all, and spoils what is not to be trusted.
fn post(c: &mut Client, dice: &mut Dice) {
    let count = [10, 40, 100_000][usize::try_from(dice.up_to(3)).unwrap()];
    run_sql(c, &format!("select post_spend({count})"));
    let degraded: Vec<String> = (0..DEGRADED).map(|owner| format!("'{}'", id(owner))).collect();
    for (table, start) in [
        ("spend_hourly_totals", "hour_start"),
        ("spend_daily_totals", "day_start"),
        ("spend_hourly_drivers", "hour_start"),
    ] {
        run_sql(
            c,
            &format!(
                "delete from {table} where {start} < at('{KNOWN_FROM_HOUR} hours') or owner_id in ({})",
                degraded.join(", ")
            ),
        );
    }
    make_due(c);
}

/// A random change of one owner's settings, which is evaluated at once where alerts are enabled then.
fn change_settings(c: &mut Client, dice: &mut Dice, model: &mut Model, now: i64) {
    let owner = usize::try_from(dice.up_to(OWNERS as i64)).unwrap();
    let settings = &mut model.owners[owner].settings;
    let changes = match dice.up_to(5) {
        0 => {
            settings.is_enabled = !settings.is_enabled;
            format!("{{\"spend_alerts_enabled\": {}}}", settings.is_enabled)
        }
        1 => {
            settings.wants_anomalies = !settings.wants_anomalies;
            format!("{{\"anomaly_alerts_enabled\": {}}}", settings.wants_anomalies)
        }
        _ => {
            let window = usize::try_from(dice.up_to(3)).unwrap();
            let usd = (1 + dice.up_to(60)) * 5;
            settings.thresholds[window] = (dice.up_to(6) > 0).then_some(usd * USD);
            let value = settings.thresholds[window].map_or(String::new(), |_| usd.to_string());
            format!("{{\"threshold_{}_usd\": \"{value}\"}}", WINDOWS[window].0)
        }
    };
    let expected = model.settings_changed(owner, now);
    let changed = change_as_of(c, &id(owner), &changes, &at(now));
    assert_eq!((changed.fired, changed.is_pending), (expected, false), "{changes} of {owner}");
}

/// Reviews one of the episodes, or something that is none any more.
fn acknowledge_some(c: &mut Client, dice: &mut Dice, model: &mut Model) {
    let sql = "select event_id, owner_id, alert_kind,
                      event_id in (select event_id from spend_alert_episodes where reviewed_at is null)
               from cost_insight_events where event_type in ('anomaly_alert', 'threshold_crossed')
               order by event_id desc limit 1 offset $1";
    let Some(row) = c.query_opt(sql, &[&dice.up_to(12)]).unwrap() else { return };
    let (event, owner, kind): (uuid::Uuid, String, String) = (row.get(0), row.get(1), row.get(2));
    let stands: bool = row.get(3);
    assert_eq!(acknowledge(c, event), stands);
    if stands && kind == "anomaly" {
        let owner = (0..OWNERS).find(|number| id(*number) == owner).unwrap();
        model.owners[owner].anomaly = None;
    }
}

/// Evaluates somebody or everybody; returns what the model expects to have been told.
fn evaluate_some(c: &mut Client, dice: &mut Dice, model: &mut Model, now: i64) -> Vec<Told> {
    let as_of = at(now);
    let (call, owners, looks_back) = match dice.up_to(4) {
        0 => {
            let owner = usize::try_from(dice.up_to(OWNERS as i64)).unwrap();
            let id = id(owner);
            (format!("evaluate_spend_alerts('{}', '{id}', {as_of})", kind(&id)), vec![owner], false)
        }
        1 | 2 => {
            let due: BTreeSet<String> =
                column(c, "select owner_id from evaluation_queue").into_iter().collect();
            let owners = (0..OWNERS).filter(|owner| due.contains(&id(*owner))).collect();
            (format!("evaluate_due_owners({as_of})"), owners, false)
        }
        _ => (format!("run_spend_alert_sweep({as_of})"), (0..OWNERS).collect(), true),
    };
    let told: Vec<Told> =
        owners.iter().flat_map(|owner| model.evaluate(*owner, now, looks_back)).collect();
    let recovered = told.iter().filter(|told| told.is_recovery()).count();
    let done = summary(c, &call);
    let expected = (told.len() - recovered, recovered);
    assert_eq!((done.0, done.3, done.4, done.5), (owners.len() as i64, 0, 0, true), "{call}");
    assert_eq!((done.1, done.2), (expected.0 as i64, expected.1 as i64), "{call}");
    told
}

/// What was told since, in the words of the model.
fn told_since(c: &mut Client, since: &str) -> Vec<String> {
    column(
        c,
        &format!(
            "select concat_ws(' ', owner_id, event_type, coalesce(snapshot->>'window',
                        extract(epoch from (snapshot->>'hour_start')::timestamptz - at('0 hours'))::bigint::text),
                        coalesce(snapshot->'total_microdollars', snapshot->'hour_variable_microdollars'),
                        snapshot->'threshold_microdollars', snapshot->'baseline_microdollars', snapshot->'history_hours')
             from cost_insight_events
             where recorded_at >= '{since}' and event_type in ('anomaly_alert', 'threshold_crossed', 'recovered')"
        ),
    )
}

fn standing(c: &mut Client) -> BTreeSet<String> {
    let sql = "select concat_ws(' ', owner_id, alert_kind, threshold_microdollars,
                                extract(epoch from hour_start - at('0 hours'))::bigint)
               from spend_alert_episodes";
    column(c, sql).into_iter().collect()
}

fn run(seed: u64) {
    let (_db, mut c) = evidence_common::books();
    run_sql(
        &mut c,
        r#"create table public.llm (n bigint primary key, who text, team text, cost bigint, at timestamptz);
           create index on public.llm (who, at); create index on public.llm (team, at);
           select attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway', '{"user_id": "who",
               "organization_id": "team", "amount": "cost", "created_at": "at"}', true)"#,
    );
    evidence_common::cover_from(&mut c, &format!("{KNOWN_FROM_HOUR} hours"));
    let mut dice = Dice(seed);
    let mut model = Model::new(OWNERS, KNOWN_FROM_HOUR * HOUR);
    for owner in 0..OWNERS {
        let thresholds = [0, 1, 2].map(|_| (1 + dice.up_to(60)) * 5);
        let [day, week, month] = thresholds;
        let more = format!(
            r#", "threshold_24h_usd": "{day}", "threshold_7d_usd": "{week}", "threshold_30d_usd": "{month}""#
        );
        enable(&mut c, &id(owner), &more);
        model.enable(owner, thresholds.map(|usd| usd * USD));
        if owner < DEGRADED {
            let owner = format!("'{}', '{}'", kind(&id(owner)), id(owner));
            evidence_common::degrade(&mut c, &owner, "-100 days", "300 hours");
        }
    }
    let mut now = 40 * HOUR + 123_456_789;
    for step in 0..STEPS {
        now += match dice.up_to(5) {
            0 => dice.up_to(12 * HOUR),
            1 => HOUR - now.rem_euclid(HOUR) + dice.up_to(3) - 1,
            2 => 20 * 60_000_000,
            _ => dice.up_to(3 * HOUR),
        };
        let count = 5 + dice.up_to(25);
        charge(&mut c, &mut dice, &mut model, now, count);
        take_back(&mut c, &mut dice, &mut model);
        if dice.up_to(4) > 0 {
            post(&mut c, &mut dice);
        }
        if dice.up_to(3) == 0 {
            change_settings(&mut c, &mut dice, &mut model, now);
            assert_eq!(standing(&mut c), model.standing(id), "step {step} of {seed}, settings");
        }
        acknowledge_some(&mut c, &mut dice, &mut model);
        let since: String = one(&mut c, "select clock_timestamp()::text", &[]);
        let told = evaluate_some(&mut c, &mut dice, &mut model, now);
        let mut expected: Vec<String> = told.iter().map(|told| told.line(id)).collect();
        expected.sort();
        let mut found = told_since(&mut c, &since);
        found.sort();
        assert_eq!(found, expected, "step {step} of {seed}");
        assert_eq!(standing(&mut c), model.standing(id), "step {step} of {seed}");
        assert_told_right_since(&mut c, &since);
    }
    // All of it happened often enough, and anomalies under every policy.
    let told = column::<i64>(
        &mut c,
        "select count(*) from cost_insight_events as e,
             lateral (select (snapshot->>'baseline_microdollars')::bigint, snapshot->>'mode') as p(baseline, mode)
         where event_type in ('anomaly_alert', 'threshold_crossed', 'recovered')
         group by event_type, mode, sign(baseline) order by 1",
    );
    assert!(told.len() == 5 && told[2] >= 8, "{told:?}");
}

#[test]
fn random_histories_are_told_of_as_the_rules_say() {
    run(20_261_122);
}

#[test]
fn other_random_histories_are_told_of_as_the_rules_say() {
    run(7_777_777);
}

#[test]
fn further_random_histories_are_told_of_as_the_rules_say() {
    run(31_415_926);
}
