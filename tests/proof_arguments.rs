//! Random arguments: every function, procedure and view, called with anything, by anybody, under any
//! settings, ends with an answer that makes sense or with an error that its COMMENT speaks of; the
//! server stands, its memory stays bounded, and the books hold.
//!
//! Values that are refused are tried one by one in `bad_input`; here nobody knows beforehand what a
//! call is to answer.

#[path = "proof_arguments/calls.rs"]
mod calls;
#[path = "proof_arguments/catalog.rs"]
mod catalog;
mod common;
#[path = "proof_arguments/documents.rs"]
mod documents;
#[path = "proof_arguments/moods.rs"]
mod moods;
#[path = "proof_arguments/oracle.rs"]
mod oracle;
#[path = "proof_arguments/pools.rs"]
mod pools;
mod proof_common;
#[path = "proof_arguments/round.rs"]
mod round;
#[path = "proof_arguments/texts.rs"]
mod texts;
mod usage_common;
#[path = "proof_arguments/values.rs"]
mod values;
#[path = "proof_arguments/world.rs"]
mod world;

use proof_common::{figure, prove_in, trial};
use round::Count;
use std::collections::BTreeMap;
use std::sync::Mutex;
use world::World;

const PART: &str = "arguments";
const ROUNDS: u64 = 50;
/// Two at once, in databases of their own.
const SESSIONS: usize = 2;

#[test]
fn any_arguments_are_answered_or_refused_as_documented() {
    let world = World::new();
    let counted = Mutex::new(BTreeMap::<String, Count>::new());
    let tried = prove_in(
        PART,
        trial(ROUNDS),
        SESSIONS,
        |_| (),
        |(), seed| {
            let of_round = round::run(&world, seed);
            let mut all = counted.lock().unwrap();
            for (name, count) in of_round {
                all.entry(name).or_default().add(count);
            }
        },
    );
    world.assert_never_crashed();
    let counted = counted.into_inner().unwrap();
    tell(&counted, world.callables.len());
    if tried >= ROUNDS {
        let missed = never_answered(&world, &counted);
        assert!(missed.is_empty(), "never called, or never answered: {missed:?}");
    }
}

/// What was not tried in earnest: a call that is always refused shows nothing of what it does.
fn never_answered<'a>(world: &'a World, counted: &BTreeMap<String, Count>) -> Vec<&'a str> {
    let callables = world.callables.iter();
    let missed = callables.filter(|callable| match counted.get(&callable.name) {
        None => true,
        Some(count) => count.answers == 0 && !callable.is_trigger,
    });
    missed.map(|callable| callable.name.as_str()).collect()
}

fn tell(counted: &BTreeMap<String, Count>, callables: usize) {
    let sum = |of: fn(&Count) -> u64| counted.values().map(of).sum::<u64>();
    let (calls, answers) = (sum(|count| count.calls), sum(|count| count.answers));
    figure(
        PART,
        &format!(
            "{calls} calls of {} of {callables} functions, procedures and views, {answers} answered",
            counted.len()
        ),
    );
    for (name, count) in counted {
        let milliseconds = count.microseconds / 1_000 / count.calls.max(1);
        println!(
            "    {name}: {} calls, {} answered, {milliseconds} ms each",
            count.calls, count.answers
        );
    }
}
