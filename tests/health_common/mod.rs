//! What the tests of health share: a row of it, books that are well, and a fault that is planted and
//! mended.
#![allow(dead_code)] // each test program uses a part of it

use crate::books_common::texts;
use crate::common::{Database, Server, run_sql};
use postgres::Client;

/// A row of health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub status: String,
    pub figure: String,
    pub what_to_do: Option<String>,
}

impl Check {
    pub fn is(&self, status: &str) -> bool {
        self.status == status
    }

    /// The statements in what is to be done, one by one.
    pub fn statements(&self) -> Vec<String> {
        let text = self.what_to_do.as_deref().unwrap_or_default();
        text.split(';')
            .filter_map(|part| {
                let words = ["SELECT ", "CALL ", "VACUUM ", "ALTER "];
                let begins = words.iter().filter_map(|word| part.find(word)).min()?;
                Some(part[begins..].to_owned())
            })
            .collect()
    }
}

#[track_caller]
pub fn check(client: &mut Client, name: &str) -> Check {
    let sql =
        "SELECT status, figure, what_to_do FROM exa_billing.health_checks() WHERE check_name = $1";
    let row = client.query_one(sql, &[&name]).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    Check { status: row.get(0), figure: row.get(1), what_to_do: row.get(2) }
}

/// Those that are not ok.
pub fn unwell(client: &mut Client) -> Vec<String> {
    texts(client, "SELECT name || ': ' || status FROM exa_billing.health WHERE status <> 'ok'")
}

pub fn run_maintenance(client: &mut Client) {
    run_sql(client, "CALL exa_billing.run_maintenance()");
}

/// Books that somebody looks after without a worker.
pub fn well() -> (Database, Client) {
    well_on(&Server::shared())
}

pub fn well_on(server: &Server) -> (Database, Client) {
    let db = server.database();
    let mut client = db.client();
    run_sql(&mut client, "SELECT exa_billing.grant_credit('user', 'u', 5000)");
    run_sql(&mut client, "SELECT exa_billing.start_worker()");
    run_maintenance(&mut client);
    assert_eq!(unwell(&mut client), [""; 0]);
    (db, client)
}

/// Plants a fault; the check turns and no other one does; what it says mends it.
#[track_caller]
pub fn turns(client: &mut Client, name: &str, status: &str, fault: &str) -> Check {
    run_sql(client, fault);
    let found = check(client, name);
    assert!(found.is(status), "{name}: {found:?}");
    assert_eq!(unwell(client), [format!("{name}: {status}")]);
    found
}

#[track_caller]
pub fn mends(client: &mut Client, name: &str, statements: &[&str]) {
    for statement in statements {
        run_sql(client, statement);
    }
    let found = check(client, name);
    assert!(found.is("ok") && found.what_to_do.is_none(), "{name}: {found:?}");
    assert_eq!(unwell(client), [""; 0]);
}

/// Does exactly what the check says.
#[track_caller]
pub fn mends_itself(client: &mut Client, name: &str, found: &Check) {
    let statements = found.statements();
    assert!(!statements.is_empty(), "{name}: {found:?}");
    mends(client, name, &statements.iter().map(String::as_str).collect::<Vec<_>>());
}
