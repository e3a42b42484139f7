//! The rules of alerts over a plain list of charges.

use std::collections::{BTreeMap, BTreeSet};

pub const HOUR: i64 = 3_600_000_000;
const USD: i64 = 1_000_000;
pub const WINDOWS: [(&str, i64); 3] = [("24h", 24), ("7d", 168), ("30d", 720)];

pub struct Charge {
    pub owner: usize,
    pub is_variable: bool,
    pub is_attached: bool,
    /// Zero once it was taken back.
    pub amount: i64,
    /// In microseconds since the midnight of the books.
    pub at: i64,
}

#[derive(Clone, Default)]
pub struct Settings {
    pub is_enabled: bool,
    pub wants_anomalies: bool,
    pub thresholds: [Option<i64>; 3],
}

/// An owner as the last evaluation left it.
#[derive(Clone, Default)]
pub struct Owner {
    pub settings: Settings,
    /// The settings before a change that is being made.
    before: Settings,
    /// Hour and threshold of the anomaly that lasts.
    pub anomaly: Option<(i64, i64)>,
    hours_told: BTreeSet<i64>,
    newest_hour: Option<i64>,
    /// Threshold by window.
    crossed: BTreeMap<usize, i64>,
}

pub enum Told {
    Anomaly { owner: usize, hour: i64, amount: i64, threshold: i64, baseline: i64, history: usize },
    Crossed { owner: usize, window: usize, total: i64, threshold: i64 },
    Recovered { owner: usize, window: usize, total: i64, threshold: i64 },
}

impl Told {
    pub fn is_recovery(&self) -> bool {
        matches!(self, Told::Recovered { .. })
    }

    pub fn line(&self, id: impl Fn(usize) -> String) -> String {
        match self {
            Told::Anomaly { owner, hour, amount, threshold, baseline, history } => {
                let seconds = hour / 1_000_000;
                format!(
                    "{} anomaly_alert {seconds} {amount} {threshold} {baseline} {history}",
                    id(*owner)
                )
            }
            Told::Crossed { owner, window, total, threshold } => {
                format!(
                    "{} threshold_crossed {} {total} {threshold}",
                    id(*owner),
                    WINDOWS[*window].0
                )
            }
            Told::Recovered { owner, window, total, threshold } => {
                format!("{} recovered {} {total} {threshold}", id(*owner), WINDOWS[*window].0)
            }
        }
    }
}

pub struct Model {
    pub owners: Vec<Owner>,
    pub charges: Vec<Charge>,
    known_from: i64,
}

impl Model {
    pub fn new(owners: usize, known_from: i64) -> Self {
        Self { owners: vec![Owner::default(); owners], charges: Vec::new(), known_from }
    }

    /// As before the first evaluation.
    pub fn enable(&mut self, owner: usize, thresholds: [i64; 3]) {
        let settings =
            Settings { is_enabled: true, wants_anomalies: true, thresholds: thresholds.map(Some) };
        self.owners[owner].before = settings.clone();
        self.owners[owner].settings = settings;
    }

    fn charges_of(&self, owner: usize, from: i64, to: i64) -> impl Iterator<Item = &Charge> {
        self.charges.iter().filter(move |charge| {
            charge.owner == owner && charge.amount > 0 && from <= charge.at && charge.at < to
        })
    }

    fn variable(&self, owner: usize, from: i64, to: i64) -> i64 {
        let variable = self.charges_of(owner, from, to).filter(|charge| charge.is_variable);
        variable.map(|charge| charge.amount).sum()
    }

    /// What an hour cost; None when nobody knows.
    fn hour(&self, owner: usize, hour: i64) -> Option<i64> {
        let has_charges = self.charges_of(owner, hour, hour + HOUR).next().is_some();
        (has_charges || hour >= self.known_from).then(|| self.variable(owner, hour, hour + HOUR))
    }

    /// Threshold, baseline and hours of history.
    fn policy(&self, owner: usize, hour: i64) -> (i64, i64, usize) {
        let first = self.charges_of(owner, i64::MIN, i64::MAX).map(|charge| charge.at).min();
        let first_hour = first.map_or(hour, |at| at.div_euclid(HOUR) * HOUR);
        let mut amounts: Vec<i64> = (1..=168)
            .map(|back| hour - back * HOUR)
            .filter(|past| *past >= first_hour)
            .filter_map(|past| self.hour(owner, past))
            .collect();
        amounts.sort_unstable();
        if amounts.len() < 24 {
            return (25 * USD, 0, amounts.len());
        }
        let baseline = amounts[(95 * amounts.len()).div_ceil(100) - 1];
        ((3 * baseline).max(10 * USD), baseline, amounts.len())
    }

    pub fn evaluate(&mut self, owner: usize, now: i64, looks_back: bool) -> Vec<Told> {
        let mut told = Vec::new();
        let mut state = self.owners[owner].clone();
        if !state.settings.is_enabled {
            return told;
        }
        let current = now.div_euclid(HOUR) * HOUR;
        if state.settings.wants_anomalies {
            if let Some((hour, _)) = state.anomaly {
                let is_calm = |later: i64| {
                    let amount = self.hour(owner, later);
                    amount.is_some_and(|amount| amount < self.policy(owner, later).0)
                };
                let mut later = (1..).map(|n| hour + n * HOUR).take_while(|later| *later < current);
                if later.any(is_calm) {
                    state.anomaly = None;
                }
            }
            let hours = if looks_back { vec![current - HOUR, current] } else { vec![current] };
            for hour in hours {
                let amount = self.variable(owner, hour, (hour + HOUR).min(now));
                let (threshold, baseline, history) = self.policy(owner, hour);
                if amount < threshold || !state.hours_told.insert(hour) {
                    continue;
                }
                told.push(Told::Anomaly { owner, hour, amount, threshold, baseline, history });
                if state.newest_hour.is_none_or(|newest| newest < hour) {
                    state.newest_hour = Some(hour);
                    state.anomaly = Some((hour, threshold));
                }
            }
        }
        for (window, threshold) in state.settings.thresholds.into_iter().enumerate() {
            let Some(threshold) = threshold else { continue };
            let charges = self.charges_of(owner, now - WINDOWS[window].1 * HOUR, now);
            let total = charges.map(|charge| charge.amount).sum();
            if total >= threshold && !state.crossed.contains_key(&window) {
                state.crossed.insert(window, threshold);
                told.push(Told::Crossed { owner, window, total, threshold });
            } else if total < threshold && state.crossed.remove(&window).is_some() {
                told.push(Told::Recovered { owner, window, total, threshold });
            }
        }
        self.owners[owner] = state;
        told
    }

    /// After a change of `settings`: ends what is not wanted any more, and evaluates. How many fired.
    pub fn settings_changed(&mut self, owner: usize, now: i64) -> i64 {
        let state = &mut self.owners[owner];
        let (old, new) = (state.before.clone(), state.settings.clone());
        state.before = new.clone();
        state.crossed.retain(|window, _| {
            new.is_enabled && old.thresholds[*window] == new.thresholds[*window]
        });
        if !new.is_enabled || !new.wants_anomalies {
            state.anomaly = None;
        }
        let is_changed = old.is_enabled != new.is_enabled
            || old.wants_anomalies != new.wants_anomalies
            || old.thresholds != new.thresholds;
        let told = if is_changed { self.evaluate(owner, now, false) } else { Vec::new() };
        told.iter().filter(|told| !told.is_recovery()).count() as i64
    }

    /// Everything that lasts, as lines.
    pub fn standing(&self, id: impl Fn(usize) -> String) -> BTreeSet<String> {
        let mut lines = BTreeSet::new();
        for (number, owner) in self.owners.iter().enumerate() {
            let id = id(number);
            if let Some((hour, threshold)) = owner.anomaly {
                lines.insert(format!("{id} anomaly {threshold} {}", hour / 1_000_000));
            }
            for (window, threshold) in &owner.crossed {
                lines.insert(format!("{id} threshold_{} {threshold}", WINDOWS[*window].0));
            }
        }
        lines
    }
}
