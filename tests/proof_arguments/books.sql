-- What every round begins with: a few owners with a past, rows posted and not, alerts, suggestions and
-- deliveries in every state, tables to attach, and relations that are none.
SET TIME ZONE 'UTC';
SELECT exa_billing.setup();
SELECT exa_billing.enable_row_security();
SELECT exa_billing.grant_application('application'), exa_billing.grant_operator('operator'),
       exa_billing.grant_auditor('auditor'), exa_billing.grant_end_user('web');
SELECT exa_billing.start_worker();

CREATE TEMP TABLE users AS SELECT u, n FROM unnest(ARRAY[
    'ann', 'bob', 'cat', 'dan', 'acme', 'o''brien', 'a b', '👩‍🚀', '%s%n', 'null', E'x\\y', '{"a":1}'
]) WITH ORDINALITY AS t(u, n);
CREATE TEMP TABLE owners AS
    SELECT 'user' AS kind, u AS id, n FROM users
    UNION ALL SELECT 'organization', o, 20 + n FROM unnest(ARRAY['acme', 'umbrella', 'org"1"', 'ann'])
        WITH ORDINALITY AS t(o, n);

SELECT exa_billing.set_free_allowance(200000, '2020-01-01', overage_rule => 'split');
SELECT exa_billing.set_free_allowance(0, '2020-01-01', 'bob'), exa_billing.set_free_allowance(5000, '2020-01-01', 'cat', 'whole');
SELECT exa_billing.set_organization_member('acme', 'ann', 'owner'),
       exa_billing.set_organization_member('acme', 'bob', 'billing_manager'),
       exa_billing.set_organization_member('acme', 'cat', 'member', 900000),
       exa_billing.set_organization_member('umbrella', 'dan', 'owner'),
       exa_billing.set_organization_member('umbrella', 'cat', 'member'),
       exa_billing.set_organization_member('org"1"', 'o''brien', 'owner', 0);
SELECT exa_billing.grant_credit(kind, id, 700000 * n, now() + n * interval '1 day', 'promo', 'welcome', true, 'key-' || n,
                                now() - interval '30 days') FROM owners;
SELECT exa_billing.grant_credit(kind, id, 90000 + n, now() - n * interval '1 hour', created_at => now() - interval '20 days')
    FROM owners;
SELECT exa_billing.adjust_credit(kind, id, -n, 'a correction', 'key-a' || n) FROM owners WHERE n % 2 = 0;
SELECT exa_billing.record_exa_usage(u, '/search', 30000 + n, idempotency_key => 'key-' || h,
                                    created_at => now() - h * interval '11 hours')
    FROM users, generate_series(1, 12) AS h;
SELECT exa_billing.record_exa_usage('cat', '/answer', 7000, 'acme', created_at => now() - h * interval '5 hours')
    FROM generate_series(0, 9) AS h;
SELECT exa_billing.record_spend(kind, id, 30000000, 'variable', 'ai_gateway', 'llm', 'chat', 'minimax/minimax-m3', 'minimax',
                                'cat', 'key-s' || h, now() - h * interval '7 hours')
    FROM owners, generate_series(1, 5) AS h WHERE id IN ('ann', 'acme');
SELECT exa_billing.record_spend(kind, id, 1000 + n, 'scheduled', 'coding_plan', 'plan', created_at => now() - interval '3 days')
    FROM owners;
SELECT exa_billing.update_spend_alert_settings(kind, id,
           '{"spend_alerts_enabled": true, "threshold_24h_usd": "0.05", "minimum_balance_usd": "5"}', 'ann')
    FROM owners WHERE n % 3 > 0;
-- More than bigint holds: that owner's rows are set aside, and go on being counted.
SELECT count(*) FROM exa_billing.record_exa_usage_batch((
    SELECT jsonb_agg(jsonb_build_object('user_id', 'rich', 'path', '/x', 'cost_microdollars', 9007199254740991))
    FROM generate_series(1, 1100)));
DO $$ BEGIN WHILE exa_billing.post_spend() > 0 LOOP END LOOP; END $$;
SELECT exa_billing.run_spend_alert_sweep();
SELECT count(*) FROM exa_billing.claim_notifications(5);
SELECT exa_billing.fail_notification(delivery_id, claim_token, 'mailbox busy') FROM exa_billing.claim_notifications(2);
SELECT exa_billing.complete_notification(delivery_id, claim_token) FROM exa_billing.claim_notifications(2);
SELECT exa_billing.expire_credits('user', 'dan');
SELECT exa_billing.record_degraded_interval('2026-01-01Z', '2026-01-02Z', 'restored', kind, id) FROM owners WHERE n < 3;
SELECT exa_billing.record_degraded_interval(date_trunc('hour', now()) - interval '9 hours', date_trunc('hour', now()), 'by hand');
SELECT exa_billing.record_exa_usage(u, '/contents', 90000 + n) FROM users;

CREATE TABLE public.ledger_1 (id bigint, who text, org text, cost bigint, at timestamptz, model text, done boolean,
                              ref uuid, small smallint, note numeric, gone int);
ALTER TABLE public.ledger_1 DROP COLUMN gone;
CREATE INDEX ON public.ledger_1 (who, at);
INSERT INTO public.ledger_1
    SELECT n, CASE WHEN n % 3 > 0 THEN 'ann' END, CASE WHEN n % 3 = 0 THEN 'acme' END, n * 1000 - 2000,
           now() - n * interval '1 hour', CASE WHEN n % 2 = 0 THEN '%s' || repeat('x', 200) END, n % 2 = 0, NULL, n, n
    FROM generate_series(1, 40) AS n;
CREATE TABLE public.ledger_2 (LIKE public.ledger_1 INCLUDING ALL);
INSERT INTO public.ledger_2 VALUES (1, NULL, NULL, 5, now()), (2, 'ann', NULL, 7, 'infinity'), (3, '', NULL, 9007199254740993, now());
CREATE TABLE public."led""ger '3'" (LIKE public.ledger_1 INCLUDING ALL);
CREATE TABLE public.ledger_4 (LIKE public.ledger_1 INCLUDING ALL) PARTITION BY RANGE (id);
CREATE TABLE public.ledger_4_part PARTITION OF public.ledger_4 FOR VALUES FROM (0) TO (1000);
INSERT INTO public.ledger_4 SELECT * FROM public.ledger_1;
CREATE TABLE public.ledger_5 (LIKE public.ledger_1 INCLUDING ALL);
SELECT exa_billing.attach_spend_source('taken', 'public.ledger_5', 'variable', 'other',
    '{"user_id": "who", "organization_id": "org", "amount": "cost", "created_at": "at"}');
INSERT INTO public.ledger_5 (id, who, cost, at) VALUES (1, 'ann', 5000, now()), (2, 'bob', 6000, now());
CREATE TABLE public.ledger_6 (LIKE public.ledger_1 INCLUDING ALL);
ALTER TABLE public.ledger_6 OWNER TO operator;

CREATE VIEW public.odd_view AS SELECT * FROM public.ledger_1;
CREATE MATERIALIZED VIEW public.odd_matview AS SELECT * FROM public.ledger_1;
CREATE SEQUENCE public.odd_sequence;
CREATE TYPE public.odd_composite AS (who text, cost bigint, at timestamptz);
CREATE UNLOGGED TABLE public.odd_unlogged (LIKE public.ledger_1);
CREATE TABLE public.odd_parent (LIKE public.ledger_1);
CREATE TABLE public.odd_child () INHERITS (public.odd_parent);
CREATE TABLE public.odd_empty ();
CREATE TABLE public.odd_generated (who text, cost bigint, twice bigint GENERATED ALWAYS AS (cost * 2) STORED, at timestamptz);
CREATE TABLE public.odd_forced (LIKE public.ledger_1);
ALTER TABLE public.odd_forced ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE TABLE public.odd_subpartitioned (id bigint, who text, org text, cost bigint, at timestamptz) PARTITION BY LIST (who);
CREATE TABLE public.odd_subpartition PARTITION OF public.odd_subpartitioned DEFAULT PARTITION BY HASH (id);
CREATE FOREIGN DATA WRAPPER odd_wrapper;
CREATE SERVER odd_server FOREIGN DATA WRAPPER odd_wrapper;
CREATE FOREIGN TABLE public.odd_foreign (who text, org text, cost bigint, at timestamptz) SERVER odd_server;
