//! The shortest list that still fails.

/// Leaves out what is not needed: whole halves first, then ever smaller parts, until no single item can be left out any more.
/// `fails` is asked about lists with the remaining items in their order, never about the whole one, which is known to fail.
pub(crate) fn shortest<T: Clone>(items: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut left = items.to_vec();
    let mut size = left.len().div_ceil(2);
    while size > 0 && !left.is_empty() {
        let (mut at, mut is_shorter) = (0, false);
        while at < left.len() {
            let end = (at + size).min(left.len());
            let rest: Vec<T> = left[..at].iter().chain(&left[end..]).cloned().collect();
            if fails(&rest) {
                (left, is_shorter) = (rest, true);
            } else {
                at = end;
            }
        }
        size = match size {
            // What was needed for something that is gone by now may be left out as well.
            1 if is_shorter => 1,
            _ => size / 2,
        };
    }
    left
}

#[test]
fn what_is_left_fails_and_nothing_of_it_can_be_left_out() {
    let items: Vec<u32> = (0..40).collect();
    for needed in [vec![], vec![0], vec![39], vec![3, 4], vec![0, 17, 39], (0..40).collect()] {
        let mut asked = 0;
        let left = shortest(&items, |left| {
            asked += 1;
            needed.iter().all(|item| left.contains(item))
        });
        assert_eq!(left, needed);
        assert!(asked <= 40 * 7, "{asked} for {needed:?}");
    }
    // 7 is needed as long as 30 is there: it goes in a second round.
    let left = shortest(&items, |left| left.contains(&5) && (left.contains(&7) || !left.contains(&30)));
    assert_eq!(left, [5]);
}
