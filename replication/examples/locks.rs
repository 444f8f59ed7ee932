//! A replicated lock service with leases by agreed time, and notices to who waits: `cargo run -p replication --example locks`.

use borsh::{BorshDeserialize, BorshSerialize};
use replication::{Apply, Group, PeerId, RestoreError, StateMachine, Time};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

const LEASE: Duration = Duration::from_millis(500);
/// More are refused: everything in replicated state needs a bound.
const WAITING_MAX: usize = 16;

/// Each name has the client that holds it, until when, and those that wait for it.
#[derive(Default, BorshSerialize, BorshDeserialize)]
struct Locks(BTreeMap<Vec<u8>, (PeerId, Time, VecDeque<PeerId>)>);

impl Locks {
    /// Gives a lock to who has waited longest, and tells him.
    fn pass_on(&mut self, cx: &mut Apply<'_>, name: &[u8]) {
        if let Some((_, _, mut waiting)) = self.0.remove(name)
            && let Some(next) = waiting.pop_front()
        {
            cx.notify(next, name.to_vec());
            self.0.insert(name.to_vec(), (next, cx.time() + LEASE, waiting));
        }
    }
}

impl StateMachine for Locks {
    fn apply(&mut self, cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        let Some((verb, name)) = op.split_first() else { return b"refused".to_vec() };
        match (verb, self.0.get_mut(name)) {
            (b'+', None) => {
                self.0.insert(name.to_vec(), (cx.client(), cx.time() + LEASE, VecDeque::new()));
            }
            (b'+', Some((_, _, waiting))) if waiting.len() < WAITING_MAX => waiting.push_back(cx.client()),
            (b'-', Some((holder, _, _))) if *holder == cx.client() => self.pass_on(cx, name),
            _ => return b"refused".to_vec(),
        }
        self.0.get(name).map_or("free".into(), |(holder, _, _)| format!("held by {holder}")).into()
    }

    fn advance(&mut self, cx: &mut Apply<'_>) {
        let now = cx.time();
        while let Some((name, _)) = self.0.iter().find(|(_, (_, until, _))| *until <= now) {
            self.pass_on(cx, &name.clone());
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.0.values().map(|(_, until, _)| *until).min()
    }

    fn snapshot(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("memory takes everything")
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        *self = borsh::from_slice(snapshot).map_err(|e| RestoreError(e.to_string()))?;
        Ok(())
    }
}

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut group = Group::in_memory(1, Locks::default)?;
    let (one, other) = (group.client(), group.client());
    let notices = other.notices();
    println!("one: {}", String::from_utf8(one.submit("+door").wait()?)?);
    println!("the other: {}", String::from_utf8(other.submit("+door").wait()?)?);
    // The holder forgets to release it: the group's own time ends the lease.
    let notice = notices.next(Duration::from_secs(30)).ok_or("no notice")?;
    println!("the other client holds the {} now", String::from_utf8(notice.body)?);
    Ok(())
}
