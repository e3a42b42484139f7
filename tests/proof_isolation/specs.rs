//! The specs as files: their names, their paragraphs, their permutations.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

/// The operations that meet each other, each with the calls by which a spec has it. The first of a
/// pair's name stands before the second here.
pub const OPERATIONS: [(&str, &[&str]); 12] = [
    ("record", &["record_exa_usage("]),
    ("check", &["check_exa_usage("]),
    ("post", &["post_spend("]),
    ("grant", &["grant_credit("]),
    ("expire", &["expire_credits("]),
    ("recompute", &["recompute_user_balances("]),
    ("rebuild", &["rebuild_rollups("]),
    ("evaluate", &["evaluate_spend_alerts("]),
    ("settings", &["update_spend_alert_settings("]),
    ("claim", &["claim_notifications("]),
    ("attach", &["attach("]),
    ("partition", &["maintain_partitions("]),
];

/// What a teardown asks: whether the books are sound and the figures as the spec promises them.
const VERDICT: &str = "SELECT * FROM verdict($$";

pub struct Spec {
    pub name: String,
    pub text: String,
}

/// Where the specs and what is expected of them are.
pub fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/isolation")
}

/// All of them, in the order of their names.
pub fn all() -> Vec<Spec> {
    let entries = fs::read_dir(directory().join("specs")).expect("the specs");
    let mut specs: Vec<Spec> = entries
        .map(|entry| {
            let path = entry.expect("a spec").path();
            assert_eq!(path.extension().and_then(|it| it.to_str()), Some("spec"), "{path:?}");
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            Spec { name, text: fs::read_to_string(&path).expect("a spec") }
        })
        .collect();
    specs.sort_by(|one, other| one.name.cmp(&other.name));
    specs
}

/// The names there have to be: every operation with itself and with each that comes after it.
pub fn pairs() -> BTreeSet<String> {
    let from = |first: usize| OPERATIONS[first..].iter().map(move |second| (first, second.0));
    let pairs = (0..OPERATIONS.len()).flat_map(from);
    pairs.map(|(first, second)| format!("{}-{second}", OPERATIONS[first].0)).collect()
}

impl Spec {
    /// The operations of its name.
    pub fn operations(&self) -> (&str, &str) {
        self.name.split_once('-').expect("two operations")
    }

    /// The lines of prose between its title and its first statement.
    pub fn paragraph(&self) -> Vec<&str> {
        let comment = self.text.lines().take_while(|line| line.starts_with('#'));
        let prose = comment.map(|line| line.trim_start_matches('#').trim());
        prose.skip(1).filter(|line| !line.is_empty()).collect()
    }

    pub fn permutations(&self) -> usize {
        self.text.lines().filter(|line| line.starts_with("permutation ")).count()
    }

    pub fn asks_for_the_verdict(&self) -> bool {
        let teardown = self.text.lines().find(|line| line.starts_with("teardown {"));
        teardown.is_some_and(|line| line.contains(VERDICT))
    }

    /// How many of its sessions have a step that calls one of these.
    pub fn sessions_that_call(&self, calls: &[&str]) -> usize {
        let has_one = |session: &&str| {
            let mut steps = session.lines().filter(|line| line.starts_with("step "));
            steps.any(|line| calls.iter().any(|call| line.contains(call)))
        };
        self.text.split("\nsession ").skip(1).filter(has_one).count()
    }

    /// Steps that no permutation takes.
    pub fn idle_steps(&self) -> Vec<&str> {
        let steps = self.text.lines().filter_map(|line| line.strip_prefix("step "));
        let names = steps.filter_map(|step| step.split_whitespace().next());
        let taken: BTreeSet<&str> = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("permutation "))
            .flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
            .collect();
        names.filter(|name| !taken.contains(name)).collect()
    }
}
