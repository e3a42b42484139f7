//! What has to be written so that posted figures are again what the journals say, less what still
//! waits in the queue.

use crate::error::{BillingError, Result};
use std::collections::BTreeMap;

/// Microdollars, and the charges they are the sum of.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    pub amount: i64,
    pub records: i64,
}

impl Figure {
    const ZERO: Self = Self { amount: 0, records: 0 };
}

/// The rows that differ. A figure of zero has no row.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes<K> {
    pub put: Vec<(K, Figure)>,
    pub remove: Vec<K>,
    /// How many figures were wrong. A row of zero that only goes away was not.
    pub wrong: i64,
}

impl<K> Changes<K> {
    pub fn are_none(&self) -> bool {
        self.put.is_empty() && self.remove.is_empty()
    }
}

/// Compares `posted` with `journals` less `unposted`. A key may occur several times in the latter
/// two; in `posted` it occurs once.
pub fn changes<K: Ord + Clone>(
    journals: impl IntoIterator<Item = (K, Figure)>,
    unposted: impl IntoIterator<Item = (K, Figure)>,
    posted: impl IntoIterator<Item = (K, Figure)>,
) -> Result<Changes<K>> {
    let mut wanted: BTreeMap<K, (i128, i128)> = BTreeMap::new();
    let mut add = |key: K, figure: Figure, sign: i128| {
        let sum = wanted.entry(key).or_default();
        sum.0 += sign * i128::from(figure.amount);
        sum.1 += sign * i128::from(figure.records);
    };
    journals.into_iter().for_each(|(key, figure)| add(key, figure, 1));
    unposted.into_iter().for_each(|(key, figure)| add(key, figure, -1));

    let mut changes = Changes { put: Vec::new(), remove: Vec::new(), wrong: 0 };
    for (key, present) in posted {
        let right = wanted.remove(&key).unwrap_or_default();
        let right = in_range(right)?;
        changes.wrong += i64::from(right != present);
        if right == Figure::ZERO {
            changes.remove.push(key);
        } else if right != present {
            changes.put.push((key, right));
        }
    }
    for (key, sums) in wanted {
        let right = in_range(sums)?;
        if right != Figure::ZERO {
            changes.wrong += 1;
            changes.put.push((key, right));
        }
    }
    // Rows are written in one order, whoever writes them.
    changes.put.sort_by(|one, other| one.0.cmp(&other.0));
    changes.remove.sort();
    Ok(changes)
}

fn in_range((amount, records): (i128, i128)) -> Result<Figure> {
    let number =
        |sum| i64::try_from(sum).map_err(|_| BillingError::out_of_range("spend is out of range"));
    Ok(Figure { amount: number(amount)?, records: number(records)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn figure(amount: i64, records: i64) -> Figure {
        Figure { amount, records }
    }

    #[test]
    fn what_is_right_is_left_alone() {
        let changes = changes([("a", figure(7, 2))], [("a", figure(3, 1))], [("a", figure(4, 1))]);
        let changes = changes.unwrap();
        assert!(changes.are_none());
        assert_eq!(changes.wrong, 0);
    }

    #[test]
    fn each_kind_of_damage_is_mended() {
        let journals = [("lost", figure(5, 1)), ("wrong", figure(6, 2)), ("waits", figure(1, 1))];
        let posted = [("wrong", figure(6, 3)), ("invented", figure(9, 1)), ("zero", figure(0, 0))];
        let changes = changes(journals, [("waits", figure(1, 1))], posted).unwrap();
        assert_eq!(changes.put, [("lost", figure(5, 1)), ("wrong", figure(6, 2))]);
        assert_eq!(changes.remove, ["invented", "zero"]);
        assert_eq!(changes.wrong, 3);
        assert!(!changes.are_none());
        assert!(!Changes { remove: Vec::new(), ..changes }.are_none());
        let changes = Changes { put: Vec::new(), remove: vec!["zero"], wrong: 0 };
        assert!(!changes.are_none());
    }

    #[test]
    fn sums_beyond_the_range_are_refused() {
        let twice = [("a", figure(i64::MAX, 1)), ("a", figure(1, 1))];
        assert!(changes(twice, [], []).is_err());
        assert!(changes([], [("a", figure(i64::MIN, 0))], []).is_err());
        let back = changes(twice, [("a", figure(1, 1))], []).unwrap();
        assert_eq!(back.put, [("a", figure(i64::MAX, 1))]);
    }

    fn entries() -> impl Strategy<Value = Vec<(u8, Figure)>> {
        let entry = (0_u8..6, -3_i64..4, -1_i64..3);
        proptest::collection::vec(entry.prop_map(|(key, a, r)| (key, figure(a, r))), 0..20)
    }

    proptest! {
        #[test]
        fn afterwards_posted_and_unposted_are_the_journals(
            journals in entries(), unposted in entries(), posted in entries()
        ) {
            let mut rows: BTreeMap<u8, Figure> = posted.into_iter().collect();
            let found = changes(journals.clone(), unposted.clone(), rows.clone()).unwrap();
            for key in &found.remove {
                prop_assert!(rows.remove(key).is_some());
            }
            rows.extend(found.put.iter().copied());
            for key in 0..6 {
                let sum = |entries: &[(u8, Figure)]| {
                    let of_key = entries.iter().filter(|entry| entry.0 == key);
                    of_key.fold((0, 0), |sum, (_, f)| (sum.0 + f.amount, sum.1 + f.records))
                };
                let row = rows.get(&key).copied().unwrap_or_default();
                let (queue, expected) = (sum(&unposted), sum(&journals));
                prop_assert_eq!((row.amount + queue.0, row.records + queue.1), expected);
            }
            let again = changes(journals, unposted, rows).unwrap();
            prop_assert!(again.are_none());
            prop_assert_eq!(again.wrong, 0);
        }
    }
}
