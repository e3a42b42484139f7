//! What the tests of attached ledgers share: a table of the application, attached, and the figures
//! of the books beside what plain SQL makes of the table.
#![allow(dead_code)] // each test program uses a part of it

use crate::common::{Database, one, run_sql};
use crate::usage_common::{assert_books_hold, books, column};
use postgres::{Client, GenericClient};

/// A ledger of language models, with names of the application's own.
pub const TABLE: &str = "
    CREATE TABLE public.llm (id bigint PRIMARY KEY, who text, team text, cost bigint,
                             at timestamptz, model text);
    CREATE INDEX ON public.llm (who, at);
    CREATE INDEX ON public.llm (team, at);";

/// How it is read.
pub const MAP: &str = r#"{"user_id": "who", "organization_id": "team", "amount": "cost",
    "created_at": "at", "model_or_plan_key": "model"}"#;

/// Books with the ledger attached; `more` are further arguments, such as `, backfill => true`.
pub fn books_with_ledger(more: &str) -> (Database, Client) {
    let (db, mut c) = books();
    run_sql(&mut c, TABLE);
    assert_eq!(attach(&mut c, more), 0);
    (db, c)
}

/// Attaches the ledger; returns how many rows were captured.
#[track_caller]
pub fn attach(c: &mut impl GenericClient, more: &str) -> i64 {
    attach_as(c, "llm", "public.llm", MAP, more)
}

#[track_caller]
pub fn attach_as(
    c: &mut impl GenericClient,
    name: &str,
    table: &str,
    map: &str,
    more: &str,
) -> i64 {
    let sql = format!(
        "SELECT exa_billing.attach_spend_source('{name}', '{table}', 'variable', 'ai_gateway',
                                                $map${map}$map$ {more})"
    );
    one(c, &sql, &[])
}

#[track_caller]
pub fn detach(c: &mut impl GenericClient, name: &str) -> i64 {
    one(c, "SELECT exa_billing.detach_spend_source($1)", &[&name])
}

/// What plain SQL makes of the ledger: every row is a charge that has an amount.
pub const CHARGES: &str = "
    SELECT CASE WHEN team IS NULL THEN 'user' ELSE 'organization' END AS owner_kind,
           coalesce(team, who) AS owner_id, who AS actor_user_id, 'variable' AS spend_category,
           'ai_gateway' AS source, 'other' AS product_key, 'other' AS feature_key,
           coalesce(model, 'other') AS model_or_plan_key, 'other' AS provider_key,
           cost AS amount, 1::bigint AS records, at
    FROM public.llm WHERE cost > 0";

/// Figures as lines: usage per owner, totals per hour, drivers, days of members. `figures` has the
/// columns figure (what it is a figure of), amount and records.
const LINES: &str = "
    SELECT concat_ws(' ', figure, sum(amount), sum(records)) AS line
    FROM figures GROUP BY figure HAVING sum(amount) <> 0 OR sum(records) <> 0 ORDER BY 1";

fn hour(column: &str) -> String {
    format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24')")
}

/// The figures that charges add up to; `charges` is a query like `CHARGES`.
#[track_caller]
pub fn figures_of(c: &mut impl GenericClient, charges: &str) -> Vec<String> {
    let hour = hour("at");
    let sql = format!(
        "WITH charges AS ({charges}), figures(figure, amount, records) AS (
             SELECT concat_ws(' ', 'used', owner_kind, owner_id), amount, 0 FROM charges
             UNION ALL
             SELECT concat_ws(' ', 'hour', owner_kind, owner_id, {hour}, spend_category), amount, records
             FROM charges
             UNION ALL
             SELECT concat_ws(' ', 'driver', owner_kind, owner_id, {hour}, spend_category, source,
                 product_key, feature_key, model_or_plan_key, provider_key, coalesce(actor_user_id, '-')),
                 amount, records
             FROM charges
             UNION ALL
             SELECT concat_ws(' ', 'member', owner_id, actor_user_id, left({hour}, 10)), amount, 0
             FROM charges
             WHERE owner_kind = 'organization' AND actor_user_id IS NOT NULL AND spend_category = 'variable'
         ) {LINES}"
    );
    column(c, &sql)
}

/// The same figures as the books have them, posted and unposted.
#[track_caller]
pub fn figures(c: &mut impl GenericClient) -> Vec<String> {
    let hour = hour("hour_start");
    let sql = format!(
        "WITH figures(figure, amount, records) AS (
             SELECT concat_ws(' ', 'used', owner_kind, owner_id), microdollars_used, 0
             FROM exa_billing.account_balances
             UNION ALL
             SELECT concat_ws(' ', 'hour', owner_kind, owner_id, {hour}, spend_category),
                    total_microdollars, spend_record_count
             FROM exa_billing.spend_hourly
             UNION ALL
             SELECT concat_ws(' ', 'driver', owner_kind, owner_id, {hour}, spend_category, source,
                 product_key, feature_key, model_or_plan_key, provider_key, coalesce(actor_user_id, '-')),
                 total_microdollars, spend_record_count
             FROM exa_billing.spend_drivers_hourly
             UNION ALL
             SELECT concat_ws(' ', 'member', organization_id, user_id, usage_date), microdollars_used, 0
             FROM exa_billing.organization_member_usage
             UNION ALL
             SELECT concat_ws(' ', 'member', owner_id, actor_user_id, usage_date), amount_microdollars, 0
             FROM exa_billing.unposted_entries
             WHERE owner_kind = 'organization' AND actor_user_id IS NOT NULL AND spend_category = 'variable'
         ) {LINES}"
    );
    column(c, &sql)
}

/// Everything the books say of each owner that a detached table must not change: the figures,
/// balances now, a dry run of recomputing, the sums of statements and the open blocks of credit.
#[track_caller]
pub fn everything(c: &mut impl GenericClient) -> Vec<String> {
    let mut lines = figures(c);
    lines.extend(column::<String>(
        c,
        "SELECT concat_ws(' ', b.owner_kind, b.owner_id, f)
         FROM exa_billing.account_balances AS b, LATERAL (
             SELECT 'balance ' || a::text FROM exa_billing.account_balance(b.owner_kind, b.owner_id) AS a
             UNION ALL
             SELECT 'recompute ' || r::text
             FROM exa_billing.recompute_user_balances(b.owner_id, true) AS r WHERE b.owner_kind = 'user'
             UNION ALL
             SELECT 'recompute ' || r::text
             FROM exa_billing.recompute_organization_balances(b.owner_id, true) AS r
             WHERE b.owner_kind = 'organization'
             UNION ALL
             SELECT concat_ws(' ', 'statement', kind, split_part(description, ',', 1), sum(amount_microdollars))
             FROM exa_billing.account_statement(b.owner_kind, b.owner_id, '2000-01-01Z', '2100-01-01Z')
             GROUP BY kind, split_part(description, ',', 1)
             UNION ALL
             SELECT 'block ' || k::text FROM exa_billing.credit_blocks(b.owner_kind, b.owner_id) AS k
         ) AS told(f)
         ORDER BY 1",
    ));
    lines
}

/// The books agree with plain SQL over the ledger, as they stand and posted.
#[track_caller]
pub fn assert_charged(c: &mut impl GenericClient, charges: &str) {
    let expected = figures_of(c, charges);
    assert_eq!(figures(c), expected);
    assert_books_hold(c);
    post(c);
    assert_eq!(figures(c), expected, "posted");
    assert_books_hold(c);
}

#[track_caller]
pub fn post(c: &mut impl GenericClient) {
    run_sql(c, "SELECT exa_billing.post_spend(1000000)");
    assert_eq!(one::<i64>(c, "SELECT count(*) FROM exa_billing.unposted_spend", &[]), 0);
}

/// What an owner has used, as the view and the function tell it.
#[track_caller]
pub fn used(c: &mut impl GenericClient, kind: &str, id: &str) -> i64 {
    let sql = "SELECT coalesce(sum(microdollars_used), 0)::bigint FROM exa_billing.account_balances
               WHERE owner_kind = $1 AND owner_id = $2";
    let used: i64 = one(c, sql, &[&kind, &id]);
    let sql = "SELECT microdollars_used FROM exa_billing.account_balance($1, $2)";
    assert_eq!(one::<i64>(c, sql, &[&kind, &id]), used, "{kind} {id}");
    used
}

/// An owner's hours: UTC hour, amount, records.
#[track_caller]
pub fn hours(c: &mut impl GenericClient, id: &str) -> Vec<(String, i64, i64)> {
    let sql = format!(
        "SELECT {}, total_microdollars::bigint, spend_record_count::bigint
         FROM exa_billing.spend_hourly WHERE owner_id = $1 ORDER BY 1, 2",
        hour("hour_start")
    );
    let rows = c.query(&sql, &[&id]).expect("the hours");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

/// An owner's drivers: model, actor, amount, records.
#[track_caller]
pub fn models(c: &mut impl GenericClient, id: &str) -> Vec<(String, Option<String>, i64, i64)> {
    let sql = "SELECT model_or_plan_key, actor_user_id, sum(total_microdollars)::bigint,
                      sum(spend_record_count)::bigint
               FROM exa_billing.spend_drivers_hourly WHERE owner_id = $1
               GROUP BY 1, 2 ORDER BY model_or_plan_key COLLATE \"C\", actor_user_id COLLATE \"C\"";
    let rows = c.query(sql, &[&id]).expect("the drivers");
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

/// Rows that wait in the queue.
#[track_caller]
pub fn waiting(c: &mut impl GenericClient) -> i64 {
    one(c, "SELECT count(*) FROM exa_billing.unposted_spend", &[])
}
