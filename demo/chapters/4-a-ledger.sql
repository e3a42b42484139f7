-- Chapter 13: a table of the application becomes a journal.

\echo
\echo '=== 13. A ledger of your own =================================================='
\echo
\echo 'The application keeps a table of its LLM requests anyway. Attached, it is a journal:'
\echo 'whoever writes to it charges, in the same transaction, without calling anything.'
\echo
\set ECHO queries
CREATE TABLE demo.llm_usage (
    id bigint PRIMARY KEY, kilo_user_id text NOT NULL, organization_id text,
    cost bigint, model text, requested_model text, provider text, created_at timestamptz NOT NULL);
CREATE INDEX ON demo.llm_usage (kilo_user_id, created_at);
CREATE INDEX ON demo.llm_usage (organization_id, created_at);

SELECT attach_spend_source('llm', 'demo.llm_usage', 'variable', 'ai_gateway', '{
    "user_id": "kilo_user_id", "organization_id": "organization_id",
    "amount": "cost", "created_at": "created_at",
    "product_key": {"value": "gateway"}, "provider_key": "provider",
    "model_or_plan_key": {"columns": ["requested_model", "model"]}}') AS captured;
\set ECHO none
\echo 'Carl asks three models for Acme. One request is then corrected, one is taken back:'
\echo
\set ECHO queries
INSERT INTO demo.llm_usage VALUES
    (1, 'carl', 'acme', 410000, 'claude-sonnet-4-20250514', 'anthropic/claude-sonnet-4', 'anthropic', clock_timestamp()),
    (2, 'carl', 'acme', 95000, 'gpt-5-mini', NULL, 'openai', clock_timestamp()),
    (3, 'carl', 'acme', 30000, 'gpt-5-mini', NULL, 'openai', clock_timestamp());
UPDATE demo.llm_usage SET cost = 90000 WHERE id = 2;
DELETE FROM demo.llm_usage WHERE id = 3;

SELECT usd(balance_microdollars) AS acme_usd FROM account_balance('organization', 'acme');

SELECT product_key, feature_key, model_or_plan_key, actor_user_id, usd(total_microdollars), spend_record_count AS records
FROM top_spend_drivers('organization', 'acme', clock_timestamp() - interval '1 hour', clock_timestamp() + interval '1 minute',
                       'variable');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('Acme paid 0.41 + 0.09 USD for models', (account_balance('organization', 'acme')).balance_microdollars,
                   48130000 - 500000);
    PERFORM expect('both requests are drivers',
        (SELECT string_agg(model_or_plan_key || ' ' || total_microdollars, ', ')
         FROM top_spend_drivers('organization', 'acme', clock_timestamp() - interval '1 hour',
                                clock_timestamp() + interval '1 minute')
         WHERE product_key = 'gateway'),
        'anthropic/claude-sonnet-4 410000, gpt-5-mini 90000');
END $$;
\echo 'What it went on in any window is exact, to the microsecond; a rolled-back request was'
\echo 'never spent:'
\echo
\set ECHO queries
BEGIN;
INSERT INTO demo.llm_usage VALUES (4, 'carl', 'acme', 7000000, 'gpt-5', NULL, 'openai', now());
ROLLBACK;

SELECT usd(variable_microdollars) AS variable_usd, spend_record_count AS records
FROM rolling_spend('organization', 'acme', '30 days', clock_timestamp());
\set ECHO none
DO $$ BEGIN
    PERFORM expect('the window adds up to the account',
        (SELECT total_microdollars FROM rolling_spend('organization', 'acme', '60 days', clock_timestamp())),
        (account_balance('organization', 'acme')).microdollars_used);
END $$;
\echo 'Detached, the table goes; what was spent stays:'
\echo
\set ECHO queries
SELECT detach_spend_source('llm') AS closing_rows;
DROP TABLE demo.llm_usage;
SELECT usd(balance_microdollars) AS acme_usd FROM account_balance('organization', 'acme');
\set ECHO none
DO $$ BEGIN
    PERFORM expect('nothing has changed', (account_balance('organization', 'acme')).balance_microdollars, 47630000);
END $$;
