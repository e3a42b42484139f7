-- Takes up to $4 queue rows of the owners ($1, $2) that transactions from $3 on have queued, added up by
-- owner, actor, dimension and hour. Their account rows are locked by this transaction, so nobody else takes
-- the same rows or writes the same figures.
WITH picked AS (
    SELECT q.ctid AS place
    FROM unnest($1, $2, $3) AS o(owner_kind, owner_id, transaction_id)
    CROSS JOIN LATERAL (
        SELECT u.ctid
        FROM exa_billing.unposted_spend AS u
        WHERE u.owner_kind = o.owner_kind AND u.owner_id = o.owner_id AND u.blocked_reason IS NULL
          AND u.transaction_id >= o.transaction_id
          AND (u.dimension IS NULL OR EXISTS (
              SELECT FROM exa_billing.spend_dimensions AS d
              WHERE d.spend_category = u.dimension[1] AND d.source = u.dimension[2]
                AND d.product_key = u.dimension[3] AND d.feature_key = u.dimension[4]
                AND d.model_or_plan_key = u.dimension[5] AND d.provider_key = u.dimension[6]))
        ORDER BY u.transaction_id, u.entry_id
        LIMIT $4
    ) AS q
    LIMIT $4
), taken AS (
    DELETE FROM exa_billing.unposted_spend AS u
    WHERE u.ctid = ANY (ARRAY(SELECT place FROM picked))
    -- Not older than this transaction: perhaps a charge of its own.
    RETURNING u.*, age(u.xmin) <= 0 AS may_be_own
)
SELECT t.owner_kind, t.owner_id,
       coalesce(t.actor_user_id, CASE t.owner_kind WHEN 'user' THEN t.owner_id ELSE '' END),
       coalesce(t.dimension_id, brought.dimension_id),
       date_trunc('hour', t.created_at, 'UTC'),
       count(*),
       count(t.cost_microdollars),
       coalesce(sum(t.cost_microdollars), 0)::bigint,
       coalesce(sum(t.amount_microdollars) FILTER (WHERE t.cost_microdollars IS NOT NULL), 0)::bigint,
       sum(t.amount_microdollars)::bigint,
       sum(t.spend_record_count)::bigint,
       bool_or(t.may_be_own),
       -- Of what earlier transactions than this one have queued for the owner nothing is left: rows were
       -- taken in the order of their transactions, all that had begun earlier have ended, and blocked rows
       -- and those with a new dimension are no earlier.
       least(max(t.transaction_id), pg_snapshot_xmin(pg_current_snapshot()),
             (SELECT left_out.transaction_id FROM exa_billing.unposted_spend AS left_out
              WHERE left_out.owner_kind = t.owner_kind AND left_out.owner_id = t.owner_id
                AND left_out.blocked_reason IS NOT NULL
              ORDER BY left_out.transaction_id LIMIT 1),
             (SELECT left_out.transaction_id FROM exa_billing.unposted_spend AS left_out
              WHERE left_out.owner_kind = t.owner_kind AND left_out.owner_id = t.owner_id
                AND left_out.dimension IS NOT NULL
              ORDER BY left_out.transaction_id LIMIT 1))
FROM taken AS t
LEFT JOIN LATERAL (
    SELECT d.dimension_id FROM exa_billing.spend_dimensions AS d
    WHERE t.dimension IS NOT NULL
      AND d.spend_category = t.dimension[1] AND d.source = t.dimension[2]
      AND d.product_key = t.dimension[3] AND d.feature_key = t.dimension[4]
      AND d.model_or_plan_key = t.dimension[5] AND d.provider_key = t.dimension[6]
) AS brought ON true
GROUP BY 1, 2, 3, 4, 5, t.owner_kind, t.owner_id
