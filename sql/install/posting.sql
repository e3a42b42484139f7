CREATE FUNCTION exa_billing.post_spend(max_rows int DEFAULT 10000) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'post_spend_wrapper';
COMMENT ON FUNCTION exa_billing.post_spend(int) IS
'Moves up to max_rows (1 to 1000000) queue rows into balances, monthly counters, member days and hourly rollups; returns the rows posted. No figure changes by it. Owners whose account another transaction has locked are skipped until the next call; rows that cannot be posted get a blocked_reason and stay counted. Errors: 22023 for max_rows out of range. Volatile. Example: SELECT exa_billing.post_spend();';

CREATE FUNCTION exa_billing.retry_blocked_spend() RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'retry_blocked_spend_wrapper';
COMMENT ON FUNCTION exa_billing.retry_blocked_spend() IS
'Clears blocked_reason in the queue, so that the next post_spend() tries these rows again; returns how many. Errors: none of its own. Volatile. Example: SELECT exa_billing.retry_blocked_spend();';
