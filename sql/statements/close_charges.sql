-- Rows of spend_log that take the place of an attached table's rows: $1 ids, $2 … $13 the columns of
-- sources::columns, $14 when the last of each row's charges happened, $15 the source as it was given.
-- They are not queued: what they stand for was. They count as recorded when they happened, as the
-- rows did that they stand for: a closing row of credit is no less settled by them.
INSERT INTO exa_billing.spend_log
    (spend_id, owner_kind, owner_id, actor_user_id, spend_category, source, product_key, feature_key,
     model_or_plan_key, provider_key, amount_microdollars, spend_record_count, created_at, recorded_at)
SELECT c.spend_id, c.owner_kind, c.owner_id, c.actor_user_id, c.spend_category, $15, c.product_key,
       c.feature_key, c.model_or_plan_key, c.provider_key, c.amount, c.records, c.last_at, c.last_at
FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    AS c(spend_id, owner_kind, owner_id, hour_start, spend_category, source, product_key, feature_key,
         model_or_plan_key, provider_key, actor_user_id, amount, records, last_at)
