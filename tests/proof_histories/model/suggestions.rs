//! What might cost less: by the rules that the books come with.

use super::alerts::Event;
use super::calendar::{DAY, HOUR};
use super::evidence::Sums;
use super::{At, Model, Owner};
use std::collections::BTreeMap;

const USD: i64 = 1_000_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suggestion {
    pub kind: &'static str,
    pub target: &'static str,
    pub status: &'static str,
    pub observed: i64,
    /// When there was last ground for it.
    pub grounded_at: At,
}

impl Model {
    /// What an owner's last seven days give ground for, the first rule first.
    fn grounds(&self, owner: &Owner, as_of: At) -> Vec<(&'static str, &'static str, i64)> {
        let charges = self.between(owner, as_of - 7 * DAY, as_of);
        let mut models: BTreeMap<(&str, &str), i64> = BTreeMap::new();
        for charge in charges.iter().filter(|charge| charge.purpose.category == "variable") {
            let key = (charge.purpose.provider.as_str(), charge.purpose.model.as_str());
            *models.entry(key).or_default() += charge.amount;
        }
        let largest = models.values().max().copied().unwrap_or_default();
        let top = models.iter().find(|(_, amount)| **amount == largest).map(|(key, _)| *key);
        let mut grounds = Vec::new();
        if top == Some(("minimax", "minimax/minimax-m3")) && largest >= 50 * USD {
            grounds.push(("coding_plan", "minimax-coding-plan", largest));
        }
        let total = Sums::of(charges.iter()).total();
        if !owner.is_organization && total >= 100 * USD {
            grounds.push(("kilo_pass", "kilo-pass-expert", total));
        }
        grounds
    }

    pub fn suggest(&mut self, owner: &Owner, as_of: At) {
        let grounds = self.grounds(owner, as_of);
        let alerts = self.alerts_of(owner);
        if !alerts.settings.suggestions {
            return;
        }
        let known = alerts.suggestions.clone();
        for open in alerts.suggestions.iter_mut().filter(|one| one.status == "open") {
            match grounds.iter().find(|ground| ground.1 == open.target) {
                Some(&(_, _, observed)) => {
                    let is_noted = open.observed == observed && as_of < open.grounded_at + HOUR;
                    if !is_noted {
                        (open.observed, open.grounded_at) = (observed, as_of);
                    }
                }
                None if open.grounded_at + 30 * DAY <= as_of => open.status = "closed",
                None => {}
            }
        }
        let Some(&(kind, target, observed)) = grounds.first() else { return };
        let mut same = known.iter().filter(|one| one.target == target);
        let is_open = same.clone().any(|one| one.status == "open");
        // A dismissed one comes back when half as much again was spent.
        let last = same.rfind(|one| one.status == "dismissed");
        if is_open || last.is_some_and(|last| observed * 2 < last.observed * 3) {
            return;
        }
        let (status, grounded_at) = ("open", as_of);
        alerts.suggestions.push(Suggestion { kind, target, status, observed, grounded_at });
        self.note_suggestion(owner, "suggestion_created", kind, None, Some(as_of));
    }

    fn note_suggestion(
        &mut self,
        owner: &Owner,
        kind: &'static str,
        suggestion: &'static str,
        actor: Option<&str>,
        at: Option<At>,
    ) {
        self.alerts_of(owner).events.push(Event {
            kind,
            alert: None,
            suggestion: Some(suggestion),
            actor: actor.map(str::to_owned),
            at,
            figures: String::new(),
            about: None,
            is_gone: false,
        });
    }

    /// Puts a suggestion away; says whether it was open.
    pub fn dismiss(&mut self, owner: &Owner, place: usize, actor: &str) -> bool {
        let one = &mut self.alerts_of(owner).suggestions[place];
        if one.status != "open" {
            return false;
        }
        one.status = "dismissed";
        let kind = one.kind;
        self.note_suggestion(owner, "suggestion_dismissed", kind, Some(actor), None);
        true
    }
}
