//! What the tests of low balances and notifications share.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{Database, Server, one, run_sql};
use chrono::{DateTime, Utc};
use postgres::{GenericClient, Row};
use uuid::Uuid;

/// A row of `claimed_notification`.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub delivery: Uuid,
    pub token: Uuid,
    pub recipient: String,
    pub owner: (String, String),
    pub event: Uuid,
    pub event_type: String,
    pub alert_kind: Option<String>,
    pub occurred_at: DateTime<Utc>,
    pub payload: serde_json::Value,
    pub attempt: i32,
}

impl From<&Row> for Claimed {
    fn from(row: &Row) -> Self {
        Claimed {
            delivery: row.get("delivery_id"),
            token: row.get("claim_token"),
            recipient: row.get("recipient_user_id"),
            owner: (row.get("owner_kind"), row.get("owner_id")),
            event: row.get("event_id"),
            event_type: row.get("event_type"),
            alert_kind: row.get("alert_kind"),
            occurred_at: row.get("occurred_at"),
            payload: row.get("payload"),
            attempt: row.get("attempt"),
        }
    }
}

/// A database of the shared server with books in it, where background work was started.
pub fn served_books() -> Database {
    let db = Server::shared().books();
    run_sql(&mut db.client(), "SELECT exa_billing.start_worker()");
    db
}

#[track_caller]
pub fn claim(client: &mut impl GenericClient, arguments: &str) -> Vec<Claimed> {
    let sql = format!("SELECT * FROM exa_billing.claim_notifications({arguments})");
    match client.query(&sql, &[]) {
        Ok(rows) => rows.iter().map(Claimed::from).collect(),
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

/// The only delivery that is due.
#[track_caller]
pub fn claim_one(client: &mut impl GenericClient, lease: &str) -> Claimed {
    let mut claimed = claim(client, &format!("10, '{lease}'"));
    assert_eq!(claimed.len(), 1, "{claimed:?}");
    claimed.remove(0)
}

pub fn complete(client: &mut impl GenericClient, claimed: &Claimed) -> bool {
    let sql = "SELECT exa_billing.complete_notification($1, $2)";
    one(client, sql, &[&claimed.delivery, &claimed.token])
}

pub fn fail(
    client: &mut impl GenericClient,
    claimed: &Claimed,
    error: Option<&str>,
) -> Option<String> {
    let sql = "SELECT exa_billing.fail_notification($1, $2, $3)";
    one(client, sql, &[&claimed.delivery, &claimed.token, &error])
}

pub fn recipients(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|claimed| claimed.recipient.as_str()).collect()
}

/// An owner with this credit and this minimum, who has nothing yet.
#[track_caller]
pub fn with_minimum(
    client: &mut impl GenericClient,
    kind: &str,
    id: &str,
    credit: i64,
    minimum: i64,
) {
    run_sql(client, &format!("SELECT exa_billing.grant_credit('{kind}', '{id}', {credit})"));
    set_minimum(client, kind, id, minimum);
}

/// As the settings do: another minimum arms anew.
#[track_caller]
pub fn set_minimum(client: &mut impl GenericClient, kind: &str, id: &str, minimum: i64) {
    let sql = "UPDATE exa_billing.accounts
               SET minimum_balance_microdollars = $3, low_balance_since = NULL
               WHERE owner_kind = $1 AND owner_id = $2";
    assert_eq!(client.execute(sql, &[&kind, &id, &minimum]).expect("the minimum"), 1);
}

/// An owner whose balance of 4 is below the minimum of 1000, which an adjustment has found.
#[track_caller]
pub fn low(client: &mut impl GenericClient, kind: &str, id: &str) {
    with_minimum(client, kind, id, 5, 1000);
    run_sql(client, &format!("SELECT exa_billing.adjust_credit('{kind}', '{id}', -1, 'why')"));
}

/// Whoever's next attempt is so far ahead is due at once.
pub fn make_due(client: &mut impl GenericClient) {
    run_sql(
        client,
        "UPDATE exa_billing.notification_deliveries SET next_attempt_at = now() - interval '1 second'
         WHERE status = 'pending'",
    );
}

pub fn status(client: &mut impl GenericClient, claimed: &Claimed) -> (String, i32, Option<String>) {
    let sql = "SELECT status, attempt_count, last_error FROM exa_billing.notification_deliveries
               WHERE delivery_id = $1";
    let row = client.query_one(sql, &[&claimed.delivery]).expect("the delivery");
    (row.get(0), row.get(1), row.get(2))
}

/// Low balances told of: owner, balance and minimum, in the order of their owners.
pub fn low_balances(client: &mut impl GenericClient) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', owner_kind, owner_id, snapshot ->> 'balance_microdollars',
                                snapshot ->> 'minimum_balance_microdollars')
               FROM exa_billing.cost_insight_events WHERE event_type = 'low_balance'
               ORDER BY owner_kind, owner_id, occurred_at";
    client.query(sql, &[]).expect("the events").iter().map(|row| row.get(0)).collect()
}

/// Who is told, and of whom.
pub fn deliveries(client: &mut impl GenericClient) -> Vec<String> {
    let sql = "SELECT concat_ws(' ', owner_kind, owner_id, recipient_user_id, status)
               FROM exa_billing.notification_deliveries ORDER BY 1";
    client.query(sql, &[]).expect("the deliveries").iter().map(|row| row.get(0)).collect()
}
