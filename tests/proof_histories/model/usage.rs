//! Exa requests and other charges: what is free, what is charged, what may be asked for.

use super::calendar::{DAY, HOUR, MINUTE, day_of, month_of};
use super::{
    At, BAD, Charge, Key, MAX_AMOUNT, Model, NO_CREDIT, Owner, Purpose, Refused, Spend,
    counted_source, label,
};

pub const DEFAULT_ALLOWANCE: i64 = 10_000_000;
/// How far back the sessions may record.
pub const LATE_LIMIT: At = 3_000 * DAY;

/// An entry of the policy: from a month on, for one user or for everyone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub user: Option<String>,
    pub month: At,
    pub amount: Option<i64>,
    pub rule: Option<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub organization: String,
    pub user: String,
    pub role: &'static str,
    pub limit: Option<i64>,
}

/// A recorded request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub ask: Ask,
    pub at: At,
    pub free: i64,
    pub charged: i64,
    /// What the month was locked in with.
    pub allowance: i64,
    pub rule: &'static str,
    pub recorded: u64,
}

/// The arguments of `record_exa_usage`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub user: String,
    pub path: String,
    pub cost: i64,
    pub organization: Option<String>,
    pub key: Option<String>,
    pub at: Option<At>,
    pub feature: Option<String>,
    pub kind: Option<String>,
}

/// The arguments of `record_spend`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pay {
    pub owner: Owner,
    pub amount: i64,
    pub category: &'static str,
    pub source: String,
    pub product: String,
    pub feature: String,
    pub model: String,
    pub provider: String,
    pub actor: Option<String>,
    pub key: Option<String>,
    pub at: Option<At>,
    pub require_balance: bool,
}

impl Ask {
    pub fn owner(&self) -> Owner {
        match &self.organization {
            Some(organization) => Owner::organization(organization),
            None => Owner::user(&self.user),
        }
    }

    /// Whether the request is the owner's to pay.
    pub fn is_of(&self, owner: &Owner) -> bool {
        let id = self.organization.as_ref().unwrap_or(&self.user);
        self.organization.is_some() == owner.is_organization && *id == owner.id
    }

    fn payload(&self) -> String {
        let Ask { organization, path, cost, feature, kind, .. } = self;
        format!("{organization:?} {path:?} {cost} {feature:?} {kind:?}")
    }
}

impl Request {
    pub fn charge(&self) -> Charge {
        let known = ["/search", "/contents", "/findSimilar", "/answer", "/context"];
        let path = &self.ask.path;
        let feature = if known.contains(&path.as_str()) { &path[1..] } else { "other" };
        Charge {
            owner: self.ask.owner(),
            actor: Some(self.ask.user.clone()),
            purpose: Purpose {
                category: "variable",
                source: "other".to_owned(),
                product: "exa".to_owned(),
                feature: feature.to_owned(),
                model: "other".to_owned(),
                provider: "exa".to_owned(),
            },
            amount: self.charged,
            at: self.at,
            recorded: Some(self.recorded),
            is_attached: false,
        }
    }
}

/// What the answer to a recording says, but for whether it is a replay.
fn told(cost: i64, charged: i64, allowance: Option<i64>) -> String {
    let allowance = allowance.map_or("-".to_owned(), |allowance| allowance.to_string());
    format!("{cost} {} {charged} {allowance}", cost - charged)
}

/// When something happened may lie five minutes ahead.
pub fn accepted_time(at: Option<At>, now: At) -> Result<At, Refused> {
    let at = at.unwrap_or(now);
    if at > now + 5 * MINUTE || at < now - LATE_LIMIT { Err(BAD) } else { Ok(at) }
}

impl Model {
    /// Amount and rule in force for a user's month.
    pub fn policy(&self, user: &str, month: At) -> (i64, &'static str) {
        let last = |of: Option<&str>| {
            let entries = self.policies.iter().filter(|one| one.user.as_deref() == of);
            let begun = entries.filter(|one| one.month <= month);
            begun.max_by_key(|one| one.month).filter(|one| one.amount.is_some())
        };
        let (own, all) = (last(Some(user)), last(None));
        let amount = own.or(all).and_then(|one| one.amount).unwrap_or(DEFAULT_ALLOWANCE);
        let rule = own.and_then(|one| one.rule).or_else(|| all.and_then(|one| one.rule));
        (amount, rule.unwrap_or("whole"))
    }

    pub fn set_policy(&mut self, new: Policy) -> Result<(), Refused> {
        let is_rule_of_nothing = new.amount.is_none() && new.rule.is_some();
        let is_negative = new.amount.is_some_and(|amount| amount < 0);
        if new.month != month_of(new.month) || is_negative || is_rule_of_nothing {
            return Err(BAD);
        }
        self.policies.retain(|one| (&one.user, one.month) != (&new.user, new.month));
        self.policies.push(new);
        Ok(())
    }

    fn month_requests(&self, user: &str, month: At) -> impl Iterator<Item = &Request> {
        let user = user.to_owned();
        let of_month = move |one: &&Request| one.ask.user == user && month_of(one.at) == month;
        self.requests.iter().filter(of_month)
    }

    /// What the first request of the month locked in.
    pub fn locked(&self, user: &str, month: At) -> Option<(i64, &'static str)> {
        self.month_requests(user, month).next().map(|first| (first.allowance, first.rule))
    }

    /// What was counted against the month's allowance.
    pub fn counted(&self, user: &str, month: At) -> i64 {
        self.month_requests(user, month).map(|request| request.free).sum()
    }

    /// Records a request; says what the caller is told.
    pub fn record(&mut self, ask: &Ask, given_at: Option<At>, now: At) -> Result<String, Refused> {
        if !(0..=MAX_AMOUNT).contains(&ask.cost) || !ask.path.starts_with('/') {
            return Err(BAD);
        }
        let space = format!("exa {}", ask.user);
        let (key, payload) = (ask.key.as_deref(), ask.payload());
        if let Some(known) = self.find_key(&space, key, &payload, ask.at)? {
            return Ok(format!("{} true", known.answer));
        }
        let at = accepted_time(ask.at.or(given_at), now)?;
        let month = month_of(at);
        let (allowance, rule) =
            self.locked(&ask.user, month).unwrap_or_else(|| self.policy(&ask.user, month));
        let left = allowance - self.counted(&ask.user, month);
        let free = match rule {
            _ if left <= 0 => 0,
            "split" => ask.cost.min(left),
            _ => ask.cost,
        };
        let charged = ask.cost - free;
        let answer = told(ask.cost, charged, Some(allowance));
        if let Some(key) = &ask.key {
            let (key, answer) = (key.clone(), answer.clone());
            self.keys.push(Key { space, key, payload, at, is_at_given: ask.at.is_some(), answer });
        }
        let (ask, recorded) = (ask.clone(), self.step);
        self.wait(&ask.owner(), charged > 0);
        self.requests.push(Request { ask, at, free, charged, allowance, rule, recorded });
        Ok(format!("{answer} false"))
    }

    /// Records many, all or none; with the times that the product gave to those without one.
    pub fn record_all(
        &mut self,
        asks: &[Ask],
        given_at: &[Option<At>],
        now: At,
    ) -> Result<Vec<String>, Refused> {
        let mut trial = self.clone();
        let given_at = given_at.iter().copied().chain(std::iter::repeat(None));
        let told: Result<Vec<_>, _> =
            asks.iter().zip(given_at).map(|(ask, at)| trial.record(ask, at, now)).collect();
        let told = told?;
        *self = trial;
        Ok(told)
    }

    pub fn pay(&mut self, pay: &Pay, given_at: Option<At>, now: At) -> Result<String, Refused> {
        if !(1..=MAX_AMOUNT).contains(&pay.amount) {
            return Err(BAD);
        }
        let purpose = Purpose {
            category: pay.category,
            source: counted_source(&pay.source),
            product: label(&pay.product),
            feature: label(&pay.feature),
            model: label(&pay.model),
            provider: label(&pay.provider),
        };
        let space = format!("spend {:?} {:?}", pay.owner, pay.source);
        let payload = format!("{} {purpose:?} {:?} {}", pay.amount, pay.actor, pay.require_balance);
        if let Some(known) = self.find_key(&space, pay.key.as_deref(), &payload, pay.at)? {
            return Ok(format!("{} true", known.answer));
        }
        let at = accepted_time(pay.at.or(given_at), now)?;
        if pay.require_balance && self.balance(&pay.owner, now) < pay.amount {
            return Err(NO_CREDIT);
        }
        let answer = told(pay.amount, pay.amount, None);
        if let Some(key) = &pay.key {
            let (key, answer) = (key.clone(), answer.clone());
            self.keys.push(Key { space, key, payload, at, is_at_given: pay.at.is_some(), answer });
        }
        self.wait(&pay.owner, true);
        self.spends.push(Spend {
            owner: pay.owner.clone(),
            actor: pay.actor.clone(),
            purpose,
            source: pay.source.clone(),
            amount: pay.amount,
            at,
            recorded: Some(self.step),
        });
        Ok(format!("{answer} false"))
    }

    pub fn role(&self, organization: &str, user: &str) -> Option<&Member> {
        self.members.iter().find(|one| one.organization == organization && one.user == user)
    }

    pub fn set_member(&mut self, new: Member) {
        self.remove_member(&new.organization, &new.user);
        self.members.push(new);
    }

    pub fn remove_member(&mut self, organization: &str, user: &str) {
        self.members.retain(|one| one.organization != organization || one.user != user);
    }

    /// Variable spend of a member for an organization on the UTC day of an instant.
    pub fn member_day(&self, organization: &str, user: &str, day: At) -> i64 {
        let charges = self.charges_of(&Owner::organization(organization));
        let of_day = charges.iter().filter(|charge| {
            charge.actor.as_deref() == Some(user)
                && charge.purpose.category == "variable"
                && day_of(charge.at) == day
        });
        of_day.map(|charge| charge.amount).sum()
    }

    /// May a user ask? Allowed, reason, paid, counted, allowance, balance, what is left of a limit.
    pub fn decision(&self, user: &str, organization: Option<&str>, as_of: At) -> String {
        let month = month_of(as_of);
        let locked = self.locked(user, month);
        let (allowance, _) = locked.unwrap_or_else(|| self.policy(user, month));
        let counted = self.counted(user, month);
        let is_paid = counted >= allowance;
        let member = organization.map(|organization| self.role(organization, user));
        let owner = organization.map_or_else(|| Owner::user(user), Owner::organization);
        let balance = self.balance(&owner, as_of);
        let remaining = member.flatten().and_then(|member| {
            let spent = self.member_day(&owner.id, user, day_of(as_of));
            member.limit.map(|limit| (limit - spent).min(balance))
        });
        let may_not_spend =
            |member: Option<&Member>| member.is_none_or(|member| member.role == "billing_manager");
        let reason = if !is_paid {
            "free_allowance"
        } else if member.is_some_and(may_not_spend) {
            "not_a_member"
        } else if balance <= 0 {
            "no_credit_balance"
        } else if remaining.is_some_and(|remaining| remaining <= 0) {
            "member_daily_limit"
        } else {
            "credit_balance"
        };
        let allowed = matches!(reason, "free_allowance" | "credit_balance");
        let shown = |figure: Option<i64>| figure.map_or("-".to_owned(), |one| one.to_string());
        // Who is no member is not told what an organization has.
        let balance = Some(balance).filter(|_| member.is_none_or(|member| member.is_some()));
        format!(
            "{allowed} {reason} {is_paid} {counted} {allowance} {} {}",
            shown(balance),
            shown(remaining)
        )
    }

    /// Cost, charged, requests and locked allowance of a user's month.
    pub fn month(&self, user: &str, month: At) -> String {
        let sum = |figure: fn(&Request) -> i64| -> i64 {
            self.month_requests(user, month).map(figure).sum()
        };
        let allowance = self.locked(user, month).map(|locked| locked.0.to_string());
        format!(
            "{} {} {} {}",
            sum(|request| request.ask.cost),
            sum(|request| request.charged),
            sum(|_| 1),
            allowance.unwrap_or("-".to_owned())
        )
    }
}

/// How long before the first step a history may reach.
pub const REACH: At = 10 * DAY + HOUR;
