//! Finding the owners that cannot be posted without failing the rest.

/// Tries all items at once; when that fails, each half by itself, down to the single items that
/// fail, which are given to `block`. Returns the sum of what succeeded.
///
/// With `k` bad ones among `n` items this takes at most about `2 k log2(n)` attempts.
pub fn attempt_or_bisect<T, E, F>(
    items: &[T],
    attempt: &mut impl FnMut(&[T]) -> Result<i64, E>,
    block: &mut impl FnMut(&T, E) -> Result<(), F>,
) -> Result<i64, F> {
    match items {
        [] => Ok(0),
        [only] => match attempt(items) {
            Ok(done) => Ok(done),
            Err(error) => block(only, error).map(|()| 0),
        },
        _ => match attempt(items) {
            Ok(done) => Ok(done),
            Err(_) => {
                let (left, right) = items.split_at(items.len() / 2);
                let done = attempt_or_bisect(left, attempt, block)?;
                Ok(done + attempt_or_bisect(right, attempt, block)?)
            }
        },
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
                        return Err("bad");
                    }
                    done.extend_from_slice(slice);
                    Ok(slice.len() as i64)
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
            let result = attempt_or_bisect(&items, &mut |_| Err(()), &mut |_, ()| Err("stop"));
            prop_assert_eq!(result, Err("stop"));
        }
    }
}
