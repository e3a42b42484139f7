CREATE FUNCTION exa_billing.delete_old_events(
    as_of timestamptz DEFAULT clock_timestamp(),
    max_rows int DEFAULT 1000
) RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'delete_old_events_wrapper';
COMMENT ON FUNCTION exa_billing.delete_old_events(timestamptz, int) IS
'Deletes up to max_rows (1 to 100000) rows that are more than 90 x 24 hours older than as_of (not later than the clock), oldest first: events, then deliveries that were sent, skipped or given up so long ago. Active episodes, suggestions and deliveries that wait stay; rows somebody has locked are left to the next call. Returns how many were deleted; call again until 0. The worker does so every day. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.delete_old_events();';
