//! Charges: requests, answers, other spend; and what had a key once more.

use super::{Cast, Scene, USD};
use crate::model::calendar::{HOUR, hour_of, now};
use crate::model::usage::{Ask, Pay};
use crate::model::{MAX_AMOUNT, Model, Owner};
use crate::step::{Step, Total};

impl Scene {
    pub fn ask(&mut self, cast: &Cast) -> Ask {
        let to_organization = !cast.organizations.is_empty() && self.percent(40);
        let paths = ["/search", "/contents", "/findSimilar", "/answer", "/context", "/research/v1"];
        let cost = match self.rng.u32(..100) {
            0..4 => 0,
            4 => -1,
            5 => MAX_AMOUNT + 1,
            _ => self.amount(),
        };
        Ask {
            user: self.pick(&cast.users),
            path: if self.percent(2) { "search".to_owned() } else { self.pick(&paths).to_owned() },
            cost,
            organization: to_organization.then(|| self.pick(&cast.organizations)),
            key: self.key(),
            at: self.maybe_time(),
            feature: self.some(20, &["chat", "batch job"]),
            kind: self.some(20, &["neural", "keyword"]),
        }
    }

    pub fn respond(&mut self, cast: &Cast) -> Step {
        let mut ask = self.ask(cast);
        ask.cost = 1;
        let micros = self.rng.i64(1..3_000_000);
        let (whole, part) = (micros / USD, micros % USD);
        let total = match self.rng.u32(..20) {
            0 => Total::Number("null".to_owned(), None),
            1 => Total::Number("0.000".to_owned(), None),
            2 => Total::Bad("\"0.005\""),
            3 => Total::Bad("-0.001"),
            4 => Total::Bad("0.0000004"),
            5 => Total::Bad("1e300"),
            // Half a microdollar and more is one more.
            6..9 => Total::Number(format!("{whole}.{part:06}5"), Some(micros + 1)),
            9..12 => Total::Number(format!("{whole}.{part:06}49999"), Some(micros)),
            12 => Total::Number(format!("{micros}e-6"), Some(micros)),
            _ => Total::Number(format!("{whole}.{part:06}"), Some(micros)),
        };
        let request_id = self.percent(60).then(|| format!("req {}", self.number()));
        Step::Respond { ask, total, request_id }
    }

    /// One owner spends enough on one model that something cheaper is suggested.
    pub fn spree(&mut self, cast: &Cast) -> Vec<Pay> {
        let owner = self.owner(cast);
        let pays = (0..3).map(|_| Pay {
            owner: owner.clone(),
            amount: self.rng.i64(20..50) * USD,
            category: "variable",
            model: "minimax/minimax-m3".to_owned(),
            provider: "minimax".to_owned(),
            at: Some(self.at),
            require_balance: false,
            ..self.pay(cast)
        });
        pays.collect()
    }

    /// Two days of an owner's hours, with which another one can be compared.
    pub fn habit(&mut self, cast: &Cast) -> Vec<Ask> {
        let (user, hours) = (self.pick(&cast.users), self.rng.i64(20..60));
        let asks = (1..=hours).filter_map(|back| {
            let ask = Ask {
                user: user.clone(),
                cost: self.rng.i64(1..12) * USD / 2,
                organization: None,
                at: Some(self.at - back * HOUR),
                path: "/search".to_owned(),
                ..self.ask(cast)
            };
            self.percent(85).then_some(ask)
        });
        asks.collect()
    }

    /// A charge that makes this hour just unusual, or not quite.
    pub fn provocation(&mut self, owner: &Owner, model: &Model, cast: &Cast) -> Option<Pay> {
        let missing = model.missing_to_unusual(owner, self.at);
        let at = Some(self.at - 1).filter(|at| hour_of(*at) == hour_of(self.at));
        let (owner, category, require_balance) = (owner.clone(), "variable", false);
        let amount = self.near(missing).filter(|_| at.is_some())?;
        Some(Pay { owner, amount, category, at, require_balance, key: None, ..self.pay(cast) })
    }

    /// Perhaps of all that is left.
    pub fn pay_once(&mut self, cast: &Cast, model: &Model) -> Pay {
        let mut pay = self.pay(cast);
        let left = model.balance(&pay.owner, now());
        if left > 0 && self.percent(15) {
            (pay.amount, pay.require_balance) = (self.near(left).unwrap_or(left), true);
        }
        pay
    }

    pub fn pay(&mut self, cast: &Cast) -> Pay {
        let owner = self.owner(cast);
        let (actors, amount) = (cast.users.clone(), self.amount());
        let models = ["minimax/minimax-m3", "claude", "gpt 5", " padded "];
        let sources = ["ai_gateway", "kiloclaw", "coding_plan", "other", "my shop"];
        Pay {
            owner,
            amount: if self.percent(2) { 0 } else { amount },
            category: if self.percent(75) { "variable" } else { "scheduled" },
            source: self.pick(&sources).to_owned(),
            product: self.pick(&["llm", "claw", "-dash"]).to_owned(),
            feature: self.pick(&["other", "agent"]).to_owned(),
            model: self.pick(&models).to_owned(),
            provider: if self.percent(60) { "minimax" } else { "other" }.to_owned(),
            actor: self.percent(30).then(|| self.pick(&actors)),
            key: self.key(),
            at: self.maybe_time(),
            require_balance: self.percent(20),
        }
    }

    /// A step with a key once more: the same, or something else under the same key.
    pub fn again(&mut self, cast: &Cast) -> Option<Step> {
        let is_of = |owner: &Owner| {
            if owner.is_organization {
                cast.organizations.contains(&owner.id)
            } else {
                cast.users.contains(&owner.id)
            }
        };
        let may = |step: &&Step| match step {
            Step::Record(ask) | Step::Respond { ask, .. } => {
                is_of(&ask.owner()) && cast.users.contains(&ask.user)
            }
            Step::Pay(pay) => is_of(&pay.owner),
            Step::Give(give) | Step::Adjust(give) => is_of(&give.owner),
            Step::Open(opening) => is_of(&opening.owner),
            _ => false,
        };
        let past: Vec<Step> = self.past.iter().filter(may).cloned().collect();
        if past.is_empty() {
            return None;
        }
        let mut step = self.pick(&past);
        let (change, at) = (self.rng.u32(..100), self.time());
        match &mut step {
            Step::Record(ask) | Step::Respond { ask, .. } => match change {
                0..12 => ask.cost += 1,
                12..18 => ask.path = "/other".to_owned(),
                18..24 => ask.feature = Some("another".to_owned()),
                24..34 => ask.at = None,
                34..42 => ask.at = Some(at),
                _ => {}
            },
            Step::Pay(pay) => match change {
                0..12 => pay.amount += 1,
                12..18 => pay.model = "another".to_owned(),
                18..24 => pay.require_balance = !pay.require_balance,
                24..34 => pay.at = None,
                34..42 => pay.at = Some(at),
                _ => {}
            },
            Step::Give(give) => match change {
                0..12 => give.amount += 1,
                12..20 => give.is_free = !give.is_free,
                20..30 => give.at = None,
                _ => {}
            },
            Step::Adjust(give) if change < 20 => give.amount += 1,
            Step::Open(opening) if change < 20 => opening.used += 1,
            _ => {}
        }
        Some(step)
    }
}

impl Step {
    /// Whether it can be tried again.
    pub fn has_key(&self) -> bool {
        match self {
            Step::Record(ask) => ask.key.is_some(),
            Step::Respond { ask, request_id, .. } => ask.key.is_some() || request_id.is_some(),
            Step::Pay(pay) => pay.key.is_some(),
            Step::Give(give) | Step::Adjust(give) => give.key.is_some(),
            Step::Open(_) => true,
            _ => false,
        }
    }
}
