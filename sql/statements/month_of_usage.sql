-- One month of an owner's charges, cut at instants. $1 owner_kind, $2 owner_id, $3 and $4 the
-- month's start and end, $5 the instants in order, $6 closure dates in order, $7 for each the
-- earliest recording of that or a later dated closure. A charge at an instant counts as after it.
SELECT width_bucket(created_at, $5) AS slot, sum(amount)::bigint,
       count(*) FILTER (WHERE recorded_at > ($7)[width_bucket(created_at, $6) + 1])
FROM (
    SELECT created_at, recorded_at, charged_microdollars AS amount
    FROM exa_billing.exa_usage_log
    WHERE created_at >= $3 AND created_at < $4 AND charged_microdollars > 0 AND CASE $1
          WHEN 'user' THEN organization_id IS NULL AND user_id = $2 ELSE organization_id = $2 END
    UNION ALL
    SELECT created_at, recorded_at, amount_microdollars
    FROM exa_billing.spend_log
    WHERE created_at >= $3 AND created_at < $4 AND owner_kind = $1 AND owner_id = $2
) AS charges
GROUP BY slot
