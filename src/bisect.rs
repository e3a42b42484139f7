//! Finding the owners that cannot be posted without failing the rest.

/// Tries all items at once; when that fails because of the items, each half by itself, down to
/// the single items that fail, which are given to `block`. Returns the sum of what succeeded.
/// An outer error of `attempt` is nobody's fault and stops everything.
///
/// With `k` bad ones among `n` items this takes at most about `2 k log2(n)` attempts.
pub fn attempt_or_bisect<T, E, F>(
    items: &[T],
    attempt: &mut impl FnMut(&[T]) -> Result<Result<i64, E>, F>,
    block: &mut impl FnMut(&T, E) -> Result<(), F>,
) -> Result<i64, F> {
    if items.is_empty() {
        return Ok(0);
    }
    match (attempt(items)?, items) {
        (Ok(done), _) => Ok(done),
        (Err(error), [only]) => block(only, error).map(|()| 0),
        (Err(_), _) => {
            let (left, right) = items.split_at(items.len() / 2);
            let done = attempt_or_bisect(left, attempt, block)?;
            Ok(done + attempt_or_bisect(right, attempt, block)?)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_good_are_done_once_and_the_bad_are_blocked_once(bad in prop::collection::vec(any::<bool>(), 0..200)) {
            let items: Vec<usize> = (0..bad.len()).collect();
            let (mut done, mut blocked) = (Vec::new(), Vec::new());
            let sum = attempt_or_bisect(
                &items,
                &mut |slice| {
                    if slice.iter().any(|&item| bad[item]) {
                        return Ok(Err("bad"));
                    }
                    done.extend_from_slice(slice);
                    Ok(Ok(slice.len() as i64))
                },
                &mut |&item, _| { blocked.push(item); Ok::<(), ()>(()) },
            );
            let (expected_blocked, expected_done): (Vec<usize>, Vec<usize>) =
                items.iter().partition(|&&item| bad[item]);
            prop_assert_eq!(sum, Ok(expected_done.len() as i64));
            prop_assert_eq!(done, expected_done);
            prop_assert_eq!(blocked, expected_blocked);
        }

        #[test]
        fn an_error_of_blocking_stops_everything(count in 1_usize..50) {
            let items: Vec<usize> = (0..count).collect();
            let result = attempt_or_bisect(&items, &mut |_| Ok(Err(())), &mut |_, ()| Err("stop"));
            prop_assert_eq!(result, Err("stop"));
        }

        #[test]
        fn an_error_that_is_nobodys_fault_is_not_tried_again(count in 1_usize..50) {
            let items: Vec<usize> = (0..count).collect();
            let mut attempts = 0;
            let result = attempt_or_bisect(
                &items,
                &mut |_| { attempts += 1; Err::<Result<i64, ()>, _>("cancelled") },
                &mut |_, ()| Ok(()),
            );
            prop_assert_eq!((result, attempts), (Err("cancelled"), 1));
        }
    }
}
