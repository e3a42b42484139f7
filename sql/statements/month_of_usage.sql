-- One month of an owner's charges, cut at instants. $1 owner_kind, $2 owner_id, $3 and $4 the
-- month's start and end, $5 the instants in order, $6 closure dates in order, $7 for each the
-- earliest recording of that or a later dated closure. A charge at an instant counts as after it.
SELECT width_bucket(created_at, $5) AS slot, sum(amount_microdollars)::bigint,
       count(*) FILTER (WHERE recorded_at > ($7)[width_bucket(created_at, $6) + 1])
FROM exa_billing.spend_entries
WHERE created_at >= $3 AND created_at < $4 AND owner_kind = $1 AND owner_id = $2
GROUP BY slot
