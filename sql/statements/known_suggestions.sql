-- The suggestions of the owners $1, $2 that a new look has to know of: those that are open, and of each
-- kind and target the one that was dismissed last.
SELECT o.owner_kind, o.owner_id, s.suggestion_id, s.suggestion_kind, s.target, s.status = 'open',
       s.observed_microdollars, s.price_microdollars, s.driver::text, s.content::text, s.grounded_at
FROM unnest($1, $2) AS o(owner_kind, owner_id)
CROSS JOIN LATERAL (
    SELECT DISTINCT ON (c.suggestion_kind, c.target, c.status) c.*
    FROM exa_billing.cost_suggestions AS c
    WHERE c.owner_kind = o.owner_kind AND c.owner_id = o.owner_id AND c.status IN ('open', 'dismissed')
    ORDER BY c.suggestion_kind, c.target, c.status, c.ended_at DESC, c.suggestion_id DESC
) AS s
