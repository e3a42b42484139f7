//! What the tests with several sessions at once share.
#![allow(dead_code)] // each test program uses a part of it

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::common::{Database, Server, one, wait_until};
use postgres::types::ToSql;
use postgres::{Client, Row};

/// Waiting for a lock for ever would only look like a test that hangs.
pub const IMPATIENT: &str = "-c lock_timeout=30s";

/// A small generator with a fixed seed: every run makes the same requests.
pub struct Dice(pub u64);

impl Dice {
    pub fn up_to(&mut self, limit: i64) -> i64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit.cast_unsigned()).cast_signed()
    }
}

/// A database of the shared server with books in it.
pub fn books() -> Database {
    Server::shared().books()
}

/// Runs `session` in as many threads, each with a client and its number, all started at once.
pub fn in_sessions<T: Send>(
    db: &Database,
    count: usize,
    options: &str,
    session: impl Fn(usize, &mut Client) -> T + Sync,
) -> Vec<T> {
    // Connected beforehand: one that cannot connect would leave the others at the barrier.
    let clients: Vec<Client> = (0..count).map(|_| db.client_with(options)).collect();
    let start = Barrier::new(count);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..)
            .zip(clients)
            .map(|(number, mut client)| {
                let (start, session) = (&start, &session);
                scope.spawn(move || {
                    start.wait();
                    session(number, &mut client)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a session")).collect()
    })
}

/// Each of `others` is done again and again, in a session of its own, while `work` is done.
pub fn beside<T>(
    db: &Database,
    others: &[&(dyn Fn(&mut Client) + Sync)],
    work: impl FnOnce() -> T,
) -> T {
    let done = AtomicBool::new(false);
    let result = thread::scope(|scope| {
        for other in others {
            scope.spawn(|| {
                let mut client = db.client_with(IMPATIENT);
                while !done.load(Ordering::Relaxed) {
                    other(&mut client);
                }
            });
        }
        // Also when the work panics the others must end.
        let result = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        result
    });
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Posts in small batches beside `work`, then all that is left.
pub fn posting_beside<T>(db: &Database, work: impl FnOnce() -> T) -> T {
    let post = |client: &mut Client| {
        let _: i64 = one(client, "SELECT exa_billing.post_spend(50)", &[]);
    };
    let result = beside(db, &[&post], work);
    post_all(&mut db.client());
    result
}

pub fn post_all(client: &mut Client) {
    let waiting = "SELECT count(*) FROM exa_billing.unposted_spend WHERE blocked_reason IS NULL";
    wait_until("everything is posted", || {
        let _: i64 = one(client, "SELECT exa_billing.post_spend()", &[]);
        one::<i64>(client, waiting, &[]) == 0
    });
}

/// The row of a statement that is repeated as long as it fails to serialize.
pub fn row_with_retries(client: &mut Client, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Row {
    loop {
        match client.query_one(sql, params) {
            Ok(row) => return row,
            Err(error) => match error.code().map(|code| code.code()) {
                Some("40001" | "40P01") => {}
                _ => panic!("{sql}: {:?}", error.as_db_error()),
            },
        }
    }
}

pub fn verify(client: &mut Client) {
    let violations = client.query("SELECT v::text FROM exa_billing.verify_books() AS v", &[]);
    let violations: Vec<String> = violations.unwrap().iter().map(|row| row.get(0)).collect();
    assert!(violations.is_empty(), "{violations:#?}");
}

pub fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()", &[])
}

pub fn wait_for_lock_of(watcher: &mut Client, pid: i32) {
    wait_until("the session waits for a lock", || {
        let sql = "SELECT coalesce(max(wait_event_type), '') = 'Lock' FROM pg_stat_activity WHERE pid = $1";
        one(watcher, sql, &[&pid])
    });
}
