//! Which events a reader asks for.

use crate::error::{BillingError, Result};
use crate::events::EventType;
use crate::owner::quoted;

const ALERTS: &[EventType] = &[
    EventType::AnomalyAlert,
    EventType::ThresholdCrossed,
    EventType::Recovered,
    EventType::LowBalance,
];
const SUGGESTIONS: &[EventType] = &[EventType::SuggestionCreated, EventType::SuggestionDismissed];
const REVIEWS: &[EventType] = &[EventType::AlertReviewed];
const SETTINGS: &[EventType] = &[EventType::ConfigChanged, EventType::Disabled];

/// The types of events that go by a name.
pub fn parse(filter: Option<&str>) -> Result<&'static [EventType]> {
    match filter {
        Some("all") => Ok(EventType::ALL),
        Some("alerts") => Ok(ALERTS),
        Some("suggestions") => Ok(SUGGESTIONS),
        Some("reviews") => Ok(REVIEWS),
        Some("settings") => Ok(SETTINGS),
        None => Err(BillingError::missing("filter")),
        Some(unknown) => Err(BillingError::invalid("filter is not known")
            .detail(format!("filter is {}.", quoted(unknown)))
            .hint("Give 'all', 'alerts', 'suggestions', 'reviews' or 'settings'.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_found_under_one_name_and_under_all() {
        for event_type in EventType::ALL {
            let names = ["alerts", "suggestions", "reviews", "settings"];
            let found = names.iter().filter(|name| parse(Some(name)).unwrap().contains(event_type));
            assert_eq!(found.count(), 1, "{event_type:?}");
        }
        assert_eq!(parse(Some("all")).unwrap().len(), EventType::ALL.len());
        for unknown in [None, Some(""), Some("All"), Some("alert")] {
            assert!(parse(unknown).is_err(), "{unknown:?}");
        }
    }
}
