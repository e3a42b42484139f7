-- The same as plan_drivers_of_hours.sql out of the product's own journals, from $3 until before $4.
SELECT o.owner_kind, o.owner_id, e.category, e.provider, e.model_or_plan,
       CASE WHEN e.amount < 9223372036854775808 THEN e.amount::bigint END,
       CASE WHEN e.records < 9223372036854775808 THEN e.records::bigint END
FROM unnest($1, $2) AS o(owner_kind, owner_id)
CROSS JOIN LATERAL (
    SELECT s.spend_category AS category, s.provider_key AS provider,
           s.model_or_plan_key AS model_or_plan, sum(s.amount_microdollars) AS amount,
           sum(s.spend_record_count) AS records
    FROM exa_billing.spend_entries AS s
    WHERE s.owner_kind = o.owner_kind AND s.owner_id = o.owner_id
      AND s.created_at >= $3 AND s.created_at < $4
    GROUP BY 1, 2, 3
) AS e
