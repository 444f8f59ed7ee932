//! The same life for groups of every size: f = 0, the baseline, to f = 3.

use super::*;

const SIZES: [u8; 4] = [0, 1, 2, 3];

fn group_of(f: u8) -> Group {
    Group::with(3 * u32::from(f) + 1, |c| (c.checkpoint_interval, c.log_window) = (4, 8))
}

/// The members that are up.
fn up(group: &Group) -> Vec<usize> {
    (0..group.members.len()).filter(|i| group.members[*i].is_some()).collect()
}

/// A client asks everybody who is up.
fn ask_all(group: &mut Group, t: u64, op: &str) {
    for i in up(group) {
        group.submit(i, t, op);
    }
}

#[test]
fn a_quiet_view_takes_the_active_members_alone() {
    for f in SIZES {
        let mut group = Group::new(3 * u32::from(f) + 1);
        let active = 2 * usize::from(f) + 1;
        for t in 1..=9 {
            group.submit(0, t, "a");
        }
        for i in 0..active {
            assert_eq!(group.ops(i).len(), 9, "member {i} of f = {f}");
        }
        for i in active..group.members.len() {
            assert_eq!(group.ops(i).len(), 0, "spare {i} of f = {f}");
        }
        let replies = 9 * active;
        // PRE-PREPARE to 2f, 2f PREPAREs and 2f+1 COMMITs to 2f each.
        let votes = 9 * 2 * usize::from(f) * (1 + 2 * usize::from(f) + active);
        let sent: usize = (0..group.members.len()).map(|i| group.count(i, |_| true)).sum();
        assert_eq!(sent, votes + replies, "f = {f}");
    }
}

#[test]
fn f_silent_backups_cost_a_widening_and_no_view_change() {
    for f in SIZES {
        let mut group = group_of(f);
        for i in 1..=usize::from(f) {
            group.crash(i);
        }
        group.submit(0, 1, "a");
        group.wait(300);
        assert_eq!(group.ops(0), ["a"], "f = {f}");
        assert_eq!(group.status(0).view, 0, "f = {f}");
        let executed = up(&group).into_iter().filter(|i| group.ops(*i) == ["a"]).count();
        assert!(executed > usize::from(f), "f = {f}");
    }
}

#[test]
fn f_primaries_that_die_one_after_the_other_lose_nothing_that_was_executed() {
    for f in SIZES {
        let mut group = group_of(f);
        for round in 0..=u64::from(f) {
            ask_all(&mut group, 2 * round + 1, "before");
            group.wait(2_000);
            ask_all(&mut group, 2 * round + 2, "after");
            group.wait(2_000);
            if round < u64::from(f) {
                let primary = usize::from(group.status(up(&group)[0]).primary.0);
                group.crash(primary);
            }
        }
        let expected = 2 * (usize::from(f) + 1);
        for i in up(&group) {
            let status = group.status(i);
            assert_eq!((status.view, status.halted), (u64::from(f), None), "member {i} of f = {f}");
            if status.role != Role::Spare {
                assert_eq!(group.ops(i).len(), expected, "member {i} of f = {f}");
            }
        }
    }
}

#[test]
fn with_f_plus_1_members_silent_nothing_is_executed() {
    for f in [1, 2, 3] {
        let mut group = group_of(f);
        for i in 1..=usize::from(f) + 1 {
            group.crash(i);
        }
        ask_all(&mut group, 1, "a");
        group.wait(5_000);
        for i in up(&group) {
            assert_eq!(group.status(i).executed, 0, "member {i} of f = {f}");
        }
    }
}

#[test]
fn f_members_that_were_away_come_back_with_the_state() {
    for f in SIZES {
        let mut group = group_of(f);
        for i in 1..=usize::from(f) {
            group.crash(i);
        }
        for t in 1..=9 {
            ask_all(&mut group, t, "a");
            group.wait(400);
        }
        for i in 1..=usize::from(f) {
            group.restart(i);
        }
        group.wait(3_000);
        ask_all(&mut group, 10, "b");
        group.wait(3_000);
        for i in 0..=usize::from(f) {
            assert_eq!(group.ops(i).len(), 10, "member {i} of f = {f}");
            assert_eq!(group.member(i).machine(), group.member(0).machine());
        }
    }
}
