//! A step as the model takes it: what the product should have answered.

use crate::model::calendar::{HOUR, SECOND, now};
use crate::model::{At, BAD, Degraded, Model, Owner, Refused, UNKNOWN};
use crate::step::{Step, Total, Which};

/// A row of an answer: an id, an instant, a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    pub id: Option<String>,
    pub at: Option<At>,
    pub line: Option<String>,
}

/// What the product said: rows, or an SQLSTATE.
pub type Answer = Result<Vec<Row>, String>;

/// What it should have said. A row without an id may have any.
pub type Expected = Result<Vec<Row>, Refused>;

fn one(line: impl ToString) -> Expected {
    Ok(vec![Row { line: Some(line.to_string()), ..Row::default() }])
}

fn nothing() -> Expected {
    one("")
}

fn id(id: String) -> Expected {
    Ok(vec![Row { id: Some(id), ..Row::default() }])
}

fn lines(lines: Vec<String>) -> Expected {
    let row = |line| Row { line: Some(line), ..Row::default() };
    Ok(lines.into_iter().map(row).collect())
}

/// Takes a step. Out of the answer come the names and times that the product alone gives: ids, and
/// instants that the call left to it. `busy` are the owners another transaction may have locked.
pub fn apply(
    model: &mut Model,
    step: &Step,
    answer: &Answer,
    asked_at: At,
    busy: &[Owner],
) -> Expected {
    model.step += 1;
    let first = answer.as_ref().ok().and_then(|rows| rows.first().cloned()).unwrap_or_default();
    let new_id = first.id.clone().unwrap_or_default();
    let given_at = first.at.unwrap_or(asked_at);
    let clock = now();
    match step {
        Step::Record(ask) => one(model.record(ask, first.at, clock)?),
        Step::Respond { ask, total, request_id } => {
            let cost = match total {
                _ if !ask.path.starts_with('/') => return Err(BAD),
                Total::Bad(_) => return Err(BAD),
                Total::Number(_, None) => return one("- - - - -"),
                Total::Number(_, Some(cost)) => *cost,
            };
            let mut ask = ask.clone();
            ask.cost = cost;
            ask.key = ask.key.or(request_id.clone());
            one(model.record(&ask, first.at, clock)?)
        }
        Step::Batch(asks) => {
            let rows = answer.as_ref().map(Vec::as_slice).unwrap_or_default();
            let given_at: Vec<Option<At>> = rows.iter().map(|row| row.at).collect();
            lines(model.record_all(asks, &given_at, clock)?)
        }
        Step::Pay(pay) => one(model.pay(pay, first.at, clock)?),
        Step::Give(give) => id(model.give(give, &new_id, given_at, clock)?),
        Step::Adjust(give) => id(model.adjust(give, &new_id, given_at, clock)?),
        Step::Open(opening) => id(model.open(opening, &new_id, clock)?),
        Step::Expire { owner, as_of } => {
            one(model.expire(owner, as_of.unwrap_or(asked_at), clock)?)
        }
        Step::ExpireDue { as_of } => {
            let owners: Vec<Owner> =
                model.entries.iter().map(|entry| entry.owner.clone()).collect();
            for owner in owners {
                model.expire(&owner, *as_of, clock)?;
            }
            one(true)
        }
        Step::CloseOut { owner, as_of } => {
            // As of now is answered by the dates of the rows; only their order counts here.
            one(model.close_out(owner, as_of.unwrap_or(asked_at), clock)?)
        }
        Step::Recompute { owner, .. } => one(model.recompute(owner)),
        Step::Policy(policy) => {
            model.set_policy(policy.clone())?;
            nothing()
        }
        Step::Member(member) => {
            model.set_member(member.clone());
            nothing()
        }
        Step::Leave { organization, user } => {
            model.remove_member(organization, user);
            nothing()
        }
        Step::Post { .. } => {
            model.post(busy);
            one(true)
        }
        Step::Retry | Step::Rebuild { .. } => one(0),
        Step::Degrade { owner, from, to, reason } => {
            let (owner, reason) = (owner.clone(), reason.clone());
            let (from, to, is_open) = (*from, *to, true);
            let new = Degraded { id: new_id, owner, from, to, reason, is_open };
            id(model.degrade(new))
        }
        Step::Resolve { id } => {
            let mut known = model.degraded.iter_mut();
            let found = known.find(|one| Some(&one.id) == id.as_ref()).ok_or(UNKNOWN)?;
            one(std::mem::replace(&mut found.is_open, false))
        }
        Step::Attach { table, attached, backfill } => {
            one(model.attach(table, attached.clone(), *backfill, asked_at)?)
        }
        Step::Detach { table } => one(model.detach(table, asked_at)?),
        Step::Change { table, change, .. } => {
            model.change(table, change)?;
            Ok(Vec::new())
        }
        Step::Settings { owner, change, actor, as_of } => {
            one(model.change_settings(owner, change, actor, *as_of)?)
        }
        Step::Evaluate { owner, as_of } => one(model.evaluate(owner, *as_of, clock)?),
        Step::Sweep { as_of } => {
            sweep(model, *as_of);
            one(true)
        }
        Step::EvaluateDue { as_of } => {
            for owner in std::mem::take(&mut model.posted) {
                model.evaluate_at(&owner, *as_of, false);
            }
            one(0)
        }
        Step::Review { owner, alert, actor } => {
            let event = match alert {
                Which::Lasting(_, event) | Which::Stale(event) => Some(*event),
                Which::Unknown => None,
            };
            one(model.review(owner, event, actor)?)
        }
        Step::Dismiss { owner, place, actor, .. } => one(model.dismiss(owner, *place, actor)),
        Step::Claim { is_short } => claim(model, *is_short, answer, clock),
        Step::Finish { owner, place, token, is_sent, .. } => {
            finish(model, owner, *place, (token, *is_sent), clock)
        }
        Step::ForgetEvents => {
            model.forget_events(clock);
            one(true)
        }
        Step::Erase { user } => {
            model.erase(user);
            nothing()
        }
    }
}

/// Everybody who has settings or a suggestion, or has spent lately, and was not evaluated later.
fn sweep(model: &mut Model, as_of: At) {
    let since = as_of - 7 * 24 * HOUR - HOUR;
    let spent = model.charges().into_iter().filter(|charge| charge.at >= since);
    let mut owners: Vec<Owner> = spent.map(|charge| charge.owner).collect();
    let told = model.alerts.iter().filter(|(_, alerts)| {
        alerts.has_settings || alerts.suggestions.iter().any(|one| one.status == "open")
    });
    owners.extend(told.map(|(owner, _)| owner.clone()));
    owners.sort();
    owners.dedup();
    for owner in owners {
        if model.alerts_of(&owner).evaluated_at.is_none_or(|last| last <= as_of) {
            model.evaluate_at(&owner, as_of, true);
        }
    }
}

/// The lease that mailers ask for, and the first pause after a failure; a little less of each.
const LEASE: At = 290 * SECOND;
const PAUSE: At = 50 * SECOND;

/// Hands out what is due. Of deliveries that say the same, any may be the one.
fn claim(model: &mut Model, is_short: bool, answer: &Answer, clock: At) -> Expected {
    let mut handed_out: Vec<Row> = answer.clone().unwrap_or_default();
    let mut rows = Vec::new();
    let owners: Vec<Owner> = model.alerts.keys().cloned().collect();
    for owner in owners {
        let members = model.members.clone();
        let alerts = model.alerts_of(&owner);
        for delivery in &mut alerts.deliveries {
            let is_open = ["pending", "sending"].contains(&delivery.status);
            if !is_open || delivery.rests_until.is_some() {
                continue;
            }
            let may_hear = !owner.is_organization
                || members.iter().any(|one| {
                    one.organization == owner.id
                        && one.user == delivery.recipient
                        && one.role != "member"
                });
            if delivery.attempts >= 5 {
                delivery.status = "dead";
            } else if !may_hear {
                delivery.status = "skipped";
            } else {
                delivery.status = "sending";
                delivery.attempts += 1;
                delivery.rests_until = (!is_short).then_some(clock + LEASE);
                let event = &alerts.events[delivery.event];
                let line = format!(
                    "{} {} {} {} {} {}",
                    owner.kind(),
                    owner.id,
                    delivery.recipient,
                    event.kind,
                    event.alert.unwrap_or("-"),
                    delivery.attempts
                );
                let found = handed_out.iter().position(|row| row.line.as_ref() == Some(&line));
                if let Some((id, token)) = found.and_then(|found| {
                    handed_out
                        .swap_remove(found)
                        .id?
                        .split_once(' ')
                        .map(|(id, token)| (id.to_owned(), token.to_owned()))
                }) {
                    (delivery.id, delivery.token) = (id, token);
                }
                rows.push(line);
            }
        }
    }
    rows.sort();
    lines(rows)
}

fn finish(
    model: &mut Model,
    owner: &Owner,
    place: usize,
    (token, is_sent): (&str, bool),
    clock: At,
) -> Expected {
    let delivery = &mut model.alerts_of(owner).deliveries[place];
    let is_held = delivery.status == "sending" && delivery.token == token;
    match (is_held, is_sent) {
        (true, true) => {
            delivery.status = "sent";
            one(true)
        }
        (false, true) => one(delivery.status == "sent" && delivery.token == token),
        (true, false) if delivery.attempts < 5 => {
            (delivery.status, delivery.rests_until) = ("pending", Some(clock + PAUSE));
            one("pending")
        }
        (true, false) => {
            delivery.status = "dead";
            one("dead")
        }
        // A token of before changes nothing.
        (false, false) => Ok(vec![Row::default()]),
    }
}
