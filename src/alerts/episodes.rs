//! Episodes: what is amiss while it lasts.

use super::decision::Finding;
use crate::error::Result;
use crate::events::{AlertKind, NewEvent};
use crate::owner::Owner;
use crate::spi::{Statement, values};
use crate::time::Instant;

static END: Statement = Statement::over_queue(
    "DELETE FROM exa_billing.spend_alert_episodes AS e
     USING unnest($1, $2, $3) AS o(owner_kind, owner_id, alert_kind)
     WHERE e.owner_kind = o.owner_kind AND e.owner_id = o.owner_id AND e.alert_kind = o.alert_kind",
);
static BEGIN: Statement = Statement::kept(
    "INSERT INTO exa_billing.spend_alert_episodes
         (owner_kind, owner_id, alert_kind, event_id, threshold_microdollars, hour_start, started_at,
          snapshot, reviewed_at, reviewed_by_user_id)
     SELECT owner_kind, owner_id, alert_kind, event_id, threshold, hour_start, started_at,
            snapshot::jsonb, NULL, NULL
     FROM unnest($1, $2, $3, $4, $5, $6, $7, $8) AS new(
         owner_kind, owner_id, alert_kind, event_id, threshold, hour_start, started_at, snapshot)
     ON CONFLICT (owner_kind, owner_id, alert_kind) DO UPDATE
     SET event_id = excluded.event_id, threshold_microdollars = excluded.threshold_microdollars,
         hour_start = excluded.hour_start, started_at = excluded.started_at,
         snapshot = excluded.snapshot, reviewed_at = NULL, reviewed_by_user_id = NULL",
);

/// Ends episodes, those of them that there are.
///
/// Locks: the owners' states, which the caller has taken; so for `begin`.
pub fn end(ended: &[(&Owner, AlertKind)]) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    END.execute(values![
        ended.iter().map(|(owner, _)| owner.kind.as_str()).collect::<Vec<_>>(),
        ended.iter().map(|(owner, _)| owner.id.as_str()).collect::<Vec<_>>(),
        ended.iter().map(|(_, kind)| kind.as_str()).collect::<Vec<_>>(),
    ])
}

/// Begins an episode for each finding; of two of one kind the later one stays.
pub fn begin(findings: &[(&Finding, &NewEvent)]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    let newest: Vec<_> = findings
        .iter()
        .enumerate()
        .filter(|(place, (_, event))| {
            let is_replaced = |(_, later): &(&Finding, &NewEvent)| {
                (&later.owner, later.alert_kind) == (&event.owner, event.alert_kind)
            };
            !findings[place + 1..].iter().any(is_replaced)
        })
        .map(|(_, found)| *found)
        .collect();
    fn column<'a, T>(
        found: &[(&'a Finding, &'a NewEvent)],
        part: impl Fn(&'a Finding, &'a NewEvent) -> T,
    ) -> Vec<T> {
        found.iter().map(|(finding, event)| part(finding, event)).collect()
    }
    let snapshots: Vec<String> = column(&newest, |_, event| event.snapshot.to_string());
    BEGIN.execute(values![
        column(&newest, |_, event| event.owner.kind.as_str()),
        column(&newest, |_, event| event.owner.id.as_str()),
        column(&newest, |_, event| event.alert_kind.map(AlertKind::as_str)),
        column(&newest, |_, event| event.id),
        column(&newest, |finding, _| threshold(finding)),
        column(&newest, |finding, _| hour(finding)),
        column(&newest, |_, event| event.occurred_at),
        snapshots.iter().map(String::as_str).collect::<Vec<_>>(),
    ])
}

fn threshold(finding: &Finding) -> i64 {
    match finding {
        Finding::Anomaly { policy, .. } => policy.threshold,
        Finding::Crossed { threshold, .. } => *threshold,
        Finding::Recovered { episode, .. } => episode.threshold,
    }
}

fn hour(finding: &Finding) -> Option<Instant> {
    match finding {
        Finding::Anomaly { hour, .. } => Some(*hour),
        _ => None,
    }
}
