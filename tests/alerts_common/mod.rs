//! What the tests of alerts share: settings, evaluations, and what they left behind as short texts.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{Database, one, run_sql};
use crate::evidence_common;
use crate::usage_common::column;
use postgres::{Client, GenericClient};
use uuid::Uuid;

pub const USD: i64 = 1_000_000;

/// Books that reach back, with the times of `evidence_common` in them.
pub fn books() -> (Database, Client) {
    evidence_common::books()
}

/// What a change of settings has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub event: Option<Uuid>,
    pub fired: i64,
    pub is_pending: bool,
}

fn change_sql(id: &str, changes: &str, as_of: &str) -> String {
    let kind = kind(id);
    format!(
        "select event_id, fired, evaluation_pending
         from exa_billing.update_spend_alert_settings('{kind}', '{id}', '{changes}', 'actor', {as_of})"
    )
}

/// Organizations are called `org…`, everybody else is a user.
pub fn kind(id: &str) -> &'static str {
    if id.starts_with("org") { "organization" } else { "user" }
}

/// Changes settings as of an instant, which is SQL.
#[track_caller]
pub fn change_as_of(c: &mut impl GenericClient, id: &str, changes: &str, as_of: &str) -> Changed {
    let sql = change_sql(id, changes, as_of);
    match c.query_one(&sql, &[]) {
        Ok(row) => Changed { event: row.get(0), fired: row.get(1), is_pending: row.get(2) },
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

#[track_caller]
pub fn change(c: &mut impl GenericClient, id: &str, changes: &str) -> Changed {
    change_as_of(c, id, changes, "clock_timestamp()")
}

/// Enables alerts long before anything was charged, so that evaluations of any later instant follow.
#[track_caller]
pub fn enable(c: &mut impl GenericClient, id: &str, more: &str) {
    let changes = format!("{{\"spend_alerts_enabled\": true{more}}}");
    let changed = change_as_of(c, id, &changes, "at('-100 days')");
    assert_eq!((changed.fired, changed.is_pending), (0, false));
}

/// The settings as one line: switches, thresholds of 24 hours, 7 and 30 days, minimum balance.
#[track_caller]
pub fn settings(c: &mut impl GenericClient, id: &str) -> String {
    let sql = "select concat_ws(' ', spend_alerts_enabled, anomaly_alerts_enabled, cost_suggestions_enabled,
                   coalesce(threshold_24h_microdollars::text, '-'), coalesce(threshold_7d_microdollars::text, '-'),
                   coalesce(threshold_30d_microdollars::text, '-'), coalesce(minimum_balance_microdollars::text, '-'))
               from exa_billing.spend_alert_settings($1, $2)";
    one(c, sql, &[&kind(id), &id])
}

/// A charge of whoever is named.
#[track_caller]
pub fn spend(c: &mut impl GenericClient, id: &str, amount: i64, category: &str, at: &str) {
    let kind = kind(id);
    run_sql(
        c,
        &format!(
            "select exa_billing.record_spend('{kind}', '{id}', {amount}, '{category}', 'kiloclaw', 'p',
                                             created_at => {at})"
        ),
    );
}

/// Variable charges of so many USD, each some hours after the midnight of the books.
#[track_caller]
pub fn spend_hours(c: &mut impl GenericClient, id: &str, hours: &[(i64, i64)]) {
    for (hour, usd) in hours {
        spend(c, id, usd * USD, "variable", &format!("at('{hour} hours')"));
    }
}

/// A row of `evaluation_summary`: evaluated, fired, recovered, failed, skipped, complete.
pub type Summary = (i64, i64, i64, i64, i64, bool);

#[track_caller]
pub fn summary(c: &mut impl GenericClient, call: &str) -> Summary {
    let sql = format!("select * from exa_billing.{call}");
    match c.query_one(&sql, &[]) {
        Ok(row) => (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4), row.get(5)),
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

/// Evaluates one owner; returns how many alerts fired and how many recovered.
#[track_caller]
pub fn evaluate(c: &mut impl GenericClient, id: &str, as_of: &str) -> (i64, i64) {
    let call = format!("evaluate_spend_alerts('{}', '{id}', {as_of})", kind(id));
    let done = summary(c, &call);
    assert_eq!((done.0, done.3, done.4, done.5), (1, 0, 0, true), "{call}: {done:?}");
    (done.1, done.2)
}

/// Events in the order in which they happened, without suggestions: the type of each and, if it has one,
/// its kind of alert.
#[track_caller]
pub fn events(c: &mut impl GenericClient, id: &str) -> Vec<String> {
    column(
        c,
        &format!(
            "select concat_ws(' ', event_type, alert_kind) from exa_billing.cost_insight_events
             where owner_kind = '{}' and owner_id = '{id}' and event_type not like 'suggestion%'
             order by recorded_at, event_id",
            kind(id)
        ),
    )
}

/// The id of the newest event of a type.
#[track_caller]
pub fn newest(c: &mut impl GenericClient, id: &str, event_type: &str) -> Uuid {
    let sql = "select event_id from exa_billing.cost_insight_events
               where owner_id = $1 and event_type = $2 order by recorded_at desc, event_id desc limit 1";
    one(c, sql, &[&id, &event_type])
}

/// What is amiss now: kinds of alerts, in order.
#[track_caller]
pub fn episodes(c: &mut impl GenericClient, id: &str) -> Vec<String> {
    column(
        c,
        &format!(
            "select alert_kind from exa_billing.spend_alert_episodes
             where owner_kind = '{}' and owner_id = '{id}' order by 1",
            kind(id)
        ),
    )
}

/// Members of an event's snapshot, one SQL expression of `snapshot`.
#[track_caller]
pub fn of_snapshot(c: &mut impl GenericClient, event: Uuid, expression: &str) -> String {
    let sql = format!(
        "select ({expression})::text from exa_billing.cost_insight_events where event_id = $1"
    );
    one(c, &sql, &[&event])
}

/// Posts all, and lets what waits to be evaluated have waited long enough.
#[track_caller]
pub fn post_and_make_due(c: &mut Client) {
    evidence_common::post_all(c);
    make_due(c);
}

#[track_caller]
pub fn make_due(c: &mut impl GenericClient) {
    run_sql(c, "update exa_billing.evaluation_queue set due_at = public.at('-100 days')");
}

/// The queue: owner, failures so far, whether it is due.
#[track_caller]
pub fn queue(c: &mut impl GenericClient) -> Vec<String> {
    column(
        c,
        "select concat_ws(' ', owner_id, failure_count, due_at <= clock_timestamp())
         from exa_billing.evaluation_queue order by owner_id, due_at",
    )
}

/// No event of these owners can be written from now on.
#[track_caller]
pub fn refuse_events(c: &mut impl GenericClient, event_type: &str, owner_like: &str) {
    run_sql(
        c,
        &format!(
            "alter table exa_billing.cost_insight_events add constraint planted
             check (event_type <> '{event_type}' or owner_id not like '{owner_like}') not valid"
        ),
    );
}

#[track_caller]
pub fn allow_events(c: &mut impl GenericClient) {
    run_sql(c, "alter table exa_billing.cost_insight_events drop constraint planted");
}

#[track_caller]
pub fn acknowledge(c: &mut impl GenericClient, event: Uuid) -> bool {
    one(c, "select exa_billing.acknowledge_spend_alert($1, 'actor')", &[&event])
}

/// Every event that fired has the figures and drivers that anybody who asks for its window is told;
/// right as long as nothing dated earlier has been charged since.
#[track_caller]
pub fn assert_told_right(c: &mut impl GenericClient) {
    assert_told_right_since(c, "-infinity");
}

/// The same of the events that were written since.
#[track_caller]
pub fn assert_told_right_since(c: &mut impl GenericClient, since: &str) {
    let wrong: Vec<String> = column(
        c,
        &format!("select concat_ws(' ', e.owner_id, e.alert_kind, e.occurred_at, e.snapshot, 'but', total, drivers)
         from exa_billing.cost_insight_events as e,
              lateral (select coalesce(e.snapshot->'total_microdollars', e.snapshot->'hour_variable_microdollars'),
                              (snapshot->'drivers_window'->>'from_time')::timestamptz,
                              (snapshot->'drivers_window'->>'to_time')::timestamptz,
                              snapshot->'drivers_window'->>'spend_category') as w(told, start, until, category),
              lateral (select case category when 'variable' then variable_microdollars else total_microdollars end
                       from exa_billing.rolling_spend(owner_kind, owner_id,
                           extract(epoch from until - start) * interval '1 second', until)) as r(total),
              lateral (select coalesce(jsonb_agg(to_jsonb(d) order by n), '[]')
                       from exa_billing.top_spend_drivers(owner_kind, owner_id, start, until, category, 5)
                           with ordinality as d(spend_category, source, product_key, feature_key, model_or_plan_key,
                               provider_key, actor_user_id, total_microdollars, spend_record_count, n)) as x(with_n),
              lateral (select coalesce(jsonb_agg(one - 'n' order by (one->'n')::int), '[]')
                       from jsonb_array_elements(with_n) as one) as t(drivers)
         where e.event_type in ('threshold_crossed', 'anomaly_alert') and e.recorded_at >= '{since}'
           and (to_jsonb(total) is distinct from told or drivers is distinct from e.snapshot->'top_drivers'
                or until <> case e.event_type when 'anomaly_alert'
                                then least(e.occurred_at, start + interval '1 hour') else e.occurred_at end
                or start <> case e.alert_kind when 'anomaly' then (e.snapshot->>'hour_start')::timestamptz
                                when 'threshold_24h' then until - interval '24 hours'
                                when 'threshold_7d' then until - interval '168 hours'
                                else until - interval '720 hours' end)"),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// How many events have fired.
#[track_caller]
pub fn fired(c: &mut impl GenericClient) -> i64 {
    let sql = "select count(*) from exa_billing.cost_insight_events
               where event_type in ('threshold_crossed', 'anomaly_alert')";
    one(c, sql, &[])
}
