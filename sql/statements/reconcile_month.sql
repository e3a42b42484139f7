-- Hours whose rollups differ from the journals. $1 and $2 the hours, within one month; $3 … $14 what
-- attached tables hold of them; $15 how many to tell (each row also says how many there are). Posted
-- + unposted against journals in one statement, so that live charging gives no false alarm. Sums are
-- numeric, so that one owner's overflow is not everybody's.
WITH figures AS (
    SELECT owner_kind, owner_id, date_trunc('hour', created_at, 'UTC') AS hour_start, spend_category,
           sum(amount_microdollars) AS amount, sum(spend_record_count) AS records,
           0::numeric AS total, 0::numeric AS total_records, 0::numeric AS driven,
           0::numeric AS driven_records, false AS has_total
    FROM exa_billing.spend_entries
    WHERE created_at >= $1 AND created_at < $2
    GROUP BY 1, 2, 3, 4
    UNION ALL
    SELECT kind, id, hour_start, category, amount, records, 0, 0, 0, 0, false
    FROM unnest($3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
        AS a(kind, id, hour_start, category, source, product, feature, model_or_plan, provider, actor,
             amount, records)
    UNION ALL
    SELECT owner_kind, owner_id, hour_start, spend_category, 0, 0, total_microdollars,
           spend_record_count, 0, 0, true
    FROM exa_billing.spend_hourly_totals
    WHERE hour_start >= $1 AND hour_start < $2
    UNION ALL
    SELECT p.owner_kind, p.owner_id, p.hour_start, d.spend_category, 0, 0, 0, 0, p.total_microdollars,
           p.spend_record_count, false
    FROM exa_billing.spend_hourly_drivers AS p
    LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
    WHERE p.hour_start >= $1 AND p.hour_start < $2
    UNION ALL
    SELECT owner_kind, owner_id, hour_start, spend_category, 0, 0, amount_microdollars,
           spend_record_count, amount_microdollars, spend_record_count, false
    FROM exa_billing.unposted_entries
    WHERE created_at >= $1 AND created_at < $2
), hours AS (
    SELECT owner_kind, owner_id, hour_start, spend_category, sum(amount) AS amount,
           sum(records) AS records, sum(total) AS total, sum(total_records) AS total_records,
           sum(driven) AS driven, sum(driven_records) AS driven_records,
           -- An hour of which the journals know nothing misses no total.
           bool_or(has_total) OR (sum(amount) = 0 AND sum(records) = 0) AS has_total
    FROM figures
    GROUP BY owner_kind, owner_id, hour_start, spend_category
    HAVING sum(total) <> sum(amount) OR sum(total_records) <> sum(records)
        OR sum(driven) <> sum(amount) OR sum(driven_records) <> sum(records)
), mismatches AS (
    SELECT m.mismatch_type, h.hour_start, h.owner_kind, h.owner_id, h.spend_category,
           h.amount AS expected, m.actual, h.records AS expected_records, m.actual_records
    FROM hours AS h
    CROSS JOIN LATERAL (VALUES
        ('missing_total', h.total, h.total_records,
         NOT h.has_total AND (h.total <> h.amount OR h.total_records <> h.records)),
        ('amount_difference', h.total, h.total_records, h.has_total AND h.total <> h.amount),
        ('record_count_difference', h.total, h.total_records,
         h.has_total AND h.total_records <> h.records),
        ('driver_sum_difference', h.driven, h.driven_records,
         h.driven <> h.amount OR h.driven_records <> h.records)
    ) AS m(mismatch_type, actual, actual_records, is_one)
    WHERE m.is_one
)
SELECT mismatch_type, hour_start, owner_kind::text, owner_id::text, spend_category::text,
       expected::text, actual::text, expected_records::text, actual_records::text,
       count(*) OVER ()
FROM mismatches
ORDER BY hour_start, owner_kind, owner_id, spend_category, mismatch_type
LIMIT $15
