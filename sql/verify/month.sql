-- One month of the journals against every figure made from it. $1 and $2 the owners to look at, of one
-- kind (null: all), $3 and $4 the month's start and end, $5 its first day, $6 … $17 what attached tables
-- say (the columns of sources::columns). Posted + unposted in one statement; the parents are read
-- with bounds, so that one partition each is touched.
WITH exa AS MATERIALIZED (
    SELECT usage_id, user_id, organization_id, cost_microdollars AS cost,
           charged_microdollars AS charged, charged_to_balance, created_at,
           CASE WHEN organization_id IS NULL THEN 'user' ELSE 'organization' END AS owner_kind,
           coalesce(organization_id, user_id) AS owner_id
    FROM exa_billing.exa_usage_log
    WHERE created_at >= $3 AND created_at < $4
      AND ($1 IS NULL OR CASE $1 WHEN 'user' THEN user_id = ANY ($2) ELSE organization_id = ANY ($2) END)
), other AS MATERIALIZED (
    SELECT spend_id FROM exa_billing.spend_log
    WHERE created_at >= $3 AND created_at < $4
      AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2)))
), waiting AS MATERIALIZED (
    SELECT * FROM exa_billing.unposted_entries
    WHERE month = $5 AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2)))
), spent AS (
    SELECT owner_kind, owner_id, date_trunc('hour', created_at, 'UTC') AS hour_start,
           (created_at AT TIME ZONE 'UTC')::date AS usage_date, spend_category, source, product_key,
           feature_key, model_or_plan_key, provider_key, actor_user_id,
           amount_microdollars AS amount, spend_record_count AS records
    FROM exa_billing.spend_entries
    WHERE created_at >= $3 AND created_at < $4
      AND ($1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2)))
    UNION ALL
    SELECT owner_kind, owner_id, hour_start, (hour_start AT TIME ZONE 'UTC')::date, spend_category,
           source, product_key, feature_key, model_or_plan_key, provider_key, actor_user_id, amount, records
    FROM unnest($6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
        AS attached(owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
                    model_or_plan_key, provider_key, actor_user_id, amount, records)
), violations AS (
    SELECT 'I1' AS invariant, owner_kind, owner_id, cost::numeric AS expected, charged::numeric AS actual,
           format('request %s is charged more than its cost, or less than nothing', usage_id) AS detail
    FROM exa
    WHERE NOT (0 <= charged AND charged <= cost AND charged_to_balance = (charged > 0))

    UNION ALL -- each counter against the journal: cost, charges, requests. No id is empty, so an
              -- empty organization stands for the personal context
    SELECT 'I2', CASE organization_id WHEN '' THEN 'user' ELSE 'organization' END,
           coalesce(nullif(organization_id, ''), user_id), journal.amount, counted.amount,
           format('%s of user %s in the month''s counter', measure, user_id)
    FROM (
        SELECT user_id, coalesce(organization_id, '') AS organization_id, measure, sum(amount) AS amount
        FROM exa, LATERAL (VALUES ('cost', cost::numeric), ('charged', charged), ('requests', 1)) AS m(measure, amount)
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
        GROUP BY 1, 2, 3
    ) AS journal
    FULL JOIN (
        SELECT user_id, organization_id, measure, sum(amount) AS amount
        FROM (
            SELECT user_id, coalesce(organization_id, '') AS organization_id,
                   total_cost_microdollars AS cost, total_charged_microdollars AS charged,
                   request_count AS requests
            FROM exa_billing.exa_monthly_usage WHERE month = $5
            UNION ALL
            SELECT actor_user_id, CASE owner_kind WHEN 'organization' THEN owner_id ELSE '' END,
                   cost_microdollars, amount_microdollars, 1
            FROM waiting WHERE cost_microdollars IS NOT NULL
        ) AS c, LATERAL (VALUES ('cost', cost::numeric), ('charged', charged), ('requests', requests)) AS m(measure, amount)
        WHERE $1 IS NULL OR CASE $1 WHEN 'user' THEN organization_id = '' AND user_id = ANY ($2)
                                    ELSE organization_id = ANY ($2) END
        GROUP BY 1, 2, 3
    ) AS counted USING (user_id, organization_id, measure)
    WHERE journal.amount IS DISTINCT FROM counted.amount

    UNION ALL -- each hour's total against the journals
    SELECT 'I5', owner_kind, owner_id, journal.amount, rolled.amount,
           format('total of %s, %s, %s records in the journals, %s counted', hour_start AT TIME ZONE 'UTC',
                  spend_category, coalesce(journal.records, 0), coalesce(rolled.records, 0))
    FROM (
        SELECT owner_kind, owner_id, hour_start, spend_category, sum(amount) AS amount, sum(records) AS records
        FROM spent GROUP BY 1, 2, 3, 4
    ) AS journal
    FULL JOIN (
        SELECT owner_kind, owner_id, hour_start, spend_category, sum(amount) AS amount, sum(records) AS records
        FROM (
            SELECT owner_kind, owner_id, hour_start, spend_category, total_microdollars::numeric AS amount,
                   spend_record_count::numeric AS records
            FROM exa_billing.spend_hourly_totals WHERE hour_start >= $3 AND hour_start < $4
            UNION ALL
            SELECT owner_kind, owner_id, hour_start, spend_category, amount_microdollars, spend_record_count
            FROM waiting WHERE amount_microdollars <> 0 OR spend_record_count <> 0
        ) AS r
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
        GROUP BY 1, 2, 3, 4
    ) AS rolled USING (owner_kind, owner_id, hour_start, spend_category)
    WHERE coalesce(journal.amount, 0) <> coalesce(rolled.amount, 0)
       OR coalesce(journal.records, 0) <> coalesce(rolled.records, 0)

    UNION ALL -- each day's total against the journals
    SELECT 'I5', owner_kind, owner_id, journal.amount, rolled.amount,
           format('daily total of %s, %s, %s records in the journals, %s counted',
                  (day_start AT TIME ZONE 'UTC')::date, spend_category, coalesce(journal.records, 0),
                  coalesce(rolled.records, 0))
    FROM (
        SELECT owner_kind, owner_id, date_trunc('day', hour_start, 'UTC') AS day_start, spend_category,
               sum(amount) AS amount, sum(records) AS records
        FROM spent GROUP BY 1, 2, 3, 4
    ) AS journal
    FULL JOIN (
        SELECT owner_kind, owner_id, day_start, spend_category, sum(amount) AS amount, sum(records) AS records
        FROM (
            SELECT owner_kind, owner_id, day_start, spend_category, total_microdollars::numeric AS amount,
                   spend_record_count::numeric AS records
            FROM exa_billing.spend_daily_totals WHERE day_start >= $3 AND day_start < $4
            UNION ALL
            SELECT owner_kind, owner_id, date_trunc('day', hour_start, 'UTC'), spend_category,
                   amount_microdollars, spend_record_count
            FROM waiting WHERE amount_microdollars <> 0 OR spend_record_count <> 0
        ) AS r
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
        GROUP BY 1, 2, 3, 4
    ) AS rolled USING (owner_kind, owner_id, day_start, spend_category)
    WHERE coalesce(journal.amount, 0) <> coalesce(rolled.amount, 0)
       OR coalesce(journal.records, 0) <> coalesce(rolled.records, 0)

    UNION ALL -- each driver against the journals
    SELECT 'I5', owner_kind, owner_id, journal.amount, rolled.amount,
           format('driver of %s: %s', hour_start AT TIME ZONE 'UTC', driver)
    FROM (
        SELECT owner_kind, owner_id, hour_start,
               concat_ws(', ', spend_category, source, product_key, feature_key, model_or_plan_key,
                         provider_key, actor_user_id) AS driver, sum(amount) AS amount, sum(records) AS records
        FROM spent GROUP BY 1, 2, 3, 4
    ) AS journal
    FULL JOIN (
        SELECT owner_kind, owner_id, hour_start,
               concat_ws(', ', spend_category, source, product_key, feature_key, model_or_plan_key,
                         provider_key, actor_user_id) AS driver, sum(amount) AS amount, sum(records) AS records
        FROM (
            SELECT p.owner_kind, p.owner_id, p.hour_start, d.spend_category, d.source, d.product_key,
                   d.feature_key, d.model_or_plan_key, d.provider_key, nullif(p.actor_user_id, '') AS actor_user_id,
                   p.total_microdollars::numeric AS amount, p.spend_record_count::numeric AS records
            FROM exa_billing.spend_hourly_drivers AS p
            JOIN exa_billing.spend_dimensions AS d USING (dimension_id)
            WHERE p.hour_start >= $3 AND p.hour_start < $4
            UNION ALL
            SELECT owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
                   model_or_plan_key, provider_key, actor_user_id, amount_microdollars, spend_record_count
            FROM waiting WHERE amount_microdollars <> 0 OR spend_record_count <> 0
        ) AS r
        WHERE $1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2))
        GROUP BY 1, 2, 3, 4
    ) AS rolled USING (owner_kind, owner_id, hour_start, driver)
    WHERE coalesce(journal.amount, 0) <> coalesce(rolled.amount, 0)
       OR coalesce(journal.records, 0) <> coalesce(rolled.records, 0)

    UNION ALL -- each member's day against the journals
    SELECT 'I5', 'organization', organization_id, journal.amount, counted.amount,
           format('day %s of member %s', usage_date, user_id)
    FROM (
        SELECT owner_id AS organization_id, actor_user_id AS user_id, usage_date, sum(amount) AS amount
        FROM spent
        WHERE owner_kind = 'organization' AND spend_category = 'variable' AND actor_user_id IS NOT NULL
        GROUP BY 1, 2, 3
    ) AS journal
    FULL JOIN (
        SELECT organization_id, user_id, usage_date, sum(amount) AS amount
        FROM (
            SELECT organization_id, user_id, usage_date, microdollars_used::numeric AS amount
            FROM exa_billing.organization_member_usage
            WHERE usage_date >= $5 AND usage_date < ($5 + interval '1 month')::date
            UNION ALL
            SELECT owner_id, actor_user_id, usage_date, amount_microdollars
            FROM waiting
            WHERE owner_kind = 'organization' AND spend_category = 'variable' AND actor_user_id IS NOT NULL
        ) AS c
        WHERE $1 IS NULL OR ($1 = 'organization' AND organization_id = ANY ($2))
        GROUP BY 1, 2, 3
    ) AS counted USING (organization_id, user_id, usage_date)
    WHERE coalesce(journal.amount, 0) <> coalesce(counted.amount, 0)

    UNION ALL -- what was counted against each allowance is what was free
    SELECT 'I6', 'user', user_id, free.amount, locked.used_microdollars,
           'what was counted against the locked-in allowance'
    FROM (
        SELECT user_id, sum(cost - charged) AS amount
        FROM exa_billing.exa_usage_log AS l,
             LATERAL (VALUES (l.cost_microdollars, l.charged_microdollars)) AS a(cost, charged)
        WHERE created_at >= $3 AND created_at < $4 AND ($1 IS NULL OR ($1 = 'user' AND user_id = ANY ($2)))
        GROUP BY user_id
    ) AS free
    FULL JOIN (
        SELECT user_id, used_microdollars FROM exa_billing.exa_monthly_allowance
        WHERE month = $5 AND ($1 IS NULL OR ($1 = 'user' AND user_id = ANY ($2)))
    ) AS locked USING (user_id)
    WHERE coalesce(free.amount, 0) <> coalesce(locked.used_microdollars, 0)

    UNION ALL -- every key names the row it recorded
    SELECT 'I6', NULL, NULL, 1, 0, format('key "%s" of "%s" names a row that is not there', idempotency_key, key_space)
    FROM exa_billing.idempotency_keys AS k
    WHERE $1 IS NULL AND k.entry_created_at >= $3 AND k.entry_created_at < $4
      AND CASE split_part(k.key_space, '/', 1)
          WHEN 'exa' THEN NOT EXISTS (SELECT FROM exa WHERE exa.usage_id = k.entry_id)
          WHEN 'spend' THEN NOT EXISTS (SELECT FROM other WHERE other.spend_id = k.entry_id)
          WHEN 'credit' THEN NOT EXISTS (SELECT FROM exa_billing.credit_transactions AS c WHERE c.id = k.entry_id)
          END

    UNION ALL -- every entry that waits in the queue has its journal row
    SELECT 'I9', owner_kind, owner_id, 0, amount_microdollars,
           format('entry %s waits in the queue and is in no journal', entry_id)
    FROM waiting AS w
    WHERE ($1 IS NULL OR (owner_kind = $1 AND owner_id = ANY ($2)))
      AND CASE journal WHEN 'exa' THEN NOT EXISTS (SELECT FROM exa WHERE exa.usage_id = w.entry_id)
                       WHEN 'spend' THEN NOT EXISTS (SELECT FROM other WHERE other.spend_id = w.entry_id)
          END
)
SELECT invariant, owner_kind::text, owner_id::text, to_char($5, 'YYYY-MM'), expected::text, actual::text, detail
FROM violations
