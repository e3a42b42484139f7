-- Everybody's allowance is nothing, so every request is paid, and all rows the runs need are there.
CREATE EXTENSION exa_billing;
SELECT exa_billing.start_worker();
SELECT exa_billing.set_free_allowance(0, date_trunc('month', now() AT TIME ZONE 'UTC')::date);
SELECT count(*) FROM generate_series(0, 1) AS half, exa_billing.record_exa_usage_batch((
    SELECT jsonb_agg(jsonb_build_object('user_id', 'user-' || 10000 * half + n, 'path', '/search',
                                        'cost_microdollars', 5000))
    FROM generate_series(1, 10000) AS n));
-- The floor: a log with the same columns, checks and indexes, in one partition, and nothing else.
CREATE SCHEMA bench;
CREATE TABLE bench.floor_log (LIKE exa_billing.exa_usage_log INCLUDING ALL) PARTITION BY RANGE (created_at);
CREATE TABLE bench.floor_log_all PARTITION OF bench.floor_log
    FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2100-01-01 00:00:00+00');
