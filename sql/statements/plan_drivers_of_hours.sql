-- What the owners $1, $2 spent on each model or plan of a provider in certain UTC hours, posted and
-- unposted together. $3, $4, $5 as in spend_of_queue.sql. Sums that no bigint holds are null, so that
-- one owner's overflow is not everybody's.
SELECT o.owner_kind, o.owner_id, coalesce(d.spend_category, f.dimension[1]) AS category,
       coalesce(d.provider_key, f.dimension[6]) AS provider,
       coalesce(d.model_or_plan_key, f.dimension[5]) AS model_or_plan,
       CASE WHEN abs(sum(f.amount)) < 9223372036854775808 THEN sum(f.amount)::bigint END,
       CASE WHEN abs(sum(f.records)) < 9223372036854775808 THEN sum(f.records)::bigint END
FROM unnest($1, $2) AS o(owner_kind, owner_id)
CROSS JOIN LATERAL (
    SELECT p.dimension_id, NULL::text[] AS dimension, sum(p.total_microdollars) AS amount,
           sum(p.spend_record_count) AS records
    FROM exa_billing.spend_hourly_drivers AS p
    WHERE p.owner_kind = o.owner_kind AND p.owner_id = o.owner_id
      AND p.hour_start >= $3 AND p.hour_start < $4
      AND (cardinality($5) = 2 OR width_bucket(p.hour_start, $5) % 2 = 1)
    GROUP BY p.dimension_id
    UNION ALL
    SELECT q.dimension_id, q.dimension, sum(q.amount_microdollars), sum(q.spend_record_count)
    FROM exa_billing.unposted_spend AS q
    WHERE q.owner_kind = o.owner_kind AND q.owner_id = o.owner_id
      AND q.created_at >= $3 AND q.created_at < $4
      AND (cardinality($5) = 2 OR width_bucket(q.created_at, $5) % 2 = 1)
    GROUP BY q.dimension_id, q.dimension
) AS f
LEFT JOIN exa_billing.spend_dimensions AS d ON d.dimension_id = f.dimension_id
GROUP BY o.owner_kind, o.owner_id, category, provider, model_or_plan
