-- Everything check_exa_usage decides on, in one statement on one snapshot. $1 user_id, $2 month,
-- $3 owner_kind, $4 owner_id, $5 and $6 the UTC day's date and start, $7 its end, $8 the place of this queue.
SELECT locked.free_allowance_microdollars, locked.overage_rule, locked.used_microdollars,
       own.found, own.free_allowance_microdollars, own.overage_rule,
       everyone.found, everyone.free_allowance_microdollars, everyone.overage_rule,
       member.role, member.daily_limit_microdollars,
       (member.used_today + unposted.used_today)::bigint,
       (account.left_posted - unposted.used)::bigint, account.next_expiration
FROM (SELECT) AS one
LEFT JOIN exa_billing.exa_monthly_allowance AS locked ON locked.user_id = $1 AND locked.month = $2
LEFT JOIN LATERAL (
    SELECT true AS found, free_allowance_microdollars, overage_rule
    FROM exa_billing.free_allowances
    WHERE user_id = $1 AND effective_month <= $2 AND locked.user_id IS NULL
    ORDER BY effective_month DESC LIMIT 1
) AS own ON true
LEFT JOIN LATERAL (
    SELECT true AS found, free_allowance_microdollars, overage_rule
    FROM exa_billing.free_allowances
    WHERE user_id IS NULL AND effective_month <= $2 AND locked.user_id IS NULL
    ORDER BY effective_month DESC LIMIT 1
) AS everyone ON true
LEFT JOIN LATERAL (
    SELECT m.role, m.daily_limit_microdollars,
           coalesce((SELECT d.microdollars_used FROM exa_billing.organization_member_usage AS d
                     WHERE d.organization_id = $4 AND d.user_id = $1 AND d.usage_date = $5), 0)::numeric
               AS used_today
    FROM exa_billing.organization_members AS m
    WHERE $3 = 'organization' AND m.organization_id = $4 AND m.user_id = $1
) AS member ON true
CROSS JOIN LATERAL (
    SELECT coalesce(max(a.total_microdollars_acquired)::numeric - max(a.microdollars_used), 0) AS left_posted,
           max(a.next_credit_expiration_at) AS next_expiration,
           coalesce(max(a.posted_before) FILTER (WHERE a.posted_where = $8), '0') AS posted_before
    FROM exa_billing.accounts AS a WHERE a.owner_kind = $3 AND a.owner_id = $4
) AS account
CROSS JOIN LATERAL (
    SELECT coalesce(sum(q.amount_microdollars), 0) AS used,
           coalesce(sum(q.amount_microdollars) FILTER (
               WHERE q.actor_user_id = $1 AND q.created_at >= $6 AND q.created_at < $7
                 AND coalesce(d.spend_category, q.dimension[1]) = 'variable'), 0) AS used_today
    FROM exa_billing.unposted_spend AS q
    LEFT JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
    WHERE q.owner_kind = $3 AND q.owner_id = $4 AND q.transaction_id >= account.posted_before
) AS unposted
