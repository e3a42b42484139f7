//! Which suggestion an owner's spend gives ground for, and what becomes of those made before.

use crate::events::SuggestionKind;
use crate::owner::{Owner, OwnerKind};
use crate::time::Instant;
use serde_json::{Value as Json, json};
use uuid::Uuid;

/// The spend that is looked at: so long before the instant of the evaluation.
pub const WINDOW_HOURS: i64 = 7 * 24;
/// A suggestion that nothing has borne out for so long is closed.
const GROUNDLESS_HOURS: i64 = 30 * 24;
/// Ground that is found again without any change is noted once in so many hours.
const NOTED_EVERY_HOURS: i64 = 1;

/// A row of `suggestion_rules`; its key is the target of its suggestions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub key: String,
    pub kind: SuggestionKind,
    pub owner_kind: Option<OwnerKind>,
    pub provider: Option<String>,
    pub model_or_plan: Option<String>,
    pub minimum: i64,
    pub price: i64,
    /// Texts, link and benefit, as the suggestion keeps them.
    pub content: Json,
}

/// Everything that went to one model or plan of one provider, whoever acted and through whatever
/// product and feature: what a plan covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    pub provider: String,
    pub model_or_plan: String,
    pub amount: i64,
    pub records: i64,
}

impl Driver {
    pub fn document(&self) -> Json {
        json!({
            "spend_category": "variable",
            "provider_key": self.provider,
            "model_or_plan_key": self.model_or_plan,
            "total_microdollars": self.amount,
            "spend_record_count": self.records,
        })
    }
}

/// What an owner spent in the window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Of both categories.
    pub total: i64,
    /// The variable driver with the largest amount, of equal ones the first in byte order.
    pub top: Option<Driver>,
}

/// A suggestion as the books have it: one that is open, or the one of its kind and target that was
/// dismissed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    pub id: Uuid,
    pub kind: SuggestionKind,
    pub target: String,
    pub is_open: bool,
    pub observed: i64,
    pub price: i64,
    pub driver: Option<Json>,
    pub content: Json,
    pub grounded_at: Instant,
}

/// What a suggestion is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    pub kind: SuggestionKind,
    pub target: String,
    pub observed: i64,
    pub price: i64,
    pub driver: Option<Json>,
    pub content: Json,
}

/// What has to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Create(Ground),
    Refresh(Uuid, Ground),
    Close(Uuid),
}

/// A change, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub owner: Owner,
    pub change: Change,
}

/// What a rule finds in an owner's spend; None when it does not apply.
fn ground(rule: &Rule, owner_kind: OwnerKind, spent: &Spent) -> Option<Ground> {
    if rule.owner_kind.is_some_and(|kind| kind != owner_kind) {
        return None;
    }
    let (observed, driver) = match rule.kind {
        SuggestionKind::CodingPlan => {
            let is_one = |wanted: &Option<String>, found: &str| {
                wanted.as_deref().is_none_or(|wanted| wanted == found)
            };
            let top = spent.top.as_ref()?;
            let covers = is_one(&rule.provider, &top.provider)
                && is_one(&rule.model_or_plan, &top.model_or_plan);
            (top.amount, Some(covers.then(|| top.document())?))
        }
        SuggestionKind::KiloPass => (spent.total, None),
    };
    (observed >= rule.minimum).then(|| Ground {
        kind: rule.kind,
        target: rule.key.clone(),
        observed,
        price: rule.price,
        driver,
        content: rule.content.clone(),
    })
}

/// A dismissed suggestion comes back when half as much again is observed, or at another price; at
/// another plan it has another target.
fn comes_back(dismissed: &Known, ground: &Ground) -> bool {
    let (then, now) = (i128::from(dismissed.observed), i128::from(ground.observed));
    now * 2 >= then * 3 || dismissed.price != ground.price
}

fn is_of(known: &Known, kind: SuggestionKind, target: &str) -> bool {
    known.kind == kind && known.target == target
}

/// What has to change for one owner. `rules` are those in force, the first that applies first:
/// it alone may make a suggestion, all of them bear out those that are open. `spent` is None where
/// it is too little for any rule.
pub fn decide(
    owner: &Owner,
    rules: &[Rule],
    spent: Option<&Spent>,
    known: &[Known],
    as_of: Instant,
) -> Vec<Finding> {
    let grounds: Vec<Ground> = spent
        .map(|spent| rules.iter().filter_map(|rule| ground(rule, owner.kind, spent)).collect())
        .unwrap_or_default();
    let open = known.iter().filter(|known| known.is_open);
    let mut changes: Vec<Change> =
        open.filter_map(|open| change_of_open(open, rules, &grounds, as_of)).collect();
    if let Some(first) = grounds.into_iter().next() {
        let stands_in_the_way = |known: &&Known| {
            is_of(known, first.kind, &first.target) && (known.is_open || !comes_back(known, &first))
        };
        if !known.iter().any(|known| stands_in_the_way(&known)) {
            changes.push(Change::Create(first));
        }
    }
    changes.into_iter().map(|change| Finding { owner: owner.clone(), change }).collect()
}

fn change_of_open(
    open: &Known,
    rules: &[Rule],
    grounds: &[Ground],
    as_of: Instant,
) -> Option<Change> {
    // What is no longer offered is no longer suggested.
    if !rules.iter().any(|rule| rule.kind == open.kind && rule.key == open.target) {
        return Some(Change::Close(open.id));
    }
    let ground = grounds.iter().find(|ground| is_of(open, ground.kind, &ground.target));
    let Some(ground) = ground else {
        let is_old = open.grounded_at.plus_hours(GROUNDLESS_HOURS) <= as_of;
        return is_old.then_some(Change::Close(open.id));
    };
    let is_same = open.observed == ground.observed
        && open.price == ground.price
        && open.driver == ground.driver
        && open.content == ground.content;
    let is_noted = as_of < open.grounded_at.plus_hours(NOTED_EVERY_HOURS);
    (!is_same || !is_noted).then(|| Change::Refresh(open.id, ground.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    const USD: i64 = 1_000_000;

    fn plan(key: &str, model: Option<&str>) -> Rule {
        Rule {
            key: key.to_owned(),
            kind: SuggestionKind::CodingPlan,
            owner_kind: None,
            provider: model.map(|_| "minimax".to_owned()),
            model_or_plan: model.map(str::to_owned),
            minimum: 50 * USD,
            price: 20 * USD,
            content: json!({ "title": key }),
        }
    }

    fn pass() -> Rule {
        let kind = SuggestionKind::KiloPass;
        let owner_kind = Some(OwnerKind::User);
        Rule { kind, owner_kind, minimum: 100 * USD, price: 199 * USD, ..plan("pass", None) }
    }

    fn rules() -> Vec<Rule> {
        vec![plan("plan", Some("m3")), pass()]
    }

    fn owner(kind: OwnerKind) -> Owner {
        Owner { kind, id: "o".to_owned() }
    }

    fn spent(model: &str, amount: i64, total: i64) -> Spent {
        let driver = Driver {
            provider: "minimax".to_owned(),
            model_or_plan: model.to_owned(),
            amount,
            records: 3,
        };
        Spent { total, top: Some(driver) }
    }

    fn noon() -> Instant {
        utc(2026, 11, 22, 12, 0)
    }

    fn changes(rules: &[Rule], spent: &Spent, known: &[Known], as_of: Instant) -> Vec<Change> {
        let findings = decide(&owner(OwnerKind::User), rules, Some(spent), known, as_of);
        findings.into_iter().map(|finding| finding.change).collect()
    }

    /// The targets of the suggestions that a first look makes.
    fn made(rules: &[Rule], kind: OwnerKind, spent: &Spent) -> Vec<String> {
        let findings = decide(&owner(kind), rules, Some(spent), &[], noon());
        let target = |finding: &Finding| match &finding.change {
            Change::Create(ground) => ground.target.clone(),
            other => panic!("{other:?}"),
        };
        findings.iter().map(target).collect()
    }

    /// The books after the changes are written.
    fn written(mut known: Vec<Known>, changes: Vec<Change>, as_of: Instant) -> Vec<Known> {
        for change in changes {
            match change {
                Change::Close(id) => known.retain(|one| one.id != id),
                Change::Create(ground) => known.push(as_known(Uuid::now_v7(), ground, as_of)),
                Change::Refresh(id, ground) => {
                    let place = known.iter().position(|one| one.id == id).expect("it is known");
                    assert!(known[place].is_open);
                    known[place] = as_known(id, ground, as_of);
                }
            }
        }
        known
    }

    fn as_known(id: Uuid, ground: Ground, as_of: Instant) -> Known {
        let Ground { kind, target, observed, price, driver, content } = ground;
        Known {
            id,
            kind,
            target,
            is_open: true,
            observed,
            price,
            driver,
            content,
            grounded_at: as_of,
        }
    }

    fn dismissed(mut known: Vec<Known>) -> Vec<Known> {
        known.iter_mut().for_each(|one| one.is_open = false);
        known
    }

    #[test]
    fn a_plan_is_suggested_for_the_top_driver_and_the_pass_for_everything() {
        let of_user = |spent: Spent| made(&rules(), OwnerKind::User, &spent);
        assert_eq!(of_user(spent("m3", 50 * USD, 50 * USD)), ["plan"]);
        assert_eq!(of_user(spent("m3", 50 * USD - 1, 99 * USD)), [""; 0]);
        assert_eq!(of_user(spent("m3", 50 * USD - 1, 100 * USD)), ["pass"]);
        // The plan comes first, and only for the largest driver.
        assert_eq!(of_user(spent("m3", 60 * USD, 500 * USD)), ["plan"]);
        assert_eq!(of_user(spent("m4", 60 * USD, 99 * USD)), [""; 0]);
        assert_eq!(of_user(spent("m4", 60 * USD, 100 * USD)), ["pass"]);
        assert_eq!(of_user(Spent { total: 100 * USD, top: None }), ["pass"]);
        let of_organization = |spent: Spent| made(&rules(), OwnerKind::Organization, &spent);
        assert_eq!(of_organization(spent("m3", 50 * USD, 500 * USD)), ["plan"]);
        assert_eq!(of_organization(spent("m4", 60 * USD, 500 * USD)), [""; 0]);
        assert_eq!(made(&[], OwnerKind::User, &spent("m3", 60 * USD, 500 * USD)), [""; 0]);
    }

    #[test]
    fn seven_days_are_looked_at_and_thirty_without_ground_are_enough() {
        assert_eq!((WINDOW_HOURS, GROUNDLESS_HOURS), (168, 720));
        let driver = spent("m3", 5, 5).top.unwrap().document();
        assert_eq!(
            driver,
            json!({ "spend_category": "variable", "provider_key": "minimax", "model_or_plan_key": "m3",
                    "total_microdollars": 5, "spend_record_count": 3 })
        );
    }

    #[test]
    fn a_suggestion_whose_rule_is_gone_is_closed_though_others_of_its_kind_are_there() {
        let before = spent("m3", 60 * USD, 60 * USD);
        let known = written(Vec::new(), changes(&rules(), &before, &[], noon()), noon());
        let nothing = Spent { total: 0, top: None };
        for others in
            [vec![plan("other", Some("m3"))], vec![Rule { key: "plan".to_owned(), ..pass() }]]
        {
            let found = changes(&others, &nothing, &known, noon());
            assert!(matches!(found[..], [Change::Close(id)] if id == known[0].id), "{found:?}");
        }
    }

    #[test]
    fn a_rule_without_provider_or_model_matches_any() {
        let any = [plan("any", None)];
        assert_eq!(made(&any, OwnerKind::Organization, &spent("m9", 50 * USD, 50 * USD)), ["any"]);
        let other_provider = Rule { provider: Some("other".to_owned()), ..plan("o", Some("m3")) };
        assert_eq!(made(&[other_provider], OwnerKind::User, &spent("m3", 60 * USD, USD)), [""; 0]);
    }

    #[test]
    fn a_second_look_changes_nothing_and_new_figures_refresh() {
        let before = spent("m3", 60 * USD, 60 * USD);
        let known = written(Vec::new(), changes(&rules(), &before, &[], noon()), noon());
        assert_eq!(known.len(), 1);
        let almost = noon().plus_hours(1).plus_microseconds(-1);
        assert!(changes(&rules(), &before, &known, noon()).is_empty());
        assert!(changes(&rules(), &before, &known, almost).is_empty());
        // That the ground is still there is noted once an hour.
        let later = changes(&rules(), &before, &known, noon().plus_hours(1));
        assert!(matches!(later[..], [Change::Refresh(id, _)] if id == known[0].id));

        let more = changes(&rules(), &spent("m3", 61 * USD, 61 * USD), &known, noon());
        assert!(matches!(&more[..], [Change::Refresh(_, ground)] if ground.observed == 61 * USD));
        for rule in [
            Rule { price: 21 * USD, ..plan("plan", Some("m3")) },
            Rule { content: json!({ "title": "new" }), ..plan("plan", Some("m3")) },
        ] {
            let changes = changes(&[rule], &before, &known, noon());
            assert!(matches!(changes[..], [Change::Refresh(..)]), "{changes:?}");
        }
    }

    #[test]
    fn another_kind_does_not_stand_in_the_way_and_stays_while_it_has_ground() {
        let known = written(
            Vec::new(),
            changes(&rules(), &spent("m3", 60 * USD, 60 * USD), &[], noon()),
            noon(),
        );
        let changes = changes(&rules(), &spent("m4", 90 * USD, 200 * USD), &known, noon());
        assert!(matches!(&changes[..], [Change::Create(ground)] if ground.target == "pass"));
        let both = written(known, changes, noon());
        // Each is borne out by its own rule, also the one that would not be made any more.
        let again = spent("m3", 70 * USD, 210 * USD);
        let refreshed = decide(&owner(OwnerKind::User), &rules(), Some(&again), &both, noon());
        assert_eq!(refreshed.len(), 2);
        assert!(refreshed.iter().all(|finding| matches!(finding.change, Change::Refresh(..))));
    }

    #[test]
    fn without_ground_it_is_closed_after_thirty_days_and_may_come_back_at_once() {
        let before = spent("m3", 60 * USD, 60 * USD);
        let known = written(Vec::new(), changes(&rules(), &before, &[], noon()), noon());
        let nothing = spent("m3", USD, USD);
        let end = noon().plus_hours(30 * 24);
        assert!(changes(&rules(), &nothing, &known, end.plus_microseconds(-1)).is_empty());
        assert!(
            decide(&owner(OwnerKind::User), &rules(), None, &known, end.plus_hours(-1)).is_empty()
        );
        let closing = changes(&rules(), &nothing, &known, end);
        assert_eq!(closing, [Change::Close(known[0].id)]);
        let closed = written(known.clone(), closing, end);
        assert!(matches!(changes(&rules(), &before, &closed, end)[..], [Change::Create(_)]));
        // What is no longer offered goes at once, ground or not.
        assert_eq!(changes(&[pass()], &before, &known, noon()), [Change::Close(known[0].id)]);
    }

    #[test]
    fn a_dismissed_one_comes_back_for_half_as_much_again_another_price_or_plan() {
        let before = spent("m3", 60 * USD + 1, 70 * USD);
        let known = dismissed(written(Vec::new(), changes(&rules(), &before, &[], noon()), noon()));
        let later = noon().plus_hours(1_000);
        let comes = |rules: &[Rule], amount: i64| {
            !changes(rules, &spent("m3", amount, 70 * USD), &known, later).is_empty()
        };
        assert!(!comes(&rules(), 60 * USD + 1) && !comes(&rules(), 50 * USD));
        // 1.5 times an odd number is not rounded.
        assert!(!comes(&rules(), 90 * USD + 1));
        assert!(comes(&rules(), 90 * USD + 2));
        assert!(comes(&[Rule { price: 19 * USD, ..plan("plan", Some("m3")) }], 50 * USD));
        assert!(comes(&[plan("new-plan", Some("m3"))], 50 * USD));
        assert!(!comes(&[Rule { content: json!({}), ..plan("plan", Some("m3")) }], 60 * USD));
        // The next best is not put forward in its place.
        let spent = spent("m3", 60 * USD, 500 * USD);
        assert!(changes(&rules(), &spent, &known, later).is_empty());
        // The largest amounts do not overflow.
        let huge = Known { observed: i64::MAX, ..known[0].clone() };
        assert!(changes(&rules(), &spent, &[huge], later).is_empty());
    }

    #[derive(Debug, Clone)]
    struct Step {
        hours: i64,
        model: String,
        top: i64,
        rest: i64,
        price: i64,
        dismiss: bool,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = (0..900_i64, "m[34]", 0..200_i64, 0..100_i64, 19..22_i64, any::<bool>());
        let step = step.prop_map(|(hours, model, top, rest, price, dismiss)| Step {
            hours,
            model,
            top: top * USD,
            rest: rest * USD,
            price: price * USD,
            dismiss,
        });
        prop::collection::vec(step, 1..25)
    }

    proptest! {
        #[test]
        fn whatever_happens_there_is_one_of_a_kind_and_a_second_look_changes_nothing(
            steps in steps()
        ) {
            let mut known: Vec<Known> = Vec::new();
            let mut as_of = noon();
            for step in steps {
                as_of = as_of.plus_hours(step.hours);
                let rules = [Rule { price: step.price, ..plan("plan", Some("m3")) }, pass()];
                let spent = spent(&step.model, step.top, step.top + step.rest);
                let found = changes(&rules, &spent, &known, as_of);
                for change in &found {
                    match change {
                        Change::Create(ground) => {
                            let minimum = rules.iter().find(|rule| rule.key == ground.target).unwrap().minimum;
                            prop_assert!(ground.observed >= minimum);
                            let last = known.iter().rfind(|one| one.target == ground.target);
                            prop_assert!(last.is_none_or(|last| !last.is_open
                                && (ground.observed * 2 >= last.observed * 3 || ground.price != last.price)));
                        }
                        Change::Close(id) => {
                            let one = known.iter().find(|one| one.id == *id).unwrap();
                            prop_assert!(one.is_open && one.grounded_at.plus_hours(720) <= as_of);
                        }
                        Change::Refresh(..) => {}
                    }
                }
                known = written(known, found, as_of);
                for target in ["plan", "pass"] {
                    let open = known.iter().filter(|one| one.is_open && one.target == target);
                    prop_assert!(open.count() <= 1);
                }
                prop_assert!(changes(&rules, &spent, &known, as_of).is_empty());
                if step.dismiss {
                    // Only the last one dismissed of a target is known afterwards.
                    let open: Vec<String> =
                        known.iter().filter(|one| one.is_open).map(|one| one.target.clone()).collect();
                    known.retain(|one| one.is_open || !open.contains(&one.target));
                    known = dismissed(known);
                    let next = changes(&rules, &spent, &known, as_of);
                    let is_other = |change: &Change| {
                        matches!(change, Change::Create(ground) if !open.contains(&ground.target))
                    };
                    prop_assert!(next.iter().all(is_other));
                }
            }
        }
    }
}
