//! A replicated counter, its group in memory: `cargo run -p replication --example counter`.

use replication::{Apply, Group, MemberId, PeerId, RestoreError, StateMachine};
use std::error::Error;

/// A number to which operations add: each is the amount as text.
#[derive(Default)]
struct Counter(i64);

impl StateMachine for Counter {
    fn apply(&mut self, _cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        // Operations are bytes that a client chose: what makes no sense changes nothing, at every member alike.
        let amount = std::str::from_utf8(op).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        self.0 = self.0.saturating_add(amount);
        self.0.to_string().into_bytes()
    }

    fn query(&self, _client: PeerId, op: &[u8]) -> Option<Vec<u8>> {
        // Adding nothing is reading.
        op.is_empty().then(|| self.0.to_string().into_bytes())
    }

    fn snapshot(&self) -> Vec<u8> {
        self.0.to_le_bytes().to_vec()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let bytes = snapshot.try_into().map_err(|_| RestoreError("a counter has 8 bytes".into()))?;
        self.0 = i64::from_le_bytes(bytes);
        Ok(())
    }
}

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // Four members, of which any one may do whatever it likes.
    let mut group = Group::in_memory(1, Counter::default)?;
    let counter = group.client();
    for _ in 0..10 {
        counter.submit("1").wait()?;
    }
    println!("counted to {}", String::from_utf8(counter.read("").wait()?)?);

    // The primary dies; the others replace it. Nothing is lost, and nothing is counted twice.
    group.crash(MemberId(0));
    let total = String::from_utf8(counter.submit("32").wait()?)?;
    println!("without member 0: {total}");
    assert_eq!(total, "42");
    group.restart(MemberId(0));
    Ok(())
}
