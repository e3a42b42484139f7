-- The replaced system's sequence for a user's own request, statement by statement; like there, the hour's
-- lock, total, driver and dirty owner are one statement.
\set user random(1, :users)
BEGIN;
INSERT INTO bench.round_trip_log
VALUES (bench.id_at(now()), 'user-' || :user, NULL, '/search', 5000, 5000, true, NULL, NULL,
        now(), now());
INSERT INTO bench.monthly_usage AS m
    (user_id, organization_id, month, total_cost_microdollars, total_charged_microdollars, request_count,
     free_allowance_microdollars)
VALUES ('user-' || :user, NULL, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 5000, 5000, 1, 0)
ON CONFLICT (user_id, month) WHERE organization_id IS NULL DO UPDATE
SET total_cost_microdollars = m.total_cost_microdollars + excluded.total_cost_microdollars,
    total_charged_microdollars = m.total_charged_microdollars + excluded.total_charged_microdollars,
    request_count = m.request_count + 1, updated_at = now();
UPDATE bench.users SET microdollars_used = microdollars_used + 5000 WHERE user_id = 'user-' || :user;
WITH locked AS MATERIALIZED (
    SELECT 'user-' || :user AS user_id, date_trunc('hour', now(), 'UTC') AS hour_start,
           pg_advisory_xact_lock_shared(
               hashtextextended('user|' || 'user-' || :user || '|' || date_trunc('hour', now(), 'UTC'), 0))
), total AS (
    INSERT INTO bench.hour_totals AS t
        (user_id, hour_start, spend_category, total_microdollars, spend_record_count)
    SELECT user_id, hour_start, 'variable', 5000, 1 FROM locked
    ON CONFLICT (user_id, hour_start, spend_category) WHERE organization_id IS NULL DO UPDATE
    SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + 1, updated_at = now()
), driver AS (
    INSERT INTO bench.hour_drivers AS t
        (user_id, hour_start, spend_category, driver_key, source, product_key, feature_key,
         model_or_plan_key, provider_key, actor_user_id, total_microdollars, spend_record_count)
    SELECT user_id, hour_start, 'variable', rpad('user-' || :user, 64, '0'), 'other', 'exa', 'search', 'other', 'exa',
           'user-' || :user, 5000, 1
    FROM locked
    ON CONFLICT (user_id, hour_start, spend_category, driver_key) WHERE organization_id IS NULL DO UPDATE
    SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + 1, updated_at = now()
    WHERE (t.source, t.product_key, t.feature_key, t.model_or_plan_key, t.provider_key, t.actor_user_id)
        = (excluded.source, excluded.product_key, excluded.feature_key, excluded.model_or_plan_key,
           excluded.provider_key, excluded.actor_user_id)
)
INSERT INTO bench.dirty_owners AS d (user_id, next_attempt_at)
SELECT user_id, now() + interval '60 seconds' FROM locked
ON CONFLICT (user_id) WHERE organization_id IS NULL DO UPDATE
SET generation = d.generation + 1, dirty_at = now(), next_attempt_at = excluded.next_attempt_at;
COMMIT;
