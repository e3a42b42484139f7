-- Chapters 17 and 18: the proof, and what to try.

\echo
\echo '=== 17. The books hold ========================================================'
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
\echo '=== 18. Try it yourself ======================================================='
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
