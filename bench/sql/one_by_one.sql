-- The same evaluations owner by owner; all in one transaction, so that no commit is waited for.
SELECT count(*) FROM exa_billing.spend_alert_settings AS s, exa_billing.evaluate_spend_alerts(s.owner_kind, s.owner_id);
