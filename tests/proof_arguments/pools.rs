//! What the books hold: ids that exist, so that calls get far, and get to what is another's.

use fastrand::Rng;
use postgres::Client;

/// Users and organizations of the template; some share a name, some have hostile ones.
pub const USERS: &[&str] = &[
    "ann",
    "bob",
    "cat",
    "dan",
    "acme",
    "o'brien",
    "a b",
    "👩‍🚀",
    "%s%n",
    "null",
    "x\\y",
    "{\"a\":1}",
    "rich",
];
pub const ORGANIZATIONS: &[&str] = &["acme", "umbrella", "org\"1\"", "ann"];

#[derive(Debug, Clone, Default)]
pub struct Pools {
    /// Delivery and the token it is claimed with.
    deliveries: Vec<(String, Option<String>)>,
    /// Event, kind and id of its owner.
    events: Vec<(String, String, String)>,
    suggestions: Vec<(String, String, String)>,
    intervals: Vec<String>,
    transactions: Vec<String>,
    usage: Vec<String>,
    pub sources: Vec<String>,
    pub keys: Vec<String>,
}

/// Whom and what one call is about, so that its arguments fit together.
#[derive(Debug, Clone)]
pub struct Subject {
    pub owner_kind: String,
    pub owner_id: String,
    pub user_id: String,
    pub organization_id: String,
    pub actor: String,
    pub delivery: Option<(String, Option<String>)>,
    pub event: Option<String>,
    pub suggestion: Option<String>,
    pub interval: Option<String>,
}

impl Pools {
    /// In an order that is the same in every copy of the books.
    pub fn of(client: &mut Client) -> Pools {
        let mut texts = |sql: &str| -> Vec<Vec<Option<String>>> {
            let rows = client.query(sql, &[]).expect("the books");
            rows.iter().map(|row| (0..row.len()).map(|i| row.get(i)).collect()).collect()
        };
        let mut first = |sql: &str| -> Vec<String> {
            texts(sql).into_iter().filter_map(|mut row| row.remove(0)).collect()
        };
        let intervals = first(
            "SELECT interval_id::text FROM exa_billing.spend_degraded_intervals
             ORDER BY from_hour, owner_id, interval_id LIMIT 30",
        );
        let transactions = first(
            "SELECT id::text FROM exa_billing.credit_transactions ORDER BY recorded_at, id LIMIT 30",
        );
        let usage = first(
            "SELECT usage_id::text FROM exa_billing.exa_usage_log ORDER BY recorded_at, usage_id LIMIT 30",
        );
        let sources = first(
            "SELECT source_name FROM exa_billing.spend_sources ORDER BY source_name LIMIT 30",
        );
        let keys = first(
            "SELECT idempotency_key FROM exa_billing.idempotency_keys
             ORDER BY key_space, idempotency_key LIMIT 50",
        );
        let deliveries = texts(
            "SELECT delivery_id::text, claim_token::text FROM exa_billing.notification_deliveries
             ORDER BY claim_token IS NULL, created_at, delivery_id LIMIT 30",
        );
        let deliveries = deliveries.into_iter().filter_map(|mut row| {
            let token = row.pop()?;
            Some((row.pop()??, token))
        });
        let deliveries = deliveries.collect();
        let mut owned = |sql: &str| -> Vec<(String, String, String)> {
            let rows = texts(sql).into_iter();
            let whole = rows.filter_map(|row| row.into_iter().collect::<Option<Vec<String>>>());
            whole.map(|row| (row[0].clone(), row[1].clone(), row[2].clone())).collect()
        };
        let events = owned(
            "SELECT event_id::text, owner_kind, owner_id FROM exa_billing.cost_insight_events
             ORDER BY occurred_at DESC, event_id LIMIT 30",
        );
        let suggestions = owned(
            "SELECT suggestion_id::text, owner_kind, owner_id FROM exa_billing.cost_suggestions
             ORDER BY created_at DESC, suggestion_id LIMIT 30",
        );
        Pools { deliveries, events, suggestions, intervals, transactions, usage, sources, keys }
    }

    pub fn subject(&self, rng: &mut Rng) -> Subject {
        let any = |rng: &mut Rng, from: &[&str]| from[rng.usize(..from.len())].to_owned();
        let (user_id, organization_id) = (any(rng, USERS), any(rng, ORGANIZATIONS));
        let event = rng.choice(&self.events).cloned();
        let suggestion = rng.choice(&self.suggestions).cloned();
        let (mut owner_kind, mut owner_id) = match rng.bool() {
            true => ("user".to_owned(), user_id.clone()),
            false => ("organization".to_owned(), organization_id.clone()),
        };
        // Somebody of whom nothing is known yet.
        if rng.u8(..10) == 0 {
            owner_id = format!("new-{}", rng.u8(..));
        }
        if let Some((_, kind, id)) = event.as_ref().filter(|_| rng.u8(..4) == 0) {
            (owner_kind, owner_id) = (kind.clone(), id.clone());
        }
        // Who answers for the event or the suggestion that is spoken of, mostly.
        let about = if rng.bool() { &event } else { &suggestion };
        let actor = match about {
            Some((_, kind, id)) if kind == "user" && rng.u8(..4) > 0 => id.clone(),
            Some((_, _, id)) if id == "acme" && rng.u8(..4) > 0 => "ann".to_owned(),
            _ => user_id.clone(),
        };
        Subject {
            delivery: rng.choice(&self.deliveries).cloned(),
            event: event.map(|event| event.0),
            suggestion: suggestion.map(|suggestion| suggestion.0),
            interval: rng.choice(&self.intervals).cloned(),
            owner_kind,
            owner_id,
            user_id,
            organization_id,
            actor,
        }
    }

    /// Any id of the books, of whatever kind.
    pub fn any_id(&self, rng: &mut Rng) -> Option<String> {
        let id = match rng.u8(..6) {
            0 => rng.choice(&self.deliveries).map(|delivery| &delivery.0),
            1 => rng.choice(&self.events).map(|event| &event.0),
            2 => rng.choice(&self.suggestions).map(|suggestion| &suggestion.0),
            3 => rng.choice(&self.intervals),
            4 => rng.choice(&self.transactions),
            _ => rng.choice(&self.usage),
        };
        id.cloned()
    }
}
