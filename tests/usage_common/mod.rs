//! What the tests of recording share: books, results as structs, and the state
//! of all tables at once.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{Database, Server, one, run_sql};
use chrono::{DateTime, Utc};
use postgres::{Client, GenericClient, Row};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A new database with books, and a session in it that calls the functions by
/// their short names.
pub fn books() -> (Database, Client) {
    let db = Server::shared().books();
    let client = session(&db);
    (db, client)
}

/// A further session like the one of `books`.
pub fn session(db: &Database) -> Client {
    db.client_with("-c search_path=exa_billing,public")
}

/// A row of `recorded_usage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub usage_id: Uuid,
    pub created_at: DateTime<Utc>,
    pub cost: i64,
    pub free: i64,
    pub charged: i64,
    pub allowance: Option<i64>,
    pub is_replay: bool,
}

impl From<&Row> for Recorded {
    fn from(row: &Row) -> Self {
        Recorded {
            usage_id: row.get("usage_id"),
            created_at: row.get("created_at"),
            cost: row.get("cost_microdollars"),
            free: row.get("free_microdollars"),
            charged: row.get("charged_microdollars"),
            allowance: row.get("free_allowance_microdollars"),
            is_replay: row.get("is_replay"),
        }
    }
}

impl Recorded {
    /// Cost, free part and charged part.
    pub fn figures(&self) -> (i64, i64, i64) {
        (self.cost, self.free, self.charged)
    }

    /// The same, told as the replay of a retry.
    pub fn replayed(&self) -> Recorded {
        Recorded { is_replay: true, ..self.clone() }
    }
}

/// Calls a function that returns one `recorded_usage`.
#[track_caller]
pub fn recorded(client: &mut impl GenericClient, call: &str) -> Recorded {
    match client.query_one(&format!("select * from {call}"), &[]) {
        Ok(row) => Recorded::from(&row),
        Err(error) => panic!("{call}\n{error:?}"),
    }
}

/// Calls `record_exa_usage`.
#[track_caller]
pub fn usage(client: &mut impl GenericClient, arguments: &str) -> Recorded {
    recorded(client, &format!("record_exa_usage({arguments})"))
}

/// A row of `usage_decision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub is_paid: bool,
    pub month_used: i64,
    pub allowance: i64,
    /// None for whoever is no member of the organization.
    pub balance: Option<i64>,
    pub limit_remaining: Option<i64>,
}

impl Decision {
    /// What the application acts upon.
    pub fn answer(&self) -> (bool, &str) {
        (self.allowed, &self.reason)
    }
}

/// Calls `check_exa_usage`.
#[track_caller]
pub fn decision(client: &mut impl GenericClient, arguments: &str) -> Decision {
    let sql = format!("select * from check_exa_usage({arguments})");
    let row = match client.query_one(&sql, &[]) {
        Ok(row) => row,
        Err(error) => panic!("{sql}\n{error:?}"),
    };
    Decision {
        allowed: row.get("allowed"),
        reason: row.get("reason"),
        is_paid: row.get("is_paid"),
        month_used: row.get("month_used_microdollars"),
        allowance: row.get("free_allowance_microdollars"),
        balance: row.get("balance_microdollars"),
        limit_remaining: row.get("member_limit_remaining_microdollars"),
    }
}

/// Balance of an owner as the function tells it.
#[track_caller]
pub fn balance(client: &mut impl GenericClient, kind: &str, id: &str) -> i64 {
    let sql = "select balance_microdollars from exa_billing.account_balance($1, $2)";
    one(client, sql, &[&kind, &id])
}

/// Makes every request of everyone paid, from long ago on.
pub fn no_free_allowance(client: &mut impl GenericClient) {
    run_sql(client, "select exa_billing.set_free_allowance(0, '2020-01-01')");
}

/// Count and contents of every table of the books, partitions included: equal
/// before and after, nothing was written.
pub type State = BTreeMap<String, (i64, String)>;

pub fn state(client: &mut impl GenericClient) -> State {
    let tables: Vec<String> = client
        .query(
            "select quote_ident(relname) from pg_class
             where relnamespace = 'exa_billing'::regnamespace and relkind = 'r'",
            &[],
        )
        .expect("the tables")
        .iter()
        .map(|row| row.get(0))
        .collect();
    let counts: Vec<String> = tables
        .iter()
        .map(|table| {
            format!(
                "select '{table}', count(*),
                        coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text
                 from exa_billing.{table} as t"
            )
        })
        .collect();
    let rows = client.query(&counts.join(" union all "), &[]).expect("the tables' state");
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

/// Fails the test when a table is not as it was, and tells which.
#[track_caller]
pub fn assert_unchanged(client: &mut impl GenericClient, before: &State, what: &str) {
    let after = state(client);
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed: Vec<_> = names
        .into_iter()
        .filter(|name| before.get(*name) != after.get(*name))
        .map(|name| (name, before.get(name), after.get(name)))
        .collect();
    assert!(changed.is_empty(), "{what} has written: {changed:?}");
}

/// The values of a query of one column.
#[track_caller]
pub fn column<T: postgres::types::FromSqlOwned>(
    client: &mut impl GenericClient,
    sql: &str,
) -> Vec<T> {
    match client.query(sql, &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

#[track_caller]
pub fn assert_books_hold(client: &mut impl GenericClient) {
    let sql = "select v::text from exa_billing.verify_books() as v";
    assert_eq!(column::<String>(client, sql), Vec::<String>::new());
}
