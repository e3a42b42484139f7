-- 20,000 users and 1,000 organizations who have credit and have been charged once, and 20,000 users ("free-…")
-- for whom every request of this month is free. So all rows that a run needs are there.
CREATE FUNCTION bench.charge_everybody(prefix text) RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM generate_series(0, 1) AS half, exa_billing.record_exa_usage_batch((
        SELECT jsonb_agg(jsonb_build_object('user_id', prefix || 10000 * half + n, 'path', '/search',
                                            'cost_microdollars', 5000))
        FROM generate_series(1, 10000) AS n))
$$;

-- The first request of a month locks in what is in force then.
SELECT exa_billing.set_free_allowance(1000000000000, date_trunc('month', now() AT TIME ZONE 'UTC')::date);
SELECT bench.charge_everybody('free-');
SELECT exa_billing.set_free_allowance(0, date_trunc('month', now() AT TIME ZONE 'UTC')::date);

SELECT count(exa_billing.grant_credit('user', 'user-' || n, 1000000000)) FROM generate_series(1, 20000) AS n;
SELECT count(exa_billing.grant_credit('organization', 'org-' || n, 1000000000)) FROM generate_series(1, 1000) AS n;
SELECT bench.charge_everybody('user-');
SELECT count(exa_billing.record_exa_usage('user-' || n, '/search', 5000, 'org-' || n))
FROM generate_series(1, 1000) AS n;
SELECT exa_billing.post_spend(1000000);
