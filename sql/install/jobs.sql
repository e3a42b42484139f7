CREATE TYPE exa_billing.maintenance_step AS (
    is_last boolean,
    is_finished boolean,
    error text
);
COMMENT ON TYPE exa_billing.maintenance_step IS 'What one step of run_maintenance() tells the procedure.';

CREATE FUNCTION exa_billing.start_worker() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'start_worker_wrapper';
COMMENT ON FUNCTION exa_billing.start_worker() IS
'Lets background work go on in this database: by the worker, where the library is in shared_preload_libraries and exa_billing.databases names the database, and by run_maintenance(). A copy of the database (a restored dump, one made from it as a template, a copy of the disks under another exa_billing.instance) stays quiet until this is called there: it charges exactly, but neither posts by itself nor evaluates nor hands out notifications. Volatile. Example: SELECT exa_billing.start_worker();';

CREATE FUNCTION exa_billing.stop_worker() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'stop_worker_wrapper';
COMMENT ON FUNCTION exa_billing.stop_worker() IS
'Stops background work in this database until start_worker() is called again; a job that is running ends its transaction first. Charging goes on, figures stay exact. Volatile. Example: SELECT exa_billing.stop_worker();';

CREATE FUNCTION exa_billing.run_maintenance_step(job_number int) RETURNS exa_billing.maintenance_step
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_maintenance_step_wrapper';
COMMENT ON FUNCTION exa_billing.run_maintenance_step(int) IS
'One step of one job of run_maintenance(), which calls it and commits after it. Errors: 22023 bad argument, 55000 where start_worker() was not called. Volatile. Example: BEGIN; SELECT exa_billing.start_worker(); SELECT exa_billing.run_maintenance_step(1); ROLLBACK;';

CREATE PROCEDURE exa_billing.run_maintenance()
LANGUAGE plpgsql AS $$
DECLARE
    job int := 1;
    began pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    step exa_billing.maintenance_step;
BEGIN
    LOOP
        -- Each step is a transaction. At another level, which may be the default here, work that several
        -- do at once would fail.
        COMMIT;
        SET TRANSACTION ISOLATION LEVEL READ COMMITTED;
        step := exa_billing.run_maintenance_step(job);
        EXIT WHEN step.is_last;
        -- A job that has a lot to do, or never comes to an end because charges never pause, leaves the
        -- others their turn: the next call goes on with it. pg_cron waits for this one to end.
        IF step.is_finished OR pg_catalog.clock_timestamp()
            OPERATOR(pg_catalog.>) (began OPERATOR(pg_catalog.+) '20 seconds'::pg_catalog.interval)
        THEN
            job := job OPERATOR(pg_catalog.+) 1;
            began := pg_catalog.clock_timestamp();
        END IF;
    END LOOP;
END
$$;
COMMENT ON PROCEDURE exa_billing.run_maintenance() IS
'Does all jobs of the background worker once: posts, expires credits, evaluates who is due, sweeps, makes partitions, deletes old events, goes on proving the books. For pg_cron or a timer where the library cannot be preloaded; several at once share the work. A job that has more to do than 20 seconds allow is gone on with by the next call. A job that fails is reported as a warning and noted in worker_jobs; the others go on. Call it outside a transaction: it commits after each step. Errors: 55000 where start_worker() was not called, 2D000 inside a transaction, 57014 when it is cancelled. Example: CALL exa_billing.run_maintenance();';
