-- The figures of series.sql out of the journals alone.
SELECT floor(extract(epoch FROM created_at - first_hour) / 604800) AS bucket, spend_category, sum(amount), count(*)
FROM (SELECT date_trunc('hour', now(), 'UTC') - interval '2159 hours' AS first_hour) AS window_start,
     LATERAL (
         SELECT created_at, 'variable' AS spend_category, charged_microdollars AS amount
         FROM exa_billing.exa_usage_log
         WHERE user_id = 'heavy-1' AND organization_id IS NULL AND charged_to_balance
           AND created_at >= date_trunc('hour', now(), 'UTC') - interval '2159 hours' AND created_at < now()
         UNION ALL
         SELECT created_at, spend_category, amount_microdollars FROM exa_billing.spend_log
         WHERE owner_kind = 'user' AND owner_id = 'heavy-1'
           AND created_at >= date_trunc('hour', now(), 'UTC') - interval '2159 hours' AND created_at < now()
     ) AS charges
GROUP BY 1, 2 ORDER BY 1, 2;
