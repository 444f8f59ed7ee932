use super::*;
use crate::message::{StateData, StatePart};

fn short_windows(config: &mut Config) {
    (config.checkpoint_interval, config.log_window) = (4, 8);
}

fn fetched(group: &Group, member: usize) -> Vec<(usize, usize)> {
    let of = |(i, e): &(usize, Event)| match e {
        Event::StateTransferred { pages, fetched, .. } if *i == member => Some((*pages, *fetched)),
        _ => None,
    };
    group.events.iter().filter_map(of).collect()
}

#[test]
fn a_large_state_comes_over_in_small_messages_and_then_only_what_changed() {
    let mut group = Group::with(4, short_windows);
    group.submit(0, 1, "grow 3000000");
    for t in 2..=4 {
        group.submit(0, t, "a");
    }
    group.wait(500);
    assert_eq!(group.status(3).executed, 4);
    assert_eq!(group.member(3).machine(), group.member(0).machine());
    for t in 5..=8 {
        group.submit(0, t, "b");
    }
    group.wait(500);
    assert_eq!(group.member(3).machine(), group.member(0).machine());
    let transfers = fetched(&group, 3);
    assert!(transfers[0].0 > 730 && transfers[0].1 == transfers[0].0, "{transfers:?}");
    // The ops come before the ballast and shift it, but the client table keeps to its own pages.
    assert!(transfers[1].1 <= transfers[1].0);
    let longest = group.sent.iter().map(|(_, _, m)| message::encode(&group.config, m).len()).max();
    assert!(longest.unwrap() < 64 * 1024);
}

#[test]
fn an_unchanged_machine_costs_only_the_pages_of_the_client_table() {
    let mut group = Group::with(4, short_windows);
    group.submit(0, 1, "grow 400000");
    for t in 2..=4 {
        group.submit(0, t, "a");
    }
    group.wait(500);
    // Repeated requests are ordered but change nothing in the machine.
    let request = group.request(1, "grow 400000");
    for rsn in 5..=8 {
        let body = group.body(std::slice::from_ref(&request));
        let message = group.pre_prepare(rsn, &body);
        for i in 1..3 {
            group.hand(i, group.config.members[0], &message);
        }
        let vote = group.vote(rsn, &body);
        let Message::PrePrepare { signature, .. } = message else { unreachable!() };
        let primary = group.members[0].as_mut().unwrap();
        primary.last_assigned = rsn;
        primary.accept(vote, signature, body);
        primary.try_prepare(rsn);
        group.drain(0);
        group.run();
    }
    group.wait(500);
    assert_eq!(group.status(3).executed, 8);
    let transfers = fetched(&group, 3);
    assert!(transfers[1].0 > 90 && transfers[1].1 <= 2, "{transfers:?}");
}

#[test]
fn a_member_that_lies_about_the_state_is_caught_and_another_one_asked() {
    let mut group = Group::with(4, short_windows);
    let spare = group.config.members[3];
    // The spare hears of nothing but STATUS until the checkpoint is there.
    group.loss = Box::new(move |_, to, m| to == spare && !matches!(m, Message::Status(_)));
    for t in 1..=4 {
        group.submit(0, t, "grow 20000");
    }
    let (stable, state) = {
        let r = group.member(0);
        (r.stable.clone(), r.snapshots[&4].clone())
    };
    group.loss = Box::new(move |_, to, _| to == spare);
    group.hand(3, group.config.members[0], &Message::Stable(stable.clone()));
    let (rsn, digest) = (stable.rsn, stable.digest);
    let asked = |group: &Group, part| {
        let of = |(from, to, m): &(PeerId, PeerId, Message)| match m {
            Message::FetchState { part: p, .. } if *from == spare && *p == part => Some(*to),
            _ => None,
        };
        group.sent.iter().rev().find_map(of)
    };
    let first = asked(&group, StatePart::Root).expect("it asks for the root");
    let lie = StateData::Root { len: 5, root: state.root() };
    group.hand(3, first, &Message::State { rsn, digest, part: StatePart::Root, data: lie });
    assert_eq!(group.refused(3, Refusal::Invalid), 1);
    let second = asked(&group, StatePart::Root).expect("it asks again");
    assert_ne!(first, second);
    // Somebody who was not asked is not listened to.
    let data = StateData::Root { len: state.state.len() as u64, root: state.root() };
    group.hand(3, first, &Message::State { rsn, digest, part: StatePart::Root, data });
    assert_eq!(group.refused(3, Refusal::Unasked), 1);
    group.loss = Box::new(|_, _, _| false);
    group.wait(1_000);
    assert_eq!(group.member(3).machine(), group.member(0).machine());
}

#[test]
fn a_member_cut_off_for_many_checkpoints_comes_back_by_transfer() {
    let mut group = Group::with(4, short_windows);
    group.submit(0, 1, "a");
    let two = group.config.members[2];
    group.loss = Box::new(move |from, to, _| from == two || to == two);
    for t in 2..=20 {
        group.submit(0, t, "b");
        group.wait(300);
    }
    assert_eq!(group.status(0).view, 0);
    group.loss = Box::new(|_, _, _| false);
    group.wait(2_000);
    group.submit(0, 21, "c");
    group.wait(100);
    assert_eq!(group.member(2).machine(), group.member(0).machine());
    assert_eq!(group.status(2).executed, 21);
}
