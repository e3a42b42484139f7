//! Random histories of grants, charges and expirations against a model of a few lines that shares
//! no code with the product: every row, baseline and figure, before and after damage.

mod common;
mod credits_common;
mod sessions;
mod usage_common;

use common::{one, run_sql};
use credits_common::{Owner, Recomputed, books, organization, plant, post, user};
use postgres::Client;
use sessions::Dice;
use std::collections::BTreeMap;
use usage_common::{assert_books_hold, column};

const HISTORIES: u64 = 45;
/// Steps of 20 minutes, so that much happens in the hours of the expirations.
const STEPS: i64 = 140;
/// Across the end of a month, a leap day and the end of a year.
const STARTS: [&str; 3] = ["2025-03-30 20:00+00", "2024-02-28 08:00+00", "2024-12-31 04:00+00"];

#[derive(Debug, Clone)]
enum Event {
    /// Dated back by `age` steps.
    Grant {
        age: i64,
        amount: i64,
        lifetime: Option<i64>,
    },
    Llm(i64),
    Exa(i64),
    Expire,
    Post,
}

/// What happens to an owner, in time order; the first of a pair is the step.
fn history(dice: &mut Dice) -> Vec<(i64, Event)> {
    let mut events: Vec<(i64, Event)> = (0..8 + dice.up_to(28))
        .map(|_| {
            let event = match dice.up_to(16) {
                0..=4 => Event::Grant {
                    age: dice.up_to(2) * dice.up_to(STEPS / 2),
                    amount: 1 + dice.up_to(900),
                    lifetime: (dice.up_to(5) > 0).then(|| 1 + dice.up_to(STEPS)),
                },
                5..=8 => Event::Llm(1 + dice.up_to(400)),
                9..=12 => Event::Exa(1 + dice.up_to(400)),
                13..=14 => Event::Expire,
                _ => Event::Post,
            };
            (dice.up_to(STEPS), event)
        })
        .collect();
    events.sort_by_key(|(step, _)| *step);
    // What is settled is settled: no grant is dated before the last run of the expirations.
    let mut settled = 0;
    for (step, event) in &mut events {
        match event {
            Event::Expire => settled = *step,
            Event::Grant { age, .. } => *age = (*age).min(*step - settled),
            _ => {}
        }
    }
    events
}

/// A grant of the model. Its number is the place of its event.
#[derive(Debug, Clone)]
struct Grant {
    number: usize,
    created: i64,
    expiry: Option<i64>,
    amount: i64,
    claims_from: i64,
    /// When it was closed, and what expired.
    closed: Option<(i64, i64)>,
}

#[derive(Debug, Clone, Default)]
struct Model {
    charges: Vec<(i64, i64)>,
    grants: Vec<Grant>,
}

impl Model {
    fn of(events: &[(i64, Event)]) -> Model {
        let mut model = Model::default();
        for (number, (step, event)) in events.iter().enumerate() {
            match *event {
                Event::Llm(amount) | Event::Exa(amount) => model.charges.push((*step, amount)),
                Event::Grant { age, amount, lifetime } => model.grants.push(Grant {
                    number,
                    created: step - age,
                    expiry: lifetime.map(|steps| step - age + steps),
                    amount,
                    claims_from: model.used_before(step - age),
                    closed: None,
                }),
                Event::Expire | Event::Post => {}
            }
        }
        model
    }

    fn used_before(&self, step: i64) -> i64 {
        self.charges.iter().filter(|(at, _)| *at < step).map(|(_, amount)| amount).sum()
    }

    /// The expiring grants' places in the order in which they are closed.
    fn in_order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::new();
        order.extend((0..self.grants.len()).filter(|&place| self.grants[place].expiry.is_some()));
        order.sort_by_key(|&place| {
            let grant = &self.grants[place];
            (grant.expiry, grant.created, grant.number)
        });
        order
    }

    /// A grant that claimed `claimed` keeps it: the claims of the later ones begin after it.
    fn raise(&mut self, end: i64, claimed: i64, others: &[usize], granted_by: i64) {
        for &other in others {
            let other = &mut self.grants[other];
            let overlap = claimed.min(end - other.claims_from);
            if overlap > 0 && other.created <= granted_by {
                other.claims_from += overlap;
            }
        }
    }

    fn expire(&mut self, until: i64) {
        let order = self.in_order();
        for (place, &index) in order.iter().enumerate() {
            let grant = self.grants[index].clone();
            let Some(expiry) = grant.expiry.filter(|expiry| *expiry <= until) else { break };
            let end = (grant.claims_from + grant.amount).min(self.used_before(expiry));
            let claimed = (end - grant.claims_from).max(0);
            self.grants[index].closed = Some((expiry, grant.amount - claimed));
            self.raise(end, claimed, &order[place + 1..], i64::MAX);
        }
    }

    /// Baselines from the closures as they were recorded.
    fn recompute(&mut self) {
        for place in 0..self.grants.len() {
            self.grants[place].claims_from = self.used_before(self.grants[place].created);
        }
        let order = self.in_order();
        for (place, &index) in order.iter().enumerate() {
            let grant = self.grants[index].clone();
            let Some((at, expired)) = grant.closed else { continue };
            let claimed = grant.amount - expired;
            self.raise(grant.claims_from + claimed, claimed, &order[place + 1..], at);
        }
    }

    fn expired(&self) -> i64 {
        self.grants.iter().filter_map(|grant| grant.closed).map(|(_, expired)| expired).sum()
    }

    fn acquired(&self) -> i64 {
        self.grants.iter().map(|grant| grant.amount).sum::<i64>() - self.expired()
    }

    fn used(&self) -> i64 {
        self.used_before(i64::MAX)
    }

    fn last_closure(&self) -> i64 {
        let closed = self.grants.iter().filter_map(|grant| grant.closed);
        closed.map(|(at, _)| at).max().unwrap_or_default()
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::new();
        for grant in &self.grants {
            let (name, claims_from) = (grant.number, grant.expiry.map(|_| grant.claims_from));
            let original = self.used_before(grant.created);
            ledger.insert(name.to_string(), (grant.created, grant.amount, original, claims_from));
            if let Some((at, expired)) = grant.closed {
                let closing = (at, -expired, self.used_before(at), None);
                ledger.insert(format!("Expired: {name}"), closing);
            }
        }
        ledger
    }
}

/// Step, amount, original and expiration baseline.
type Row = (i64, i64, i64, Option<i64>);
/// By name.
type Ledger = BTreeMap<String, Row>;

/// One owner with a random history.
struct Played {
    owner: Owner,
    start: &'static str,
    events: Vec<(i64, Event)>,
    model: Model,
}

impl Played {
    fn at(&self, step: i64) -> String {
        format!("'{}'::timestamptz + {step} * interval '20 minutes'", self.start)
    }

    fn charge(&self, step: i64, event: &Event) -> String {
        let (who, at) = (self.owner.arguments(), self.at(step));
        match event {
            Event::Llm(amount) => format!(
                "select record_spend({who}, {amount}, 'variable', 'ai_gateway', 'llm', created_at => {at});"
            ),
            Event::Exa(amount) if self.owner.kind == "user" => {
                let id = &self.owner.id;
                format!("select record_exa_usage('{id}', '/search', {amount}, created_at => {at});")
            }
            Event::Exa(amount) => {
                let id = &self.owner.id;
                format!(
                    "select record_exa_usage('m', '/answer', {amount}, '{id}', created_at => {at});"
                )
            }
            _ => unreachable!("no charge"),
        }
    }

    /// Does it all, in one round trip.
    fn play(&self, c: &mut Client, in_steps: bool) {
        let who = self.owner.arguments();
        let mut script = String::new();
        for (number, (step, event)) in self.events.iter().enumerate() {
            let at = self.at(*step);
            script += &match event {
                Event::Grant { age, amount, lifetime } => {
                    let (created, expiry) = (step - age, lifetime.map(|steps| step - age + steps));
                    let expiry = expiry.map_or("null".to_owned(), |step| self.at(step));
                    let at = self.at(created);
                    format!(
                        "select grant_credit({who}, {amount}, {expiry}, description => '{number}', created_at => {at});"
                    )
                }
                Event::Llm(_) | Event::Exa(_) => self.charge(*step, event),
                Event::Expire if in_steps => format!("select expire_credits({who}, {at});"),
                Event::Expire => String::new(),
                Event::Post => "select post_spend(100);".to_owned(),
            };
        }
        run_sql(c, &script);
    }

    fn figures(&self, c: &mut Client) -> (i64, i64, i64) {
        let end = one::<String>(c, &format!("select ({})::text", self.at(2 * STEPS)), &[]);
        self.owner.figures(c, &end)
    }

    fn ledger(&self, c: &mut Client) -> Ledger {
        let sql = format!(
            "select description, (extract(epoch from created_at - '{}') / 1200)::bigint, amount_microdollars,
                    original_baseline_microdollars_used, expiration_baseline_microdollars_used
             from credit_transactions where owner_kind = $1 and owner_id = $2",
            self.start
        );
        let rows = c.query(&sql, &[&self.owner.kind, &self.owner.id]).expect("the ledger");
        rows.iter()
            .map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3), row.get(4))))
            .collect()
    }

    #[track_caller]
    fn check(&self, c: &mut Client, seed: u64, when: &str) {
        let (model, what) = (&self.model, format!("seed {seed}, {when}: {:#?}", self.events));
        let (acquired, used) = (model.acquired(), model.used());
        assert_eq!(self.figures(c), (acquired, used, acquired - used), "{what}");
        assert_eq!(self.ledger(c), model.ledger(), "{what}");
    }
}

/// Owners with histories from the seed: one that is expired late, one in steps, of each. The model
/// has expired all by the end.
fn play_all(c: &mut Client, seed: u64) -> Vec<Played> {
    let mut dice = Dice(seed);
    let mut all = Vec::new();
    for (number, start) in (0..HISTORIES).zip(STARTS.into_iter().cycle()) {
        let events = history(&mut dice);
        for way in ["late", "steps"] {
            let id = format!("{way}-{number}");
            let owner = if number % 2 == 0 { user(&id) } else { organization(&id) };
            let model = Model::of(&events);
            let mut played = Played { owner, start, events: events.clone(), model };
            played.play(c, way == "steps");
            played.model.expire(2 * STEPS);
            let expected = (played.model.acquired(), played.model.used());
            let forecast = played.figures(c);
            assert_eq!(
                (forecast.0, forecast.1),
                expected,
                "seed {seed}, forecast of {id}: {events:#?}"
            );
            all.push(played);
        }
    }
    let sql = "select coalesce(sum(expire_due_credits('2025-12-01 00:00+00')), 0)::bigint";
    let expired: i64 = one(c, sql, &[]);
    assert!(expired > 0, "nothing was left to expire");
    all
}

fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    // Another one in every run; a failure tells which, to be tried again.
    std::env::var("EXA_BILLING_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| now.map_or(1, |now| now.as_secs()))
}

#[test]
fn late_or_in_steps_the_rows_are_those_of_the_model_and_recomputing_changes_none() {
    let seed = seed();
    let (_db, mut c) = books();
    let all = play_all(&mut c, seed);
    for played in &all {
        played.check(&mut c, seed, "expired");
        played.owner.assert_recomputed(&mut c, played.model.used(), played.model.acquired());
    }
    post(&mut c);
    for played in &all {
        played.check(&mut c, seed, "recomputed and posted");
        let found = played.owner.recompute(&mut c, "");
        assert_eq!(found, Recomputed::unchanged(played.model.used(), played.model.acquired()));
    }
    assert_books_hold(&mut c);
}

#[test]
fn late_arrivals_move_baselines_only_and_are_counted() {
    let seed = seed();
    let (_db, mut c) = books();
    let mut dice = Dice(seed ^ 0xABCD);
    let mut total = 0;
    for mut played in play_all(&mut c, seed) {
        let closures = played.owner.closures(&mut c);
        let mut late = 0;
        let mut script = String::new();
        for _ in 0..1 + dice.up_to(5) {
            let (step, amount) = (dice.up_to(2 * STEPS), 1 + dice.up_to(300));
            let event = if dice.up_to(2) == 0 { Event::Llm(amount) } else { Event::Exa(amount) };
            script += &played.charge(step, &event);
            played.model.charges.push((step, amount));
            late += i64::from(step < played.model.last_closure());
        }
        run_sql(&mut c, &script);
        total += late;
        let stored = played.ledger(&mut c);
        played.model.recompute();
        let new = played.model.ledger();
        let changed = |differs: fn(&Row, &Row) -> bool| {
            let pairs = stored.iter().filter(|(name, entry)| differs(entry, &new[*name]));
            i64::try_from(pairs.count()).expect("a small number")
        };
        let expected = Recomputed {
            original_changed: changed(|stored, new| stored.2 != new.2),
            expiration_changed: changed(|stored, new| stored.3 != new.3),
            late_arrivals: late,
            ..Recomputed::unchanged(played.model.used(), played.model.acquired())
        };
        let what = format!("seed {seed}, {}: {:#?} then {script}", played.owner.id, played.events);
        assert_eq!(played.owner.recompute(&mut c, ""), expected, "{what}");
        played.check(&mut c, seed, &script);
        let amounts = |closures: Vec<(String, String, i64, i64)>| -> Vec<_> {
            closures.into_iter().map(|(name, at, amount, _)| (name, at, amount)).collect()
        };
        assert_eq!(amounts(played.owner.closures(&mut c)), amounts(closures), "{what}");
        let again = Recomputed { original_changed: 0, expiration_changed: 0, ..expected };
        assert_eq!(played.owner.recompute(&mut c, ""), again, "{what}");
    }
    assert!(total > 50, "only {total} late arrivals");
    assert_books_hold(&mut c);
}

/// Overwrites everything that recomputing restores, differently for each owner and transaction.
const DAMAGE: &str = "
    update exa_billing.credit_transactions set
        original_baseline_microdollars_used = hashtext(id::text) % 1000,
        expiration_baseline_microdollars_used = case when expiry_date is not null then hashtext(id::text) % 700 end;
    update exa_billing.accounts set
        microdollars_used = microdollars_used + hashtext(owner_id) % 5000,
        total_microdollars_acquired = total_microdollars_acquired - hashtext(owner_id || '!') % 3000,
        next_credit_expiration_at = '2001-01-01 00:00+00'";

#[test]
fn damage_is_undone_exactly_or_with_the_balance_kept() {
    let seed = seed();
    let (_db, mut c) = books();
    let all = play_all(&mut c, seed);
    // A further grant that stays open, and charges that wait.
    for played in &all {
        let who = played.owner.arguments();
        let sql = format!(
            "select grant_credit({who}, 500, '2090-01-01 00:00+00', description => '99', created_at => '2025-12-01 00:00+00');
             select record_spend({who}, 7, 'scheduled', 's', 'p', created_at => '2025-12-01 00:00+00')"
        );
        run_sql(&mut c, &sql);
    }
    let rows = "select t::text from credit_transactions as t order by id";
    let accounts = "select concat_ws(' ', owner_id, total_microdollars_acquired, microdollars_used,
                        next_credit_expiration_at) from account_balances order by 1";
    let (rows_before, accounts_before) =
        (column::<String>(&mut c, rows), column::<String>(&mut c, accounts));
    plant(&mut c, DAMAGE);
    let visible = |c: &mut Client, owner: &Owner| -> i64 {
        let sql = "select balance_microdollars::bigint from account_balances where owner_kind = $1 and owner_id = $2";
        one(c, sql, &[&owner.kind, &owner.id])
    };
    // With the balance kept, and then taken back, so that the first way is tried on all of them.
    run_sql(&mut c, "begin");
    for played in &all {
        let (owner, model) = (&played.owner, &played.model);
        let balance = visible(&mut c, owner);
        let found = owner.recompute(&mut c, "");
        let (used, acquired) = (model.used() + 7, model.acquired() + 500);
        let error = balance - (acquired - used);
        assert_eq!((found.used.1, found.acquired.1), (used, acquired + error), "seed {seed}");
        assert_eq!((found.error, found.adjustment), (error, error), "seed {seed}");
        assert_eq!(visible(&mut c, owner), balance, "seed {seed}");
        let adjustments = "select array_agg(amount_microdollars) from credit_transactions
                           where owner_id = $1 and credit_category = 'accounting_adjustment'";
        let booked: Option<Vec<i64>> = one(&mut c, adjustments, &[&owner.id]);
        assert_eq!(booked, (error != 0).then(|| vec![error]), "seed {seed}");
        let again = owner.recompute(&mut c, "");
        assert_eq!(again, Recomputed::unchanged(used, acquired + error), "seed {seed}");
    }
    let kept = "select t::text from credit_transactions as t
                where credit_category is distinct from 'accounting_adjustment' order by id";
    assert!(column::<String>(&mut c, kept) == rows_before, "seed {seed}");
    assert_books_hold(&mut c);
    run_sql(&mut c, "rollback");

    for played in &all {
        let (used, acquired) = (played.model.used() + 7, played.model.acquired() + 500);
        let found = played.owner.recompute(&mut c, ", keep_balance => false");
        assert_eq!(
            (found.used.1, found.acquired.1, found.adjustment),
            (used, acquired, 0),
            "seed {seed}"
        );
        let again = played.owner.recompute(&mut c, ", keep_balance => false");
        assert_eq!(again, Recomputed::unchanged(used, acquired), "seed {seed}");
    }
    assert!(column::<String>(&mut c, rows) == rows_before, "seed {seed}");
    assert_eq!(column::<String>(&mut c, accounts), accounts_before, "seed {seed}");
    assert_books_hold(&mut c);
}
