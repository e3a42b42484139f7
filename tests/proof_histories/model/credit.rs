//! Credit: what was given, what of it expired, what is left.

use super::calendar::{MINUTE, day_of, day_text};
use super::{At, BAD, Key, MAX_AMOUNT, Model, Owner, Purpose, Refused, Spend, WRONG_STATE};
use std::collections::{BTreeMap, BTreeSet};

/// A row of `credit_transactions`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As the product named it; closing rows are never named.
    pub id: String,
    pub owner: Owner,
    pub amount: i64,
    pub expiry: Option<At>,
    /// The usage before it.
    pub original: i64,
    /// Where its claims begin, if it expires.
    pub claims_from: Option<i64>,
    pub category: Option<String>,
    pub description: Option<String>,
    pub is_free: bool,
    /// On a closing row: the grant that is closed.
    pub closes: Option<String>,
    pub at: At,
    pub recorded: u64,
}

/// The arguments of `grant_credit`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Give {
    pub owner: Owner,
    pub amount: i64,
    pub expiry: Option<At>,
    pub category: Option<String>,
    pub description: Option<String>,
    pub is_free: bool,
    pub key: Option<String>,
    pub at: Option<At>,
}

/// The arguments of `import_opening_balance`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    pub owner: Owner,
    pub acquired: i64,
    pub used: i64,
    pub at: At,
    pub key: String,
}

/// How a grant ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub grant: String,
    pub at: At,
    pub usage_before: i64,
    pub claimed: i64,
    pub expired: i64,
}

/// What the ends of some grants lead to.
#[derive(Debug, Clone, Default)]
pub struct Ends {
    pub ends: Vec<End>,
    /// Where the claims of the others begin then.
    pub claims_from: BTreeMap<String, i64>,
}

impl Ends {
    pub fn expired(&self) -> i64 {
        self.ends.iter().map(|end| end.expired).sum()
    }
}

impl Model {
    pub fn entries_of<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.owner == *owner)
    }

    pub fn acquired(&self, owner: &Owner) -> i64 {
        self.entries_of(owner).map(|entry| entry.amount).sum()
    }

    /// Grants that expire and have not, in the order in which they will.
    pub fn open_grants(&self, owner: &Owner) -> Vec<Entry> {
        let closed: BTreeSet<&String> =
            self.entries_of(owner).filter_map(|entry| entry.closes.as_ref()).collect();
        let open = |entry: &&Entry| entry.expiry.is_some() && !closed.contains(&entry.id);
        let mut grants: Vec<Entry> = self.entries_of(owner).filter(open).cloned().collect();
        grants.sort_by_key(|grant| (grant.expiry, grant.at, grant.id.clone()));
        grants
    }

    /// Ends the first grants of an ordered list, each at an instant with a usage before it.
    pub fn end_first(grants: &[Entry], moments: &[(At, i64)]) -> Ends {
        let mut result = Ends::default();
        for grant in grants {
            result.claims_from.insert(grant.id.clone(), grant.claims_from.expect("it expires"));
        }
        for (place, &(at, usage_before)) in moments.iter().enumerate() {
            let grant = &grants[place];
            let begin = result.claims_from[&grant.id];
            let end = (begin + grant.amount).min(usage_before);
            let claimed = (end - begin).max(0);
            for later in &grants[place + 1..] {
                let other = result.claims_from.get_mut(&later.id).expect("all have one");
                *other += claimed.min(end - *other).max(0);
            }
            let expired = grant.amount - claimed;
            let grant = grant.id.clone();
            result.ends.push(End { grant, at, usage_before, claimed, expired });
        }
        result
    }

    /// How the grants end that are due.
    pub fn due(&self, owner: &Owner, as_of: At) -> Ends {
        let grants = self.open_grants(owner);
        let expiries = grants.iter().filter_map(|grant| grant.expiry);
        let due = expiries.take_while(|expiry| *expiry <= as_of);
        let moments: Vec<_> = due.map(|at| (at, self.used_before(owner, at))).collect();
        Self::end_first(&grants, &moments)
    }

    /// What is left, expirations that are due taken off.
    pub fn balance(&self, owner: &Owner, as_of: At) -> i64 {
        self.acquired(owner) - self.used(owner) - self.due(owner, as_of).expired()
    }

    fn write_ends(&mut self, owner: &Owner, ends: &Ends) -> i64 {
        for end in &ends.ends {
            let grant = self.entries.iter().find(|entry| entry.id == end.grant);
            let grant = grant.expect("the grant that ends").clone();
            let what = grant.description.or(grant.category).unwrap_or("credit".to_owned());
            self.entries.push(Entry {
                id: format!("end of {}", end.grant),
                owner: owner.clone(),
                amount: -end.expired,
                expiry: None,
                original: end.usage_before,
                claims_from: None,
                category: Some("credits_expired".to_owned()),
                description: Some(format!("Expired: {what}").chars().take(2_000).collect()),
                is_free: grant.is_free,
                closes: Some(end.grant.clone()),
                at: end.at,
                recorded: self.step,
            });
        }
        for entry in &mut self.entries {
            if let Some(from) = ends.claims_from.get(&entry.id) {
                entry.claims_from = Some(*from);
            }
        }
        ends.expired()
    }

    pub fn expire(&mut self, owner: &Owner, as_of: At, now: At) -> Result<i64, Refused> {
        if as_of > now {
            return Err(BAD);
        }
        let ends = self.due(owner, as_of);
        let ended = !ends.ends.is_empty();
        let expired = self.write_ends(owner, &ends);
        if ended {
            self.look_at_balance(owner);
        }
        Ok(expired)
    }

    /// The last instant of which an end tells: what is before it is settled.
    pub fn settled(&self, owner: &Owner) -> Option<At> {
        self.entries_of(owner).filter(|entry| entry.closes.is_some()).map(|entry| entry.at).max()
    }

    pub fn close_out(&mut self, owner: &Owner, as_of: At, now: At) -> Result<i64, Refused> {
        if as_of > now || self.settled(owner).is_some_and(|settled| as_of < settled) {
            return Err(BAD);
        }
        let expired = self.expire(owner, as_of, now)?;
        let (mut grants, later): (Vec<_>, Vec<_>) =
            self.open_grants(owner).into_iter().partition(|grant| grant.at <= as_of);
        let moments = vec![(as_of, self.used_before(owner, as_of)); grants.len()];
        grants.extend(later);
        let ends = Self::end_first(&grants, &moments);
        let more = self.write_ends(owner, &ends);
        if !ends.ends.is_empty() {
            self.look_at_balance(owner);
        }
        Ok(expired + more)
    }

    /// Adds an entry; says whether it is one of before.
    pub fn give(
        &mut self,
        give: &Give,
        id: &str,
        given_at: At,
        now: At,
    ) -> Result<String, Refused> {
        if !(1..=MAX_AMOUNT).contains(&give.amount) {
            return Err(BAD);
        }
        self.add(give, id, given_at, now)
    }

    pub fn adjust(
        &mut self,
        give: &Give,
        id: &str,
        given_at: At,
        now: At,
    ) -> Result<String, Refused> {
        let reason = give.description.as_deref().unwrap_or_default();
        if give.amount == 0 || give.amount.abs() > MAX_AMOUNT || reason.trim().is_empty() {
            return Err(BAD);
        }
        self.add(give, id, given_at, now)
    }

    fn add(&mut self, give: &Give, id: &str, given_at: At, now: At) -> Result<String, Refused> {
        let Give { amount, expiry, category, description, is_free, .. } = give;
        let payload = format!("{amount} {expiry:?} {category:?} {description:?} {is_free}");
        let space = format!("credit {:?}", give.owner);
        if let Some(known) = self.find_key(&space, give.key.as_deref(), &payload, give.at)? {
            return Ok(known.answer.clone());
        }
        let settled = self.settled(&give.owner);
        let is_too_late = |at: At| settled.is_some_and(|settled| at < settled);
        if give.at.is_some_and(|at| at > now + 5 * MINUTE || is_too_late(at)) {
            return Err(BAD);
        }
        let at = give.at.unwrap_or(given_at);
        if expiry.is_some_and(|expiry| expiry <= at) {
            return Err(BAD);
        }
        if let Some(key) = &give.key {
            let (key, answer, is_at_given) = (key.clone(), id.to_owned(), give.at.is_some());
            self.keys.push(Key { space, key, payload, at, is_at_given, answer });
        }
        let original = self.used_before(&give.owner, at);
        self.entries.push(Entry {
            id: id.to_owned(),
            owner: give.owner.clone(),
            amount: *amount,
            expiry: *expiry,
            original,
            claims_from: expiry.map(|_| original),
            category: category.clone(),
            description: description.clone(),
            is_free: *is_free,
            closes: None,
            at,
            recorded: self.step,
        });
        self.look_at_balance(&give.owner);
        Ok(id.to_owned())
    }

    pub fn open(&mut self, opening: &Opening, id: &str, now: At) -> Result<String, Refused> {
        let Opening { owner, acquired, used, at, .. } = opening;
        if *acquired < 0 || *used < 0 || *at > now {
            return Err(BAD);
        }
        let payload = format!("opening {acquired} {used} {at}");
        let space = format!("credit {owner:?}");
        if let Some(known) = self.find_key(&space, Some(&opening.key), &payload, Some(*at))? {
            return Ok(known.answer.clone());
        }
        if self.entries_of(owner).next().is_some() || self.used(owner) != 0 {
            return Err(WRONG_STATE);
        }
        let (key, answer) = (opening.key.clone(), id.to_owned());
        self.keys.push(Key { space, key, payload, at: *at, is_at_given: true, answer });
        self.entries.push(Entry {
            id: id.to_owned(),
            owner: owner.clone(),
            amount: *acquired,
            expiry: None,
            original: 0,
            claims_from: None,
            category: Some("opening_balance".to_owned()),
            description: Some("Taken over from another system".to_owned()),
            is_free: false,
            closes: None,
            at: *at,
            recorded: self.step,
        });
        self.look_at_balance(owner);
        if *used > 0 {
            self.wait(owner, true);
            let other = || "other".to_owned();
            self.spends.push(Spend {
                owner: owner.clone(),
                actor: None,
                purpose: Purpose {
                    category: "scheduled",
                    source: other(),
                    product: "opening-balance".to_owned(),
                    feature: other(),
                    model: other(),
                    provider: other(),
                },
                source: "opening_balance".to_owned(),
                amount: *used,
                at: *at,
                recorded: Some(self.step),
            });
        }
        Ok(id.to_owned())
    }

    /// Where every entry's baselines should be: its usage before, and for a grant that expires the
    /// place to which the ends that were recorded have pushed it.
    pub fn recomputed(&self, owner: &Owner) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.entries_of(owner).cloned().collect();
        for entry in &mut entries {
            entry.original = self.used_before(owner, entry.at);
            entry.claims_from = entry.expiry.map(|_| entry.original);
        }
        let mut closed: Vec<(usize, usize)> = Vec::new();
        for (end, entry) in entries.iter().enumerate() {
            let Some(id) = &entry.closes else { continue };
            closed.push((entries.iter().position(|grant| grant.id == *id).expect("it"), end));
        }
        closed.sort_by_key(|&(grant, end)| {
            let grant = &entries[grant];
            (entries[end].at, grant.expiry, grant.at, grant.id.clone())
        });
        let is_closed = |place: &usize| closed.iter().any(|(grant, _)| grant == place);
        let open: Vec<usize> = (0..entries.len())
            .filter(|place| entries[*place].expiry.is_some() && !is_closed(place))
            .collect();
        for (turn, &(grant, end)) in closed.iter().enumerate() {
            let claimed = entries[grant].amount + entries[end].amount;
            let upto = entries[grant].claims_from.expect("it expires") + claimed;
            let ended_at = entries[end].at;
            let later = closed[turn + 1..].iter().map(|(grant, _)| *grant);
            for other in later.chain(open.iter().copied()) {
                let other = &mut entries[other];
                if other.at <= ended_at {
                    let from = other.claims_from.expect("it expires");
                    other.claims_from = Some(from + claimed.min(upto - from).max(0));
                }
            }
        }
        entries
    }

    /// Charges dated before an end and recorded after it.
    fn late_arrivals(&self, owner: &Owner) -> usize {
        let ends: Vec<&Entry> =
            self.entries_of(owner).filter(|entry| entry.closes.is_some()).collect();
        let charges = self.charges_of(owner);
        let is_late =
            |at: At, recorded: u64| ends.iter().any(|end| at < end.at && end.recorded < recorded);
        let dated = charges.iter().filter_map(|charge| Some((charge.at, charge.recorded?)));
        dated.filter(|&(at, recorded)| is_late(at, recorded)).count()
    }

    /// What a recompute tells of books without damage.
    pub fn recompute_told(&self, owner: &Owner) -> String {
        let new = self.recomputed(owner);
        let old: Vec<&Entry> = self.entries_of(owner).collect();
        let changed = |differs: fn(&Entry, &Entry) -> bool| {
            old.iter().zip(&new).filter(|(old, new)| differs(old, new)).count()
        };
        let (used, acquired) = (self.used(owner), self.acquired(owner));
        format!(
            "{used} {used} {acquired} {acquired} 0 0 {} {} {}",
            changed(|old, new| old.original != new.original),
            changed(|old, new| old.claims_from != new.claims_from),
            self.late_arrivals(owner)
        )
    }

    pub fn recompute(&mut self, owner: &Owner) -> String {
        let told = self.recompute_told(owner);
        for new in self.recomputed(owner) {
            let old = self.entries.iter_mut().find(|entry| entry.id == new.id);
            *old.expect("the same entry") = new;
        }
        if self.waiting.remove(owner) == Some(true) {
            self.posted.insert(owner.clone());
        }
        self.look_at_balance(owner);
        told
    }

    /// Acquired, used, left, when credit expires next and how much of it.
    pub fn balance_told(&self, owner: &Owner, as_of: At) -> String {
        let (used, due) = (self.used(owner), self.due(owner, as_of));
        let acquired = self.acquired(owner) - due.expired();
        let grants = self.open_grants(owner);
        let next = grants.get(due.ends.len()).and_then(|grant| grant.expiry);
        let Some(next) = next else { return format!("{acquired} {used} {} - -", acquired - used) };
        // If nothing more is used, what is used now is what is used then.
        let mut moments: Vec<(At, i64)> =
            due.ends.iter().map(|end| (end.at, end.usage_before)).collect();
        let until = grants.iter().filter(|grant| grant.expiry <= Some(next)).count();
        moments.resize(until, (next, used));
        let then = Self::end_first(&grants, &moments).expired() - due.expired();
        format!("{acquired} {used} {} {next} {then}", acquired - used)
    }

    /// Open grants: amount, claimed, left, expiry, date. Those that never expire bear what the
    /// others do not, the oldest first.
    pub fn blocks(&self, owner: &Owner, as_of: At) -> Vec<String> {
        let (used, due) = (self.used(owner), self.due(owner, as_of));
        let grants = self.open_grants(owner);
        let mut moments: Vec<(At, i64)> =
            due.ends.iter().map(|end| (end.at, end.usage_before)).collect();
        moments.resize(grants.len(), (as_of, used));
        let ends = Self::end_first(&grants, &moments).ends;
        let line = |entry: &Entry, claimed: i64| {
            let expiry = entry.expiry.map_or("-".to_owned(), |expiry| expiry.to_string());
            let (amount, left) = (entry.amount, entry.amount - claimed);
            format!("{amount} {claimed} {left} {expiry} {} {}", entry.is_free, entry.at)
        };
        let mut lines = Vec::new();
        let mut left_of_expiring = 0;
        for (grant, end) in grants.iter().zip(&ends).skip(due.ends.len()) {
            left_of_expiring += end.expired;
            lines.push(line(grant, end.claimed));
        }
        let mut lasting: Vec<&Entry> = self
            .entries_of(owner)
            .filter(|entry| entry.expiry.is_none() && entry.amount > 0 && entry.closes.is_none())
            .collect();
        lasting.sort_by_key(|entry| (entry.at, entry.id.clone()));
        let given: i64 = lasting.iter().map(|entry| entry.amount).sum();
        let mut to_bear = (given + left_of_expiring - self.balance(owner, as_of)).max(0);
        for entry in lasting {
            let borne = to_bear.min(entry.amount);
            to_bear -= borne;
            lines.push(line(entry, borne));
        }
        lines
    }

    /// The lines of a statement: when, what, amount; and the balance before them.
    pub fn statement(&self, owner: &Owner, from: At, to: At) -> (i64, Vec<String>) {
        let before = self.entries_of(owner).filter(|entry| entry.at < from);
        let granted: i64 = before.map(|entry| entry.amount).sum();
        let mut lines: Vec<String> = Vec::new();
        for entry in self.entries_of(owner).filter(|entry| (from..to).contains(&entry.at)) {
            let category = entry.category.as_deref();
            let kind = match category {
                _ if entry.closes.is_some() => "expiration",
                Some("opening_balance") => "opening_balance",
                Some("accounting_adjustment") => "adjustment",
                _ => "grant",
            };
            let what = entry.description.as_deref().or(category).unwrap_or("-");
            lines.push(format!("{} {kind} {} {what}", entry.at, entry.amount));
        }
        type Day = (bool, At, String);
        let mut days: BTreeMap<Day, (At, i64, i64)> = BTreeMap::new();
        for charge in self.charges_of(owner) {
            if (from..to).contains(&charge.at) {
                let day = (charge.is_attached, day_of(charge.at), charge.purpose.product);
                let sum = days.entry(day).or_insert((charge.at, 0, 0));
                *sum = (sum.0.max(charge.at), sum.1 + charge.amount, sum.2 + 1);
            }
        }
        for ((_, day, product), (last, amount, count)) in days {
            let charges = if count == 1 { "charge" } else { "charges" };
            let day = day_text(day);
            lines.push(format!("{last} spend {} {product} on {day}, {count} {charges}", -amount));
        }
        (granted - self.used_before(owner, from), lines)
    }
}
