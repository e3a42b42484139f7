CREATE FUNCTION exa_billing.check_exa_usage(
    user_id text, organization_id text DEFAULT NULL, as_of timestamptz DEFAULT now()
) RETURNS exa_billing.usage_decision
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'check_exa_usage_wrapper';
COMMENT ON FUNCTION exa_billing.check_exa_usage(text, text, timestamptz) IS
'May this user make an Exa request now, for themselves or for an organization? Free while the month''s allowance lasts, then paid out of the context''s credit. A denial is a row, never an error. Advisory: parallel paid requests may overdraw by what is in flight. Amounts in microdollars. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.check_exa_usage(''user-1'');';

CREATE FUNCTION exa_billing.record_exa_usage(
    user_id text, path text, cost_microdollars bigint, organization_id text DEFAULT NULL,
    idempotency_key text DEFAULT NULL, created_at timestamptz DEFAULT NULL,
    feature_id text DEFAULT NULL, request_type text DEFAULT NULL
) RETURNS exa_billing.recorded_usage
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'record_exa_usage_wrapper';
COMMENT ON FUNCTION exa_billing.record_exa_usage(text, text, bigint, text, text, timestamptz, text, text) IS
'Records one Exa request of cost_microdollars (0 or more) in the caller''s transaction; what is free of it and what is charged is decided here. It never refuses a request that has happened. With an idempotency_key (per user, for ever) a retry returns the first result with is_replay and writes nothing. created_at may lie exa_billing.late_usage_limit back and 5 minutes ahead. Errors: 22023 bad argument, 23505 key used for another call. Volatile. Example: SELECT * FROM exa_billing.record_exa_usage(''user-1'', ''/search'', 5000);';

CREATE FUNCTION exa_billing.record_exa_response(
    user_id text, path text, response jsonb, organization_id text DEFAULT NULL,
    idempotency_key text DEFAULT NULL, created_at timestamptz DEFAULT NULL,
    feature_id text DEFAULT NULL, request_type text DEFAULT NULL
) RETURNS exa_billing.recorded_usage
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'record_exa_response_wrapper';
COMMENT ON FUNCTION exa_billing.record_exa_response(text, text, jsonb, text, text, timestamptz, text, text) IS
'As record_exa_usage, with the cost out of the Exa response: costDollars.total in USD, rounded half up to microdollars; requestId is the key unless one is given. NULL, and nothing written, when the response bears no cost (absent, null or 0). Errors: 22023 for a total that is no number, negative, too large or rounds to nothing; 23505 as there. Volatile. Example: SELECT * FROM exa_billing.record_exa_response(''user-1'', ''/search'', ''{"requestId": "req_1", "costDollars": {"total": 0.005}}'');';

CREATE FUNCTION exa_billing.record_exa_usage_batch(usage jsonb)
RETURNS SETOF exa_billing.recorded_usage
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'record_exa_usage_batch_wrapper';
COMMENT ON FUNCTION exa_billing.record_exa_usage_batch(jsonb) IS
'Records up to 10000 requests at once, all or nothing: a JSON array of objects with the parameter names of record_exa_usage as keys, created_at with a zone. Returns one row per element, in order, as one by one would. Errors: 22023 bad element or unknown key, 23505 key used for another call; they name index and field. Volatile. Example: SELECT * FROM exa_billing.record_exa_usage_batch(''[{"user_id": "user-1", "path": "/search", "cost_microdollars": 5000}]'');';

CREATE FUNCTION exa_billing.record_spend(
    owner_kind text, owner_id text, amount_microdollars bigint, spend_category text, source text,
    product_key text, feature_key text DEFAULT 'other', model_or_plan_key text DEFAULT 'other',
    provider_key text DEFAULT 'other', actor_user_id text DEFAULT NULL,
    idempotency_key text DEFAULT NULL, created_at timestamptz DEFAULT NULL,
    require_balance boolean DEFAULT false
) RETURNS exa_billing.recorded_usage
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'record_spend_wrapper';
COMMENT ON FUNCTION exa_billing.record_spend(text, text, bigint, text, text, text, text, text, text, text, text, timestamptz, boolean) IS
'Charges amount_microdollars (more than 0) to a user or an organization: spend that is not an Exa request, of category variable or scheduled. With require_balance only if the exact balance covers it (a purchase out of credits); the account is then locked until commit. Idempotency keys are per owner and source. Errors: 22023 bad argument, 22003 a sum beyond bigint, 23505 key used for another call, 53400 insufficient credit. Volatile. Example: SELECT * FROM exa_billing.record_spend(''organization'', ''org-1'', 20000000, ''scheduled'', ''coding_plan'', ''coding-plan'', require_balance => true);';

CREATE FUNCTION exa_billing.set_free_allowance(
    free_allowance_microdollars bigint, effective_month date, user_id text DEFAULT NULL,
    overage_rule text DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'set_free_allowance_wrapper';
COMMENT ON FUNCTION exa_billing.set_free_allowance(bigint, date, text, text) IS
'Sets the monthly free allowance, in microdollars, from effective_month (the first of a month) on until the next entry: for one user, or for everyone when user_id is null. Months that already had a request keep what they were locked in with. overage_rule: whole (a request that starts under the allowance is wholly free) or split (only the part beyond is charged); null leaves it to everyone''s entry, then whole. A null amount ends the entry. From the start everyone has 10000000, whole. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.set_free_allowance(50000000, ''2027-01-01'', ''user-1'');';

CREATE FUNCTION exa_billing.exa_monthly_usage(user_id text, month date DEFAULT NULL)
RETURNS exa_billing.monthly_usage
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'exa_monthly_usage_wrapper';
COMMENT ON FUNCTION exa_billing.exa_monthly_usage(text, date) IS
'A user''s Exa usage in the UTC month of the given day (null: now), over personal use and all organizations: cost, charged part and requests, posted and unposted, and the locked-in allowance (null before the first request). Amounts in microdollars. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.exa_monthly_usage(''user-1'');';

CREATE FUNCTION exa_billing.set_organization_member(
    organization_id text, user_id text, role text, daily_limit_microdollars bigint DEFAULT NULL
) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'set_organization_member_wrapper';
COMMENT ON FUNCTION exa_billing.set_organization_member(text, text, text, bigint) IS
'Adds a member to an organization or changes role (owner, billing_manager or member) and daily limit, in microdollars a UTC day; null is no limit, 0 allows nothing paid. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.set_organization_member(''org-1'', ''user-1'', ''member'', 5000000);';

CREATE FUNCTION exa_billing.remove_organization_member(organization_id text, user_id text)
RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'remove_organization_member_wrapper';
COMMENT ON FUNCTION exa_billing.remove_organization_member(text, text) IS
'Removes a member; what they spent stays in the books. Removing nobody is no error. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.remove_organization_member(''org-1'', ''user-1'');';
