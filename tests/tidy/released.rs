//! What was released is never edited, and what it names stays: somebody has it.

use super::{Finding, Source, collect, exported, files, none, read, root, sha256};
use std::collections::BTreeSet;
use std::fs;

/// Files of releases, each with the SHA-256 of its text: storage migrations, scripts that update the
/// extension, and what tests/upgrade/released keeps of each version. scripts/keep_release.sh prints the
/// lines of a release; no line ever changes.
const RELEASED: &[(&str, &str)] = &[];

/// Released files that are gone or read differently.
fn edited(
    released: &[(&str, &str)],
    hash_of: impl Fn(&str) -> Option<String>,
) -> Vec<(String, String)> {
    let wrong = released.iter().filter_map(|(path, hash)| match hash_of(path) {
        Some(found) if found == *hash => None,
        Some(_) => Some((*path, "is released and never edited: write a new one")),
        None => Some((*path, "is released and never removed")),
    });
    wrong.map(|(path, rule)| (path.to_owned(), rule.to_owned())).collect()
}

/// Kept files that the list does not have.
fn unlisted<'a>(kept: &[&'a str], released: &[(&str, &str)]) -> Vec<&'a str> {
    let is_listed = |path: &str| released.iter().any(|(listed, _)| *listed == path);
    kept.iter().copied().filter(|path| !is_listed(path)).collect()
}

/// The entries of the library that a script names and the library no longer has. Functions of older
/// versions call them until ALTER EXTENSION … UPDATE, and on the way from version to version scripts
/// make functions that later ones drop.
fn lost_entries<'a>(script: &'a str, exported: &BTreeSet<String>) -> Vec<(usize, &'a str)> {
    let named = script.match_indices("_wrapper'").filter_map(|(end, _)| {
        let start = script[..end].rfind('\'')? + 1;
        let line = script[..start].matches('\n').count() + 1;
        Some((line, &script[start..end]))
    });
    named.filter(|(_, name)| !exported.contains(*name)).collect()
}

#[test]
fn what_was_released_never_changes() {
    let hash_of = |path: &str| fs::read_to_string(root().join(path)).ok().map(|text| sha256(&text));
    let finding = |(path, rule)| Finding { path, line: 1, rule };
    none(edited(RELEASED, hash_of).into_iter().map(finding).collect());
    let mut kept = Vec::new();
    collect(&root().join("tests/upgrade"), "sql", &mut kept);
    let kept: Vec<String> = kept
        .iter()
        .map(|path| path.strip_prefix(root()).expect("below the root").display().to_string())
        .collect();
    let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
    let unlisted = unlisted(&kept, RELEASED);
    assert!(unlisted.is_empty(), "tests/tidy/released.rs lacks {unlisted:?}");
}

#[test]
fn functions_of_older_versions_find_their_entries() {
    let sources = files("src", "rs");
    let names = sources.iter().flat_map(|source| exported(source).0);
    let exported: BTreeSet<String> = names.map(|(_, name)| name).collect();
    let older = RELEASED.iter().filter(|(path, _)| path.ends_with(".sql"));
    let lost = older.flat_map(|(path, _)| {
        let script = Source { path: (*path).to_owned(), text: read(path) };
        let lost = lost_entries(&script.text, &exported);
        let rule = |name: &str| format!("the library has no entry {name} any more");
        lost.iter().map(|(line, name)| script.finding(*line, rule(name))).collect::<Vec<_>>()
    });
    none(lost.collect());
}

#[test]
fn these_rules_find_what_breaks_them() {
    let made_up = [("a.sql", "1"), ("b.sql", "2"), ("c.sql", "3")];
    let hash_of = |path: &str| (path != "c.sql").then(|| "1".to_owned());
    let wrong: Vec<_> = edited(&made_up, hash_of).into_iter().map(|w| w.0).collect();
    assert_eq!(wrong, ["b.sql", "c.sql"]);
    assert_eq!(unlisted(&["b.sql", "d.sql"], &made_up), ["d.sql"]);
    let script = "AS 'MODULE_PATHNAME', 'setup_wrapper';\nAS 'MODULE_PATHNAME', 'gone_wrapper';";
    let exported = BTreeSet::from(["setup".to_owned()]);
    assert_eq!(lost_entries(script, &exported), [(2, "gone")]);
}
