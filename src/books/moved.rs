//! Comparing figures of the books before and after a migration.

/// A figure by its name; none where there is nothing to add up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figure {
    pub name: String,
    pub value: Option<String>,
}

/// Longer lists say nothing more to whoever has to look anyway.
const SHOWN: usize = 5;

/// What has become of the figures that are not what they were. New ones are no difference: a migration
/// may bring them.
pub fn figures(before: &[Figure], after: &[Figure]) -> Vec<String> {
    let in_words = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    let moved = before.iter().filter_map(|was| {
        let now = after.iter().find(|figure| figure.name == was.name);
        match now {
            Some(now) if now.value == was.value => None,
            Some(now) => {
                let (was_value, now_value) = (in_words(&was.value), in_words(&now.value));
                Some(format!("{}: {was_value} before, {now_value} after", was.name))
            }
            None => Some(format!("{}: {} before, gone after", was.name, in_words(&was.value))),
        }
    });
    moved.collect()
}

/// The violations that were not there.
pub fn violations(before: &[String], after: &[String]) -> Vec<String> {
    let new = after.iter().filter(|violation| !before.contains(violation));
    new.map(|violation| format!("a violation that was not there: {violation}")).collect()
}

pub fn in_words(moved: &[String]) -> String {
    let mut words = moved.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if moved.len() > SHOWN {
        words.push_str(&format!("; and {} more", moved.len() - SHOWN));
    }
    words.push('.');
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(name: &str, value: Option<&str>) -> Figure {
        Figure { name: name.to_owned(), value: value.map(str::to_owned) }
    }

    #[test]
    fn a_figure_that_moved_or_vanished_is_told() {
        let before =
            [figure("used", Some("5")), figure("acquired", Some("7")), figure("open", None)];
        assert_eq!(figures(&before, &before), [""; 0]);
        let after = [figure("used", Some("6")), figure("open", Some("1")), figure("new", None)];
        assert_eq!(
            figures(&before, &after),
            [
                "used: 5 before, 6 after",
                "acquired: 7 before, gone after",
                "open: nothing before, 1 after"
            ]
        );
    }

    #[test]
    fn only_violations_that_were_not_there_count() {
        let old = ["I3 user u 1 2".to_owned()];
        assert_eq!(violations(&old, &old), [""; 0]);
        let new = ["I3 user u 1 3".to_owned()];
        assert_eq!(violations(&old, &new), ["a violation that was not there: I3 user u 1 3"]);
        assert_eq!(violations(&old, &[]), [""; 0]);
    }

    #[test]
    fn a_long_list_is_cut() {
        let moved: Vec<String> = (1..=7).map(|number| number.to_string()).collect();
        assert_eq!(in_words(&moved[..2]), "1; 2.");
        assert_eq!(in_words(&moved[..5]), "1; 2; 3; 4; 5.");
        assert_eq!(in_words(&moved), "1; 2; 3; 4; 5; and 2 more.");
    }
}
