-- The figure of rolling.sql out of the journals alone.
SELECT sum(amount) FROM (
    SELECT charged_microdollars AS amount FROM exa_billing.exa_usage_log
    WHERE user_id = 'heavy-1' AND organization_id IS NULL
      AND created_at >= now() - interval '30 days' AND created_at < now()
    UNION ALL
    SELECT amount_microdollars FROM exa_billing.spend_log
    WHERE owner_kind = 'user' AND owner_id = 'heavy-1'
      AND created_at >= now() - interval '30 days' AND created_at < now()
) AS charges;
