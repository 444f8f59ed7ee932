//! Messages that wait for company: under load they share frames, none waits longer than it may, and one alone does not wait.

mod world;

use cl_base::{Incarnation, PeerId, Rng, Time};
use mml_proto::{Config, Delivery, Mml};
use std::collections::VecDeque;
use std::time::Duration;
use world::{address, id, pair};

const US: Duration = Duration::from_micros(1);
/// What a frame takes to the other side.
const DELAY: Duration = Duration::from_micros(5);

/// Two parties that send as daemons do: a message's frame at once, unless it may wait.
struct Talk {
    now: Time,
    parties: [Mml; 2],
    /// When it arrives, at whom.
    under_way: VecDeque<(Time, usize, Vec<u8>)>,
    /// When each message was sent, by its number, and how long after that it left.
    waits: Vec<Duration>,
    sent_at: Vec<Time>,
    frames: usize,
    delivered: usize,
}

impl Talk {
    fn new() -> Talk {
        let life = |n| Mml::new(Config::default(), id(n), Incarnation(1), Box::new(pair), [n as u8 + 1; 32]);
        let mut talk = Talk {
            now: Time::from_nanos(1 << 40),
            parties: [life(0), life(1)],
            under_way: VecDeque::new(),
            waits: Vec::new(),
            sent_at: Vec::new(),
            frames: 0,
            delivered: 0,
        };
        talk.parties[0].connect(talk.now, id(1)).expect("a key is known");
        talk.leave(0);
        talk.until(talk.now + Duration::from_millis(10));
        assert!(talk.parties.iter().zip([1, 0]).all(|(party, other)| party.is_up(id(other))));
        (talk.frames, talk.delivered) = (0, 0);
        talk
    }

    /// What a party has ready leaves.
    fn leave(&mut self, party: usize) {
        let mut frame = Vec::new();
        while self.parties[party].poll_transmit(self.now, &mut frame).is_some() {
            self.frames += usize::from(party == 0);
            self.under_way.push_back((self.now + DELAY, 1 - party, frame.clone()));
        }
        while self.parties[party].poll_event().is_some() {}
        if party == 0 {
            let sent_at = std::mem::take(&mut self.sent_at);
            self.waits.extend(sent_at.into_iter().map(|at| self.now.saturating_since(at)));
        }
    }

    /// Lets everything happen that is due before `end`.
    fn until(&mut self, end: Time) {
        loop {
            let arrival = self.under_way.front().map(|(at, ..)| *at);
            let timers = self.parties.iter().filter_map(Mml::next_timeout);
            let Some(next) = timers.chain(arrival).min().filter(|next| *next < end) else { break };
            self.now = self.now.max(next);
            let due = self.under_way.front().is_some_and(|(at, ..)| *at <= self.now);
            if due {
                let (_, to, mut frame) = self.under_way.pop_front().expect("looked at");
                let (delivered, from): (_, PeerId) = (&mut self.delivered, id(1 - to));
                self.parties[to]
                    .handle_each(self.now, from, address(from), &mut frame, &mut |_| *delivered += 1);
                self.leave(to);
            }
            for party in [0, 1] {
                if self.parties[party].next_timeout().is_some_and(|at| at <= self.now) {
                    self.parties[party].handle_timeout(self.now);
                    self.leave(party);
                }
            }
        }
        self.now = end;
    }

    fn send(&mut self, delivery: Delivery) {
        let may_wait = self.parties[0].may_wait(self.now, id(1), 64);
        self.parties[0].send(self.now, id(1), delivery, 0, &[7; 64]).expect("there is room");
        self.sent_at.push(self.now);
        if !may_wait {
            self.leave(0);
        }
    }

    /// Sends `count` messages, each `gap` after the one before it.
    fn stream(&mut self, delivery: Delivery, count: usize, mut gap: impl FnMut() -> Duration) {
        for _ in 0..count {
            self.send(delivery);
            self.until(self.now + gap());
        }
        self.until(self.now + Duration::from_secs(1));
        assert_eq!((self.delivered, self.waits.len()), (count, count));
    }

    fn longest_wait(&self) -> Duration {
        self.waits.iter().copied().max().expect("something was sent")
    }
}

#[test]
fn a_stream_shares_frames_and_nothing_waits_too_long() {
    let company_wait = Config::default().company_wait;
    for delivery in [Delivery::Unr, Delivery::Ack, Delivery::Nack] {
        let mut talk = Talk::new();
        talk.stream(delivery, 2000, || US);
        assert!(talk.frames < 400, "{delivery:?}: {} frames", talk.frames);
        assert!(talk.longest_wait() <= company_wait, "{delivery:?}: {:?}", talk.longest_wait());
        assert!(talk.waits[..8].iter().all(|wait| wait.is_zero()), "a short burst waits for nothing");
    }
}

#[test]
fn messages_now_and_then_wait_for_nothing() {
    let gap = Config::default().company_wait;
    let mut talk = Talk::new();
    talk.stream(Delivery::Unr, 500, || gap);
    assert_eq!((talk.frames, talk.longest_wait()), (500, Duration::ZERO));
}

#[test]
fn load_that_comes_and_goes_is_followed() {
    for seed in 0..50 {
        let (mut talk, mut rng) = (Talk::new(), Rng::new(seed));
        talk.stream(Delivery::Ack, 1000, || US * if rng.chance(1, 50) { 500 } else { rng.below(6) as u32 });
        assert!(talk.longest_wait() <= Config::default().company_wait, "seed {seed}");
        assert!(talk.frames < 900, "seed {seed}: {} frames", talk.frames);
    }
}

#[test]
fn frames_that_are_full_do_not_wait() {
    let mut talk = Talk::new();
    talk.stream(Delivery::Unr, 2000, || Duration::ZERO);
    let (per_frame, all) = (Config::default().frame_bytes / 64, 2000);
    assert!((all / per_frame..all / per_frame * 5 / 4 + 8).contains(&talk.frames), "{} frames", talk.frames);
}
