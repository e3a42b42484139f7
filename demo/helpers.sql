-- What the story needs and the product does not bring: an application's own schema with a
-- formatter, a generator of traffic, the answers it got from Exa, and the checks.
--
-- Every figure the story tells is checked by expect(), so that the story cannot go on when the
-- product says something else.

CREATE SCHEMA demo;

CREATE FUNCTION demo.usd(microdollars numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE RETURN round(microdollars / 1000000, 3);
COMMENT ON FUNCTION demo.usd(numeric) IS
    'Microdollars as USD, rounded to a tenth of a cent for reading.';

CREATE TABLE demo.checks (
    checked_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    claim text NOT NULL,
    value text
);
COMMENT ON TABLE demo.checks IS 'Every figure of the story that was found to be as it is told.';

CREATE FUNCTION demo.expect(claim text, actual text, expected text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF actual IS DISTINCT FROM expected THEN
        RAISE EXCEPTION 'the story does not hold: %', claim
            USING DETAIL = format('Told is %L, found is %L.', expected, actual);
    END IF;
    INSERT INTO demo.checks (claim, value) VALUES (claim, actual);
END
$$;
CREATE FUNCTION demo.expect(claim text, actual numeric, expected numeric) RETURNS void
LANGUAGE sql AS 'SELECT demo.expect(claim, trim_scale(actual)::text, trim_scale(expected)::text)';

CREATE FUNCTION demo.expect(claim text, holds boolean) RETURNS void
LANGUAGE sql AS $$ SELECT demo.expect(claim, holds::text, 'true') $$;

-- Usual traffic of one user, worth exactly total_microdollars, as record_exa_usage_batch() takes
-- it: searches of 0.005 USD and one /contents for the rest. Spread over the last hours_back hours,
-- but never into another month.
CREATE FUNCTION demo.traffic(
    user_id text, total_microdollars bigint, organization_id text DEFAULT NULL,
    path text DEFAULT '/search', hours_back int DEFAULT 72
) RETURNS jsonb
LANGUAGE sql STABLE AS $$
    WITH span AS (
        SELECT greatest(date_trunc('month', now(), 'UTC'), now() - make_interval(hours => hours_back))
                   AS begins,
               total_microdollars / 5000 AS searches,
               total_microdollars % 5000 AS rest
    ), request AS (
        SELECT n, path, 5000 AS cost FROM span, generate_series(1, searches) AS n
        UNION ALL
        SELECT searches + 1, '/contents', rest FROM span WHERE rest > 0
    )
    SELECT jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
               'user_id', user_id, 'organization_id', organization_id,
               'path', request.path, 'cost_microdollars', cost,
               'created_at', to_jsonb(begins + (now() - begins) * n / (searches + 1))
           )) ORDER BY n)
    FROM request, span
$$;

-- The Exa answers of the story: kept as json, not jsonb, so that they can be shown as they came.
CREATE TABLE demo.answers (
    name text PRIMARY KEY,
    path text NOT NULL,
    body json NOT NULL
);
\ir answers.sql
