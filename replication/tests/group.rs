//! Groups in memory: exactly once through crashes, errors that say what is known, results awaited without a runtime.

#[path = "../examples/counter.rs"]
mod counter;
#[path = "../examples/locks.rs"]
mod locks;
#[path = "../examples/store.rs"]
mod store;

use replication::{
    Apply, Error, Fate, Group, Guarantee, MemberId, Notice, PeerId, RestoreError, StateMachine, Stepped, Time,
};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Remembers every operation in order, and the agreed time at which an alarm went off.
#[derive(Default)]
struct Book {
    entries: Vec<u8>,
    alarm: Option<Time>,
    rang: u8,
}

impl StateMachine for Book {
    fn apply(&mut self, cx: &mut Apply<'_>, op: &[u8]) -> Vec<u8> {
        if op == b"alarm" {
            self.alarm = Some(cx.time() + Duration::from_secs(60));
            return Vec::new();
        }
        if op == b"tell" {
            cx.notify(cx.client(), self.entries.clone());
            return Vec::new();
        }
        self.entries.extend(op);
        self.entries.clone()
    }

    fn query(&self, _: PeerId, op: &[u8]) -> Option<Vec<u8>> {
        match op {
            b"rang" => Some(vec![self.rang]),
            b"entries" => Some(self.entries.clone()),
            _ => None,
        }
    }

    fn advance(&mut self, cx: &mut Apply<'_>) {
        if self.alarm.is_some_and(|at| at <= cx.time()) {
            self.alarm = None;
            self.rang += 1;
        }
    }

    fn next_deadline(&self) -> Option<Time> {
        self.alarm
    }

    fn snapshot(&self) -> Vec<u8> {
        let alarm = self.alarm.map_or(0, Time::as_nanos).to_le_bytes();
        [&[self.rang][..], &alarm, &self.entries].concat()
    }

    fn restore(&mut self, snapshot: &[u8]) -> Result<(), RestoreError> {
        let (rang, rest) = snapshot.split_first().ok_or(RestoreError("empty".into()))?;
        let (alarm, entries) = rest.split_first_chunk().ok_or(RestoreError("too short".into()))?;
        let alarm = u64::from_le_bytes(*alarm);
        let alarm = (alarm > 0).then(|| Time::from_nanos(alarm));
        *self = Book { entries: entries.to_vec(), alarm, rang: *rang };
        Ok(())
    }
}

/// The whole of an executor.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Unpark>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn the_examples_run() {
    counter::main().unwrap();
    store::main().unwrap();
    locks::main().unwrap();
}

#[test]
fn results_are_awaited_without_a_runtime() {
    let mut group = Group::in_memory(0, Book::default).unwrap();
    let client = group.client();
    let last = block_on(async {
        let (first, second) = (client.submit("a"), client.submit("b"));
        let both = [first.await?, second.await?];
        assert!(both.iter().any(|entries| entries.len() == 2), "{both:?}");
        client.submit("c").await
    });
    assert_eq!(last.unwrap().len(), 3);
    assert_eq!(block_on(client.read("rang")), Ok(vec![0]));
}

#[test]
fn notices_come_in_order_to_threads_and_tasks() {
    let mut group = Group::in_memory(1, Book::default).unwrap();
    let client = group.client();
    let notices = client.notices();
    for op in ["a", "tell", "b", "tell"] {
        client.submit(op).wait().unwrap();
    }
    let first = block_on(poll_fn(|cx| notices.poll_next(cx)));
    assert_eq!(first, Some(Notice { seq: 1, body: b"a".to_vec() }));
    let second = notices.next(Duration::from_secs(60));
    assert_eq!(second, Some(Notice { seq: 2, body: b"ab".to_vec() }));
    drop((group, client));
    assert_eq!(block_on(poll_fn(|cx| notices.poll_next(cx))), None, "the client is gone");
}

#[test]
fn groups_of_every_guarantee_survive_the_crash_of_a_primary() {
    for guarantee in [Guarantee::Byzantine, Guarantee::ByzantineTentative, Guarantee::CrashOnly] {
        let mut group = Group::tuned(1, |config| config.guarantee = guarantee, Book::default).unwrap();
        let client = group.client().with_deadline(Duration::from_secs(60));
        assert_eq!(client.submit("a").wait().unwrap(), b"a", "{guarantee:?}");
        group.crash(MemberId(0));
        assert_eq!(client.submit("b").wait().unwrap(), b"ab", "{guarantee:?}");
        group.restart(MemberId(0));
        group.crash(MemberId(1));
        assert_eq!(client.submit("c").wait().unwrap(), b"abc", "{guarantee:?}");
    }
}

#[test]
fn each_operation_is_executed_once_while_members_crash_and_restart() {
    let mut group = Group::in_memory(1, Book::default).unwrap();
    let client = group.client().with_deadline(Duration::from_secs(60));
    let writer = thread::spawn(move || {
        for i in 0..200u8 {
            let entries = client.submit([i]).wait().unwrap();
            assert_eq!(entries, (0..=i).collect::<Vec<_>>(), "in order, each once");
        }
        client.read("rang").wait().unwrap()
    });
    let mut next = 0;
    while !writer.is_finished() {
        let member = MemberId(next % 4);
        next += 1;
        group.crash(member);
        thread::sleep(Duration::from_millis(50));
        group.restart(member);
        thread::sleep(Duration::from_millis(150));
    }
    writer.join().unwrap();
    assert!(next > 0);
    let all: Vec<u8> = (0..200).collect();
    let agreed = (0..4).filter_map(|i| group.look(MemberId(i), |book| book.entries.clone()));
    assert!(agreed.filter(|entries| *entries == all).count() >= 2, "f+1 members have answered");
}

#[test]
fn without_a_quorum_the_error_names_who_is_silent_and_the_group_goes_on_later() {
    let mut group = Group::in_memory(1, Book::default).unwrap();
    let client = group.client();
    client.submit("a").wait().unwrap();
    for dead in [1, 3] {
        group.crash(MemberId(dead));
    }
    let error = client.with_deadline(Duration::from_secs(3)).submit("b").wait().unwrap_err();
    let Error::NoQuorum { fate: Fate::Unknown, needed: 3, silent, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(silent, [MemberId(1), MemberId(3)]);
    group.restart(MemberId(1));
    // It was under way all the time, and is executed now, before or after what is submitted later: once.
    let patient = client.with_deadline(Duration::from_secs(60));
    patient.submit("c").wait().unwrap();
    let begun = Instant::now();
    while patient.read("entries").wait().unwrap().len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is forgotten");
        thread::sleep(Duration::from_millis(50));
    }
    let mut entries = patient.submit("d").wait().unwrap();
    entries.sort_unstable();
    assert_eq!(entries, b"abcd");
}

#[test]
fn a_forgotten_session_is_an_error_once() {
    let mut group = Group::tuned(0, |config| config.sessions_max = 1, Book::default).unwrap();
    let (older, younger, last) = (group.client(), group.client(), group.client());
    younger.submit("a").wait().unwrap();
    last.submit("b").wait().unwrap();
    // The group has forgotten the second client, and cannot tell the first one from it.
    assert_eq!(older.submit("c").wait(), Err(Error::Stale));
    assert_eq!(older.submit("d").wait().unwrap(), b"abd");
}

#[test]
fn a_group_that_is_gone_leaves_nobody_waiting() {
    let mut group = Group::in_memory(0, Book::default).unwrap();
    let client = group.client().with_deadline(Duration::from_millis(200));
    drop(group);
    let error = client.submit("a").wait().unwrap_err();
    assert!(matches!(error, Error::NoQuorum { .. }), "{error}");
}

#[test]
fn steps_repeat_and_timers_go_off_in_virtual_time() {
    let run = || {
        let mut group = Stepped::in_memory(1, Book::default).unwrap();
        group.submit("a").unwrap();
        group.submit("alarm").unwrap();
        group.crash(MemberId(0));
        assert_eq!(group.submit("b").unwrap(), b"ab");
        assert_eq!(group.read("rang").unwrap(), [0]);
        group.restart(MemberId(0));
        group.advance(Duration::from_secs(61));
        assert_eq!(group.read("rang").unwrap(), [1], "once");
        assert_eq!(group.submit("c").unwrap(), b"abc");
        assert_eq!(group.machine(MemberId(1)).unwrap().entries, b"abc");
        group.now()
    };
    assert_eq!(run(), run());
}
