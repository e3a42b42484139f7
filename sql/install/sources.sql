-- Attaching is the caller's own doing, with the caller's own rights: only who owns a table can make
-- it charge people. What is written to the books meanwhile is written as exa_billing_owner.
CREATE FUNCTION exa_billing.attach_spend_source(
    source_name text, relation regclass, spend_category text, source text, column_map jsonb,
    backfill boolean DEFAULT false, on_delete text DEFAULT 'reverse'
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'attach_spend_source_wrapper';
COMMENT ON FUNCTION exa_billing.attach_spend_source(text, regclass, text, text, jsonb, boolean, text) IS
'Makes a table you own a journal of spend: what is inserted, updated and deleted there is charged in the writer''s own transaction. column_map maps user_id, organization_id, amount (microdollars), created_at and optionally product_key, feature_key, model_or_plan_key, provider_key, negate, where; each to a column, {"columns": [...]} (the first not null) or {"value": ...}. Rows dated before now do not count, unless backfill captures them at once. on_delete: reverse (a deleted row is no longer spend) or keep (closing rows of spend_log take its place). Returns the rows captured by backfill. Locks the table against writing until commit. Errors: 22023 bad argument, 42501 not the owner, 55000 attached already. Volatile. Example: CREATE TABLE public.llm_usage (id bigint PRIMARY KEY, user_id text, org_id text, cost bigint, at timestamptz, model text); SELECT exa_billing.attach_spend_source(''llm'', ''public.llm_usage'', ''variable'', ''ai_gateway'', ''{"user_id": "user_id", "organization_id": "org_id", "amount": "cost", "created_at": "at", "model_or_plan_key": "model"}'');';

CREATE FUNCTION exa_billing.detach_spend_source(source_name text) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'detach_spend_source_wrapper';
COMMENT ON FUNCTION exa_billing.detach_spend_source(text) IS
'Ends an attached table as a journal. Rows of spend_log, one per owner, hour and driver, take the place of everything that counted, so no figure changes; attached again, the table''s old rows do not count a second time. Returns how many closing rows were written. Locks the table, against reading too, until commit. Errors: 22023 bad argument, 42501 not the owner, 55000 above isolation level read committed, P0002 no such source. Volatile. Example: CREATE TABLE public.jobs (id bigint PRIMARY KEY, user_id text, cost bigint, at timestamptz); SELECT exa_billing.attach_spend_source(''jobs'', ''public.jobs'', ''variable'', ''other'', ''{"user_id": "user_id", "organization_id": {"value": null}, "amount": "cost", "created_at": "at"}''); SELECT exa_billing.detach_spend_source(''jobs'');';

CREATE FUNCTION exa_billing.capture_spend() RETURNS trigger
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'capture_spend_wrapper';
COMMENT ON FUNCTION exa_billing.capture_spend() IS
'Trigger function of attached tables: queues what the statement has written. It charges only for tables that are registered in spend_sources. Errors: 22023 for a row without an owner, with a time that is not finite, or with a bad amount or id; 55000 on a table that is not attached. Example: attach_spend_source() makes the triggers, never by hand.';

CREATE FUNCTION exa_billing.refuse_truncate() RETURNS trigger
LANGUAGE c VOLATILE SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'refuse_truncate_wrapper';
COMMENT ON FUNCTION exa_billing.refuse_truncate() IS
'Trigger function of attached tables: refuses TRUNCATE with 55000. Example: attach_spend_source() makes the trigger, never by hand.';

CREATE FUNCTION exa_billing.guard_dropped_objects() RETURNS event_trigger
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'guard_dropped_objects_wrapper';
COMMENT ON FUNCTION exa_billing.guard_dropped_objects() IS
'Event trigger function: refuses with 55000 to drop an attached table, a partition or mapped column of it, or its triggers. Example: SELECT evtenabled FROM pg_event_trigger WHERE evtfoid = ''exa_billing.guard_dropped_objects()''::regprocedure;';

CREATE FUNCTION exa_billing.follow_altered_tables() RETURNS event_trigger
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'follow_altered_tables_wrapper';
COMMENT ON FUNCTION exa_billing.follow_altered_tables() IS
'Event trigger function: keeps the names in spend_sources right when an attached table or column is renamed; refuses with 55000 to take a partition out, to change the type of a mapped column, or to make of the table one that cannot be attached (unlogged, part of inheritance, row security forced). Example: SELECT evtenabled FROM pg_event_trigger WHERE evtfoid = ''exa_billing.follow_altered_tables()''::regprocedure;';

CREATE FUNCTION exa_billing.guard_concurrent_detach() RETURNS event_trigger
LANGUAGE c VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'guard_concurrent_detach_wrapper';
COMMENT ON FUNCTION exa_billing.guard_concurrent_detach() IS
'Event trigger function: refuses with 55000 to take a partition out of an attached table concurrently, before the command begins, since it commits half-way. Example: SELECT evtenabled FROM pg_event_trigger WHERE evtfoid = ''exa_billing.guard_concurrent_detach()''::regprocedure;';

-- ALWAYS: a session that pretends to be a replica must not get around them.
CREATE EVENT TRIGGER exa_billing_guard_dropped_objects ON sql_drop
    EXECUTE FUNCTION exa_billing.guard_dropped_objects();
ALTER EVENT TRIGGER exa_billing_guard_dropped_objects ENABLE ALWAYS;
CREATE EVENT TRIGGER exa_billing_follow_altered_tables ON ddl_command_end
    WHEN TAG IN ('ALTER TABLE', 'ALTER SCHEMA', 'CREATE TABLE', 'CREATE FOREIGN TABLE')
    EXECUTE FUNCTION exa_billing.follow_altered_tables();
ALTER EVENT TRIGGER exa_billing_follow_altered_tables ENABLE ALWAYS;
CREATE EVENT TRIGGER exa_billing_guard_concurrent_detach ON ddl_command_start
    WHEN TAG IN ('ALTER TABLE')
    EXECUTE FUNCTION exa_billing.guard_concurrent_detach();
ALTER EVENT TRIGGER exa_billing_guard_concurrent_detach ENABLE ALWAYS;
