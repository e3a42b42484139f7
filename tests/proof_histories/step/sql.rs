//! The SQL of the steps, and short forms of it.

use super::{Total, Which};
use crate::model::alerts::SettingsChange;
use crate::model::calendar::{day_text, literal, rfc3339};
use crate::model::credit::Give;
use crate::model::tables::{Attached, Change, Map, Row};
use crate::model::usage::{Ask, Pay, Policy};
use crate::model::{At, Owner};

pub fn text(value: &str) -> String {
    format!("'{}'", value.replace('\'', "''"))
}

pub fn maybe(value: Option<&str>) -> String {
    value.map_or("null".to_owned(), text)
}

pub fn time(at: Option<At>) -> String {
    at.map_or("null".to_owned(), literal)
}

pub fn number(value: Option<i64>) -> String {
    value.map_or("null".to_owned(), |value| value.to_string())
}

pub fn whose(owner: &Owner) -> String {
    format!("'{}', {}", owner.kind(), text(&owner.id))
}

/// One line out of some expressions.
pub fn line(parts: &[&str]) -> String {
    let parts: Vec<String> =
        parts.iter().map(|part| format!("coalesce(({part})::text, '-')")).collect();
    format!("concat_ws(' ', {})", parts.join(", "))
}

/// An instant as the model has it, whatever the session's time zone.
pub fn micros(expression: &str) -> String {
    format!("(extract(epoch from {expression}) * 1000000)::bigint")
}

/// The columns of every step's answer: an id, an instant, a line.
pub fn recorded(call: &str) -> String {
    let told = line(&[
        "cost_microdollars",
        "free_microdollars",
        "charged_microdollars",
        "free_allowance_microdollars",
        "is_replay",
    ]);
    format!("select usage_id::text, {}, {told} from exa_billing.{call}", micros("created_at"))
}

pub fn value(call: &str) -> String {
    format!("select null, null, exa_billing.{call}::text")
}

pub fn id(call: &str) -> String {
    format!("select exa_billing.{call}::text, null, null")
}

pub fn arguments(ask: &Ask, second: &str, third: &str, key: Option<&str>) -> String {
    format!(
        "{}, {second}, {third}, {}, {}, {}, {}, {}",
        text(&ask.user),
        maybe(ask.organization.as_deref()),
        maybe(key),
        time(ask.at),
        maybe(ask.feature.as_deref()),
        maybe(ask.kind.as_deref())
    )
}

pub fn response(ask: &Ask, total: &Total, request_id: Option<&str>) -> String {
    let total = match total {
        Total::Number(text, _) => text.as_str(),
        Total::Bad(text) => text,
    };
    let id = request_id.map(|id| serde_json::json!(id).to_string());
    let document = format!(
        r#"{{"requestId": {}, "results": [], "costDollars": {{"total": {total}}}}}"#,
        id.unwrap_or("null".to_owned())
    );
    let document = format!("{}::jsonb", text(&document));
    let arguments = arguments(ask, &text(&ask.path), &document, ask.key.as_deref());
    recorded(&format!("record_exa_response({arguments})"))
}

pub fn batch(asks: &[Ask]) -> String {
    let element = |ask: &Ask| {
        serde_json::json!({
            "user_id": ask.user,
            "path": ask.path,
            "cost_microdollars": ask.cost,
            "organization_id": ask.organization,
            "idempotency_key": ask.key,
            "created_at": ask.at.map(rfc3339),
            "feature_id": ask.feature,
            "request_type": ask.kind,
        })
    };
    let all = serde_json::Value::Array(asks.iter().map(element).collect());
    recorded(&format!("record_exa_usage_batch({}::jsonb)", text(&all.to_string())))
}

pub fn pay(pay: &Pay) -> String {
    let given = |value: &str| text(value);
    recorded(&format!(
        "record_spend({}, {}, '{}', {}, {}, {}, {}, {}, {}, {}, {}, {})",
        whose(&pay.owner),
        pay.amount,
        pay.category,
        given(&pay.source),
        given(&pay.product),
        given(&pay.feature),
        given(&pay.model),
        given(&pay.provider),
        maybe(pay.actor.as_deref()),
        maybe(pay.key.as_deref()),
        time(pay.at),
        pay.require_balance
    ))
}

pub fn give(give: &Give) -> String {
    id(&format!(
        "grant_credit({}, {}, {}, {}, {}, {}, {}, {})",
        whose(&give.owner),
        give.amount,
        time(give.expiry),
        maybe(give.category.as_deref()),
        maybe(give.description.as_deref()),
        give.is_free,
        maybe(give.key.as_deref()),
        time(give.at)
    ))
}

pub fn adjust(give: &Give) -> String {
    let (owner, reason) = (whose(&give.owner), maybe(give.description.as_deref()));
    let key = maybe(give.key.as_deref());
    id(&format!("adjust_credit({owner}, {}, {reason}, {key})", give.amount))
}

pub fn recompute(owner: &Owner, keep_balance: bool) -> String {
    recompute_told(owner, &format!("false, {keep_balance}"))
}

/// What a recompute tells, in the words of the model.
pub fn recompute_told(owner: &Owner, how: &str) -> String {
    let told = line(&[
        "previous_microdollars_used",
        "new_microdollars_used",
        "previous_total_microdollars_acquired",
        "new_total_microdollars_acquired",
        "balance_error_microdollars",
        "accounting_adjustment_microdollars",
        "original_baselines_changed",
        "expiration_baselines_changed",
        "late_arrivals",
    ]);
    let (kind, id) = (owner.kind(), text(&owner.id));
    format!("select null, null, {told} from exa_billing.recompute_{kind}_balances({id}, {how})")
}

pub const SETTINGS: [&str; 7] = [
    "spend_alerts_enabled",
    "anomaly_alerts_enabled",
    "cost_suggestions_enabled",
    "threshold_24h_microdollars",
    "threshold_7d_microdollars",
    "threshold_30d_microdollars",
    "minimum_balance_microdollars",
];

pub fn settings_told() -> String {
    line(&SETTINGS)
}

pub fn settings(owner: &Owner, change: &SettingsChange, actor: &str, as_of: At) -> String {
    let mut document = serde_json::Map::new();
    let mut set = |name: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            document.insert(name.to_owned(), value);
        }
    };
    set("spend_alerts_enabled", change.enabled.map(Into::into));
    set("anomaly_alerts_enabled", change.anomalies.map(Into::into));
    set("cost_suggestions_enabled", change.suggestions.map(Into::into));
    for (window, threshold) in ["24h", "7d", "30d"].iter().zip(change.thresholds) {
        // Whole cents are told in dollars.
        match threshold {
            Some(Some(amount)) if amount % 10_000 == 0 => {
                let usd = format!(" {}.{:02} ", amount / 1_000_000, amount / 10_000 % 100);
                set(&format!("threshold_{window}_usd"), Some(usd.into()));
            }
            _ => {
                let amount = threshold.map(serde_json::Value::from);
                set(&format!("threshold_{window}_microdollars"), amount);
            }
        }
    }
    set("minimum_balance_microdollars", change.minimum.map(serde_json::Value::from));
    set("minimum_balance", change.is_bad.then_some(5.into()));
    let document = text(&serde_json::Value::Object(document).to_string());
    let arguments = format!("{}, {document}, {}, {}", whose(owner), text(actor), literal(as_of));
    let more = line(&["event_id is not null", "fired", "evaluation_pending"]);
    format!(
        "select null, null, {} || ' ' || {more}
         from exa_billing.update_spend_alert_settings({arguments})",
        settings_told()
    )
}

pub fn summary(call: &str) -> String {
    let told = line(&["evaluated", "fired", "recovered", "failed", "skipped", "complete"]);
    format!("select null, null, {told} from exa_billing.{call}")
}

/// What of an owner's alerts is what a call wants.
pub fn of_owner(owner: &Owner) -> String {
    format!("owner_kind = '{}' and owner_id = {}", owner.kind(), text(&owner.id))
}

pub fn review(owner: &Owner, alert: &Which, actor: &str) -> String {
    let own = of_owner(owner);
    let event = match alert {
        Which::Lasting(kind, _) => format!(
            "(select event_id from exa_billing.spend_alert_episodes where {own} and alert_kind = '{kind}')"
        ),
        Which::Stale(_) => format!(
            "(select event_id from exa_billing.cost_insight_events as e where {own} and not exists (
                  select from exa_billing.spend_alert_episodes as s where s.event_id = e.event_id)
              limit 1)"
        ),
        Which::Unknown => "'00000000-0000-4000-8000-000000000000'".to_owned(),
    };
    value(&format!("acknowledge_spend_alert({event}, {})", text(actor)))
}

pub fn claim(is_short: bool) -> String {
    let lease = if is_short { "1 microsecond" } else { "5 minutes" };
    let told = line(&[
        "owner_kind",
        "owner_id",
        "recipient_user_id",
        "event_type",
        "alert_kind",
        "attempt",
    ]);
    format!(
        "select delivery_id::text || ' ' || claim_token::text, null, {told}
         from exa_billing.claim_notifications(1000, '{lease}')"
    )
}

/// The map of a table as the application gives it.
pub fn column_map(map: Map) -> String {
    let model = if map.asked_first { r#"{"columns": ["asked", "model"]}"# } else { r#""model""# };
    let status = if map.only_ok {
        r#", "where": [{"column": "status", "op": "=", "value": "ok"}]"#
    } else {
        ""
    };
    format!(
        r#"{{"user_id": "who", "organization_id": "team", "amount": "cost", "created_at": "at",
            "model_or_plan_key": {model}, "negate": {}{status}}}"#,
        map.negate
    )
}

pub fn attach(table: &str, attached: &Attached, backfill: bool) -> String {
    value(&format!(
        "attach_spend_source('{table}', 'public.{table}', '{}', {}, {}::jsonb, {backfill}, '{}')",
        attached.category,
        text(&attached.source),
        text(&column_map(attached.map)),
        if attached.keeps { "keep" } else { "reverse" }
    ))
}

/// The table of the application, before it is a journal.
pub fn create_table(table: &str) -> String {
    format!(
        "create table public.{table} (id bigint primary key, who text, team text, cost bigint,
             at timestamptz, model text, asked text, status text);
         create index on public.{table} (who, at); create index on public.{table} (team, at)"
    )
}

pub fn row(row: &Row) -> String {
    format!(
        "({}, {}, {}, {}, {}, {}, {}, '{}')",
        row.id,
        maybe(row.who.as_deref()),
        maybe(row.team.as_deref()),
        number(row.cost),
        literal(row.at),
        maybe(row.model.as_deref()),
        maybe(row.asked.as_deref()),
        if row.is_ok { "ok" } else { "failed" }
    )
}

pub fn change(table: &str, change: &Change) -> String {
    let update = |set: String, ids: &[i64]| {
        format!("update public.{table} set {set} where id in ({})", list(ids))
    };
    match change {
        Change::Insert(rows) => {
            let rows: Vec<String> = rows.iter().map(row).collect();
            format!("insert into public.{table} values {}", rows.join(", "))
        }
        Change::Cost(ids, cost) => update(format!("cost = {}", number(*cost)), ids),
        Change::Model(ids, model) => update(format!("model = {}", maybe(model.as_deref())), ids),
        Change::Owner(ids, who, team) => {
            let (who, team) = (maybe(who.as_deref()), maybe(team.as_deref()));
            update(format!("who = {who}, team = {team}"), ids)
        }
        Change::Time(ids, at) => update(format!("at = {}", literal(*at)), ids),
        Change::Status(ids, is_ok) => {
            update(format!("status = '{}'", if *is_ok { "ok" } else { "failed" }), ids)
        }
        Change::Delete(ids) => format!("delete from public.{table} where id in ({})", list(ids)),
    }
}

pub fn list(ids: &[i64]) -> String {
    let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
    ids.join(", ")
}

pub fn policy(policy: &Policy) -> String {
    value(&format!(
        "set_free_allowance({}, '{}', {}, {})",
        number(policy.amount),
        day_text(policy.month),
        maybe(policy.user.as_deref()),
        maybe(policy.rule)
    ))
}

pub fn finish(id: &str, token: &str, is_sent: bool) -> String {
    let delivery = format!("'{id}', '{token}'");
    if is_sent {
        value(&format!("complete_notification({delivery})"))
    } else {
        value(&format!("fail_notification({delivery}, 'mailbox full')"))
    }
}

pub fn as_of(owner: &Owner, at: Option<At>) -> String {
    let at = at.map(|at| format!(", {}", literal(at))).unwrap_or_default();
    format!("{}{at}", whose(owner))
}
