//! Adding up what an owner spent, for the rules: in total, and by what a plan covers.

use super::policy::{Driver, Spent};
use crate::sources::Category;
use std::collections::BTreeMap;

/// Sums out of as many places as there are.
#[derive(Default)]
pub struct Sums {
    total: i128,
    variable: BTreeMap<(String, String), (i128, i128)>,
    is_beyond_books: bool,
}

impl Sums {
    /// None for an amount that is too large for the books.
    pub fn add(
        &mut self,
        category: Category,
        provider: &str,
        model_or_plan: &str,
        sums: Option<(i64, i64)>,
    ) {
        let Some((amount, records)) = sums else {
            self.is_beyond_books = true;
            return;
        };
        self.total += i128::from(amount);
        if category == Category::Variable {
            let key = (provider.to_owned(), model_or_plan.to_owned());
            let sums = self.variable.entry(key).or_default();
            sums.0 += i128::from(amount);
            sums.1 += i128::from(records);
        }
    }

    /// None when a sum is beyond what the books can hold.
    pub fn spent(self) -> Option<Spent> {
        if self.is_beyond_books {
            return None;
        }
        let mut top: Option<((String, String), (i128, i128))> = None;
        for (key, sums) in self.variable {
            // In byte order, so that the first of equal ones stays.
            if top.as_ref().is_none_or(|(_, largest)| largest.0 < sums.0) {
                top = Some((key, sums));
            }
        }
        let driver = |((provider, model_or_plan), (amount, records)): (_, (i128, i128))| {
            let (amount, records) = (amount.try_into().ok()?, records.try_into().ok()?);
            Some(Driver { provider, model_or_plan, amount, records })
        };
        let top = match top {
            Some(top) => Some(driver(top)?),
            None => None,
        };
        Some(Spent { total: self.total.try_into().ok()?, top })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sums(rows: &[(Category, &str, i64)]) -> Sums {
        let mut sums = Sums::default();
        for (category, model, amount) in rows {
            sums.add(*category, "p", model, Some((*amount, 1)));
        }
        sums
    }

    #[test]
    fn the_top_is_the_largest_variable_driver_and_the_total_has_both_categories() {
        use Category::{Scheduled, Variable};
        let spent = sums(&[
            (Variable, "b", 30),
            (Variable, "a", 40),
            (Variable, "b", 10),
            (Scheduled, "plan", 1_000),
        ]);
        let spent = spent.spent().unwrap();
        let top = spent.top.unwrap();
        assert_eq!((spent.total, top.model_or_plan.as_str(), top.amount), (1_080, "a", 40));
        let rows =
            [(Variable, "a", 10), (Variable, "b", 30), (Variable, "b", 11), (Variable, "c", 5)];
        let top = sums(&rows).spent().unwrap().top.unwrap();
        assert_eq!((top.model_or_plan.as_str(), top.amount, top.records), ("b", 41, 2));
        assert_eq!(sums(&[(Scheduled, "plan", 5)]).spent().unwrap(), Spent { total: 5, top: None });
    }

    #[test]
    fn sums_beyond_the_books_are_no_ground_for_anything() {
        let rows = [(Category::Variable, "a", i64::MAX), (Category::Variable, "a", 1)];
        assert_eq!(sums(&rows).spent(), None);
        let mut unknown = sums(&[]);
        unknown.add(Category::Variable, "p", "a", None);
        assert_eq!(unknown.spent(), None);
        let back = [rows[0], rows[1], (Category::Variable, "a", -1)];
        assert_eq!(sums(&back).spent().unwrap().total, i64::MAX);
    }

    proptest! {
        #[test]
        fn the_order_of_rows_does_not_matter(
            mut rows in prop::collection::vec(("[ab]", any::<bool>(), -5..50_i64), 0..30)
        ) {
            let spent = |rows: &[(String, bool, i64)]| {
                let mut sums = Sums::default();
                for (model, is_variable, amount) in rows {
                    let category =
                        if *is_variable { Category::Variable } else { Category::Scheduled };
                    sums.add(category, "p", model, Some((*amount, 1)));
                }
                sums.spent().unwrap()
            };
            let forwards = spent(&rows);
            rows.reverse();
            prop_assert_eq!(spent(&rows), forwards.clone());
            prop_assert_eq!(forwards.total, rows.iter().map(|row| row.2).sum::<i64>());
        }
    }
}
