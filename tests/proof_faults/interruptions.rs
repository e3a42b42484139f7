//! Statements that end before their time: by a time-out, by somebody who cancels them, by the end of their
//! session, each at a random moment.

use crate::books_common::{self, assert_same, catalog, contents};
use crate::common::{Database, Server, one, run_sql, wait_until};
use crate::proof_common::{figure, prove_in, trial};
use crate::upgrade_common::made_up;
use crate::usage_common::{assert_books_hold, assert_unchanged, state};
use crate::works::{FUNCTIONS, PROCEDURES, Procedure, fill};
use fastrand::Rng;
use postgres::Client;
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy)]
enum Way {
    TimeOut,
    Cancel,
    Terminate,
}

const WAYS: [Way; 3] = [Way::TimeOut, Way::Cancel, Way::Terminate];

/// How often something was interrupted, and how often it was faster.
#[derive(Default)]
struct Tally {
    interrupted: usize,
    faster: usize,
}

/// A statement in a session of its own, interrupted after a while; true when it was done before. What it
/// did in a transaction that `begin` opens is undone.
fn interrupted(db: &Database, begin: &str, sql: &str, way: Way, after: Duration) -> bool {
    let mut session = db.client_with("-c client_min_messages=error");
    let pid: i32 = one(&mut session, "SELECT pg_backend_pid()", &[]);
    run_sql(&mut session, begin);
    if matches!(way, Way::TimeOut) {
        let milliseconds = after.as_millis().max(1);
        run_sql(&mut session, &format!("SET statement_timeout = {milliseconds}"));
    }
    let mut other = db.client();
    let (done, is_done) = channel::<()>();
    let outcome = thread::scope(|scope| {
        scope.spawn(move || {
            let function = match way {
                Way::TimeOut => return,
                Way::Cancel => "pg_cancel_backend",
                Way::Terminate => "pg_terminate_backend",
            };
            // The statement's end comes first, or the moment does.
            if is_done.recv_timeout(after) == Err(RecvTimeoutError::Timeout) {
                run_sql(&mut other, &format!("SELECT {function}({pid})"));
            }
        });
        let outcome = session.batch_execute(sql);
        drop(done);
        outcome
    });
    if let Err(error) = &outcome {
        let code = error.code().map(|code| code.code());
        let is_expected = match way {
            Way::TimeOut | Way::Cancel => code == Some("57014"),
            // The client may hear of the connection's end before it has read why.
            Way::Terminate => code == Some("57P01") || error.is_closed(),
        };
        assert!(is_expected, "{sql}\n{way:?}: {error:?}");
    }
    // The error arrives before the transaction has ended.
    drop(session);
    let gone = "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $1";
    let mut watcher = db.client();
    wait_until("the session has ended", || one(&mut watcher, gone, &[&pid]));
    outcome.is_ok()
}

/// Interrupts it in each way, each at another moment of the time it takes.
fn in_each_way(
    db: &Database,
    rng: &mut Rng,
    tally: &Mutex<Tally>,
    takes: Duration,
    mut attempt: impl FnMut(&Database, Way, Duration) -> bool,
) {
    for way in WAYS {
        let was_faster = attempt(db, way, takes.mul_f64(1.1 * rng.f64()));
        let mut tally = tally.lock().unwrap();
        *(if was_faster { &mut tally.faster } else { &mut tally.interrupted }) += 1;
    }
}

/// How long a statement takes the second time: the first also reads and plans what is kept then.
fn time_of(client: &mut Client, before: &str, sql: &str, after: &str) -> Duration {
    let mut once = || {
        run_sql(client, before);
        let began = Instant::now();
        run_sql(client, sql);
        let takes = began.elapsed();
        run_sql(client, after);
        takes
    };
    once();
    once()
}

fn functions(db: &Database, client: &mut Client, rng: &mut Rng, tally: &Mutex<Tally>) {
    for (prepare, call) in FUNCTIONS {
        run_sql(client, prepare);
        let before = state(client);
        let takes = time_of(client, "BEGIN", call, "ROLLBACK");
        in_each_way(db, rng, tally, takes, |db, way, after| {
            interrupted(db, "BEGIN", call, way, after)
        });
        assert_unchanged(client, &before, call);
        run_sql(client, call);
        assert_books_hold(client);
    }
}

fn procedures(db: &Database, client: &mut Client, rng: &mut Rng, tally: &Mutex<Tally>) {
    for Procedure { damage, call, whole, left } in PROCEDURES {
        let takes = time_of(client, damage, call, "");
        in_each_way(db, rng, tally, takes, |db, way, after| {
            run_sql(client, damage);
            let was_faster = interrupted(db, "", call, way, after);
            assert!(
                one::<bool>(client, whole, &[]),
                "{call}: {way:?} after {after:?} of {takes:?}"
            );
            run_sql(client, call);
            assert_eq!(one::<i64>(client, left, &[]), 0, "{call}: something is left");
            assert_books_hold(client);
            was_faster
        });
    }
}

/// Books of an older version are brought up to this one, or stay what they are.
fn migration(rng: &mut Rng, tally: &Mutex<Tally>) {
    const SETUP: &str = "SELECT exa_billing.setup()";
    let db = made_up(1).books(&Server::shared());
    let mut client = db.client();
    run_sql(&mut client, "ALTER EXTENSION exa_billing UPDATE");
    books_common::fill(&mut client);
    let before = (catalog(&mut client), contents(&mut client));
    let takes = time_of(&mut client, "BEGIN", SETUP, "ROLLBACK");
    in_each_way(&db, rng, tally, takes, |db, way, after| {
        interrupted(db, "BEGIN", SETUP, way, after)
    });
    assert_same(SETUP, &before.0, &catalog(&mut client));
    assert_same(SETUP, &before.1, &contents(&mut client));
    run_sql(&mut client, SETUP);
    assert_books_hold(&mut client);
}

pub fn at_random_moments_leave_nothing_half_done() {
    let tally = Mutex::default();
    prove_in(
        "faults",
        trial(1),
        1,
        |_| (),
        |(), seed| {
            let mut rng = Rng::with_seed(seed);
            let db = Server::shared().books();
            let mut client = db.client_with("-c client_min_messages=error");
            fill(&mut client);
            functions(&db, &mut client, &mut rng, &tally);
            procedures(&db, &mut client, &mut rng, &tally);
            migration(&mut rng, &tally);
        },
    );
    let Tally { interrupted, faster } = tally.into_inner().unwrap();
    assert!(interrupted > faster, "{interrupted} interrupted, {faster} were faster");
    figure(
        "faults",
        &format!(
            "{} statements of {} kinds interrupted at random moments by time-out, cancellation or the end of \
             their session; {faster} more were done before",
            interrupted,
            FUNCTIONS.len() + PROCEDURES.len() + 1
        ),
    );
}
