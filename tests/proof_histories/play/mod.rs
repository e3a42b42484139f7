//! A history as it is played: steps by several sessions, transactions that end this way or that, and
//! the model beside it.

mod beside;
mod end;
mod upkeep;

use crate::apply::{Answer, Expected, apply};
use crate::check;
use crate::model::calendar::now;
use crate::model::usage::Policy;
use crate::model::{At, Model, Owner};
use crate::place::{Place, answer, count, count_calls};
use crate::plan::{Cast, May, Scene, season};
use crate::step::{Step, create_table, micros};
use beside::Open;

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

/// One of so many histories has something that works on everybody's books.
const LOOKED_AFTER: u64 = 60;

/// Plays the history of a seed.
pub fn play(place: &mut Place, seed: u64, steps: usize) {
    place.prepare(season(seed));
    let scene = Scene::new(seed);
    let mut play = Play { place, scene, model: Model::default(), open: None, log: Vec::new() };
    play.begin();
    let look_after_at = (seed % LOOKED_AFTER == 7).then(|| play.scene.rng.usize(..steps));
    // A restart in the midst of every fiftieth history, each second one of them a crash.
    let restart_at = seed.is_multiple_of(50).then(|| play.scene.rng.usize(..steps));
    for number in 0..steps {
        if restart_at == Some(number) {
            play.restart(if seed.is_multiple_of(100) { "immediate" } else { "fast" });
        }
        if look_after_at == Some(number) {
            play.look_after();
        }
        play.turn();
    }
    play.end();
    if seed % LOOKED_AFTER == 19 {
        play.maintain();
    }
    play.prove();
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
        for month in self.scene.months() {
            let (amount, rule) = match self.scene.rng.u32(..4) {
                0 => (None, None),
                1 => (Some(0), None),
                _ => (Some(self.scene.rng.i64(1..20_000)), Some("split")),
            };
            let user = None;
            let policy = Policy { user, month, amount, rule };
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
            99 if self.open.is_none() && self.scene.percent(60) => self.mishap(),
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
        self.open.as_ref().map(|open| open.cast.owners()).unwrap_or_default()
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
        if matches!(step, Step::Claim { .. }) && self.model.is_claim_open(now()) {
            return;
        }
        let busy = self.busy();
        let (said, asked_at) = self.ask(session, &step);
        let mut model = self.model.clone();
        let expected = apply(&mut model, &step, &said, asked_at, &busy);
        self.compare(&step, &said, &expected);
        if expected.is_ok() {
            self.model = model;
        }
        // What it has left, had it left any; while others are at work, that may be something.
        if let Some(left) = step.left().filter(|_| self.open.is_none()) {
            self.exactly(session, &left, "0");
        }
    }

    /// A statement whose answer is known.
    fn exactly(&mut self, session: usize, sql: &str, expected: &str) {
        let found = self.told(session, sql);
        if found != expected {
            self.fail(&format!("expected {expected:?}\nfound    {found:?}"));
        }
    }

    /// What a statement tells in its only line.
    fn told(&mut self, session: usize, sql: &str) -> String {
        self.note(session, sql);
        count_calls(sql);
        match answer(&mut self.place.sessions[session], sql) {
            Ok(rows) => rows.into_iter().next().and_then(|row| row.line).unwrap_or_default(),
            Err(error) => self.fail(&error),
        }
    }

    /// Notes what a session does, without the columns that are asked for.
    fn note(&mut self, session: usize, sql: &str) {
        match sql {
            "begin" => count("transactions", 1),
            "rollback" => count("rollbacks", 1),
            "rollback to s" => count("rollbacks to savepoints", 1),
            _ => {}
        }
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
        count_calls(&sql);
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
        count(if said.is_ok() { "steps" } else { "refusals" }, 1);
        if !is_same {
            self.fail(&format!("expected {expected:?}\nfound    {said:?}"));
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
        let looks = self.some_looks(&model, &owner, &cast.users, 3);
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
        let draw = self.scene.rng.usize(..1_000);
        let view = check::View { model, owner, users, as_of: self.scene.at, draw };
        names.into_iter().take(count).map(|(look_at, name)| look_at(&view, name)).collect()
    }

    /// All books of the place hold, whoever's they are.
    fn prove(&mut self) {
        let violations = self.place.violations();
        if !violations.is_empty() {
            self.fail(&format!(
                "the number in an owner's id is the seed of its own history:\n{violations:#?}"
            ));
        }
    }

    fn see(&mut self, session: usize, looks: Vec<check::Look>) {
        count("figures compared", looks.len());
        looks.iter().for_each(|look| count_calls(look.sql()));
        if let Err(differs) = check::see(&mut self.place.sessions[session], &looks) {
            self.fail(&format!("seen by the {} session\n{differs}", SESSION_NAMES[session]));
        }
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
