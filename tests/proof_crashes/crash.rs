//! Ways to die.

use crate::common::{Server, one, wait_until};
use crate::worker_common::{count_in_log, launcher};
use fastrand::Rng;
use std::collections::BTreeMap;

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
    /// pg_ctl stop -m immediate
    Immediate,
}

const ALL: [Crash; 9] = [
    Crash::Session,
    Crash::Session,
    Crash::Worker,
    Crash::Worker,
    Crash::Launcher,
    Crash::Checkpointer,
    Crash::WalWriter,
    Crash::Everybody,
    Crash::Immediate,
];

impl Crash {
    pub fn any(rng: &mut Rng) -> Crash {
        rng.choice(ALL).expect("a way")
    }

    pub fn happen(self, server: &Server, rng: &mut Rng) {
        let ended = match self {
            Crash::Everybody => {
                server.kill9();
                return server.start_again();
            }
            Crash::Immediate => {
                server.stop("immediate");
                return server.start_again();
            }
            Crash::Launcher => {
                self.kill(server, || launcher(server));
                "reinitializing"
            }
            Crash::Session => {
                self.kill_one_of(server, rng, "application_name = 'a client' AND state = 'active'")
            }
            Crash::Worker => self.kill_one_of(server, rng, "backend_type = 'exa_billing worker'"),
            Crash::Checkpointer => self.kill_one_of(server, rng, "backend_type = 'checkpointer'"),
            Crash::WalWriter => self.kill_one_of(server, rng, "backend_type = 'walwriter'"),
        };
        assert_eq!(ended, "reinitializing");
    }

    fn kill_one_of(self, server: &Server, rng: &mut Rng, which: &str) -> &'static str {
        // A checkpoint that has only begun leaves the most to recover.
        let mut client = server.client("postgres");
        if rng.bool() {
            let _ = client.batch_execute("CHECKPOINT");
        }
        let sql = format!("SELECT min(pid) FROM pg_stat_activity WHERE {which}");
        self.kill(server, || one(&mut client, &sql, &[]));
        "reinitializing"
    }

    /// Kills the process as soon as there is one, and waits until the server has noticed and is up again.
    fn kill(self, server: &Server, mut pid: impl FnMut() -> Option<i32>) {
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
