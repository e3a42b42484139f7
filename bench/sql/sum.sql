-- The sum of the same owner's charges in time order.
SELECT sum(cost) FROM (
    SELECT cost_microdollars AS cost FROM exa_billing.exa_usage_log
    WHERE user_id = 'heavy-1' AND organization_id IS NULL ORDER BY created_at
) AS charges;
