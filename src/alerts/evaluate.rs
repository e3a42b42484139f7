//! Evaluating many owners at once: all is read on one snapshot, decided, and written.

use super::decision::{Decision, Finding, Moment};
use super::queue::{self, WithoutAlerts};
use super::standing::{self, Known};
use super::{episodes, figures, findings};
use crate::bisect::attempt_or_bisect;
use crate::error::Result;
use crate::events::{self, NewEvent};
use crate::owner::Owner;
use crate::spi::{self, Statement, values};
use crate::time::Instant;
use crate::{accounts, suggestions};
use std::collections::BTreeSet;
use uuid::Uuid;

/// What became of the owners of one or several evaluations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub evaluated: i64,
    pub fired: i64,
    pub recovered: i64,
    pub failed: i64,
    /// Somebody else is evaluating them, or has at a later instant.
    pub skipped: i64,
}

impl Counts {
    pub fn add(&mut self, other: Counts) {
        self.evaluated += other.evaluated;
        self.fired += other.fired;
        self.recovered += other.recovered;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

static NOTE: Statement = Statement::over_queue(
    "UPDATE exa_billing.spend_alert_states AS s
     SET last_evaluated_at = $4,
         last_anomaly_hour = greatest(s.last_anomaly_hour, o.anomaly_hour)
     FROM unnest($1, $2, $3) AS o(owner_kind, owner_id, anomaly_hour)
     WHERE s.owner_kind = o.owner_kind AND s.owner_id = o.owner_id",
);

/// Evaluates owners whose states the caller has locked. One that fails is put back into the queue
/// and stops no other.
///
/// Locks: none but theirs; what is written belongs to these owners.
pub fn evaluate(owners: &[Owner], moment: Moment) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut failed = Vec::new();
    attempt_or_bisect(
        owners,
        &mut |owners| match spi::in_subtransaction(|| evaluate_together(owners, moment)) {
            Ok(done) => {
                counts.add(done);
                Ok(Ok(done.evaluated))
            }
            Err(failure) if failure.is_of_surroundings() => failure.raise(),
            Err(failure) => Ok(Err(failure.message())),
        },
        &mut |owner, reason| {
            failed.push((owner.clone(), reason));
            Ok(())
        },
    )?;
    for (owner, reason) in failed {
        counts.add(put_back(&owner, &reason)?);
    }
    Ok(counts)
}

/// Reports an owner whose evaluation failed, and has it tried again later.
pub fn put_back(owner: &Owner, reason: &str) -> Result<Counts> {
    let kind = owner.kind.as_str();
    spi::warn(&format!("spend of {kind} {} could not be evaluated: {reason}", owner.id));
    queue::put_back(owner, reason)?;
    Ok(Counts { failed: 1, ..Counts::default() })
}

/// What is to be written about one owner.
struct Outcome {
    known: Known,
    decision: Decision,
    events: Vec<NewEvent>,
}

/// Evaluates all of them, or fails.
pub fn evaluate_together(owners: &[Owner], moment: Moment) -> Result<Counts> {
    let held = queue::hold(owners, moment.as_of)?;
    let (outcomes, suggested, later) = spi::on_fresh_snapshot(|| {
        let known = standing::read(owners)?;
        let figures = figures::read(&known, moment)?;
        let outcomes = known
            .into_iter()
            .zip(figures)
            .map(|(known, figures)| {
                let decision = known.standing.decide(moment, &figures);
                let event = |finding| findings::event(&known.owner, moment, finding);
                let events = decision.findings.iter().map(event).collect::<Result<_>>()?;
                Ok(Outcome { known, decision, events })
            })
            .collect::<Result<Vec<_>>>()?;
        let suggested = suggestions::read(owners, moment.as_of)?;
        Ok((outcomes, suggested, held.charged_later(moment.as_of)?))
    })?;
    suggestions::write(&suggested, moment.as_of)?;
    let counts = write(owners, moment.as_of, &outcomes)?;
    held.settle(moment.as_of, &later, &without_alerts(&outcomes))?;
    Ok(counts)
}

fn without_alerts(outcomes: &[Outcome]) -> WithoutAlerts<'_> {
    let known = outcomes.iter().map(|outcome| &outcome.known);
    known
        .filter(|known| !known.standing.settings.spend_alerts)
        .map(|known| (&known.owner, known.last_evaluated_at))
        .collect()
}

fn write(owners: &[Owner], as_of: Instant, outcomes: &[Outcome]) -> Result<Counts> {
    let events: Vec<NewEvent> =
        outcomes.iter().flat_map(|outcome| &outcome.events).cloned().collect();
    let new: BTreeSet<Uuid> = events::record(&events)?.into_iter().collect();
    let ended: Vec<_> = outcomes
        .iter()
        .flat_map(|outcome| outcome.decision.ended.iter().map(|kind| (&outcome.known.owner, *kind)))
        .collect();
    episodes::end(&ended)?;
    let begun: Vec<_> = outcomes
        .iter()
        .flat_map(|outcome| outcome.decision.findings.iter().zip(&outcome.events))
        .filter(|(finding, event)| new.contains(&event.id) && begins_episode(finding))
        .collect();
    episodes::begin(&begun)?;
    let (kinds, ids) = accounts::columns(owners);
    let anomaly_hours: Vec<Option<Instant>> = outcomes.iter().map(newest_anomaly).collect();
    NOTE.execute(values![kinds, ids, anomaly_hours, as_of])?;
    Ok(count(outcomes, &new))
}

fn begins_episode(finding: &Finding) -> bool {
    match finding {
        Finding::Anomaly { is_newest, .. } => *is_newest,
        Finding::Crossed { .. } => true,
        Finding::Recovered { .. } => false,
    }
}

fn newest_anomaly(outcome: &Outcome) -> Option<Instant> {
    let hours = outcome.decision.findings.iter().filter_map(|finding| match finding {
        Finding::Anomaly { hour, .. } => Some(*hour),
        _ => None,
    });
    hours.max()
}

fn count(outcomes: &[Outcome], new: &BTreeSet<Uuid>) -> Counts {
    let mut counts = Counts::default();
    for outcome in outcomes {
        counts.evaluated += 1;
        for (finding, event) in outcome.decision.findings.iter().zip(&outcome.events) {
            match finding {
                _ if !new.contains(&event.id) => {}
                Finding::Recovered { .. } => counts.recovered += 1,
                _ => counts.fired += 1,
            }
        }
    }
    counts
}
