-- Who runs these decides who may do what: superusers and members of exa_billing_owner only.
CREATE FUNCTION exa_billing.grant_application(role regrole) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_application_wrapper';
COMMENT ON FUNCTION exa_billing.grant_application(regrole) IS
'Lets a role do what an application does: ask, record, grant credit, read, and say whom a session serves (SET exa_billing.user_id). It may write no table directly. Remembered: setup() gives the role what later versions bring. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.grant_application(current_user::regrole);';

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

CREATE FUNCTION exa_billing.grant_end_user(role regrole) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_end_user_wrapper';
COMMENT ON FUNCTION exa_billing.grant_end_user(regrole) IS
'Lets a role see what belongs to the user whom its session serves (current_user_id()), and act for that user. It sees nothing while its session serves nobody. Remembered: setup() gives the role what later versions bring. Errors: 22023 bad argument, 55000 before enable_row_security(). Volatile. Example: SELECT exa_billing.grant_end_user(current_user::regrole);';

CREATE FUNCTION exa_billing.enable_row_security() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'enable_row_security_wrapper';
COMMENT ON FUNCTION exa_billing.enable_row_security() IS
'Puts row security on every table of the books: applications, operators and auditors go on seeing everything, end users see what is theirs, a role that was only given SELECT by hand sees nothing. Kept by setup() and by the grant functions. Each table is locked exclusively until the transaction ends. Volatile. Example: SELECT exa_billing.enable_row_security();';

CREATE FUNCTION exa_billing.current_user_id() RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'current_user_id_wrapper';
COMMENT ON FUNCTION exa_billing.current_user_id() IS
'The end user whom this session serves: exa_billing.user_id, or, where exa_billing.trust_jwt_claims is on, sub of request.jwt.claims. Null when there is none. Errors: 42501 when one of them is no user''s id, or they name different users. Stable; works on a standby. Example: SELECT exa_billing.current_user_id();';

CREATE FUNCTION exa_billing.managed_organizations() RETURNS SETOF text
LANGUAGE c STABLE PARALLEL RESTRICTED SECURITY DEFINER ROWS 10 SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'managed_organizations_wrapper';
COMMENT ON FUNCTION exa_billing.managed_organizations() IS
'The organizations whose owner or billing manager the end user of this session is, in order; the policies of enable_row_security() ask it. Errors: 42501 as current_user_id(), 55000 without books. Stable; works on a standby. Example: SELECT exa_billing.managed_organizations();';
