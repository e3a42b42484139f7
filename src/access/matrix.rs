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
    /// A customer: reads what row security shows, acts for themselves.
    EndUser,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Application, Kind::Operator, Kind::Auditor, Kind::EndUser];
    /// Who sees everybody's rows.
    pub const STAFF: [Kind; 3] = [Kind::Application, Kind::Operator, Kind::Auditor];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Application => "application",
            Kind::Operator => "operator",
            Kind::Auditor => "auditor",
            Kind::EndUser => "end_user",
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
/// Shows nobody more than their rows.
const EVERYBODY: &[Kind] = &Kind::ALL;
/// Acts for a user: `access::actor` decides for which, and for whom.
const ACTORS: &[Kind] = &[Kind::Application, Kind::EndUser];
const INSPECTORS: &[Kind] = &[Kind::Operator, Kind::Auditor];

pub const MATRIX: &[(&str, &[Kind])] = &[
    ("account_balance", EVERYBODY),
    ("account_statement", EVERYBODY),
    ("acknowledge_spend_alert", ACTORS),
    ("adjust_credit", OPERATOR),
    ("attach_spend_source", OPERATOR),
    ("backfill_next_hours", OPERATOR),
    ("backfill_rollups", OPERATOR),
    ("capture_spend", OPERATOR),
    ("check_exa_usage", READERS),
    ("claim_notifications", APPLICATION),
    ("close_out_credits", OPERATOR),
    ("complete_notification", APPLICATION),
    ("cost_insight_activity", EVERYBODY),
    ("cost_insights_attention", EVERYBODY),
    ("cost_insights_overview", EVERYBODY),
    ("credit_blocks", EVERYBODY),
    ("current_user_id", EVERYBODY),
    ("delete_old_events", OPERATOR),
    ("detach_spend_source", OPERATOR),
    ("dismiss_cost_suggestion", ACTORS),
    ("enable_row_security", NOBODY),
    ("erase_user", OPERATOR),
    ("evaluate_due_owners", OPERATOR),
    ("evaluate_spend_alerts", OPERATOR),
    ("exa_monthly_usage", EVERYBODY),
    ("expire_credits", OPERATOR),
    ("expire_due_credits", OPERATOR),
    ("fail_notification", APPLICATION),
    ("follow_altered_tables", NOBODY),
    ("grant_application", NOBODY),
    ("grant_auditor", NOBODY),
    ("grant_credit", APPLICATION),
    ("grant_end_user", NOBODY),
    ("grant_operator", NOBODY),
    ("guard_concurrent_detach", NOBODY),
    ("guard_dropped_objects", NOBODY),
    ("health_checks", INSPECTORS),
    ("import_opening_balance", OPERATOR),
    ("maintain_partitions", OPERATOR),
    ("managed_organizations", EVERYBODY),
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
    ("rolling_spend", EVERYBODY),
    ("run_maintenance", OPERATOR),
    ("run_maintenance_step", OPERATOR),
    ("run_spend_alert_sweep", OPERATOR),
    ("set_free_allowance", OPERATOR),
    ("set_organization_member", OPERATOR),
    ("setup", NOBODY),
    ("spend_alert_settings", EVERYBODY),
    ("spend_by_hour", EVERYBODY),
    ("spend_evidence", EVERYBODY),
    ("spend_series", EVERYBODY),
    ("start_worker", NOBODY),
    ("stop_worker", NOBODY),
    ("top_spend_drivers", EVERYBODY),
    ("update_spend_alert_settings", ACTORS),
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
    fn a_kind_has_a_name_and_the_functions_of_its_rows() {
        assert_eq!(Kind::ALL.map(Kind::as_str), ["application", "operator", "auditor", "end_user"]);
        for (function, kinds) in MATRIX {
            for kind in Kind::ALL {
                let may = kind.functions().contains(function);
                assert_eq!(may, kinds.contains(&kind), "{function} {kind:?}");
            }
        }
        assert!(Kind::EndUser.functions().contains(&"account_balance"));
        assert!(!Kind::EndUser.functions().contains(&"grant_credit"));
    }

    #[test]
    fn an_auditor_calls_nothing_that_the_others_cannot() {
        for (function, kinds) in MATRIX {
            let auditor = kinds.contains(&Kind::Auditor);
            assert!(!auditor || kinds.contains(&Kind::Operator), "{function}");
        }
    }

    #[test]
    fn an_end_user_calls_nothing_that_the_application_cannot() {
        for (function, kinds) in MATRIX {
            let end_user = kinds.contains(&Kind::EndUser);
            assert!(!end_user || kinds.contains(&Kind::Application), "{function}");
        }
    }
}
