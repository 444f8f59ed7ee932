//! Matching against a model that searches lists.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Receive(Wanted),
    Arrive {
        source: u32,
        tag: u64,
    },
    Peek(Wanted),
    /// The receive of this place among those posted is cancelled.
    Cancel(usize),
}

#[derive(Default)]
struct Model {
    receives: Vec<(Wanted, usize)>,
    messages: Vec<(u32, u64, usize)>,
}

/// More different masks than there are classes, over tags of three bits.
fn wanted() -> impl Strategy<Value = Wanted> + Clone {
    let source = prop_oneof![Just(None), (0..3_u32).prop_map(Some)];
    (source, 0..8_u64, 0..8_u64).prop_map(|(source, tag, ignore)| Wanted { source, tag, ignore })
}

/// As programs do it: one mask for all, and some for any tag.
fn ordinary() -> impl Strategy<Value = Wanted> + Clone {
    let source = prop_oneof![1 => Just(None), 4 => (0..3_u32).prop_map(Some)];
    let ignore = prop_oneof![4 => Just(4_u64), 1 => Just(7_u64)];
    (source, 0..8_u64, ignore).prop_map(|(source, tag, ignore)| Wanted { source, tag, ignore })
}

fn steps(wanted: impl Strategy<Value = Wanted> + Clone) -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => wanted.clone().prop_map(Step::Receive),
        4 => (0..3_u32, 0..8_u64).prop_map(|(source, tag)| Step::Arrive { source, tag }),
        1 => wanted.prop_map(Step::Peek),
        1 => (0..16_usize).prop_map(Step::Cancel),
    ];
    vec(step, 0..200)
}

fn agree(steps: Vec<Step>) {
    let mut model = Model::default();
    let mut real: Matching<usize, usize> = Matching::new();
    for (name, step) in steps.into_iter().enumerate() {
        match step {
            Step::Receive(wanted) => {
                let expected = model.messages.iter().position(|&(s, t, _)| wanted.fits(s, t));
                let expected = expected.map(|at| model.messages.remove(at));
                let found = real.find(&wanted).map(|id| real.take(id));
                assert_eq!(found, expected);
                if found.is_none() {
                    model.receives.push((wanted, name));
                    real.post(wanted, name);
                }
            }
            Step::Arrive { source, tag } => {
                let expected = model.receives.iter().position(|(w, _)| w.fits(source, tag));
                let expected = expected.map(|at| model.receives.remove(at).1);
                let found = real.receive_for(source, tag).map(|id| real.remove(id));
                assert_eq!(found, expected);
                if found.is_none() {
                    model.messages.push((source, tag, name));
                    real.keep(source, tag, name);
                }
            }
            Step::Peek(wanted) => {
                let expected = model.messages.iter().find(|&&(s, t, _)| wanted.fits(s, t)).copied();
                let found = real.find(&wanted).map(|id| real.message(id)).map(|(s, t, m)| (s, t, *m));
                assert_eq!(found, expected);
            }
            Step::Cancel(at) => {
                if at < model.receives.len() {
                    let (_, name) = model.receives.remove(at);
                    let id = real.search(|_, &item| item == name).expect("it is posted");
                    assert_eq!(real.remove(id), name);
                }
            }
        }
    }
    assert_eq!(real.receives.len(), model.receives.len());
    assert_eq!(real.messages.len(), model.messages.len());
    // No key outlives what it led to.
    for class in &real.classes {
        assert!(class.receives.len() <= model.receives.len());
        assert!(class.messages.len() <= model.messages.len());
    }
}

proptest! {
    #[test]
    fn any_receives_match_as_in_the_model(steps in steps(wanted())) {
        agree(steps);
    }

    #[test]
    fn ordinary_receives_match_as_in_the_model(steps in steps(ordinary())) {
        agree(steps);
    }
}

#[test]
fn many_that_wait_cost_nothing() {
    // Searching would take 10^10 steps here.
    const MANY: u64 = 100_000;
    let mut matching: Matching<u64, u64> = Matching::new();
    let wanted = |tag| Wanted { source: Some(1), tag, ignore: 1 << 63 };
    for tag in 0..MANY {
        matching.post(wanted(tag), tag);
    }
    for tag in (0..MANY).rev() {
        let id = matching.receive_for(1, tag).expect("it is posted");
        assert_eq!(matching.remove(id), tag);
    }
    for tag in 0..MANY {
        matching.keep(1, tag, tag);
    }
    for tag in (0..MANY).rev() {
        let id = matching.find(&wanted(tag)).expect("it waits");
        assert_eq!(matching.take(id), (1, tag, tag));
    }
}
