//! Which storage version of the books a function needs: until `setup()` is called, a new library works on
//! the books that there are.

/// The version that brought alerts, events, deliveries and suggestions.
pub const WITH_ALERTS: i32 = 2;
/// The version that brought what background work remembers.
pub const WITH_JOBS: i32 = 3;

/// Functions that look at tables which the first version of the books did not have. What is not named
/// here works on books of every version, charging and its figures above all.
const LATER: [(i32, &[&str]); 2] = [
    (
        WITH_ALERTS,
        &[
            "acknowledge_spend_alert",
            "complete_notification",
            "cost_insight_activity",
            "cost_insights_attention",
            "cost_insights_overview",
            "delete_old_events",
            "dismiss_cost_suggestion",
            "evaluate_due_owners",
            "evaluate_spend_alerts",
            "fail_notification",
            "run_spend_alert_sweep",
            "spend_alert_settings",
            "update_spend_alert_settings",
        ],
    ),
    // erase_user for the guard that lets descriptions go, which setup() brought with that version.
    (
        WITH_JOBS,
        &["claim_notifications", "erase_user", "run_maintenance", "start_worker", "stop_worker"],
    ),
];

/// The storage version that a function needs, named as errors name it: `exa_billing.name()`.
pub fn version_for(function: &str) -> i32 {
    let name = function.strip_prefix("exa_billing.").unwrap_or(function);
    let name = name.strip_suffix("()").unwrap_or(name);
    let later = LATER.iter().find(|(_, functions)| functions.contains(&name));
    later.map_or(1, |(version, _)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charging_needs_the_first_version_only() {
        for function in ["record_exa_usage", "check_exa_usage", "post_spend", "grant_credit"] {
            assert_eq!(version_for(&format!("exa_billing.{function}()")), 1, "{function}");
        }
    }

    #[test]
    fn a_function_is_known_by_its_name() {
        assert_eq!(version_for("exa_billing.spend_alert_settings()"), WITH_ALERTS);
        assert_eq!(version_for("exa_billing.start_worker()"), WITH_JOBS);
        assert_eq!(version_for("exa_billing worker"), 1);
    }

    #[test]
    fn each_function_is_named_once_and_in_order() {
        let named: Vec<&str> =
            LATER.iter().flat_map(|(_, functions)| *functions).copied().collect();
        for (_, functions) in LATER {
            assert!(functions.is_sorted_by(|one, next| one < next));
        }
        for name in &named {
            assert_eq!(named.iter().filter(|other| *other == name).count(), 1, "{name}");
        }
    }
}
