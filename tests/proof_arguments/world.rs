//! A server of the test's own, the books every round begins with, and a round's session in a copy
//! of them.

use crate::catalog::{self, Callable};
use crate::common::{Server, one, run_sql};
use crate::pools::Pools;
use postgres::{Client, NoTls};
use std::sync::{Arc, Mutex};

const TEMPLATE: &str = "arguments";

/// Whom calls are made as, besides superusers.
pub const ROLES: &[&str] =
    &["application", "operator", "auditor", "web", "nobody", "exa_billing_owner"];

/// A call that hangs is to end as one that failed. With planner switches off plans look so costly that
/// PostgreSQL would compile them, for seconds each.
const OPTIONS: &str = "-c statement_timeout=120s -c jit=off";

pub struct World {
    pub server: Server,
    pub major: i32,
    pub callables: Vec<Callable>,
    started: String,
}

impl World {
    pub fn new() -> World {
        // Thousands of refusals need not be logged; a crash is, since LOG stands above ERROR.
        // Nothing runs by itself, so that a seed does again what it did.
        let settings = [("log_min_messages", "log"), ("autovacuum", "off")];
        let server = Server::start("arguments", &settings);
        let mut client = server.client("postgres");
        for role in ROLES.iter().filter(|role| **role != "exa_billing_owner") {
            run_sql(&mut client, &format!("CREATE ROLE {role}"));
        }
        run_sql(&mut client, &format!("CREATE DATABASE {TEMPLATE}"));
        let started = one(&mut client, "SELECT pg_postmaster_start_time()::text", &[]);
        let mut books = server.client(TEMPLATE);
        run_sql(&mut books, "CREATE EXTENSION exa_billing");
        run_sql(&mut books, include_str!("books.sql"));
        let callables = catalog::callables(&mut books);
        World { major: server.major(), server, callables, started }
    }

    /// A session in a fresh copy of the books, which `end` throws away.
    pub fn begin(&self, seed: u64) -> Session {
        let database = format!("round_{seed}");
        let mut postgres = self.server.client("postgres");
        run_sql(&mut postgres, &format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)"));
        run_sql(&mut postgres, &format!("CREATE DATABASE {database} TEMPLATE {TEMPLATE}"));
        let notices = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&notices);
        let mut config = self.server.config(&database);
        config.options(OPTIONS).notice_callback(move |notice| {
            heard.lock().unwrap().push((notice.severity().to_owned(), notice.message().to_owned()));
        });
        let mut client = config.connect(NoTls).expect("a session in the copy");
        run_sql(
            &mut client,
            "CREATE TEMP TABLE odd_temp (who text, org text, cost bigint, at timestamptz)",
        );
        let pid = one(&mut client, "SELECT pg_backend_pid()", &[]);
        let pools = Pools::of(&mut client);
        Session { client, notices, pid, pools, database }
    }

    pub fn end(&self, session: Session) {
        let Session { client, database, .. } = session;
        drop(client);
        let mut postgres = self.server.client("postgres");
        run_sql(&mut postgres, &format!("DROP DATABASE {database} WITH (FORCE)"));
    }

    /// Neither has the server restarted nor one of its processes died.
    pub fn assert_never_crashed(&self) {
        let mut client = self.server.client("postgres");
        let started: String = one(&mut client, "SELECT pg_postmaster_start_time()::text", &[]);
        assert_eq!(started, self.started, "the server was started again");
        let log = self.server.log();
        let crash = log.lines().find(|line| {
            ["terminated by signal", "PANIC", "exited with exit code", "panicked"]
                .iter()
                .any(|word| line.contains(word))
        });
        assert_eq!(crash, None, "in the server's log");
    }
}

pub struct Session {
    pub client: Client,
    /// Severity and message of what the server has said besides its answers.
    pub notices: Arc<Mutex<Vec<(String, String)>>>,
    pub pid: i32,
    pub pools: Pools,
    database: String,
}

impl Session {
    pub fn notices(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *self.notices.lock().unwrap())
    }
}
