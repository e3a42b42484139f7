-- Who runs these decides who may do what: superusers and members of exa_billing_owner only.
CREATE FUNCTION exa_billing.grant_application(role regrole) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_application_wrapper';
COMMENT ON FUNCTION exa_billing.grant_application(regrole) IS
'Lets a role do what an application does: ask, record, grant credit, read. It may write no table directly. Remembered: setup() gives the role what later versions bring. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.grant_application(current_user::regrole);';

CREATE FUNCTION exa_billing.grant_operator(role regrole) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_operator_wrapper';
COMMENT ON FUNCTION exa_billing.grant_operator(regrole) IS
'Lets a role look after the books: maintenance, posting, expiration, recompute, adjustments, allowances, members, attaching, rollups, and reading. It may write no table directly. Remembered: setup() gives the role what later versions bring. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.grant_operator(current_user::regrole);';

CREATE FUNCTION exa_billing.grant_auditor(role regrole) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_auditor_wrapper';
COMMENT ON FUNCTION exa_billing.grant_auditor(regrole) IS
'Lets a role read everything and change nothing. Remembered: setup() gives the role what later versions bring. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.grant_auditor(current_user::regrole);';
