//! A replicated key-value store: `cargo run -p replication --example store`.

use borsh::{BorshDeserialize, BorshSerialize};
use replication::{Apply, Group, Handle, MemberId, PeerId, RestoreError, StateMachine};
use std::collections::BTreeMap;
use std::error::Error;

/// What clients ask. Each is answered with the value that the key had.
#[derive(BorshSerialize, BorshDeserialize)]
enum Op {
    Get(String),
    Put(String, String),
    Delete(String),
}

/// Ordered maps only: all members must do everything in the same order.
#[derive(Default, BorshSerialize, BorshDeserialize)]
struct Store(BTreeMap<String, String>);

fn encode(value: Option<String>) -> Vec<u8> {
    borsh::to_vec(&value).expect("memory takes everything")
}

impl StateMachine for Store {
    fn apply(&mut self, _cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        encode(match borsh::from_slice(op) {
            Ok(Op::Get(key)) => self.0.get(&key).cloned(),
            Ok(Op::Put(key, value)) => self.0.insert(key, value),
            Ok(Op::Delete(key)) => self.0.remove(&key),
            Err(_) => None,
        })
    }

    fn query(&self, _client: PeerId, op: &[u8]) -> Option<Vec<u8>> {
        match borsh::from_slice(op) {
            Ok(Op::Get(key)) => Some(encode(self.0.get(&key).cloned())),
            _ => None,
        }
    }

    fn snapshot(&self) -> Vec<u8> {
        borsh::to_vec(self).expect("memory takes everything")
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        *self = borsh::from_slice(snapshot).map_err(|e| RestoreError(e.to_string()))?;
        Ok(())
    }
}

fn ask(store: &Handle, op: &Op) -> Result<Option<String>, Box<dyn Error>> {
    let bytes = borsh::to_vec(op)?;
    let answer = if matches!(op, Op::Get(_)) { store.read(bytes) } else { store.submit(bytes) };
    Ok(borsh::from_slice(&answer.wait()?)?)
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    let mut group = Group::in_memory(1, Store::default)?;
    let (one, other) = (group.client(), group.client());
    ask(&one, &Op::Put("colour".into(), "blue".into()))?;
    println!("the other client reads {:?}", ask(&other, &Op::Get("colour".into()))?);

    // Every member in turn is stopped and started again with what it remembers.
    for member in (0..4).map(MemberId) {
        group.restart(member);
        let before = ask(&other, &Op::Put("colour".into(), format!("shade {member}")))?;
        println!("member {member} was started again; before: {before:?}");
    }
    assert_eq!(ask(&one, &Op::Delete("colour".into()))?.as_deref(), Some("shade 3"));
    assert_eq!(ask(&other, &Op::Get("colour".into()))?, None);
    Ok(())
}
