//! Clients that charge and a mailer, each in a thread: they reconnect when the server is gone, ask again
//! for what they may, and write down what they were told.

use crate::common::{PATIENCE, Server};
use crate::said::{Act, Maker, Names};
use fastrand::Rng;
use postgres::{Client, Config, Error, NoTls};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};
use uuid::Uuid;

const CLIENTS: i64 = 4;

/// What clients know.
#[derive(Default)]
pub struct Diary {
    pub acts: Vec<Act>,
    /// Deliveries that were handed out, and those whose end was acknowledged.
    pub claimed: Vec<Uuid>,
    pub completed: Vec<Uuid>,
}

impl Diary {
    pub fn add(&mut self, other: Diary) {
        self.acts.extend(other.acts);
        self.claimed.extend(other.claimed);
        self.completed.extend(other.completed);
    }
}

pub struct Crew<'a> {
    config: Config,
    names: &'a Names,
    seeds: Vec<u64>,
    done: AtomicBool,
}

/// The server ended in the midst of a call; whether it did what was asked nobody knows.
struct Gone;

/// Whatever else the server says is a failure of the test.
fn gone<T>(what: &str, result: Result<T, Error>) -> Result<T, Gone> {
    result.map_err(|error| {
        if let Some(told) = error.as_db_error() {
            // terminated, crashed, starting or stopping
            let is_of_crash = told.code().code().starts_with("57P");
            assert!(is_of_crash, "{what}: {told:?}");
        }
        Gone
    })
}

impl<'a> Crew<'a> {
    pub fn new(server: &Server, names: &'a Names, rng: &mut Rng) -> Self {
        let seeds = (0..=CLIENTS).map(|_| rng.u64(..)).collect();
        Crew { config: server.config("app"), names, seeds, done: AtomicBool::new(false) }
    }

    pub fn stop(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub fn spawn<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Vec<ScopedJoinHandle<'scope, Diary>> {
        let mut threads: Vec<_> = (0..CLIENTS)
            .zip(&self.seeds)
            .map(|(number, seed)| scope.spawn(move || self.charge(number, *seed)))
            .collect();
        let seed = self.seeds[self.seeds.len() - 1];
        threads.push(scope.spawn(move || self.mail(seed)));
        threads
    }

    fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }

    /// Comes back as soon as the server lets it in; until then nothing has happened.
    fn connect(&self) -> Client {
        let began = Instant::now();
        loop {
            match self.config.clone().application_name("a client").connect(NoTls) {
                Ok(client) => return client,
                Err(error) => {
                    let _ = gone::<()>("connecting", Err(error));
                    assert!(began.elapsed() < PATIENCE, "the server does not come back");
                    thread::sleep(Duration::from_millis(2));
                }
            }
        }
    }

    fn charge(&self, number: i64, seed: u64) -> Diary {
        let mut maker = Maker {
            names: self.names,
            rng: Rng::with_seed(seed),
            next_amount: (number + 1) * 100_000,
        };
        let mut diary = Diary::default();
        let mut client = self.connect();
        while !self.is_done() {
            let mut act = maker.act();
            while gone(&format!("{act:?}"), act.try_it(&mut client)).is_err() {
                client = self.connect();
                // Half of them ask again, as one should; the others leave it open.
                if !act.may_be_repeated() || maker.rng.bool() {
                    break;
                }
            }
            diary.acts.push(act);
        }
        diary
    }

    fn mail(&self, seed: u64) -> Diary {
        let mut rng = Rng::with_seed(seed);
        let mut diary = Diary::default();
        let mut client = self.connect();
        while !self.is_done() {
            if self.mail_once(&mut client, &mut rng, &mut diary).is_err() {
                client = self.connect();
            }
        }
        diary
    }

    /// Leases are so long that nothing is ever handed out again within a round.
    fn mail_once(&self, client: &mut Client, rng: &mut Rng, diary: &mut Diary) -> Result<(), Gone> {
        let claim =
            "SELECT delivery_id, claim_token FROM exa_billing.claim_notifications(3, '1 day')";
        let claimed = gone(claim, client.query(claim, &[]))?;
        let claimed: Vec<(Uuid, Uuid)> =
            claimed.iter().map(|row| (row.get(0), row.get(1))).collect();
        diary.claimed.extend(claimed.iter().map(|(delivery, _)| delivery));
        for (delivery, token) in claimed {
            if rng.u8(..5) > 0 {
                let complete = "SELECT exa_billing.complete_notification($1, $2)";
                let row = gone(complete, client.query_one(complete, &[&delivery, &token]))?;
                assert!(row.get::<_, bool>(0), "the token of an acknowledged claim is not known");
                diary.completed.push(delivery);
            }
        }
        thread::sleep(Duration::from_millis(5));
        Ok(())
    }
}
