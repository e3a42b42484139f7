-- An owner's drivers over certain UTC hours, posted and unposted rows beside each other.
-- Parameters as in spend_of_queue.sql.
SELECT coalesce(d.spend_category, f.dimension[1]), coalesce(d.source, f.dimension[2]),
       coalesce(d.product_key, f.dimension[3]), coalesce(d.feature_key, f.dimension[4]),
       coalesce(d.model_or_plan_key, f.dimension[5]), coalesce(d.provider_key, f.dimension[6]),
       nullif(f.actor_user_id, ''), f.amount, f.records
FROM (
    SELECT dimension_id, NULL::text[] AS dimension, actor_user_id,
           sum(total_microdollars)::bigint AS amount, sum(spend_record_count)::bigint AS records
    FROM exa_billing.spend_hourly_drivers
    WHERE owner_kind = $1 AND owner_id = $2 AND hour_start >= $3 AND hour_start < $4
      AND (cardinality($5) = 2 OR width_bucket(hour_start, $5) % 2 = 1)
    GROUP BY dimension_id, actor_user_id
    UNION ALL
    SELECT dimension_id, dimension,
           coalesce(actor_user_id, CASE owner_kind WHEN 'user' THEN owner_id END),
           sum(amount_microdollars)::bigint, sum(spend_record_count)::bigint
    FROM exa_billing.unposted_spend
    WHERE owner_kind = $1 AND owner_id = $2 AND created_at >= $3 AND created_at < $4
      AND (cardinality($5) = 2 OR width_bucket(created_at, $5) % 2 = 1)
    GROUP BY 1, 2, 3
) AS f
LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
