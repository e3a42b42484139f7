//! Ways to die.

use crate::common::{Server, wait_until};
use crate::usage_common::column;
use crate::worker_common::{count_in_log, launcher};
use fastrand::Rng;
use postgres::NoTls;
use std::collections::BTreeMap;
use std::thread;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// kill -9 of a session that is charging. PostgreSQL then ends all others and recovers by itself.
    Session,
    Worker,
    Launcher,
    Checkpointer,
    WalWriter,
    /// kill -9 of the postmaster and all of its processes.
    Everybody,
    /// kill -9 of the postmaster alone: the others find out by themselves.
    Postmaster,
    /// pg_ctl stop -m immediate
    Immediate,
}

/// What no run may be without.
pub const CERTAIN: [Crash; 4] =
    [Crash::Session, Crash::Worker, Crash::Everybody, Crash::Postmaster];

const ALL: [Crash; 10] = [
    Crash::Session,
    Crash::Session,
    Crash::Worker,
    Crash::Worker,
    Crash::Launcher,
    Crash::Checkpointer,
    Crash::WalWriter,
    Crash::Everybody,
    Crash::Postmaster,
    Crash::Immediate,
];

impl Crash {
    /// The next of a round: two certain ones, others in the next round, then any.
    pub fn next(seed: u64, number: usize, rng: &mut Rng) -> Crash {
        let turn = usize::from(!seed.is_multiple_of(2)) * 2 + number;
        if number < 2 { CERTAIN[turn] } else { rng.choice(ALL).expect("a way") }
    }

    pub fn happen(self, server: &Server, rng: &mut Rng) {
        // Half of the time in the middle of a checkpoint, or right after it.
        let checkpoint = rng.bool().then(|| {
            let config = server.config("postgres");
            thread::spawn(move || config.connect(NoTls)?.batch_execute("CHECKPOINT"))
        });
        match self {
            Crash::Everybody => {
                server.kill9();
                server.start_again();
            }
            Crash::Postmaster => {
                server.kill9_postmaster();
                server.start_again();
            }
            Crash::Immediate => {
                server.stop("immediate");
                server.start_again();
            }
            Crash::Launcher => kill(server, || launcher(server)),
            _ => {
                let mut client = server.client("postgres");
                let sql = format!("SELECT pid FROM pg_stat_activity WHERE {}", self.victims());
                kill(server, || rng.choice(column::<i32>(&mut client, &sql)));
            }
        }
        // It has succeeded or it has not.
        let _ = checkpoint.map(|thread| thread.join().expect("the thread of a checkpoint"));
    }

    fn victims(self) -> &'static str {
        match self {
            Crash::Session => "application_name = 'a client' AND state = 'active'",
            Crash::Worker => "backend_type = 'exa_billing worker'",
            Crash::Checkpointer => "backend_type = 'checkpointer'",
            Crash::WalWriter => "backend_type = 'walwriter'",
            _ => "false",
        }
    }
}

/// Kills the process as soon as there is one, and waits until the server has noticed and is up again.
fn kill(server: &Server, mut pid: impl FnMut() -> Option<i32>) {
    let recovered = "database system is ready to accept connections";
    let before = count_in_log(server, recovered);
    wait_until("there is somebody to kill", || {
        pid().is_some_and(|pid| {
            let killed = server.run("sh", &["-c", &format!("kill -KILL {pid}")]);
            killed.status.success()
        })
    });
    wait_until("the server has recovered", || count_in_log(server, recovered) > before);
}

/// How often each way was gone.
pub fn counts(crashes: &[Crash]) -> String {
    let mut counts: BTreeMap<Crash, usize> = BTreeMap::new();
    for crash in crashes {
        *counts.entry(*crash).or_default() += 1;
    }
    let words: Vec<String> =
        counts.iter().map(|(crash, count)| format!("{count} {crash:?}")).collect();
    words.join(", ")
}
