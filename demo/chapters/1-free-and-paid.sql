-- Chapters 1 to 4: one user, from the first request to the first charge.

\echo '=== 1. What this is ==========================================================='
\echo
\echo 'You resell the Exa search API. Every user has 10 USD a month free; what goes'
\echo 'beyond is charged to credits, their own or those of an organization they work for.'
\echo 'exa_billing keeps these books inside PostgreSQL: your application asks before each'
\echo 'request and records it afterwards, in SQL, in its own transactions.'
\echo
\echo 'Money is whole microdollars: 1 USD = 1,000,000. Three things below are not the'
\echo 'product''s but this demo''s application''s (demo/helpers.sql): usd() for reading,'
\echo 'traffic() that makes requests up, and the table "answers" of what Exa answered.'
\echo

\set ECHO queries
CREATE EXTENSION exa_billing;
\set ECHO none
\echo
\echo 'That brought code only: there is no table yet. Now a request of our user Ana has'
\echo 'been made, and Exa answered:'
\echo
\pset format unaligned
\pset tuples_only on
SELECT trim(E'\n' FROM body::text) FROM answers WHERE name = 'search';
\pset format aligned
\pset tuples_only off
DO $$ BEGIN
    PERFORM expect('no table before the first charge', count(*), 0)
    FROM pg_tables WHERE schemaname = 'exa_billing';
END $$;
\echo
\echo 'To record it is one call. costDollars.total is the cost; requestId makes a retry'
\echo 'harmless. And the very first call makes the books by itself:'
\echo

\set ECHO queries
SELECT cost_microdollars, free_microdollars, charged_microdollars
FROM record_exa_response('ana', '/search',
                         (SELECT body::jsonb FROM answers WHERE name = 'search'));

SELECT count(*) AS tables_and_partitions
FROM pg_tables WHERE schemaname = 'exa_billing';
\set ECHO none
DO $$ BEGIN
    PERFORM expect('there are books now', (SELECT count(*) > 0 FROM pg_tables WHERE schemaname = 'exa_billing'));
    PERFORM expect('the first search is free', l.charged_microdollars, 0),
            expect('and costs 5,000', l.cost_microdollars, 5000)
    FROM exa_usage_log AS l;
END $$;

\echo '=== 2. Free until 10 USD ======================================================'
\echo
\echo 'Ana goes on: a search for many results, a deep search, an answer, the text of'
\echo 'three pages. And of a page that is gone: that cost nothing, so there is nothing to'
\echo 'record, and the call returns NULL.'
\echo

\set ECHO queries
SELECT a.name, a.path, r.cost_microdollars AS cost, usd(r.cost_microdollars),
       r.free_microdollars AS free, r.charged_microdollars AS charged
FROM answers AS a,
     record_exa_response('ana', a.path, a.body::jsonb) AS r
WHERE a.name IN ('wide search', 'deep search', 'contents', 'answer', 'nothing found')
ORDER BY cost DESC NULLS LAST, a.name;
\set ECHO none
DO $$ BEGIN
    PERFORM expect('costs are the answers'' costs',
        (SELECT string_agg(cost_microdollars::text, ' ' ORDER BY cost_microdollars) FROM exa_usage_log),
        '3000 5000 5000 15000 25000');
END $$;

\echo 'We fast-forward through 1,988 more requests of hers, recorded as one batch:'
\echo

\set ECHO queries
SELECT count(*) AS requests, usd(sum(cost_microdollars)) AS cost_usd,
       sum(charged_microdollars) AS charged
FROM record_exa_usage_batch(traffic('ana', 9936000));

SELECT allowed, reason, usd(month_used_microdollars) AS used_usd,
       usd(free_allowance_microdollars) AS free_usd
FROM check_exa_usage('ana');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('1,988 requests after the first five', count(*), 1988 + 5),
            expect('all of them free', sum(charged_microdollars), 0)
    FROM exa_usage_log;
    PERFORM expect('9.989 USD are used', d.month_used_microdollars, 9989000),
            expect('of 10 USD', d.free_allowance_microdollars, 10000000),
            expect('the next one is free', d.reason, 'free_allowance')
    FROM check_exa_usage('ana') AS d;
END $$;

\echo '0.011 USD are left, and the next request costs 0.015. Under the default rule'
\echo '("whole") a request that starts under the allowance is free as a whole:'
\echo

\set ECHO queries
SELECT usd(cost_microdollars) AS cost, usd(free_microdollars) AS free,
       usd(charged_microdollars) AS charged
FROM record_exa_response('ana', '/search',
                         (SELECT body::jsonb FROM answers WHERE name = 'crossing'));
\set ECHO none
DO $$ BEGIN
    PERFORM expect('the crossing request is wholly free', (m).total_charged_microdollars, 0),
            expect('10.004 USD are used', (m).total_cost_microdollars, 10004000)
    FROM exa_monthly_usage('ana') AS m;
END $$;

\echo '=== 3. No credit, no request =================================================='
\echo
\echo 'Now the allowance is used up. The application asks, as before every request, and'
\echo 'the answer is no. A denial is a row, not an error:'
\echo

\set ECHO queries
SELECT allowed, reason, is_paid, month_used_microdollars AS month_used,
       balance_microdollars AS balance
FROM check_exa_usage('ana');
\set ECHO none
\echo 'and the row is made to be the body of an HTTP 402 (Payment Required):'
\echo
\pset tuples_only on
\pset format unaligned
\set ECHO queries
SELECT jsonb_pretty(jsonb_build_object('status', 402) || to_jsonb(decision))
FROM check_exa_usage('ana') AS decision
WHERE NOT decision.allowed;
\set ECHO none
\pset format aligned
\pset tuples_only off
DO $$ BEGIN
    PERFORM expect('Ana is denied', NOT d.allowed),
            expect('for want of credit', d.reason, 'no_credit_balance'),
            expect('the denied one would be paid', d.is_paid),
            expect('her balance is 0', d.balance_microdollars, 0),
            expect('10.004 USD were counted', d.month_used_microdollars, 10004000)
    FROM check_exa_usage('ana') AS d;
END $$;

\echo
\echo '=== 4. Credit ================================================================='
\echo
\echo 'Ana pays 20 USD. The payment''s id is the idempotency key: a webhook that is'
\echo 'delivered twice grants once.'
\echo

\set ECHO queries
SELECT grant_credit('user', 'ana', 20000000, credit_category => 'purchase',
                    idempotency_key => 'payment-4711') AS credit_transaction;

SELECT cost_microdollars, free_microdollars, charged_microdollars
FROM record_exa_response('ana', '/search',
                         (SELECT body::jsonb FROM answers WHERE name = 'paid search'));

SELECT balance_microdollars, usd(balance_microdollars)
FROM account_balance('user', 'ana');
\set ECHO none
DO $$ BEGIN
    PERFORM grant_credit('user', 'ana', 20000000, credit_category => 'purchase',
                         idempotency_key => 'payment-4711');
END $$;
DO $$ BEGIN
    PERFORM expect('the second delivery of the webhook granted nothing', count(*), 1) FROM credit_transactions;
    PERFORM expect('20 USD acquired', b.total_microdollars_acquired, 20000000),
            expect('0.005 USD used', b.microdollars_used, 5000),
            expect('19.995 USD left', b.balance_microdollars, 19995000)
    FROM account_balance('user', 'ana') AS b;
END $$;
