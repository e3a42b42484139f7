//! `spend_alert_settings` and `update_spend_alert_settings`.

use super::decision::Moment;
use super::episodes;
use super::evaluate::{self, Counts};
use super::settings_rules::{self as rules, Consequences, Settings};
use super::{queue, standing};
use crate::error::{BillingError, Result};
use crate::events::{self, NewEvent};
use crate::owner::Owner;
use crate::spi::{self, Answer, Composite, Json, Statement, Value, values};
use crate::time::{self, Instant};
use crate::{access, accounts, books, suggestions};
use pgrx::prelude::*;
use serde_json::{Map, Value as Document, json};
use uuid::Uuid;

static TEXT_OF: Statement = Statement::kept("SELECT $1::text");
static SAVE: Statement = Statement::kept(
    "INSERT INTO exa_billing.spend_alert_settings
         (owner_kind, owner_id, spend_alerts_enabled, anomaly_alerts_enabled, cost_suggestions_enabled,
          threshold_24h_microdollars, threshold_7d_microdollars, threshold_30d_microdollars, changed_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
     ON CONFLICT (owner_kind, owner_id) DO UPDATE
     SET spend_alerts_enabled = excluded.spend_alerts_enabled,
         anomaly_alerts_enabled = excluded.anomaly_alerts_enabled,
         cost_suggestions_enabled = excluded.cost_suggestions_enabled,
         threshold_24h_microdollars = excluded.threshold_24h_microdollars,
         threshold_7d_microdollars = excluded.threshold_7d_microdollars,
         threshold_30d_microdollars = excluded.threshold_30d_microdollars,
         changed_at = excluded.changed_at",
);
// An evaluation with an older snapshot, which cannot see the change, then fails with 40001 instead of
// telling somebody who does not want to hear it.
static RENEW: Statement = Statement::over_queue(
    "UPDATE exa_billing.spend_alert_states SET last_evaluated_at = last_evaluated_at
     WHERE owner_kind = $1 AND owner_id = $2",
);
static SET_MINIMUM: Statement = Statement::over_queue(
    "UPDATE exa_billing.accounts SET minimum_balance_microdollars = $3, low_balance_since = NULL
     WHERE owner_kind = $1 AND owner_id = $2",
);

static LAST_CHANGE: Statement = Statement::over_queue(
    "SELECT occurred_at FROM exa_billing.cost_insight_events
     WHERE owner_kind = $1 AND owner_id = $2 AND event_type IN ('config_changed', 'disabled')
     ORDER BY occurred_at DESC LIMIT 1",
);

/// What a change has led to.
struct Changed {
    settings: Settings,
    event: Option<Uuid>,
    counts: Counts,
    is_evaluation_pending: bool,
}

fn document(changes: Option<Json>) -> Result<Map<String, Document>> {
    let changes = changes.ok_or_else(|| BillingError::missing("changes"))?;
    let text = TEXT_OF.write_row(values![changes], |row| row.get::<String>(1))?;
    match serde_json::from_str(&text.unwrap_or_default()) {
        Ok(Document::Object(members)) => Ok(members),
        Ok(_) => Err(BillingError::invalid("changes must be a JSON object")
            .hint("Such as '{\"spend_alerts_enabled\": true, \"threshold_24h_usd\": \"25.50\"}'.")),
        Err(_) => Err(BillingError::invalid(
            "changes has a number that is out of range or is nested too deeply",
        )),
    }
}

/// Locks, in this order: the account row (only when the minimum balance is among the changes or alerts may
/// be enabled by them; where there is none it is opened for a minimum balance alone), then the owner's state.
///
/// Of those without alerts a row may rest in the queue of evaluations. What was charged meanwhile is seen by
/// the evaluation here, for posting waits for the account row, or is a serialization failure on an older
/// snapshot.
fn update(
    owner: &Owner,
    changes: &Map<String, Document>,
    actor: String,
    as_of: Instant,
) -> Result<Changed> {
    if changes.keys().any(|key| key.starts_with("minimum_balance")) {
        accounts::lock(owner)?;
    } else if changes.contains_key("spend_alerts_enabled") {
        accounts::lock_existing(owner)?;
    }
    events::lock_state(owner)?;
    let old = spi::on_fresh_snapshot(|| standing::settings_of(owner))?;
    let new = old.with(changes)?;
    let nothing = Changed {
        settings: new.clone(),
        event: None,
        counts: Counts::default(),
        is_evaluation_pending: false,
    };
    if old == new {
        return Ok(nothing);
    }
    let as_of = after_what_was(owner, as_of)?;
    save(owner, &old, &new)?;
    if new.spend_alerts && !old.spend_alerts {
        queue::end_rest(owner)?;
    }
    let leads_to = rules::consequences(&old, &new);
    let event = tell(owner, &leads_to, (&old, &new), actor, as_of)?;
    let evaluated = leads_to.evaluate.then(|| evaluate_at_once(owner, as_of)).transpose()?;
    let counts = evaluated.unwrap_or_default();
    Ok(Changed { event, counts, is_evaluation_pending: counts.failed > 0, ..nothing })
}

/// The instant of a change: not before the owner's last evaluation or change. Who waited for one
/// comes after it.
fn after_what_was(owner: &Owner, as_of: Instant) -> Result<Instant> {
    let (evaluated, changed) = spi::on_fresh_snapshot(|| {
        let owner_key = values![owner.kind.as_str(), &owner.id];
        let changed = LAST_CHANGE.read_row(owner_key, |row| row.get::<Instant>(1))?;
        Ok((standing::last_evaluations(std::slice::from_ref(owner))?, changed))
    })?;
    let was = evaluated.into_iter().flatten().chain(changed);
    Ok(was.fold(as_of, Instant::max))
}

fn save(owner: &Owner, old: &Settings, new: &Settings) -> Result<()> {
    let (kind, id) = (owner.kind.as_str(), &owner.id);
    let [day, week, month] = new.thresholds;
    SAVE.execute(values![
        kind,
        id,
        new.spend_alerts,
        new.anomaly_alerts,
        new.suggestions,
        day,
        week,
        month,
        spi::clock()
    ])?;
    RENEW.execute(values![kind, id])?;
    if old.minimum_balance != new.minimum_balance {
        SET_MINIMUM.execute(values![kind, id, new.minimum_balance])?;
    }
    Ok(())
}

/// Ends what the change ends, and leaves an event behind.
fn tell(
    owner: &Owner,
    leads_to: &Consequences,
    (old, new): (&Settings, &Settings),
    actor: String,
    as_of: Instant,
) -> Result<Option<Uuid>> {
    let ended: Vec<_> = leads_to.end.iter().map(|kind| (owner, *kind)).collect();
    episodes::end(&ended)?;
    if leads_to.close_suggestions {
        suggestions::close_all(owner, as_of)?;
    }
    let Some(event_type) = leads_to.event else { return Ok(None) };
    let snapshot = json!({
        "changed": rules::difference(old, new),
        "settings": Document::Object(new.document()),
    });
    let event = NewEvent {
        actor_user_id: Some(actor),
        ..NewEvent::new(owner.clone(), event_type, as_of, snapshot)
    };
    let recorded = events::record(std::slice::from_ref(&event))?;
    Ok(recorded.into_iter().next())
}

/// Evaluates in a subtransaction. Whatever goes wrong, the settings stand and the owner is queued.
fn evaluate_at_once(owner: &Owner, as_of: Instant) -> Result<Counts> {
    let owners = std::slice::from_ref(owner);
    let moment = Moment { as_of, looks_back: false };
    match spi::in_subtransaction(|| evaluate::evaluate_together(owners, moment)) {
        Ok(counts) => Ok(counts),
        Err(failure) if failure.is_interruption() => failure.raise(),
        Err(failure) => evaluate::put_back(owner, &failure.message()),
    }
}

/// The settings as result columns.
fn columns(owner: &Owner, settings: &Settings) -> [Value; 9] {
    let [day, week, month] = settings.thresholds.map(Value::from);
    [
        Value::from(owner.kind.as_str()),
        Value::from(&owner.id),
        Value::from(settings.spend_alerts),
        Value::from(settings.anomaly_alerts),
        Value::from(settings.suggestions),
        day,
        week,
        month,
        Value::from(settings.minimum_balance),
    ]
}

/// What an owner wants to be told of.
#[pg_extern(sql = false)]
fn spend_alert_settings(owner_kind: Option<&str>, owner_id: Option<&str>) -> Answer<Composite> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    books::enter_for_reading("exa_billing.spend_alert_settings()")?;
    Ok(Composite::new(&columns(&owner, &standing::settings_of(&owner)?)))
}

/// Changes what an owner wants to be told of, and evaluates at once where alerts are enabled.
#[pg_extern(sql = false)]
fn update_spend_alert_settings(
    owner_kind: Option<&str>,
    owner_id: Option<&str>,
    changes: Option<Json>,
    actor_user_id: Option<&str>,
    as_of: Option<Instant>,
) -> Answer<Composite> {
    let owner = Owner::parse(owner_kind, owner_id)?;
    let as_of = time::as_of_past(as_of, spi::clock())?;
    let changes = document(changes)?;
    Settings::default().with(&changes)?;
    books::enter_for_writing("exa_billing.update_spend_alert_settings()")?;
    let actor = access::actor(actor_user_id)?;
    actor.require_answers_for(&owner)?;
    actor.require_acts_now(as_of)?;
    let changed = update(&owner, &changes, actor.id, as_of)?;
    let mut row = columns(&owner, &changed.settings).to_vec();
    let event = changed.event;
    row.extend_from_slice(values![event, changed.counts.fired, changed.is_evaluation_pending]);
    Ok(Composite::new(&row))
}
