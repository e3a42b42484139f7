-- The replaced system's sequence for a request made for an organization; otherwise as round_trips.sql.
\set user random(1, 20000)
\set organization 1 + :user % :organizations
BEGIN;
INSERT INTO bench.round_trip_log
VALUES (bench.id_at(now()), 'user-' || :user, 'org-' || :organization, '/search', 5000, 5000, true, NULL, NULL,
        now(), now());
INSERT INTO bench.monthly_usage AS m
    (user_id, organization_id, month, total_cost_microdollars, total_charged_microdollars, request_count,
     free_allowance_microdollars)
VALUES ('user-' || :user, 'org-' || :organization, date_trunc('month', now() AT TIME ZONE 'UTC')::date, 5000, 5000, 1, 0)
ON CONFLICT (user_id, organization_id, month) WHERE organization_id IS NOT NULL DO UPDATE
SET total_cost_microdollars = m.total_cost_microdollars + excluded.total_cost_microdollars,
    total_charged_microdollars = m.total_charged_microdollars + excluded.total_charged_microdollars,
    request_count = m.request_count + 1, updated_at = now();
INSERT INTO bench.member_days AS d (organization_id, user_id, limit_type, usage_date, microdollars_used)
VALUES ('org-' || :organization, 'user-' || :user, 'daily', (now() AT TIME ZONE 'UTC')::date, 5000)
ON CONFLICT (organization_id, user_id, limit_type, usage_date) DO UPDATE
SET microdollars_used = d.microdollars_used + excluded.microdollars_used, updated_at = now();
UPDATE bench.organizations SET microdollars_used = microdollars_used + 5000 WHERE organization_id = 'org-' || :organization;
WITH locked AS MATERIALIZED (
    SELECT 'org-' || :organization AS organization_id, date_trunc('hour', now(), 'UTC') AS hour_start,
           pg_advisory_xact_lock_shared(
               hashtextextended('organization|' || 'org-' || :organization || '|' || date_trunc('hour', now(), 'UTC'), 0))
), total AS (
    INSERT INTO bench.hour_totals AS t
        (organization_id, hour_start, spend_category, total_microdollars, spend_record_count)
    SELECT organization_id, hour_start, 'variable', 5000, 1 FROM locked
    ON CONFLICT (organization_id, hour_start, spend_category) WHERE user_id IS NULL DO UPDATE
    SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + 1, updated_at = now()
), driver AS (
    INSERT INTO bench.hour_drivers AS t
        (organization_id, hour_start, spend_category, driver_key, source, product_key, feature_key,
         model_or_plan_key, provider_key, actor_user_id, total_microdollars, spend_record_count)
    SELECT organization_id, hour_start, 'variable', rpad('user-' || :user, 64, '0'), 'other', 'exa', 'search', 'other', 'exa',
           'user-' || :user, 5000, 1
    FROM locked
    ON CONFLICT (organization_id, hour_start, spend_category, driver_key) WHERE user_id IS NULL DO UPDATE
    SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
        spend_record_count = t.spend_record_count + 1, updated_at = now()
    WHERE (t.source, t.product_key, t.feature_key, t.model_or_plan_key, t.provider_key, t.actor_user_id)
        = (excluded.source, excluded.product_key, excluded.feature_key, excluded.model_or_plan_key,
           excluded.provider_key, excluded.actor_user_id)
)
INSERT INTO bench.dirty_owners AS d (organization_id, next_attempt_at)
SELECT organization_id, now() + interval '60 seconds' FROM locked
ON CONFLICT (organization_id) WHERE user_id IS NULL DO UPDATE
SET generation = d.generation + 1, dirty_at = now(), next_attempt_at = excluded.next_attempt_at;
COMMIT;
