-- Moves up to $3 queue rows, at most $4 of each, of the owners ($1, $2) into everything that is shared. Their account
-- rows are locked by this transaction, so nobody else moves the same rows or writes the same
-- figures. One statement, one snapshot: what is deleted is exactly what is added.
-- $5: so many microseconds from now the spend of these owners is evaluated. An owner gets no row of
-- the evaluation queue when one waits that is not due yet: it is not taken away before it is due, by
-- somebody who then sees all that this statement sees (the second between allows for the clock).
-- That is not so of charges of this very transaction, which may last. Nor does an owner get a row
-- when one waits that nobody holds: it is held until this commits, and who evaluates
-- holds his rows before he looks. So nobody waits, nothing is missed, and rows do not pile up.
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
), not_waiting AS (
    SELECT p.owner_kind, p.owner_id FROM posted_accounts AS p
    WHERE NOT EXISTS (
        SELECT FROM exa_billing.evaluation_queue AS e
        WHERE e.owner_kind = p.owner_kind AND e.owner_id = p.owner_id
          AND e.due_at > clock_timestamp() + interval '1 second')
       OR EXISTS (
        SELECT FROM moved AS m
        WHERE m.may_be_own AND m.owner_kind = p.owner_kind AND m.owner_id = p.owner_id)
), held AS MATERIALIZED (
    SELECT n.owner_kind, n.owner_id FROM not_waiting AS n
    CROSS JOIN LATERAL (
        SELECT FROM exa_billing.evaluation_queue AS e
        WHERE e.owner_kind = n.owner_kind AND e.owner_id = n.owner_id
        LIMIT 1 FOR KEY SHARE SKIP LOCKED
    ) AS overdue
), evaluations AS (
    INSERT INTO exa_billing.evaluation_queue (owner_kind, owner_id, entry_id, due_at, failure_count)
    SELECT n.owner_kind, n.owner_id, gen_random_uuid(),
           clock_timestamp() + $5 * interval '1 microsecond', 0
    FROM not_waiting AS n
    WHERE NOT EXISTS (
        SELECT FROM held AS h WHERE h.owner_kind = n.owner_kind AND h.owner_id = n.owner_id)
), posted_months AS (
    INSERT INTO exa_billing.exa_monthly_usage AS c
        (counter_id, user_id, organization_id, month, total_cost_microdollars,
         total_charged_microdollars, request_count, free_allowance_microdollars)
    SELECT gen_random_uuid(), e.actor_user_id, e.organization_id, e.month, e.cost, e.charged,
           e.requests, locked.free_allowance_microdollars
    FROM (
        SELECT actor_user_id, CASE owner_kind WHEN 'organization' THEN owner_id END AS organization_id,
               month, sum(cost_microdollars)::bigint AS cost,
               sum(amount_microdollars)::bigint AS charged, count(*) AS requests
        FROM entries WHERE cost_microdollars IS NOT NULL
        GROUP BY 1, 2, 3
    ) AS e
    LEFT JOIN exa_billing.exa_monthly_allowance AS locked
        ON locked.user_id = e.actor_user_id AND locked.month = e.month
    ON CONFLICT ON CONSTRAINT exa_monthly_usage_context_key DO UPDATE
    SET total_cost_microdollars = c.total_cost_microdollars + excluded.total_cost_microdollars,
        total_charged_microdollars = c.total_charged_microdollars + excluded.total_charged_microdollars,
        request_count = c.request_count + excluded.request_count
), posted_member_days AS (
    INSERT INTO exa_billing.organization_member_usage AS c
        (organization_id, user_id, usage_date, microdollars_used)
    SELECT owner_id, actor_user_id, usage_date, sum(amount_microdollars)::bigint
    FROM spend
    WHERE owner_kind = 'organization' AND actor_user_id <> '' AND spend_category = 'variable'
    GROUP BY owner_id, actor_user_id, usage_date
    ON CONFLICT (organization_id, user_id, usage_date) DO UPDATE
    SET microdollars_used = c.microdollars_used + excluded.microdollars_used
), posted_totals AS (
    INSERT INTO exa_billing.spend_hourly_totals AS c
        (owner_kind, owner_id, hour_start, spend_category, total_microdollars, spend_record_count)
    SELECT owner_kind, owner_id, hour_start, spend_category,
           sum(amount_microdollars)::bigint, sum(spend_record_count)::bigint
    FROM spend GROUP BY owner_kind, owner_id, hour_start, spend_category
    ON CONFLICT (owner_kind, owner_id, hour_start, spend_category) DO UPDATE
    SET total_microdollars = c.total_microdollars + excluded.total_microdollars,
        spend_record_count = c.spend_record_count + excluded.spend_record_count
), posted_drivers AS (
    INSERT INTO exa_billing.spend_hourly_drivers AS c
        (owner_kind, owner_id, hour_start, dimension_id, actor_user_id, total_microdollars,
         spend_record_count)
    SELECT owner_kind, owner_id, hour_start, dimension_id, actor_user_id,
           sum(amount_microdollars)::bigint, sum(spend_record_count)::bigint
    FROM spend GROUP BY owner_kind, owner_id, hour_start, dimension_id, actor_user_id
    ON CONFLICT (owner_kind, owner_id, hour_start, dimension_id, actor_user_id) DO UPDATE
    SET total_microdollars = c.total_microdollars + excluded.total_microdollars,
        spend_record_count = c.spend_record_count + excluded.spend_record_count
)
SELECT count(*) AS entries, (SELECT count(*) FROM moved) AS moved,
       (SELECT coalesce(max(rows), 0) FROM (
           SELECT count(*) AS rows FROM moved GROUP BY owner_kind, owner_id) AS of_one_owner) AS most_of_one_owner,
       (SELECT coalesce(bool_or(has_minimum), false) FROM posted_accounts) AS has_minimum
FROM entries
