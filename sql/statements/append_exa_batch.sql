-- The charges of a batch: journal and queue, all rows at once. Arrays: $1 usage ids, $2 users,
-- $3 organizations, $4 paths, $5 costs, $6 charged, $7 features, $8 request types, $9 times,
-- $12 dimensions; the same for all rows: $10 recorded_at, $11 the journal's name.
WITH entries AS MATERIALIZED (
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $12)
        AS e(usage_id, user_id, organization_id, path, cost, charged, feature_id, request_type,
             created_at, dimension_id)
), journaled AS (
    INSERT INTO exa_billing.exa_usage_log
        (usage_id, user_id, organization_id, path, cost_microdollars, charged_microdollars,
         charged_to_balance, feature_id, request_type, created_at, recorded_at)
    SELECT usage_id, user_id, organization_id, path, cost, charged, charged > 0, feature_id,
           request_type, created_at, $10
    FROM entries
)
INSERT INTO exa_billing.unposted_spend
    (owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars,
     amount_microdollars, spend_record_count, dimension_id, dimension, blocked_reason, created_at, transaction_id)
SELECT CASE WHEN organization_id IS NULL THEN 'user' ELSE 'organization' END,
       coalesce(organization_id, user_id), usage_id, $11,
       CASE WHEN organization_id IS NOT NULL THEN user_id END, cost, charged, (charged > 0)::int,
       dimension_id, NULL, NULL, created_at, pg_current_xact_id()
FROM entries
