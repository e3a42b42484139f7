-- One user's month over all contexts, posted + unposted. $1 user_id, $2 month, $3 and $4 its start
-- and end. Unposted rows are found by the two ways the queue is indexed: personal ones under their
-- owner, those made for an organization under their actor.
SELECT sum(cost)::bigint, sum(charged)::bigint, sum(requests)::bigint,
       (SELECT free_allowance_microdollars FROM exa_billing.exa_monthly_allowance
        WHERE user_id = $1 AND month = $2)
FROM (
    SELECT coalesce(sum(total_cost_microdollars), 0) AS cost,
           coalesce(sum(total_charged_microdollars), 0) AS charged,
           coalesce(sum(request_count), 0) AS requests
    FROM exa_billing.exa_monthly_usage
    WHERE user_id = $1 AND month = $2
    UNION ALL
    SELECT coalesce(sum(cost_microdollars), 0), coalesce(sum(amount_microdollars), 0), count(*)
    FROM exa_billing.unposted_spend
    WHERE owner_kind = 'user' AND owner_id = $1 AND cost_microdollars IS NOT NULL
      AND created_at >= $3 AND created_at < $4
    UNION ALL
    SELECT coalesce(sum(cost_microdollars), 0), coalesce(sum(amount_microdollars), 0), count(*)
    FROM exa_billing.unposted_spend
    WHERE owner_kind = 'organization' AND actor_user_id = $1 AND cost_microdollars IS NOT NULL
      AND created_at >= $3 AND created_at < $4
) AS figures
