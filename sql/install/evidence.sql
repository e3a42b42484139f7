CREATE FUNCTION exa_billing.spend_by_hour(
    owner_kind text, owner_id text, from_hour timestamptz, to_hour timestamptz
) RETURNS SETOF exa_billing.spend_hour
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'spend_by_hour_wrapper';
COMMENT ON FUNCTION exa_billing.spend_by_hour(text, text, timestamptz, timestamptz) IS
'An owner''s spend in each UTC hour from from_hour to to_hour, in order, hours without spend included: at most 2160, both bounds starts of UTC hours. Posted and unposted. is_covered: the hourly rollups hold the hour; what they do not hold is read from the journals. Zero is nothing spent; null is not known, before any journal was kept. Amounts in microdollars. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.spend_by_hour(''user'', ''user-1'', date_trunc(''hour'', now()) - interval ''1 day'', date_trunc(''hour'', now()));';

CREATE FUNCTION exa_billing.spend_series(
    owner_kind text, owner_id text, range text, as_of timestamptz DEFAULT now()
) RETURNS SETOF exa_billing.spend_bucket
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'spend_series_wrapper';
COMMENT ON FUNCTION exa_billing.spend_series(text, text, text, timestamptz) IS
'An owner''s spend as a chart shows it. The range ends with the UTC hour of as_of: 1h is that hour; 24h are hours; 7d and 30d are UTC days over 168 and 720 hours, the first and the last perhaps in part; 90d are groups of seven days from the first on, over 2160 hours. Charges dated at as_of or later do not count. covered_hours of total_hours are in the rollups, the rest is read from the journals. Amounts, in microdollars, are those of the hours that are known, null when none is. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.spend_series(''user'', ''user-1'', ''7d'');';

CREATE FUNCTION exa_billing.rolling_spend(
    owner_kind text, owner_id text, span interval, as_of timestamptz DEFAULT now()
) RETURNS exa_billing.spend_window
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rolling_spend_wrapper';
COMMENT ON FUNCTION exa_billing.rolling_spend(text, text, interval, timestamptz) IS
'An owner''s spend in the span before as_of, to the microsecond: from as_of - span, in the UTC calendar, until before as_of. is_complete: every hour of it is known. Amounts, in microdollars, are those of the hours that are known, null when none is. Errors: 22023 bad argument (a span that is not positive or reaches beyond the calendar), 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.rolling_spend(''user'', ''user-1'', interval ''30 days'');';

CREATE FUNCTION exa_billing.top_spend_drivers(
    owner_kind text, owner_id text, from_time timestamptz, to_time timestamptz,
    spend_category text DEFAULT NULL, max_drivers int DEFAULT 5
) RETURNS SETOF exa_billing.spend_driver
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'top_spend_drivers_wrapper';
COMMENT ON FUNCTION exa_billing.top_spend_drivers(text, text, timestamptz, timestamptz, text, int) IS
'What an owner''s money went on from from_time until before to_time, to the microsecond: the max_drivers (1 to 1000) largest amounts, then in byte order of the dimensions. One category, variable or scheduled, or both when null. actor_user_id is null where nobody is known. Amounts in microdollars. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.top_spend_drivers(''user'', ''user-1'', now() - interval ''1 day'', now());';

CREATE FUNCTION exa_billing.spend_evidence(
    owner_kind text, owner_id text, range text, as_of timestamptz DEFAULT now()
) RETURNS jsonb
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'spend_evidence_wrapper';
COMMENT ON FUNCTION exa_billing.spend_evidence(text, text, text, timestamptz) IS
'All of an owner''s spend in a range of spend_series as one document, for a page or for a language model: owner, range, as_of, window, is_complete, totals, series, the five top_drivers of each category, and degraded_intervals (hours whose rollups are not trusted; read from the journals). The figures are those of the other functions. Amounts are integers in microdollars, null where nothing is known; times are ISO 8601 in UTC. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT exa_billing.spend_evidence(''user'', ''user-1'', ''24h'');';
