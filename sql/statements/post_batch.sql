-- Moves up to $3 queue rows, at most $4 of each, of the owners ($1, $2) into everything that is shared. Their account
-- rows are locked by this transaction, so nobody else moves the same rows or writes the same
-- figures. One statement, one snapshot: what is deleted is exactly what is added.
-- It goes on with post_evaluations.sql, on books that have alerts, and with post_figures.sql.
WITH picked AS (
    SELECT q.ctid AS place
    FROM unnest($1, $2) AS o(owner_kind, owner_id)
    CROSS JOIN LATERAL (
        SELECT u.ctid
        FROM exa_billing.unposted_spend AS u
        WHERE u.owner_kind = o.owner_kind AND u.owner_id = o.owner_id AND u.blocked_reason IS NULL
          AND (u.dimension IS NULL OR EXISTS (
              SELECT FROM exa_billing.spend_dimensions AS d
              WHERE d.spend_category = u.dimension[1] AND d.source = u.dimension[2]
                AND d.product_key = u.dimension[3] AND d.feature_key = u.dimension[4]
                AND d.model_or_plan_key = u.dimension[5] AND d.provider_key = u.dimension[6]))
        ORDER BY u.entry_id
        LIMIT $4
    ) AS q
    LIMIT $3
), moved AS (
    DELETE FROM exa_billing.unposted_spend AS u
    WHERE u.ctid = ANY (ARRAY(SELECT place FROM picked))
    -- Not older than this transaction: perhaps a charge of its own.
    RETURNING u.*, age(u.xmin) <= 0 AS may_be_own
), known AS (
    SELECT m.*, d.dimension_id AS of_dimension, d.spend_category
    FROM moved AS m
    JOIN exa_billing.spend_dimensions AS d ON d.dimension_id = m.dimension_id
    UNION ALL
    SELECT m.*, d.dimension_id, d.spend_category
    FROM moved AS m
    JOIN exa_billing.spend_dimensions AS d
        ON d.spend_category = m.dimension[1] AND d.source = m.dimension[2]
       AND d.product_key = m.dimension[3] AND d.feature_key = m.dimension[4]
       AND d.model_or_plan_key = m.dimension[5] AND d.provider_key = m.dimension[6]
), entries AS MATERIALIZED (
    SELECT owner_kind, owner_id,
           coalesce(actor_user_id, CASE owner_kind WHEN 'user' THEN owner_id ELSE '' END) AS actor_user_id,
           cost_microdollars, amount_microdollars, spend_record_count,
           of_dimension AS dimension_id, spend_category,
           date_trunc('hour', created_at, 'UTC') AS hour_start,
           (created_at AT TIME ZONE 'UTC')::date AS usage_date,
           date_trunc('month', created_at AT TIME ZONE 'UTC')::date AS month
    FROM known
), spend AS (
    SELECT * FROM entries WHERE amount_microdollars <> 0 OR spend_record_count <> 0
), posted_accounts AS (
    UPDATE exa_billing.accounts AS a
    SET microdollars_used = a.microdollars_used + s.amount
    FROM (
        SELECT owner_kind, owner_id, sum(amount_microdollars)::bigint AS amount
        FROM spend GROUP BY owner_kind, owner_id
    ) AS s
    WHERE a.owner_kind = s.owner_kind AND a.owner_id = s.owner_id
    RETURNING a.owner_kind, a.owner_id, a.minimum_balance_microdollars IS NOT NULL AS has_minimum
)
