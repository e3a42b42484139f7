//! Work that takes long enough to be interrupted in its midst.

use crate::common::run_sql;
use postgres::Client;

/// A procedure that commits on the way.
pub struct Procedure {
    /// Makes something for it to do.
    pub damage: &'static str,
    pub call: &'static str,
    /// Whether what it has committed is whole, and what it remembers of it right.
    pub whole: &'static str,
    /// How much is still to be done.
    pub left: &'static str,
}

/// Books of 80 owners with charges of three days, some posted, and a table that is not attached yet.
pub fn fill(client: &mut Client) {
    run_sql(
        client,
        "DO $$ BEGIN
             -- Of all calls of a run the same, also when an hour begins between them.
             EXECUTE format('CREATE FUNCTION public.the_hour() RETURNS timestamptz IMMUTABLE LANGUAGE sql
                 RETURN %L::timestamptz', date_trunc('hour', now(), 'UTC'));
         END $$;
         SELECT exa_billing.start_worker();
         SELECT exa_billing.set_free_allowance(0, '2020-01-01');
         SELECT exa_billing.set_organization_member('org-' || n, 'u' || n, 'owner') FROM generate_series(0, 19) AS n;
         SELECT exa_billing.grant_credit('user', 'u' || n, 1000000) FROM generate_series(0, 59) AS n;
         SELECT count(exa_billing.record_exa_usage('u' || n % 60, '/search', 100 + n, CASE WHEN n % 3 = 0 THEN 'org-' || n % 20 END,
             created_at => now() - n % 60 * interval '1 hour')) FROM generate_series(1, 500) AS n;
         SELECT exa_billing.post_spend(1000000);
         CREATE TABLE public.llm (id bigint PRIMARY KEY, who text, cost bigint, at timestamptz);
         CREATE INDEX ON public.llm (who, at);
         INSERT INTO public.llm SELECT n, 'u' || n % 60, n, now() - n % 60 * interval '1 hour' FROM generate_series(1, 700) AS n;
         ANALYZE",
    );
}

/// What makes the work, and the call that does it in one transaction.
pub const FUNCTIONS: &[(&str, &str)] = &[
    (
        "",
        "SELECT count(*) FROM exa_billing.record_exa_usage_batch((SELECT jsonb_agg(jsonb_build_object('user_id', 'u' || n % 50,
             'path', '/search', 'cost_microdollars', n, 'idempotency_key', 'k' || n)) FROM generate_series(1, 300) AS n))",
    ),
    ("", "SELECT exa_billing.post_spend(1000000)"),
    (
        "",
        "SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway',
             '{\"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}', true)",
    ),
    ("", "INSERT INTO public.llm SELECT -n, 'u' || n % 60, n, now() FROM generate_series(1, 700) AS n"),
    ("", "SELECT exa_billing.detach_spend_source('llm')"),
    (
        "SELECT exa_billing.post_spend(1000000);
         SELECT count(exa_billing.grant_credit('user', 'due-' || n, 10, now() - interval '1 second', created_at => now() - interval '1 hour'))
         FROM generate_series(1, 30) AS n",
        "SELECT exa_billing.expire_due_credits(max_owners => 100000)",
    ),
    (
        "UPDATE exa_billing.spend_hourly_totals SET total_microdollars = 5 WHERE owner_id = 'u7';
         UPDATE exa_billing.spend_daily_totals SET spend_record_count = 5 WHERE owner_id = 'u7';
         DELETE FROM exa_billing.spend_hourly_drivers WHERE owner_id = 'u7'",
        "SELECT exa_billing.rebuild_rollups('user', 'u7', date_trunc('hour', now(), 'UTC') - interval '80 hours',
             date_trunc('hour', now(), 'UTC') + interval '1 hour')",
    ),
    (
        "UPDATE exa_billing.accounts SET microdollars_used = 5 WHERE owner_id = 'org-3'",
        "SELECT exa_billing.recompute_organization_balances('org-3')",
    ),
    (
        "SELECT exa_billing.update_spend_alert_settings('user', 'u' || n, '{\"spend_alerts_enabled\": true, \"threshold_7d_microdollars\": 1000}', 'u')
         FROM generate_series(1, 30) AS n",
        "SELECT exa_billing.run_spend_alert_sweep()",
    ),
    ("", "SELECT exa_billing.maintain_partitions(13)"),
    ("", "SELECT count(*) FROM exa_billing.claim_notifications(1000)"),
    ("", "SELECT exa_billing.erase_user('u' || n) FROM generate_series(1, 20) AS n"),
    ("", "SELECT count(*) FROM exa_billing.verify_books()"),
    (
        "",
        "SELECT count(*) FROM exa_billing.reconcile_rollups(date_trunc('hour', now(), 'UTC') - interval '80 hours',
             date_trunc('hour', now(), 'UTC'))",
    ),
    ("", "SELECT exa_billing.setup()"),
];

macro_rules! hours {
    () => {
        "public.the_hour() - interval '80 hours', public.the_hour()"
    };
}

pub const PROCEDURES: &[Procedure] = &[
    Procedure {
        damage: "UPDATE exa_billing.accounts SET microdollars_used = microdollars_used + 1;
                 DELETE FROM exa_billing.procedure_progress",
        call: "CALL exa_billing.recompute_all_balances(false, false)",
        whole: "SELECT (SELECT count(*) FROM exa_billing.accounts) = coalesce((SELECT done FROM exa_billing.progress), 0)
                    + (SELECT count(*) FROM exa_billing.verify_books() WHERE invariant = 'I3')",
        left: "SELECT count(*) FROM exa_billing.verify_books()",
    },
    Procedure {
        // The hour that is running is left alone: it is somebody else's by the next call.
        damage: "DELETE FROM exa_billing.spend_hourly_totals WHERE hour_start < public.the_hour();
             DELETE FROM exa_billing.spend_hourly_drivers WHERE hour_start < public.the_hour();
             DELETE FROM exa_billing.spend_daily_totals WHERE day_start + interval '1 day' <= public.the_hour();
             DELETE FROM exa_billing.procedure_progress",
        call: concat!("CALL exa_billing.backfill_rollups(", hours!(), ", false)"),
        // From where it says it is, going back in time and up in owners, nothing is amiss.
        whole: concat!(
            "SELECT NOT EXISTS (
                 SELECT FROM exa_billing.procedure_progress AS p, exa_billing.reconcile_rollups(", hours!(), ") AS m
                 WHERE m.hour_start >= p.before_hour
                    OR m.hour_start >= date_trunc('day', p.before_hour - interval '1 hour', 'UTC')
                       AND (m.owner_kind, m.owner_id) <= (p.after_owner_kind, p.after_owner_id))"
        ),
        left: "SELECT count(*) FROM exa_billing.verify_books()",
    },
    Procedure {
        damage: "SELECT count(exa_billing.record_spend('user', 'u' || n, 5, 'variable', 'kiloclaw', 'p' || n)) FROM generate_series(1, 300) AS n;
                 SELECT count(exa_billing.grant_credit('user', 'due-' || n, 10, now() - interval '10 seconds', created_at => now() - interval '1 hour'))
                 FROM (SELECT count(*) FROM exa_billing.accounts) AS a (accounts), generate_series(accounts, accounts + 20) AS n",
        call: "CALL exa_billing.run_maintenance()",
        whole: "SELECT NOT EXISTS (SELECT FROM exa_billing.verify_books())",
        left: "SELECT (SELECT count(*) FROM exa_billing.unposted_spend) + (SELECT count(*) FROM exa_billing.accounts
                   WHERE next_credit_expiration_at < now() - interval '5 seconds')",
    },
];
