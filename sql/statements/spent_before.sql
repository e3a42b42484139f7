-- Which of many owners have spent before an hour, each before its own, as rollups and queue together
-- say: a charge that is posted and taken back by a row that waits was none.
-- $1 owner kinds, $2 owner ids, $3 the hours.
SELECT (o.place - 1)::int
FROM unnest($1, $2, $3) WITH ORDINALITY AS o(owner_kind, owner_id, from_hour, place)
WHERE EXISTS (
    SELECT FROM exa_billing.spend_hourly_totals AS t
    WHERE t.owner_kind = o.owner_kind AND t.owner_id = o.owner_id AND t.hour_start < o.from_hour
      AND (t.spend_record_count <> 0 OR t.total_microdollars <> 0)
      AND t.spend_record_count + (
          SELECT coalesce(sum(q.spend_record_count), 0)
          FROM exa_billing.unposted_spend AS q
          LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
          WHERE q.owner_kind = t.owner_kind AND q.owner_id = t.owner_id
            AND q.created_at >= t.hour_start AND q.created_at < t.hour_start + interval '1 hour'
            AND coalesce(d.spend_category, q.dimension[1]) = t.spend_category) <> 0
) OR EXISTS (
    SELECT FROM exa_billing.unposted_spend AS q
    WHERE q.owner_kind = o.owner_kind AND q.owner_id = o.owner_id AND q.created_at < o.from_hour
    GROUP BY date_bin('1 hour', q.created_at, '2000-01-01 00:00:00+00')
    HAVING sum(q.spend_record_count) > 0 OR sum(q.amount_microdollars) > 0
)
