-- Adds one non-expiring transaction with its original baseline: the usage strictly before its
-- instant. $1 id, $2 owner_kind, $3 owner_id, $4 amount, $5 category, $6 description, $7 is_free,
-- $8 created_at, $9 recorded_at. The owner's account row is locked.
INSERT INTO exa_billing.credit_transactions
    (id, owner_kind, owner_id, amount_microdollars, expiry_date, original_baseline_microdollars_used,
     expiration_baseline_microdollars_used, credit_category, description, is_free,
     original_transaction_id, created_at, recorded_at)
SELECT $1, $2, $3, $4, NULL,
       (posted.used - later_hours.used + hour_of_exa.used + hour_of_spend.used + earlier_unposted.used)::bigint,
       NULL, $5, $6, $7, NULL, $8, $9
FROM (
    SELECT coalesce(max(microdollars_used), 0)::numeric AS used FROM exa_billing.accounts
    WHERE owner_kind = $2 AND owner_id = $3
) AS posted, (
    SELECT coalesce(sum(total_microdollars), 0) AS used FROM exa_billing.spend_hourly_totals
    WHERE owner_kind = $2 AND owner_id = $3 AND hour_start >= date_trunc('hour', $8, 'UTC')
) AS later_hours, (
    SELECT coalesce(sum(charged_microdollars), 0) AS used FROM exa_billing.exa_usage_log
    WHERE created_at >= date_trunc('hour', $8, 'UTC') AND created_at < $8
      AND CASE $2 WHEN 'user' THEN organization_id IS NULL AND user_id = $3
                  ELSE organization_id = $3 END
) AS hour_of_exa, (
    SELECT coalesce(sum(amount_microdollars), 0) AS used FROM exa_billing.spend_log
    WHERE created_at >= date_trunc('hour', $8, 'UTC') AND created_at < $8
      AND owner_kind = $2 AND owner_id = $3
) AS hour_of_spend, (
    SELECT coalesce(sum(amount_microdollars), 0) AS used FROM exa_billing.unposted_spend
    WHERE owner_kind = $2 AND owner_id = $3 AND created_at < date_trunc('hour', $8, 'UTC')
) AS earlier_unposted
