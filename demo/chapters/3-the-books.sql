-- Chapters 10 to 12: purchases, posting, and where the money went.

\echo '=== 10. Buying something out of credit ========================================'
\echo
\echo 'Spend other than Exa is recorded with record_spend(). With require_balance it is a'
\echo 'purchase: the account is locked, and the exact balance must cover it.'
\echo

\set ECHO queries
SELECT charged_microdollars, usd(charged_microdollars)
FROM record_spend('user', 'ana', 15000000, 'scheduled', 'coding_plan', 'coding-plan',
                  model_or_plan_key => 'pro', idempotency_key => 'pro-plan-1',
                  require_balance => true);

SELECT usd(balance_microdollars) AS ana_usd FROM account_balance('user', 'ana');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('the plan is paid: 4.99 USD left',
                   (account_balance('user', 'ana')).balance_microdollars, 4990000);
END $$;
\echo 'A second plan is more than she has. This call has to fail:'
\echo

\set ON_ERROR_STOP off
\set ECHO queries
SELECT record_spend('user', 'ana', 15000000, 'scheduled', 'coding_plan', 'coding-plan',
                    model_or_plan_key => 'pro', idempotency_key => 'pro-plan-2',
                    require_balance => true);
\set ECHO none
\set ON_ERROR_STOP on
SELECT expect('the second plan is refused', :'SQLSTATE', '53400') \g /dev/null
DO $$
DECLARE told text;
BEGIN
    PERFORM record_spend('user', 'ana', 15000000, 'scheduled', 'coding_plan', 'coding-plan',
                         model_or_plan_key => 'pro', idempotency_key => 'pro-plan-2', require_balance => true);
EXCEPTION WHEN SQLSTATE '53400' THEN
    GET STACKED DIAGNOSTICS told = PG_EXCEPTION_DETAIL;
    PERFORM expect('it says how much is there', told LIKE '%4990000%15000000%');
END $$;
DO $$ BEGIN
    PERFORM expect('a refused purchase takes nothing',
                   (account_balance('user', 'ana')).balance_microdollars, 4990000);
END $$;

\echo
\echo '=== 11. Posting changes no figure ============================================='
\echo
\echo 'A charge only appends: to its journal and to a queue. A background worker posts the'
\echo 'queue into balances, counters and hourly totals, several times a second. Whoever'
\echo 'reads gets posted plus waiting, so a figure is exact whether it was posted or not.'
\echo 'It works where somebody has started it, so that a copy of the database stays quiet:'
\echo
\set ECHO queries
\o /dev/null
SELECT start_worker();
\o
\set ECHO none
\echo
\echo 'Acme has hired Bob and Carl, and they are busy; so is Ana, for herself. All this is'
\echo 'one transaction, so that the worker does not get there before us. acme_posted is'
\echo 'what the table holds, acme_exact what everybody reads, and demo.figures lists every'
\echo 'figure there is.'
\echo
-- What came before is posted first, by the worker or by us.
DO $$ BEGIN
    FOR attempt IN 1..300 LOOP
        PERFORM post_spend();
        EXIT WHEN NOT EXISTS (SELECT FROM unposted_spend);
        PERFORM pg_sleep(0.1);
    END LOOP;
    PERFORM expect('nothing waits', (SELECT count(*) FROM unposted_spend), 0);
END $$;
CREATE VIEW demo.figures AS
SELECT 'balance' AS figure, concat_ws(' / ', owner_kind, owner_id) AS of_what,
       total_microdollars_acquired AS amount, microdollars_used AS another
FROM account_balances
UNION ALL
SELECT 'month', concat_ws(' / ', user_id, organization_id, month, request_count),
       total_cost_microdollars, total_charged_microdollars
FROM exa_monthly_usage_current
UNION ALL
SELECT 'hour', concat_ws(' / ', owner_kind, owner_id, hour_start, spend_category),
       total_microdollars, spend_record_count
FROM spend_hourly
UNION ALL
SELECT 'driver', concat_ws(' / ', owner_kind, owner_id, hour_start, spend_category, source, product_key,
                           feature_key, model_or_plan_key, provider_key, actor_user_id),
       total_microdollars, spend_record_count
FROM spend_drivers_hourly;
COMMENT ON VIEW demo.figures IS 'Every figure of the books that anybody can read, in one list.';

\set ECHO queries
\o /dev/null
SELECT set_organization_member('acme', 'bob', 'owner');
SELECT set_organization_member('acme', 'carl', 'member');
\o
\echo
BEGIN;
SELECT count(*) AS requests, usd(sum(charged_microdollars)) AS charged_usd
FROM record_exa_usage_batch(
    traffic('bob', 1250000, 'acme', hours_back => 3) ||
    traffic('carl', 600000, 'acme', '/answer', hours_back => 3) ||
    traffic('ana', 150000, hours_back => 3));

CREATE TEMP TABLE figures_before AS TABLE demo.figures;
\echo
SELECT (SELECT count(*) FROM unposted_spend) AS waiting,
       usd(p.microdollars_used) AS acme_posted, usd(e.microdollars_used) AS acme_exact
FROM accounts AS p, account_balance('organization', 'acme') AS e
WHERE p.owner_id = 'acme';

SELECT post_spend();

SELECT (SELECT count(*) FROM unposted_spend) AS waiting,
       usd(p.microdollars_used) AS acme_posted, usd(e.microdollars_used) AS acme_exact
FROM accounts AS p, account_balance('organization', 'acme') AS e
WHERE p.owner_id = 'acme';
\set ECHO none
\echo 'What is different now? Of all balances, months, hours and drivers not one:'
\echo
\pset footer on
\set ECHO queries
(TABLE figures_before EXCEPT TABLE demo.figures)
UNION ALL
(TABLE demo.figures EXCEPT TABLE figures_before);
\set ECHO none
\pset footer off
DO $$ BEGIN
    PERFORM expect('there were figures to compare', (SELECT count(*) > 10 FROM figures_before));
    PERFORM expect('none is gone or changed', count(*), 0)
    FROM (TABLE figures_before EXCEPT TABLE demo.figures) AS gone;
    PERFORM expect('none is new', count(*), 0)
    FROM (TABLE demo.figures EXCEPT TABLE figures_before) AS new;
    PERFORM expect('the queue is empty', (SELECT count(*) FROM unposted_spend), 0);
    PERFORM expect('Acme: 0.02 + 1.25 + 0.6 USD, posted', microdollars_used, 20000 + 1250000 + 600000)
    FROM accounts WHERE owner_id = 'acme';
END $$;
\set ECHO queries
COMMIT;
\set ECHO none

\echo
\echo '=== 12. Where the money went =================================================='
\echo

\set ECHO queries
SELECT owner_id AS paid_by, actor_user_id AS spent_by, product_key AS product,
       feature_key AS feature, sum(spend_record_count) AS records,
       usd(sum(total_microdollars))
FROM spend_drivers_hourly
GROUP BY 1, 2, 3, 4
ORDER BY sum(total_microdollars) DESC, 1, 2
LIMIT 5;

SELECT owner_kind, owner_id, usd(total_microdollars_acquired) AS acquired_usd,
       usd(microdollars_used) AS used_usd, usd(balance_microdollars) AS left_usd
FROM account_balances ORDER BY owner_kind, owner_id;
\set ECHO none
DO $$ BEGIN
    PERFORM expect('the largest drivers',
        (SELECT string_agg(driver, ', ') FROM (
            SELECT concat_ws(' ', owner_id, actor_user_id, feature_key, sum(total_microdollars)) AS driver
            FROM spend_drivers_hourly GROUP BY owner_id, actor_user_id, product_key, feature_key
            ORDER BY sum(total_microdollars) DESC LIMIT 3) AS top),
        'ana ana other 15000000, acme bob search 1250000, acme carl answer 600000');
    PERFORM expect('all accounts, in microdollars',
        (SELECT string_agg(owner_id || ' ' || balance_microdollars, ', ' ORDER BY owner_id) FROM account_balances),
        'acme 48130000, ana 4840000, carl -4000');
    PERFORM expect('drivers are the accounts'' use',
        (SELECT sum(total_microdollars) FROM spend_drivers_hourly),
        (SELECT sum(microdollars_used) FROM account_balances));
END $$;
