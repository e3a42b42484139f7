//! The triggers that an attached table and each of its partitions bear.

use super::registry::Table;
use super::text::quoted_literal;
use crate::error::Result;
use crate::spi::{self, Statement, values};
use std::cell::Cell;

pub const TRIGGERS: [&str; 4] = [
    "exa_billing_capture_insert",
    "exa_billing_capture_update",
    "exa_billing_capture_delete",
    "exa_billing_refuse_truncate",
];

/// The names of the transition tables.
pub const NEW_ROWS: &str = "exa_billing_new";
pub const OLD_ROWS: &str = "exa_billing_old";

thread_local! {
    static DETACHING: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, this backend may drop the triggers of attached tables.
pub struct Detaching(());

impl Detaching {
    pub fn begin() -> Self {
        DETACHING.set(true);
        Self(())
    }

    pub fn is_on() -> bool {
        DETACHING.get()
    }
}

/// Also when an error passes through.
impl Drop for Detaching {
    fn drop(&mut self) {
        DETACHING.set(false);
    }
}

static GUARDED: Statement = Statement::fresh(
    "SELECT c.oid, c.relowner, pg_catalog.format('%I.%I', n.nspname, c.relname)
     FROM pg_catalog.pg_class AS c
     JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
     WHERE c.oid IN (
         SELECT t.tgrelid FROM pg_catalog.pg_trigger AS t
         WHERE t.tgname = ANY ($2)
           AND t.tgargs = convert_to($1, getdatabaseencoding()) || decode('00', 'hex'))
       AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
     ORDER BY 3",
);

/// Every table of the caller's that bears triggers of a source, wherever it stands by now.
pub fn guarded(source_name: &str) -> Result<Vec<Table>> {
    GUARDED.write(values![source_name, TRIGGERS.to_vec()], |row| {
        Ok(Table { oid: row.get(1)?, owner: row.get(2)?, name: row.get(3)? })
    })
}

/// A trigger fires only for statements that name its table, so every partition has its own.
/// ALWAYS: no session_replication_role keeps a charge out of the books.
pub fn guard(table: &Table, source_name: &str) -> Result<()> {
    let (on, source) = (&table.name, quoted_literal(source_name));
    let [insert, update, delete, truncate] = TRIGGERS;
    let captures = [
        (insert, "INSERT", format!("NEW TABLE AS {NEW_ROWS}")),
        (update, "UPDATE", format!("OLD TABLE AS {OLD_ROWS} NEW TABLE AS {NEW_ROWS}")),
        (delete, "DELETE", format!("OLD TABLE AS {OLD_ROWS}")),
    ];
    let mut script = String::new();
    for (trigger, event, rows) in captures {
        script += &format!(
            "CREATE OR REPLACE TRIGGER {trigger} AFTER {event} ON {on} REFERENCING {rows}
                 FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.capture_spend({source});\n"
        );
    }
    script += &format!(
        "CREATE OR REPLACE TRIGGER {truncate} BEFORE TRUNCATE ON {on}
             FOR EACH STATEMENT EXECUTE FUNCTION exa_billing.refuse_truncate({source});\n"
    );
    for trigger in TRIGGERS {
        script += &format!("ALTER TABLE ONLY {on} ENABLE ALWAYS TRIGGER {trigger};\n");
    }
    spi::run_script(&script)
}

pub fn unguard(table: &Table) -> Result<()> {
    let drops = TRIGGERS.map(|name| format!("DROP TRIGGER IF EXISTS {name} ON {};", table.name));
    spi::run_script(&drops.concat())
}
