//! A history as it is played: steps by several sessions, transactions that end this way or that, and
//! the model beside it.

use crate::apply::{Answer, Expected, apply};
use crate::check;
use crate::model::calendar::{now, on};
use crate::model::{At, Model, Owner};
use crate::place::{Place, answer};
use crate::plan::{Cast, May, Scene};
use crate::step::{Step, create_table, micros};

/// A transaction that others go on beside.
struct Open {
    session: usize,
    model: Model,
    cast: Cast,
    steps: Vec<(Step, Answer, At)>,
    /// Where its savepoint stands.
    saved: Option<(Model, usize)>,
}

pub struct Play<'a> {
    place: &'a mut Place,
    scene: Scene,
    model: Model,
    open: Option<Open>,
    log: Vec<String>,
}

const SESSION_NAMES: [&str; 4] = ["plain", "odd", "serial", "repeat"];
/// From here on they are above READ COMMITTED.
const STRICT: usize = 2;

/// Plays the history of a seed.
pub fn play(place: &mut Place, seed: u64, steps: usize) {
    place.prepare();
    let scene = Scene::new(seed);
    let mut play = Play { place, scene, model: Model::default(), open: None, log: Vec::new() };
    play.begin();
    // A restart in the midst of every fiftieth history, each second one of them a crash.
    let restart_at = seed.is_multiple_of(50).then(|| play.scene.rng.usize(..steps));
    for number in 0..steps {
        if restart_at == Some(number) {
            play.restart(if seed.is_multiple_of(100) { "immediate" } else { "fast" });
        }
        play.turn();
    }
    play.end();
}

impl Play<'_> {
    fn fail(&self, what: &str) -> ! {
        let seed = self.scene.seed;
        panic!("history {seed}:\n{}\n\n{what}\n", self.log.join("\n"))
    }

    /// Policies of everybody, so that nothing of former histories matters; members; a table.
    fn begin(&mut self) {
        let may = May { touch_all: true, post: true, read_committed: true };
        let cast = self.scene.cast.clone();
        let months = [(2024, 1), (2024, 2), (2024, 3), (2024, 4), (2024, 5)];
        for (year, number) in months.into_iter().chain([(2024, 12), (2025, 1), (2025, 2)]) {
            let month = on(year, number, 1, 0);
            let (amount, rule) = match self.scene.rng.u32(..4) {
                0 => (None, None),
                1 => (Some(0), None),
                _ => (Some(self.scene.rng.i64(1..20_000)), Some("split")),
            };
            let user = None;
            let policy = crate::model::usage::Policy { user, month, amount, rule };
            self.step(0, Step::Policy(policy));
        }
        for organization in &cast.organizations {
            for user in &cast.users {
                if self.scene.percent(75) {
                    let member = self.scene.member(organization, user);
                    self.step(0, Step::Member(member));
                }
            }
        }
        if self.scene.percent(12) {
            let habit = self.scene.habit(&cast);
            self.step(0, Step::Batch(habit));
        }
        if self.scene.is_rich && self.scene.percent(40) {
            for pay in self.scene.spree(&cast) {
                self.step(1, Step::Pay(pay));
            }
        }
        if let Some(table) = self.scene.table.clone() {
            self.say(0, &create_table(&table));
            if let Some(step) = self.scene.table_step(&cast, &self.model, may) {
                self.step(0, step);
            }
        }
    }

    fn turn(&mut self) {
        self.scene.go_on();
        match self.scene.rng.u32(..100) {
            0..6 => self.whole_transaction(),
            6..12 => match self.open {
                None => self.begin_beside(),
                Some(_) => self.end_beside(),
            },
            12..30 if self.open.is_some() => self.step_beside(),
            30..36 => self.look(),
            _ => self.step_alone(),
        }
    }

    /// Who may be touched by others than the open transaction.
    fn others(&self) -> Cast {
        let mut cast = self.scene.cast.clone();
        if let Some(open) = &self.open {
            cast.users.retain(|user| !open.cast.users.contains(user));
            cast.organizations.retain(|one| !open.cast.organizations.contains(one));
        }
        cast
    }

    fn busy(&self) -> Vec<Owner> {
        let Some(open) = &self.open else { return Vec::new() };
        let users = open.cast.users.iter().map(|user| Owner::user(user));
        let organizations = open.cast.organizations.iter().map(|one| Owner::organization(one));
        users.chain(organizations).collect()
    }

    /// A session that is in no transaction.
    fn idle_session(&mut self) -> usize {
        let taken = self.open.as_ref().map(|open| open.session);
        let idle: Vec<usize> = (0..4).filter(|session| Some(*session) != taken).collect();
        self.scene.pick(&idle)
    }

    fn may(&self, session: usize) -> May {
        let is_alone = self.open.is_none();
        // At the strict levels a posting beside would rightly end in 40001.
        let beside = self.open.as_ref().is_none_or(|open| open.session < STRICT);
        May {
            touch_all: is_alone,
            post: is_alone || (beside && !self.scene.has_minimums),
            read_committed: session < STRICT,
        }
    }

    fn step_alone(&mut self) {
        let (session, cast) = (self.idle_session(), self.others());
        if cast.users.is_empty() {
            return;
        }
        let may = self.may(session);
        if may.touch_all && self.scene.percent(2) {
            return self.sweep(session);
        }
        if let Some(step) = self.scene.step(&cast, &self.model, may) {
            self.step(session, step);
        }
    }

    /// A sweep looks at those who have accounts, so that everything is posted first.
    fn sweep(&mut self, session: usize) {
        self.step(0, Step::Post { max_rows: 1_000_000 });
        self.step(session, Step::Sweep { as_of: self.scene.at });
    }

    /// Takes a step outside of transactions.
    fn step(&mut self, session: usize, step: Step) {
        let busy = self.busy();
        let (said, asked_at) = self.ask(session, &step);
        let mut model = self.model.clone();
        let expected = apply(&mut model, &step, &said, asked_at, &busy);
        self.compare(&step, &said, &expected);
        if expected.is_ok() {
            self.model = model;
        }
    }

    /// Notes what a session does, without the columns that are asked for.
    fn note(&mut self, session: usize, sql: &str) {
        let call = sql.find("exa_billing.").map_or(sql, |begin| &sql[begin..]);
        let call: Vec<&str> = call.split_whitespace().collect();
        self.log.push(format!("{:>6}: {}", SESSION_NAMES[session], call.join(" ")));
    }

    fn say(&mut self, session: usize, sql: &str) {
        self.note(session, sql);
        if let Err(error) = answer(&mut self.place.sessions[session], sql) {
            self.fail(&error);
        }
    }

    fn ask(&mut self, session: usize, step: &Step) -> (Answer, At) {
        let (sql, asked_at) = (step.sql(), now());
        self.note(session, &sql);
        let client = &mut self.place.sessions[session];
        let mut said = answer(client, &sql);
        // An entry without a date of its own bears the transaction's.
        if let (Step::Give(give) | Step::Adjust(give), Ok(rows)) = (step, &mut said)
            && give.at.is_none()
            && let Some(id) = rows.first().and_then(|row| row.id.clone())
        {
            let sql = format!(
                "select null, {}, null from exa_billing.credit_transactions where id = '{id}'",
                micros("created_at")
            );
            rows[0].at = answer(client, &sql).expect("its date")[0].at;
        }
        (said, asked_at)
    }

    /// The product's answer is the model's.
    fn compare(&mut self, step: &Step, said: &Answer, expected: &Expected) {
        let is_same = match (said, expected) {
            (Ok(rows), Ok(wanted)) => {
                let mut rows = rows.clone();
                if matches!(step, Step::Claim { .. }) {
                    // Other histories' deliveries may be due again.
                    let is_own = |line: &String| self.scene.is_own(line);
                    rows.retain(|row| row.line.as_ref().is_some_and(is_own));
                    rows.sort_by(|one, other| one.line.cmp(&other.line));
                }
                rows.len() == wanted.len()
                    && rows.iter().zip(wanted).all(|(row, wanted)| {
                        row.line == wanted.line && (wanted.id.is_none() || row.id == wanted.id)
                    })
            }
            (Err(error), Err(wanted)) => error.starts_with(wanted),
            _ => false,
        };
        if !is_same {
            self.fail(&format!("expected {expected:?}\nfound    {said:?}"));
        }
    }

    /// A transaction by itself: some steps, perhaps a part of them undone, then all or nothing.
    fn whole_transaction(&mut self) {
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
    fn begin_beside(&mut self) {
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

    fn step_beside(&mut self) {
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

    /// Ends it. What was committed meanwhile concerned others, so its steps count as if they came
    /// only now.
    fn end_beside(&mut self) {
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

    fn restart(&mut self, mode: &str) {
        self.log.push(format!("-- the server is stopped ({mode}) and started"));
        // With its session goes an open transaction.
        self.open = None;
        self.place.restart(mode);
    }

    /// Somebody looks at a few figures in the midst of it.
    fn look(&mut self) {
        let in_transaction = self.open.is_some() && self.scene.percent(40);
        let (session, model, cast) = match &self.open {
            Some(open) if in_transaction => (open.session, open.model.clone(), open.cast.clone()),
            _ => (self.idle_session(), self.model.clone(), self.scene.cast.clone()),
        };
        let owner = self.scene.owner(&cast);
        let looks = self.some_looks(&model, &owner, &cast.users, 5);
        self.see(session, looks);
    }

    /// A few of the many figures of an owner: all of them would take longer than the history.
    fn some_looks(
        &mut self,
        model: &Model,
        owner: &Owner,
        users: &[String],
        count: usize,
    ) -> Vec<check::Look> {
        let mut names: Vec<_> = check::names().collect();
        self.scene.rng.shuffle(&mut names);
        let view = check::View { model, owner, users, as_of: self.scene.at };
        names.into_iter().take(count).map(|(look_at, name)| look_at(&view, name)).collect()
    }

    fn see(&mut self, session: usize, looks: Vec<check::Look>) {
        if let Err(differs) = check::see(&mut self.place.sessions[session], &looks) {
            self.fail(&format!("seen by the {} session\n{differs}", SESSION_NAMES[session]));
        }
    }

    /// Everything of everybody, as it stands and once more when all is posted.
    fn end(&mut self) {
        if self.open.is_some() {
            self.end_beside();
        }
        let cast = self.scene.cast.clone();
        let users = cast.users.iter().map(|user| Owner::user(user));
        let owners: Vec<Owner> =
            users.chain(cast.organizations.iter().map(|one| Owner::organization(one))).collect();
        self.react(&cast);
        for owner in &owners {
            let session = self.scene.rng.usize(..4);
            let mut looks = self.some_looks(&self.model.clone(), owner, &cast.users, 7);
            looks.extend(check::journals(&self.model, owner));
            if self.scene.percent(8) {
                looks.push(check::proof(owner));
            }
            self.see(session, looks);
        }
        self.step(0, Step::Post { max_rows: 1_000_000 });
        if self.scene.percent(20) {
            self.step(0, Step::EvaluateDue { as_of: now() });
        }
        for owner in &owners {
            let mut looks = self.some_looks(&self.model.clone(), owner, &cast.users, 2);
            looks.extend(check::posted(&self.model, owner));
            self.see(0, looks);
        }
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
}

impl Scene {
    /// Whether a line is of an owner of this history.
    fn is_own(&self, line: &str) -> bool {
        let id = line.split_once(' ').map_or(line, |(_, rest)| rest);
        let all = self.cast.users.iter().chain(&self.cast.organizations);
        all.into_iter().any(|owner| id.starts_with(&format!("{owner} ")))
    }
}

impl Step {
    /// What takes locks that last, or needs a transaction of its own, is done outside of others.
    fn may_be_undone(&self) -> bool {
        !matches!(self, Step::Claim { .. } | Step::Sweep { .. } | Step::EvaluateDue { .. })
    }
}
