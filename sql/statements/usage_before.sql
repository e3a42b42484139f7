-- An owner's usage strictly before an instant, whatever the length of history. $1 owner_kind,
-- $2 owner_id, $3 the instant, $4 the start of its hour. Posted usage less the posted hours from
-- that hour on; then, of that hour, the journals' rows before the instant; and what waits in
-- the queue for earlier hours. One statement: posting beside it changes nothing.
SELECT (posted.used - later_hours.used + of_that_hour.used + earlier_unposted.used)::bigint
FROM (
    SELECT coalesce(max(microdollars_used), 0)::numeric AS used FROM exa_billing.accounts
    WHERE owner_kind = $1 AND owner_id = $2
) AS posted, (
    SELECT coalesce(sum(total_microdollars), 0) AS used FROM exa_billing.spend_hourly_totals
    WHERE owner_kind = $1 AND owner_id = $2 AND hour_start >= $4
) AS later_hours, (
    SELECT coalesce(sum(amount_microdollars), 0) AS used FROM exa_billing.spend_entries
    WHERE created_at >= $4 AND created_at < $3 AND owner_kind = $1 AND owner_id = $2
) AS of_that_hour, (
    SELECT coalesce(sum(amount_microdollars), 0) AS used FROM exa_billing.unposted_spend
    WHERE owner_kind = $1 AND owner_id = $2 AND created_at < $4
) AS earlier_unposted
