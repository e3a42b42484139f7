-- Fills the log with charges that have happened, and everything with what posting would have made of them.
-- Nobody may charge or post meanwhile.

-- In time order: in each of `hours` hours, which lie evenly over the `span` that ends with the last full one,
-- each of `users` users has `each` charges.
CREATE FUNCTION bench.charges(prefix text, users bigint, each bigint, hours bigint, span interval)
RETURNS TABLE (user_id text, cost bigint, created_at timestamptz) LANGUAGE sql STABLE AS $$
    SELECT prefix || 1 + n % users, 1000 + n % 9,
           date_trunc('hour', date_trunc('hour', now(), 'UTC') - span + n / (users * each) * span / hours, 'UTC')
               + n / users % each * interval '1 hour' / each
    FROM generate_series(0, users * each * hours - 1) AS n
$$;

CREATE FUNCTION bench.fill(prefix text, users bigint, each bigint, hours bigint, span interval) RETURNS void
LANGUAGE sql AS $$
    INSERT INTO exa_billing.exa_usage_log
    SELECT bench.id_at(created_at), user_id, NULL, '/search', cost, cost, true, NULL, NULL, created_at, created_at
    FROM bench.charges(prefix, users, each, hours, span);

    INSERT INTO exa_billing.spend_hourly_drivers AS t
    SELECT 'user', user_id, date_trunc('hour', created_at, 'UTC'), '00000000-0000-8000-8000-657861000001',
           user_id, sum(cost), count(*)
    FROM bench.charges(prefix, users, each, hours, span) GROUP BY 2, 3
    ON CONFLICT (owner_kind, owner_id, hour_start, dimension_id, actor_user_id) DO UPDATE
    SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + excluded.spend_record_count;

    INSERT INTO exa_billing.spend_hourly_totals AS t
    SELECT 'user', user_id, date_trunc('hour', created_at, 'UTC'), 'variable', sum(cost), count(*)
    FROM bench.charges(prefix, users, each, hours, span) GROUP BY 2, 3
    ON CONFLICT (owner_kind, owner_id, hour_start, spend_category) DO UPDATE
    SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + excluded.spend_record_count;

    INSERT INTO exa_billing.spend_daily_totals AS t
    SELECT 'user', user_id, date_trunc('day', created_at, 'UTC'), 'variable', sum(cost), count(*)
    FROM bench.charges(prefix, users, each, hours, span) GROUP BY 2, 3
    ON CONFLICT (owner_kind, owner_id, day_start, spend_category) DO UPDATE
    SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + excluded.spend_record_count;

    INSERT INTO exa_billing.exa_monthly_allowance
    SELECT DISTINCT user_id, date_trunc('month', created_at AT TIME ZONE 'UTC')::date, 0, 'whole', 0
    FROM bench.charges(prefix, users, each, hours, span)
    ON CONFLICT DO NOTHING;

    INSERT INTO exa_billing.exa_monthly_usage AS t
    SELECT gen_random_uuid(), user_id, NULL, date_trunc('month', created_at AT TIME ZONE 'UTC')::date, sum(cost),
           sum(cost), count(*), 0
    FROM bench.charges(prefix, users, each, hours, span) GROUP BY 2, 4
    ON CONFLICT ON CONSTRAINT exa_monthly_usage_context_key DO UPDATE
    SET total_cost_microdollars = t.total_cost_microdollars + excluded.total_cost_microdollars,
        total_charged_microdollars = t.total_charged_microdollars + excluded.total_charged_microdollars,
        request_count = t.request_count + excluded.request_count;

    INSERT INTO exa_billing.accounts AS t
    SELECT 'user', user_id, 0, sum(cost), NULL, NULL, NULL, min(created_at)
    FROM bench.charges(prefix, users, each, hours, span) GROUP BY 2
    ON CONFLICT (owner_kind, owner_id) DO UPDATE
    SET microdollars_used = t.microdollars_used + excluded.microdollars_used;
$$;
