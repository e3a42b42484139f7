-- Chapters 14 to 16: hearing of unusual spend, telling people, and who sees whose rows.

\echo
\echo '=== 14. Hearing of it in time ================================================='
\echo
\echo 'Bob owns Acme, Olga pays its bills. They top up, and want to hear of 25.50 USD in 24'
\echo 'hours, and of a balance below 20 USD:'
\echo
\set ECHO queries
\o /dev/null
SELECT set_organization_member('acme', 'olga', 'billing_manager');
SELECT grant_credit('organization', 'acme', 50000000);
\o
SELECT fired, evaluation_pending
FROM update_spend_alert_settings('organization', 'acme', '{
    "spend_alerts_enabled": true, "threshold_24h_usd": "25.50", "minimum_balance_usd": "20"}', 'olga');
\set ECHO none
\echo 'An agent of Carl''s runs wild: 88 USD on one model. The charge knows nothing of alerts;'
\echo 'posting and an evaluation follow (the background worker does both by itself):'
\echo
\set ECHO queries
\o /dev/null
SELECT record_spend('organization', 'acme', 88000000, 'variable', 'ai_gateway', 'gateway',
                    model_or_plan_key => 'minimax/minimax-m3', provider_key => 'minimax', actor_user_id => 'carl');
SELECT post_spend();
\o
SELECT evaluated, fired FROM evaluate_spend_alerts('organization', 'acme');
SELECT evaluated, fired FROM evaluate_spend_alerts('organization', 'acme');

SELECT event_type, alert_kind, title, usd(amount_microdollars)
FROM cost_insight_activity('organization', 'acme', 'alerts') ORDER BY event_type;
\set ECHO none
DO $$ BEGIN
    PERFORM expect('an unusual hour, a threshold and a low balance, each told once',
        (SELECT string_agg(event_type, ', ' ORDER BY event_type)
         FROM cost_insight_activity('organization', 'acme', 'alerts')),
        'anomaly_alert, low_balance, threshold_crossed');
    PERFORM expect('two alerts and a suggestion want attention', cost_insights_attention('organization', 'acme'), 3);
END $$;
\echo 'Evaluated twice, told once. And Acme could pay less per use: the rules for that are'
\echo 'rows of suggestion_rules.'
\echo
\set ECHO queries
SELECT content ->> 'title' AS title, usd(observed_microdollars) AS usd_in_7_days, content ->> 'benefit_label' AS offer
FROM cost_suggestions WHERE owner_id = 'acme';

SELECT acknowledge_spend_alert(event_id, 'olga') AS acknowledged
FROM cost_insight_activity('organization', 'acme', 'alerts') WHERE event_type = 'anomaly_alert';
SELECT cost_insights_attention('organization', 'acme') AS still_open;
\set ECHO none
DO $$ BEGIN
    PERFORM expect('one suggestion', (SELECT count(*) FROM cost_suggestions WHERE owner_id = 'acme'), 1);
    PERFORM expect('one alert less', cost_insights_attention('organization', 'acme'), 2);
END $$;

\echo
\echo '=== 15. The mailer ============================================================'
\echo
\echo 'Each alert left one delivery for Bob and one for Olga, in its own transaction. A'
\echo 'mailer claims them; what it does not complete in time is handed out again:'
\echo
\set ECHO queries
SELECT recipient_user_id, event_type, attempt, complete_notification(delivery_id, claim_token) AS sent
FROM claim_notifications(10) ORDER BY 1, 2;
\set ECHO none
DO $$ BEGIN
    PERFORM expect('three alerts for two people', (SELECT count(*) FROM notification_deliveries WHERE status = 'sent'), 6);
    PERFORM expect('none is left', (SELECT count(*) FROM claim_notifications(10)), 0);
END $$;

\echo
\echo '=== 16. Whose rows ============================================================'
\echo
\echo 'Behind a web page, people may ask the books themselves. The application says who they'
\echo 'are; row security does the rest. Bob sees Acme, Carl does not:'
\echo
DO $$ BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'exa_billing_demo_user') THEN
        CREATE ROLE exa_billing_demo_user;
    END IF;
END $$;
GRANT USAGE ON SCHEMA demo TO exa_billing_demo_user;
\set ECHO queries
\o /dev/null
SELECT enable_row_security();
SELECT grant_end_user('exa_billing_demo_user');
\o
BEGIN;
SET LOCAL exa_billing.user_id = 'bob';
SET LOCAL ROLE exa_billing_demo_user;
SELECT owner_id, usd(balance_microdollars) FROM account_balances;
COMMIT;
BEGIN;
SET LOCAL exa_billing.user_id = 'carl';
SET LOCAL ROLE exa_billing_demo_user;
SELECT owner_id, usd(balance_microdollars) FROM account_balances;
COMMIT;
\set ECHO none
DO $$
DECLARE
    seen text;
BEGIN
    PERFORM set_config('exa_billing.user_id', 'bob', true);
    SET LOCAL ROLE exa_billing_demo_user;
    seen := (SELECT string_agg(owner_id, ', ' ORDER BY owner_id) FROM exa_billing.account_balances);
    RESET ROLE;
    PERFORM expect('Bob sees Acme and nobody else', seen, 'acme');
    PERFORM set_config('exa_billing.user_id', 'carl', true);
    SET LOCAL ROLE exa_billing_demo_user;
    seen := (SELECT string_agg(owner_id, ', ') FROM exa_billing.account_balances);
    RESET ROLE;
    PERFORM expect('Carl sees nothing of Acme', coalesce(seen, '') !~ 'acme');
END $$;
