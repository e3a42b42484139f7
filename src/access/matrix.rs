//! Who may call what: the matrix function × role, one row per function of the extension.

/// The kinds of roles that rights are given to. What belongs to none of them belongs to superusers
/// and members of exa_billing_owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The application's own role: asks, records, grants credit, reads.
    Application,
    /// Who looks after the books.
    Operator,
    /// Who reads everything and changes nothing.
    Auditor,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Application, Kind::Operator, Kind::Auditor];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Application => "application",
            Kind::Operator => "operator",
            Kind::Auditor => "auditor",
        }
    }

    pub fn functions(self) -> Vec<&'static str> {
        let may = |row: &&(&str, &[Kind])| row.1.contains(&self);
        MATRIX.iter().filter(may).map(|(function, _)| *function).collect()
    }
}

const NOBODY: &[Kind] = &[];
const APPLICATION: &[Kind] = &[Kind::Application];
const OPERATOR: &[Kind] = &[Kind::Operator];
const READERS: &[Kind] = &[Kind::Application, Kind::Operator, Kind::Auditor];
const INSPECTORS: &[Kind] = &[Kind::Operator, Kind::Auditor];

pub const MATRIX: &[(&str, &[Kind])] = &[
    ("account_balance", READERS),
    ("account_statement", READERS),
    ("adjust_credit", OPERATOR),
    ("attach_spend_source", OPERATOR),
    ("backfill_next_hours", OPERATOR),
    ("backfill_rollups", OPERATOR),
    ("capture_spend", OPERATOR),
    ("check_exa_usage", READERS),
    ("close_out_credits", OPERATOR),
    ("credit_blocks", READERS),
    ("detach_spend_source", OPERATOR),
    ("exa_monthly_usage", READERS),
    ("expire_credits", OPERATOR),
    ("expire_due_credits", OPERATOR),
    ("follow_altered_tables", NOBODY),
    ("grant_application", NOBODY),
    ("grant_auditor", NOBODY),
    ("grant_credit", APPLICATION),
    ("grant_operator", NOBODY),
    ("guard_concurrent_detach", NOBODY),
    ("guard_dropped_objects", NOBODY),
    ("import_opening_balance", OPERATOR),
    ("maintain_partitions", OPERATOR),
    ("post_spend", OPERATOR),
    ("rebuild_rollups", OPERATOR),
    ("recompute_all_balances", OPERATOR),
    ("recompute_baselines", INSPECTORS),
    ("recompute_next_owner", OPERATOR),
    ("recompute_organization_balances", OPERATOR),
    ("recompute_user_balances", OPERATOR),
    ("reconcile_rollups", INSPECTORS),
    ("record_degraded_interval", OPERATOR),
    ("record_exa_response", APPLICATION),
    ("record_exa_usage", APPLICATION),
    ("record_exa_usage_batch", APPLICATION),
    ("record_spend", APPLICATION),
    ("refuse_change", NOBODY),
    ("refuse_direct_change", NOBODY),
    ("refuse_truncate", OPERATOR),
    ("remove_organization_member", OPERATOR),
    ("resolve_degraded_interval", OPERATOR),
    ("retry_blocked_spend", OPERATOR),
    ("rolling_spend", READERS),
    ("set_free_allowance", OPERATOR),
    ("set_organization_member", OPERATOR),
    ("setup", NOBODY),
    ("spend_by_hour", READERS),
    ("spend_evidence", READERS),
    ("spend_series", READERS),
    ("top_spend_drivers", READERS),
    ("verify_books", INSPECTORS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_one_row_in_order() {
        assert!(MATRIX.is_sorted_by(|one, next| one.0 < next.0));
    }

    #[test]
    fn an_auditor_calls_nothing_that_the_others_cannot() {
        for (function, kinds) in MATRIX {
            let auditor = kinds.contains(&Kind::Auditor);
            assert!(!auditor || kinds.contains(&Kind::Operator), "{function}");
        }
    }
}
