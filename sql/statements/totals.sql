-- What a migration must not move, figure by figure: whole amounts, and for each table the sum of its
-- rows' hashes, so that nothing can go from one owner to another either. On books of every storage
-- version; columns are named one by one, for later versions may add some. Amounts in microdollars.
SELECT f.figure, f.value::text
FROM (
    SELECT count(*) AS rows, sum(total_microdollars_acquired) AS acquired, sum(microdollars_used) AS used,
           sum(hash_record_extended(ROW(owner_kind, owner_id, total_microdollars_acquired, microdollars_used,
                                        next_credit_expiration_at, minimum_balance_microdollars,
                                        low_balance_since), 0)) AS hash
    FROM exa_billing.accounts
) AS t
CROSS JOIN LATERAL (VALUES ('accounts', t.rows::numeric), ('credits acquired', t.acquired),
    ('credits used', t.used), ('hash of the accounts', t.hash)) AS f(figure, value)
UNION ALL
SELECT f.figure, f.value::text
FROM (
    SELECT count(*) AS rows, sum(amount_microdollars) AS amount, sum(cost_microdollars) AS cost,
           sum(hash_record_extended(ROW(owner_kind, owner_id, entry_id, journal, actor_user_id, amount_microdollars,
                                        cost_microdollars, spend_record_count, dimension_id, dimension,
                                        blocked_reason, created_at), 0)) AS hash
    FROM exa_billing.unposted_spend
) AS t
CROSS JOIN LATERAL (VALUES ('unposted rows', t.rows::numeric), ('unposted spend', t.amount),
    ('unposted cost', t.cost), ('hash of the queue', t.hash)) AS f(figure, value)
UNION ALL
SELECT f.figure, f.value::text
FROM (
    SELECT count(*) AS rows, sum(amount_microdollars) AS amount,
           sum(amount_microdollars) FILTER (WHERE expiry_date IS NOT NULL AND NOT EXISTS (
               SELECT FROM exa_billing.credit_transactions AS c WHERE c.original_transaction_id = g.id)) AS open,
           sum(hash_record_extended(ROW(id, owner_kind, owner_id, amount_microdollars, expiry_date,
                                        original_baseline_microdollars_used, expiration_baseline_microdollars_used,
                                        credit_category, is_free, original_transaction_id,
                                        created_at), 0)) AS hash
    FROM exa_billing.credit_transactions AS g
) AS t
CROSS JOIN LATERAL (VALUES ('credit transactions', t.rows::numeric), ('sum of the credit transactions', t.amount),
    ('grants that can still expire', t.open), ('hash of the credit transactions', t.hash)) AS f(figure, value)
UNION ALL
SELECT f.figure, f.value::text
FROM (
    SELECT sum(total_cost_microdollars) AS cost, sum(total_charged_microdollars) AS charged,
           sum(request_count) AS requests,
           sum(hash_record_extended(ROW(user_id, organization_id, month, total_cost_microdollars,
                                        total_charged_microdollars, request_count,
                                        free_allowance_microdollars), 0)) AS hash
    FROM exa_billing.exa_monthly_usage
) AS t
CROSS JOIN LATERAL (VALUES ('cost of the months', t.cost), ('charges of the months', t.charged),
    ('requests of the months', t.requests), ('hash of the months', t.hash)) AS f(figure, value)
UNION ALL
SELECT f.figure, f.value::text
FROM (
    SELECT count(*) AS rows, sum(free_allowance_microdollars) AS allowed, sum(used_microdollars) AS used,
           sum(hash_record_extended(ROW(user_id, month, free_allowance_microdollars, overage_rule,
                                        used_microdollars), 0)) AS hash
    FROM exa_billing.exa_monthly_allowance
) AS t
CROSS JOIN LATERAL (VALUES ('locked-in allowances', t.rows::numeric), ('free allowances', t.allowed),
    ('free allowances used', t.used), ('hash of the allowances', t.hash)) AS f(figure, value)
UNION ALL
SELECT f.figure, f.value::text
FROM (
    SELECT sum(total_microdollars) AS amount, sum(spend_record_count) AS records,
           sum(hash_record_extended(ROW(owner_kind, owner_id, hour_start, spend_category, total_microdollars,
                                        spend_record_count), 0)) AS hash
    FROM exa_billing.spend_hourly_totals
) AS t
CROSS JOIN LATERAL (VALUES ('spend of the hours', t.amount), ('charges of the hours', t.records),
    ('hash of the hours', t.hash)) AS f(figure, value)
UNION ALL
SELECT 'hash of the days',
       sum(hash_record_extended(ROW(owner_kind, owner_id, day_start, spend_category, total_microdollars,
                                    spend_record_count), 0))::text
FROM exa_billing.spend_daily_totals
UNION ALL
SELECT f.figure, f.value::text
FROM (
    SELECT sum(total_microdollars) AS amount, sum(spend_record_count) AS records,
           sum(hash_record_extended(ROW(owner_kind, owner_id, hour_start, dimension_id, actor_user_id,
                                        total_microdollars, spend_record_count), 0)) AS hash
    FROM exa_billing.spend_hourly_drivers
) AS t
CROSS JOIN LATERAL (VALUES ('spend of the drivers', t.amount), ('charges of the drivers', t.records),
    ('hash of the drivers', t.hash)) AS f(figure, value)
UNION ALL
SELECT 'spend of the members'' days', sum(microdollars_used)::text
FROM exa_billing.organization_member_usage
UNION ALL
SELECT 'hash of the members'' days',
       sum(hash_record_extended(ROW(organization_id, user_id, usage_date, microdollars_used), 0))::text
FROM exa_billing.organization_member_usage
UNION ALL
SELECT 'hash of the members',
       sum(hash_record_extended(ROW(organization_id, user_id, role, daily_limit_microdollars), 0))::text
FROM exa_billing.organization_members
UNION ALL
SELECT 'hash of the free allowances set',
       sum(hash_record_extended(ROW(user_id, effective_month, free_allowance_microdollars, overage_rule), 0))::text
FROM exa_billing.free_allowances
-- One by one: a new version may know more of them.
UNION ALL
SELECT format('dimension %s', dimension_id),
       concat_ws('/', spend_category, source, product_key, feature_key, model_or_plan_key, provider_key)
FROM exa_billing.spend_dimensions
UNION ALL
SELECT 'hash of the attached tables',
       sum(hash_record_extended(ROW(source_name, relation_schema, relation_name, relation_oid, partition_oids,
                                    spend_category, source, column_map, on_delete, counts_from, covered_from,
                                    detached_at, closed_before), 0))::text
FROM exa_billing.spend_sources
WHERE NOT is_own
UNION ALL
SELECT format('untrusted hours %s', interval_id), concat_ws(' ', owner_kind, owner_id, from_hour, to_hour)
FROM exa_billing.spend_degraded_intervals
WHERE resolved_at IS NULL
