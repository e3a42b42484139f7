//! What the tests of partitions share: a month that has none, and what a good one looks like.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::one;
use postgres::Client;

/// An instant whose month nobody keeps ready, in SQL; [`LATE`] sessions may charge it.
pub const LONG_AGO: &str =
    "(date_trunc('month', now() - interval '100 days', 'UTC') + interval '36 hours')";
pub const LATE: &str = "-c exa_billing.late_usage_limit=200d -c lock_timeout=60s";

pub const BOTH: &[&str] = &["exa_usage_log", "spend_log"];
pub const NONE: &[&str] = &[];

pub fn late_request(user: &str) -> String {
    format!("SELECT exa_billing.record_exa_usage('{user}', '/search', 5, created_at => {LONG_AGO})")
}

pub fn late_spend(user: &str) -> String {
    format!(
        "SELECT exa_billing.record_spend('user', '{user}', 5, 'variable', 's', 'p',
             created_at => {LONG_AGO})"
    )
}

pub fn late_batch(user: &str) -> String {
    format!(
        "SELECT exa_billing.record_exa_usage_batch(jsonb_build_array(jsonb_build_object(
             'user_id', '{user}', 'path', '/search', 'cost_microdollars', 5, 'created_at', {LONG_AGO})))"
    )
}

/// The journals that have a partition for the month of [`LONG_AGO`].
pub fn late_partitions(client: &mut Client) -> Vec<String> {
    let sql = format!(
        "SELECT parent.relname::text FROM pg_inherits AS i
         JOIN pg_class AS parent ON parent.oid = i.inhparent
         JOIN pg_class AS part ON part.oid = i.inhrelid
         WHERE parent.oid IN ('exa_billing.exa_usage_log'::regclass, 'exa_billing.spend_log'::regclass)
           AND part.relname = parent.relname || to_char({LONG_AGO} AT TIME ZONE 'UTC', '_YYYY_MM')
         ORDER BY 1"
    );
    client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

/// The partitions that are not as they must be. The client's settings are those of the server:
/// bounds are shown in UTC.
pub fn badly_made(client: &mut Client) -> Vec<String> {
    let sql = "
        SELECT p.relname::text
        FROM pg_inherits AS i
        JOIN pg_class AS p ON p.oid = i.inhrelid
        JOIN pg_class AS parent ON parent.oid = i.inhparent
        CROSS JOIN LATERAL (SELECT to_date(right(p.relname, 7), 'YYYY_MM') AS month) AS m
        WHERE i.inhparent IN ('exa_billing.exa_usage_log'::regclass, 'exa_billing.spend_log'::regclass)
          AND NOT (
              p.relnamespace = 'exa_billing'::regnamespace
              AND p.relname = parent.relname || to_char(month, '_YYYY_MM')
              AND pg_get_expr(p.relpartbound, p.oid) = format(
                  'FOR VALUES FROM (''%s 00:00:00+00'') TO (''%s 00:00:00+00'')',
                  month, (month + interval '1 month')::date)
              AND p.relrowsecurity
              AND NOT EXISTS (SELECT FROM aclexplode(p.relacl) WHERE grantee <> p.relowner)
              AND pg_get_userbyid(p.relowner) = 'exa_billing_owner'
              AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = p.oid AND (atthasdef OR attidentity <> ''))
              AND EXISTS (SELECT FROM pg_trigger AS t
                          WHERE t.tgrelid = p.oid AND t.tgname = 'append_only' AND t.tgenabled = 'A'
                            AND t.tgfoid = 'exa_billing.refuse_change'::regproc
                            -- before the statement, on DELETE, UPDATE and TRUNCATE
                            AND t.tgtype = 2 + 8 + 16 + 32)
              AND (SELECT count(*) FROM pg_index WHERE indrelid = p.oid AND indisvalid)
                = (SELECT count(*) FROM pg_index WHERE indrelid = parent.oid AND indisvalid)
              AND (SELECT count(*) FROM pg_constraint WHERE conrelid = p.oid AND contype IN ('c', 'p'))
                = (SELECT count(*) FROM pg_constraint WHERE conrelid = parent.oid AND contype IN ('c', 'p')))
        ORDER BY 1";
    assert_eq!(one::<String>(client, "SELECT current_setting('timezone')", &[]), "UTC");
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}
