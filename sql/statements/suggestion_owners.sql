-- Whose spend is looked at for suggestions, of the owners $1, $2: those who want any. $3 and $4 are the
-- UTC days that the window touches. Whole days hold at least what the window does, so an owner who
-- spent less than $5 in them needs no closer look ($6: unless the rollups are not to be trusted with
-- all of them). The last columns: hours of this owner alone are not trusted; a suggestion is open.
SELECT o.owner_kind, o.owner_id,
       $6 OR (
           SELECT coalesce(sum(t.total_microdollars), 0) FROM exa_billing.spend_daily_totals AS t
           WHERE t.owner_kind = o.owner_kind AND t.owner_id = o.owner_id
             AND t.day_start >= $3 AND t.day_start < $4
       ) + (
           SELECT coalesce(sum(q.amount_microdollars), 0) FROM exa_billing.unposted_spend AS q
           WHERE q.owner_kind = o.owner_kind AND q.owner_id = o.owner_id
             AND q.created_at >= $3 AND q.created_at < $4
       ) >= $5,
       EXISTS (
           SELECT FROM exa_billing.spend_degraded_intervals AS d
           WHERE d.resolved_at IS NULL AND d.owner_kind = o.owner_kind AND d.owner_id = o.owner_id
             AND d.from_hour < $4 AND d.to_hour > $3),
       EXISTS (
           SELECT FROM exa_billing.cost_suggestions AS s
           WHERE s.owner_kind = o.owner_kind AND s.owner_id = o.owner_id AND s.status = 'open')
FROM unnest($1, $2) AS o(owner_kind, owner_id)
WHERE NOT EXISTS (
    SELECT FROM exa_billing.spend_alert_settings AS a
    WHERE a.owner_kind = o.owner_kind AND a.owner_id = o.owner_id AND NOT a.cost_suggestions_enabled)
