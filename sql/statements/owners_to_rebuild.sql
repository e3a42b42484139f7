-- Whose hourly totals, drivers or member days differ from the journals. $1 and $2 the hours, $3 and
-- $4 the whole UTC days they touch, within one month; $5 … $16 what attached tables hold of these
-- days. Posted + unposted against journals in one statement: what is expected counts plus, what is
-- there minus, and nothing is left where all is right. Sums are numeric, so that one owner's overflow
-- is not everybody's.
WITH spent AS (
    SELECT owner_kind, owner_id, date_trunc('hour', created_at, 'UTC') AS hour_start, spend_category,
           source, product_key, feature_key, model_or_plan_key, provider_key,
           coalesce(actor_user_id, '') AS actor_user_id,
           sum(amount_microdollars) AS amount, sum(spend_record_count) AS records
    FROM exa_billing.spend_entries
    WHERE created_at >= $3 AND created_at < $4
    GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
    UNION ALL
    SELECT kind, id, hour_start, category, source, product, feature, model_or_plan, provider,
           coalesce(actor, ''), amount, records
    FROM unnest($5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
        AS a(kind, id, hour_start, category, source, product, feature, model_or_plan, provider, actor,
             amount, records)
), of_days AS MATERIALIZED (
    SELECT * FROM spent
    UNION ALL
    SELECT owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
           model_or_plan_key, provider_key, coalesce(actor_user_id, ''),
           -(amount_microdollars::numeric), -(spend_record_count::numeric)
    FROM exa_billing.unposted_entries
    WHERE created_at >= $3 AND created_at < $4
      AND (amount_microdollars <> 0 OR spend_record_count <> 0)
), of_hours AS (
    SELECT * FROM of_days WHERE hour_start >= $1 AND hour_start < $2
), owners AS (
    SELECT owner_kind, owner_id
    FROM (
        SELECT owner_kind, owner_id, hour_start, spend_category, amount, records FROM of_hours
        UNION ALL
        SELECT owner_kind, owner_id, hour_start, spend_category, -(total_microdollars::numeric),
               -(spend_record_count::numeric)
        FROM exa_billing.spend_hourly_totals WHERE hour_start >= $1 AND hour_start < $2
    ) AS totals
    GROUP BY owner_kind, owner_id, hour_start, spend_category
    HAVING sum(amount) <> 0 OR sum(records) <> 0

    UNION
    SELECT owner_kind, owner_id
    FROM (
        SELECT * FROM of_hours
        UNION ALL
        SELECT p.owner_kind, p.owner_id, p.hour_start, d.spend_category, d.source, d.product_key,
               d.feature_key, d.model_or_plan_key, d.provider_key, p.actor_user_id,
               -(p.total_microdollars::numeric), -(p.spend_record_count::numeric)
        FROM exa_billing.spend_hourly_drivers AS p
        LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
        WHERE p.hour_start >= $1 AND p.hour_start < $2
    ) AS drivers
    GROUP BY owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
             model_or_plan_key, provider_key, actor_user_id
    HAVING sum(amount) <> 0 OR sum(records) <> 0

    UNION
    SELECT owner_kind, owner_id
    FROM (
        SELECT owner_kind, owner_id, date_trunc('day', hour_start, 'UTC') AS day_start, spend_category,
               amount, records
        FROM of_days
        UNION ALL
        SELECT owner_kind, owner_id, day_start, spend_category, -(total_microdollars::numeric),
               -(spend_record_count::numeric)
        FROM exa_billing.spend_daily_totals WHERE day_start >= $3 AND day_start < $4
    ) AS totals
    GROUP BY owner_kind, owner_id, day_start, spend_category
    HAVING sum(amount) <> 0 OR sum(records) <> 0

    UNION
    SELECT 'organization', organization_id
    FROM (
        SELECT owner_id AS organization_id, actor_user_id AS user_id,
               (hour_start AT TIME ZONE 'UTC')::date AS usage_date, amount
        FROM of_days
        WHERE owner_kind = 'organization' AND spend_category = 'variable' AND actor_user_id <> ''
        UNION ALL
        SELECT organization_id, user_id, usage_date, -(microdollars_used::numeric)
        FROM exa_billing.organization_member_usage
        WHERE usage_date >= ($3 AT TIME ZONE 'UTC')::date AND usage_date < ($4 AT TIME ZONE 'UTC')::date
    ) AS days
    GROUP BY organization_id, user_id, usage_date
    HAVING sum(amount) <> 0
)
SELECT owner_kind::text, owner_id::text FROM owners
ORDER BY owner_kind, owner_id
