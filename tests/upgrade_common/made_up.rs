//! Version 0.0.9, made out of this checkout by taking away and changing a little of everything: what a
//! later release may do to functions, types, rights, guards and views.

use super::{Release, read};
use std::path::Path;

const VERSION: &str = "0.0.9";

/// Rooms that came later.
const LATER: [&str; 3] = ["jobs", "health", "erasure"];

const EXTRA_FUNCTION: &str = "
CREATE FUNCTION exa_billing.books_version() RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'setup_wrapper';
COMMENT ON FUNCTION exa_billing.books_version() IS 'Gone since. Example: SELECT exa_billing.books_version();';
";

/// Rights that were given away once: to a function that nobody is given rights on besides.
const EXTRA_RIGHTS: &str = "GRANT EXECUTE ON FUNCTION exa_billing.retry_blocked_spend() TO PUBLIC;
GRANT USAGE ON TYPE exa_billing.usage_decision TO PUBLIC;
";

/// What 0.0.9 said where this version says something else: the object, its text now, its text then.
const EDITS: [(&str, &str, &str); 5] = [
    ("FUNCTION exa_billing.post_spend(", "max_rows int DEFAULT 10000", "max_rows int DEFAULT 500"),
    ("FUNCTION exa_billing.check_exa_usage(", "LANGUAGE c STABLE", "LANGUAGE c VOLATILE"),
    ("FUNCTION exa_billing.account_balance(", "PARALLEL RESTRICTED", "PARALLEL UNSAFE"),
    ("FUNCTION exa_billing.grant_credit(", "pg_catalog, pg_temp", "pg_catalog"),
    (
        "PROCEDURE exa_billing.recompute_all_balances(",
        "is_first := false;",
        "is_first := NOT true;",
    ),
];

/// The type that has grown, by its last attribute.
const GROWN: (&str, &str) = (",\n    is_replay boolean\n", "\n");

pub fn release(storage: usize) -> Release {
    Release {
        version: VERSION.to_owned(),
        storage,
        install: install(),
        update: Some(update()),
        seeds: seeds(storage),
        guards: guards(),
        views: views(),
    }
}

/// The files of sql/install in the order in which the library names them.
fn rooms() -> Vec<String> {
    let library = read(Path::new("src/lib.rs"));
    let named = library.split("\"../sql/install/").skip(1);
    named.map(|rest| rest.split_once(".sql\"").expect("a file").0.to_owned()).collect()
}

fn room(name: &str) -> String {
    read(Path::new(&format!("sql/install/{name}.sql")))
}

fn install() -> String {
    let mut script = String::new();
    for name in rooms().iter().filter(|name| !LATER.contains(&name.as_str())) {
        if name == "ownership" {
            script += EXTRA_FUNCTION;
        }
        script += &room(name);
        script += "\n";
    }
    for (object, now, then) in EDITS {
        let statement = created(&script, object).to_owned();
        script = edited(&script, &statement, &edited(&statement, now, then));
    }
    for comment in comments() {
        script = edited(&script, &comment, &comment.replacen('\'', "'Of 0.0.9. ", 1));
    }
    edited(&script, GROWN.0, GROWN.1) + EXTRA_RIGHTS
}

/// As a release writes it, by hand: what is gone, what has grown, what reads differently, what is new.
fn update() -> String {
    let now: String = rooms().iter().map(|name| room(name) + "\n").collect();
    let mut script = String::from(
        "DROP FUNCTION exa_billing.books_version();
         ALTER TYPE exa_billing.recorded_usage ADD ATTRIBUTE is_replay boolean;
         REVOKE ALL ON FUNCTION exa_billing.retry_blocked_spend() FROM PUBLIC;
         REVOKE ALL ON TYPE exa_billing.usage_decision FROM PUBLIC;\n",
    );
    for (object, _, _) in EDITS {
        script += &created(&now, object).replacen("CREATE", "CREATE OR REPLACE", 1);
    }
    script.extend(comments());
    script.extend(LATER.map(|name| room(name) + "\n"));
    script + &room("ownership")
}

/// The comments that read differently, as they are now.
fn comments() -> Vec<String> {
    let objects = [
        ("schema", "SCHEMA exa_billing"),
        ("types", "TYPE exa_billing.recorded_usage"),
        ("books", "FUNCTION exa_billing.setup()"),
        ("usage", "FUNCTION exa_billing.check_exa_usage(text, text, timestamptz)"),
    ];
    let comment = |(file, object)| {
        statement(&room(file), &format!("COMMENT ON {object} IS"), ";\n").to_owned()
    };
    objects.into_iter().map(comment).collect()
}

/// The statement that makes a function or a procedure.
fn created<'a>(script: &'a str, object: &str) -> &'a str {
    let end = if object.starts_with("PROCEDURE") { "$procedure$;\n" } else { ";\n" };
    statement(script, &format!("CREATE {object}"), end)
}

fn statement<'a>(script: &'a str, start: &str, end: &str) -> &'a str {
    let at = script.find(start).unwrap_or_else(|| panic!("{start} is nowhere"));
    let length = script[at..].find(end).unwrap_or_else(|| panic!("{start} has no end"));
    &script[at..at + length + end.len()]
}

/// With one part in another form; fails when there is not exactly one.
fn edited(text: &str, now: &str, then: &str) -> String {
    assert_eq!(text.matches(now).count(), 1, "{now:?}");
    text.replacen(now, then, 1)
}

/// Rows of tables that came later are left out.
fn seeds(storage: usize) -> String {
    let seeds = read(Path::new("sql/books/seeds.sql"));
    let (first, _) =
        seeds.split_once("-- Suggestions that are made").expect("what came with alerts");
    if storage == 1 { first.to_owned() } else { seeds }
}

/// Without the guard that came with erase_user(): descriptions were as fixed as everything else.
fn guards() -> String {
    let guards = read(Path::new("sql/books/guards.sql"));
    let guards =
        edited(&guards, "UPDATE OF id, owner_kind", "UPDATE OF description, id, owner_kind");
    let from = guards.find("-- Its free text may go").expect("the guard of erasing");
    let length = guards[from..].find("by_erasure_only;\n").expect("its end");
    format!("{}{}", &guards[..from], &guards[from + length + "by_erasure_only;\n".len()..])
}

/// Without the views of what came later, and one of them a column shorter.
fn views() -> String {
    let views = read(Path::new("sql/books/views.sql"));
    let (views, _) = views
        .split_once("CREATE OR REPLACE VIEW exa_billing.worker_jobs")
        .expect("the views that came later are the last ones");
    let views = edited(views, "started_at, updated_at, finished_at\n", "started_at, updated_at\n");
    edited(&views, "'Credits acquired, used and left of every owner", "'Of 0.0.9: every owner")
}
