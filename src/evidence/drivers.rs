//! What the money went on, ranked.

use super::figures::in_range;
use crate::error::Result;
use crate::sources::{Category, Dimension};
use std::collections::BTreeMap;

/// In the order of their texts, byte by byte; nobody known comes before everybody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Driver {
    pub dimension: Dimension,
    pub actor_user_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranked {
    pub driver: Driver,
    pub amount: i64,
    pub records: i64,
}

/// The drivers of a window, out of as many places as there are.
#[derive(Default)]
pub struct Drivers(BTreeMap<Driver, (i128, i128)>);

impl Drivers {
    pub fn add(&mut self, driver: Driver, amount: i64, records: i64) {
        let sums = self.0.entry(driver).or_default();
        sums.0 += i128::from(amount);
        sums.1 += i128::from(records);
    }

    /// Those with the largest amounts, of one category or of both.
    pub fn top(&self, category: Option<Category>, count: usize) -> Result<Vec<Ranked>> {
        let wanted = |driver: &Driver| {
            category.is_none_or(|category| driver.dimension.category == category.as_str())
        };
        let mut drivers: Vec<_> =
            self.0.iter().filter(|(driver, sums)| wanted(driver) && **sums != (0, 0)).collect();
        // Stable: drivers of the same amount stay in their own order.
        drivers.sort_by_key(|(_, (amount, _))| std::cmp::Reverse(*amount));
        drivers.truncate(count);
        let ranked = drivers.into_iter().map(|(driver, &(amount, records))| {
            Ok(Ranked {
                driver: driver.clone(),
                amount: in_range("total_microdollars", amount)?,
                records: in_range("spend_record_count", records)?,
            })
        });
        ranked.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn driver(category: &str, product: &str, actor: Option<&str>) -> Driver {
        let parts = ["other", product, "f", "m", "p"];
        Driver {
            dimension: Dimension::known(category, parts).unwrap(),
            actor_user_id: actor.map(str::to_owned),
        }
    }

    #[test]
    fn the_largest_come_first_and_equal_ones_in_the_order_of_their_bytes() {
        let mut drivers = Drivers::default();
        drivers.add(driver("variable", "a", None), 60, 1);
        drivers.add(driver("variable", "a", None), 50, 1);
        for (product, actor) in [("b", Some("u")), ("b", None), ("B", Some("u")), ("ab", Some("Z"))]
        {
            drivers.add(driver("variable", product, actor), 40, 1);
        }
        drivers.add(driver("scheduled", "z", Some("u")), 40, 1);
        drivers.add(driver("variable", "gone", None), 7, 1);
        drivers.add(driver("variable", "gone", None), -7, -1);
        let top = |category, count| -> Vec<String> {
            let ranked = drivers.top(category, count).unwrap();
            ranked
                .iter()
                .map(|ranked| {
                    let actor = ranked.driver.actor_user_id.as_deref().unwrap_or("-");
                    format!("{}{actor}{}", ranked.driver.dimension.product, ranked.amount)
                })
                .collect()
        };
        assert_eq!(top(None, 9), ["a-110", "zu40", "Bu40", "abZ40", "b-40", "bu40"]);
        assert_eq!(drivers.top(None, 1).unwrap()[0].records, 2);
        assert_eq!(top(Some(Category::Variable), 2), ["a-110", "Bu40"]);
        assert_eq!(top(Some(Category::Scheduled), 5), ["zu40"]);
    }

    #[test]
    fn a_driver_beyond_bigint_is_an_error() {
        let mut drivers = Drivers::default();
        drivers.add(driver("variable", "a", None), i64::MAX, 1);
        drivers.add(driver("variable", "a", None), 1, 1);
        assert!(drivers.top(None, 5).is_err());
        assert!(drivers.top(Some(Category::Scheduled), 5).unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn the_place_of_addition_does_not_matter(
            mut rows in prop::collection::vec(("[ab]", 0..3_i64, -5..50_i64), 0..40)
        ) {
            let ranking = |rows: &[(String, i64, i64)]| {
                let mut drivers = Drivers::default();
                for (product, actor, amount) in rows {
                    let actor = actor.to_string();
                    drivers.add(driver("variable", product, Some(&actor)), *amount, 1);
                }
                drivers.top(None, usize::MAX).unwrap()
            };
            let forwards = ranking(&rows);
            rows.reverse();
            prop_assert_eq!(ranking(&rows), forwards.clone());
            prop_assert_eq!(forwards.iter().map(|d| d.amount).sum::<i64>(), rows.iter().map(|r| r.2).sum::<i64>());
        }
    }
}
