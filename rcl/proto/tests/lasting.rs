//! What is sent as lasting may be read by the network later than it is sent: it is kept until it is acknowledged or
//! renounced, and nothing depends on what a second copy of it holds.

use cl_base::{PeerId, Time};
use rcl_proto::{Checksum, Config, Event, HEADER_LEN, Heap, Memory, Node};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

const A: PeerId = PeerId::new(1, 0);
const B: PeerId = PeerId::new(2, 0);
const SEGMENT_LEN: usize = 65_000;
/// Long enough to be lasting, and of so many pieces.
const LEN: usize = 256 << 10;
const PIECES: usize = 5;

/// Memory that notes the first bytes of the messages that were renounced.
struct Watched;

thread_local! {
    static RENOUNCED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Memory for Watched {
    type Buf = Vec<u8>;

    fn alloc(&self, capacity: usize) -> Option<Vec<u8>> {
        Heap.alloc(capacity)
    }

    fn capacity_max(&self) -> usize {
        Heap.capacity_max()
    }

    fn append(buf: &mut Vec<u8>, bytes: &[u8]) {
        Heap::append(buf, bytes);
    }

    fn advance(buf: &mut Vec<u8>, n: usize) {
        Heap::advance(buf, n);
    }

    fn renounce(buf: Vec<u8>) {
        RENOUNCED.with_borrow_mut(|renounced| renounced.push(buf[0]));
    }
}

struct Frame {
    bytes: Vec<u8>,
    lasting: bool,
}

fn addr() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

fn node(life: u8) -> Node<Watched> {
    let config = Config { checksum: Checksum::Header, ..Config::new(SEGMENT_LEN) };
    Node::new(config, &[life; 32], Watched)
}

fn frames(of: &mut Node<Watched>, now: Time) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(frame) = of.poll_transmit(now) {
        frames.push(Frame { bytes: [frame.head, frame.body].concat(), lasting: frame.lasting });
    }
    frames
}

fn connected() -> (Node<Watched>, Node<Watched>, Time) {
    let (mut a, mut b, now) = (node(7), node(9), Time::from_nanos(1));
    a.connect(now, B, addr());
    for _ in 0..3 {
        frames(&mut a, now).into_iter().for_each(|frame| b.on_frame(now, A, addr(), frame.bytes));
        frames(&mut b, now).into_iter().for_each(|frame| a.on_frame(now, B, addr(), frame.bytes));
    }
    assert!(a.is_connected(B));
    while a.poll_event().is_some() || b.poll_event().is_some() {}
    (a, b, now)
}

fn message(number: u8) -> Vec<u8> {
    let mut message: Vec<u8> = (0..LEN).map(|at| (at % 251) as u8).collect();
    message[0] = number;
    message
}

fn renounced() -> Vec<u8> {
    RENOUNCED.take()
}

#[test]
fn what_second_copies_hold_does_not_matter() {
    let (mut a, mut b, now) = connected();
    // Those that travel alone are not.
    a.send(B, vec![0; 100]).unwrap();
    a.send(B, message(1)).unwrap();
    let sent = frames(&mut a, now);
    assert_eq!(
        sent.iter().map(|frame| frame.lasting).collect::<Vec<_>>(),
        [false, true, true, true, true, true]
    );
    let mut changed: Vec<Vec<u8>> = sent.iter().map(|frame| frame.bytes.clone()).collect();
    // Of the first piece the length of the message is in front, in a part that is not lent.
    changed.iter_mut().for_each(|frame| frame[HEADER_LEN + 8..].fill(0xff));
    for (first, second) in sent.into_iter().zip(&changed) {
        b.on_frame(now, A, addr(), first.bytes);
        b.on_frame(now, A, addr(), second.clone());
    }
    for expected in [vec![0; 100], message(1)] {
        let Some(Event::Message { buf, .. }) = b.poll_event() else { panic!("it is there") };
        assert!(buf == expected);
    }
    changed.into_iter().for_each(|frame| b.on_frame(now, A, addr(), frame));
    assert!(b.poll_event().is_none());
    assert_eq!(b.counters().duplicates, 2 * (1 + PIECES as u64));
    assert_eq!(b.counters().violations, 0);
}

#[test]
fn messages_that_may_not_have_arrived_are_renounced_when_the_connection_ends_and_no_others() {
    for drops in [false, true] {
        let (mut a, mut b, mut now) = connected();
        a.send(B, message(1)).unwrap();
        a.send(B, vec![2; 100]).unwrap();
        frames(&mut a, now).into_iter().for_each(|frame| b.on_frame(now, A, addr(), frame.bytes));
        while b.poll_event().is_some() {}
        // An acknowledgement waits a little for company.
        now += Duration::from_millis(1);
        b.on_deadline(now);
        frames(&mut b, now).into_iter().for_each(|frame| a.on_frame(now, B, addr(), frame.bytes));
        assert_eq!(a.sizes(B).expect("a connection").held, 0, "all of these are acknowledged");
        // More than is sent at once: the rest waits for room in the network.
        for number in 3..=8 {
            a.send(B, message(number)).unwrap();
        }
        a.send(B, vec![9; 100]).unwrap();
        let pieces = frames(&mut a, now).len();
        assert!((9..18).contains(&pieces), "{pieces}");
        assert_eq!(renounced(), []);
        if drops {
            drop(a);
        } else {
            a.abort(B);
            assert!(matches!(a.poll_event(), Some(Event::Closed(B, _))));
            a.on_deadline(now);
        }
        // And that of which the next piece would have been.
        let last = 3 + (pieces / PIECES) as u8;
        assert_eq!(renounced(), (3..=last).collect::<Vec<_>>());
        drop(b);
        assert_eq!(renounced(), [], "it has sent nothing of the kind");
    }
}
