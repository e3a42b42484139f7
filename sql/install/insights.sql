CREATE FUNCTION exa_billing.cost_insight_activity(
    owner_kind text, owner_id text, filter text DEFAULT 'all', before_event uuid DEFAULT NULL,
    page_size int DEFAULT 20
) RETURNS SETOF exa_billing.insight_activity
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cost_insight_activity_wrapper';
COMMENT ON FUNCTION exa_billing.cost_insight_activity(text, text, text, uuid, int) IS
'What happened to an owner''s spend in the last 90 days, newest first, page_size (1 to 100) events at a time. before_event is the last event of the page before, null for the first page; pages neither overlap nor leave anything out while events come in. filter: all, alerts (anomaly_alert, threshold_crossed, recovered, low_balance), suggestions, reviews or settings (config_changed, disabled). Titles and descriptions are English, made when read; amounts in microdollars. Errors: 22023 bad argument, P0002 before_event is no event of this owner, 55000 without books. Stable; works on a standby. Example: SELECT occurred_at, title, description FROM exa_billing.cost_insight_activity(''user'', ''user-1'', ''alerts'');';

CREATE FUNCTION exa_billing.cost_insights_attention(owner_kind text, owner_id text) RETURNS int
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cost_insights_attention_wrapper';
COMMENT ON FUNCTION exa_billing.cost_insights_attention(text, text) IS
'How much of an owner waits for somebody to look at it: alerts that last and are not reviewed, and open suggestions unless the owner wants none. Errors: 22023 bad argument, 55000 without books. Stable; works on a standby. Example: SELECT exa_billing.cost_insights_attention(''user'', ''user-1'');';

CREATE FUNCTION exa_billing.cost_insights_overview(
    owner_kind text, owner_id text, as_of timestamptz DEFAULT now()
) RETURNS jsonb
LANGUAGE c STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'cost_insights_overview_wrapper';
COMMENT ON FUNCTION exa_billing.cost_insights_overview(text, text, timestamptz) IS
'Everything a page about an owner''s spend shows, as one document on one snapshot: owner, as_of, metrics (current_hour, rolling 24h, 7d and 30d, balance), settings, status, attention, alerts that last, open suggestions, ranges (spend_evidence of 1h, 24h, 7d, 30d and 90d) and the five newest events. Spend and balance are those at as_of; settings, alerts and suggestions are as they are now. Amounts are integers in microdollars, null where nothing is known; times are ISO 8601 in UTC. Errors: 22023 bad argument, 22003 a sum beyond bigint, 55000 without books. Stable; works on a standby. Example: SELECT exa_billing.cost_insights_overview(''user'', ''user-1'') -> ''metrics'';';
