//! Processes that follow one another under one name, over shared memory: what is said to one is heard by no other.

use cl_base::PeerId;
use rcl::{Endpoint, EndpointConfig, Event};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const SURVIVOR: PeerId = PeerId::new(1, 0);
const MORTAL: PeerId = PeerId::new(2, 0);
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(30);

fn open(me: PeerId) -> Endpoint {
    Endpoint::open(EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap()
}

/// Polls both until `done` of what the first or the second has heard.
fn until(first: &mut Endpoint, second: &mut Endpoint, mut done: impl FnMut(usize, Option<Event>) -> bool) {
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT);
        if done(0, first.poll()) | done(1, second.poll()) {
            return;
        }
    }
}

#[test]
fn a_connection_after_the_end_of_another_is_not_ended_by_one_between_them() {
    let mut survivor = open(SURVIVOR);
    let mut first = open(MORTAL);
    survivor.connect(MORTAL, first.local_addr());
    until(&mut survivor, &mut first, |who, event| who == 0 && matches!(event, Some(Event::Connected(_))));
    // The second calls while the connection of the first lasts, and both end at once.
    let mut second = open(MORTAL);
    second.connect(SURVIVOR, survivor.local_addr());
    let start = Instant::now();
    while survivor.cl().shared().0 < 2 || start.elapsed() < Duration::from_millis(100) {
        assert!(start.elapsed() < LIMIT);
        assert!(survivor.poll().is_none());
        assert!(second.poll().is_none());
    }
    drop((first, second));
    let start = Instant::now();
    while !matches!(survivor.poll(), Some(Event::Closed(..))) {
        assert!(start.elapsed() < LIMIT);
    }
    let mut third = open(MORTAL);
    survivor.connect(MORTAL, third.local_addr());
    survivor.send(MORTAL, survivor.alloc_copy(b"to the third").unwrap()).unwrap();
    let (mut connected, mut heard) = (0, false);
    until(&mut survivor, &mut third, |who, event| {
        match event {
            Some(Event::Closed(_, reason)) => panic!("{who} hears of an end: {reason}"),
            Some(Event::Connected(_)) => connected += 1,
            Some(Event::Message { buf, .. }) => {
                assert_eq!(buf[..], *b"to the third");
                heard = true;
            }
            _ => {}
        }
        heard && connected == 2
    });
}
