-- What waits in the queue of an owner's spend, per UTC hour and category. $1 owner_kind, $2 owner_id, $3 and
-- $4 the start of the first and the end of the last hour asked for, $5 all instants at which asked hours
-- begin and end: they lie behind an odd number of these; $6 from which transaction on rows wait.
-- The queue is added up before its dimensions are looked up, and by date_bin, which costs a
-- fraction of date_trunc: an owner may have hundreds of thousands of rows there.
SELECT q.hour_start, coalesce(d.spend_category, q.dimension[1]), q.amount, q.records
FROM (
    SELECT date_bin('1 hour', created_at, '2000-01-01 00:00:00+00') AS hour_start,
           dimension_id, dimension,
           sum(amount_microdollars)::bigint AS amount, sum(spend_record_count)::bigint AS records
    FROM exa_billing.unposted_spend
    WHERE owner_kind = $1 AND owner_id = $2 AND transaction_id >= $6
      AND created_at >= $3 AND created_at < $4
      AND (cardinality($5) = 2 OR width_bucket(created_at, $5) % 2 = 1)
    GROUP BY 1, 2, 3
) AS q
LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
