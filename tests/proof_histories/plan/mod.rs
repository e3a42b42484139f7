//! What happens next: drawn from the seed, with an eye on what the model says has happened.

mod alerts;
mod charges;
mod tables;

use crate::model::calendar::{DAY, HOUR, MINUTE, day_of, hour_of, month_of, next_month, now, on};
use crate::model::credit::{Give, Opening};
use crate::model::usage::{Ask, Member, Policy, REACH};
use crate::model::{At, Model, Owner};
use crate::step::Step;
use fastrand::Rng;
use std::collections::BTreeSet;

const USD: i64 = 1_000_000;

/// Who may take part in a step: not those whom another transaction has touched.
#[derive(Debug, Clone, Default)]
pub struct Cast {
    pub users: Vec<String>,
    pub organizations: Vec<String>,
}

impl Cast {
    pub fn owners(&self) -> Vec<Owner> {
        let users = self.users.iter().map(|user| Owner::user(user));
        users.chain(self.organizations.iter().map(|one| Owner::organization(one))).collect()
    }
}

/// What a step may be, besides what the history as a whole allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct May {
    /// Touch what belongs to nobody of the cast, and to everybody.
    pub touch_all: bool,
    pub post: bool,
    /// What needs READ COMMITTED.
    pub read_committed: bool,
}

/// Histories of one season follow one another, and share a database.
pub fn season(seed: u64) -> u64 {
    seed / 160
}

pub struct Scene {
    pub rng: Rng,
    pub seed: u64,
    pub cast: Cast,
    pub start: At,
    /// How late it is in the history.
    pub at: At,
    pub is_rich: bool,
    pub has_minimums: bool,
    pub table: Option<String>,
    pub number: i64,
    /// Instants at which something begins or ends: faults like to sit there.
    pub edges: Vec<At>,
    /// Steps that had keys, to be tried again.
    pub past: Vec<Step>,
}

impl Scene {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        // Quotes and letters of other alphabets must not matter.
        let odd = ["", "'", "ü", " x"][rng.usize(..4)];
        let users = (0..rng.usize(1..=3)).map(|n| format!("u{seed}{odd}-{n}")).collect();
        let organizations = (0..rng.usize(0..=2)).map(|n| format!("o{seed}{odd}-{n}")).collect();
        let start = Self::start(seed, &mut rng);
        let has_table = rng.u32(..100) < 35;
        Scene {
            seed,
            cast: Cast { users, organizations },
            start,
            at: start,
            is_rich: rng.u32(..100) < 45,
            has_minimums: rng.u32(..100) < 45,
            table: has_table.then(|| format!("ledger_{seed}")),
            number: 0,
            edges: vec![start],
            past: Vec::new(),
            rng,
        }
    }

    /// Across the end of a leap year's February, around the day from which on the hours are known;
    /// over a change of the clocks; across the end of a year. Histories that share a database share
    /// a season: many months would only take time. Or just so long ago that the history has ended by
    /// now: of that, readers see events.
    fn start(seed: u64, rng: &mut Rng) -> At {
        let lately = day_of(now()) - 24 * DAY;
        let days = match season(seed) % 3 {
            0 => [on(2024, 2, 27, 0), on(2024, 2, 13, 0), lately],
            1 => [on(2024, 12, 30, 0), on(2024, 12, 30, 0), lately],
            _ => [on(2024, 3, 29, 0), on(2024, 3, 29, 0), lately],
        };
        days[rng.usize(..3)] + rng.i64(0..3 * DAY)
    }

    /// The months in which something may happen.
    pub fn months(&self) -> BTreeSet<At> {
        let mut months = BTreeSet::from([month_of(now())]);
        let mut month = month_of(self.start - REACH);
        while month <= self.start + 20 * DAY {
            months.insert(month);
            month = next_month(month);
        }
        months
    }

    pub fn percent(&mut self, chance: u32) -> bool {
        self.rng.u32(..100) < chance
    }

    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.rng.usize(..choices.len())].clone()
    }

    pub fn number(&mut self) -> i64 {
        self.number += 1;
        self.number
    }

    /// Time goes on.
    pub fn go_on(&mut self) {
        let pause = match self.rng.u32(..100) {
            0..40 => 0,
            40..70 => self.rng.i64(1..50 * MINUTE),
            70..84 => self.rng.i64(1..8 * HOUR),
            84..92 => hour_of(self.at) + HOUR - self.at,
            92..95 => day_of(self.at) + DAY - self.at,
            95..98 => self.next_edge() - self.at,
            _ => self.rng.i64(1..2 * DAY),
        };
        self.at = (self.at + pause).min(self.start + 19 * DAY);
    }

    /// When something that is known of ends next.
    fn next_edge(&self) -> At {
        self.edges.iter().copied().filter(|edge| *edge > self.at).min().unwrap_or(self.at)
    }

    /// When something happened: mostly now, or a while ago, or at an edge of the calendar.
    pub fn time(&mut self) -> At {
        let at = match self.rng.u32(..100) {
            0..40 => self.at,
            40..52 => self.pick(&self.edges.clone()) - self.rng.i64(0..=1),
            52..68 => self.at - self.rng.i64(0..3 * HOUR),
            68..80 => self.at - self.rng.i64(0..8 * DAY),
            80..84 => self.at + self.rng.i64(0..DAY),
            84..90 => hour_of(self.at) - self.rng.i64(0..=1),
            90..95 => day_of(self.at) - self.rng.i64(0..=1),
            _ => month_of(self.at) - self.rng.i64(0..=1),
        };
        at.clamp(self.start - REACH, self.start + 20 * DAY)
    }

    fn maybe_time(&mut self) -> Option<At> {
        match self.rng.u32(..100) {
            0..94 => Some(self.time()),
            94..98 => None,
            98 => Some(now() + HOUR),
            _ => Some(on(2010, 1, 1, 0)),
        }
    }

    pub fn amount(&mut self) -> i64 {
        match self.rng.u32(..100) {
            0..50 => self.rng.i64(1..5_000),
            50..75 => self.rng.i64(1..2 * USD),
            _ if self.is_rich => self.rng.i64(5..60) * USD,
            _ => self.rng.i64(1..5 * USD),
        }
    }

    /// An amount at which something turns over, or a little beside it.
    pub fn near(&mut self, amount: i64) -> Option<i64> {
        Some(amount + self.rng.i64(-1..=1)).filter(|near| *near > 0)
    }

    fn key(&mut self) -> Option<String> {
        self.percent(35).then(|| format!("key {}", self.number()))
    }

    fn some(&mut self, chance: u32, choices: &[&str]) -> Option<String> {
        self.percent(chance).then(|| self.pick(choices).to_owned())
    }

    pub fn owner(&mut self, cast: &Cast) -> Owner {
        if cast.organizations.is_empty() || self.percent(55) {
            Owner::user(&self.pick(&cast.users))
        } else {
            Owner::organization(&self.pick(&cast.organizations))
        }
    }

    fn give(&mut self, cast: &Cast, model: &Model) -> Step {
        let owner = self.owner(cast);
        let settled = model.settled(&owner).unwrap_or(At::MIN);
        let at = match self.rng.u32(..100) {
            0..60 => Some(self.at.max(settled)),
            60..90 => Some(self.time().max(settled)),
            90..94 => None,
            94..97 => Some(settled.max(on(2010, 1, 1, 0)) - 1),
            _ => Some(self.time()),
        };
        let begin = at.unwrap_or(self.at);
        let expiry = match self.rng.u32(..100) {
            0..25 => None,
            25..55 => Some(begin + self.rng.i64(1..2 * DAY)),
            55..85 => Some(begin + self.rng.i64(1..12 * DAY)),
            85..90 => Some(next_month(begin)),
            // Together with another one.
            90..95 => model.open_grants(&owner).first().and_then(|grant| grant.expiry),
            95..98 => Some(on(2090, 1, 1, 0)),
            _ => Some(begin),
        };
        self.edges.extend([begin, expiry.unwrap_or(begin)]);
        let amount = self.amount() * self.rng.i64(1..=3);
        let text = format!("grant {}", self.number());
        Step::Give(Give {
            owner,
            amount: if self.percent(1) { 0 } else { amount },
            expiry,
            category: self.some(40, &["promo", "purchase"]),
            description: self.percent(80).then_some(text),
            is_free: self.percent(50),
            key: self.key(),
            at,
        })
    }

    fn adjust(&mut self, cast: &Cast, model: &Model) -> Step {
        let owner = self.owner(cast);
        let mut amount = if self.percent(50) { self.amount() } else { -self.amount() };
        let minimum = model.alerts.get(&owner).and_then(|alerts| alerts.settings.minimum);
        if let Some(minimum) = minimum.filter(|_| self.percent(60)) {
            let balance = model.acquired(&owner) - model.used(&owner);
            amount = minimum - balance + self.rng.i64(-1..=1);
        }
        let reason = format!("refund {}", self.number());
        Step::Adjust(Give {
            owner,
            amount: if self.percent(3) { 0 } else { amount },
            expiry: None,
            category: Some("accounting_adjustment".to_owned()),
            description: Some(if self.percent(3) { " ".to_owned() } else { reason }),
            is_free: true,
            key: self.key(),
            at: None,
        })
    }

    fn opening(&mut self, cast: &Cast) -> Step {
        Step::Open(Opening {
            owner: self.owner(cast),
            acquired: self.amount() * 2,
            used: if self.percent(30) { 0 } else { self.amount() },
            at: self.time(),
            key: format!("opening {}", self.number()),
        })
    }

    fn policy(&mut self, cast: &Cast, may_be_everyones: bool) -> Step {
        let is_own = !may_be_everyones || self.percent(70);
        let month = if self.percent(70) { month_of(self.at) } else { next_month(self.at) };
        Step::Policy(Policy {
            user: is_own.then(|| self.pick(&cast.users)),
            month: if self.percent(3) { month + DAY } else { month },
            amount: match self.rng.u32(..10) {
                0 => None,
                1 => Some(0),
                2 => Some(-1),
                _ => Some(self.rng.i64(1..30_000)),
            },
            rule: self.pick(&[None, Some("whole"), Some("split")]),
        })
    }

    pub fn member(&mut self, organization: &str, user: &str) -> Member {
        Member {
            organization: organization.to_owned(),
            user: user.to_owned(),
            role: self.pick(&["owner", "billing_manager", "member", "member"]),
            limit: self.percent(50).then(|| self.rng.i64(0..100_000)),
        }
    }

    /// A member whose limit may be what was spent today.
    pub fn new_member(&mut self, model: &Model, organization: &str, user: &str) -> Member {
        let mut member = self.member(organization, user);
        let spent = model.member_day(organization, user, day_of(self.at));
        if spent > 0 && self.percent(70) {
            member.limit = self.near(spent);
        }
        member
    }

    fn membership(&mut self, cast: &Cast, model: &Model) -> Option<Step> {
        if cast.organizations.is_empty() {
            return None;
        }
        let (organization, user) = (self.pick(&cast.organizations), self.pick(&cast.users));
        Some(if self.percent(25) {
            Step::Leave { organization, user }
        } else {
            Step::Member(self.new_member(model, &organization, &user))
        })
    }

    fn expiration(&mut self, cast: &Cast, model: &Model, may: May) -> Step {
        let owner = self.owner(cast);
        match self.rng.u32(..10) {
            0 if may.touch_all => Step::ExpireDue { as_of: self.at },
            1 => Step::Expire { owner, as_of: None },
            2 => Step::Expire { owner, as_of: Some(now() + HOUR) },
            3 => {
                let early = model.settled(&owner).map(|settled| settled - 1);
                Step::CloseOut {
                    owner,
                    as_of: early.filter(|_| self.percent(30)).or(Some(self.at)),
                }
            }
            _ => Step::Expire { owner, as_of: Some(self.at) },
        }
    }

    fn rollups(&mut self, cast: &Cast, model: &Model, may: May) -> Step {
        let owner = self.owner(cast);
        let from = hour_of(self.at) - self.rng.i64(0..40) * HOUR;
        let to = from + self.rng.i64(1..40) * HOUR;
        let own = model.degraded.iter().filter(|one| one.owner == owner);
        let ids: Vec<String> = own.map(|one| one.id.clone()).collect();
        // Degraded intervals are everybody's: whoever changes one holds them until the commit.
        match self.rng.u32(..10) {
            _ if !may.touch_all => Step::Rebuild { owner, from, to },
            0..5 => Step::Rebuild { owner, from, to },
            5..8 => {
                let reason = self.pick(&["by hand", "restored"]).to_owned();
                Step::Degrade { owner, from, to, reason }
            }
            _ if ids.is_empty() => Step::Resolve { id: None },
            _ => Step::Resolve { id: Some(self.pick(&ids)) },
        }
    }

    /// The next step of somebody of the cast; none where what was drawn makes no sense.
    pub fn step(&mut self, cast: &Cast, model: &Model, may: May) -> Option<Step> {
        let step = match self.rng.u32(..1000) {
            0..200 => Step::Record(self.ask(cast)),
            200..250 => self.respond(cast),
            250..290 => {
                let count = self.rng.usize(1..6);
                let mut asks: Vec<Ask> = (0..count).map(|_| self.ask(cast)).collect();
                if count > 2 && self.percent(30) {
                    asks[count - 1] = asks[0].clone();
                }
                Step::Batch(asks)
            }
            290..400 => Step::Pay(self.pay_once(cast, model)),
            400..470 => self.again(cast)?,
            470..560 => self.give(cast, model),
            560..585 => self.adjust(cast, model),
            585..600 => self.opening(cast),
            600..650 => self.expiration(cast, model, may),
            650..675 => Step::Recompute { owner: self.owner(cast), keep_balance: self.percent(50) },
            675..705 => self.policy(cast, may.touch_all),
            705..730 => self.membership(cast, model)?,
            730..770 if may.post => {
                let few = !self.has_minimums && self.percent(30);
                Step::Post { max_rows: if few { self.rng.i64(1..4) } else { 100_000 } }
            }
            770..795 => self.rollups(cast, model, may),
            795..860 => self.settings(cast, model, may),
            860..905 => self.evaluation(cast, model),
            905..920 => self.reaction(cast, model)?,
            920..945 if may.touch_all => self.mail(model),
            945..990 => self.table_step(cast, model, may)?,
            990..994 if may.touch_all && may.read_committed => {
                Step::Erase { user: self.pick(&cast.users) }
            }
            994 if may.touch_all => Step::ForgetEvents,
            995 if may.touch_all => Step::Retry,
            _ => return None,
        };
        if step.has_key() {
            self.past.push(step.clone());
        }
        Some(step)
    }
}
