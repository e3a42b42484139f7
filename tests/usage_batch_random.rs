//! Random batches in one database, the same requests one by one in another.

mod common;
mod usage_common;

use chrono::{DateTime, TimeDelta, Utc};
use common::{one, run_sql};
use postgres::{Client, Error};
use serde_json::{Value, json};
use std::collections::HashMap;
use usage_common::{Recorded, assert_books_hold, books, column};
use uuid::Uuid;

/// SplitMix64: the same batches at every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn one_in(&mut self, sides: u64) -> bool {
        self.below(sides) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

#[derive(Debug, Clone)]
struct Request {
    user: &'static str,
    path: &'static str,
    cost: i64,
    organization: Option<&'static str>,
    key: Option<String>,
    created_at: Option<DateTime<Utc>>,
    feature: Option<&'static str>,
    kind: Option<&'static str>,
}

impl Request {
    fn random(dice: &mut Dice, now: DateTime<Utc>) -> Request {
        let past = TimeDelta::microseconds(dice.below(95 * 86_400 * 1_000_000) as i64);
        Request {
            user: dice.pick(&["split", "whole", "nothing", "default", "Ünï 𝄞", "O'Neill"]),
            path: dice.pick(&["/search", "/answer", "/research/v1"]),
            cost: dice.pick(&[0, 1, 1, 300, 999, 1_000, 2_500, 4_000_000]),
            organization: dice.pick(&[None, None, Some("org-a"), Some("org-b"), Some("split")]),
            key: (!dice.one_in(3)).then(|| format!("key {}", dice.below(400))),
            created_at: (!dice.one_in(6)).then(|| now - past),
            feature: dice.pick(&[None, Some("f"), Some("")]),
            kind: dice.pick(&[None, Some("t")]),
        }
    }

    /// The same again, as a caller would send it who got no answer.
    fn retried(&self, dice: &mut Dice) -> Request {
        let created_at = if dice.one_in(2) { self.created_at } else { None };
        Request { created_at, ..self.clone() }
    }

    fn json(&self) -> Value {
        let mut object = json!({"user_id": self.user, "path": self.path,
                                "cost_microdollars": self.cost});
        let optional = [
            ("organization_id", self.organization.map(Value::from)),
            ("idempotency_key", self.key.clone().map(Value::from)),
            ("created_at", self.created_at.map(|time| time.to_rfc3339().into())),
            ("feature_id", self.feature.map(Value::from)),
            ("request_type", self.kind.map(Value::from)),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                object[name] = value;
            }
        }
        object
    }
}

/// A new batch: fresh requests, retries of any earlier one, and now and then a
/// key that is used for something else.
fn random_batch(dice: &mut Dice, now: DateTime<Utc>, history: &[Request]) -> Vec<Request> {
    let mut batch: Vec<Request> = Vec::new();
    let spoilt = dice.one_in(6);
    let length = dice.below(40);
    for _ in 0..length {
        let known = history.len() + batch.len();
        let earlier = (known > 0 && dice.one_in(3)).then(|| {
            let place = dice.below(known as u64) as usize;
            history.get(place).unwrap_or_else(|| &batch[place - history.len()]).clone()
        });
        let request = match earlier {
            Some(earlier) => earlier.retried(dice),
            None => Request::random(dice, now),
        };
        let clashes = |other: &Request| {
            request.key.is_some()
                && (other.user, &other.key) == (request.user, &request.key)
                && !same_call(other, &request)
        };
        if spoilt || !history.iter().chain(&batch).any(clashes) {
            batch.push(request);
        }
    }
    batch
}

fn same_call(a: &Request, b: &Request) -> bool {
    let payload = |r: &Request| (r.path, r.cost, r.organization, r.feature, r.kind);
    let times = a.created_at.zip(b.created_at);
    payload(a) == payload(b) && times.is_none_or(|(a, b)| a == b)
}

/// One of the two databases.
struct Side {
    _db: common::Database,
    client: Client,
    /// Every id by the order in which it was first returned.
    ids: HashMap<Uuid, usize>,
}

impl Side {
    fn new() -> Side {
        let (db, mut client) = books();
        run_sql(
            &mut client,
            "set exa_billing.late_usage_limit = '100d';
             select set_free_allowance(5000, '2020-01-01', 'split', 'split'),
                    set_free_allowance(5000, '2020-01-01', 'whole', 'whole'),
                    set_free_allowance(0, '2020-01-01', 'nothing'),
                    set_free_allowance(4000, '2020-01-01', 'Ünï 𝄞', 'split'),
                    set_free_allowance(7000, '2020-01-01', 'O''Neill')",
        );
        Side { _db: db, client, ids: HashMap::new() }
    }

    fn in_one_go(&mut self, batch: &[Request]) -> Result<Vec<Recorded>, Error> {
        let usage: Value = batch.iter().map(Request::json).collect();
        let rows = self.client.query("select * from record_exa_usage_batch($1)", &[&usage])?;
        Ok(rows.iter().map(Recorded::from).collect())
    }

    fn one_by_one(&mut self, batch: &[Request]) -> Result<Vec<Recorded>, Error> {
        let mut transaction = self.client.transaction()?;
        let call = transaction
            .prepare("select * from record_exa_usage($1, $2, $3, $4, $5, $6, $7, $8)")?;
        let mut results = Vec::new();
        for r in batch {
            let row = transaction.query_one(
                &call,
                &[
                    &r.user,
                    &r.path,
                    &r.cost,
                    &r.organization,
                    &r.key,
                    &r.created_at,
                    &r.feature,
                    &r.kind,
                ],
            )?;
            results.push(Recorded::from(&row));
        }
        transaction.commit()?;
        Ok(results)
    }

    /// Results with ids as numbers and times only where the caller gave them.
    fn told(&mut self, batch: &[Request], results: &[Recorded]) -> Vec<String> {
        assert_eq!(results.len(), batch.len());
        let mut told = Vec::new();
        for (request, result) in batch.iter().zip(results) {
            let next = self.ids.len();
            let id = *self.ids.entry(result.usage_id).or_insert(next);
            assert_eq!(result.is_replay, id != next, "{request:?}");
            if let (false, Some(given)) = (result.is_replay, request.created_at) {
                assert_eq!(result.created_at, given);
            }
            told.push(format!("{id} {:?} {:?}", result.figures(), result.allowance));
        }
        told
    }

    /// What the tables hold. A time that was not given is the transaction's, so
    /// only its month is compared.
    fn tables(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        for query in [
            "select a::text from exa_monthly_allowance as a",
            "select concat_ws('|', user_id, organization_id, path, cost_microdollars,
                 charged_microdollars, charged_to_balance, feature_id, request_type,
                 to_char(created_at, 'YYYY-MM'))
             from exa_usage_log",
            "select concat_ws('|', key_space, idempotency_key, created_at_given, payload_hash)
             from idempotency_keys",
            "select concat_ws('|', user_id, organization_id, month, total_cost_microdollars,
                total_charged_microdollars, request_count, free_allowance_microdollars)
             from exa_monthly_usage_current",
            "select b::text from account_balances as b",
            "select concat_ws('|', owner_kind, owner_id, feature_key, actor_user_id, month,
                 sum(total_microdollars), sum(spend_record_count))
             from spend_drivers_hourly, date_trunc('month', hour_start) as month
             group by owner_kind, owner_id, feature_key, actor_user_id, month",
            "select concat_ws('|', owner_kind, owner_id, sum(total_microdollars),
                 sum(spend_record_count))
             from spend_hourly group by owner_kind, owner_id",
        ] {
            lines.extend(column::<String>(&mut self.client, &format!("{query} order by 1")));
        }
        lines
    }
}

#[test]
fn a_batch_records_what_one_by_one_would() {
    let (mut together, mut apart) = (Side::new(), Side::new());
    let mut dice = Dice(20_261_122);
    let now: DateTime<Utc> = one(&mut together.client, "select now()", &[]);
    let mut history: Vec<Request> = Vec::new();
    let (mut replays, mut refused) = (0, 0);
    for round in 0..80 {
        let batch = random_batch(&mut dice, now, &history);
        match (together.in_one_go(&batch), apart.one_by_one(&batch)) {
            (Ok(in_one_go), Ok(one_by_one)) => {
                replays += in_one_go.iter().filter(|result| result.is_replay).count();
                let expected = apart.told(&batch, &one_by_one);
                assert_eq!(together.told(&batch, &in_one_go), expected, "round {round}");
                history.extend(batch.into_iter().filter(|request| request.key.is_some()));
            }
            (Err(in_one_go), Err(one_by_one)) => {
                refused += 1;
                let code = |error: &Error| error.code().map(|code| code.code().to_owned());
                assert_eq!(code(&in_one_go).as_deref(), Some("23505"), "{in_one_go:?}");
                assert_eq!(code(&one_by_one), code(&in_one_go), "round {round}");
            }
            (in_one_go, one_by_one) => panic!("round {round}: {in_one_go:?}\n{one_by_one:?}"),
        }
        // Posting at any time changes nothing.
        for side in [&mut together, &mut apart] {
            if dice.one_in(5) {
                run_sql(&mut side.client, &format!("select post_spend({})", 1 + dice.below(50)));
            }
        }
        if round % 20 == 0 {
            assert_eq!(together.tables(), apart.tables(), "round {round}");
        }
    }
    // The dice have thrown what the test is about.
    assert!(replays > 100 && refused > 3, "{replays} replays, {refused} refused");
    for _ in 0..2 {
        assert_eq!(together.tables(), apart.tables());
        for side in [&mut together, &mut apart] {
            assert_books_hold(&mut side.client);
            run_sql(&mut side.client, "select post_spend()");
        }
    }
}
