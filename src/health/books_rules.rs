//! From when on the books are not well, and what helps.

use super::finding::{DAY, Finding, Status, counted, graded, quoted, seconds_since};
use super::waiting_rules::MAX_COUNTED_TROUBLES;
use crate::error::Result;
use crate::time::{Instant, Month};
use std::collections::BTreeSet;
use uuid::Uuid;

/// How verify_books() says that an attached table is not there.
const NO_TABLE: &str = " does not exist";
const GONE_TABLE: &str = "Restore the table, then call SELECT exa_billing.setup(); where it is not to come back, end it with detach_spend_source(source_name).";
const SETUP: &str =
    "Call SELECT exa_billing.setup(); it makes what is missing and renews the rest.";

pub fn no_books() -> Finding {
    Finding::critical("0, there are no books", SETUP)
}

pub fn versions(present: Option<i32>, newest: i32) -> Finding {
    let Some(present) = present else {
        return Finding::critical("0, storage_migrations is empty", SETUP);
    };
    if present < newest {
        let figure = format!("{present}, the library's is {newest}");
        return Finding::critical(figure, SETUP);
    }
    if present > newest {
        let figure = format!("{present}, the library's is {newest}");
        return Finding::critical(
            figure,
            "Install the newer library again: these books were made by it.",
        );
    }
    Finding::ok(present.to_string())
}

/// Functions and library come in one package; one of them may have been left behind.
pub fn functions(installed: Option<&str>, library: &str) -> Finding {
    match installed {
        Some(version) if version == library => Finding::ok(version),
        installed => Finding::critical(
            format!("{}, the library's is {library}", installed.unwrap_or("none")),
            "ALTER EXTENSION exa_billing UPDATE; SELECT exa_billing.setup(); before that restart a server that has an older library preloaded.",
        ),
    }
}

/// In books of an older storage version a table may still be to come.
pub fn missing_table(table: &str, is_old: bool) -> Finding {
    let figure = format!("table exa_billing.{table} is missing");
    let restore = format!("Restore table exa_billing.{table} from a backup.");
    Finding::critical(figure, if is_old { SETUP.to_owned() } else { restore })
}

pub fn failed(message: &str, is_old: bool) -> Finding {
    let what_to_do = if is_old {
        SETUP
    } else {
        "Mend what it says: setup() puts back what is missing, grant_auditor(role) gives the right to look; a lock goes with the transaction that holds it."
    };
    Finding::critical(format!("could not be looked at: {message}"), what_to_do)
}

/// Nothing is recorded any more while this is so.
pub fn tampering(problem: Option<&str>) -> Finding {
    match problem {
        None => Finding::ok("0"),
        Some(problem) => Finding::critical(
            format!("1 or more: {problem}"),
            "Remove what does not belong to exa_billing: every call that writes is refused until then.",
        ),
    }
}

/// A guard of the books, an attached table's trigger, or an event trigger that looks after those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// In words.
    Guard(String),
    /// Its name; a member of the extension.
    EventTrigger(String),
}

pub fn guards(missing: &[Missing]) -> Finding {
    let Some(first) = missing.first() else { return Finding::ok("0") };
    let (problem, what_to_do) = match first {
        Missing::Guard(problem) if problem.ends_with(NO_TABLE) => {
            (problem.clone(), GONE_TABLE.to_owned())
        }
        Missing::Guard(problem) => (problem.clone(), SETUP.to_owned()),
        Missing::EventTrigger(name) => (
            format!("event trigger {name} is not enabled always"),
            format!("As a superuser, ALTER EVENT TRIGGER {name} ENABLE ALWAYS;"),
        ),
    };
    Finding::critical(format!("{} missing: {problem}", missing.len()), what_to_do)
}

const MONTHS: &str = "Call SELECT * FROM exa_billing.maintain_partitions(); it makes the months that are missing, or shows why it cannot.";

/// How many months after the current one every journal has without a gap.
pub fn months_ahead(current: Month, journals: &[(&str, BTreeSet<Month>)]) -> Result<Finding> {
    let mut ahead = i64::MAX;
    let mut shortest = "";
    for (table, months) in journals {
        let mut month = current;
        let mut count = -1;
        while months.contains(&month) {
            count += 1;
            month = month.next()?;
        }
        if count < ahead {
            (ahead, shortest) = (count, table);
        }
    }
    let status = match ahead {
        ..1 => Status::Critical,
        1..6 => Status::Warning,
        _ => Status::Ok,
    };
    let figure = format!("{ahead} months, {shortest}");
    Ok(Finding::of(status, figure, MONTHS))
}

/// A proof of the books: when it ended or, while it goes on, began, and what it has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    pub is_finished: bool,
    pub at: Instant,
    pub violations: i64,
    pub first: Option<String>,
}

/// The proof goes on all the time; of books that are large it takes long.
pub fn proof(proofs: &[Proof], now: Instant) -> Finding {
    if let Some(bad) = proofs.iter().find(|proof| proof.violations > 0) {
        let first = bad.first.as_deref().unwrap_or_default();
        return Finding::critical(
            format!("{} violations, the first: {first}", bad.violations),
            "Look at SELECT * FROM exa_billing.verify_books(); mend what it shows, then CALL exa_billing.run_maintenance(); until the next proof is finished.",
        );
    }
    let again = "CALL exa_billing.run_maintenance(); goes on with the proof, which the worker does by itself; verify_books() proves everything at once.";
    let newest = |is_finished: bool| {
        proofs.iter().filter(|proof| proof.is_finished == is_finished).map(|proof| proof.at).max()
    };
    if let Some(last) = newest(true) {
        let age = seconds_since(last, now);
        let figure = format!("{age} s ago, 0 violations");
        return Finding::of(graded(age, 3 * DAY, 14 * DAY), figure, again);
    }
    let Some(begun) = newest(false) else {
        return Finding::warning("never begun", again);
    };
    let age = seconds_since(begun, now);
    let figure = format!("{age} s since it began, never finished");
    Finding::of(graded(age, 0, 14 * DAY), figure, again)
}

/// The degraded interval that has been open for longest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    pub id: Uuid,
    pub since: Instant,
    pub owner: Option<(String, String)>,
    pub from: Instant,
    pub to: Instant,
    pub reason: String,
}

/// Figures are exact all the same, but these hours are read from the journals each time.
pub fn coverage(count: i64, oldest: Option<&Hole>, now: Instant) -> Finding {
    let Some(hole) = oldest.filter(|_| count > 0) else { return Finding::ok("0 intervals") };
    let range = format!("'{}', '{}'", hole.from.iso8601(), hole.to.iso8601());
    let mend = match &hole.owner {
        Some((kind, id)) => {
            let (kind, id) = (quoted(kind), quoted(id));
            format!("SELECT exa_billing.rebuild_rollups({kind}, {id}, {range});")
        }
        None => format!("CALL exa_billing.backfill_rollups({range}, false);"),
    };
    let age = seconds_since(hole.since, now);
    let count = counted(count, MAX_COUNTED_TROUBLES);
    Finding::of(
        graded(age, 0, DAY),
        format!("{count} intervals, the oldest open for {age} s: {}", hole.reason),
        &format!(
            "Put the hours right with {mend} then call SELECT exa_billing.resolve_degraded_interval('{}');",
            hole.id
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::given::*;
    use super::*;
    use crate::time::utc;

    #[test]
    fn books_of_another_version_say_so() {
        assert_eq!(status(&versions(Some(3), 3)), "ok");
        assert!(versions(Some(2), 3).what_to_do.contains("setup()"));
        assert!(!versions(Some(4), 3).what_to_do.contains("setup()"));
        assert_eq!(status(&versions(Some(4), 3)), "critical");
        assert_eq!(versions(None, 3).status, Status::Critical);
        assert!(missing_table("job_runs", true).what_to_do.contains("setup()"));
        assert!(missing_table("job_runs", false).what_to_do.contains("backup"));
        assert!(failed("x", true).what_to_do.contains("setup()"));
    }

    #[test]
    fn foreign_hands_are_critical() {
        assert_eq!(status(&tampering(None)), "ok");
        assert_eq!(status(&tampering(Some("table accounts has a rule"))), "critical");
    }

    #[test]
    fn functions_of_another_version_say_so() {
        assert_eq!(status(&functions(Some("0.2.0"), "0.2.0")), "ok");
        assert_eq!(functions(Some("0.1.0"), "0.2.0").figure, "0.1.0, the library's is 0.2.0");
        assert_eq!(status(&functions(Some("0.1.0"), "0.2.0")), "critical");
        assert_eq!(status(&functions(None, "0.2.0")), "critical");
    }

    #[test]
    fn what_is_missing_says_how_it_comes_back() {
        let of = |missing: &[Missing]| {
            let finding = guards(missing);
            (finding.status.as_str(), finding.figure.clone(), finding.what_to_do.clone())
        };
        let guard = |problem: &str| Missing::Guard(problem.to_owned());
        assert_eq!(status(&guards(&[])), "ok");
        let (status, figure, what_to_do) = of(&[guard("a"), guard("b does not exist")]);
        assert_eq!((status, figure.as_str()), ("critical", "2 missing: a"));
        assert!(what_to_do.contains("SELECT exa_billing.setup();"));
        assert!(!what_to_do.contains("detach_spend_source"));
        let (_, _, what_to_do) = of(&[guard("attached table a.b does not exist")]);
        assert!(what_to_do.contains("detach_spend_source"));
        let (_, figure, what_to_do) = of(&[Missing::EventTrigger("t".to_owned())]);
        assert_eq!(figure, "1 missing: event trigger t is not enabled always");
        assert!(what_to_do.contains("ALTER EVENT TRIGGER t ENABLE ALWAYS;"));
    }

    #[test]
    fn months_count_without_a_gap_and_for_every_journal() {
        let current = now().month().unwrap();
        let months = |ahead: &[u32]| -> BTreeSet<Month> {
            ahead.iter().map(|&months| current.plus(months).unwrap()).collect()
        };
        let long: Vec<u32> = (0..=12).collect();
        let of = |other: &[u32]| {
            months_ahead(current, &[("a", months(&long)), ("b", months(other))]).unwrap()
        };
        assert_eq!(status(&of(&long)), "ok");
        assert_eq!(of(&long).figure, "12 months, a");
        assert_eq!(of(&[0, 1, 2, 4, 5, 6, 7]).figure, "2 months, b");
        assert_eq!(status(&of(&[0, 1, 2, 4])), "warning");
        assert_eq!(status(&of(&[0, 2])), "critical");
        assert_eq!(of(&[1, 2]).figure, "-1 months, b");
        assert_eq!(status(&of(&[])), "critical");
    }

    #[test]
    fn a_violation_counts_from_the_proof_that_found_it() {
        let proof_of = |is_finished, age, violations| Proof {
            is_finished,
            at: ago(age),
            violations,
            first: (violations > 0).then(|| "I1".to_owned()),
        };
        assert_eq!(status(&proof(&[], now())), "warning");
        assert_eq!(status(&proof(&[proof_of(false, 5, 0)], now())), "warning");
        assert_eq!(status(&proof(&[proof_of(false, 5, 0), proof_of(true, 90, 0)], now())), "ok");
        let aged =
            |is_finished, days| status(&proof(&[proof_of(is_finished, days * DAY, 0)], now()));
        assert_eq!([aged(true, 2), aged(true, 3), aged(true, 14)], ["ok", "warning", "critical"]);
        assert_eq!([aged(false, 13), aged(false, 14)], ["warning", "critical"]);
        let found = proof(&[proof_of(false, 5, 1), proof_of(true, 90, 0)], now());
        assert_eq!((status(&found), found.figure.as_str()), {
            ("critical", "1 violations, the first: I1")
        });
    }

    #[test]
    fn a_hole_names_the_calls_that_close_it() {
        let hole = |owner: Option<(&str, &str)>, age: i64| Hole {
            id: Uuid::nil(),
            since: ago(age),
            owner: owner.map(|(kind, id)| (kind.to_owned(), id.to_owned())),
            from: utc(2026, 11, 20, 10, 0),
            to: utc(2026, 11, 20, 12, 0),
            reason: "restored".to_owned(),
        };
        assert_eq!(status(&coverage(0, None, now())), "ok");
        assert_eq!(status(&coverage(0, Some(&hole(None, DAY)), now())), "ok");
        let of = |owner, age| coverage(1, Some(&hole(owner, age)), now());
        let rebuild = "SELECT exa_billing.rebuild_rollups('user', 'u', '2026-11-20T10:00:00";
        assert!(of(Some(("user", "u")), 5).what_to_do.contains(rebuild));
        let all = of(None, DAY - 1);
        assert!(all.what_to_do.contains("CALL exa_billing.backfill_rollups('2026-11-20T10:00:00"));
        assert!(all.what_to_do.contains(", false);"));
        assert_eq!(all.figure, "1 intervals, the oldest open for 86399 s: restored");
        assert_eq!([status(&all), status(&of(None, DAY))], ["warning", "critical"]);
    }
}
