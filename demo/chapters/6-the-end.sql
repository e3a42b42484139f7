-- Chapters 17 to 19: who looks after it, the proof, and what to try.

\echo
\echo '=== 17. Is all well? =========================================================='
\echo
\echo 'The worker posts, expires credits, evaluates, makes months, and proves the books a'
\echo 'share at a time; where it cannot be preloaded, CALL run_maintenance() from pg_cron'
\echo 'does all of it once. What needs somebody is a row of one view, with what to do:'
\echo
\set ECHO queries
CALL run_maintenance();
SELECT job_name, run_count > 0 AS has_run, failures_in_a_row FROM worker_jobs ORDER BY job_name;
SELECT status, count(*) FROM health GROUP BY status;
SELECT name, status, figure, what_to_do FROM health WHERE status <> 'ok';
\set ECHO none
DO $$ BEGIN
    PERFORM expect('every job has run', (SELECT count(*) FROM worker_jobs WHERE failures_in_a_row = 0), 8);
    PERFORM expect('nothing needs anybody',
        coalesce((SELECT string_agg(name, ', ') FROM health WHERE status = 'critical'), 'nothing'), 'nothing');
END $$;

\echo
\echo '=== 18. The books hold ========================================================'
\echo
\echo 'verify_books() holds journals, queue, balances, counters and rollups against each'
\echo 'other and returns what does not fit:'
\echo
\pset footer on
\set ECHO queries
SELECT invariant, owner_id, detail FROM verify_books();
\set ECHO none
\pset footer off
DO $$ BEGIN
    PERFORM expect('the books hold', (SELECT count(*) FROM verify_books()), 0);
END $$;

SELECT count(*) AS checks FROM demo.checks \gset
\echo 'The books hold; and' :checks 'figures of this story were checked while it was told'
\echo '(demo.checks lists them). A single wrong one would have stopped it.'
\echo
\echo '=== 19. Try it yourself ======================================================='
\echo
\echo 'In psql, in this database (\\x makes wide rows readable, \\df exa_billing.* lists all'
\echo 'calls):'
\echo

\set try1 'SELECT obj_description(''record_spend''::regproc);   -- each call explains itself'
\set try2 'SELECT * FROM check_exa_usage(''dora'');   -- nobody has heard of her yet'
\set try3 'SELECT * FROM check_exa_usage(''ana'', ''acme'', now() + ''1 day'');   -- tomorrow?'
\set try4 'SELECT * FROM record_exa_usage(''ana'', ''/findSimilar'', 5000, ''acme'');'
\set try5 'SELECT * FROM spend_by_hour(''organization'', ''acme'', date_trunc(''hour'', now()) - ''2 hours''::interval, date_trunc(''hour'', now()));'
\set try6 'UPDATE exa_usage_log SET cost_microdollars = 0;   -- journals refuse'
\echo '   ' :try1
\echo '   ' :try2
\echo '   ' :try3
\echo '   ' :try4
\echo '   ' :try5
\echo '   ' :try6
\echo
-- They have to work, and to leave the database as it was told.
BEGIN;
\o /dev/null
:try1
:try2
:try3
:try4
:try5
\o
DO $$ BEGIN
    UPDATE exa_usage_log SET cost_microdollars = 0;
    RAISE EXCEPTION 'the story does not hold: a journal was changed';
EXCEPTION WHEN object_not_in_prerequisite_state THEN
    NULL;
END $$;
ROLLBACK;
