//! `record_exa_response`: the cost and the key come from Exa's own answer.

use super::record::record;
use super::request::Arguments;
use crate::books;
use crate::error::{BillingError, Result};
use crate::money::{self, UsdProblem};
use crate::owner::{self, quoted};
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

#[derive(Debug, Default, Clone)]
struct Fields {
    response_type: Option<String>,
    cost_type: Option<String>,
    total_type: Option<String>,
    total: Option<String>,
    id_type: Option<String>,
    id: Option<String>,
}

impl Fields {
    fn read(response: Json) -> Result<Self> {
        let fields = FIELDS.read_row(values![response], |row| {
            Ok(Self {
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

    /// The cost in microdollars; nothing when the answer bears none.
    fn cost(&self) -> Result<Option<i64>> {
        if self.response_type.as_deref() != Some("object") {
            return Err(BillingError::invalid("response must be a JSON object"));
        }
        if !matches!(self.cost_type.as_deref(), None | Some("null" | "object")) {
            return Err(BillingError::invalid("costDollars must be a JSON object"));
        }
        match self.total_type.as_deref() {
            None | Some("null") => Ok(None),
            Some("number") => {
                let total = self.total.as_deref().unwrap_or_default();
                match money::microdollars_of_usd(total) {
                    Ok(0) => Ok(None),
                    Ok(cost) => Ok(Some(cost)),
                    Err(problem) => Err(refused_total(problem, total)),
                }
            }
            Some(_) => Err(BillingError::invalid("costDollars.total must be a JSON number")),
        }
    }

    /// The request's own id, when it can serve as a key.
    fn request_id(&self) -> Option<&str> {
        let text = self.id.as_deref().filter(|_| self.id_type.as_deref() == Some("string"));
        text.filter(|text| owner::idempotency_key(Some(text)).is_ok())
    }
}

fn refused_total(problem: UsdProblem, total: &str) -> BillingError {
    let message = match problem {
        UsdProblem::NotADecimal => "costDollars.total is not a finite number",
        UsdProblem::Negative => "costDollars.total must not be negative",
        UsdProblem::RoundsToZero => "costDollars.total is less than half a microdollar",
        UsdProblem::TooLarge => "costDollars.total is too large",
    };
    BillingError::invalid(message).detail(format!("It is {}.", quoted(total)))
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
    let fields = Fields::read(response.ok_or_else(|| BillingError::missing("response"))?)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(total_type: Option<&str>, total: Option<&str>) -> Fields {
        Fields {
            response_type: Some("object".to_owned()),
            cost_type: Some("object".to_owned()),
            total_type: total_type.map(str::to_owned),
            total: total.map(str::to_owned),
            ..Fields::default()
        }
    }

    #[test]
    fn costs_are_read_exactly_or_refused() {
        assert_eq!(fields(Some("number"), Some("0.0049995")).cost(), Ok(Some(5_000)));
        assert_eq!(fields(Some("number"), Some("0.0")).cost(), Ok(None));
        assert_eq!(fields(Some("null"), None).cost(), Ok(None));
        assert_eq!(fields(None, None).cost(), Ok(None));
        for (kind, total) in
            [("string", "0.005"), ("number", "-1"), ("number", "0.0000001"), ("boolean", "true")]
        {
            assert!(fields(Some(kind), Some(total)).cost().is_err(), "{kind} {total}");
        }
        let huge = format!("1{}", "0".repeat(400));
        assert!(fields(Some("number"), Some(&huge)).cost().is_err());
        let array = Fields { response_type: Some("array".to_owned()), ..Fields::default() };
        assert!(array.cost().is_err());
        let text = Fields { cost_type: Some("string".to_owned()), ..fields(None, None) };
        assert!(text.cost().is_err());
    }

    #[test]
    fn only_a_usable_request_id_is_a_key() {
        let with_id = |kind: &str, id: &str| Fields {
            id_type: Some(kind.to_owned()),
            id: Some(id.to_owned()),
            ..Fields::default()
        };
        assert_eq!(with_id("string", "req_1").request_id(), Some("req_1"));
        assert_eq!(with_id("string", "").request_id(), None);
        assert_eq!(with_id("string", "req_1 ").request_id(), None);
        assert_eq!(with_id("number", "17").request_id(), None);
        assert_eq!(with_id("string", &"r".repeat(256)).request_id(), None);
    }
}
