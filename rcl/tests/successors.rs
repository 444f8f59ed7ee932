//! Processes that follow one another under one name, over shared memory: what is said to one is heard by no other.

use cl_base::PeerId;
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
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

#[test]
fn a_second_process_of_a_name_does_not_take_the_place_of_the_first_while_that_lives() {
    let mut survivor = open(SURVIVOR);
    let mut first = open(MORTAL);
    first.connect(SURVIVOR, survivor.local_addr());
    until(&mut survivor, &mut first, |who, event| who == 1 && matches!(event, Some(Event::Connected(_))));
    let mut config = EndpointConfig::new(MORTAL, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.protocol.dead_after = Duration::from_millis(200);
    let mut second = Endpoint::open(config).unwrap();
    second.connect(SURVIVOR, survivor.local_addr());
    // It is not answered.
    until(&mut survivor, &mut second, |who, event| match event {
        Some(Event::Closed(_, reason)) => {
            assert_eq!((who, reason), (1, CloseReason::Dead));
            true
        }
        Some(Event::Connected(_)) => panic!("{who} is connected"),
        _ => false,
    });
    first.send(SURVIVOR, first.alloc_copy(b"I live").unwrap()).unwrap();
    until(&mut survivor, &mut first, |who, event| match event {
        Some(Event::Message { buf, .. }) => {
            assert_eq!((who, &buf[..]), (0, &b"I live"[..]));
            true
        }
        None => false,
        other => panic!("{who}: {other:?}"),
    });
    // When the first has ended, it is.
    drop((first, second));
    let mut second = open(MORTAL);
    second.connect(SURVIVOR, survivor.local_addr());
    let mut closed = false;
    until(&mut survivor, &mut second, |who, event| {
        match event {
            Some(Event::Closed(_, reason)) => {
                assert_eq!((who, reason), (0, CloseReason::Dead));
                closed = true;
            }
            Some(Event::Connected(_)) if who == 1 => return closed,
            _ => {}
        }
        false
    });
}

#[test]
fn whoever_connects_to_itself_hears_itself() {
    let mut alone = open(SURVIVOR);
    alone.connect(SURVIVOR, alone.local_addr());
    alone.send(SURVIVOR, alone.alloc_copy(b"to myself").unwrap()).unwrap();
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < LIMIT);
        match alone.poll() {
            Some(Event::Message { from: SURVIVOR, buf }) => break assert_eq!(buf[..], *b"to myself"),
            Some(Event::Connected(SURVIVOR)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
}
