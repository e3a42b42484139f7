CREATE FUNCTION exa_billing.record_degraded_interval(
    from_hour timestamptz,
    to_hour timestamptz,
    reason text,
    owner_kind text DEFAULT NULL,
    owner_id text DEFAULT NULL
) RETURNS uuid
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'record_degraded_interval_wrapper';
COMMENT ON FUNCTION exa_billing.record_degraded_interval(timestamptz, timestamptz, text, text, text) IS
'Notes that the hourly rollups of the exact UTC hours [from_hour, to_hour) are not to be trusted, of one owner or (owner null) of all: reads take these hours from the journals until the interval is resolved. Open intervals of the same owner and reason (1 to 2000 characters) that overlap or touch become one. Returns the id of the oldest of them. Errors: 22023 bad argument, 40001 when an older transaction meets newer intervals. Volatile. Example: SELECT exa_billing.record_degraded_interval(date_trunc(''hour'', now(), ''UTC'') - interval ''2 hours'', date_trunc(''hour'', now(), ''UTC''), ''restored by hand'', ''user'', ''user-1'');';

CREATE FUNCTION exa_billing.resolve_degraded_interval(interval_id uuid) RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'resolve_degraded_interval_wrapper';
COMMENT ON FUNCTION exa_billing.resolve_degraded_interval(uuid) IS
'Ends a degraded interval: its hours are read from the rollups again. True when it was open, false when it had been resolved before. Errors: 22023 for null, P0002 for an unknown id. Volatile. Example: SELECT exa_billing.resolve_degraded_interval(interval_id) FROM exa_billing.spend_degraded_intervals WHERE resolved_at IS NULL;';

CREATE FUNCTION exa_billing.rebuild_rollups(
    owner_kind text,
    owner_id text,
    from_hour timestamptz,
    to_hour timestamptz
) RETURNS bigint
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'rebuild_rollups_wrapper';
COMMENT ON FUNCTION exa_billing.rebuild_rollups(text, text, timestamptz, timestamptz) IS
'Puts an owner''s hourly totals and drivers of the exact UTC hours [from_hour, to_hour) right out of the journals, and the daily totals and an organization''s member days that the range touches; charging goes on meanwhile, and nothing is lost or counted twice. Returns how many of these figures were wrong (hourly totals + daily totals + hourly drivers + member days); a second call returns 0. The account''s balance is not touched: see recompute_user_balances and recompute_organization_balances. Errors: 22003 sums out of range, 22023 bad argument, 55000 a queue row without its dimension. Volatile. Example: SELECT exa_billing.rebuild_rollups(''user'', ''user-1'', date_trunc(''hour'', now(), ''UTC'') - interval ''24 hours'', date_trunc(''hour'', now(), ''UTC''));';

CREATE FUNCTION exa_billing.reconcile_rollups(
    from_hour timestamptz,
    to_hour timestamptz,
    max_details int DEFAULT 1000
) RETURNS SETOF exa_billing.rollup_mismatch
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'reconcile_rollups_wrapper';
COMMENT ON FUNCTION exa_billing.reconcile_rollups(timestamptz, timestamptz, int) IS
'Compares the rollups of the exact UTC hours [from_hour, to_hour), posted and unposted, with the journals, on one snapshot: one row per mismatch, at most max_details (0 or more), and a NOTICE when there are more. mismatch_type: coverage_hole, unknown_taxonomy_value; then by hour missing_total, amount_difference, record_count_difference, driver_sum_difference. Amounts in microdollars; detail says where a hole ends. Errors: 22023 bad argument, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.reconcile_rollups(date_trunc(''hour'', now(), ''UTC'') - interval ''24 hours'', date_trunc(''hour'', now(), ''UTC'') + interval ''1 hour'');';

CREATE FUNCTION exa_billing.backfill_next_hours(
    is_first boolean,
    from_hour timestamptz,
    to_hour timestamptz,
    dry_run boolean
) RETURNS exa_billing.backfill_step
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'backfill_next_hours_wrapper';
COMMENT ON FUNCTION exa_billing.backfill_next_hours(boolean, timestamptz, timestamptz, boolean) IS
'The step of backfill_rollups: works on the newest hours that remain and keeps the progress. Call the procedure instead. Errors: 22023 bad argument, 55000 for a further step of a run that was not begun. Volatile. Example: SELECT exa_billing.backfill_next_hours(true, date_trunc(''hour'', now(), ''UTC'') - interval ''2 hours'', date_trunc(''hour'', now(), ''UTC''), true);';

-- As recompute_all_balances: no operator and no name that a caller's search_path could redirect.
CREATE PROCEDURE exa_billing.backfill_rollups(
    from_hour timestamptz, to_hour timestamptz, dry_run boolean DEFAULT true
)
LANGUAGE plpgsql
AS $procedure$
DECLARE
    step exa_billing.backfill_step;
    is_first pg_catalog.bool := true;
BEGIN
    LOOP
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE;
        step := exa_billing.backfill_next_hours(is_first, from_hour, to_hour, dry_run);
        COMMIT;
        IF step.notice IS NOT NULL THEN
            RAISE NOTICE '%', step.notice;
        END IF;
        EXIT WHEN step.is_finished;
        is_first := false;
    END LOOP;
END
$procedure$;
COMMENT ON PROCEDURE exa_billing.backfill_rollups(timestamptz, timestamptz, boolean) IS
'Compares the rollups of the exact UTC hours [from_hour, to_hour) with the journals, newest day first, and rebuilds every owner who differs, committing after each day (or 100 owners), with a NOTICE every few seconds and the view progress; hours that join those already covered become covered. A run that was stopped goes on where it was when called again with the same arguments. An owner that fails is reported by a warning, and a degraded interval keeps these hours of the owner read from the journals. By default a dry run, which only counts who differs. Errors: 22023 bad argument, 2D000 when called inside a transaction block. Example: CALL exa_billing.backfill_rollups(date_trunc(''hour'', now(), ''UTC'') - interval ''48 hours'', date_trunc(''hour'', now(), ''UTC''));';
