//! Whatever process dies at whatever moment: what was acknowledged is in the books exactly once, what was
//! not at most once, and afterwards everything goes on.
//!
//! Clients charge, grant and write to an attached ledger, a mailer works, the worker posts, and in the midst
//! of it processes are killed. The disks keep what the processes had written, also what was never synced;
//! so this shows that the books withstand the death of processes at any instant, and of all of them at
//! once, and that PostgreSQL's recovery finds all they need in its log. What a power failure adds to that
//! is PostgreSQL's and the disk's own affair.

#[path = "proof_crashes/after.rs"]
mod after;
mod books_common;
#[path = "proof_crashes/clients.rs"]
mod clients;
mod common;
#[path = "proof_crashes/crash.rs"]
mod crash;
mod proof_common;
#[path = "proof_crashes/said.rs"]
mod said;
mod usage_common;
mod worker_common;

use clients::{Crew, Diary};
use common::{Server, run_sql, wait_until};
use crash::{CERTAIN, Crash};
use fastrand::Rng;
use proof_common::{figure, prove_in, trial};
use said::Names;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

const PART: &str = "crashes";
const CRASHES_PER_ROUND: usize = 3;

/// A server whose books outlive all rounds, and with them the crashes of all rounds.
fn server() -> Server {
    let server = Server::start(
        PART,
        &[
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            // Only how recovery begins: one call for all files.
            ("recovery_init_sync_method", "syncfs"),
            ("exa_billing.expiration_grace", "0"),
            ("exa_billing.evaluation_delay", "0"),
            ("exa_billing.posting_interval", "20ms"),
            // Recovery then begins at another point each time.
            ("checkpoint_timeout", "30s"),
            ("autovacuum_naptime", "1s"),
        ],
    );
    let mut client = worker_common::create(&server, "app");
    run_sql(
        &mut client,
        "SELECT exa_billing.setup(), exa_billing.start_worker();
         CREATE TABLE public.llm (id text PRIMARY KEY, who text, org text, cost bigint, at timestamptz);
         CREATE INDEX ON public.llm (who, at);
         SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway',
             '{\"user_id\": \"who\", \"organization_id\": \"org\", \"amount\": \"cost\", \"created_at\": \"at\"}')",
    );
    worker_common::serve(&server, "app");
    server
}

/// What all rounds did, for the summary.
#[derive(Default)]
struct Tally {
    crashes: Vec<Crash>,
    diary: Diary,
    found: usize,
}

/// Who is told what when, and how much is free: so that both sides of every decision are met.
fn prepare(server: &Server, names: &Names) {
    let mut client = server.client("app");
    run_sql(
        &mut client,
        "SELECT exa_billing.set_free_allowance(9000000, '2020-01-01', overage_rule => 'split')",
    );
    for organization in names.organizations() {
        run_sql(
            &mut client,
            &format!(
                "SELECT exa_billing.set_organization_member('{organization}', '{}', 'owner')",
                names.users()[0]
            ),
        );
    }
    let owners = names.users().into_iter().map(|id| ("user", id));
    let owners = owners.chain(names.organizations().into_iter().map(|id| ("organization", id)));
    for (kind, id) in owners {
        run_sql(
            &mut client,
            &format!(
                "SELECT exa_billing.update_spend_alert_settings('{kind}', '{id}',
                     '{{\"spend_alerts_enabled\": true, \"threshold_24h_microdollars\": 4000000,
                       \"threshold_7d_microdollars\": 20000000, \"threshold_30d_microdollars\": 60000000,
                       \"minimum_balance_microdollars\": 1000}}', '{}')",
                names.users()[0]
            ),
        );
    }
}

/// Load with crashes in it; what the clients wrote down of it.
fn under_load(server: &Server, names: &Names, seed: u64, rng: &mut Rng) -> (Diary, Vec<Crash>) {
    let crew = Crew::new(server, names, rng);
    let mut crashes = Vec::new();
    let crashing = || {
        for number in 0..CRASHES_PER_ROUND {
            // Not to wait for anything: the moment is what is random here.
            thread::sleep(Duration::from_millis(rng.u64(20..600)));
            let crash = Crash::next(seed, number, rng);
            crash.happen(server, rng);
            wait_until("the server is up again", || {
                server.config("app").connect(postgres::NoTls).is_ok()
            });
            crashes.push(crash);
        }
        thread::sleep(Duration::from_millis(rng.u64(20..200)));
    };
    let diary = thread::scope(|scope| {
        let threads = crew.spawn(scope);
        let crashed = catch_unwind(AssertUnwindSafe(crashing));
        crew.stop();
        let mut diary = Diary::default();
        for thread in threads {
            diary.add(thread.join().expect("a client"));
        }
        crashed.unwrap_or_else(|panic| resume_unwind(panic));
        diary
    });
    (diary, crashes)
}

fn round(server: &Server, seed: u64, tally: &Mutex<Tally>) {
    let mut rng = Rng::with_seed(seed);
    let names = Names { prefix: format!("r{seed}") };
    prepare(server, &names);
    let (diary, crashes) = under_load(server, &names, seed, &mut rng);
    println!("seed {seed}: {crashes:?}, {} acts", diary.acts.len());
    let found = after::examine(server, &names, &diary);
    let mut tally = tally.lock().unwrap();
    tally.crashes.extend(crashes);
    tally.diary.add(diary);
    tally.found += found;
}

#[test]
fn every_acknowledged_charge_outlives_every_crash_exactly_once() {
    let tally = Mutex::default();
    prove_in(PART, trial(3), 1, |_| server(), |server, seed| round(server, seed, &tally));
    let Tally { crashes, diary, found } = tally.into_inner().unwrap();
    let unknown = diary.acts.iter().filter(|act| !act.acknowledged).count();
    figure(PART, &format!("{} crashes: {}", crashes.len(), crash::counts(&crashes)));
    figure(
        PART,
        &format!(
            "{} transactions with {} entries acknowledged; {unknown} without an answer, of which {found} \
             had been committed; {} notifications handed out, {} sent",
            diary.acts.len() - unknown,
            diary
                .acts
                .iter()
                .filter(|act| act.acknowledged)
                .map(|act| act.entries.len())
                .sum::<usize>(),
            diary.claimed.len(),
            diary.completed.len(),
        ),
    );
    if crashes.len() >= 9 {
        let missing: Vec<_> = CERTAIN.iter().filter(|crash| !crashes.contains(crash)).collect();
        assert!(missing.is_empty(), "nobody died by {missing:?}");
    }
    // Crashes that disturb nobody would show nothing; of a few that may be so.
    let is_disturbed = unknown > 0 || crashes.len() < 9;
    assert!(is_disturbed && diary.acts.len() > unknown, "{unknown} of {}", diary.acts.len());
}
