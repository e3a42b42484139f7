CREATE FUNCTION exa_billing.grant_credit(
    owner_kind text, owner_id text, amount_microdollars bigint, expires_at timestamptz DEFAULT NULL,
    credit_category text DEFAULT NULL, description text DEFAULT NULL, is_free boolean DEFAULT false,
    idempotency_key text DEFAULT NULL, created_at timestamptz DEFAULT NULL
) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'grant_credit_wrapper';
COMMENT ON FUNCTION exa_billing.grant_credit(text, text, bigint, timestamptz, text, text, boolean, text, timestamptz) IS
'Gives amount_microdollars (more than 0) of credit to a user or an organization; returns the transaction''s id. With expires_at, what is unclaimed by then expires; the grant claims the usage that follows it, up to its amount. With an idempotency_key (per owner, for ever) a retry returns the first id and changes nothing. created_at may be past, back to the owner''s last expiration. Errors: 22023 bad argument, 22003 a sum beyond bigint, 23505 key used for another grant. Volatile. Example: SELECT exa_billing.grant_credit(''user'', ''user-1'', 20000000);';

CREATE FUNCTION exa_billing.account_balance(
    owner_kind text, owner_id text, as_of timestamptz DEFAULT now()
) RETURNS exa_billing.owner_balance
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'account_balance_wrapper';
COMMENT ON FUNCTION exa_billing.account_balance(text, text, timestamptz) IS
'How an owner''s credits stand, in microdollars: acquired, used, left; posted and unposted, exact at the statement''s snapshot, expirations due at as_of counted as processed; when credit expires next and how much would if nothing more were used. An owner without any row has zeros. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.account_balance(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.adjust_credit(
    owner_kind text,
    owner_id text,
    amount_microdollars bigint,
    reason text,
    idempotency_key text DEFAULT NULL
) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'adjust_credit_wrapper';
COMMENT ON FUNCTION exa_billing.adjust_credit(text, text, bigint, text, text) IS
'Adds to (or, negative, takes from) an owner''s credit: refunds, chargebacks, corrections of wrong charges, for journals are never changed. Never expires. Amount in microdollars, not 0; reason is shown in the statement. Returns the transaction''s id; a retry with the same idempotency_key returns the first. Errors: 22023 bad argument, 22003 a sum beyond bigint, 23505 key used for another entry. Volatile. Example: SELECT exa_billing.adjust_credit(''user'', ''user-1'', 5000, ''refund of a failed request'');';

CREATE FUNCTION exa_billing.credit_blocks(
    owner_kind text,
    owner_id text,
    as_of timestamptz DEFAULT now()
) RETURNS SETOF exa_billing.credit_block
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'credit_blocks_wrapper';
COMMENT ON FUNCTION exa_billing.credit_blocks(text, text, timestamptz) IS
'Every open grant of an owner with what is claimed of it and what is left, in microdollars: expiring ones by their ranges of usage, the others oldest first. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.credit_blocks(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.expire_credits(
    owner_kind text,
    owner_id text,
    as_of timestamptz DEFAULT now()
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'expire_credits_wrapper';
COMMENT ON FUNCTION exa_billing.expire_credits(text, text, timestamptz) IS
'Processes an owner''s expirations that are due at as_of (not later than the clock); returns microdollars expired. Late or in steps, the rows are the same; a second call returns 0. Errors: 22023 bad argument, 22003 a sum beyond bigint. Volatile. Example: SELECT exa_billing.expire_credits(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.expire_due_credits(
    as_of timestamptz DEFAULT now(),
    max_owners int DEFAULT 1000
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'expire_due_credits_wrapper';
COMMENT ON FUNCTION exa_billing.expire_due_credits(timestamptz, int) IS
'Processes the expirations that are due at as_of (not later than the clock) of up to max_owners (1 to 100000) owners; returns how many owners. Owners whose account is locked are left to the next call; one that fails is reported by a warning and stops no other. Errors: 22023 bad argument. Volatile. Example: SELECT exa_billing.expire_due_credits();';

CREATE FUNCTION exa_billing.close_out_credits(
    owner_kind text,
    owner_id text,
    as_of timestamptz DEFAULT now()
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'close_out_credits_wrapper';
COMMENT ON FUNCTION exa_billing.close_out_credits(text, text, timestamptz) IS
'Ends all expiring credit of an owner as of as_of (not later than the clock); credit that never expires is untouched. Returns microdollars expired; a second call returns 0. Errors: 22023 bad argument, 22003 a sum beyond bigint. Volatile. Example: SELECT exa_billing.close_out_credits(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.recompute_user_balances(
    user_id text,
    dry_run boolean DEFAULT false,
    keep_balance boolean DEFAULT true
) RETURNS exa_billing.recompute_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'recompute_user_balances_wrapper';
COMMENT ON FUNCTION exa_billing.recompute_user_balances(text, boolean, boolean) IS
'Recomputes the usage and every baseline of a user from the journals in time order and repairs what differs. With keep_balance the visible balance stays and an accounting_adjustment books the difference; without it the balance becomes the ledger''s. A dry run writes nothing, takes no lock and works on a standby. Amounts in microdollars. A second run changes nothing. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Volatile. Example: SELECT * FROM exa_billing.recompute_user_balances(''user-1'', dry_run => true);';

CREATE FUNCTION exa_billing.recompute_organization_balances(
    organization_id text,
    dry_run boolean DEFAULT false,
    keep_balance boolean DEFAULT true
) RETURNS exa_billing.recompute_result
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'recompute_organization_balances_wrapper';
COMMENT ON FUNCTION exa_billing.recompute_organization_balances(text, boolean, boolean) IS
'Recomputes the usage and every baseline of an organization from the journals in time order and repairs what differs. With keep_balance the visible balance stays and an accounting_adjustment books the difference; without it the balance becomes the ledger''s. A dry run writes nothing, takes no lock and works on a standby. Amounts in microdollars. A second run changes nothing. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Volatile. Example: SELECT * FROM exa_billing.recompute_organization_balances(''org-1'', dry_run => true);';

CREATE FUNCTION exa_billing.recompute_baselines(owner_kind text, owner_id text) RETURNS SETOF exa_billing.recomputed_baseline
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'recompute_baselines_wrapper';
COMMENT ON FUNCTION exa_billing.recompute_baselines(text, text) IS
'Each credit transaction of an owner with its stored and its recomputed baselines, in microdollars: the detail behind a dry run. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.recompute_baselines(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.account_statement(
    owner_kind text,
    owner_id text,
    from_time timestamptz,
    to_time timestamptz
) RETURNS SETOF exa_billing.statement_line
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'account_statement_wrapper';
COMMENT ON FUNCTION exa_billing.account_statement(text, text, timestamptz, timestamptz) IS
'What happened to an owner''s credit in [from_time, to_time): grants, expirations, adjustments, and spend per UTC day and product, in time order with the balance after each, in microdollars; the first line is the balance brought forward. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.account_statement(''user'', ''user-1'', now() - interval ''30 days'', now());';

CREATE FUNCTION exa_billing.import_opening_balance(
    owner_kind text,
    owner_id text,
    total_microdollars_acquired bigint,
    microdollars_used bigint,
    as_of timestamptz,
    idempotency_key text
) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'import_opening_balance_wrapper';
COMMENT ON FUNCTION exa_billing.import_opening_balance(text, text, bigint, bigint, timestamptz, text) IS
'Takes an owner over from an existing system: what was acquired and used there, in microdollars, as of an instant not later than the clock. Once per owner, before any grant or charge; the usage becomes a row of spend_log, so that recomputing keeps it. Returns the id of the opening transaction; a retry with the same key returns it again. Errors: 22023 bad argument, 22003 a sum beyond bigint, 23505 key used for another entry, 55000 when the owner has entries. Volatile. Example: SELECT exa_billing.import_opening_balance(''user'', ''user-2'', 50000000, 12000000, now(), ''takeover-user-2'');';

CREATE FUNCTION exa_billing.recompute_next_owner(
    is_first boolean,
    dry_run boolean,
    keep_balance boolean
) RETURNS exa_billing.recompute_step
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'recompute_next_owner_wrapper';
COMMENT ON FUNCTION exa_billing.recompute_next_owner(boolean, boolean, boolean) IS
'The step of recompute_all_balances: recomputes the next owner and keeps the progress. Call the procedure instead. Errors: 22023 bad argument, 55000 for a further step of a run that was not begun. Volatile. Example: SELECT exa_billing.recompute_next_owner(true, true, true);';

-- A procedure that commits can neither be SECURITY DEFINER nor carry a setting, so it has no operator
-- and no name that a caller's search_path could redirect; all work is in the function it calls.
CREATE PROCEDURE exa_billing.recompute_all_balances(
    dry_run boolean DEFAULT true, keep_balance boolean DEFAULT true
)
LANGUAGE plpgsql
AS $procedure$
DECLARE
    step exa_billing.recompute_step;
    is_first pg_catalog.bool := true;
BEGIN
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
        step := exa_billing.recompute_next_owner(is_first, dry_run, keep_balance);
        COMMIT;
        IF step.notice IS NOT NULL THEN
            RAISE NOTICE '%', step.notice;
        END IF;
        EXIT WHEN step.is_finished;
        is_first := false;
    END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE exa_billing.recompute_all_balances(boolean, boolean) IS
'Recomputes every account, committing after each, with a NOTICE every few seconds and the view progress; a run that was stopped goes on where it was when called again with the same arguments. An owner that fails is reported by a warning and skipped. By default a dry run. Errors: 22023 bad argument, 2D000 when called inside a transaction block. Example: CALL exa_billing.recompute_all_balances();';
