//! Settings, evaluations, and what people and mailers do about alerts.

use super::{Cast, May, Scene, USD};
use crate::model::Model;
use crate::model::alerts::{SettingsChange, WINDOWS};
use crate::model::calendar::{HOUR, now};
use crate::step::{Step, Which};

impl Scene {
    fn threshold(&mut self) -> Option<i64> {
        match self.rng.u32(..4) {
            0 => None,
            1 => Some(self.rng.i64(1..500) * 10_000),
            2 if self.is_rich => Some(self.rng.i64(5..80) * USD),
            _ => Some(self.rng.i64(1..100_000)),
        }
    }

    /// Perhaps just what is spent, or left.
    fn threshold_near(&mut self, amount: i64) -> Option<i64> {
        if amount > 1 && self.percent(40) { self.near(amount) } else { self.threshold() }
    }

    pub fn settings(&mut self, cast: &Cast, model: &Model, may: May) -> Step {
        let owner = self.owner(cast);
        let as_of = self.at;
        let thresholds = WINDOWS.map(|(_, _, span)| {
            let spent = model.between(&owner, as_of - span, as_of);
            let total = spent.iter().map(|charge| charge.amount).sum();
            self.percent(40).then(|| self.threshold_near(total))
        });
        let left = model.balance(&owner, as_of);
        // Who is touched by another transaction must not be told of a low balance meanwhile.
        let may_have_minimum = self.has_minimums && may.touch_all;
        let change = SettingsChange {
            enabled: self.percent(70).then(|| self.percent(85)),
            anomalies: self.percent(15).then(|| self.percent(70)),
            suggestions: self.percent(15).then(|| self.percent(70)),
            thresholds,
            minimum: (may_have_minimum && self.percent(50)).then(|| self.threshold_near(left)),
            is_bad: self.percent(3),
        };
        let actor = self.pick(&cast.users);
        Step::Settings { owner, change, actor, as_of }
    }

    pub fn evaluation(&mut self, cast: &Cast, model: &Model) -> Step {
        let owner = self.owner(cast);
        let last = model.alerts.get(&owner).and_then(|alerts| alerts.evaluated_at);
        match (self.rng.u32(..100), last) {
            (0..5, Some(last)) => Step::Evaluate { owner, as_of: last - 1 },
            (5..7, _) => Step::Evaluate { owner, as_of: now() + HOUR },
            _ => Step::Evaluate { owner, as_of: self.at },
        }
    }

    /// Somebody acts upon an alert or a suggestion.
    pub fn reaction(&mut self, cast: &Cast, model: &Model) -> Option<Step> {
        let (owner, actor) = (self.owner(cast), self.pick(&cast.users));
        let alerts = model.alerts.get(&owner)?;
        if !alerts.suggestions.is_empty() && self.percent(40) {
            let place = self.rng.usize(..alerts.suggestions.len());
            let one = &alerts.suggestions[place];
            let (target, is_open) = (one.target.to_owned(), one.status == "open");
            return Some(Step::Dismiss { owner, place, target, is_open, actor });
        }
        let lasting: Vec<_> =
            alerts.episodes.iter().map(|(kind, one)| (*kind, one.event)).collect();
        let is_over = |place: &usize| {
            !alerts.events[*place].is_gone && lasting.iter().all(|(_, event)| event != place)
        };
        let stale = (0..alerts.events.len()).find(is_over);
        let alert = match (self.rng.u32(..10), lasting.is_empty(), stale) {
            (0, ..) => Which::Unknown,
            (1..4, _, Some(event)) => Which::Stale(event),
            (_, false, _) => {
                let (kind, event) = self.pick(&lasting);
                Which::Lasting(kind, event)
            }
            _ => return None,
        };
        Some(Step::Review { owner, alert, actor })
    }

    /// A mailer at work.
    pub fn mail(&mut self, model: &Model) -> Step {
        let mut known = Vec::new();
        for (owner, alerts) in &model.alerts {
            for (place, one) in alerts.deliveries.iter().enumerate() {
                if !one.token.is_empty() {
                    known.push((owner.clone(), place, one.id.clone(), one.token.clone()));
                }
            }
        }
        if known.is_empty() || self.percent(40) {
            return Step::Claim { is_short: self.percent(50) };
        }
        let (owner, place, id, token) = self.pick(&known);
        let stale = "00000000-0000-4000-8000-000000000000".to_owned();
        let token = if self.percent(10) { stale } else { token };
        Step::Finish { owner, place, id, token, is_sent: self.percent(60) }
    }
}
