CREATE FUNCTION exa_billing.spend_alert_settings(owner_kind text, owner_id text)
RETURNS exa_billing.alert_settings
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'spend_alert_settings_wrapper';
COMMENT ON FUNCTION exa_billing.spend_alert_settings(text, text) IS
'What an owner wants to be told of; an owner who never said has the defaults: no spend alerts, anomalies among them once they are enabled, suggestions, no thresholds, no minimum balance. Amounts in microdollars. Writes nothing. Errors: 22023 bad argument, 55000 without books. Stable; works on a standby. Example: SELECT * FROM exa_billing.spend_alert_settings(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.update_spend_alert_settings(
    owner_kind text, owner_id text, changes jsonb, actor_user_id text,
    as_of timestamptz DEFAULT clock_timestamp()
) RETURNS exa_billing.changed_alert_settings
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'update_spend_alert_settings_wrapper';
COMMENT ON FUNCTION exa_billing.update_spend_alert_settings(text, text, jsonb, text, timestamptz) IS
'Changes what an owner wants to be told of; what changes does not name stays. Keys: spend_alerts_enabled, anomaly_alerts_enabled, cost_suggestions_enabled (true or false); threshold_24h_microdollars, threshold_7d_microdollars, threshold_30d_microdollars, minimum_balance_microdollars (whole numbers above zero; null: none), each also as a text in USD with at most two decimals, such as threshold_24h_usd (empty: none). Where spend alerts are enabled after the change, the owner is evaluated at once; should that fail, the settings stand and evaluation_pending says so. A new threshold is a new alert. Disabling keeps the values, ends what is amiss and leaves an event; a change while disabled only saves. The minimum balance does not depend on spend_alerts_enabled. Errors: 22023 bad argument or key, before anything is written; 42501 not this actor, or an end user with an as_of before the transaction. Volatile. Example: SELECT * FROM exa_billing.update_spend_alert_settings(''user'', ''user-1'', ''{"spend_alerts_enabled": true, "threshold_24h_usd": "25.50"}'', ''user-1'');';

CREATE FUNCTION exa_billing.evaluate_spend_alerts(
    owner_kind text, owner_id text, as_of timestamptz DEFAULT clock_timestamp()
) RETURNS exa_billing.evaluation_summary
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'evaluate_spend_alerts_wrapper';
COMMENT ON FUNCTION exa_billing.evaluate_spend_alerts(text, text, timestamptz) IS
'Evaluates one owner as of an instant: alerts if they are enabled, and suggestions. An anomaly is a UTC hour whose variable spend reaches three times the 95th percentile of the owner''s completed hours among the last 168, at least 10 USD; with fewer than 24 such hours, 25 USD. A threshold is crossed when the spend of the last 24 hours, 7 days or 30 days reaches it, to the microsecond, and again after it has fallen below. Waits for others who evaluate the owner or change its settings. Errors: 22023 bad argument or an as_of later than the clock, 55000 as_of before the owner''s last evaluation. An evaluation that fails is reported, counted and queued. Volatile. Example: SELECT * FROM exa_billing.evaluate_spend_alerts(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.evaluate_due_owners(
    as_of timestamptz DEFAULT clock_timestamp(), max_owners int DEFAULT 1000
) RETURNS exa_billing.evaluation_summary
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'evaluate_due_owners_wrapper';
COMMENT ON FUNCTION exa_billing.evaluate_due_owners(timestamptz, int) IS
'Evaluates up to max_owners (1 to 100000) owners that were charged exa_billing.evaluation_delay ago or longer and not evaluated since; those first that wait longest. Who is being evaluated by somebody else is skipped and stays due. One whose evaluation fails delays no other and is tried again after growing pauses. The background worker calls it. Errors: 22023 bad argument or an as_of later than the clock. Volatile. Example: SELECT * FROM exa_billing.evaluate_due_owners();';

CREATE FUNCTION exa_billing.run_spend_alert_sweep(
    as_of timestamptz DEFAULT clock_timestamp(), max_owners int DEFAULT 10000
) RETURNS exa_billing.evaluation_summary
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'run_spend_alert_sweep_wrapper';
COMMENT ON FUNCTION exa_billing.run_spend_alert_sweep(timestamptz, int) IS
'Evaluates the next max_owners (1 to 100000) owners who have settings or have spent lately, also for the UTC hour just completed: what changes with time alone is found by this, once an hour. Call it again until complete; then the next call begins anew. One sweep at a time: a second one at once does nothing and is not complete. The background worker calls it. Errors: 22023 bad argument or an as_of later than the clock. Volatile. Example: SELECT * FROM exa_billing.run_spend_alert_sweep();';

CREATE FUNCTION exa_billing.acknowledge_spend_alert(event_id uuid, actor_user_id text)
RETURNS boolean
LANGUAGE c VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'acknowledge_spend_alert_wrapper';
COMMENT ON FUNCTION exa_billing.acknowledge_spend_alert(uuid, text) IS
'Says that somebody has seen an alert. An anomaly is over with that; a threshold stays crossed until the spend has fallen below. True when this call acknowledged it; false, and nothing changed, when it was acknowledged before or is over. Errors: 22023 bad argument, 42501 not this actor, P0002 no such event of anybody the actor answers for. Volatile. Example: SELECT exa_billing.acknowledge_spend_alert(event_id, ''user-1'') FROM exa_billing.spend_alert_episodes WHERE owner_id = ''user-1'';';
