//! Evaluating many owners at once: few locks, few looks at each table, nobody left out.

mod common;
mod sessions;

use common::{one, run_sql};
use postgres::Client;
use sessions::{books, verify};

/// evaluated, fired, complete
fn summary(client: &mut Client, call: &str) -> (i64, i64, bool) {
    let sql = format!("SELECT evaluated, fired, complete FROM exa_billing.{call}");
    let row = client.query_one(&sql, &[]).unwrap();
    (row.get(0), row.get(1), row.get(2))
}

const SETTINGS: &str = "
    INSERT INTO exa_billing.spend_alert_settings
    SELECT 'user', 'user-' || n, true, true, true, 1000000, 2000000, 3000000, now()
    FROM generate_series(1, 1700) AS n";

#[test]
fn owners_evaluated_for_the_first_time_take_few_locks_and_none_is_left_out() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, SETTINGS);
    run_sql(
        &mut client,
        "INSERT INTO exa_billing.evaluation_queue
         SELECT 'user', 'due-' || n, gen_random_uuid(), now() - interval '1 second', 0
         FROM generate_series(1, 1700) AS n",
    );
    for call in ["evaluate_due_owners(max_owners => 5000)", "run_spend_alert_sweep()"] {
        run_sql(&mut client, "BEGIN");
        assert_eq!(summary(&mut client, call), (1000, 0, false), "{call}");
        let locks =
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()";
        // The sweep has one of its own.
        assert!(one::<i64>(&mut client, locks, &[]) <= 1001, "{call}");
        run_sql(&mut client, "COMMIT");
        assert_eq!(summary(&mut client, call), (700, 0, true), "{call}");
    }
    let evaluated =
        "SELECT count(*) FROM exa_billing.spend_alert_states WHERE last_evaluated_at IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, evaluated, &[]), 3400);
    let resting =
        "SELECT count(*) FILTER (WHERE due_at > now() + interval '4 minutes') || ' of ' || count(*)
                   FROM exa_billing.evaluation_queue";
    assert_eq!(one::<String>(&mut client, resting, &[]), "1700 of 1700");
    // Those that are known take no lock, so that all of them go into one call.
    assert_eq!(summary(&mut client, "run_spend_alert_sweep()"), (1700, 0, true));
}

#[test]
fn a_sweep_that_began_in_an_earlier_hour_is_followed_by_another_one() {
    let db = books();
    let mut client = db.client();
    run_sql(&mut client, SETTINGS);
    let sweep = "run_spend_alert_sweep(max_owners => 900)";
    assert_eq!(summary(&mut client, sweep), (900, 0, false));
    run_sql(
        &mut client,
        "UPDATE exa_billing.procedure_progress SET started_at = started_at - interval '1 hour'",
    );
    // It goes on where it was, for those who wait longest, but the first ones have to be asked again.
    assert_eq!(summary(&mut client, sweep), (800, 0, false));
    assert_eq!(summary(&mut client, sweep), (900, 0, false));
    assert_eq!(summary(&mut client, sweep), (800, 0, true));
}

/// How often each table was read from front to end.
fn sequential_scans(client: &mut Client, schema: &str) -> Vec<(String, i64)> {
    run_sql(client, "SELECT pg_stat_force_next_flush()");
    let sql =
        "SELECT relname::text, seq_scan FROM pg_stat_user_tables WHERE schemaname = $1 ORDER BY 1";
    client.query(sql, &[&schema]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn what_is_known_of_owners_is_found_by_index_also_where_plans_were_made_without_any() {
    let db = books();
    let (mut client, mut other) = (db.client(), db.client());
    let evaluate = |client: &mut Client| {
        run_sql(
            client,
            "INSERT INTO exa_billing.evaluation_queue
             VALUES ('user', 'user-7', gen_random_uuid(), now() - interval '1 second', 0)",
        );
        let (evaluated, ..) = summary(client, "evaluate_due_owners()");
        let (alone, ..) = summary(client, "evaluate_spend_alerts('user', 'user-7')");
        assert_eq!((evaluated, alone), (1, 1));
    };
    for _ in 0..2 {
        evaluate(&mut client);
    }
    run_sql(&mut other, SETTINGS);
    run_sql(
        &mut other,
        "INSERT INTO exa_billing.spend_alert_states
         SELECT 'user', 'user-' || n, NULL, NULL FROM generate_series(1, 1700) AS n ON CONFLICT DO NOTHING;
         INSERT INTO exa_billing.accounts
             (owner_kind, owner_id, total_microdollars_acquired, microdollars_used, opened_at)
         SELECT 'user', 'user-' || n, 0, 0, now() FROM generate_series(1, 1700) AS n;
         INSERT INTO exa_billing.spend_alert_episodes
         SELECT 'user', 'user-' || n, 'threshold_24h', gen_random_uuid(), 1000000, NULL, now(), '{}', NULL, NULL
         FROM generate_series(1, 1700) AS n;
         INSERT INTO exa_billing.evaluation_queue
         SELECT 'user', 'user-' || n, gen_random_uuid(), now() + interval '1 hour', 0
         FROM generate_series(1, 1700) AS n",
    );
    sequential_scans(&mut other, "exa_billing");
    let wanted = [
        "accounts",
        "evaluation_queue",
        "spend_alert_episodes",
        "spend_alert_settings",
        "spend_alert_states",
    ];
    let of_these = |scans: Vec<(String, i64)>| -> Vec<(String, i64)> {
        scans.into_iter().filter(|(name, _)| wanted.contains(&name.as_str())).collect()
    };
    let before = of_these(sequential_scans(&mut client, "exa_billing"));
    evaluate(&mut client);
    assert_eq!(of_these(sequential_scans(&mut client, "exa_billing")), before);
}

#[test]
fn an_attached_table_is_read_for_all_owners_at_once() {
    const OWNERS: i64 = 60;
    let db = books();
    let mut client = db.client();
    run_sql(
        &mut client,
        r#"CREATE TABLE public.ledger (owner uuid, org varchar, amount bigint, at timestamptz);
           SELECT exa_billing.attach_spend_source('llm', 'public.ledger', 'variable', 'ai_gateway',
               '{"user_id": "owner", "organization_id": "org", "amount": "amount", "created_at": "at"}');
           CREATE FUNCTION public.owner(n int) RETURNS uuid LANGUAGE sql IMMUTABLE
               AS $$ SELECT ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
           INSERT INTO public.ledger
           SELECT public.owner(n), NULL, 900000 + n * 10000, clock_timestamp() FROM generate_series(1, 20) AS n;
           INSERT INTO public.ledger
           SELECT public.owner(n), 'org-' || n, 900000 + n * 10000, clock_timestamp() FROM generate_series(1, 20) AS n;
           -- Texts that are no uuid, or not as this table spells it.
           INSERT INTO exa_billing.spend_alert_settings
           SELECT kind, id, true, false, true, 1000000, 1000000, NULL, now()
           FROM (SELECT 'user', public.owner(n)::text FROM generate_series(1, 20) AS n
                 UNION ALL SELECT 'user', 'U' || public.owner(n)::text FROM generate_series(1, 20) AS n
                 UNION ALL SELECT 'organization', 'org-' || n FROM generate_series(1, 20) AS n) AS o(kind, id)"#,
    );
    let scans = |client: &mut Client| sequential_scans(client, "public")[0].1;
    let before = scans(&mut client);
    // Each owner from 10 on has at least a dollar, in two windows.
    assert_eq!(summary(&mut client, "run_spend_alert_sweep()"), (OWNERS, 2 * 2 * 11, true));
    // The current hour and the suggestions, for both kinds; then what is told of each who crossed.
    let told = one::<i64>(&mut client, "SELECT count(*) FROM exa_billing.cost_insight_events", &[]);
    assert_eq!(told, 44);
    let first = scans(&mut client) - before;
    let before = scans(&mut client);
    assert_eq!(summary(&mut client, "run_spend_alert_sweep()"), (OWNERS, 0, true));
    let quiet = scans(&mut client) - before;
    assert!(quiet <= 20, "{quiet} (with findings {first})");
    let differ = "SELECT count(*) FROM exa_billing.cost_insight_events AS e
        WHERE (e.snapshot ->> 'total_microdollars')::bigint <>
              (SELECT total_microdollars FROM exa_billing.rolling_spend(e.owner_kind, e.owner_id, '24 hours'))";
    assert_eq!(one::<i64>(&mut client, differ, &[]), 0);
    run_sql(&mut client, "SELECT exa_billing.post_spend()");
    verify(&mut client);
}
