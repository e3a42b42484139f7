//! Which totals of hours and of days are read of a window that is cut into parts, so that few rows are.

use super::window::Interval;
use crate::error::Result;
use crate::time::Instant;

/// Whole UTC hours in which some instants are told apart. A day inside of which none of these lies is one
/// total. Of any other the hours are read, or else all but those of one part, which are what the others
/// leave of the day's total: whichever is less to read.
#[derive(Debug, PartialEq, Eq)]
pub struct Stretches {
    whole: Interval,
    /// What lies before is not known to the totals, nor is a day that begins before.
    known_from: Instant,
    /// To be read by hours and by days, each in order; they do not touch. Some hours may lie outside the
    /// whole.
    pub hours: Vec<Interval>,
    pub days: Vec<Interval>,
    /// Days of which a part is what the hours that are read leave, and where that part begins.
    divided: Vec<(Instant, Instant)>,
}

impl Stretches {
    /// `whole` and `cuts` are starts of hours.
    pub fn of(whole: Interval, cuts: &[Instant], known_from: Instant) -> Self {
        let mut stretches =
            Self { whole, known_from, hours: vec![], days: vec![], divided: vec![] };
        let mut day = whole.from.day_start();
        while day < whole.to {
            let next = day.plus_hours(24);
            stretches.add_day(Interval { from: day, to: next }, cuts);
            day = next;
        }
        stretches
    }

    fn add_day(&mut self, day: Interval, cuts: &[Instant]) {
        let parts = parts_of(day, &[cuts, &[self.whole.from, self.whole.to]].concat());
        if let [_] = parts[..] {
            return add(&mut self.days, day);
        }
        let whole = self.whole;
        let is_wanted = |part: &&Interval| whole.from <= part.from && part.to <= whole.to;
        // Of the time after the whole there is mostly but the hour that is not over yet.
        let rows = |part: &Interval| if part.from < whole.to { part.hour_count() } else { 1 };
        let wanted: i64 = parts.iter().filter(is_wanted).map(rows).sum();
        let longest = parts.iter().filter(is_wanted).max_by_key(|part| part.hour_count());
        let others = || parts.iter().filter(|part| Some(*part) != longest);
        if day.from >= self.known_from
            && 1 + others().map(rows).sum::<i64>() < wanted
            && let Some(longest) = longest
        {
            self.divided.push((day.from, longest.from));
            add(&mut self.days, day);
            others().for_each(|part| add(&mut self.hours, *part));
        } else {
            parts.iter().filter(is_wanted).for_each(|part| add(&mut self.hours, *part));
        }
    }

    /// What an hour that was read means: an amount and the start of the part it belongs to, perhaps of two.
    pub fn hour(
        &self,
        start: Instant,
        amount: i128,
        mut each: impl FnMut(Instant, i128) -> Result<()>,
    ) -> Result<()> {
        if self.whole.from <= start && start < self.whole.to {
            each(start, amount)?;
        }
        self.rest_of(start.day_start()).map_or(Ok(()), |rest| each(rest, -amount))
    }

    /// Of a day that was read, the start of the part its amount belongs to.
    pub fn day(&self, start: Instant) -> Instant {
        self.rest_of(start).unwrap_or(start)
    }

    fn rest_of(&self, day: Instant) -> Option<Instant> {
        self.divided.iter().find(|(divided, _)| *divided == day).map(|(_, rest)| *rest)
    }
}

fn parts_of(day: Interval, cuts: &[Instant]) -> Vec<Interval> {
    let inside = cuts.iter().copied().filter(|cut| day.from < *cut && *cut < day.to);
    let mut ends: Vec<Instant> = inside.chain([day.to]).collect();
    ends.sort_unstable();
    ends.dedup();
    let starts = std::iter::once(day.from).chain(ends.iter().copied());
    starts.zip(ends.iter().copied()).map(|(from, to)| Interval { from, to }).collect()
}

fn add(stretches: &mut Vec<Interval>, next: Interval) {
    match stretches.last_mut() {
        Some(last) if last.to == next.from => last.to = next.to,
        _ => stretches.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::utc;
    use proptest::prelude::*;

    fn at(hour: i64) -> Instant {
        utc(2026, 2, 27, 0, 0).plus_hours(hour)
    }

    fn hours(from: i64, to: i64) -> Interval {
        Interval { from: at(from), to: at(to) }
    }

    fn stretches(from: i64, to: i64, cuts: &[i64]) -> Stretches {
        let cuts: Vec<Instant> = cuts.iter().map(|cut| at(*cut)).collect();
        Stretches::of(hours(from, to), &cuts, at(0))
    }

    #[test]
    fn of_a_day_that_is_divided_the_smaller_part_is_read() {
        let many = stretches(20, 100, &[53, 90]);
        assert_eq!(many.hours, [hours(20, 24), hours(48, 53), hours(90, 96), hours(100, 120)]);
        assert_eq!(many.days, [hours(24, 120)]);
        assert_eq!(many.divided, [(at(48), at(53)), (at(72), at(72)), (at(96), at(96))]);
    }

    #[test]
    fn cuts_between_days_divide_none() {
        let whole = stretches(0, 96, &[0, 48, 96, 200]);
        assert_eq!((whole.hours, whole.days), (vec![], vec![hours(0, 96)]));
    }

    #[test]
    fn of_today_that_is_not_over_what_is_left_is_read() {
        let today = stretches(0, 15, &[14]);
        assert_eq!((today.hours, today.days), (vec![hours(14, 24)], vec![hours(0, 24)]));
        assert_eq!(stretches(0, 2, &[1]).hours, [hours(0, 2)]);
        assert_eq!(stretches(5, 5, &[]).hours, []);
    }

    #[test]
    fn a_day_that_is_known_in_part_is_never_divided() {
        let late = Stretches::of(hours(1, 48), &[], at(1));
        assert_eq!((late.hours, late.days), (vec![hours(1, 24)], vec![hours(24, 48)]));
        let early = Stretches::of(hours(1, 48), &[], at(0));
        assert_eq!((early.hours, early.days), (vec![hours(0, 1)], vec![hours(0, 48)]));
    }

    proptest! {
        #[test]
        fn each_part_is_given_what_its_hours_hold(
            from in 0_i64..150,
            count in 0_i64..150,
            cuts in prop::collection::vec(0_i64..300, 0..5),
            amounts in prop::collection::vec(-9_i128..1_000, 336),
        ) {
            let to = from + count;
            let stretches = stretches(from, to, &cuts);
            let part_of = |hour: i64| cuts.iter().filter(|cut| **cut <= hour).count();
            let (mut given, mut held) = ([0; 6], [0; 6]);
            let mut give = |start: Instant, amount: i128| -> Result<()> {
                let hour = (start.0 - at(0).0) / crate::time::MICROSECONDS_PER_HOUR;
                assert!(from <= hour && hour < to, "outside of the whole");
                given[part_of(hour)] += amount;
                Ok(())
            };
            for (hour, amount) in (0..).zip(&amounts) {
                let is_in = |part: &Interval| part.from <= at(hour) && at(hour) < part.to;
                match stretches.hours.iter().filter(|part| is_in(part)).count() {
                    0 => {}
                    1 => stretches.hour(at(hour), *amount, &mut give).unwrap(),
                    _ => panic!("an hour is read twice"),
                }
                if hour % 24 == 0 && stretches.days.iter().any(is_in) {
                    let day = usize::try_from(hour).unwrap();
                    give(stretches.day(at(hour)), amounts[day..day + 24].iter().sum()).unwrap();
                }
                if from <= hour && hour < to {
                    held[part_of(hour)] += amount;
                }
            }
            prop_assert_eq!(given, held);
            let length = |parts: &[Interval]| parts.iter().map(|part| part.hour_count()).sum::<i64>();
            let read = length(&stretches.hours) + length(&stretches.days) / 24;
            prop_assert!(read <= count + 24, "{read} rows of {count} hours");
        }
    }
}
