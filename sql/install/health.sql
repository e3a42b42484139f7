-- Its columns never change: the view health is an ordinary object of the books and stands on them.
-- In a parallel plan the looks could not have their subtransactions. Who has locked a table must not
-- keep everything else from being seen.
CREATE FUNCTION exa_billing.health_checks()
RETURNS TABLE (check_name text, status text, figure text, what_to_do text)
LANGUAGE c STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET lock_timeout = '1s'
AS 'MODULE_PATHNAME', 'health_checks_wrapper';
COMMENT ON FUNCTION exa_billing.health_checks() IS
'Whether all is well: one row per check with its status (ok, warning, critical), the figure it was decided by, beginning with its number where it has one, and, unless it is ok, the call that helps; each check cheap however much waits. What cannot be looked at, also because somebody has locked it for more than a second, is critical and no error; a database without books has the one row that says so. The view health shows the same. Errors: none of its own. Stable; works on a standby. Example: SELECT * FROM exa_billing.health_checks() WHERE status <> ''ok'';';
