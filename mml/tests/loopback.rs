//! Real sockets on loopback, over both transports of `cl`.

use cl::{EndpointConfig, SharedMemory, TransportChoice};
use cl_base::{Incarnation, PeerId, Principal};
use mml::{
    Config, Delivery, DownReason, Endpoint, Event, FailReason, Keyring, Member, Roster, SecretKey, SendStatus,
};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);
const PATIENCE: Duration = Duration::from_secs(20);
const TRANSPORTS: [TransportChoice; 2] = [TransportChoice::Uring, TransportChoice::Mio];

fn secret(number: u32) -> SecretKey {
    SecretKey::from_seed([number as u8; 32])
}

fn config() -> Config {
    Config {
        dead_after: Duration::from_millis(300),
        connect_timeout: Duration::from_millis(600),
        ..Config::default()
    }
}

/// One process's worth: socket, protocol, clock.
struct Party {
    cl: cl::Endpoint,
    mml: Endpoint,
    clock: cl::Clock,
    events: Vec<Event>,
}

impl Party {
    fn step(&mut self) {
        let now = self.clock.now();
        while let Some(received) = self.cl.poll() {
            self.mml.handle(&mut self.cl, now, received);
        }
        if self.mml.next_timeout().is_some_and(|at| at <= now) {
            self.mml.handle_timeout(&mut self.cl, now);
        }
        while let Some(event) = self.mml.poll_event() {
            self.events.push(event);
        }
    }

    fn send(&mut self, to: PeerId, delivery: Delivery, body: &[u8]) -> mml::Sequence {
        let now = self.clock.now();
        self.mml.send(&mut self.cl, now, to, delivery, 1, body).expect("there is room")
    }

    fn bodies(&self) -> Vec<&[u8]> {
        fn body(event: &Event) -> Option<&[u8]> {
            match event {
                Event::Message { body, .. } => Some(body),
                _ => None,
            }
        }
        self.events.iter().filter_map(body).collect()
    }
}

fn run_until(what: &str, parties: &mut [&mut Party], mut done: impl FnMut(&[&mut Party]) -> bool) {
    let start = Instant::now();
    while !done(parties) {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        for party in parties.iter_mut() {
            party.step();
        }
        std::thread::yield_now();
    }
}

/// Parties 1 and 2 with fixed addresses, and 3, a user, who has none. `None` where the kernel or a container
/// forbids the transport.
struct Cluster {
    roster: Roster,
    transport: TransportChoice,
    lives: u64,
}

impl Cluster {
    fn new(transport: TransportChoice) -> Option<(Cluster, Party, Party)> {
        let sockets = [bind(1, LOOPBACK.into(), transport)?, bind(2, LOOPBACK.into(), transport)?];
        let member = |number: u32, address| Member {
            principal: Principal(number),
            name: format!("p{number}"),
            role: "test".into(),
            key: secret(number).public(),
            address,
        };
        let members = vec![
            member(1, Some(sockets[0].local_addr())),
            member(2, Some(sockets[1].local_addr())),
            member(3, None),
        ];
        let roster = Roster::from_members(members, "test").expect("a good roster");
        let mut cluster = Cluster { roster, transport, lives: 0 };
        let [a, b] = sockets;
        let (a, b) = (cluster.party(PeerId::new(1, 0), a), cluster.party(PeerId::new(2, 0), b));
        Some((cluster, a, b))
    }

    fn party(&mut self, me: PeerId, cl: cl::Endpoint) -> Party {
        self.lives += 1;
        let keyring = Keyring::new(me.principal, secret(me.principal.0), &self.roster).expect("the key fits");
        let seed = mml::keys::entropy().expect("entropy");
        let mml = Endpoint::new(config(), me, Incarnation(self.lives), keyring, &self.roster, seed);
        Party { cl, mml, clock: cl::Clock::new(), events: Vec::new() }
    }

    fn user(&mut self, instance: u32) -> Party {
        let cl =
            cl::Endpoint::open(endpoint_config(PeerId::new(3, instance), LOOPBACK.into(), self.transport));
        self.party(PeerId::new(3, instance), cl.expect("the transport worked before"))
    }
}

fn endpoint_config(me: PeerId, bind: SocketAddr, transport: TransportChoice) -> EndpointConfig {
    EndpointConfig { transport, shared_memory: SharedMemory::Never, ..EndpointConfig::new(me, bind) }
}

fn bind(number: u32, addr: SocketAddr, transport: TransportChoice) -> Option<cl::Endpoint> {
    match cl::Endpoint::open(endpoint_config(PeerId::new(number, 0), addr, transport)) {
        Ok(endpoint) => Some(endpoint),
        Err(error) if transport == TransportChoice::Uring => {
            eprintln!("not tested over io_uring: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn each_transport(test: impl Fn(Cluster, Party, Party)) {
    for transport in TRANSPORTS {
        if let Some((cluster, a, b)) = Cluster::new(transport) {
            test(cluster, a, b);
        }
    }
}

#[test]
fn all_kinds_and_sizes_arrive_in_order_over_both_transports() {
    each_transport(|_, mut a, mut b| {
        let bodies: Vec<Vec<u8>> =
            (0..200usize).map(|i| vec![i as u8; [0, 1, 700, 1500, 60_000][i % 5]]).collect();
        let sequences: Vec<_> = bodies.iter().map(|body| a.send(b.mml.me(), Delivery::Ack, body)).collect();
        run_until("ACK messages", &mut [&mut a, &mut b], |p| {
            sequences.iter().all(|s| p[0].mml.status(PeerId::new(2, 0), *s) == SendStatus::Delivered)
        });
        assert_eq!(b.bodies(), bodies);
        b.events.clear();
        for body in &bodies {
            b.send(a.mml.me(), Delivery::Nack, body);
        }
        b.send(a.mml.me(), Delivery::Unr, b"unreliable");
        run_until("NACK messages", &mut [&mut b, &mut a], |p| p[1].bodies().len() > bodies.len());
        let mut got: Vec<Vec<u8>> =
            a.bodies().iter().map(|b| b.to_vec()).filter(|b| b != b"unreliable").collect();
        let mut expected = bodies.clone();
        got.sort();
        expected.sort();
        assert_eq!(got, expected);
    });
}

#[test]
fn users_without_an_address_are_answered_wherever_they_call_from() {
    each_transport(|mut cluster, mut a, _| {
        let mut terminals = [cluster.user(0), cluster.user(1), cluster.user(2)];
        for user in &mut terminals {
            user.send(a.mml.me(), Delivery::Ack, b"question");
            run_until("the question", &mut [user, &mut a], |p| !p[1].bodies().is_empty());
            a.events.clear();
            a.send(user.mml.me(), Delivery::Ack, b"answer");
            run_until("the answer", &mut [user, &mut a], |p| !p[0].bodies().is_empty());
        }
        // The first terminal comes back as a new process on another port.
        drop(std::mem::replace(&mut terminals[0], cluster.user(0)));
        terminals[0].send(a.mml.me(), Delivery::Ack, b"again");
        run_until("the new question", &mut [&mut terminals[0], &mut a], |p| p[1].bodies() == [b"again"]);
        a.send(terminals[0].mml.me(), Delivery::Ack, b"answer");
        run_until("the new answer", &mut [&mut terminals[0], &mut a], |p| p[0].bodies() == [b"answer"]);
    });
}

#[test]
fn a_restarted_peer_is_noticed_and_served() {
    each_transport(|mut cluster, mut a, mut b| {
        a.send(b.mml.me(), Delivery::Ack, b"before");
        run_until("the first message", &mut [&mut a, &mut b], |p| p[1].bodies() == [b"before"]);
        let address = b.cl.local_addr();
        let lost = a.send(b.mml.me(), Delivery::Ack, b"lost");
        drop(b);
        let mut b =
            cluster.party(PeerId::new(2, 0), bind(2, address, cluster.transport).expect("it worked before"));
        run_until("the restart", &mut [&mut a, &mut b], |p| {
            p[0].events
                .iter()
                .any(|e| matches!(e, Event::Restarted { old: Incarnation(2), new: Incarnation(3), .. }))
        });
        assert_eq!(a.mml.status(b.mml.me(), lost), SendStatus::Failed(FailReason::Restarted));
        a.send(b.mml.me(), Delivery::Ack, b"after");
        run_until("the next message", &mut [&mut a, &mut b], |p| p[1].bodies() == [b"after"]);
    });
}

#[test]
fn a_restarted_peer_reaches_a_user_who_only_ever_sends_unreliable_messages() {
    each_transport(|mut cluster, mut a, _| {
        let mut user = cluster.user(0);
        user.send(a.mml.me(), Delivery::Unr, b"before");
        run_until("the first message", &mut [&mut user, &mut a], |p| p[1].bodies() == [b"before"]);
        let address = a.cl.local_addr();
        drop(a);
        let again = bind(1, address, cluster.transport).expect("it worked before");
        let mut a = cluster.party(PeerId::new(1, 0), again);
        // The user believes in the old session, and the new process knows no address of the user.
        let start = Instant::now();
        while !a.bodies().contains(&&b"after"[..]) {
            assert!(start.elapsed() < PATIENCE, "the user was not told of the restart");
            user.send(a.mml.me(), Delivery::Unr, b"after");
            user.step();
            a.step();
            std::thread::yield_now();
        }
    });
}

#[test]
fn a_dead_peer_is_reported_within_the_configured_time() {
    each_transport(|_, mut a, mut b| {
        let peer = b.mml.me();
        a.send(peer, Delivery::Ack, b"before");
        run_until("the first message", &mut [&mut a, &mut b], |p| p[1].bodies() == [b"before"]);
        drop(b);
        let start = Instant::now();
        let down = |p: &[&mut Party], reason| p[0].events.contains(&Event::Down { peer, reason });
        a.send(peer, Delivery::Ack, b"to nobody");
        run_until("silence", &mut [&mut a], |p| down(p, DownReason::Silent));
        assert!(start.elapsed() >= config().dead_after);
        let lost = a.send(peer, Delivery::Ack, b"to nobody again");
        run_until("vain attempts", &mut [&mut a], |p| down(p, DownReason::Unreachable));
        assert_eq!(a.mml.status(peer, lost), SendStatus::Failed(FailReason::Unreachable));
    });
}

#[test]
fn blocking_endpoints_send_and_receive() {
    let (cluster, mut a, _b) = Cluster::new(TransportChoice::Mio).expect("mio works everywhere");
    let keyring = Keyring::new(Principal(3), secret(3), &cluster.roster).expect("the key fits");
    let server = a.mml.me();
    let user = std::thread::spawn(move || {
        let cl = endpoint_config(PeerId::new(3, 0), LOOPBACK.into(), TransportChoice::Mio);
        let mut user = mml::blocking::Blocking::open(cl, config(), keyring, &cluster.roster).expect("opened");
        user.send(server, Delivery::Ack, 0, b"ping", PATIENCE).expect("delivered");
        let answer = loop {
            match user.recv(PATIENCE).expect("an answer") {
                Event::Message { body, .. } => break body,
                _ => continue,
            }
        };
        let timeout = Duration::from_millis(50);
        assert!(user.recv(timeout).is_none_or(|event| !matches!(event, Event::Message { .. })));
        assert!(user.send(PeerId::new(9, 0), Delivery::Ack, 0, b"who?", timeout).is_err());
        answer
    });
    run_until("the question", &mut [&mut a], |p| p[0].bodies() == [b"ping"]);
    a.send(PeerId::new(3, 0), Delivery::Ack, b"pong");
    run_until("the user's leaving", &mut [&mut a], |p| {
        p[0].events.contains(&Event::Down { peer: PeerId::new(3, 0), reason: DownReason::Closed })
    });
    assert_eq!(user.join().expect("the user is content"), b"pong");
}
