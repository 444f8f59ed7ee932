//! A reader that does not read for longer than silence is forgiven: it lives as long as it makes progress.

use cl::SharedMemory;
use cl_base::PeerId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event, Refusal};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const DEAD_AFTER: Duration = Duration::from_millis(200);
/// Several times as long.
const PAUSE: Duration = Duration::from_secs(1);
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(30);

fn open(me: PeerId, shared: bool, dead_after: Duration) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    if !shared {
        config.cl.shared_memory = SharedMemory::Never;
    }
    config.protocol.dead_after = dead_after;
    Endpoint::open(config).unwrap()
}

fn within(what: &str, mut step: impl FnMut() -> bool) {
    let start = Instant::now();
    while !step() {
        assert!(start.elapsed() < LIMIT, "{what} takes too long");
    }
}

fn connected(shared: bool) -> (Endpoint, Endpoint) {
    connected_for(shared, DEAD_AFTER)
}

fn connected_for(shared: bool, dead_after: Duration) -> (Endpoint, Endpoint) {
    let (mut a, mut b) = (open(A, shared, dead_after), open(B, shared, dead_after));
    a.connect(B, b.local_addr());
    let mut told = [false; 2];
    within("the call", || {
        told[0] |= matches!(a.poll(), Some(Event::Connected(B)));
        told[1] |= matches!(b.poll(), Some(Event::Connected(A)));
        told == [true; 2]
    });
    (a, b)
}

fn message(n: u32) -> Vec<u8> {
    let mut message = n.to_le_bytes().to_vec();
    message.resize(1000 + n as usize % 20_000, n as u8);
    message
}

/// A sends to B what it can for so long, while `pause` is what B does. How many messages were accepted.
fn send_meanwhile(a: &mut Endpoint, time: Duration, mut pause: impl FnMut()) -> u32 {
    let (start, mut sent, mut refused) = (Instant::now(), 0, false);
    while start.elapsed() < time {
        if let Some(event) = a.poll() {
            panic!("{event:?}");
        }
        match a.alloc_copy(&message(sent)).map(|buf| a.send(B, buf)) {
            Ok(Ok(())) => sent += 1,
            Ok(Err(error)) => {
                assert_eq!(error.reason, Refusal::Backpressure);
                refused = true;
            }
            // Over shared memory the unread messages are in the sender's buffers.
            Err(_) => refused = true,
        }
        pause();
    }
    assert!(refused, "who does not read stops the sender, in the end: {sent} sent");
    sent
}

fn read_all(a: &mut Endpoint, b: &mut Endpoint, sent: u32) {
    let mut received = 0;
    within("reading on", || {
        if let Some(event) = a.poll() {
            panic!("{event:?}");
        }
        match b.poll() {
            Some(Event::Message { from: A, buf }) => {
                assert!(buf[..] == message(received), "message {received} is not what was sent");
                received += 1;
            }
            None => {}
            Some(other) => panic!("{other:?}"),
        }
        received == sent
    });
}

#[test]
fn who_makes_progress_may_leave_messages_unread_for_long() {
    for shared in [false, true] {
        let (mut a, mut b) = connected(shared);
        let sent = send_meanwhile(&mut a, PAUSE, || b.progress());
        read_all(&mut a, &mut b, sent);
    }
}

#[test]
fn who_waits_for_room_to_send_hears_by_progress_that_there_is_some() {
    let (mut a, mut b) = connected(false);
    let (mut sent, mut received) = (0u32, 0);
    let start = Instant::now();
    while received < 2000 {
        assert!(start.elapsed() < LIMIT, "{sent} sent, {received} received");
        if sent < 2000
            && let Ok(buf) = a.alloc_copy(&message(sent))
        {
            sent += u32::from(a.send(B, buf).is_ok());
        }
        // It never polls.
        a.progress();
        received += u32::from(matches!(b.poll(), Some(Event::Message { .. })));
    }
    assert_eq!(sent, 2000);
}

#[test]
fn who_polls_but_takes_long_for_each_message_lives() {
    // Half of what is allowed for each message, for a machine with other work: some 400 ms from one look at
    // the network to the next.
    let dead_after = Duration::from_millis(1500);
    let (mut a, mut b) = connected_for(false, dead_after);
    let mut last = Instant::now();
    let mut read = 0;
    let sent = send_meanwhile(&mut a, dead_after * 2, || {
        if last.elapsed() >= dead_after / 32 {
            last = Instant::now();
            if let Some(event) = b.poll() {
                assert!(
                    matches!(&event, Event::Message { buf, .. } if buf[..] == message(read)),
                    "{event:?}"
                );
                read += 1;
            }
        }
    });
    assert!((10..sent).contains(&read), "{read} of {sent}");
    assert!(a.sizes(B).is_some_and(|s| s.held > 0));
}

#[test]
fn who_does_neither_is_dead() {
    let (mut a, mut b) = connected(false);
    within("the death", || matches!(a.poll(), Some(Event::Closed(B, CloseReason::Dead))));
    // It learns of it when it asks.
    within("the news", || {
        a.poll();
        matches!(b.poll(), Some(Event::Closed(A, CloseReason::Reset)))
    });
}

#[test]
fn a_death_noticed_while_nothing_is_read_is_told_after_the_messages() {
    let (mut a, mut b) = connected(false);
    a.send(B, a.alloc_copy(b"last words").unwrap()).unwrap();
    a.flush();
    drop(a);
    let start = Instant::now();
    while start.elapsed() < DEAD_AFTER * 3 {
        b.progress();
    }
    assert!(matches!(b.poll(), Some(Event::Message { buf, .. }) if buf[..] == *b"last words"));
    within("the end", || matches!(b.poll(), Some(Event::Closed(A, CloseReason::Dead))));
}
