//! Every two operations at once, in every order that matters: the specs of tests/isolation, run by
//! PostgreSQL's isolation tester. tests/isolation/README.md tells how to read and change them.

mod common;
mod proof_common;
#[path = "proof_isolation/specs.rs"]
mod specs;

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use common::{Server, run_sql};
use proof_common::figure;
use specs::{OPERATIONS, Spec};

/// So many programs at once, each with books of its own: what a machine of two cores can do.
const GROUPS: usize = 2;

/// How each permutation has to end; what follows are its figures.
const VERDICT: &str = "clean and as promised|";

/// What a step may be refused with, because the race is about just that.
const EXPECTED_ERRORS: [&str; 6] = [
    "could not serialize access due to concurrent update",
    "created_at is before the owner's last expiration",
    "exa_billing.attach_spend_source() needs isolation level read committed",
    "idempotency key \"k\" was used for another call",
    "spend source \"ledger\" is attached already",
    "table \"public\".\"ledger\" is attached already",
];

#[test]
fn every_two_operations_have_a_spec() {
    let names: BTreeSet<String> = specs::all().into_iter().map(|spec| spec.name).collect();
    assert_eq!(specs::pairs().len(), 78);
    assert_eq!(names, specs::pairs());
}

#[test]
fn every_spec_says_in_words_of_its_own_what_could_go_wrong() {
    let mut sentences: BTreeMap<String, String> = BTreeMap::new();
    for spec in specs::all() {
        assert!(spec.paragraph().len() >= 4, "{}: what could go wrong?", spec.name);
        for sentence in spec.paragraph().join(" ").split(". ") {
            let words = sentence.split_whitespace().count();
            let before = sentences.insert(sentence.to_owned(), spec.name.clone());
            let copied = before.filter(|_| words > 8);
            assert_eq!(copied, None, "{} says the same: {sentence}", spec.name);
        }
    }
}

#[test]
fn every_spec_has_both_operations_several_orders_and_a_verdict() {
    for spec in specs::all() {
        let (first, second) = spec.operations();
        for (operation, calls) in OPERATIONS {
            let meant = [first, second].into_iter().filter(|one| *one == operation).count();
            let sessions = spec.sessions_that_call(calls);
            assert!(sessions >= meant, "{} has {operation} in {sessions} sessions", spec.name);
        }
        assert_eq!(spec.idle_steps(), Vec::<&str>::new(), "{}: steps of no order", spec.name);
        assert!(spec.permutations() >= 2, "{} has too few orders", spec.name);
        assert!(spec.asks_for_the_verdict(), "{} ends without the verdict", spec.name);
    }
}

#[test]
fn every_order_of_two_operations_ends_as_promised() {
    let began = Instant::now();
    let all = specs::all();
    let (server, work) = (Server::shared(), work_directory());
    thread::scope(|scope| {
        for number in 0..GROUPS {
            let (server, work) = (&server, work.join(number.to_string()));
            let group: Vec<&Spec> = all.iter().skip(number).step_by(GROUPS).collect();
            scope.spawn(move || run_group(server, &work, &group));
        }
    });
    let permutations: usize = all.iter().map(Spec::permutations).sum();
    let _ = fs::remove_dir_all(work);
    let (specs, seconds) = (all.len(), began.elapsed().as_secs());
    figure("isolation", &format!("{specs} specs, {permutations} permutations in {seconds} s"));
}

/// A directory of this run for what the tester writes.
fn work_directory() -> PathBuf {
    let parent = env::var_os("EXA_BILLING_TEST_DIR").expect("EXA_BILLING_TEST_DIR");
    PathBuf::from(parent).join("isolation")
}

/// The directory of PostgreSQL's isolation tester. It only speaks to the server as any client does,
/// so one of any release serves for all of them.
fn tester() -> PathBuf {
    let directory = env::var_os("EXA_BILLING_ISOLATION").expect("EXA_BILLING_ISOLATION");
    let directory = PathBuf::from(directory);
    assert!(
        directory.join("isolationtester").exists(),
        "PostgreSQL's isolation tester is not in {}; Debian has it in postgresql-client-15",
        directory.display()
    );
    directory
}

/// Runs specs one after the other in books of their own.
fn run_group(server: &Server, work: &Path, group: &[&Spec]) {
    let db = server.books();
    let mut client = db.client();
    let stage = specs::directory().join("stage.sql");
    run_sql(&mut client, &fs::read_to_string(stage).expect("stage.sql"));
    fs::create_dir_all(work).expect("a directory for the results");
    let output = Command::new(tester().join("pg_isolation_regress"))
        .args(["--use-existing", "--bindir=", "--user=postgres", "--host", server.host()])
        .args(["--port", &server.port().to_string(), "--dbname", db.name()])
        .args([Path::new("--inputdir"), &specs::directory(), Path::new("--outputdir"), work])
        .args(in_order(group).iter().map(|spec| &spec.name))
        .stdin(Stdio::null())
        .output()
        .expect("pg_isolation_regress");
    let diffs = fs::read_to_string(work.join("regression.diffs")).unwrap_or_default();
    assert!(
        output.status.success(),
        "{}{}{diffs}\nThe results are in {}; tests/isolation/README.md tells how one is accepted.",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        work.join("results").display()
    );
    for spec in group {
        check_result(spec, &work.join("results").join(format!("{}.out", spec.name)));
    }
    let violations = client.query("SELECT v::text FROM exa_billing.verify_books() AS v", &[]);
    let violations = violations.expect("verify_books()");
    let violations: Vec<String> = violations.iter().map(|row| row.get(0)).collect();
    assert!(violations.is_empty(), "after all of them: {violations:#?}");
}

/// Those that make months come last: every month there is takes time to verify.
fn in_order<'a>(group: &[&'a Spec]) -> Vec<&'a Spec> {
    let makes_months = |spec: &&&Spec| spec.text.contains("a_month_never_met()");
    let (last, first): (Vec<&Spec>, Vec<&Spec>) = group.iter().partition(makes_months);
    first.into_iter().chain(last).collect()
}

/// Once more without the expected output, which somebody may have accepted too easily.
fn check_result(spec: &Spec, result: &Path) {
    let name = &spec.name;
    let result = fs::read_to_string(result).expect("a result");
    let permutations: Vec<&str> = result.split("starting permutation: ").skip(1).collect();
    assert_eq!(permutations.len(), spec.permutations(), "{name}");
    for permutation in permutations {
        let verdicts = permutation.lines().filter(|line| line.starts_with(VERDICT)).count();
        assert_eq!(verdicts, 1, "{name}: {permutation}");
        for line in permutation.lines() {
            let is_bad = ["FATAL", "PANIC", "WARNING", "failed", "canceling step"]
                .iter()
                .any(|word| line.contains(word));
            assert!(!is_bad, "{name}: {line}\n{permutation}");
            let error = line.strip_prefix("ERROR:").map(str::trim);
            let is_expected = error.is_none_or(|error| EXPECTED_ERRORS.contains(&error));
            assert!(is_expected, "{name}: {line}\n{permutation}");
        }
    }
}
