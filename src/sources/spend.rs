//! Appending to `spend_log`: the journal row and its queue row.

use super::{Dimension, SPEND};
use crate::error::Result;
use crate::owner::Owner;
use crate::spi::{Statement, values};
use crate::time::Instant;
use uuid::Uuid;

/// One charge that is not an Exa request.
pub struct NewSpend<'a> {
    pub id: Uuid,
    pub owner: &'a Owner,
    pub actor_user_id: Option<&'a str>,
    /// As given; the dimension has it normalised.
    pub source: &'a str,
    pub dimension: &'a Dimension,
    pub amount: i64,
    pub created_at: Instant,
    pub recorded_at: Instant,
}

/// A combination of dimensions that is not known yet goes along as text, so that a charge never
/// waits for one.
static APPEND: Statement = Statement::kept(
    "WITH journaled AS (
         INSERT INTO exa_billing.spend_log
             (spend_id, owner_kind, owner_id, actor_user_id, spend_category, source, product_key,
              feature_key, model_or_plan_key, provider_key, amount_microdollars,
              spend_record_count, created_at, recorded_at)
         VALUES ($1, $2, $3, $4, $5, $6, $8, $9, $10, $11, $12, 1, $13, $14)
     ), wanted AS (
         SELECT ARRAY[$5, $7, $8, $9, $10, $11] AS parts
     )
     INSERT INTO exa_billing.unposted_spend
         (owner_kind, owner_id, entry_id, journal, actor_user_id, cost_microdollars,
          amount_microdollars, spend_record_count, dimension_id, dimension, blocked_reason, created_at,
          transaction_id)
     SELECT $2, $3, $1, $15, CASE WHEN $2 <> 'user' OR $4 <> $3 THEN $4 END, NULL, $12, 1,
            d.dimension_id, CASE WHEN d.dimension_id IS NULL THEN wanted.parts END, NULL, $13,
            pg_catalog.pg_current_xact_id()
     FROM wanted
     LEFT JOIN exa_billing.spend_dimensions AS d
         ON d.spend_category = $5 AND d.source = $7 AND d.product_key = $8 AND d.feature_key = $9
        AND d.model_or_plan_key = $10 AND d.provider_key = $11",
);

pub fn append_spend(spend: &NewSpend) -> Result<()> {
    let dimension = spend.dimension;
    APPEND.execute(values![
        spend.id,
        spend.owner.kind.as_str(),
        &spend.owner.id,
        spend.actor_user_id,
        dimension.category,
        spend.source,
        dimension.source,
        &dimension.product,
        &dimension.feature,
        &dimension.model_or_plan,
        &dimension.provider,
        spend.amount,
        spend.created_at,
        spend.recorded_at,
        SPEND
    ])
}
