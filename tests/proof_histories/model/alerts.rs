//! Alerts: settings, evaluations, events and who is told.

use super::calendar::{DAY, HOUR, hour_of};
use super::evidence::{Sums, known_from};
use super::suggestions::Suggestion;
use super::{At, BAD, Model, Owner, Refused, UNKNOWN, WRONG_STATE};
use std::collections::BTreeMap;

const USD: i64 = 1_000_000;
/// Each kind of threshold with the hours it looks back.
pub const WINDOWS: [(&str, &str, At); 3] = [
    ("threshold_24h", "24h", 24 * HOUR),
    ("threshold_7d", "7d", 7 * DAY),
    ("threshold_30d", "30d", 30 * DAY),
];
const ANOMALY: &str = "anomaly";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub enabled: bool,
    pub anomalies: bool,
    pub suggestions: bool,
    pub thresholds: [Option<i64>; 3],
    pub minimum: Option<i64>,
}

impl Default for Settings {
    fn default() -> Self {
        let (enabled, thresholds, minimum) = (false, [None; 3], None);
        Settings { enabled, anomalies: true, suggestions: true, thresholds, minimum }
    }
}

impl Settings {
    pub fn told(&self) -> String {
        let amount = |amount: Option<i64>| amount.map_or("-".to_owned(), |one| one.to_string());
        let [day, week, month] = self.thresholds.map(amount);
        let Settings { enabled, anomalies, suggestions, .. } = self;
        format!("{enabled} {anomalies} {suggestions} {day} {week} {month} {}", amount(self.minimum))
    }
}

/// A change of settings: each may stay as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettingsChange {
    pub enabled: Option<bool>,
    pub anomalies: Option<bool>,
    pub suggestions: Option<bool>,
    pub thresholds: [Option<Option<i64>>; 3],
    pub minimum: Option<Option<i64>>,
    /// Something that cannot be.
    pub is_bad: bool,
}

impl SettingsChange {
    fn applied(&self, old: &Settings) -> Settings {
        let mut new = old.clone();
        new.enabled = self.enabled.unwrap_or(new.enabled);
        new.anomalies = self.anomalies.unwrap_or(new.anomalies);
        new.suggestions = self.suggestions.unwrap_or(new.suggestions);
        for (threshold, change) in new.thresholds.iter_mut().zip(self.thresholds) {
            *threshold = change.unwrap_or(*threshold);
        }
        new.minimum = self.minimum.unwrap_or(new.minimum);
        new
    }
}

/// What is amiss while it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Episode {
    pub event: usize,
    pub threshold: i64,
    pub hour: Option<At>,
    pub is_reviewed: bool,
}

/// Something that happened. What lies in the past of the clock is told by its time; what happened
/// as the clock said has none here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    pub kind: &'static str,
    pub alert: Option<&'static str>,
    pub suggestion: Option<&'static str>,
    pub actor: Option<String>,
    pub at: Option<At>,
    /// The figures of its snapshot.
    pub figures: String,
    /// The event it is about, by its place in the list.
    pub about: Option<usize>,
    pub is_gone: bool,
}

/// A message to somebody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub event: usize,
    pub recipient: String,
    pub status: &'static str,
    pub attempts: i32,
    /// Handed out or to be tried again later: at the earliest then, by the clock. Else it is due.
    pub rests_until: Option<At>,
    /// As they were handed out: id and token.
    pub id: String,
    pub token: String,
}

#[derive(Debug, Clone, Default)]
pub struct Alerts {
    pub settings: Settings,
    /// Whether they were ever changed.
    pub has_settings: bool,
    pub evaluated_at: Option<At>,
    pub anomaly_hour: Option<At>,
    pub episodes: BTreeMap<&'static str, Episode>,
    pub events: Vec<Event>,
    pub deliveries: Vec<Delivery>,
    pub suggestions: Vec<Suggestion>,
    /// Found below the minimum, and told so.
    pub is_low: bool,
}

/// What an evaluation has led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    pub fired: i64,
    pub recovered: i64,
}

/// What is usual before an hour.
struct Usual {
    hours: usize,
    baseline: i64,
    threshold: i64,
}

impl Model {
    /// Variable spend of an hour, until an instant.
    fn variable(&self, owner: &Owner, hour: At, until: At) -> i64 {
        Sums::of(self.between(owner, hour, (hour + HOUR).min(until)).iter()).variable
    }

    fn usual(&self, owner: &Owner, hour: At) -> Usual {
        let charges = self.charges_of(owner);
        let first = charges.iter().map(|charge| hour_of(charge.at)).min().unwrap_or(hour);
        let mut amounts: Vec<i64> = (1..=168)
            .map(|back| hour - back * HOUR)
            .filter(|past| *past >= first)
            .filter(|past| {
                *past >= known_from() || !self.between(owner, *past, *past + HOUR).is_empty()
            })
            .map(|past| self.variable(owner, past, At::MAX))
            .collect();
        amounts.sort_unstable();
        let hours = amounts.len();
        if hours < 24 {
            return Usual { hours, baseline: 0, threshold: 25 * USD };
        }
        let baseline = amounts[(95 * hours).div_ceil(100) - 1];
        Usual { hours, baseline, threshold: (3 * baseline).max(10 * USD) }
    }

    /// What would have to be spent in the hour of an instant to make it unusual.
    pub fn missing_to_unusual(&self, owner: &Owner, as_of: At) -> i64 {
        let hour = hour_of(as_of);
        self.usual(owner, hour).threshold - self.variable(owner, hour, as_of)
    }

    /// Whether some completed hour after the one of an episode was not unusual.
    fn has_calmed(&self, owner: &Owner, hour: At, as_of: At) -> bool {
        let mut later = hour + HOUR;
        while later < hour_of(as_of) {
            let is_known =
                later >= known_from() || !self.between(owner, later, later + HOUR).is_empty();
            let amount = self.variable(owner, later, At::MAX);
            // Below ten dollars no hour is unusual, whatever was before.
            if is_known && (amount < 10 * USD || amount < self.usual(owner, later).threshold) {
                return true;
            }
            later += HOUR;
        }
        false
    }

    fn tell(&mut self, owner: &Owner, event: Event, notify: bool) -> usize {
        let mut recipients: Vec<String> = Vec::new();
        if notify && !owner.is_organization {
            recipients.push(owner.id.clone());
        }
        if notify && owner.is_organization {
            let told = self
                .members
                .iter()
                .filter(|member| member.organization == owner.id && member.role != "member");
            recipients.extend(told.map(|member| member.user.clone()));
        }
        let alerts = self.alerts_of(owner);
        alerts.events.push(event);
        let event = alerts.events.len() - 1;
        for recipient in recipients {
            alerts.deliveries.push(Delivery {
                event,
                recipient,
                status: "pending",
                attempts: 0,
                rests_until: None,
                id: String::new(),
                token: String::new(),
            });
        }
        event
    }

    /// Nobody can say which deliveries are due: a pause that should outlast the history may be over.
    pub fn is_claim_open(&self, now: At) -> bool {
        let deliveries = self.alerts.values().flat_map(|alerts| &alerts.deliveries);
        deliveries.into_iter().any(|one| one.rests_until.is_some_and(|until| until <= now))
    }

    /// Whether a balance has fallen below its minimum: told once, until it has risen.
    pub fn look_at_balance(&mut self, owner: &Owner) {
        let balance = self.acquired(owner) - self.used(owner);
        let alerts = self.alerts_of(owner);
        let Some(minimum) = alerts.settings.minimum else { return };
        let was_low = std::mem::replace(&mut alerts.is_low, balance < minimum);
        if balance < minimum && !was_low {
            let figures = format!("{balance} {minimum}");
            let low = Event {
                kind: "low_balance",
                alert: None,
                suggestion: None,
                actor: None,
                at: None,
                figures,
                about: None,
                is_gone: false,
            };
            self.tell(owner, low, true);
        }
    }

    /// Posts for all but some. Balances are looked at when one moves of which somebody wants to know.
    pub fn post(&mut self, left_out: &[Owner]) {
        let mut posted = std::mem::take(&mut self.waiting);
        self.waiting = posted.extract_if(.., |owner, _| left_out.contains(owner)).collect();
        let wants = |owner: &Owner| {
            self.alerts.get(owner).is_some_and(|alerts| alerts.settings.minimum.is_some())
        };
        let must_look = posted.iter().any(|(owner, moves)| *moves && wants(owner));
        for (owner, moves) in posted {
            if must_look {
                self.look_at_balance(&owner);
            }
            if moves {
                self.posted.insert(owner);
            }
        }
    }

    /// Settings after the change, whether an event was left, how many alerts fired.
    pub fn change_settings(
        &mut self,
        owner: &Owner,
        change: &SettingsChange,
        actor: &str,
        as_of: At,
    ) -> Result<String, Refused> {
        if change.is_bad {
            return Err(BAD);
        }
        let old = self.alerts_of(owner).settings.clone();
        let new = change.applied(&old);
        if old == new {
            return Ok(format!("{} false 0 false", new.told()));
        }
        let alerts = self.alerts_of(owner);
        let changes = alerts.events.iter().filter(|event| !event.is_gone);
        let changes = changes.filter(|event| ["config_changed", "disabled"].contains(&event.kind));
        let last = changes.filter_map(|event| event.at).chain(alerts.evaluated_at).max();
        let as_of = last.map_or(as_of, |last| last.max(as_of));
        (alerts.settings, alerts.has_settings) = (new.clone(), true);
        if old.minimum != new.minimum {
            alerts.is_low = false;
        }
        for (window, (kind, ..)) in WINDOWS.iter().enumerate() {
            let is_watched = new.enabled && new.thresholds[window].is_some();
            if !is_watched || old.thresholds[window] != new.thresholds[window] {
                alerts.episodes.remove(kind);
            }
        }
        if !new.enabled || !new.anomalies {
            alerts.episodes.remove(ANOMALY);
        }
        if old.suggestions && !new.suggestions {
            let open = alerts.suggestions.iter_mut().filter(|one| one.status == "open");
            open.for_each(|one| one.status = "closed");
        }
        let kind = match (old.enabled, new.enabled) {
            (true, false) => Some("disabled"),
            (_, true) => Some("config_changed"),
            (false, false) => None,
        };
        if let Some(kind) = kind {
            let event = Event {
                kind,
                alert: None,
                suggestion: None,
                actor: Some(actor.to_owned()),
                at: Some(as_of),
                figures: new.told(),
                about: None,
                is_gone: false,
            };
            self.tell(owner, event, false);
        }
        let found =
            if new.enabled { self.evaluate_at(owner, as_of, false) } else { Found::default() };
        Ok(format!("{} {} {} false", new.told(), kind.is_some(), found.fired))
    }

    pub fn evaluate(&mut self, owner: &Owner, as_of: At, now: At) -> Result<String, Refused> {
        if as_of > now {
            return Err(BAD);
        }
        if self.alerts_of(owner).evaluated_at.is_some_and(|last| as_of < last) {
            return Err(WRONG_STATE);
        }
        let found = self.evaluate_at(owner, as_of, false);
        Ok(format!("1 {} {} 0 0 true", found.fired, found.recovered))
    }

    /// Evaluates one owner, perhaps also for the hour just completed.
    pub fn evaluate_at(&mut self, owner: &Owner, as_of: At, looks_back: bool) -> Found {
        let mut found = Found::default();
        let settings = self.alerts_of(owner).settings.clone();
        self.suggest(owner, as_of);
        if settings.enabled && settings.anomalies {
            self.look_for_anomalies(owner, as_of, looks_back, &mut found);
        }
        for (window, (kind, name, span)) in WINDOWS.into_iter().enumerate() {
            let Some(threshold) = settings.thresholds[window].filter(|_| settings.enabled) else {
                continue;
            };
            let total = Sums::of(self.between(owner, as_of - span, as_of).iter()).total();
            let episode = self.alerts_of(owner).episodes.get(kind).cloned();
            let event = |kind_of_event, threshold: i64, about| Event {
                kind: kind_of_event,
                alert: Some(kind),
                suggestion: None,
                actor: None,
                at: Some(as_of),
                figures: format!("{name} {total} {threshold}"),
                about,
                is_gone: false,
            };
            match episode {
                None if total >= threshold => {
                    let told = self.tell(owner, event("threshold_crossed", threshold, None), true);
                    let episode =
                        Episode { event: told, threshold, hour: None, is_reviewed: false };
                    self.alerts_of(owner).episodes.insert(kind, episode);
                    found.fired += 1;
                }
                Some(episode) if total < threshold => {
                    let about = Some(episode.event);
                    self.tell(owner, event("recovered", episode.threshold, about), false);
                    self.alerts_of(owner).episodes.remove(kind);
                    found.recovered += 1;
                }
                _ => {}
            }
        }
        self.alerts_of(owner).evaluated_at = Some(as_of);
        found
    }

    fn look_for_anomalies(
        &mut self,
        owner: &Owner,
        as_of: At,
        looks_back: bool,
        found: &mut Found,
    ) {
        let hour = self.alerts_of(owner).episodes.get(ANOMALY).and_then(|episode| episode.hour);
        if hour.is_some_and(|hour| self.has_calmed(owner, hour, as_of)) {
            self.alerts_of(owner).episodes.remove(ANOMALY);
        }
        let current = hour_of(as_of);
        let last = self.alerts_of(owner).anomaly_hour;
        let mut newest = last;
        for hour in [looks_back.then_some(current - HOUR), Some(current)].into_iter().flatten() {
            let usual = self.usual(owner, hour);
            let amount = self.variable(owner, hour, as_of);
            let alerts = self.alerts_of(owner);
            let is_told = |event: &Event| {
                event.kind == "anomaly_alert" && event.figures.starts_with(&format!("{hour} "))
            };
            let is_known = alerts.events.iter().any(|event| is_told(event) && !event.is_gone);
            if amount < usual.threshold || is_known || last == Some(hour) {
                continue;
            }
            let Usual { hours, baseline, threshold } = usual;
            let event = Event {
                kind: "anomaly_alert",
                alert: Some(ANOMALY),
                suggestion: None,
                actor: None,
                at: Some(as_of),
                figures: format!("{hour} {amount} {baseline} {threshold} {hours}"),
                about: None,
                is_gone: false,
            };
            let told = self.tell(owner, event, true);
            let alerts = self.alerts_of(owner);
            if last.is_none_or(|last| last < hour) {
                let (hour, is_reviewed) = (Some(hour), false);
                let episode = Episode { event: told, threshold, hour, is_reviewed };
                alerts.episodes.insert(ANOMALY, episode);
            }
            newest = newest.max(Some(hour));
            found.fired += 1;
        }
        self.alerts_of(owner).anomaly_hour = newest;
    }

    /// Marks an alert as seen; says whether this did.
    pub fn review(
        &mut self,
        owner: &Owner,
        event: Option<usize>,
        actor: &str,
    ) -> Result<bool, Refused> {
        let Some(event) = event else { return Err(UNKNOWN) };
        let alerts = self.alerts_of(owner);
        let found = alerts.episodes.iter_mut().find(|(_, episode)| episode.event == event);
        let Some((&kind, episode)) = found else {
            // An event that was deleted is as unknown as one that never was.
            return if alerts.events[event].is_gone { Err(UNKNOWN) } else { Ok(false) };
        };
        if std::mem::replace(&mut episode.is_reviewed, true) {
            return Ok(false);
        }
        if kind == ANOMALY {
            alerts.episodes.remove(ANOMALY);
        }
        let event = Event {
            kind: "alert_reviewed",
            alert: Some(kind),
            suggestion: None,
            actor: Some(actor.to_owned()),
            at: None,
            figures: String::new(),
            about: Some(event),
            is_gone: false,
        };
        self.tell(owner, event, false);
        Ok(true)
    }

    /// Alerts nobody has reviewed, and open suggestions of those who want any.
    pub fn attention(&self, owner: &Owner) -> usize {
        let Some(alerts) = self.alerts.get(owner) else { return 0 };
        let unseen = alerts.episodes.values().filter(|episode| !episode.is_reviewed).count();
        let open = alerts.suggestions.iter().filter(|one| one.status == "open").count();
        unseen + if alerts.settings.suggestions { open } else { 0 }
    }

    /// Takes out what says something about a user.
    pub fn erase(&mut self, user: &str) {
        self.members.retain(|member| member.user != user);
        let owner = Owner::user(user);
        self.alerts.remove(&owner);
        self.posted.remove(&owner);
        for alerts in self.alerts.values_mut() {
            alerts.deliveries.retain(|delivery| delivery.recipient != user);
        }
        let own = self.entries.iter_mut().filter(|entry| entry.owner == owner);
        own.for_each(|entry| entry.description = None);
        let own = self.degraded.iter_mut().filter(|one| one.owner == owner);
        own.for_each(|one| one.reason = "erased".to_owned());
    }

    /// Events of long ago go; what lasts and what is to be sent stays.
    pub fn forget_events(&mut self, now: At) {
        for alerts in self.alerts.values_mut() {
            for event in &mut alerts.events {
                event.is_gone |= event.at.is_some_and(|at| at < now - 90 * DAY);
            }
        }
    }
}
