-- The story of exa_billing, to be read as it runs: make demo.
--
-- Wants a fresh database: psql -X -d DATABASE -f demo/story.sql. Statements between
-- \set ECHO queries and \set ECHO none are shown; those outside check what the text says.
-- Results with nothing to see in them (void, an id) go to /dev/null.

\set ON_ERROR_STOP on
\set QUIET on
\set ECHO none
\pset border 1
\pset footer off
\pset null '-'
\pset numericlocale on
\pset pager off
SET TimeZone = 'UTC';
SET DateStyle = 'ISO';
SET client_min_messages = warning;
ALTER DATABASE :"DBNAME" SET search_path = exa_billing, demo, public;
SET search_path = exa_billing, demo, public;
\ir helpers.sql

-- The story is told on one UTC day: when this one is about to end, on the next.
SELECT seconds, seconds <= 60 AS wait
FROM (SELECT ceil(extract(epoch FROM date_trunc('day', now()) + interval '1 day' - now())) + 1 AS seconds) AS s
\gset
\if :wait
    \echo 'It is nearly midnight (UTC); the story begins on the new day.'
    SELECT pg_sleep(:seconds) \g /dev/null
\endif
SELECT date_trunc('month', now())::date AS this_month,
       (date_trunc('month', now()) - interval '1 month')::date AS last_month,
       date_trunc('month', now()) - interval '12 hours' AS late
\gset

\echo
\ir chapters/1-free-and-paid.sql
\ir chapters/2-everyday.sql
\ir chapters/3-the-books.sql
\ir chapters/4-a-ledger.sql
\ir chapters/5-alerts.sql
\ir chapters/6-the-end.sql
