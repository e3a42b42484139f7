//! Evaluations go by index however many owners they are about: no journal, rollup or queue is read from
//! front to end.

mod alerts_common;
mod common;
mod evidence_common;
mod usage_common;

use alerts_common::*;
use common::run_sql;
use postgres::Client;
use std::collections::BTreeMap;
use usage_common::column;

/// 300 owners with 200 hours in the rollups, 200 rows in each journal and 10 in the queue. Those whose
/// number can be divided by ten are new: nothing of them is older than five hours.
const OWNERS: &str = "
    insert into spend_alert_settings
        (owner_kind, owner_id, spend_alerts_enabled, anomaly_alerts_enabled, cost_suggestions_enabled,
         threshold_24h_microdollars, threshold_7d_microdollars, threshold_30d_microdollars, changed_at)
    select 'user', 'u' || n, true, true, true, 1e14, 1e14, 1e14, now() from generate_series(1, 300) as n;
    insert into accounts
        (owner_kind, owner_id, total_microdollars_acquired, microdollars_used, opened_at)
    select 'user', 'u' || n, 0, 0, now() from generate_series(1, 300) as n;
    insert into spend_dimensions
        (dimension_id, spend_category, source, product_key, feature_key, model_or_plan_key, provider_key)
    values ('00000000-0000-8000-8000-0000000000aa', 'variable', 'kiloclaw', 'p', 'other', 'other', 'other');
    insert into spend_hourly_totals
        (owner_kind, owner_id, hour_start, spend_category, total_microdollars, spend_record_count)
    select 'user', 'u' || n, date_trunc('hour', now(), 'UTC') - h * interval '1 hour', 'variable', 1000000, 3
    from generate_series(0, 199) as h, generate_series(1, 300) as n where h < 5 or n % 10 > 0;
    insert into spend_daily_totals
        (owner_kind, owner_id, day_start, spend_category, total_microdollars, spend_record_count)
    select owner_kind, owner_id, date_trunc('day', hour_start, 'UTC'), spend_category, sum(total_microdollars),
           sum(spend_record_count)
    from spend_hourly_totals group by 1, 2, 3, 4;
    insert into spend_log
        (spend_id, owner_kind, owner_id, spend_category, source, product_key, feature_key, model_or_plan_key,
         provider_key, amount_microdollars, spend_record_count, created_at, recorded_at)
    select gen_random_uuid(), 'user', 'u' || n, 'variable', 'kiloclaw', 'p', 'other', 'other', 'other', 5000, 1,
           now() - h * interval '55 minutes', now()
    from generate_series(0, 199) as h, generate_series(1, 300) as n where h < 5 or n % 10 > 0;
    insert into exa_usage_log
        (usage_id, user_id, path, cost_microdollars, charged_microdollars, charged_to_balance, created_at, recorded_at)
    select gen_random_uuid(), 'u' || n, '/search', 5000, 5000, true, now() - h * interval '55 minutes', now()
    from generate_series(0, 199) as h, generate_series(1, 300) as n where h < 5 or n % 10 > 0;
    insert into spend_log
        (spend_id, owner_kind, owner_id, spend_category, source, product_key, feature_key, model_or_plan_key,
         provider_key, amount_microdollars, spend_record_count, created_at, recorded_at)
    select gen_random_uuid(), 'user', 'u' || n, 'variable', 'kiloclaw', 'p', 'other', 'other', 'other', 30000000, 1,
           now() - interval '1 microsecond', now()
    from generate_series(1, 300) as n;
    insert into unposted_spend
        (owner_kind, owner_id, entry_id, journal, amount_microdollars, spend_record_count, dimension_id, created_at,
         transaction_id)
    select 'user', 'u' || n, gen_random_uuid(), 'spend', 3000000, 1, '00000000-0000-8000-8000-0000000000aa',
           now() - interval '1 microsecond', pg_current_xact_id()
    from generate_series(1, 300) as n, generate_series(1, 10);
    insert into evaluation_queue (owner_kind, owner_id, entry_id, due_at, failure_count)
    select 'user', 'u' || n, gen_random_uuid(), now() - interval '1 minute', 0
    from generate_series(1, 300) as n, generate_series(1, 10);
    create table public.moment as select now() as at";

/// How often each of the large tables was read from front to end.
fn whole_reads(c: &mut Client) -> Vec<String> {
    run_sql(c, "select pg_stat_force_next_flush()");
    column(
        c,
        "select relname || ' ' || seq_scan from pg_stat_user_tables
         where schemaname = 'exa_billing' and (relname in ('spend_hourly_totals', 'spend_daily_totals', 'spend_hourly_drivers',
             'unposted_spend', 'evaluation_queue') or relname similar to '(exa_usage|spend)_log_%') order by 1",
    )
}

/// Large indexes of which so many pages were looked at that it must have been all of them.
fn whole_indexes(c: &mut Client, before: &BTreeMap<String, i64>) -> Vec<String> {
    let now = pages_of_indexes(c);
    let sizes = c.query(
        "select relname::text, relpages from pg_class
         where relnamespace = 'exa_billing'::regnamespace and relkind = 'i' and relpages > 100",
        &[],
    );
    let sizes = sizes.expect("the indexes").into_iter().map(|row| (row.get(0), row.get(1)));
    let mut sizes: BTreeMap<String, i32> = sizes.collect();
    assert!(sizes.len() >= 4, "{sizes:?}");
    sizes.retain(|name, pages| now[name] - before[name] >= i64::from(*pages));
    sizes.into_keys().collect()
}

/// How many pages of each index were looked at so far.
fn pages_of_indexes(c: &mut Client) -> BTreeMap<String, i64> {
    run_sql(c, "select pg_stat_force_next_flush()");
    let sql = "select indexrelname::text, idx_blks_hit + idx_blks_read from pg_statio_user_indexes
               where schemaname = 'exa_billing'";
    let rows = c.query(sql, &[]).expect("the indexes").into_iter();
    rows.map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn evaluations_read_no_large_table_from_front_to_end() {
    let (db, mut c) = books();
    // A session that has made its plans while there was nothing, and one that makes them later.
    let mut early = evidence_common::session(&db);
    for _ in 0..2 {
        run_sql(&mut early, "begin");
        for call in [
            "evaluate_spend_alerts('user', 'u1')",
            "evaluate_due_owners()",
            "run_spend_alert_sweep()",
        ] {
            summary(&mut early, call);
        }
        run_sql(&mut early, "rollback; select pg_stat_force_next_flush()");
    }
    run_sql(&mut c, OWNERS);
    run_sql(&mut c, "vacuum analyze");
    let mut late = evidence_common::session(&db);
    for session in [&mut early, &mut late] {
        for (call, evaluated) in [
            ("evaluate_spend_alerts('user', 'u1', {at})", 1),
            ("evaluate_spend_alerts('user', 'u10', {at})", 1),
            ("evaluate_due_owners({at}, 20)", 20),
            ("evaluate_due_owners({at})", 300),
            ("run_spend_alert_sweep({at}, 100)", 100),
        ] {
            let call = call.replace("{at}", "(select at from public.moment)");
            let (before, pages) = (whole_reads(&mut c), pages_of_indexes(&mut c));
            assert!(before.len() > 12, "{before:?}");
            run_sql(session, "begin");
            let done = summary(session, &call);
            assert_eq!((done.0, done.3, done.4), (evaluated, 0, 0), "{call}");
            assert!(done.1 >= evaluated, "anomalies, so that hours of history are asked for");
            run_sql(session, "rollback; select pg_stat_force_next_flush()");
            assert_eq!(whole_reads(&mut c), before, "{call}");
            if evaluated == 1 {
                assert_eq!(whole_indexes(&mut c, &pages), [""; 0], "{call}");
            }
        }
    }
}
