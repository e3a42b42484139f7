//! Every function and procedure that writes, each in a call that can be made again and again.

use crate::common::run_sql;
use crate::usage_common::column;
use postgres::Client;

/// A call; `{n}` in it is another number each time.
#[derive(Debug)]
pub struct Call {
    /// The functions it is about.
    pub of: &'static [&'static str],
    sql: &'static str,
}

impl Call {
    pub fn sql(&self, number: u64) -> String {
        self.sql.replace("{n}", &number.to_string())
    }

    /// A procedure commits on the way, so that what it has done by then stays.
    pub fn is_procedure(&self) -> bool {
        self.sql.starts_with("CALL ")
    }
}

const fn call(of: &'static [&'static str], sql: &'static str) -> Call {
    Call { of, sql }
}

pub const CALLS: &[Call] = &[
    call(
        &["record_exa_usage"],
        "SELECT exa_billing.record_exa_usage('free', '/search', 10, NULL, 'f{n}')",
    ),
    call(
        &["record_exa_usage"],
        "SELECT exa_billing.record_exa_usage('new-{n}', '/search', 10, 'org-1')",
    ),
    call(
        &["record_exa_usage"],
        "SELECT exa_billing.record_exa_usage('paid', '/search', 10, 'org-1', 'p{n}')",
    ),
    call(
        &["record_exa_response"],
        "SELECT exa_billing.record_exa_response('paid', '/answer',
             '{\"requestId\": \"r{n}\", \"costDollars\": {\"total\": 0.005}}')",
    ),
    call(
        &["record_exa_usage_batch"],
        "SELECT exa_billing.record_exa_usage_batch(jsonb_agg(jsonb_build_object('user_id',
             (ARRAY['free', 'paid', 'b{n}'])[1 + i % 3], 'path', '/search', 'cost_microdollars', i,
             'idempotency_key', 'b{n}-' || i))) FROM generate_series(1, 9) AS i",
    ),
    call(
        &["record_spend"],
        "SELECT exa_billing.record_spend('organization', 'org-1', 7, 'variable', 'kiloclaw', 'p{n}',
             actor_user_id => 'paid', idempotency_key => 's{n}')",
    ),
    call(
        &["record_spend"],
        "SELECT exa_billing.record_spend('user', 'paid', 1, 'scheduled', 'coding_plan', 'p', require_balance => true)",
    ),
    call(
        &["grant_credit"],
        "SELECT exa_billing.grant_credit('user', 'paid', 50, now() + interval '1 day', idempotency_key => 'g{n}')",
    ),
    call(&["grant_credit"], "SELECT exa_billing.grant_credit('organization', 'granted-{n}', 50)"),
    call(
        &["adjust_credit"],
        "SELECT exa_billing.adjust_credit('user', 'paid', -3, 'a test', 'a{n}')",
    ),
    call(
        &["import_opening_balance"],
        "SELECT exa_billing.import_opening_balance('user', 'imported-{n}', 500, 200, now(), 'o{n}')",
    ),
    call(
        &["expire_credits"],
        "SELECT exa_billing.grant_credit('user', 'due{n}', 5, now() - interval '1 second', created_at => now() - interval '2 seconds');
         SELECT exa_billing.expire_credits('user', 'due{n}')",
    ),
    call(
        &["expire_due_credits"],
        "SELECT exa_billing.grant_credit('user', 'due-{n}', 5, now() - interval '1 second', created_at => now() - interval '2 seconds');
         SELECT exa_billing.expire_due_credits()",
    ),
    call(
        &["close_out_credits"],
        "SELECT exa_billing.grant_credit('user', 'closed-{n}', 5, now() + interval '1 day');
         SELECT exa_billing.close_out_credits('user', 'closed-{n}')",
    ),
    call(
        &["recompute_user_balances"],
        "SELECT exa_billing.record_exa_usage('paid', '/search', 1);
         SELECT exa_billing.recompute_user_balances('paid')",
    ),
    call(
        &["recompute_organization_balances"],
        "SELECT exa_billing.recompute_organization_balances('org-1')",
    ),
    call(
        &["recompute_next_owner"],
        "SELECT exa_billing.recompute_next_owner(true, false, true)",
    ),
    call(&["recompute_all_balances"], "CALL exa_billing.recompute_all_balances(false)"),
    call(
        &["set_free_allowance"],
        "SELECT exa_billing.set_free_allowance(1000{n}, '2020-01-01', 'allowed')",
    ),
    call(
        &["set_organization_member"],
        "SELECT exa_billing.set_organization_member('org-1', 'm{n}', 'member', 5)",
    ),
    call(
        &["remove_organization_member"],
        "SELECT exa_billing.set_organization_member('org-2', 'm', 'owner');
         SELECT exa_billing.remove_organization_member('org-2', 'm')",
    ),
    call(
        &["post_spend"],
        "SELECT exa_billing.record_spend('user', 'posted-{n}', 7, 'variable', 'kiloclaw', 'of-{n}');
         SELECT exa_billing.record_exa_usage('paid', '/search', 10, 'org-1');
         SELECT exa_billing.post_spend()",
    ),
    call(&["retry_blocked_spend"], "SELECT exa_billing.retry_blocked_spend()"),
    call(&["setup"], "SELECT exa_billing.setup()"),
    call(&["maintain_partitions"], "SELECT exa_billing.maintain_partitions(1)"),
    call(
        &["attach_spend_source", "detach_spend_source"],
        "SELECT exa_billing.attach_spend_source('later-{n}', 'public.later', 'scheduled', 'other',
             '{\"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}', true);
         SELECT exa_billing.detach_spend_source('later-{n}')",
    ),
    call(
        &["capture_spend"],
        "INSERT INTO public.llm VALUES (1{n}, 'paid', 5, now()), (2{n}, 'paid', 9, now());
         UPDATE public.llm SET cost = cost + 3 WHERE id = 1{n}; DELETE FROM public.llm WHERE id = 2{n}",
    ),
    call(
        &["record_degraded_interval", "resolve_degraded_interval"],
        "SELECT exa_billing.resolve_degraded_interval(exa_billing.record_degraded_interval(
             date_trunc('hour', now(), 'UTC') - interval '2 hours', date_trunc('hour', now(), 'UTC'), 'a test{n}'))",
    ),
    call(
        &["rebuild_rollups"],
        "SELECT exa_billing.rebuild_rollups('organization', 'org-1', date_trunc('hour', now(), 'UTC') - interval '24 hours',
             date_trunc('hour', now(), 'UTC') + interval '1 hour')",
    ),
    call(
        &["backfill_next_hours"],
        "SELECT exa_billing.backfill_next_hours(true, date_trunc('hour', now(), 'UTC') - interval '3 hours',
             date_trunc('hour', now(), 'UTC'), false)",
    ),
    call(
        &["backfill_rollups"],
        "CALL exa_billing.backfill_rollups(date_trunc('hour', now(), 'UTC') - interval '30 hours',
             date_trunc('hour', now(), 'UTC'), false)",
    ),
    call(
        &["update_spend_alert_settings"],
        "SELECT exa_billing.update_spend_alert_settings('user', 'paid', '{\"spend_alerts_enabled\": true,
             \"threshold_24h_microdollars\": 1{n}, \"minimum_balance_microdollars\": 2{n}}', 'paid')",
    ),
    call(
        &["evaluate_spend_alerts"],
        "SELECT exa_billing.evaluate_spend_alerts('organization', 'org-1')",
    ),
    call(
        &["evaluate_due_owners"],
        "SELECT exa_billing.record_spend('organization', 'org-1', 7, 'variable', 'kiloclaw', 'p');
         SELECT exa_billing.post_spend(); SELECT exa_billing.evaluate_due_owners()",
    ),
    call(&["run_spend_alert_sweep"], "SELECT exa_billing.run_spend_alert_sweep()"),
    call(
        &["acknowledge_spend_alert"],
        "SELECT exa_billing.acknowledge_spend_alert(event_id, 'paid') FROM exa_billing.cost_insight_events
         WHERE event_type = 'threshold_crossed' AND owner_kind = 'organization'",
    ),
    call(
        &["dismiss_cost_suggestion"],
        "SELECT exa_billing.dismiss_cost_suggestion(suggestion_id, owner_id) FROM exa_billing.cost_suggestions",
    ),
    call(&["delete_old_events"], "SELECT exa_billing.delete_old_events()"),
    call(
        &["claim_notifications", "complete_notification"],
        "SELECT exa_billing.adjust_credit('user', 'low', 9, 'up'); SELECT exa_billing.adjust_credit('user', 'low', -9, 'down');
         SELECT exa_billing.complete_notification(delivery_id, claim_token) FROM exa_billing.claim_notifications(5)",
    ),
    call(
        &["claim_notifications", "fail_notification"],
        "SELECT exa_billing.adjust_credit('user', 'low', 9, 'up'); SELECT exa_billing.adjust_credit('user', 'low', -9, 'down');
         SELECT exa_billing.fail_notification(delivery_id, claim_token, 'a test') FROM exa_billing.claim_notifications(5)",
    ),
    call(
        &["start_worker", "stop_worker"],
        "SELECT exa_billing.stop_worker(); SELECT exa_billing.start_worker()",
    ),
    call(&["run_maintenance_step"], "SELECT exa_billing.run_maintenance_step(1)"),
    call(&["run_maintenance"], "CALL exa_billing.run_maintenance()"),
    call(&["enable_row_security"], "SELECT exa_billing.enable_row_security()"),
    call(
        &["grant_application", "grant_operator", "grant_auditor", "grant_end_user"],
        "SELECT exa_billing.enable_row_security();
         SELECT exa_billing.grant_application('some_role'), exa_billing.grant_operator('some_role'),
             exa_billing.grant_auditor('some_role'), exa_billing.grant_end_user('some_end_user')",
    ),
    call(
        &["erase_user"],
        "SELECT exa_billing.set_organization_member('org-1', 'gone-{n}', 'member');
         SELECT exa_billing.erase_user('gone-{n}')",
    ),
];

/// Fills new books with what the calls are about.
pub fn fill(client: &mut Client) {
    // Roles are the whole server's, and other tests may be making them.
    for role in ["some_role", "some_end_user"] {
        run_sql(
            client,
            &format!(
                "DO $$ BEGIN CREATE ROLE {role};
                 EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
            ),
        );
    }
    run_sql(
        client,
        "SELECT exa_billing.start_worker();
         SELECT exa_billing.set_free_allowance(1000000000, '2020-01-01'), exa_billing.set_free_allowance(0, '2020-01-01', 'paid');
         SELECT exa_billing.set_organization_member('org-1', 'paid', 'owner'), exa_billing.set_organization_member('org-1', 'free', 'member');
         SELECT exa_billing.grant_credit('user', 'paid', 1000000000), exa_billing.grant_credit('organization', 'org-1', 1000000000),
             exa_billing.grant_credit('user', 'low', 15);
         SELECT exa_billing.update_spend_alert_settings('organization', 'org-1', '{\"spend_alerts_enabled\": true, \"threshold_24h_microdollars\": 1000}', 'paid'),
             exa_billing.update_spend_alert_settings('user', 'low', '{\"minimum_balance_microdollars\": 20}', 'low');
         SELECT exa_billing.record_spend('user', 'spender', 200000000, 'variable', 'ai_gateway', 'llm');
         SELECT exa_billing.record_exa_usage('paid', '/search', 600 + n, 'org-1', created_at => now() - n * interval '1 hour') FROM generate_series(0, 30) AS n;
         CREATE TABLE public.llm (id bigint PRIMARY KEY, who text, cost bigint, at timestamptz);
         CREATE INDEX ON public.llm (who, at);
         CREATE TABLE public.later (LIKE public.llm INCLUDING ALL);
         INSERT INTO public.later VALUES (1, 'paid', 5, now() - interval '1 hour');
         SELECT exa_billing.attach_spend_source('llm', 'public.llm', 'variable', 'ai_gateway',
             '{\"user_id\": \"who\", \"organization_id\": {\"value\": null}, \"amount\": \"cost\", \"created_at\": \"at\"}');
         SELECT exa_billing.post_spend(1000000);
         SELECT exa_billing.run_spend_alert_sweep()",
    );
}

/// None is forgotten: each function and procedure that may write is in a call.
pub fn assert_complete(client: &mut Client) {
    let writing = "SELECT DISTINCT proname::text FROM pg_proc
                   WHERE pronamespace = 'exa_billing'::regnamespace AND provolatile = 'v'
                     AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)";
    for name in column::<String>(client, writing) {
        assert!(CALLS.iter().any(|call| call.of.contains(&name.as_str())), "{name} is in no call");
    }
}
