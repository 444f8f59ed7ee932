//! Who is active, and what a silent member costs (PROTOCOL.md 2.10).

use super::*;
use crate::config::ActiveSet;

fn strict(n: u32) -> Group {
    Group::with(n, |c| c.active_set = ActiveSet::Strict)
}

fn ask_all(group: &mut Group, t: u64) {
    for i in 0..group.members.len() {
        if group.members[i].is_some() {
            group.submit(i, t, "a");
        }
    }
}

#[test]
fn in_strict_mode_a_silent_backup_costs_view_changes_until_it_is_a_spare() {
    let mut group = strict(4);
    group.crash(2);
    ask_all(&mut group, 1);
    group.wait(10_000);
    let status = group.status(0);
    assert!(!status.active.contains(&MemberId(2)), "{status:?}");
    assert!((1..=4).contains(&status.view), "within one round");
    for i in [0, 1, 3] {
        assert_eq!(group.ops(i), ["a"], "member {i}");
        assert!(!group.status(i).wide);
        assert_eq!(group.count(i, |m| matches!(m, Message::Widen { .. })), 0);
    }
}

#[test]
fn in_strict_mode_two_of_seven_that_are_not_neighbours_become_the_spares() {
    let mut group = strict(7);
    for i in [1, 4] {
        group.crash(i);
    }
    ask_all(&mut group, 1);
    // At most 21 views, and the time-outs grow.
    group.wait(900_000);
    let status = group.status(0);
    assert_eq!(status.active, [0, 2, 3, 5, 6].map(MemberId));
    assert!(status.view <= 21, "{status:?}");
    for i in [0, 2, 3, 5, 6] {
        assert_eq!(group.ops(i), ["a"], "member {i}");
    }
}

#[test]
fn in_strict_mode_nobody_widens_for_a_faulty_member() {
    let mut group = strict(4);
    let widen = Message::Widen { view: 0, tag: Digest::default() };
    group.hand(0, group.config.members[1], &widen);
    assert_eq!((group.refused(0, Refusal::Unasked), group.status(0).wide), (1, false));
}

#[test]
fn with_all_members_active_f_silent_ones_cost_nothing() {
    for f in [1, 2] {
        let n = 3 * f + 1;
        let mut group = Group::with(n, |c| c.active_members = n as usize);
        for i in 1..=f as usize {
            group.crash(i);
        }
        group.submit(0, 1, "a");
        for i in (0..n as usize).filter(|i| *i == 0 || *i > f as usize) {
            assert_eq!(group.ops(i), ["a"], "member {i} of f = {f}");
        }
        group.wait(2_000);
        assert_eq!(group.status(0).view, 0);
        assert_eq!(group.count(0, |m| matches!(m, Message::Widen { .. })), 0);
    }
}

#[test]
fn with_3f_members_active_one_more_may_be_silent_without_a_widening() {
    let mut group = Group::with(7, |c| c.active_members = 6);
    group.crash(1);
    group.submit(0, 1, "a");
    assert_eq!(group.ops(0), ["a"]);
    assert_eq!(group.ops(6), [""; 0], "the spare");
    group.crash(2);
    group.submit(0, 2, "b");
    assert_eq!(group.ops(0), ["a"]);
    group.wait(400);
    assert_eq!(group.ops(0), ["a", "b"]);
    assert!(group.status(0).wide);
}
