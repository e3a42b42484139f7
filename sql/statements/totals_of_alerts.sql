-- As totals.sql, for what books have from storage version 2 on: what owners want to be told of, what is
-- amiss, and who still has to hear of it.
SELECT 'hash of the alert settings',
       sum(hash_record_extended(ROW(owner_kind, owner_id, spend_alerts_enabled, anomaly_alerts_enabled,
                                    cost_suggestions_enabled, threshold_24h_microdollars,
                                    threshold_7d_microdollars, threshold_30d_microdollars), 0))::text
FROM exa_billing.spend_alert_settings
UNION ALL
SELECT 'hash of the alerts',
       sum(hash_record_extended(ROW(owner_kind, owner_id, alert_kind, event_id, started_at, reviewed_at), 0))::text
FROM exa_billing.spend_alert_episodes
UNION ALL
SELECT 'hash of the suggestions',
       sum(hash_record_extended(ROW(suggestion_id, owner_kind, owner_id, target, status), 0))::text
FROM exa_billing.cost_suggestions
UNION ALL
SELECT 'hash of the deliveries',
       sum(hash_record_extended(ROW(delivery_id, event_id, recipient_user_id, status), 0))::text
FROM exa_billing.notification_deliveries
UNION ALL
SELECT 'events', count(*)::text
FROM exa_billing.cost_insight_events
