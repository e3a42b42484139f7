-- Ninety days of spend to look at: one user, and one organization whose three members act for it.
--
--   psql -X -d some_empty_database -f examples/seed.sql
--
-- As superuser, in a database whose books are empty or not made yet; any other is refused, and so
-- is a second run. Everything follows from fixed formulae over hour and member: amounts, counts and
-- rankings are the same whenever it runs, only the times end with the hour before the present one.

\set ON_ERROR_STOP on
\set QUIET on
\pset pager off
\pset null '(unknown)'

SET search_path = exa_billing, pg_catalog;
-- The first charge happened ninety days ago.
SET exa_billing.late_usage_limit = '100d';

CREATE EXTENSION IF NOT EXISTS exa_billing;

BEGIN;
SELECT setup() AS storage_version \gset
SELECT count(*) AS months FROM maintain_partitions() \gset

DO $$
BEGIN
    IF EXISTS (SELECT FROM exa_billing.accounts)
       OR EXISTS (SELECT FROM exa_billing.exa_usage_log)
       OR EXISTS (SELECT FROM exa_billing.spend_log)
       OR EXISTS (SELECT FROM exa_billing.credit_transactions)
       OR EXISTS (SELECT FROM exa_billing.unposted_spend)
       OR EXISTS (SELECT FROM exa_billing.organization_members)
       OR EXISTS (SELECT FROM exa_billing.spend_sources WHERE NOT is_own)
       OR EXISTS (SELECT FROM exa_billing.spend_degraded_intervals)
       OR EXISTS (SELECT FROM exa_billing.free_allowances) THEN
        RAISE EXCEPTION 'the books of this database have rows already'
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = 'Load the example into a database of its own.';
    END IF;
END
$$;

-- The hours, and how busy each is in tenths: nights are quiet, noons are not, every seventh day is
-- a day off, and there is a little more of everything as the weeks go by.
CREATE TEMPORARY TABLE seed_hours ON COMMIT DROP AS
SELECT n, date_trunc('hour', now(), 'UTC') - (2160 - n) * interval '1 hour' AS hour_start,
       CASE WHEN n / 24 % 7 = 6 THEN 1
            WHEN n % 24 BETWEEN 8 AND 17 THEN 8 - abs(n % 24 - 12)
            WHEN n % 24 BETWEEN 18 AND 21 THEN 2
            ELSE 0 END * (10 + n / 240) / 10 AS busy
FROM generate_series(0, 2159) AS n;

-- Who acts, on whose account, how much more or less than others.
CREATE TEMPORARY TABLE seed_actors (owner_kind text, owner_id text, user_id text, share int, pace int)
ON COMMIT DROP;
INSERT INTO seed_actors VALUES
    ('user', 'ada', 'ada', 3, 2),
    ('organization', 'acme', 'grace', 5, 1),
    ('organization', 'acme', 'linus', 4, 2),
    ('organization', 'acme', 'margaret', 2, 3);

CREATE TEMPORARY TABLE seed_models (i int, model text, provider text, price int) ON COMMIT DROP;
INSERT INTO seed_models VALUES
    (0, 'anthropic/claude-sonnet-4', 'anthropic', 9400),
    (1, 'openai/gpt-5-mini', 'openai', 1300),
    (2, 'google/gemini-2.5-flash', 'google', 700),
    (3, 'anthropic/claude-opus-4', 'anthropic', 48000);

-- Members, and credit: a grant at the beginning, another every thirty days, one that expires. With
-- a free allowance the charges would depend on where in its month each day lies, so there is none.
SELECT set_free_allowance(0, '2020-01-01') \g /dev/null
SELECT set_organization_member('acme', 'grace', 'owner'),
       set_organization_member('acme', 'linus', 'member', 25000000),
       set_organization_member('acme', 'margaret', 'billing_manager', 10000000) \g /dev/null
SELECT grant_credit('user', 'ada', 150000000, description => 'Top-up ' || (1 + n / 720),
                    created_at => hour_start),
       grant_credit('organization', 'acme', 700000000, description => 'Top-up ' || (1 + n / 720),
                    created_at => hour_start)
FROM seed_hours WHERE n % 720 = 0 ORDER BY n \g /dev/null
SELECT grant_credit('organization', 'acme', 50000000, hour_start + interval '60 days', 'promotion',
                    'Welcome', true, created_at => hour_start)
FROM seed_hours WHERE n = 0 \g /dev/null

-- Models: as many requests an hour as it is busy, at a price times the length of the answer. The
-- dearest model is asked once in eleven times.
SELECT count(record_spend(
           a.owner_kind, a.owner_id, m.price * (1 + (h.n * 7 + r * 13 + a.share) % 17), 'variable',
           'ai_gateway', CASE WHEN r % 4 = 3 THEN 'code-review' ELSE 'assistant' END,
           'chat_completions', m.model, m.provider, a.user_id,
           created_at => h.hour_start + (r * 337 + a.share * 11) % 3600 * interval '1 second'
                         + h.n * interval '1 microsecond')) AS model_requests
FROM seed_hours AS h
CROSS JOIN seed_actors AS a
CROSS JOIN LATERAL generate_series(1, h.busy * a.share / (a.pace + 2)) AS r
JOIN seed_models AS m ON m.i = CASE WHEN (h.n + r) % 11 = 0 THEN 3 ELSE (h.n * 3 + r + a.pace) % 3 END
\gset

-- Searches: some in every busy hour.
SELECT count(record_exa_usage(
           a.user_id, (ARRAY['/search', '/contents', '/answer'])[1 + (h.n + r) % 3],
           (ARRAY[5000, 1000, 5000])[1 + (h.n + r) % 3] * (1 + r % 2),
           CASE a.owner_kind WHEN 'organization' THEN a.owner_id END,
           created_at => h.hour_start + (r * 613 + a.share * 29) % 3600 * interval '1 second',
           feature_id => 'research')) AS searches
FROM seed_hours AS h
CROSS JOIN seed_actors AS a
CROSS JOIN LATERAL generate_series(1, h.busy / 3) AS r
WHERE (h.n + a.share) % 2 = 0
\gset

-- Plans: every thirty days.
SELECT count(record_spend('user', 'ada', 20000000, 'scheduled', 'coding_plan', 'coding-plan', 'subscription',
                          'pro', created_at => hour_start + interval '5 minutes'))
     + count(record_spend('organization', 'acme', 60000000, 'scheduled', 'coding_plan', 'coding-plan',
                          'subscription', 'team', created_at => hour_start + interval '5 minutes'))
     + count(record_spend('organization', 'acme', 45000000, 'scheduled', 'kiloclaw', 'kiloclaw', 'hosting',
                          'large', created_at => hour_start + interval '6 minutes')) AS plan_charges
FROM seed_hours WHERE n % 720 = 9 \gset

COMMIT;

-- Into the shared figures, until nothing waits.
DO $$
BEGIN
    WHILE exa_billing.post_spend(1000000) > 0 LOOP
    END LOOP;
END
$$;

-- The books were made this hour; let the rollups answer for the ninety days before it as well.
SET client_min_messages = warning;
CALL backfill_rollups(date_trunc('hour', now(), 'UTC') - interval '90 days', date_trunc('hour', now(), 'UTC'),
                      dry_run => false);
RESET client_min_messages;

VACUUM ANALYZE;

\echo
\echo 'Recorded (nothing waits, nothing is violated):'
SELECT :model_requests AS model_requests, :searches AS searches, :plan_charges AS plan_charges,
       (SELECT count(*) FROM unposted_spend) AS unposted, (SELECT count(*) FROM verify_books()) AS violations;

\echo 'Balances:'
SELECT owner_kind, owner_id, b.total_microdollars_acquired, b.microdollars_used, b.balance_microdollars
FROM (VALUES ('organization', 'acme'), ('user', 'ada')) AS o(owner_kind, owner_id),
     account_balance(owner_kind, owner_id) AS b;

\echo 'Spend of the organization in the last 24 hours, 7, 30 and 90 days:'
SELECT span, r.*
FROM (VALUES (interval '24 hours'), ('7 days'), ('30 days'), ('90 days')) AS s(span),
     rolling_spend('organization', 'acme', span, date_trunc('hour', now(), 'UTC')) AS r;

\echo 'Its ninety days, week by week:'
SELECT bucket_start, covered_hours, total_hours, total_microdollars, variable_microdollars, scheduled_microdollars
FROM spend_series('organization', 'acme', '90d');

\echo 'What the money went on in the last seven days:'
SELECT spend_category, product_key, model_or_plan_key, actor_user_id, total_microdollars, spend_record_count
FROM top_spend_drivers('organization', 'acme', date_trunc('hour', now(), 'UTC') - interval '7 days',
                       date_trunc('hour', now(), 'UTC'));

\echo 'The user''s last seven days as a document for a language model, without its series:'
\pset format unaligned
\pset tuples_only on
SELECT jsonb_pretty(spend_evidence('user', 'ada', '7d') - 'series');
