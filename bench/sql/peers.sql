-- The peers: an identically indexed log, and what the replaced system keeps, with its keys and indexes and the
-- room on a page (fillfactor) that serves it best.

-- Ordered by time, as those of the books are: random ones would make the indexes of a peer slower.
CREATE FUNCTION bench.id_at(at timestamptz) RETURNS uuid LANGUAGE sql VOLATILE AS $$
    SELECT ('0' || to_hex((date_part('epoch', at) * 1000)::bigint) || '-7' ||
            substr(gen_random_uuid()::text, 16))::uuid
$$;

CREATE TABLE bench.log (LIKE exa_billing.exa_usage_log INCLUDING INDEXES) PARTITION BY RANGE (created_at);
CREATE TABLE bench.checked_log
    (LIKE exa_billing.exa_usage_log INCLUDING INDEXES INCLUDING CONSTRAINTS) PARTITION BY RANGE (created_at);
CREATE TABLE bench.round_trip_log
    (LIKE exa_billing.exa_usage_log INCLUDING INDEXES) PARTITION BY RANGE (created_at);
-- For COPY, whose file cannot have an id of its own for each row.
ALTER TABLE bench.log ALTER usage_id SET DEFAULT bench.id_at(clock_timestamp()),
    ALTER created_at SET DEFAULT now(), ALTER recorded_at SET DEFAULT now();

-- The same months as the real log.
DO $$
DECLARE
    month record;
    log text;
BEGIN
    FOR month IN
        SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) AS bounds
        FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'exa_billing.exa_usage_log'::regclass
    LOOP
        FOREACH log IN ARRAY ARRAY['log', 'checked_log', 'round_trip_log'] LOOP
            EXECUTE format('CREATE TABLE bench.%I PARTITION OF bench.%I %s',
                           log || right(month.relname, 8), log, month.bounds);
        END LOOP;
    END LOOP;
END
$$;

CREATE TABLE bench.users (
    user_id text COLLATE "C" PRIMARY KEY,
    total_microdollars_acquired bigint NOT NULL,
    microdollars_used bigint NOT NULL
) WITH (fillfactor = 60);
INSERT INTO bench.users SELECT 'user-' || n, 1000000000, 0 FROM generate_series(1, 20000) AS n;

CREATE TABLE bench.organizations (
    organization_id text COLLATE "C" PRIMARY KEY,
    total_microdollars_acquired bigint NOT NULL,
    microdollars_used bigint NOT NULL
) WITH (fillfactor = 60);
INSERT INTO bench.organizations SELECT 'org-' || n, 1000000000, 0 FROM generate_series(1, 1000) AS n;

CREATE TABLE bench.monthly_usage (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text COLLATE "C" NOT NULL,
    organization_id text COLLATE "C",
    month date NOT NULL,
    total_cost_microdollars bigint NOT NULL,
    total_charged_microdollars bigint NOT NULL,
    request_count integer NOT NULL,
    free_allowance_microdollars bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX ON bench.monthly_usage (user_id, month) WHERE organization_id IS NULL;
CREATE UNIQUE INDEX ON bench.monthly_usage (user_id, organization_id, month)
    WHERE organization_id IS NOT NULL;

CREATE TABLE bench.member_days (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    limit_type text NOT NULL,
    usage_date date NOT NULL,
    microdollars_used bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (organization_id, user_id, limit_type, usage_date)
) WITH (fillfactor = 70);

CREATE TABLE bench.hour_totals (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text COLLATE "C" REFERENCES bench.users,
    organization_id text COLLATE "C" REFERENCES bench.organizations,
    hour_start timestamptz NOT NULL,
    spend_category text NOT NULL,
    total_microdollars bigint NOT NULL,
    spend_record_count bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX ON bench.hour_totals (user_id, hour_start, spend_category) WHERE organization_id IS NULL;
CREATE UNIQUE INDEX ON bench.hour_totals (organization_id, hour_start, spend_category) WHERE user_id IS NULL;
CREATE INDEX ON bench.hour_totals (hour_start);

-- The key is a digest, in hexadecimal, which the client has worked out.
CREATE TABLE bench.hour_drivers (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text COLLATE "C" REFERENCES bench.users,
    organization_id text COLLATE "C" REFERENCES bench.organizations,
    hour_start timestamptz NOT NULL,
    spend_category text NOT NULL,
    driver_key text NOT NULL,
    source text NOT NULL,
    product_key text NOT NULL,
    feature_key text NOT NULL,
    model_or_plan_key text NOT NULL,
    provider_key text NOT NULL,
    actor_user_id text COLLATE "C" NOT NULL REFERENCES bench.users,
    total_microdollars bigint NOT NULL,
    spend_record_count bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX ON bench.hour_drivers (user_id, hour_start, spend_category, driver_key)
    WHERE organization_id IS NULL;
CREATE UNIQUE INDEX ON bench.hour_drivers (organization_id, hour_start, spend_category, driver_key)
    WHERE user_id IS NULL;
CREATE INDEX ON bench.hour_drivers (hour_start);

CREATE TABLE bench.dirty_owners (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    user_id text COLLATE "C" REFERENCES bench.users,
    organization_id text COLLATE "C" REFERENCES bench.organizations,
    generation bigint NOT NULL DEFAULT 1,
    dirty_at timestamptz NOT NULL DEFAULT now(),
    next_attempt_at timestamptz NOT NULL,
    claimed_at timestamptz,
    claim_token uuid,
    attempt_count integer NOT NULL DEFAULT 0
) WITH (fillfactor = 70);
CREATE UNIQUE INDEX ON bench.dirty_owners (user_id) WHERE organization_id IS NULL;
CREATE UNIQUE INDEX ON bench.dirty_owners (organization_id) WHERE user_id IS NULL;
CREATE INDEX ON bench.dirty_owners (next_attempt_at, claimed_at, dirty_at, id);

-- The whole sequence of round_trips.sql and round_trips_organization.sql in one call.
CREATE FUNCTION bench.charge(of_user text, cost bigint, of_organization text) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    hour timestamptz := date_trunc('hour', now(), 'UTC');
BEGIN
    INSERT INTO bench.round_trip_log
    VALUES (bench.id_at(now()), of_user, of_organization, '/search', cost, cost, true, NULL, NULL, now(), now());
    IF of_organization IS NULL THEN
        INSERT INTO bench.monthly_usage AS m
            (user_id, organization_id, month, total_cost_microdollars, total_charged_microdollars, request_count,
             free_allowance_microdollars)
        VALUES (of_user, NULL, date_trunc('month', now() AT TIME ZONE 'UTC')::date, cost, cost, 1, 0)
        ON CONFLICT (user_id, month) WHERE organization_id IS NULL DO UPDATE
        SET total_cost_microdollars = m.total_cost_microdollars + excluded.total_cost_microdollars,
            total_charged_microdollars = m.total_charged_microdollars + excluded.total_charged_microdollars,
            request_count = m.request_count + 1, updated_at = now();
        UPDATE bench.users SET microdollars_used = microdollars_used + cost WHERE user_id = of_user;
        WITH locked AS MATERIALIZED (
            SELECT of_user AS user_id, date_trunc('hour', now(), 'UTC') AS hour_start,
                   pg_advisory_xact_lock_shared(
                       hashtextextended('user|' || of_user || '|' || date_trunc('hour', now(), 'UTC'), 0))
        ), total AS (
            INSERT INTO bench.hour_totals AS t
                (user_id, hour_start, spend_category, total_microdollars, spend_record_count)
            SELECT user_id, hour_start, 'variable', cost, 1 FROM locked
            ON CONFLICT (user_id, hour_start, spend_category) WHERE organization_id IS NULL DO UPDATE
            SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
                spend_record_count = t.spend_record_count + 1, updated_at = now()
        ), driver AS (
            INSERT INTO bench.hour_drivers AS t
                (user_id, hour_start, spend_category, driver_key, source, product_key, feature_key,
                 model_or_plan_key, provider_key, actor_user_id, total_microdollars, spend_record_count)
            SELECT user_id, hour_start, 'variable', rpad(of_user, 64, '0'), 'other', 'exa', 'search', 'other', 'exa',
                   of_user, cost, 1
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
    ELSE
        INSERT INTO bench.monthly_usage AS m
            (user_id, organization_id, month, total_cost_microdollars, total_charged_microdollars, request_count,
             free_allowance_microdollars)
        VALUES (of_user, of_organization, date_trunc('month', now() AT TIME ZONE 'UTC')::date, cost, cost, 1, 0)
        ON CONFLICT (user_id, organization_id, month) WHERE organization_id IS NOT NULL DO UPDATE
        SET total_cost_microdollars = m.total_cost_microdollars + excluded.total_cost_microdollars,
            total_charged_microdollars = m.total_charged_microdollars + excluded.total_charged_microdollars,
            request_count = m.request_count + 1, updated_at = now();
        INSERT INTO bench.member_days AS d (organization_id, user_id, limit_type, usage_date, microdollars_used)
        VALUES (of_organization, of_user, 'daily', (now() AT TIME ZONE 'UTC')::date, cost)
        ON CONFLICT (organization_id, user_id, limit_type, usage_date) DO UPDATE
        SET microdollars_used = d.microdollars_used + excluded.microdollars_used, updated_at = now();
        UPDATE bench.organizations SET microdollars_used = microdollars_used + cost WHERE organization_id = of_organization;
        WITH locked AS MATERIALIZED (
            SELECT of_organization AS organization_id, date_trunc('hour', now(), 'UTC') AS hour_start,
                   pg_advisory_xact_lock_shared(
                       hashtextextended('organization|' || of_organization || '|' || date_trunc('hour', now(), 'UTC'), 0))
        ), total AS (
            INSERT INTO bench.hour_totals AS t
                (organization_id, hour_start, spend_category, total_microdollars, spend_record_count)
            SELECT organization_id, hour_start, 'variable', cost, 1 FROM locked
            ON CONFLICT (organization_id, hour_start, spend_category) WHERE user_id IS NULL DO UPDATE
            SET total_microdollars = t.total_microdollars + excluded.total_microdollars,
                spend_record_count = t.spend_record_count + 1, updated_at = now()
        ), driver AS (
            INSERT INTO bench.hour_drivers AS t
                (organization_id, hour_start, spend_category, driver_key, source, product_key, feature_key,
                 model_or_plan_key, provider_key, actor_user_id, total_microdollars, spend_record_count)
            SELECT organization_id, hour_start, 'variable', rpad(of_user, 64, '0'), 'other', 'exa', 'search', 'other', 'exa',
                   of_user, cost, 1
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
    END IF;
END
$$;

-- A bare look-up by primary key, in the language that keeps its plan.
CREATE FUNCTION bench.balance(of_user text) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT total_microdollars_acquired - microdollars_used FROM exa_billing.accounts
            WHERE owner_kind = 'user' AND owner_id = of_user);
END
$$;
