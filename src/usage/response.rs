//! `record_exa_response`: the cost and the key come from Exa's own answer.

use super::record::record;
use super::request::Arguments;
use super::response_rules::Fields;
use crate::books;
use crate::error::{BillingError, Result};
use crate::spi::{Answer, Composite, Json, Statement, values};
use crate::time::Instant;
use pgrx::prelude::*;

/// The few fields that matter, as PostgreSQL keeps them: a number is a `numeric`, so its text is
/// exact, and a large answer is never copied as a whole.
static FIELDS: Statement = Statement::kept(
    "SELECT jsonb_typeof($1), jsonb_typeof($1 -> 'costDollars'),
            jsonb_typeof($1 #> '{costDollars,total}'), $1 #>> '{costDollars,total}',
            jsonb_typeof($1 -> 'requestId'), $1 ->> 'requestId'",
);

fn read(response: Json) -> Result<Fields> {
    let fields = FIELDS.read_row(values![response], |row| {
        Ok(Fields {
            response_type: row.maybe(1)?,
            cost_type: row.maybe(2)?,
            total_type: row.maybe(3)?,
            total: row.maybe(4)?,
            id_type: row.maybe(5)?,
            id: row.maybe(6)?,
        })
    })?;
    Ok(fields.unwrap_or_default())
}

/// Records the request an Exa answer belongs to; NULL when the answer bears no cost.
#[pg_extern(sql = false)]
#[allow(clippy::too_many_arguments, reason = "the SQL signature is the contract")]
fn record_exa_response(
    user_id: Option<&str>,
    path: Option<&str>,
    response: Option<Json>,
    organization_id: Option<&str>,
    idempotency_key: Option<&str>,
    created_at: Option<Instant>,
    feature_id: Option<&str>,
    request_type: Option<&str>,
) -> Answer<Option<Composite>> {
    let fields = read(response.ok_or_else(|| BillingError::missing("response"))?)?;
    let cost = fields.cost()?;
    let arguments = Arguments {
        user_id,
        path,
        cost_microdollars: Some(cost.unwrap_or(0)),
        organization_id,
        idempotency_key: idempotency_key.or(fields.request_id()),
        created_at,
        feature_id,
        request_type,
    };
    let request = arguments.check()?;
    if cost.is_none() {
        return Ok(None);
    }
    books::enter_for_writing("exa_billing.record_exa_response()")?;
    Ok(Some(record(&request)?.into_row()))
}
