-- What waits in the queue of the spend of many owners in whole UTC hours. A sum that no bigint can hold comes
-- back as the largest one.
-- $1 owner kinds, $2 owner ids, $3 the first hour each of them is asked for, $4, $5 and $6 the first
-- whole hours of the three windows, $7 the hour just completed, $8 the end of all of them.
SELECT (o.place - 1)::int,
       least(coalesce(sum(f.amount) FILTER (WHERE f.hour_start >= $4), 0), 9223372036854775807)::bigint,
       least(coalesce(sum(f.amount) FILTER (WHERE f.hour_start >= $5), 0), 9223372036854775807)::bigint,
       least(coalesce(sum(f.amount) FILTER (WHERE f.hour_start >= $6), 0), 9223372036854775807)::bigint,
       least(coalesce(sum(f.amount) FILTER (
           WHERE f.hour_start = $7 AND f.spend_category = 'variable'), 0), 9223372036854775807)::bigint
FROM unnest($1, $2, $3) WITH ORDINALITY AS o(owner_kind, owner_id, from_hour, place)
CROSS JOIN LATERAL (
    SELECT date_bin('1 hour', q.created_at, '2000-01-01 00:00:00+00') AS hour_start,
           coalesce(d.spend_category, q.dimension[1]) AS spend_category, q.amount_microdollars AS amount
    FROM exa_billing.unposted_spend AS q
    LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
    WHERE q.owner_kind = o.owner_kind AND q.owner_id = o.owner_id
      AND q.created_at >= o.from_hour AND q.created_at < $8
) AS f
GROUP BY o.place
