//! A lock table with no room left: the server's memory for locks is small and somebody has nearly all of it.

use crate::calls::{self, CALLS};
use crate::common::{Server, error_of, one, run_sql, wait_until};
use crate::proof_common::{figure, prove_in, trial};
use crate::usage_common::{assert_books_hold, assert_unchanged, state};
use crate::worker_common::{launcher, queue, serve, wait_for_worker};
use fastrand::Rng;
use postgres::Client;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const SMALL: &[(&str, &str)] = &[
    ("max_locks_per_transaction", "10"),
    ("max_connections", "15"),
    ("max_prepared_transactions", "0"),
    ("max_worker_processes", "4"),
    ("max_wal_senders", "0"),
    ("autovacuum", "off"),
];

/// Whoever has all the room there is but for a few locks.
struct Hog {
    client: Client,
    taken: i64,
}

impl Hog {
    /// Takes locks one by one until there is no room, then gives `free` of them back.
    fn leave(&mut self, free: i64) {
        let full = error_of(
            &mut self.client,
            "DO $$ BEGIN FOR n IN 1 .. 1000000 LOOP PERFORM pg_advisory_lock(77, n); END LOOP; END $$",
        );
        assert_eq!(full.code, "53200", "{full:?}");
        let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = 77";
        self.taken = one(&mut self.client, sql, &[]);
        let from = self.taken - free;
        let give_back = format!(
            "SELECT pg_advisory_unlock(77, n::int) FROM generate_series({from} + 1, {from} + {free}) AS n"
        );
        run_sql(&mut self.client, &give_back);
    }

    fn go(&mut self) {
        run_sql(&mut self.client, "SELECT pg_advisory_unlock_all()");
    }
}

struct Scene {
    server: Server,
    hog: Hog,
    caller: Client,
    watcher: Client,
    number: u64,
}

fn scene() -> Scene {
    let server = Server::start("lock-table", &[]);
    let db = server.books();
    calls::fill(&mut db.client());
    // Making books takes more locks than there will be.
    server.stop("fast");
    server.set_conf(SMALL);
    server.start_again();
    let (watcher, hog) = (db.client(), Hog { client: db.client(), taken: 0 });
    let caller = db.client_with("-c client_min_messages=error");
    // Its name lives on, the database too: the server goes as a whole.
    std::mem::forget(db);
    Scene { server, hog, caller, watcher, number: 0 }
}

/// Each call with a few locks to spare, at other numbers of them in each round: it fails at another
/// place each time.
fn round(scene: &mut Scene, seed: u64, refused: &AtomicUsize, tried: &AtomicUsize) {
    let mut rng = Rng::with_seed(seed);
    for call in CALLS {
        let before = state(&mut scene.watcher);
        let mut went_on = false;
        for free in [0, rng.i64(1..5), rng.i64(5..15), rng.i64(15..90)] {
            scene.number += 1;
            let sql = call.sql(scene.number);
            scene.hog.leave(free);
            let begin = if call.is_procedure() { "" } else { "BEGIN;" };
            let outcome = scene.caller.batch_execute(&format!("{begin}{sql}"));
            let _ = scene.caller.batch_execute("ROLLBACK");
            scene.hog.go();
            tried.fetch_add(1, Ordering::Relaxed);
            match outcome {
                Ok(()) => went_on = true,
                Err(error) => {
                    let code = error.code().expect("an error of the server").code();
                    assert_eq!(code, "53200", "{free} locks left: {sql}\n{error:?}");
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        if !call.is_procedure() {
            assert_unchanged(&mut scene.watcher, &before, call.of[0]);
        }
        if !went_on {
            scene.number += 1;
            run_sql(&mut scene.caller, &call.sql(scene.number));
        }
    }
    run_sql(&mut scene.caller, "SELECT exa_billing.post_spend(1000000)");
    assert_books_hold(&mut scene.caller);
}

pub fn every_call_with_few_locks_to_spare() {
    let (refused, tried) = (AtomicUsize::new(0), AtomicUsize::new(0));
    prove_in(
        "faults",
        trial(1),
        1,
        |_| scene(),
        |scene, seed| round(scene, seed, &refused, &tried),
    );
    let (refused, tried) = (refused.into_inner(), tried.into_inner());
    assert!(refused > tried / 10, "{refused} of {tried}: there was room enough");
    figure(
        "faults",
        &format!(
            "{tried} calls with a full lock table: {refused} refused with 53200 and nothing written"
        ),
    );
}

const CHARGE: &str =
    "SELECT exa_billing.record_spend('user', 'paid', 1, 'scheduled', 'other', 'p')";

/// The worker meets it too; it stays, says so, and goes on when there is room.
pub fn the_worker_outlives_it() {
    let Scene { server, mut hog, mut caller, mut watcher, .. } = scene();
    let database: String = one(&mut watcher, "SELECT current_database()::text", &[]);
    serve(&server, &database);
    let (worker, leader) = (wait_for_worker(&mut watcher, &database), launcher(&server));
    run_sql(&mut caller, &format!("BEGIN; {CHARGE}"));
    hog.leave(0);
    run_sql(&mut caller, "COMMIT");
    let is_told = |line: &str| {
        line.contains("exa_billing could not") && line.ends_with(": out of shared memory")
    };
    wait_until("one of its jobs fails", || server.log().lines().any(is_told));
    // Whatever anybody gives back is taken as well; so everybody meets it, also the launcher, which
    // looks after its worker every second.
    let full_since = Instant::now();
    wait_until("everybody has met it", || {
        hog.leave(0);
        full_since.elapsed() > Duration::from_millis(2500)
    });
    hog.go();
    run_sql(&mut caller, CHARGE);
    wait_until("it posts", || queue(&mut watcher) == 0);
    assert_eq!(wait_for_worker(&mut watcher, &database), worker);
    assert_eq!(launcher(&server), leader);
    assert_books_hold(&mut watcher);
}
