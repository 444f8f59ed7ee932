//! Once warm, nothing is allocated for a message that arrives in order, of any kind, alone, in bundles or to a group. (For what
//! is lost and comes again something is: see the last test.)

mod world;

use allocation_counter::measure;
use cl_base::{Incarnation, PeerId, Rng, Time};
use mml_proto::{Config, Delivery, Mml, Outgoing};
use std::time::Duration;
use world::{address, id, pair};

/// Long enough for queues and histories to have the size they keep.
const WARM_UP: usize = 20_000;
const MESSAGES: usize = 20_000;
/// From one step to the next: shorter than an acknowledgement waits, so that some timers fire and some do not.
const STEP: Duration = Duration::from_micros(100);
const DELIVERIES: [Delivery; 3] = [Delivery::Unr, Delivery::Ack, Delivery::Nack];

/// Party 0, the others, and a network that delivers at once what it does not lose.
struct Net {
    now: Time,
    parties: Vec<Mml>,
    frame: Vec<u8>,
    received: usize,
    rng: Rng,
    /// Frames lost of 1000.
    lose: u64,
}

impl Net {
    fn new(others: usize) -> Net {
        let life = |n| Mml::new(Config::default(), id(n), Incarnation(1), Box::new(pair), [n as u8 + 1; 32]);
        let parties = (0..=others).map(life).collect();
        let now = Time::from_nanos(1 << 40);
        let mut net = Net { now, parties, frame: Vec::new(), received: 0, rng: Rng::new(1), lose: 0 };
        for other in 1..=others {
            net.parties[0].connect(now, id(other)).expect("a key is known");
        }
        net.settle();
        assert!((1..=others).all(|other| net.parties[0].is_up(id(other)) && net.parties[other].is_up(id(0))));
        net
    }

    /// Takes the frame to whom it is for.
    fn carry(&mut self, from: usize, to: PeerId) {
        if self.lose > 0 && self.rng.chance(self.lose, 1000) {
            return;
        }
        let (now, source, received) = (self.now, address(id(from)), &mut self.received);
        let to = (to.principal.0 - 100) as usize;
        self.parties[to].handle_each(now, id(from), source, &mut self.frame, &mut |message| {
            *received += 1;
            assert_eq!(message.body[0], 5);
        });
    }

    /// Until nobody has anything to send. What else is told is forgotten.
    fn settle(&mut self) {
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for party in 0..self.parties.len() {
                while let Some(transmit) = self.parties[party].poll_transmit(self.now, &mut self.frame) {
                    self.carry(party, transmit.to);
                    quiet = false;
                }
                while self.parties[party].poll_event().is_some() {}
            }
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        for party in &mut self.parties {
            if party.next_timeout().is_some_and(|at| at <= self.now) {
                party.handle_timeout(self.now);
            }
        }
        self.settle();
    }

    /// Sends `count` messages to each of the others, `at_once` before they leave.
    fn pass(&mut self, delivery: Delivery, count: usize, at_once: usize, everybody: &[PeerId]) {
        let before = self.received;
        for _ in 0..count / at_once {
            for _ in 0..at_once {
                match everybody {
                    [one] => drop(self.parties[0].send(self.now, *one, delivery, 0, &[5; 200]).unwrap()),
                    many => self.parties[0].send_group(self.now, many, delivery, 0, &[5; 200], |_, sent| {
                        sent.expect("there is room");
                    }),
                }
            }
            self.settle();
            self.step();
        }
        while self.lose > 0 && delivery == Delivery::Ack && self.received < before + count {
            self.step();
        }
        if self.lose == 0 {
            assert_eq!(self.received, before + count / at_once * at_once * everybody.len());
        }
    }
}

/// Allocations for [`MESSAGES`] once warm.
fn allocations(net: &mut Net, delivery: Delivery, at_once: usize, everybody: &[PeerId]) -> u64 {
    net.pass(delivery, WARM_UP, at_once, everybody);
    measure(|| net.pass(delivery, MESSAGES, at_once, everybody)).count_total
}

#[test]
fn messages_that_arrive_in_order_are_not_allocated_for() {
    for delivery in DELIVERIES {
        for at_once in [1, 40] {
            let cost = allocations(&mut Net::new(1), delivery, at_once, &[id(1)]);
            assert_eq!(cost, 0, "{delivery:?}, {at_once} at once");
        }
    }
}

#[test]
fn messages_to_a_group_are_not_allocated_for() {
    let everybody = [1, 2, 3].map(id);
    for delivery in DELIVERIES {
        let cost = allocations(&mut Net::new(3), delivery, 1, &everybody);
        assert_eq!(cost, 0, "{delivery:?}");
    }
}

#[test]
fn what_leaves_at_once_is_not_allocated_for() {
    let mut net = Net::new(3);
    let pass = |net: &mut Net, count| {
        for _ in 0..count {
            for to in [1, 2, 3].map(id) {
                let body = Outgoing::from(&[5; 200]);
                let sent = net.parties[0].send_at_once(net.now, to, 0, &body, &mut net.frame);
                assert!(sent.expect("there is room").1.is_some(), "nothing waits");
                net.carry(0, to);
            }
            net.step();
        }
    };
    pass(&mut net, 1000);
    assert_eq!(measure(|| pass(&mut net, MESSAGES)).count_total, 0);
    assert_eq!(net.received, 3 * (1000 + MESSAGES));
}

/// What arrives beyond a gap is copied and kept until the gap is filled (ACK), or remembered (NACK); what is missing is
/// listed. Here the gap lasts some twenty frames of eight messages.
#[test]
fn losses_cost_a_few_allocations_each() {
    for delivery in [Delivery::Ack, Delivery::Nack] {
        let mut net = Net::new(1);
        net.pass(delivery, WARM_UP, 8, &[id(1)]);
        net.lose = 20;
        let cost = allocations(&mut net, delivery, 8, &[id(1)]);
        let lost = (MESSAGES / 8) as u64 * 20 / 1000;
        assert!((lost..250 * lost).contains(&cost), "{delivery:?}: {cost} for about {lost} frames lost");
    }
}
