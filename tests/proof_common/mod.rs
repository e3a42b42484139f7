//! Seeds, rounds, replay and figures: what the programs of the proof suite share.
//!
//! Each part tries seeds one after the other. `make test` tries the same ones every time;
//! `scripts/proof.sh` says otherwise through the environment: one seed again, other ones, more.
#![allow(dead_code)] // each test program uses a part of it

use std::env;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// As many at once as the smallest machine that the suite is made for has cores.
const SESSIONS: usize = 2;

/// What a part was asked to try.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    pub first: u64,
    pub rounds: u64,
    until: Option<Instant>,
}

/// What is to be tried of a part of which `make test` tries `usual` seeds. The tests on releases
/// other than the first try a share of that (`EXA_BILLING_PROOF_SHARE`).
pub fn trial(usual: u64) -> Trial {
    if let Some(seed) = number("EXA_BILLING_PROOF_SEED") {
        return Trial { first: seed, rounds: 1, until: None };
    }
    let share = number("EXA_BILLING_PROOF_SHARE").unwrap_or(1).max(1);
    let minutes = number("EXA_BILLING_PROOF_MINUTES");
    let usual = if minutes.is_some() { u64::MAX } else { usual.div_ceil(share) };
    Trial {
        first: number("EXA_BILLING_PROOF_FIRST").unwrap_or(1),
        rounds: number("EXA_BILLING_PROOF_ROUNDS").unwrap_or(usual),
        until: minutes.map(|minutes| Instant::now() + Duration::from_secs(60 * minutes)),
    }
}

/// Tries the seeds of a part, a few at once. The first that fails ends it, and is named together
/// with the command that tries it again. Gives how many were tried.
pub fn prove(part: &str, usual: u64, round: impl Fn(u64) + Sync) -> u64 {
    prove_in(part, trial(usual), SESSIONS, |_| (), |(), seed| round(seed))
}

/// The same, where each of the `sessions` keeps something from round to round, such as a database.
pub fn prove_in<T>(
    part: &str,
    trial: Trial,
    sessions: usize,
    begin: impl Fn(usize) -> T + Sync,
    round: impl Fn(&mut T, u64) + Sync,
) -> u64 {
    let (next, tried, failed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    thread::scope(|scope| {
        for session in 0..sessions.min(usize::try_from(trial.rounds).unwrap_or(usize::MAX)) {
            let (next, tried, failed, begin, round) = (&next, &tried, &failed, &begin, &round);
            scope.spawn(move || {
                let mut kept = begin(session);
                while !failed.load(Ordering::Relaxed)
                    && trial.until.is_none_or(|end| Instant::now() < end)
                {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= trial.rounds {
                        break;
                    }
                    let seed = trial.first.wrapping_add(number);
                    let held = catch_unwind(AssertUnwindSafe(|| round(&mut kept, seed)));
                    tried.fetch_add(1, Ordering::Relaxed);
                    if held.is_err() {
                        failed.store(true, Ordering::Relaxed);
                        eprintln!("FAILED with seed {seed}; again: {}", again(part, seed));
                    }
                }
            });
        }
    });
    let tried = tried.into_inner();
    let seconds = began.elapsed().as_secs();
    assert!(!failed.into_inner(), "{part}: a seed failed after {tried}; it is named above");
    figure(part, &format!("{tried} seeds from {} in {seconds} s", trial.first));
    tried
}

/// The command that tries a seed again.
pub fn again(part: &str, seed: u64) -> String {
    format!("scripts/proof.sh {part} --seed {seed}")
}

/// Notes a figure of this run, for the summary that `scripts/proof.sh` shows at its end.
pub fn figure(part: &str, what: &str) {
    println!("{part}: {what}");
    if let Some(path) = env::var_os("EXA_BILLING_PROOF_FIGURES") {
        let mut file = OpenOptions::new().create(true).append(true).open(path).expect("a file");
        writeln!(file, "{part}\t{what}").expect("a line of the summary");
    }
}

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text:?}")))
}
