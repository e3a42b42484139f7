//! What can be called, out of the catalog: a function that is added is tried without a word here.

use crate::usage_common::column;
use postgres::Client;
use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Function,
    Procedure,
    View,
}

#[derive(Debug, Clone)]
pub struct Argument {
    pub name: String,
    /// As in pg_type: `int8`, `_text` for an array of texts.
    pub type_name: String,
    /// `c` for a composite type.
    pub type_kind: String,
    pub has_default: bool,
}

/// A function, a procedure or a view of the extension.
#[derive(Debug, Clone)]
pub struct Callable {
    pub kind: Kind,
    pub name: String,
    /// Of a view: its columns.
    pub arguments: Vec<Argument>,
    /// STABLE: writes nothing.
    pub only_reads: bool,
    pub is_trigger: bool,
    pub returns_set: bool,
    /// The SQLSTATEs that its COMMENT speaks of.
    pub documented: BTreeSet<String>,
    /// How often it is called, compared with others.
    pub weight: u32,
}

const USUAL_WEIGHT: u32 = 20;

/// Called less often than others, because a call takes tens of milliseconds or slows the rest of its
/// round down. Nothing is left out altogether.
const SELDOM: &[(&str, u32)] = &[
    ("account_statement", 12),
    ("backfill_next_hours", 8),
    ("backfill_rollups", 1),
    ("check_exa_usage", 14),
    ("cost_insights_overview", 4),
    ("enable_row_security", 1),
    ("evaluate_due_owners", 2),
    ("evaluate_spend_alerts", 6),
    ("grant_application", 2),
    ("grant_auditor", 2),
    ("grant_end_user", 2),
    ("grant_operator", 2),
    ("health", 3),
    ("health_checks", 5),
    ("maintain_partitions", 1),
    ("post_spend", 8),
    ("rebuild_rollups", 12),
    ("recompute_all_balances", 1),
    ("recompute_baselines", 12),
    ("recompute_next_owner", 6),
    ("recompute_organization_balances", 5),
    ("recompute_user_balances", 5),
    ("reconcile_rollups", 4),
    ("run_maintenance", 1),
    ("run_maintenance_step", 5),
    ("run_spend_alert_sweep", 1),
    ("setup", 1),
    ("spend_drivers_hourly", 12),
    ("spend_entries", 6),
    ("spend_evidence", 12),
    ("update_spend_alert_settings", 10),
    ("verify_books", 1),
];

const CALLABLES: &str = "
    SELECT p.prokind::text, p.proname::text, p.provolatile = 's', t.typname IN ('trigger', 'event_trigger'),
           p.proretset, coalesce(obj_description(p.oid, 'pg_proc'), ''),
           coalesce(p.proargnames[:p.pronargs], '{}')::text[], p.pronargdefaults::int,
           ARRAY(SELECT a.typname::text FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS u(id, n)
                 JOIN pg_type AS a ON a.oid = u.id ORDER BY n),
           ARRAY(SELECT a.typtype::text FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS u(id, n)
                 JOIN pg_type AS a ON a.oid = u.id ORDER BY n)
    FROM pg_proc AS p
    JOIN pg_type AS t ON t.oid = p.prorettype
    JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
    WHERE p.pronamespace = 'exa_billing'::regnamespace
    UNION ALL
    SELECT 'v', c.relname::text, true, false, true, '',
           ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum),
           0,
           ARRAY(SELECT t.typname::text FROM pg_attribute JOIN pg_type AS t ON t.oid = atttypid
                 WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum),
           ARRAY(SELECT t.typtype::text FROM pg_attribute JOIN pg_type AS t ON t.oid = atttypid
                 WHERE attrelid = c.oid AND attnum > 0 ORDER BY attnum)
    FROM pg_class AS c
    WHERE c.relnamespace = 'exa_billing'::regnamespace AND c.relkind = 'v'
    ORDER BY 2";

pub fn callables(client: &mut Client) -> Vec<Callable> {
    let rows = client.query(CALLABLES, &[]).expect("the catalog");
    let all: Vec<Callable> = rows.iter().map(callable).collect();
    for (name, _) in SELDOM {
        assert!(all.iter().any(|one| one.name == *name), "there is no {name} any more");
    }
    let functions = all.iter().filter(|one| one.kind != Kind::View).count();
    let declared: Vec<i64> = column(
        client,
        "SELECT count(*) FROM pg_proc WHERE pronamespace = 'exa_billing'::regnamespace",
    );
    assert_eq!(
        i64::try_from(functions),
        Ok(declared[0]),
        "a function is no member of the extension"
    );
    all
}

fn callable(row: &postgres::Row) -> Callable {
    let kind = match row.get::<_, &str>(0) {
        "p" => Kind::Procedure,
        "v" => Kind::View,
        _ => Kind::Function,
    };
    let name: String = row.get(1);
    let (names, types, kinds): (Vec<String>, Vec<String>, Vec<String>) =
        (row.get(6), row.get(8), row.get(9));
    let without_default = names.len().saturating_sub(row.get::<_, i32>(7).unsigned_abs() as usize);
    let arguments =
        (0..).zip(names).zip(types).zip(kinds).map(|(((number, name), type_name), type_kind)| {
            Argument { name, type_name, type_kind, has_default: number >= without_default }
        });
    let seldom = SELDOM.iter().find(|(seldom, _)| *seldom == name);
    Callable {
        kind,
        arguments: arguments.collect(),
        only_reads: row.get(2),
        is_trigger: row.get(3),
        returns_set: row.get(4),
        documented: documented(row.get(5), row.get(3)),
        weight: seldom.map_or(USUAL_WEIGHT, |(_, weight)| *weight),
        name,
    }
}

/// The SQLSTATEs of a COMMENT, from its "Errors:" to its "Example:". There are books here, up to date,
/// so that what it says of their absence is no answer. Trigger functions speak of hardly anything else.
fn documented(comment: &str, is_trigger: bool) -> BTreeSet<String> {
    let all = if is_trigger { comment } else { "" };
    let errors = comment.split_once("Errors:").map_or(all, |(_, rest)| rest);
    let errors = errors.split_once("Example:").map_or(errors, |(errors, _)| errors);
    let errors = errors.replace("55000 without books", "");
    let words = errors.split(|c: char| !c.is_ascii_alphanumeric());
    let is_code = |word: &&str| {
        word.len() == 5
            && word.chars().any(|c| c.is_ascii_digit())
            && !word.chars().any(|c| c.is_ascii_lowercase())
    };
    words.filter(is_code).map(str::to_owned).collect()
}
