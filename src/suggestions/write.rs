//! Writing what was decided about suggestions.

use super::policy::{Change, Finding, Ground, WINDOW_HOURS};
use crate::error::Result;
use crate::events::{self, EventType, NewEvent};
use crate::owner::Owner;
use crate::spi::{Statement, values};
use crate::time::Instant;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use uuid::Uuid;

static CREATE: Statement = Statement::kept(
    "INSERT INTO exa_billing.cost_suggestions
         (suggestion_id, owner_kind, owner_id, suggestion_kind, target, status, observed_microdollars,
          price_microdollars, window_start, window_end, driver, content, created_at, grounded_at,
          ended_at, dismissed_by_user_id)
     SELECT n.id, n.owner_kind, n.owner_id, n.kind, n.target, 'open', n.observed, n.price, $10, $11,
            n.driver::jsonb, n.content::jsonb, $11, $11, NULL, NULL
     FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9)
         AS n(id, owner_kind, owner_id, kind, target, observed, price, driver, content)
     ON CONFLICT (owner_kind, owner_id, suggestion_kind, target) WHERE status = 'open' DO NOTHING
     RETURNING suggestion_id",
);
static REFRESH: Statement = Statement::over_queue(
    "UPDATE exa_billing.cost_suggestions AS s
     SET observed_microdollars = n.observed, price_microdollars = n.price, window_start = $6,
         window_end = $7, driver = n.driver::jsonb, content = n.content::jsonb, grounded_at = $7
     FROM unnest($1, $2, $3, $4, $5) AS n(id, observed, price, driver, content)
     WHERE s.suggestion_id = n.id AND s.status = 'open'",
);
static CLOSE: Statement = Statement::over_queue(
    "UPDATE exa_billing.cost_suggestions SET status = 'closed', ended_at = $2
     WHERE suggestion_id = ANY ($1) AND status = 'open'",
);
static CLOSE_ALL: Statement = Statement::over_queue(
    "UPDATE exa_billing.cost_suggestions SET status = 'closed', ended_at = $3
     WHERE owner_kind = $1 AND owner_id = $2 AND status = 'open'",
);

/// Writes what `read` has found, with an event for each suggestion that is new. Whoever is told of
/// suggestions looks for them: nobody is notified.
///
/// Locks: the suggestions' rows; the caller holds the states of their owners.
pub fn write(findings: &[Finding], as_of: Instant) -> Result<()> {
    let (mut new, mut refreshed, mut closed) = (Vec::new(), Vec::new(), Vec::new());
    for Finding { owner, change } in findings {
        match change {
            Change::Create(ground) => new.push((Uuid::now_v7(), owner, ground)),
            Change::Refresh(id, ground) => refreshed.push((*id, ground)),
            Change::Close(id) => closed.push(*id),
        }
    }
    if !closed.is_empty() {
        CLOSE.execute(values![closed, as_of])?;
    }
    refresh(&refreshed, as_of)?;
    create(&new, as_of)
}

/// Closes what is open, when an owner wants no suggestions any more.
///
/// Locks: the suggestions' rows; the caller holds the owner's state.
pub fn close_all(owner: &Owner, as_of: Instant) -> Result<()> {
    CLOSE_ALL.execute(values![owner.kind.as_str(), &owner.id, as_of])
}

/// What every event of a suggestion says.
pub fn snapshot(
    target: &str,
    observed: i64,
    price: i64,
    (from, to): (Instant, Instant),
    driver: Option<&Json>,
) -> Json {
    json!({
        "rule_key": target,
        "target": target,
        "observed_microdollars": observed,
        "price_microdollars": price,
        "window": { "from_time": from.iso8601(), "to_time": to.iso8601() },
        "driver": driver,
    })
}

fn window(as_of: Instant) -> (Instant, Instant) {
    (as_of.plus_hours(-WINDOW_HOURS), as_of)
}

fn create(new: &[(Uuid, &Owner, &Ground)], as_of: Instant) -> Result<()> {
    if new.is_empty() {
        return Ok(());
    }
    fn column<'a, T>(
        new: &[(Uuid, &'a Owner, &'a Ground)],
        part: impl Fn(&'a Owner, &'a Ground) -> T,
    ) -> Vec<T> {
        new.iter().map(|&(_, owner, ground)| part(owner, ground)).collect()
    }
    let (drivers, contents) = documents(new.iter().map(|&(_, _, ground)| ground));
    let (from, to) = window(as_of);
    let arguments = values![
        new.iter().map(|&(id, ..)| id).collect::<Vec<_>>(),
        column(new, |owner, _| owner.kind.as_str()),
        column(new, |owner, _| owner.id.as_str()),
        column(new, |_, ground| ground.kind.as_str()),
        column(new, |_, ground| ground.target.as_str()),
        column(new, |_, ground| ground.observed),
        column(new, |_, ground| ground.price),
        drivers.iter().map(Option::as_deref).collect::<Vec<_>>(),
        contents.iter().map(String::as_str).collect::<Vec<_>>(),
        from,
        to,
    ];
    let made: BTreeSet<Uuid> =
        CREATE.write(arguments, |row| row.get::<Uuid>(1))?.into_iter().collect();
    let event = |&(id, owner, ground): &(Uuid, &Owner, &Ground)| {
        let Ground { target, observed, price, driver, .. } = ground;
        let snapshot = snapshot(target, *observed, *price, (from, to), driver.as_ref());
        NewEvent {
            suggestion_kind: Some(ground.kind),
            about: Some(id),
            ..NewEvent::new(owner.clone(), EventType::SuggestionCreated, as_of, snapshot)
        }
    };
    let events: Vec<_> = new.iter().filter(|(id, ..)| made.contains(id)).map(event).collect();
    events::record(&events).map(drop)
}

fn refresh(refreshed: &[(Uuid, &Ground)], as_of: Instant) -> Result<()> {
    if refreshed.is_empty() {
        return Ok(());
    }
    let (drivers, contents) = documents(refreshed.iter().map(|&(_, ground)| ground));
    let (from, to) = window(as_of);
    REFRESH.execute(values![
        refreshed.iter().map(|&(id, _)| id).collect::<Vec<_>>(),
        refreshed.iter().map(|&(_, ground)| ground.observed).collect::<Vec<_>>(),
        refreshed.iter().map(|&(_, ground)| ground.price).collect::<Vec<_>>(),
        drivers.iter().map(Option::as_deref).collect::<Vec<_>>(),
        contents.iter().map(String::as_str).collect::<Vec<_>>(),
        from,
        to,
    ])
}

/// Drivers and contents as texts.
fn documents<'a>(grounds: impl Iterator<Item = &'a Ground>) -> (Vec<Option<String>>, Vec<String>) {
    grounds
        .map(|ground| (ground.driver.as_ref().map(Json::to_string), ground.content.to_string()))
        .unzip()
}
