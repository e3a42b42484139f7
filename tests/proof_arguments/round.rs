//! A round: some thousand calls, which a seed decides, against fresh books.

use crate::calls::{self, Call};
use crate::catalog::{Callable, Kind};
use crate::common::one;
use crate::moods::{Mood, Transaction};
use crate::oracle::{self, Circumstances};
use crate::pools::Pools;
use crate::usage_common::{assert_books_hold, column};
use crate::world::{Session, World};
use fastrand::Rng;
use postgres::SimpleQueryMessage;
use std::collections::BTreeMap;
use std::fs;
use std::time::Instant;

const CALLS: usize = 2_000;
/// So many calls in a row are made by the same role under the same settings.
const MOOD: usize = 25;
/// What the books hold by now is looked up after so many.
const NEWS: usize = 100;
/// The books are proved after so many calls.
const PROOF: usize = 1_000;
/// With the server's shared memory; some calls have arguments of a megabyte.
const MAX_MEMORY_KB: u64 = 1_500_000;

#[derive(Debug, Clone, Copy, Default)]
pub struct Count {
    pub calls: u64,
    pub answers: u64,
    pub microseconds: u64,
}

impl Count {
    pub fn add(&mut self, other: Count) {
        self.calls += other.calls;
        self.answers += other.answers;
        self.microseconds += other.microseconds;
    }
}

struct Round<'a> {
    world: &'a World,
    session: Session,
    rng: Rng,
    mood: Mood,
    /// Whether the role of the mood may call each of the callables.
    permitted: Vec<bool>,
    in_transaction: bool,
    /// Since the transaction has begun.
    has_only_read: bool,
    counted: BTreeMap<String, Count>,
}

pub fn run(world: &World, seed: u64) -> BTreeMap<String, Count> {
    let session = world.begin(seed);
    let mut rng = dice(seed, 0);
    let mood = Mood::any(&mut rng, world.major);
    let mut round = Round {
        world,
        session,
        rng,
        mood,
        permitted: Vec::new(),
        in_transaction: false,
        has_only_read: true,
        counted: BTreeMap::new(),
    };
    for number in 0..CALLS {
        round.rng = dice(seed, number);
        if number % MOOD == 0 {
            round.calm_down();
            if number % PROOF == 0 {
                round.prove();
            }
            if number % NEWS == 0 {
                round.session.pools = Pools::of(&mut round.session.client);
            }
            round.change_mood();
        }
        round.step(number);
    }
    round.calm_down();
    round.prove();
    world.end(round.session);
    round.counted
}

/// Each call throws dice of its own: where the time of the day makes another answer of one call, those
/// after it are the same all the same.
fn dice(seed: u64, number: usize) -> Rng {
    Rng::with_seed(seed.wrapping_mul(1_000_003).wrapping_add(number as u64))
}

impl Round<'_> {
    /// A superuser again, with usual settings, outside of any transaction.
    fn calm_down(&mut self) {
        self.end_transaction();
        self.sql("RESET ROLE; RESET ALL");
    }

    fn change_mood(&mut self) {
        self.mood = Mood::any(&mut self.rng, self.world.major);
        self.permitted = self.permissions();
        let statements = self.mood.statements();
        self.sql(&statements);
    }

    fn permissions(&mut self) -> Vec<bool> {
        let Some(role) = self.mood.role else { return vec![true; self.world.callables.len()] };
        let functions = format!(
            "SELECT DISTINCT proname::text FROM pg_proc
             WHERE pronamespace = 'exa_billing'::regnamespace AND has_function_privilege('{role}', oid, 'EXECUTE')
               AND has_schema_privilege('{role}', 'exa_billing', 'USAGE')
             UNION ALL
             SELECT relname::text FROM pg_class
             WHERE relnamespace = 'exa_billing'::regnamespace AND relkind = 'v'
               AND has_table_privilege('{role}', oid, 'SELECT') AND has_schema_privilege('{role}', 'exa_billing', 'USAGE')",
        );
        let names: Vec<String> = column(&mut self.session.client, &functions);
        self.world.callables.iter().map(|callable| names.contains(&callable.name)).collect()
    }

    fn step(&mut self, number: usize) {
        if self.mood.transaction != Transaction::None && !self.in_transaction {
            let begin = self.mood.begin;
            self.sql(begin);
            self.in_transaction = true;
            self.has_only_read = true;
        }
        if self.mood.transaction == Transaction::Savepoints {
            self.sql("SAVEPOINT before");
        }
        let call = calls::any(&mut self.rng, &self.world.callables, &self.session.pools);
        let succeeded = self.make(number, &call);
        match (succeeded, self.mood.transaction) {
            (_, Transaction::None) => {}
            (false, Transaction::Shared) => self.roll_back(),
            (false, Transaction::Savepoints) => self.sql("ROLLBACK TO before"),
            (true, _) if self.rng.u8(..6) == 0 => self.end_transaction(),
            (true, _) => {}
        }
    }

    /// Makes the call and judges what comes of it. False when it was refused.
    fn make(&mut self, number: usize, call: &Call) -> bool {
        let callable = &self.world.callables[call.callable];
        let now = Circumstances { mood: &self.mood, is_permitted: self.permitted[call.callable] };
        let began = Instant::now();
        let outcome = self.session.client.simple_query(&call.sql);
        let microseconds = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        let fault = match &outcome {
            Ok(_) if !now.is_permitted => Some("the role has no right to it".to_owned()),
            Ok(answer) => self.fault_of_answer(call, callable, answer),
            Err(error) => match error.as_db_error() {
                Some(error) => oracle::fault_of_error(error, callable, &now),
                None => Some("the connection is lost".to_owned()),
            },
        };
        let said = self.session.notices().into_iter().find_map(|(severity, message)| {
            let is_for_users = !severity.starts_with("DEBUG");
            is_for_users
                .then(|| oracle::fault_of_words(&message))
                .flatten()
                .map(|fault| (fault, message))
        });
        if let Some(fault) =
            fault.or_else(|| said.map(|(fault, message)| format!("{fault}: {message}")))
        {
            let told = outcome.as_ref().err().map(|error| format!("{:?}", error.as_db_error()));
            let sql: String = call.sql.chars().take(4_000).collect();
            panic!(
                "call {number}: {fault}\n{sql}\n{}\n{}",
                told.unwrap_or_default(),
                self.circumstances(),
            );
        }
        let count = Count { calls: 1, answers: outcome.is_ok().into(), microseconds };
        self.counted.entry(callable.name.clone()).or_default().add(count);
        let (succeeded, only_reads) = (outcome.is_ok(), callable.only_reads);
        // A grant, perhaps to the role that is calling.
        if succeeded && callable.name.starts_with("grant_") {
            self.permitted = self.permissions();
        }
        self.has_only_read &= only_reads;
        if succeeded && self.in_transaction && self.has_only_read {
            let has_written = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL";
            assert!(
                !one::<bool>(&mut self.session.client, has_written, &[]),
                "{} writes",
                call.sql
            );
        }
        succeeded
    }

    fn circumstances(&self) -> String {
        let what = if self.in_transaction { self.mood.begin } else { "outside a transaction" };
        format!("after {}; {what}", self.mood.statements())
    }

    fn fault_of_answer(
        &self,
        call: &Call,
        callable: &Callable,
        answer: &[SimpleQueryMessage],
    ) -> Option<String> {
        if callable.is_trigger {
            return Some("a trigger function was called by hand".to_owned());
        }
        if !call.has_columns || callable.kind != Kind::Function {
            return None;
        }
        let rows = answer.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        rows.filter_map(|row| oracle::fault_of_row(row, callable)).next()
    }

    fn end_transaction(&mut self) {
        if !std::mem::take(&mut self.in_transaction) {
            return;
        }
        let end = if self.rng.u8(..3) > 0 { "COMMIT" } else { "ROLLBACK" };
        self.sql(end);
    }

    fn roll_back(&mut self) {
        self.in_transaction = false;
        self.sql("ROLLBACK");
    }

    /// A statement of the test itself, which must succeed.
    fn sql(&mut self, sql: &str) {
        if let Err(error) = self.session.client.batch_execute(sql) {
            panic!("{sql}: {error:?}\n{}", self.circumstances());
        }
    }

    /// The books hold, the server stands, and the session has not grown beyond bounds.
    fn prove(&mut self) {
        assert_books_hold(&mut self.session.client);
        self.world.assert_never_crashed();
        let kilobytes = peak_memory(self.session.pid);
        assert!(kilobytes < MAX_MEMORY_KB, "the session has used {kilobytes} kB");
    }
}

/// The most memory that a process ever had, the server's shared memory included.
fn peak_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a living process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}
