//! What clients ask of the books, and what they were told: the side of the story that no crash can touch.

use chrono::Utc;
use fastrand::Rng;
use postgres::{Client, Error};
use uuid::Uuid;

/// Owners of one round, who are nobody else's.
pub struct Names {
    pub prefix: String,
}

impl Names {
    pub fn users(&self) -> Vec<String> {
        (0..6).map(|n| format!("{}-u{n}", self.prefix)).collect()
    }

    pub fn organizations(&self) -> Vec<String> {
        (0..2).map(|n| format!("{}-o{n}", self.prefix)).collect()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Usage,
    Spend,
    Grant,
    Ledger,
}

/// What becomes one row of a journal. No two of a round have the same amount, so that each is found again
/// without an id of the server's.
#[derive(Debug, Clone)]
pub struct Entry {
    pub kind: Kind,
    pub user: String,
    pub organization: Option<String>,
    pub amount: i64,
    pub key: Option<String>,
}

/// What the server said of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub id: Uuid,
    pub charged: Option<i64>,
    pub is_replay: Option<bool>,
}

/// One transaction.
#[derive(Debug, Clone)]
pub struct Act {
    pub entries: Vec<Entry>,
    /// Each tells of one or several entries, in order; those of the ledger of none.
    statements: Vec<String>,
    pub acknowledged: bool,
    pub answers: Vec<Answer>,
}

impl Entry {
    pub fn owner(&self) -> (&'static str, &str) {
        match &self.organization {
            Some(organization) => ("organization", organization),
            None => ("user", &self.user),
        }
    }

    /// Sent again it changes nothing: it has a key, or an id that is there once.
    fn may_be_repeated(&self) -> bool {
        self.key.is_some() || self.kind == Kind::Ledger
    }

    fn call(&self) -> String {
        let quoted =
            |text: &Option<String>| text.as_ref().map_or("NULL".to_owned(), |t| format!("'{t}'"));
        let (amount, key, (kind, owner)) = (self.amount, quoted(&self.key), self.owner());
        match self.kind {
            Kind::Usage => format!(
                "SELECT * FROM exa_billing.record_exa_usage('{}', '/search', {amount}, {}, {key})",
                self.user,
                quoted(&self.organization)
            ),
            Kind::Spend => format!(
                "SELECT * FROM exa_billing.record_spend('{kind}', '{owner}', {amount}, 'scheduled',
                     'coding_plan', 'plan', actor_user_id => '{}', idempotency_key => {key})",
                self.user
            ),
            Kind::Grant => {
                // One with a key may be asked for again much later.
                let lasts = if self.key.is_some() {
                    "NULL"
                } else {
                    "clock_timestamp() + interval '200 ms'"
                };
                format!(
                    "SELECT exa_billing.grant_credit('{kind}', '{owner}', {amount}, {lasts},
                         idempotency_key => {key}) AS granted"
                )
            }
            Kind::Ledger => format!(
                "INSERT INTO public.llm VALUES ('{} {amount}', '{}', {}, {amount}, '{}')
                 ON CONFLICT DO NOTHING",
                self.user,
                self.user,
                quoted(&self.organization),
                Utc::now().to_rfc3339()
            ),
        }
    }
}

/// Makes acts up; the amounts of each maker are its own.
pub struct Maker<'a> {
    pub names: &'a Names,
    pub rng: Rng,
    pub next_amount: i64,
}

impl Maker<'_> {
    fn entry(&mut self, kind: Kind, keyed: bool) -> Entry {
        self.next_amount += 1;
        let user = self.rng.choice(self.names.users()).expect("a user");
        let is_organizations = self.rng.u8(..3) == 0;
        let organization =
            if is_organizations { self.rng.choice(self.names.organizations()) } else { None };
        let key = keyed.then(|| format!("{}-{}", self.names.prefix, self.next_amount));
        Entry { kind, user, organization, amount: self.next_amount, key }
    }

    pub fn act(&mut self) -> Act {
        let keyed = self.rng.u8(..3) > 0;
        let one = |entry: Entry| (vec![entry.call()], vec![entry]);
        let (statements, entries) = match self.rng.u8(..12) {
            0..=3 => one(self.entry(Kind::Usage, keyed)),
            4..=5 => one(self.entry(Kind::Spend, keyed)),
            6 => one(self.entry(Kind::Grant, keyed)),
            7 => one(self.entry(Kind::Ledger, false)),
            8..=9 => self.batch(),
            _ => {
                // The application's own row and what it costs, in one transaction.
                let kinds = [Kind::Usage, Kind::Ledger, Kind::Spend, Kind::Grant];
                let count = self.rng.usize(2..=4);
                let entries: Vec<Entry> =
                    kinds.into_iter().take(count).map(|kind| self.entry(kind, keyed)).collect();
                (entries.iter().map(Entry::call).collect(), entries)
            }
        };
        Act { entries, statements, acknowledged: false, answers: Vec::new() }
    }

    fn batch(&mut self) -> (Vec<String>, Vec<Entry>) {
        let keyed = self.rng.u8(..4) > 0;
        let entries: Vec<Entry> =
            (0..self.rng.usize(2..30)).map(|_| self.entry(Kind::Usage, keyed)).collect();
        let elements: Vec<String> = entries
            .iter()
            .map(|entry| {
                let mut element = serde_json::json!({
                    "user_id": entry.user, "path": "/answer", "cost_microdollars": entry.amount,
                });
                for (name, value) in
                    [("organization_id", &entry.organization), ("idempotency_key", &entry.key)]
                {
                    if let Some(value) = value {
                        element[name] = value.as_str().into();
                    }
                }
                element.to_string()
            })
            .collect();
        let call = format!(
            "SELECT * FROM exa_billing.record_exa_usage_batch('[{}]')",
            elements.join(", ")
        );
        (vec![call], entries)
    }
}

impl Act {
    pub fn may_be_repeated(&self) -> bool {
        self.entries.iter().all(Entry::may_be_repeated)
    }

    /// Does it, and writes down that it was acknowledged only when the server has said so.
    pub fn try_it(&mut self, client: &mut Client) -> Result<(), Error> {
        let answers = self.answers_to(client)?;
        self.acknowledged = true;
        self.answers = answers;
        Ok(())
    }

    fn answers_to(&self, client: &mut Client) -> Result<Vec<Answer>, Error> {
        let ask = |client: &mut dyn FnMut(&str) -> Result<Vec<postgres::Row>, Error>| {
            let mut answers = Vec::new();
            for statement in &self.statements {
                for row in client(statement)? {
                    answers.push(match row.columns()[0].name() {
                        "granted" => Answer { id: row.get(0), charged: None, is_replay: None },
                        _ => Answer {
                            id: row.get("usage_id"),
                            charged: Some(row.get("charged_microdollars")),
                            is_replay: Some(row.get("is_replay")),
                        },
                    });
                }
            }
            Ok(answers)
        };
        if self.statements.len() == 1 {
            return ask(&mut |statement| client.query(statement, &[]));
        }
        let mut transaction = client.transaction()?;
        let answers = ask(&mut |statement| transaction.query(statement, &[]))?;
        transaction.commit()?;
        Ok(answers)
    }
}
