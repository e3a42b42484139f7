//! The words for what can happen.

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($variant),* }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }

            /// The word as the books have it.
            pub fn from_books(word: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

words! {
    /// What an event is about.
    EventType {
        ConfigChanged = "config_changed",
        AnomalyAlert = "anomaly_alert",
        ThresholdCrossed = "threshold_crossed",
        Recovered = "recovered",
        AlertReviewed = "alert_reviewed",
        SuggestionCreated = "suggestion_created",
        SuggestionDismissed = "suggestion_dismissed",
        LowBalance = "low_balance",
        Disabled = "disabled",
    }
}

words! {
    /// What an owner can be alerted of; each has an episode of its own.
    AlertKind {
        Anomaly = "anomaly",
        Threshold24h = "threshold_24h",
        Threshold7d = "threshold_7d",
        Threshold30d = "threshold_30d",
    }
}

words! {
    SuggestionKind {
        CodingPlan = "coding_plan",
        KiloPass = "kilo_pass",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_found_again() {
        for &kind in EventType::ALL {
            assert_eq!(EventType::from_books(kind.as_str()), Some(kind));
        }
        assert_eq!(AlertKind::from_books("threshold_7d"), Some(AlertKind::Threshold7d));
        assert_eq!(SuggestionKind::from_books("plan"), None);
    }
}
