//! What a batch of queue rows adds to the figures of its owners.

use crate::error::{BillingError, Kind, Result};
use crate::owner::{Owner, OwnerKind};
use crate::sources::Category;
use crate::time::{Day, Instant};
use crate::transaction::TransactionId;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Queue rows of one owner, actor, dimension and hour, added up.
#[derive(Debug, Clone)]
pub struct Entry {
    pub owner: Owner,
    /// Empty when nobody is known.
    pub actor_user_id: String,
    pub dimension_id: Uuid,
    pub hour_start: Instant,
    /// How many queue rows these are.
    pub rows: i64,
    /// Exa requests among them, free ones too, with what they cost and what of that was charged.
    pub requests: i64,
    pub cost_microdollars: i64,
    pub charged_microdollars: i64,
    pub amount_microdollars: i64,
    pub spend_record_count: i64,
    /// Whether this very transaction may have charged one of them.
    pub may_be_own: bool,
    /// What transactions before this one have queued for the owner waits no more, as far as these rows
    /// show it.
    pub posted_before: TransactionId,
}

/// What is added, by the keys of the tables it is added to. Sorted: everybody writes in one order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Figures {
    pub accounts: BTreeMap<Owner, Spent>,
    /// Of all owners, those who spent nothing too.
    pub posted_before: BTreeMap<Owner, TransactionId>,
    /// By acting user, organization (none for themselves) and month.
    pub months: BTreeMap<(String, Option<String>, Day), Requests>,
    /// By organization, member and day: variable spend only.
    pub member_days: BTreeMap<(String, String, Day), i64>,
    pub totals: BTreeMap<(Owner, Instant, &'static str), Spend>,
    /// The same by the beginnings of days.
    pub days: BTreeMap<(Owner, Instant, &'static str), Spend>,
    pub drivers: BTreeMap<(Owner, Instant, Uuid, String), Spend>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    pub amount_microdollars: i64,
    pub may_be_own: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    pub cost_microdollars: i64,
    pub charged_microdollars: i64,
    pub requests: i64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Spend {
    pub amount_microdollars: i64,
    pub spend_record_count: i64,
}

impl Figures {
    /// `categories` are those of the entries' dimensions.
    pub fn of(entries: &[Entry], categories: &BTreeMap<Uuid, Category>) -> Result<Self> {
        let mut figures = Self::default();
        for entry in entries {
            let category = *categories.get(&entry.dimension_id).ok_or_else(|| {
                BillingError::internal("a queue row names a dimension that does not exist")
            })?;
            let newest = figures.posted_before.entry(entry.owner.clone()).or_default();
            *newest = entry.posted_before.max(*newest);
            figures.count_requests(entry)?;
            if entry.amount_microdollars != 0 || entry.spend_record_count != 0 {
                figures.count_spend(entry, category)?;
            }
        }
        Ok(figures)
    }

    fn count_requests(&mut self, entry: &Entry) -> Result<()> {
        if entry.requests == 0 {
            return Ok(());
        }
        let organization =
            (entry.owner.kind == OwnerKind::Organization).then(|| entry.owner.id.clone());
        let month = entry.hour_start.month()?.first_day();
        let month =
            self.months.entry((entry.actor_user_id.clone(), organization, month)).or_default();
        add(&mut month.cost_microdollars, entry.cost_microdollars)?;
        add(&mut month.charged_microdollars, entry.charged_microdollars)?;
        add(&mut month.requests, entry.requests)
    }

    fn count_spend(&mut self, entry: &Entry, category: Category) -> Result<()> {
        let (owner, hour) = (&entry.owner, entry.hour_start);
        let account = self.accounts.entry(owner.clone()).or_default();
        add(&mut account.amount_microdollars, entry.amount_microdollars)?;
        account.may_be_own |= entry.may_be_own;
        for (sums, start) in [(&mut self.totals, hour), (&mut self.days, hour.day_start())] {
            sums.entry((owner.clone(), start, category.as_str())).or_default().add(entry)?;
        }
        let driver = (owner.clone(), hour, entry.dimension_id, entry.actor_user_id.clone());
        self.drivers.entry(driver).or_default().add(entry)?;
        let is_of_member = owner.kind == OwnerKind::Organization && !entry.actor_user_id.is_empty();
        if is_of_member && category == Category::Variable {
            let day = (owner.id.clone(), entry.actor_user_id.clone(), hour.day()?);
            add(self.member_days.entry(day).or_default(), entry.amount_microdollars)?;
        }
        Ok(())
    }
}

impl Spend {
    fn add(&mut self, entry: &Entry) -> Result<()> {
        add(&mut self.amount_microdollars, entry.amount_microdollars)?;
        add(&mut self.spend_record_count, entry.spend_record_count)
    }
}

fn add(sum: &mut i64, amount: i64) -> Result<()> {
    *sum = sum
        .checked_add(amount)
        .ok_or_else(|| BillingError::new(Kind::OutOfRange, "bigint out of range"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    const VARIABLE: Uuid = Uuid::from_u128(1);
    const SCHEDULED: Uuid = Uuid::from_u128(2);

    fn categories() -> BTreeMap<Uuid, Category> {
        BTreeMap::from([(VARIABLE, Category::Variable), (SCHEDULED, Category::Scheduled)])
    }

    fn owner(kind: OwnerKind, id: &str) -> Owner {
        Owner { kind, id: id.to_owned() }
    }

    fn spend(owner: Owner, actor: &str, hour_start: Instant, amount: i64) -> Entry {
        Entry {
            owner,
            actor_user_id: actor.to_owned(),
            dimension_id: VARIABLE,
            hour_start,
            rows: 1,
            requests: 0,
            cost_microdollars: 0,
            charged_microdollars: 0,
            amount_microdollars: amount,
            spend_record_count: 1,
            may_be_own: false,
            posted_before: TransactionId(7),
        }
    }

    fn figures(entries: &[Entry]) -> Figures {
        Figures::of(entries, &categories()).expect("figures")
    }

    #[test]
    fn a_members_request_counts_for_the_organization_the_member_and_the_month() {
        let acme = owner(OwnerKind::Organization, "acme");
        let request = Entry {
            requests: 2,
            cost_microdollars: 50,
            charged_microdollars: 30,
            may_be_own: true,
            ..spend(acme.clone(), "ann", utc(2026, 2, 28, 23, 0), 30)
        };
        let later = Entry { may_be_own: false, ..request.clone() };
        let figures = figures(&[request, later]);
        let spent = Spent { amount_microdollars: 60, may_be_own: true };
        assert_eq!(figures.accounts, BTreeMap::from([(acme.clone(), spent)]));
        let february = utc(2026, 2, 1, 0, 0).day().expect("day");
        let month = ("ann".to_owned(), Some("acme".to_owned()), february);
        let requests = Requests { cost_microdollars: 100, charged_microdollars: 60, requests: 4 };
        assert_eq!(figures.months, BTreeMap::from([(month, requests)]));
        let day = utc(2026, 2, 28, 0, 0).day().expect("day");
        let member = ("acme".to_owned(), "ann".to_owned(), day);
        assert_eq!(figures.member_days, BTreeMap::from([(member, 60)]));
        let hour = utc(2026, 2, 28, 23, 0);
        let spend = Spend { amount_microdollars: 60, spend_record_count: 2 };
        assert_eq!(figures.totals, BTreeMap::from([((acme.clone(), hour, "variable"), spend)]));
        let driver = (acme, hour, VARIABLE, "ann".to_owned());
        assert_eq!(figures.drivers, BTreeMap::from([(driver, spend)]));
    }

    #[test]
    fn a_free_request_counts_for_the_month_alone() {
        let free = Entry {
            requests: 1,
            cost_microdollars: 70,
            amount_microdollars: 0,
            spend_record_count: 0,
            ..spend(owner(OwnerKind::User, "ann"), "ann", utc(2026, 3, 1, 0, 0), 0)
        };
        let figures = figures(&[free]);
        let march = utc(2026, 3, 1, 0, 0).day().expect("day");
        let requests = Requests { cost_microdollars: 70, charged_microdollars: 0, requests: 1 };
        let months = BTreeMap::from([(("ann".to_owned(), None, march), requests)]);
        let posted_before = BTreeMap::from([(owner(OwnerKind::User, "ann"), TransactionId(7))]);
        assert_eq!(figures, Figures { months, posted_before, ..Figures::default() });
    }

    #[test]
    fn days_of_members_are_of_variable_spend_and_known_people_of_organizations() {
        let (acme, ann) = (owner(OwnerKind::Organization, "acme"), owner(OwnerKind::User, "ann"));
        let at = utc(2026, 3, 1, 0, 0);
        let scheduled = Entry { dimension_id: SCHEDULED, ..spend(acme.clone(), "ann", at, 1) };
        let entries = [scheduled, spend(acme.clone(), "", at, 2), spend(ann, "ann", at, 3)];
        let figures = figures(&entries);
        assert_eq!(figures.member_days, BTreeMap::new());
        let categories: Vec<_> = figures.totals.keys().map(|(.., category)| *category).collect();
        assert_eq!(categories, ["scheduled", "variable", "variable"]);
    }

    #[test]
    fn a_row_that_changes_an_amount_without_being_a_record_counts() {
        let ann = owner(OwnerKind::User, "ann");
        let hour = utc(2026, 3, 1, 0, 0);
        let change = Entry { spend_record_count: 0, ..spend(ann.clone(), "ann", hour, -5) };
        let nothing = Entry { amount_microdollars: 0, ..spend(ann.clone(), "ann", hour, 0) };
        let figures = figures(&[change, nothing]);
        assert_eq!(figures.accounts[&ann].amount_microdollars, -5);
        let spend = Spend { amount_microdollars: -5, spend_record_count: 1 };
        assert_eq!(figures.totals, BTreeMap::from([((ann, hour, "variable"), spend)]));
    }

    #[test]
    fn an_owner_is_posted_as_far_as_the_newest_of_the_rows_shows() {
        let (ann, bob) = (owner(OwnerKind::User, "ann"), owner(OwnerKind::User, "bob"));
        let hour = utc(2026, 3, 1, 0, 0);
        let before = |number, entry| Entry { posted_before: TransactionId(number), ..entry };
        let entries = [
            before(8, spend(ann.clone(), "ann", hour, 1)),
            before(9, spend(ann.clone(), "ann", hour.plus_hours(1), 1)),
            before(6, spend(ann.clone(), "ann", hour.plus_hours(2), 1)),
            before(3, spend(bob.clone(), "bob", hour, 1)),
        ];
        let expected = BTreeMap::from([(ann, TransactionId(9)), (bob, TransactionId(3))]);
        assert_eq!(figures(&entries).posted_before, expected);
    }

    #[test]
    fn sums_that_are_none_and_unknown_dimensions_are_refused() {
        let ann = owner(OwnerKind::User, "ann");
        let hour = utc(2026, 3, 1, 0, 0);
        let entries =
            [spend(ann.clone(), "ann", hour, i64::MAX), spend(ann.clone(), "ann", hour, 1)];
        let error = Figures::of(&entries, &categories()).expect_err("too much");
        assert_eq!(error.kind, Kind::OutOfRange);
        let unknown = Entry { dimension_id: Uuid::nil(), ..spend(ann, "ann", hour, 1) };
        Figures::of(&[unknown], &categories()).expect_err("no such dimension");
    }

    prop_compose! {
        fn an_entry()(
            kind in prop_oneof![Just(OwnerKind::User), Just(OwnerKind::Organization)],
            id in "[ab]", actor in "[ab]?", is_scheduled: bool, hour in 0i64..50,
            amount in -1_000i64..1_000, spend_record_count in -1i64..3, requests in 0i64..3,
        ) -> Entry {
            Entry {
                dimension_id: if is_scheduled { SCHEDULED } else { VARIABLE },
                requests,
                cost_microdollars: requests * 7,
                spend_record_count,
                ..spend(owner(kind, &id), &actor, utc(2026, 2, 27, 0, 0).plus_hours(hour), amount)
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_doubled(entries in prop::collection::vec(an_entry(), 0..40)) {
            let figures = figures(&entries);
            let amount: i64 = entries.iter().map(|entry| entry.amount_microdollars).sum();
            let of_accounts: i64 =
                figures.accounts.values().map(|spent| spent.amount_microdollars).sum();
            let totals: i64 = figures.totals.values().map(|spend| spend.amount_microdollars).sum();
            let drivers: i64 = figures.drivers.values().map(|spend| spend.amount_microdollars).sum();
            prop_assert_eq!((amount, amount, amount), (of_accounts, totals, drivers));
            let records: i64 = entries.iter().map(|entry| entry.spend_record_count).sum();
            let in_totals: i64 = figures.totals.values().map(|spend| spend.spend_record_count).sum();
            prop_assert_eq!(records, in_totals);
            let requests: i64 = entries.iter().map(|entry| entry.requests).sum();
            let in_months: i64 = figures.months.values().map(|month| month.requests).sum();
            let cost: i64 = figures.months.values().map(|month| month.cost_microdollars).sum();
            prop_assert_eq!((requests, requests * 7), (in_months, cost));
        }
    }
}
