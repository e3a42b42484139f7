//! The end of a history: people react to what has come up, then everything is looked at.

use super::Play;
use crate::check;
use crate::model::calendar::now;
use crate::model::credit::Give;
use crate::plan::Cast;
use crate::step::Step;

impl Play<'_> {
    /// Everybody's journals and some of everybody's figures, all there are of somebody; and more
    /// when all is posted.
    pub fn end(&mut self) {
        self.end_beside();
        let cast = self.scene.cast.clone();
        let owners = cast.owners();
        self.react(&cast);
        if self.scene.percent(50) {
            self.ask_at_the_edge(&cast);
        }
        let thorough = self.scene.rng.usize(..owners.len());
        for (place, owner) in owners.iter().enumerate() {
            let session = self.scene.rng.usize(..4);
            let count = if place == thorough { usize::MAX } else { 2 };
            let mut looks = self.some_looks(&self.model.clone(), owner, &cast.users, count);
            if self.scene.percent(5) {
                looks.push(check::proof(owner));
            }
            looks.extend(check::journals(&self.model, owner));
            self.see(session, looks);
        }
        self.step(0, Step::Post { max_rows: 1_000_000 });
        if self.scene.percent(20) {
            self.step(0, Step::EvaluateDue { as_of: now() });
        }
        let owner = self.scene.pick(&owners);
        let mut looks = self.some_looks(&self.model.clone(), &owner, &cast.users, 3);
        looks.extend(check::posted(&self.model, &owner, self.scene.start));
        self.see(0, looks);
        if let Some(table) = self.scene.table.clone() {
            self.leave_table(&table);
        }
    }

    /// People and mailers do something about what has come up.
    fn react(&mut self, cast: &Cast) {
        if self.scene.percent(40) {
            let (owner, as_of) = (self.scene.owner(cast), self.scene.at);
            if self.scene.percent(40)
                && let Some(pay) = self.scene.provocation(&owner, &self.model, cast)
            {
                self.step(0, Step::Pay(pay));
            }
            self.step(3, Step::Evaluate { owner, as_of });
        }
        let has_mail = self.model.alerts.values().any(|alerts| !alerts.deliveries.is_empty());
        if has_mail && self.scene.percent(40) {
            self.step(1, Step::Claim { is_short: true });
        }
        for _ in 0..3 {
            if has_mail && self.scene.percent(50) {
                let step = self.scene.mail(&self.model);
                self.step(0, step);
            }
            if self.scene.percent(40)
                && let Some(step) = self.scene.reaction(cast, &self.model)
            {
                self.step(2, step);
            }
        }
    }

    /// The next histories are not to be slowed down by this one's table; detaching changes nothing.
    fn leave_table(&mut self, table: &str) {
        let is_attached = |one: &crate::model::tables::Table| one.attached.is_some();
        if self.model.tables.iter().any(is_attached) {
            self.step(0, Step::Detach { table: table.to_owned() });
            let cast = self.scene.cast.clone();
            let owner = self.scene.owner(&cast);
            let looks = self.some_looks(&self.model.clone(), &owner, &cast.users, 5);
            self.see(0, looks);
        }
        self.say(0, &format!("drop table public.{table}"));
    }

    /// May somebody ask who has spent just as much as they may, of just what is left?
    fn ask_at_the_edge(&mut self, cast: &Cast) {
        let (owner, as_of) = (self.scene.owner(cast), self.scene.at);
        let user = self.scene.pick(&cast.users);
        let more = if self.scene.percent(50) { 0 } else { 1_000_000 };
        let amount = more - self.model.balance(&owner, now()) + self.scene.rng.i64(-1..=1);
        let adjustment = Give {
            owner: owner.clone(),
            amount,
            expiry: None,
            category: Some("accounting_adjustment".to_owned()),
            description: Some("to the edge".to_owned()),
            is_free: true,
            key: None,
            at: None,
        };
        self.step(0, Step::Adjust(adjustment));
        if owner.is_organization {
            let member = self.scene.new_member(&self.model, &owner.id, &user);
            self.step(1, Step::Member(member));
        }
        let (model, users) = (&self.model.clone(), &[user]);
        let view = check::View { model, owner: &owner, users, as_of, draw: 0 };
        self.see(2, vec![check::decision(&view)]);
    }
}
