-- An owner's charges per UTC day and product, each dated by its last charge. $1 owner_kind,
-- $2 owner_id, $3 and $4 start and end, within one month.
SELECT max(created_at),
       format('%s on %s, %s %s', product_key, to_char(usage_date, 'YYYY-MM-DD'), sum(records),
              CASE sum(records) WHEN 1 THEN 'charge' ELSE 'charges' END), sum(amount)::bigint
FROM (
    SELECT created_at, (created_at AT TIME ZONE 'UTC')::date AS usage_date, product_key,
           amount_microdollars AS amount, spend_record_count AS records
    FROM exa_billing.spend_entries
    WHERE created_at >= $3 AND created_at < $4 AND owner_kind = $1 AND owner_id = $2
) AS charges
GROUP BY usage_date, product_key
