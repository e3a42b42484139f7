-- Queues charges that a journal has captured: $1 entry ids, $2 … $13 the columns of
-- sources::columns, $14 the journal's name. A combination of dimensions that is not known yet goes
-- along as text, so that no writer waits for one.
INSERT INTO exa_billing.unposted_spend
    (owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars,
     amount_microdollars, spend_record_count, dimension_id, dimension, blocked_reason, created_at, transaction_id)
SELECT c.owner_kind, c.owner_id, c.entry_id, $14,
       CASE WHEN c.owner_kind <> 'user' THEN c.actor_user_id END, NULL, c.amount, c.records,
       d.dimension_id,
       CASE WHEN d.dimension_id IS NULL THEN ARRAY[c.spend_category, c.source, c.product_key,
            c.feature_key, c.model_or_plan_key, c.provider_key] END,
       NULL, c.hour_start, pg_current_xact_id()
FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    AS c(entry_id, owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
         model_or_plan_key, provider_key, actor_user_id, amount, records)
LEFT JOIN exa_billing.spend_dimensions AS d
    ON d.spend_category = c.spend_category AND d.source = c.source AND d.product_key = c.product_key
   AND d.feature_key = c.feature_key AND d.model_or_plan_key = c.model_or_plan_key
   AND d.provider_key = c.provider_key
