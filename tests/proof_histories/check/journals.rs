//! The journals, ledgers and views as they are kept.

use super::{Look, events, look, shown};
use crate::model::alerts::Alerts;
use crate::model::calendar::{DAY, day_text, hour_of, literal, month_of};
use crate::model::evidence::{known_from, purpose_told};
use crate::model::{At, Charge, Model, Owner};
use crate::step::{line, micros, of_owner, text};
use std::collections::BTreeMap;

pub fn journals(model: &Model, owner: &Owner) -> Vec<Look> {
    let mut looks = money_journals(model, owner);
    looks.extend(told(model, owner, &of_owner(owner)));
    looks
}

/// Those that tell of money.
pub fn money_journals(model: &Model, owner: &Owner) -> Vec<Look> {
    let own = of_owner(owner);
    let mut looks = vec![
        entries(model, owner, &own),
        hours_view(model, owner, &own),
        drivers_view(model, owner, &own),
        own_journals(model, owner, &own),
        balances_view(model, owner, &own),
    ];
    if !owner.is_organization {
        looks.push(requests(model, owner));
        looks.push(months_view(model, owner));
    }
    looks
}

fn entries(model: &Model, owner: &Owner, own: &str) -> Look {
    let told = line(&[
        &micros("created_at"),
        "amount_microdollars",
        &micros("expiry_date"),
        "original_baseline_microdollars_used",
        "expiration_baseline_microdollars_used",
        "is_free",
        "original_transaction_id is not null",
        "credit_category",
        "description",
    ]);
    let lines = model.entries_of(owner).map(|entry| {
        format!(
            "{} {} {} {} {} {} {} {} {}",
            entry.at,
            entry.amount,
            shown(entry.expiry),
            entry.original,
            shown(entry.claims_from),
            entry.is_free,
            entry.closes.is_some(),
            entry.category.as_deref().unwrap_or("-"),
            entry.description.as_deref().unwrap_or("-")
        )
    });
    let sql = format!("select {told} from exa_billing.credit_transactions where {own}");
    look("ledger", sql, lines.collect())
}

fn requests(model: &Model, owner: &Owner) -> Look {
    let told = line(&[
        &micros("created_at"),
        "organization_id",
        "path",
        "cost_microdollars",
        "charged_microdollars",
        "feature_id",
        "request_type",
    ]);
    let dash = |text: &Option<String>| text.clone().unwrap_or("-".to_owned());
    let of_user = model.requests.iter().filter(|request| request.ask.user == owner.id);
    let lines = of_user.map(|request| {
        let ask = &request.ask;
        format!(
            "{} {} {} {} {} {} {}",
            request.at,
            dash(&ask.organization),
            ask.path,
            ask.cost,
            request.charged,
            dash(&ask.feature),
            dash(&ask.kind)
        )
    });
    let sql =
        format!("select {told} from exa_billing.exa_usage_log where user_id = {}", text(&owner.id));
    look("requests", sql, lines.collect())
}

fn months_view(model: &Model, owner: &Owner) -> Look {
    let told = line(&[
        "organization_id",
        "to_char(month, 'YYYY-MM-DD')",
        "total_cost_microdollars",
        "total_charged_microdollars",
        "request_count",
        "free_allowance_microdollars",
    ]);
    let mut sums: BTreeMap<(Option<String>, At), [i64; 4]> = BTreeMap::new();
    for one in model.requests.iter().filter(|request| request.ask.user == owner.id) {
        let key = (one.ask.organization.clone(), month_of(one.at));
        let sum = sums.entry(key).or_default();
        *sum = [sum[0] + one.ask.cost, sum[1] + one.charged, sum[2] + 1, one.allowance];
    }
    let lines = sums.into_iter().map(|((organization, month), sums)| {
        let [cost, charged, count, allowance] = sums;
        let organization = organization.unwrap_or("-".to_owned());
        format!("{organization} {} {cost} {charged} {count} {allowance}", day_text(month))
    });
    let sql = format!(
        "select {told} from exa_billing.exa_monthly_usage_current where user_id = {}",
        text(&owner.id)
    );
    look("months", sql, lines.collect())
}

fn hours_view(model: &Model, owner: &Owner, own: &str) -> Look {
    let mut sums: BTreeMap<(At, &str), (i64, i64)> = BTreeMap::new();
    for charge in model.charges_of(owner) {
        let sum = sums.entry((hour_of(charge.at), charge.purpose.category)).or_default();
        *sum = (sum.0 + charge.amount, sum.1 + 1);
    }
    let lines = sums
        .into_iter()
        .map(|((hour, category), (amount, count))| format!("{hour} {category} {amount} {count}"));
    let told = line(&[
        &micros("hour_start"),
        "spend_category",
        "total_microdollars",
        "spend_record_count",
    ]);
    look(
        "hourly",
        format!("select {told} from exa_billing.spend_hourly where {own}"),
        lines.collect(),
    )
}

/// Sums by the hour and driver, of what is charged.
fn by_driver(charges: impl Iterator<Item = Charge>) -> Vec<String> {
    let mut sums: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for charge in charges {
        let sum = sums.entry((hour_of(charge.at), charge.purpose, charge.actor)).or_default();
        *sum = (sum.0 + charge.amount, sum.1 + 1);
    }
    let line =
        |((hour, purpose, actor), (amount, count)): ((At, _, Option<String>), (i64, i64))| {
            let actor = actor.unwrap_or("-".to_owned());
            format!("{hour} {} {actor} {amount} {count}", purpose_told(&purpose))
        };
    sums.into_iter().map(line).collect()
}

const DRIVER: &str = "spend_category, source, product_key, feature_key, model_or_plan_key, provider_key, actor_user_id";

/// The same of a view, with its expressions for the hour, the amount and the number of records.
fn drivers_of(view: &str, hour: &str, amount: &str, records: &str) -> String {
    let hour = micros(hour);
    let mut told = vec![hour.as_str()];
    told.extend(DRIVER.split(", "));
    told.extend([amount, records]);
    format!("select {} from exa_billing.{view}", line(&told))
}

fn drivers_view(model: &Model, owner: &Owner, own: &str) -> Look {
    let amounts = ["total_microdollars", "spend_record_count"];
    let sql = drivers_of("spend_drivers_hourly", "hour_start", amounts[0], amounts[1]);
    let lines = by_driver(model.charges_of(owner).into_iter());
    look("hourly drivers", format!("{sql} where {own}"), lines)
}

/// The product's own journals; rows that take the place of others may stand for several.
fn own_journals(model: &Model, owner: &Owner, own: &str) -> Look {
    let hour = "date_trunc('hour', created_at, 'UTC')";
    let sums = ["sum(amount_microdollars)", "sum(spend_record_count)"];
    let sql = drivers_of("spend_entries", hour, sums[0], sums[1]);
    let charges = model.charges_of(owner).into_iter().filter(|charge| !charge.is_attached);
    look("own journals", format!("{sql} where {own} group by {hour}, {DRIVER}"), by_driver(charges))
}

/// What was given and used, expirations that are due not yet taken off.
fn balances_view(model: &Model, owner: &Owner, own: &str) -> Look {
    let told = line(&[
        "coalesce(sum(total_microdollars_acquired), 0)",
        "coalesce(sum(microdollars_used), 0)",
        "coalesce(sum(balance_microdollars), 0)",
    ]);
    let (acquired, used) = (model.acquired(owner), model.used(owner));
    look(
        "balances",
        format!("select {told} from exa_billing.account_balances where {own}"),
        vec![format!("{acquired} {used} {}", acquired - used)],
    )
}

/// Events, episodes, deliveries, suggestions.
fn told(model: &Model, owner: &Owner, own: &str) -> Vec<Look> {
    let none = Alerts::default();
    let alerts = model.alerts.get(owner).unwrap_or(&none);
    let dash = |text: Option<&str>| text.unwrap_or("-").to_owned();
    let episodes = alerts.episodes.iter().map(|(kind, one)| {
        format!("{kind} {} {} {}", one.threshold, shown(one.hour), one.is_reviewed)
    });
    let episode_told = line(&[
        "alert_kind",
        "threshold_microdollars",
        &micros("hour_start"),
        "reviewed_at is not null",
    ]);
    let deliveries = alerts.deliveries.iter().map(|one| {
        let event = &alerts.events[one.event];
        let (alert, kind) = (dash(event.alert), event.kind);
        format!("{} {kind} {alert} {} {}", one.recipient, one.status, one.attempts)
    });
    let delivery_told =
        line(&["recipient_user_id", "event_type", "alert_kind", "status", "attempt_count"]);
    let suggestions = alerts.suggestions.iter().map(|one| {
        format!("{} {} {} {} {}", one.kind, one.target, one.status, one.observed, one.grounded_at)
    });
    let suggestion_told = line(&[
        "suggestion_kind",
        "target",
        "status",
        "observed_microdollars",
        &micros("grounded_at"),
    ]);
    let from =
        |told: &str, table: &str| format!("select {told} from exa_billing.{table} where {own}");
    vec![
        look(
            "events",
            format!(
                "select {} from (select *, snapshot -> 'settings' as s
                     from exa_billing.cost_insight_events where {own}) as e",
                events::told()
            ),
            events::kept(alerts).map(events::line_of).collect(),
        ),
        look("episodes", from(&episode_told, "spend_alert_episodes"), episodes.collect()),
        look("deliveries", from(&delivery_told, "notification_deliveries"), deliveries.collect()),
        look("suggestions", from(&suggestion_told, "cost_suggestions"), suggestions.collect()),
    ]
}

/// What holds when all is posted: nothing waits, and the posted figures alone say the same.
pub fn posted(model: &Model, owner: &Owner, around: At) -> Vec<Look> {
    let own = of_owner(owner);
    let account = "select coalesce(sum(microdollars_used), 0)::text from exa_billing.accounts";
    let mut looks = vec![
        look(
            "queue",
            format!("select count(*)::text from exa_billing.unposted_entries where {own}"),
            vec!["0".to_owned()],
        ),
        look("account", format!("{account} where {own}"), vec![model.used(owner).to_string()]),
        hours_view(model, owner, &own),
        reconciled(&own, around),
    ];
    looks.extend(told(model, owner, &own));
    looks
}

/// A source that the rollups have no name for is told of, and hours that are degraded; there is
/// nothing else to be told.
fn reconciled(own: &str, around: At) -> Look {
    let from = hour_of((around - 2 * DAY).max(known_from()));
    let sql = format!(
        "select mismatch_type from exa_billing.reconcile_rollups({}, {})
         where {own} and mismatch_type not in ('unknown_taxonomy_value', 'coverage_hole')",
        literal(from),
        literal(from + 5 * DAY)
    );
    look("reconciled", sql, Vec::new())
}
