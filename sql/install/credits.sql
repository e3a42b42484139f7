CREATE FUNCTION exa_billing.grant_credit(
    owner_kind text, owner_id text, amount_microdollars bigint, expires_at timestamptz DEFAULT NULL,
    credit_category text DEFAULT NULL, description text DEFAULT NULL, is_free boolean DEFAULT false,
    idempotency_key text DEFAULT NULL, created_at timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_credit_wrapper';
COMMENT ON FUNCTION exa_billing.grant_credit(text, text, bigint, timestamptz, text, text, boolean, text, timestamptz) IS
'Gives amount_microdollars (more than 0) of credit to a user or an organization; returns the transaction''s id. With an idempotency_key (per owner, for ever) a retry returns the first id and changes nothing. Errors: 22023 bad argument, 23505 key used for another grant, 0A000 for expires_at, which is not supported yet. Volatile. Example: SELECT exa_billing.grant_credit(''user'', ''user-1'', 20000000);';

CREATE FUNCTION exa_billing.account_balance(
    owner_kind text, owner_id text, as_of timestamptz DEFAULT now()
) RETURNS exa_billing.owner_balance
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'account_balance_wrapper';
COMMENT ON FUNCTION exa_billing.account_balance(text, text, timestamptz) IS
'How an owner''s credits stand, in microdollars: acquired, used, left; posted and unposted, exact at the statement''s snapshot. An owner without any row has zeros. Errors: 22023 bad argument, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.account_balance(''user'', ''user-1'');';
