-- Chapters 5 to 9: what happens every day, and has to come out right.

\echo '=== 5. An organization ========================================================'
\echo
\echo 'Acme has 50 USD. Ana works there and may spend 0.02 USD a day of it.'
\echo

\set ECHO queries
\o /dev/null
SELECT grant_credit('organization', 'acme', 50000000);
SELECT set_organization_member('acme', 'ana', 'member',
                               daily_limit_microdollars => 20000);
\o
\echo
SELECT allowed, reason, member_limit_remaining_microdollars AS left_today,
       usd(balance_microdollars) AS acme_usd
FROM check_exa_usage('ana', 'acme');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('Ana may spend Acme''s credit', d.allowed),
            expect('out of credit', d.reason, 'credit_balance'),
            expect('0.02 USD today', d.member_limit_remaining_microdollars, 20000)
    FROM check_exa_usage('ana', 'acme') AS d;
END $$;

\echo 'Two requests for Acme later the limit of the day is reached. (record_exa_usage() is'
\echo 'for when the cost is known and there is no answer to take it from.)'
\echo

\set ECHO queries
SELECT charged_microdollars FROM record_exa_usage('ana', '/search', 15000, 'acme');
SELECT charged_microdollars FROM record_exa_usage('ana', '/answer', 5000, 'acme');

SELECT allowed, reason, member_limit_remaining_microdollars AS left_today,
       usd(balance_microdollars) AS acme_usd
FROM check_exa_usage('ana', 'acme');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('then she is denied', NOT d.allowed),
            expect('by her daily limit', d.reason, 'member_daily_limit'),
            expect('nothing is left today', d.member_limit_remaining_microdollars, 0)
    FROM check_exa_usage('ana', 'acme') AS d;
END $$;

\echo 'It was Acme that paid. Ana''s own 19.995 USD were not touched:'
\echo

\set ECHO queries
SELECT owner_kind, owner_id, usd(microdollars_used) AS used_usd,
       usd(balance_microdollars) AS left_usd
FROM account_balances ORDER BY owner_kind DESC;
\set ECHO none
\echo 'So by herself she may go on. Bob may not: he is a stranger to Acme. (We take his free'
\echo 'allowance from him first: who is a member matters only once somebody has to pay.)'
\echo
\set ECHO queries
\o /dev/null
SELECT set_free_allowance(0, :'this_month', 'bob');
\o
\echo
SELECT who, context, allowed, reason
FROM (VALUES ('ana', NULL), ('bob', 'acme')) AS asked(who, context),
     check_exa_usage(who, context);
\set ECHO none
DO $$ BEGIN
    PERFORM expect('Acme has 49.98 USD', (account_balance('organization', 'acme')).balance_microdollars, 49980000);
    PERFORM expect('Ana has 19.995 USD', (account_balance('user', 'ana')).balance_microdollars, 19995000);
    PERFORM expect('Ana may go on by herself', (check_exa_usage('ana')).reason, 'credit_balance');
    PERFORM expect('Bob is a stranger', (check_exa_usage('bob', 'acme')).reason, 'not_a_member');
END $$;

\echo '=== 6. The same request twice ================================================='
\echo
\echo 'The application timed out: was Ana''s paid search recorded or not? It just records'
\echo 'it again. The answer''s requestId is the key, so the first result comes back, marked'
\echo 'is_replay, and nothing is written:'
\echo

SELECT count(*) AS requests_before FROM exa_usage_log \gset
\set ECHO queries
SELECT is_replay, charged_microdollars
FROM record_exa_response('ana', '/search',
                         (SELECT body::jsonb FROM answers WHERE name = 'paid search'));

SELECT usd(balance_microdollars) AS still FROM account_balance('user', 'ana');
\set ECHO none
SELECT expect('a replay is marked', is_replay::text, 'true'),
       expect('a replay returns the first charge', charged_microdollars, 5000)
FROM record_exa_response('ana', '/search', (SELECT body::jsonb FROM answers WHERE name = 'paid search'))
\g /dev/null
SELECT expect('a replay writes no request', count(*), :requests_before) FROM exa_usage_log \g /dev/null
SELECT expect('a replay charges nothing', balance_microdollars, 19995000) FROM account_balance('user', 'ana')
\g /dev/null

\echo 'The same key with another cost is no retry but a mistake. This call has to fail:'
\echo

\set ON_ERROR_STOP off
\set ECHO queries
SELECT record_exa_usage('ana', '/search', 7000,
                        idempotency_key => '38d5fa6714be4c9292ed60a7c1f0835b');
\set ECHO none
\set ON_ERROR_STOP on
SELECT expect('a reused key is a unique violation', :'SQLSTATE', '23505') \g /dev/null
DO $$
DECLARE told text; helped text;
BEGIN
    PERFORM record_exa_usage('ana', '/search', 7000, idempotency_key => '38d5fa6714be4c9292ed60a7c1f0835b');
EXCEPTION WHEN unique_violation THEN
    GET STACKED DIAGNOSTICS told = PG_EXCEPTION_DETAIL, helped = PG_EXCEPTION_HINT;
    PERFORM expect('it says what differs', told, 'cost_microdollars was "5000", is now "7000".');
    PERFORM expect('and what to do', helped <> '');
END $$;

\echo
\echo '=== 7. A request of last month ================================================'
\echo
\echo 'A forgotten log turns up, with a request that Ana made on the last day of last'
\echo 'month. It goes to the month it happened in and to that month''s allowance. So it is'
\echo 'free, although Ana has to pay by now:'
\echo

\set ECHO queries
SELECT created_at, free_microdollars AS free, charged_microdollars AS charged
FROM record_exa_usage('ana', '/search', 5000, created_at => :'late');

SELECT u.month, u.request_count AS requests, usd(u.total_cost_microdollars) AS cost_usd,
       usd(u.total_charged_microdollars) AS charged_usd,
       usd(u.free_allowance_microdollars) AS free_usd
FROM (VALUES (date :'last_month'), (date :'this_month')) AS m(month),
     exa_monthly_usage('ana', m.month) AS u;
\set ECHO none
SELECT expect('one late request', last.request_count, 1),
       expect('of 0.005 USD', last.total_cost_microdollars, 5000),
       expect('late and free', last.total_charged_microdollars, 0),
       expect('under last month''s allowance', last.free_allowance_microdollars, 10000000),
       expect('this month: what was said so far', this.request_count, 1988 + 5 + 1 + 1 + 2),
       expect('this month''s cost', this.total_cost_microdollars, 10004000 + 5000 + 20000),
       expect('this month''s charges: Ana''s and Acme''s', this.total_charged_microdollars, 5000 + 20000)
FROM exa_monthly_usage('ana', :'last_month') AS last, exa_monthly_usage('ana', :'this_month') AS this
\g /dev/null

\echo 'This month''s 0.025 USD are the 0.005 she paid and the 0.02 that Acme paid: months'
\echo 'and the allowance belong to the user, whoever pays.'
\echo
\echo '=== 8. All or nothing ========================================================='
\echo
\echo 'A charge is part of the application''s own transaction. Here is a table of the'
\echo 'application, and a job that in the end does not come about:'
\echo

\set ECHO queries
CREATE TABLE demo.research_jobs (id int PRIMARY KEY, question text);
\echo
BEGIN;
INSERT INTO demo.research_jobs VALUES (1, 'Who makes sodium cells?');
SELECT charged_microdollars
FROM record_exa_usage('ana', '/search', 5000, idempotency_key => 'job-1');
SELECT usd(balance_microdollars) AS inside FROM account_balance('user', 'ana');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('inside the transaction the charge counts',
                   (account_balance('user', 'ana')).balance_microdollars, 19990000);
END $$;
\set ECHO queries
ROLLBACK;
\echo
SELECT usd(balance_microdollars) AS after_rollback FROM account_balance('user', 'ana');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('after the rollback it does not',
                   (account_balance('user', 'ana')).balance_microdollars, 19995000);
    PERFORM expect('nor is there a job', (SELECT count(*) FROM demo.research_jobs), 0);
END $$;
\echo 'Nothing is left, not even the key: the same work done again is recorded.'
\echo

\set ECHO queries
BEGIN;
INSERT INTO demo.research_jobs VALUES (1, 'Who makes sodium cells?');
SELECT is_replay, charged_microdollars
FROM record_exa_usage('ana', '/search', 5000, idempotency_key => 'job-1');
COMMIT;
\echo
SELECT usd(balance_microdollars) AS after_commit FROM account_balance('user', 'ana');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('after the commit it stays',
                   (account_balance('user', 'ana')).balance_microdollars, 19990000);
    PERFORM expect('and so does the job', (SELECT count(*) FROM demo.research_jobs), 1);
END $$;

\echo '=== 9. Another rule for one user =============================================='
\echo
\echo 'Carl gets the rule "split": exactly what is beyond the allowance is charged. We'
\echo 'bring him to where Ana stood, at 9.989 of 10 USD, and he makes the same request:'
\echo

\set ECHO queries
\o /dev/null
SELECT set_free_allowance(10000000, :'this_month', 'carl', overage_rule => 'split');
\o
\echo
SELECT count(*) AS requests, usd(sum(cost_microdollars)) AS cost_usd
FROM record_exa_usage_batch(traffic('carl', 9989000));

SELECT usd(cost_microdollars) AS cost, usd(free_microdollars) AS free,
       usd(charged_microdollars) AS charged
FROM record_exa_usage('carl', '/search', 15000);

SELECT usd(balance_microdollars) AS carl_usd FROM account_balance('user', 'carl');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('Carl''s months begin alike', total_cost_microdollars, 9989000 + 15000),
            expect('0.004 USD are charged', total_charged_microdollars, 4000)
    FROM exa_monthly_usage('carl');
    PERFORM expect('Carl owes 0.004 USD', (account_balance('user', 'carl')).balance_microdollars, -4000);
END $$;
\echo 'Carl had no credit and now owes 0.004 USD: what has happened is always recorded.'
\echo 'Refusing is the job of the question before the request.'
\echo
