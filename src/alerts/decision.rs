//! What the figures of one owner lead to.

use super::policy::{self, AnomalyPolicy, FLOOR_MICRODOLLARS, History, Step};
use super::settings_rules::{Settings, WINDOWS};
use crate::events::AlertKind;
use crate::time::Instant;
use std::collections::BTreeMap;
use uuid::Uuid;

/// What is amiss now, by kind.
pub type Episodes = BTreeMap<AlertKind, Episode>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    pub event_id: Uuid,
    pub threshold: i64,
    /// The hour of an anomaly.
    pub hour: Option<Instant>,
}

/// What is known of an owner before its spend is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub settings: Settings,
    pub episodes: Episodes,
    pub last_anomaly_hour: Option<Instant>,
}

/// An owner's spend, all of it on one snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// In the order of `WINDOWS`; only those that have a threshold need be right.
    pub totals: [i64; 3],
    /// Variable spend of the current UTC hour before the instant of the evaluation.
    pub current_hour: i64,
    /// The same of the hour just completed.
    pub previous_hour: i64,
    /// Only where `Standing::needs_history` says so.
    pub history: History,
}

/// Something an owner has to be told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// `is_newest`: it becomes the episode, in the place of an older one.
    Anomaly {
        hour: Instant,
        amount: i64,
        policy: AnomalyPolicy,
        is_newest: bool,
    },
    /// The window's place in `WINDOWS`.
    Crossed {
        window: usize,
        total: i64,
        threshold: i64,
    },
    Recovered {
        window: usize,
        total: i64,
        episode: Episode,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub findings: Vec<Finding>,
    /// Episodes that are over; a finding may begin a new one of the same kind.
    pub ended: Vec<AlertKind>,
}

/// When an evaluation takes place, and whether it looks back at the hour just completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    pub as_of: Instant,
    pub looks_back: bool,
}

impl Moment {
    /// The hours in which an anomaly is looked for, oldest first.
    fn hours(self, figures: &Figures) -> Vec<(Instant, i64)> {
        let current = self.as_of.hour_start();
        let previous = (current.plus_hours(-1), figures.previous_hour);
        let hours = [self.looks_back.then_some(previous), Some((current, figures.current_hour))];
        hours.into_iter().flatten().collect()
    }
}

impl Standing {
    fn wants_anomalies(&self) -> bool {
        self.settings.spend_alerts && self.settings.anomaly_alerts
    }

    /// The threshold of each window that is looked at.
    pub fn thresholds(&self) -> [Option<i64>; 3] {
        if self.settings.spend_alerts { self.settings.thresholds } else { [None; 3] }
    }

    /// The hour of the anomaly that lasts.
    pub fn anomaly_hour(&self) -> Option<Instant> {
        self.episodes.get(&AlertKind::Anomaly).and_then(|episode| episode.hour)
    }

    /// Whether what is usual matters: only when something might be unusual, or was.
    pub fn needs_history(&self, moment: Moment, figures: &Figures) -> bool {
        let may_be_unusual =
            || moment.hours(figures).iter().any(|(_, amount)| *amount >= FLOOR_MICRODOLLARS);
        self.wants_anomalies() && (self.anomaly_hour().is_some() || may_be_unusual())
    }

    pub fn decide(&self, moment: Moment, figures: &Figures) -> Decision {
        let mut decision = Decision::default();
        if self.wants_anomalies() {
            self.decide_on_anomalies(moment, figures, &mut decision);
        }
        for (window, threshold) in self.thresholds().into_iter().enumerate() {
            let Some(threshold) = threshold else { continue };
            let (kind, total) = (WINDOWS[window].0, figures.totals[window]);
            let episode = self.episodes.get(&kind);
            match (policy::step(total, threshold, episode.is_some()), episode) {
                (Step::Fire, _) => {
                    decision.findings.push(Finding::Crossed { window, total, threshold });
                }
                (Step::Recover, Some(episode)) => {
                    let episode = episode.clone();
                    decision.findings.push(Finding::Recovered { window, total, episode });
                    decision.ended.push(kind);
                }
                _ => {}
            }
        }
        decision
    }

    fn decide_on_anomalies(&self, moment: Moment, figures: &Figures, decision: &mut Decision) {
        if let Some(hour) = self.anomaly_hour()
            && figures.history.has_calmed_down(hour, moment.as_of.hour_start())
        {
            decision.ended.push(AlertKind::Anomaly);
        }
        for (hour, amount) in moment.hours(figures) {
            // An hour that was found unusual once is not told of again, also after it was reviewed.
            if amount < FLOOR_MICRODOLLARS || self.last_anomaly_hour == Some(hour) {
                continue;
            }
            let policy = figures.history.policy_for(hour);
            if amount >= policy.threshold {
                let is_newest = self.last_anomaly_hour.is_none_or(|last| last < hour);
                decision.findings.push(Finding::Anomaly { hour, amount, policy, is_newest });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    const USD: i64 = 1_000_000;

    fn noon() -> Instant {
        utc(2026, 6, 15, 12, 0)
    }

    fn moment(looks_back: bool) -> Moment {
        Moment { as_of: noon().plus_microseconds(1), looks_back }
    }

    fn standing() -> Standing {
        let settings = Settings {
            spend_alerts: true,
            thresholds: [Some(10 * USD), None, Some(30 * USD)],
            ..Settings::default()
        };
        Standing { settings, episodes: Episodes::new(), last_anomaly_hour: None }
    }

    /// A hundred hours of 1 … 100 USD before noon.
    fn figures(current_hour: i64) -> Figures {
        let variable = (1..=100).map(|hour| (noon().plus_hours(hour - 101), hour * USD)).collect();
        let first_spend_hour = Some(noon().plus_hours(-100));
        let history = History { first_spend_hour, known_from: Some(Instant(0)), variable };
        Figures { current_hour, history, ..Figures::default() }
    }

    fn episode(hour: Option<Instant>) -> Episode {
        Episode { event_id: Uuid::nil(), threshold: 10 * USD, hour }
    }

    #[test]
    fn an_unusual_hour_is_told_of_once() {
        let mut standing = standing();
        assert_eq!(standing.decide(moment(false), &figures(285 * USD - 1)), Decision::default());
        let found = standing.decide(moment(false), &figures(285 * USD)).findings;
        let policy = AnomalyPolicy { history_hours: 100, baseline: 95 * USD, threshold: 285 * USD };
        let unusual = Finding::Anomaly { hour: noon(), amount: 285 * USD, policy, is_newest: true };
        assert_eq!(found, [unusual]);
        standing.last_anomaly_hour = Some(noon());
        assert_eq!(standing.decide(moment(false), &figures(900 * USD)), Decision::default());
        standing.last_anomaly_hour = None;
        standing.settings.anomaly_alerts = false;
        assert_eq!(standing.decide(moment(false), &figures(900 * USD)), Decision::default());
    }

    #[test]
    fn nothing_below_the_floor_is_unusual_and_the_floor_itself_may_be() {
        let quiet = |current_hour| {
            let variable = BTreeMap::new();
            let history = History { variable, ..figures(0).history };
            Figures { current_hour, history, ..Figures::default() }
        };
        let mut standing = standing();
        for (amount, is_found) in
            [(FLOOR_MICRODOLLARS - 1, false), (FLOOR_MICRODOLLARS, true), (99 * USD, true)]
        {
            let figures = quiet(amount);
            assert_eq!(standing.needs_history(moment(false), &figures), is_found, "{amount}");
            let found = standing.decide(moment(false), &figures).findings.len();
            assert_eq!(found, usize::from(is_found), "{amount}");
        }
        // An anomaly of an earlier hour makes it no older than it is.
        standing.last_anomaly_hour = Some(noon().plus_hours(-1));
        let found = standing.decide(moment(false), &quiet(99 * USD)).findings;
        assert!(matches!(found[..], [Finding::Anomaly { is_newest: true, .. }]));
        standing.settings.anomaly_alerts = false;
        standing.episodes.insert(AlertKind::Anomaly, episode(Some(noon())));
        assert!(!standing.needs_history(moment(false), &quiet(99 * USD)));
    }

    #[test]
    fn an_older_hour_is_told_of_but_takes_no_newer_ones_place() {
        let before = noon().plus_hours(-1);
        let mut standing = standing();
        standing.last_anomaly_hour = Some(noon());
        standing.episodes.insert(AlertKind::Anomaly, episode(Some(noon())));
        let mut figures = figures(900 * USD);
        figures.history.variable.insert(before, 400 * USD);
        figures.previous_hour = 400 * USD;
        let decision = standing.decide(moment(true), &figures);
        let found: Vec<_> = decision.findings.iter().collect();
        assert!(
            matches!(found[..], [Finding::Anomaly { hour, is_newest: false, .. }] if *hour == before)
        );
        assert_eq!(standing.decide(moment(false), &figures), Decision::default());
    }

    #[test]
    fn an_anomaly_lasts_until_an_hour_after_it_was_calm() {
        let mut standing = standing();
        let before = noon().plus_hours(-2);
        standing.last_anomaly_hour = Some(before);
        standing.episodes.insert(AlertKind::Anomaly, episode(Some(before)));
        assert!(standing.needs_history(moment(false), &figures(0)));
        let decision = standing.decide(moment(false), &figures(0));
        assert_eq!((decision.ended, decision.findings.len()), (vec![AlertKind::Anomaly], 0));
        let mut busy = figures(0);
        busy.history.variable.insert(noon().plus_hours(-1), 900 * USD);
        assert_eq!(standing.decide(moment(false), &busy), Decision::default());
    }

    #[test]
    fn windows_are_independent() {
        let mut standing = standing();
        standing.episodes.insert(AlertKind::Threshold30d, episode(None));
        let totals = [10 * USD, 99 * USD, 30 * USD - 1];
        let decision = standing.decide(moment(false), &Figures { totals, ..Figures::default() });
        let crossed = Finding::Crossed { window: 0, total: 10 * USD, threshold: 10 * USD };
        let recovered =
            Finding::Recovered { window: 2, total: 30 * USD - 1, episode: episode(None) };
        assert_eq!(decision.findings, [crossed, recovered]);
        assert_eq!(decision.ended, [AlertKind::Threshold30d]);
        standing.settings.spend_alerts = false;
        let decision = standing.decide(moment(true), &Figures { totals, ..figures(900 * USD) });
        assert_eq!(decision, Decision::default());
    }

    proptest! {
        #[test]
        fn deciding_again_on_the_same_figures_finds_nothing(
            totals in prop::array::uniform3(0..60 * USD),
            current in 0..600 * USD,
            previous in 0..600 * USD,
            looks_back: bool,
        ) {
            let mut standing = standing();
            let mut figures = figures(current);
            figures.previous_hour = previous;
            figures.history.variable.insert(noon().plus_hours(-1), previous);
            figures.totals = totals;
            let first = standing.decide(moment(looks_back), &figures);
            for kind in &first.ended {
                standing.episodes.remove(kind);
            }
            let mut told = Vec::new();
            for finding in &first.findings {
                match finding {
                    Finding::Anomaly { hour, is_newest, .. } => {
                        told.push(*hour);
                        if *is_newest {
                            standing.last_anomaly_hour = Some(*hour);
                            standing.episodes.insert(AlertKind::Anomaly, episode(Some(*hour)));
                        }
                    }
                    Finding::Crossed { window, .. } => {
                        standing.episodes.insert(WINDOWS[*window].0, episode(None));
                    }
                    Finding::Recovered { .. } => {}
                }
            }
            let mut second = standing.decide(moment(looks_back), &figures);
            // The books keep one event per owner and hour; a finding they know already is dropped.
            second.findings.retain(|finding| {
                !matches!(finding, Finding::Anomaly { hour, .. } if told.contains(hour))
            });
            prop_assert_eq!(second.findings, Vec::new());
        }
    }
}
