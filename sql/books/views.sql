-- The views for people, re-applied by setup(): always posted + unposted, in one statement, with
-- the rights and policies of whoever reads (security_invoker). Sums stay numeric, so that one owner
-- whose figures have left the range of bigint does not hide everybody else's.

CREATE OR REPLACE VIEW exa_billing.unposted_entries WITH (security_invoker = true) AS
SELECT q.owner_kind, q.owner_id, q.entry_id, q.journal,
       coalesce(q.actor_user_id, CASE q.owner_kind WHEN 'user' THEN q.owner_id END) AS actor_user_id,
       q.cost_microdollars, q.amount_microdollars, q.spend_record_count,
       coalesce(d.spend_category, q.dimension[1]) AS spend_category,
       coalesce(d.source, q.dimension[2]) AS source,
       coalesce(d.product_key, q.dimension[3]) AS product_key,
       coalesce(d.feature_key, q.dimension[4]) AS feature_key,
       coalesce(d.model_or_plan_key, q.dimension[5]) AS model_or_plan_key,
       coalesce(d.provider_key, q.dimension[6]) AS provider_key,
       date_trunc('hour', q.created_at, 'UTC') AS hour_start,
       (q.created_at AT TIME ZONE 'UTC')::date AS usage_date,
       date_trunc('month', q.created_at AT TIME ZONE 'UTC')::date AS month,
       q.created_at, q.blocked_reason
FROM exa_billing.unposted_spend AS q
LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id);
COMMENT ON VIEW exa_billing.unposted_entries IS
    'The queue, readable: each journal row that is not yet posted, with its driver and its UTC hour, day and month.';

CREATE OR REPLACE VIEW exa_billing.account_balances WITH (security_invoker = true) AS
SELECT owner_kind, owner_id,
       sum(total_microdollars_acquired) AS total_microdollars_acquired,
       sum(microdollars_used) AS microdollars_used,
       sum(total_microdollars_acquired) - sum(microdollars_used) AS balance_microdollars,
       max(next_credit_expiration_at) AS next_credit_expiration_at
FROM (
    SELECT owner_kind, owner_id, total_microdollars_acquired, microdollars_used, next_credit_expiration_at
    FROM exa_billing.accounts
    UNION ALL
    SELECT owner_kind, owner_id, 0, amount_microdollars, NULL
    FROM exa_billing.unposted_spend
) AS figures
GROUP BY owner_kind, owner_id;
COMMENT ON VIEW exa_billing.account_balances IS
    'Credits acquired, used and left of every owner, in microdollars: posted and unposted. Expirations that are due but not yet processed are counted by the function account_balance().';

CREATE OR REPLACE VIEW exa_billing.exa_monthly_usage_current WITH (security_invoker = true) AS
SELECT figures.user_id, figures.organization_id, figures.month,
       sum(total_cost_microdollars) AS total_cost_microdollars,
       sum(total_charged_microdollars) AS total_charged_microdollars,
       sum(request_count) AS request_count,
       max(locked.free_allowance_microdollars) AS free_allowance_microdollars
FROM (
    SELECT user_id, organization_id, month, total_cost_microdollars, total_charged_microdollars, request_count
    FROM exa_billing.exa_monthly_usage
    UNION ALL
    SELECT actor_user_id, CASE owner_kind WHEN 'organization' THEN owner_id END, month,
           cost_microdollars, amount_microdollars, 1
    FROM exa_billing.unposted_entries
    WHERE cost_microdollars IS NOT NULL
) AS figures
LEFT JOIN exa_billing.exa_monthly_allowance AS locked USING (user_id, month)
GROUP BY figures.user_id, figures.organization_id, figures.month;
COMMENT ON VIEW exa_billing.exa_monthly_usage_current IS
    'Exa usage per user, context (organization, or null for personal) and UTC month, in microdollars: posted and unposted.';

CREATE OR REPLACE VIEW exa_billing.spend_hourly WITH (security_invoker = true) AS
SELECT owner_kind, owner_id, hour_start, spend_category,
       sum(total_microdollars) AS total_microdollars,
       sum(spend_record_count) AS spend_record_count
FROM (
    SELECT owner_kind, owner_id, hour_start, spend_category, total_microdollars, spend_record_count
    FROM exa_billing.spend_hourly_totals
    UNION ALL
    SELECT owner_kind, owner_id, hour_start, spend_category, amount_microdollars, spend_record_count
    FROM exa_billing.unposted_entries
    WHERE spend_record_count <> 0 OR amount_microdollars <> 0
) AS figures
GROUP BY owner_kind, owner_id, hour_start, spend_category
HAVING sum(total_microdollars) <> 0 OR sum(spend_record_count) <> 0;
COMMENT ON VIEW exa_billing.spend_hourly IS
    'Charged spend per owner, UTC hour and category, in microdollars: posted and unposted.';

CREATE OR REPLACE VIEW exa_billing.spend_drivers_hourly WITH (security_invoker = true) AS
SELECT owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
       model_or_plan_key, provider_key, nullif(actor_user_id, '') AS actor_user_id,
       sum(total_microdollars) AS total_microdollars,
       sum(spend_record_count) AS spend_record_count
FROM (
    SELECT p.owner_kind, p.owner_id, p.hour_start, d.spend_category, d.source, d.product_key, d.feature_key,
           d.model_or_plan_key, d.provider_key, p.actor_user_id, p.total_microdollars, p.spend_record_count
    FROM exa_billing.spend_hourly_drivers AS p
    JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
    UNION ALL
    SELECT owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
           model_or_plan_key, provider_key, coalesce(actor_user_id, ''), amount_microdollars,
           spend_record_count
    FROM exa_billing.unposted_entries
    WHERE spend_record_count <> 0 OR amount_microdollars <> 0
) AS figures
GROUP BY owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
         model_or_plan_key, provider_key, actor_user_id
HAVING sum(total_microdollars) <> 0 OR sum(spend_record_count) <> 0;
COMMENT ON VIEW exa_billing.spend_drivers_hourly IS
    'Charged spend per owner, UTC hour and driver, readable, in microdollars: posted and unposted.';

-- A branch for each kind of owner, so that a condition on the owner finds an index and the other
-- branches are not even planned.
CREATE OR REPLACE VIEW exa_billing.spend_entries WITH (security_invoker = true) AS
SELECT 'user' AS owner_kind, user_id AS owner_id, user_id AS actor_user_id, 'exa' AS journal,
       usage_id AS entry_id, 'variable' AS spend_category, 'other' AS source, 'exa' AS product_key,
       CASE WHEN path IN ('/search', '/contents', '/findSimilar', '/answer', '/context')
            THEN substr(path, 2) ELSE 'other' END AS feature_key,
       'other' AS model_or_plan_key, 'exa' AS provider_key,
       charged_microdollars AS amount_microdollars, 1::bigint AS spend_record_count,
       created_at, recorded_at
FROM exa_billing.exa_usage_log
WHERE organization_id IS NULL AND charged_microdollars > 0
UNION ALL
SELECT 'organization', organization_id, user_id, 'exa', usage_id, 'variable', 'other', 'exa',
       CASE WHEN path IN ('/search', '/contents', '/findSimilar', '/answer', '/context')
            THEN substr(path, 2) ELSE 'other' END,
       'other', 'exa', charged_microdollars, 1, created_at, recorded_at
FROM exa_billing.exa_usage_log
WHERE organization_id IS NOT NULL AND charged_microdollars > 0
UNION ALL
SELECT owner_kind, owner_id, coalesce(actor_user_id, CASE owner_kind WHEN 'user' THEN owner_id END),
       'spend', spend_id, spend_category,
       CASE WHEN source IN ('ai_gateway', 'kiloclaw', 'coding_plan') THEN source ELSE 'other' END,
       product_key, feature_key, model_or_plan_key, provider_key, amount_microdollars,
       spend_record_count, created_at, recorded_at
FROM exa_billing.spend_log;
COMMENT ON VIEW exa_billing.spend_entries IS
    'Every charge in the product''s own journals, with its driver, in microdollars; what attached tables hold is read from them. Always with bounds on created_at: the journals are partitioned by it.';

CREATE OR REPLACE VIEW exa_billing.progress WITH (security_invoker = true) AS
SELECT procedure_name, arguments, done, total, changed, failed, started_at, updated_at, finished_at
FROM exa_billing.procedure_progress;
COMMENT ON VIEW exa_billing.progress IS
    'Long procedures: how many owners (recompute_all_balances) or hours (backfill_rollups) are done; changed and failed count owners, in a backfill once for each UTC day. finished_at is null while one runs or waits to be called again.';

CREATE OR REPLACE VIEW exa_billing.worker_jobs WITH (security_invoker = true) AS
SELECT job_name, last_started_at, last_ended_at, last_error, last_error_at, failures_in_a_row,
       run_count, row_count
FROM exa_billing.job_runs;
COMMENT ON VIEW exa_billing.worker_jobs IS
    'What each job of the background worker or of run_maintenance() did last; at most a minute old. failures_in_a_row is 0 while all is well; row_count counts rows or owners.';

CREATE OR REPLACE VIEW exa_billing.health WITH (security_invoker = true) AS
SELECT check_name AS name, status, figure, what_to_do
FROM exa_billing.health_checks();
COMMENT ON VIEW exa_billing.health IS
    'Whether all is well, one row per check: ok, warning or critical, the figure it was decided by, and what to do. docs/HEALTH.md says what each check looks at.';
