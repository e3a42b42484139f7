//! The house rules, checked over the repository's files. Needs no server.

#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/pure.rs"]
mod pure;
#[path = "tidy/released.rs"]
mod released;

use pure::PURE;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 500;

const FORBIDDEN: [(&str, &str); 9] = [
    ("Spi::get_one", "reads go through spi::Statement"),
    ("Spi::get_two", "reads go through spi::Statement"),
    ("Spi::run", "statements go through spi::Statement"),
    (".unwrap()", "bad input never panics: return an error, or expect() with the reason"),
    ("todo!", "nothing is left undone"),
    ("unimplemented!", "nothing is left undone"),
    ("dbg!", "no debugging output"),
    ("println!", "the server's log is written with ereport"),
    ("#[ignore", "a test runs or goes"),
];

const MAY_BE_UNSAFE: [(&str, &str); 6] = [
    ("src/spi/", "speaks to the executor for everybody else"),
    ("src/worker/", "entry points and signals of background processes"),
    ("src/books/guard.rs", "the callback that hears of changed relations"),
    ("src/partitions/on_demand.rs", "entry point of the process that makes one month"),
    ("src/jobs/shared.rs", "a place in shared memory"),
    ("src/guc.rs", "reserves the prefix of the settings"),
];

/// Functions that write with their caller's rights, and why.
const WITH_CALLERS_RIGHTS: [(&str, &str); 2] = [
    ("attach_spend_source", "only who owns a table makes it charge people"),
    ("detach_spend_source", "the same"),
];

/// Functions that read with the rights of the books, and why.
const WITH_THE_BOOKS_RIGHTS: [(&str, &str); 1] =
    [("managed_organizations", "policies ask it, and must not be asked in turn")];

// Files ----------------------------------------------------------------------------------------

struct Source {
    /// Relative to the repository, with slashes.
    path: String,
    text: String,
}

struct Finding {
    path: String,
    line: usize,
    rule: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.rule)
    }
}

impl Source {
    fn finding(&self, line: usize, rule: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, rule: rule.into() }
    }

    /// One finding per line of `view` that contains `what`.
    fn findings(&self, view: &str, what: &str, rule: &str) -> Vec<Finding> {
        let lines = view.lines().enumerate().filter(|(_, line)| line.contains(what));
        lines.map(|(i, _)| self.finding(i + 1, format!("{what}: {rule}"))).collect()
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a directory with an extension, sorted.
fn files(directory: &str, extension: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(directory), extension, &mut found);
    found.sort();
    assert!(!found.is_empty(), "no .{extension} files in {directory}");
    let source = |path: &PathBuf| {
        let path = path.strip_prefix(root()).expect("below the root").display().to_string();
        Source { text: read(&path), path }
    };
    found.iter().map(source).collect()
}

fn collect(directory: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    let entries = fs::read_dir(directory).expect("a directory of the repository");
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            collect(&path, extension, found);
        } else if path.extension().is_some_and(|its| its == extension) {
            found.push(path);
        }
    }
}

#[track_caller]
fn none(findings: Vec<Finding>) {
    let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
    assert!(lines.is_empty(), "house rules broken:\n{}", lines.join("\n"));
}

fn line_at(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Where each `what` begins, with the text that follows it.
fn after<'a>(text: &'a str, what: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    text.match_indices(what).map(move |(at, _)| (at, &text[at + what.len()..]))
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

// Rules of a single Rust file ------------------------------------------------------------------

fn too_long(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    let rule = format!("{lines} lines, at most {} are allowed", MAX_LINES - 1);
    (lines >= MAX_LINES).then(|| source.finding(lines, rule))
}

fn forbidden(source: &Source) -> Vec<Finding> {
    let code = lexer::without_tests(&lexer::rust(&source.text).code);
    let words = FORBIDDEN.iter().flat_map(|(what, rule)| source.findings(&code, what, rule));
    let allows = after(&code, "[allow(").filter(|(_, rest)| {
        let end = rest.find(")]").unwrap_or(rest.len());
        !rest[..end].contains("reason")
    });
    let line = |at| line_at(&code, at);
    words
        .chain(allows.map(|(at, _)| source.finding(line(at), "#[allow(…)] gives no reason")))
        .collect()
}

fn impure(source: &Source) -> Vec<Finding> {
    let code = lexer::rust(&source.text).code;
    let rule = "this file knows nothing of the server";
    ["pgrx", "crate::spi"].iter().flat_map(|what| source.findings(&code, what, rule)).collect()
}

fn unsafe_elsewhere(source: &Source) -> Vec<Finding> {
    if MAY_BE_UNSAFE.iter().any(|(place, _)| source.path.starts_with(place)) {
        return Vec::new();
    }
    let code = lexer::rust(&source.text).code;
    source.findings(&code, "unsafe", "unsafe code has its few places")
}

/// The names of the functions that PostgreSQL calls, with what is wrong with them.
fn exported(source: &Source) -> (Vec<(usize, String)>, Vec<Finding>) {
    let code = lexer::without_tests(&lexer::rust(&source.text).code);
    let lines: Vec<&str> = source.text.lines().collect();
    let (mut names, mut findings) = (Vec::new(), Vec::new());
    for (at, rest) in after(&code, "#[pg_extern").chain(after(&code, "#[pg_trigger")) {
        let line = line_at(&code, at);
        if !rest[..rest.find(']').unwrap_or(0)].contains("sql = false") {
            findings.push(source.finding(line, "the SQL is written by hand: sql = false"));
        }
        let above = lines[..line - 1].iter().rev().find(|text| !text.starts_with("#["));
        if !above.is_some_and(|text| text.starts_with("///")) {
            findings.push(source.finding(line, "an SQL function has a doc comment"));
        }
        if let Some((_, name)) = after(rest, "fn ").next() {
            names.push((line, word(name).to_owned()));
        }
    }
    (names, findings)
}

/// Every other room a file looks at, with the line.
fn rooms_looked_at(code: &str) -> Vec<(usize, String)> {
    let mut looked_at = Vec::new();
    for (at, rest) in after(code, "crate::") {
        let line = line_at(code, at);
        let Some(group) = rest.strip_prefix('{') else {
            looked_at.push((line, word(rest).to_owned()));
            continue;
        };
        let (mut depth, mut is_first) = (1, true);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 1 => is_first = true,
                _ if is_first && !c.is_whitespace() => {
                    looked_at.push((line, word(&group[i..]).to_owned()));
                    is_first = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    looked_at
}

fn looking_ahead(source: &Source, rooms: &[String]) -> Vec<Finding> {
    let inside = source.path.trim_start_matches("src/").trim_end_matches(".rs");
    let room = word(inside);
    let Some(own) = rooms.iter().position(|name| name == room) else {
        return vec![source.finding(1, "this file is in no room of src/lib.rs")];
    };
    let code = lexer::rust(&source.text).code;
    let ahead = rooms_looked_at(&code).into_iter().filter_map(|(line, name)| {
        let other = rooms.iter().position(|room| *room == name)?;
        let rule = format!("room {room} looks at {name}, which comes after it in src/lib.rs");
        (other > own).then(|| source.finding(line, rule))
    });
    let mut findings: Vec<Finding> = ahead.collect();
    // From the first file of a room `super` is the whole library.
    if inside == room || inside == format!("{room}/mod") {
        let code = lexer::without_tests(&code);
        findings.extend(source.findings(&code, "super::", "other rooms are named by crate::"));
    }
    findings
}

// Rules of SQL ---------------------------------------------------------------------------------

/// What the books consist of, from the statements that make it.
fn book_tables() -> BTreeSet<String> {
    let sources = files("sql", "sql");
    let texts = sources.iter().map(|source| lexer::sql_code(&source.text));
    let names = texts.flat_map(|text| {
        ["TABLE exa_billing.", "VIEW exa_billing."]
            .iter()
            .flat_map(|what| after(&text, what).map(|(_, rest)| word(rest).to_owned()))
            .collect::<Vec<_>>()
    });
    names.collect()
}

/// Tables that are named without their schema.
fn bare_tables(source: &Source, view: &str, tables: &BTreeSet<String>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut before = "";
    for (i, line) in view.lines().enumerate() {
        let of_name = |c: char| c.is_alphanumeric() || "_.\"".contains(c);
        for token in line.split(|c| !of_name(c)).filter(|token| !token.is_empty()) {
            let names_a_table = ["FROM", "JOIN", "INTO", "UPDATE", "TABLE", "ONLY"];
            let name = token.trim_matches('"');
            if names_a_table.contains(&before) && tables.contains(name) {
                findings.push(source.finding(i + 1, format!("{name} lacks its exa_billing.")));
            }
            before = token;
        }
    }
    findings
}

fn careless_functions(source: &Source) -> Vec<Finding> {
    let code = lexer::sql_code(&source.text);
    let mut findings = Vec::new();
    for (at, rest) in after(&code, "FUNCTION exa_billing.") {
        let is_new = code[..at].ends_with("CREATE ") || code[..at].ends_with("CREATE OR REPLACE ");
        if !is_new {
            continue;
        }
        let statement = &rest[..rest.find(';').unwrap_or(rest.len())];
        let words = statement.split_whitespace().collect::<Vec<_>>().join(" ");
        let has = |what: &str| words.contains(what);
        let name = word(rest);
        let mut refuse = |rule: &str| {
            findings.push(source.finding(line_at(&code, at), format!("{name}: {rule}")));
        };
        if !has("SET search_path = pg_catalog, pg_temp") {
            refuse("the search_path is pinned");
        }
        let definer = has("SECURITY DEFINER");
        let writes = has(" VOLATILE") && definer;
        let reads = has(" STABLE") && !definer;
        let mut exempt = WITH_CALLERS_RIGHTS.iter().chain(&WITH_THE_BOOKS_RIGHTS);
        let is_exempt = exempt.any(|(exempt, _)| *exempt == name);
        if !writes && !reads && !has("RETURNS trigger") && !is_exempt {
            refuse("either VOLATILE SECURITY DEFINER or STABLE with the caller's rights");
        }
        if !source.text.contains(&format!("COMMENT ON FUNCTION exa_billing.{name}(")) {
            refuse("a function has a comment");
        }
        if !source.text.contains(&format!("AS 'MODULE_PATHNAME', '{name}_wrapper'")) {
            refuse("the library's entry has the function's name");
        }
    }
    findings
}

// The repository -------------------------------------------------------------------------------

#[test]
fn files_stay_short() {
    let all =
        [files("src", "rs"), files("tests", "rs"), files("fuzz/src", "rs"), files("sql", "sql")];
    none(all.iter().flatten().filter_map(too_long).collect());
}

#[test]
fn source_files_say_first_what_they_are() {
    let begins_well = |source: &Source| source.text.starts_with("//! ");
    let silent = files("src", "rs").into_iter().filter(|source| !begins_well(source));
    none(silent.map(|source| source.finding(1, "a source file begins with //!")).collect());
}

#[test]
fn forbidden_words_do_not_occur() {
    none(files("src", "rs").iter().flat_map(forbidden).collect());
}

#[test]
fn pure_files_know_nothing_of_the_server() {
    let pure = PURE.iter().map(|&path| Source { path: path.to_owned(), text: read(path) });
    none(pure.flat_map(|source| impure(&source)).collect());
}

#[test]
fn unsafe_code_stays_where_it_belongs() {
    let sources = files("src", "rs");
    none(sources.iter().flat_map(unsafe_elsewhere).collect());
    for (place, reason) in MAY_BE_UNSAFE {
        let needs_it = |source: &Source| {
            source.path.starts_with(place) && lexer::rust(&source.text).code.contains("unsafe")
        };
        assert!(sources.iter().any(needs_it), "nothing in {place} is unsafe any more ({reason})");
    }
}

#[test]
fn rooms_look_only_at_rooms_before_them() {
    let library = lexer::rust(&read("src/lib.rs")).code;
    let named = library.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let rooms: Vec<String> = named.map(str::to_owned).collect();
    assert!(rooms.len() > 10, "{rooms:?}");
    let sources = files("src", "rs");
    let inside = sources.iter().filter(|source| source.path != "src/lib.rs");
    none(inside.flat_map(|source| looking_ahead(source, &rooms)).collect());
}

#[test]
fn every_exported_function_is_declared_in_sql() {
    let installed: String = files("sql/install", "sql").into_iter().map(|file| file.text).collect();
    let mut findings = Vec::new();
    let mut count = 0;
    for source in files("src", "rs") {
        let (names, wrong) = exported(&source);
        findings.extend(wrong);
        count += names.len();
        for (line, name) in names {
            if !installed.contains(&format!("CREATE FUNCTION exa_billing.{name}(")) {
                findings.push(source.finding(line, format!("{name} is not in sql/install")));
            }
        }
    }
    assert_eq!(count, installed.matches("CREATE FUNCTION exa_billing.").count());
    none(findings);
}

#[test]
fn sql_functions_are_declared_with_care() {
    none(files("sql/install", "sql").iter().flat_map(careless_functions).collect());
}

#[test]
fn statements_name_tables_with_their_schema() {
    let tables = book_tables();
    assert!(tables.contains("unposted_spend") && tables.contains("account_balances"), "{tables:?}");
    let in_sql = files("sql", "sql");
    let in_sql =
        in_sql.iter().flat_map(|file| bare_tables(file, &lexer::sql_code(&file.text), &tables));
    let in_rust = files("src", "rs");
    let in_rust =
        in_rust.iter().flat_map(|file| bare_tables(file, &lexer::rust(&file.text).texts, &tables));
    none(in_sql.chain(in_rust).collect());
}

#[test]
fn migrations_are_numbered_without_gaps() {
    for (i, file) in files("sql/migrations", "sql").iter().enumerate() {
        let prefix = format!("sql/migrations/{:04}_", i + 1);
        assert!(file.path.starts_with(&prefix), "{}: numbered without gaps", file.path);
    }
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_changelog_knows_this_version() {
    let version = env!("CARGO_PKG_VERSION");
    let changelog = read("CHANGELOG.md");
    let is_entry = |line: &str| {
        line.strip_prefix("## ").is_some_and(|title| {
            title.split(|c: char| c != '.' && !c.is_alphanumeric()).any(|word| word == version)
        })
    };
    assert!(changelog.lines().any(is_entry), "CHANGELOG.md has no \"## {version}\"");
}

/// What PGXN wants to know, and that it says the same as Cargo.toml.
#[test]
fn the_distribution_describes_this_version() {
    let meta: serde_json::Value = serde_json::from_str(&read("META.json")).expect("JSON");
    let name = env!("CARGO_PKG_NAME");
    let extension = &meta["provides"][name];
    assert_eq!(meta["name"], name);
    assert_eq!(meta["abstract"], env!("CARGO_PKG_DESCRIPTION"));
    for version in [&meta["version"], &extension["version"]] {
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
    }
    assert_eq!(meta["license"], env!("CARGO_PKG_LICENSE").to_lowercase());
    assert_eq!(meta["meta-spec"]["version"], "1.0.0");
    assert!(meta["maintainer"].as_array().is_some_and(|people| !people.is_empty()));
    for file in ["file", "docfile"] {
        let path = extension[file].as_str().expect("a path");
        assert!(root().join(path).is_file(), "{path}");
    }
}

// The rules themselves -------------------------------------------------------------------------

#[test]
fn each_rule_finds_what_breaks_it() {
    let planted = |text: &str| Source { path: "src/money.rs".to_owned(), text: text.to_owned() };
    let lines = |findings: Vec<Finding>| findings.iter().map(|f| f.line).collect::<Vec<_>>();

    for (what, _) in FORBIDDEN {
        let text =
            format!("//! x\n// {what}\nfn a() {{ {what} }}\n#[cfg(test)]\nmod b {{ {what} }}");
        assert_eq!(lines(forbidden(&planted(&text))), [3], "{what}");
    }
    let allowed = "#[allow(a)]\n#[allow(\n b,\n reason = \"c\"\n)]\n#![allow(d)]";
    assert_eq!(lines(forbidden(&planted(allowed))), [1, 6]);
    assert_eq!(lines(impure(&planted("use pgrx::x;\nuse crate::spi;\n// pgrx"))), [1, 2]);
    assert_eq!(lines(unsafe_elsewhere(&planted("\nunsafe {}"))), [2]);
    assert!(too_long(&planted(&"\n".repeat(499))).is_none());
    assert!(too_long(&planted(&"\n".repeat(500))).is_some());

    let externs = "#[pg_extern(sql = false)]\nfn a() {}\n/// d\n#[pg_extern]\nfn b() {}\n/// d\n#[pg_extern(sql = false)]\n#[allow(x)]\npub fn c<'a>() {}";
    let (names, wrong) = exported(&planted(externs));
    assert_eq!(names.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(lines(wrong), [1, 4]);

    let rooms = ["error", "money", "spi", "books"].map(str::to_owned);
    let looks = "use crate::error::A;\nuse crate::{error, spi::{self, B},\n books};\nfn a() { crate::books::b() }\nuse super::spi;";
    assert_eq!(lines(looking_ahead(&planted(looks), &rooms)), [2, 2, 4, 5]);

    let tables = BTreeSet::from(["accounts".to_owned()]);
    let bare =
        "SELECT FROM exa_billing.accounts\nJOIN accounts\nUPDATE\n \"accounts\" SET\nAS accounts";
    assert_eq!(lines(bare_tables(&planted(""), bare, &tables)), [2, 4]);

    let function = "CREATE FUNCTION exa_billing.f() RETURNS int LANGUAGE c STABLE SET search_path = pg_catalog, pg_temp AS 'MODULE_PATHNAME', 'f_wrapper'; COMMENT ON FUNCTION exa_billing.f() IS 'f';";
    assert!(careless_functions(&planted(function)).is_empty());
    for (part, replacement) in [
        ("STABLE", "VOLATILE"),
        ("STABLE", "STABLE SECURITY DEFINER"),
        (", pg_temp", ""),
        ("COMMENT ON", ""),
        ("f_wrapper", "g_wrapper"),
    ] {
        let careless = function.replace(part, replacement);
        assert_eq!(lines(careless_functions(&planted(&careless))), [1], "{part}");
    }
    assert_eq!(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}
