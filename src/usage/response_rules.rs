//! What an Exa answer says of its cost and its key.

use crate::error::{BillingError, Result};
use crate::money::{self, UsdProblem};
use crate::owner::{self, quoted};

/// The few fields that matter: of each its JSON type, of total and id the text too, that of a number
/// written out in full.
#[derive(Debug, Default, Clone)]
pub struct Fields {
    pub response_type: Option<String>,
    pub cost_type: Option<String>,
    pub total_type: Option<String>,
    pub total: Option<String>,
    pub id_type: Option<String>,
    pub id: Option<String>,
}

impl Fields {
    /// The cost in microdollars; nothing when the answer bears none.
    pub fn cost(&self) -> Result<Option<i64>> {
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
    pub fn request_id(&self) -> Option<&str> {
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
