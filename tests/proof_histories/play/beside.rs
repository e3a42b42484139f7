//! Transactions of several steps, by themselves and beside the work of others.

use super::Play;
use crate::apply::{Answer, apply};
use crate::model::{At, Model, Owner};
use crate::plan::{Cast, May};
use crate::step::Step;

/// A transaction that others go on beside.
pub struct Open {
    pub session: usize,
    pub model: Model,
    pub cast: Cast,
    steps: Vec<(Step, Answer, At)>,
    /// Where its savepoint stands.
    saved: Option<(Model, usize)>,
}

impl Play<'_> {
    /// A transaction by itself: some steps, perhaps a part of them undone, then all or nothing.
    pub fn whole_transaction(&mut self) {
        if self.open.is_some() {
            return;
        }
        let (session, cast) = (self.idle_session(), self.scene.cast.clone());
        let may = self.may(session);
        let (before, mut saved) = (self.model.clone(), None);
        self.say(session, "begin");
        for _ in 0..self.scene.rng.usize(1..5) {
            if saved.is_none() && self.scene.percent(30) {
                self.say(session, "savepoint s");
                saved = Some(self.model.clone());
            }
            let Some(step) = self.scene.step(&cast, &self.model, may) else { continue };
            if !step.may_be_undone() {
                continue;
            }
            let (said, asked_at) = self.ask(session, &step);
            let mut model = self.model.clone();
            let expected = apply(&mut model, &step, &said, asked_at, &[]);
            self.compare(&step, &said, &expected);
            match (expected, &saved) {
                (Ok(_), _) => self.model = model,
                (Err(_), Some(saved)) => {
                    self.model = saved.clone();
                    self.say(session, "rollback to s");
                }
                (Err(_), None) => {
                    self.model = before;
                    return self.say(session, "rollback");
                }
            }
        }
        if let Some(saved) = saved.filter(|_| self.scene.percent(50)) {
            self.model = saved;
            self.say(session, "rollback to s");
        }
        if self.scene.percent(50) {
            self.say(session, "commit");
        } else {
            self.model = before;
            self.say(session, "rollback");
        }
    }

    /// Begins a transaction that stays open while others work. It has some owners for itself.
    pub fn begin_beside(&mut self) {
        let session = self.idle_session();
        let all = self.scene.cast.clone();
        let has_minimum = |owner: &Owner| {
            self.model.alerts.get(owner).is_some_and(|alerts| alerts.settings.minimum.is_some())
        };
        let users = all.users.iter().filter(|user| !has_minimum(&Owner::user(user)));
        let organizations =
            all.organizations.iter().filter(|one| !has_minimum(&Owner::organization(one)));
        let cast = Cast {
            users: users.take(1).cloned().collect(),
            organizations: organizations.take(1).cloned().collect(),
        };
        if cast.users.is_empty() {
            return;
        }
        // The snapshot of a strict one is of this moment.
        self.say(session, "begin");
        self.say(session, "select 1");
        let (model, steps, saved) = (self.model.clone(), Vec::new(), None);
        self.open = Some(Open { session, model, cast, steps, saved });
    }

    pub fn step_beside(&mut self) {
        let Some(mut open) = self.open.take() else { return };
        let may = May { touch_all: false, post: false, read_committed: false };
        if open.saved.is_none() && self.scene.percent(25) {
            self.say(open.session, "savepoint s");
            open.saved = Some((open.model.clone(), open.steps.len()));
        }
        let step = if self.scene.percent(15) {
            self.scene.insertion(&open.cast)
        } else {
            self.scene.step(&open.cast, &open.model, may)
        };
        let Some(step) = step else {
            self.open = Some(open);
            return;
        };
        let (said, asked_at) = self.ask(open.session, &step);
        let mut model = open.model.clone();
        let expected = apply(&mut model, &step, &said, asked_at, &[]);
        self.compare(&step, &said, &expected);
        match (expected, open.saved.clone()) {
            (Ok(_), _) => {
                open.model = model;
                open.steps.push((step, said, asked_at));
            }
            (Err(_), Some((model, steps))) => {
                open.model = model;
                open.steps.truncate(steps);
                self.say(open.session, "rollback to s");
            }
            (Err(_), None) => return self.say(open.session, "rollback"),
        }
        self.open = Some(open);
    }

    /// Ends it, if there is one. What was committed meanwhile concerned others, so its steps count as if they came
    /// only now.
    pub fn end_beside(&mut self) {
        let Some(open) = self.open.take() else { return };
        if self.scene.percent(45) {
            return self.say(open.session, "rollback");
        }
        self.say(open.session, "commit");
        for (step, said, asked_at) in &open.steps {
            if apply(&mut self.model, step, said, *asked_at, &[]).is_err() {
                self.fail("the model would not take what was committed");
            }
        }
    }
}

impl Step {
    /// What takes locks that last, or needs a transaction of its own, is done outside of others.
    fn may_be_undone(&self) -> bool {
        !matches!(self, Step::Claim { .. } | Step::Sweep { .. } | Step::EvaluateDue { .. })
    }
}
