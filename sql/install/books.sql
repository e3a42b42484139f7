CREATE FUNCTION exa_billing.setup() RETURNS int
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'setup_wrapper';
COMMENT ON FUNCTION exa_billing.setup() IS
'Makes the books, or brings them up to the installed library; returns their storage version. Safe at any time, as often as you like; the first charge or grant calls it by itself. After a new version: ALTER EXTENSION exa_billing UPDATE first. Where tables change charges wait for it; all totals are compared before and after. Errors: 55000 when the books are newer than the library, the functions of another version, or a total has moved, 40001 when another session made them meanwhile or tables could not be locked within a minute, 42501 when somebody else''s trigger, default or rule is on them. Volatile. Example: SELECT exa_billing.setup();';

CREATE FUNCTION exa_billing.maintain_partitions(months_ahead int DEFAULT 12)
RETURNS SETOF exa_billing.partition_report
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'maintain_partitions_wrapper';
COMMENT ON FUNCTION exa_billing.maintain_partitions(int) IS
'Makes the monthly partitions that are missing, from the month exa_billing.late_usage_limit reaches back to, up to months_ahead (0 to 120) after this one, and reports on each; one that fails is reported in error and stops no other. Errors: 22023 for months_ahead out of range. Volatile. Example: SELECT * FROM exa_billing.maintain_partitions() WHERE created OR error IS NOT NULL;';

CREATE FUNCTION exa_billing.verify_books(owner_kind text DEFAULT NULL, owner_id text DEFAULT NULL)
RETURNS SETOF exa_billing.books_violation
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'verify_books_wrapper';
COMMENT ON FUNCTION exa_billing.verify_books(text, text) IS
'Checks every promise of the books, for one owner or for all, in one snapshot, month by month of the journals; returns one row per violation and none when all is well. Amounts in microdollars. Errors: 22023 for a bad owner, 55000 without books. Stable. Example: SELECT * FROM exa_billing.verify_books();';

CREATE FUNCTION exa_billing.refuse_change() RETURNS trigger
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'refuse_change_wrapper';
COMMENT ON FUNCTION exa_billing.refuse_change() IS
'Trigger function of the append-only guards: refuses the statement with 55000 and says how a correction is made. Example: it is attached by setup(), never by hand.';

CREATE FUNCTION exa_billing.refuse_direct_change() RETURNS trigger
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'refuse_direct_change_wrapper';
COMMENT ON FUNCTION exa_billing.refuse_direct_change() IS
'Trigger function of the baselines and the descriptions in credit_transactions: refuses with 55000 every change that does not come from the functions that keep the ones, or from erase_user(), which takes out the others. Example: it is attached by setup(), never by hand.';
