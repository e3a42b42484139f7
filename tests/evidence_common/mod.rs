//! What the tests of evidence share: books that reach back, and answers as short texts.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{Database, Server, one, run_sql};
use postgres::{Client, GenericClient};

/// Books that accept charges of the last 200 days, and times in them: `at('1 day 02:30')` is so
/// long after a midnight ten days ago. Everything from 100 days before that midnight on is covered.
pub fn books() -> (Database, Client) {
    let db = Server::shared().books();
    let mut client = session(&db);
    run_sql(
        &mut client,
        "select maintain_partitions(1);
         create table public.midnight as
             select date_trunc('day', now() at time zone 'UTC') at time zone 'UTC' - interval '240 hours' as at;
         create function public.at(later interval) returns timestamptz language sql stable as
             'select (at at time zone ''UTC'' + later) at time zone ''UTC'' from public.midnight'",
    );
    cover_from(&mut client, "-100 days");
    (db, client)
}

/// A further session like the one of `books`.
pub fn session(db: &Database) -> Client {
    db.client_with("-c search_path=exa_billing,public -c exa_billing.late_usage_limit=200d")
}

/// The same with further settings.
pub fn session_with(db: &Database, settings: &str) -> Client {
    db.client_with(&format!("-c search_path=exa_billing,public {settings}"))
}

/// The rollups hold everything from this hour on.
pub fn cover_from(client: &mut Client, later: &str) {
    run_sql(client, &format!("update spend_sources set covered_from = at('{later}')"));
}

/// Hours whose rollups are not to be trusted, of one owner or (`null, null`) of all.
pub fn degrade(client: &mut impl GenericClient, owner: &str, from: &str, to: &str) {
    run_sql(
        client,
        &format!(
            "insert into exa_billing.spend_degraded_intervals
                 (interval_id, owner_kind, owner_id, from_hour, to_hour, reason, detected_at, resolved_at)
             values (gen_random_uuid(), {owner}, at('{from}'), at('{to}'), 'for the test', now(), null)"
        ),
    );
}

/// A charge of user `u`.
pub fn charge(client: &mut impl GenericClient, amount: i64, category: &str, at: &str) {
    let sql = format!(
        "select record_spend('user', 'u', {amount}, '{category}', 'kiloclaw', 'p', created_at => {at})"
    );
    run_sql(client, &sql);
}

/// Each row as its values with blanks between them; `-` is null.
pub fn rows(client: &mut impl GenericClient, columns: &str, call: &str) -> Vec<String> {
    let sql = format!(
        "select array_to_string(array[{columns}]::text[], ' ', '-')
         from exa_billing.{call} with ordinality as r order by ordinality"
    );
    match client.query(&sql, &[]) {
        Ok(rows) => rows.iter().map(|row| row.get(0)).collect(),
        Err(error) => panic!("{sql}\n{error:?}"),
    }
}

pub const AMOUNTS: &str = "total_microdollars::text, variable_microdollars::text,
    scheduled_microdollars::text, spend_record_count::text";

/// Total, variable, scheduled, records and whether they are complete.
pub fn rolling(client: &mut impl GenericClient, span: &str, as_of: &str) -> String {
    let call = format!("rolling_spend('user', 'u', '{span}', {as_of})");
    let rows = rows(client, &format!("{AMOUNTS}, is_complete::text"), &call);
    assert_eq!(rows.len(), 1, "{call}");
    rows[0].clone()
}

pub fn post_all(client: &mut Client) {
    while one::<i64>(client, "select exa_billing.post_spend()", &[]) > 0 {}
    assert_eq!(one::<i64>(client, "select count(*) from exa_billing.unposted_spend", &[]), 0);
}
