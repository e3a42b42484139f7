-- Part of post_batch.sql: months, member days and hours.
, posted_months AS (
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
