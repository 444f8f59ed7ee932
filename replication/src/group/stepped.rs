//! A group in one thread and virtual time: the same calls give the same run.

use super::World;
use crate::client::{Desk, Kind, Outcome, Promise, Question};
use crate::durable::Durable;
use cl_base::{PeerId, Time};
use replication_proto::{Config, ConfigError, MemberId, StateMachine};
use std::collections::VecDeque;
use std::time::Duration;

/// Where virtual time begins: not at zero, so that a machine cannot mistake it for "never".
const BEGIN: Time = Time::from_nanos(1_000_000_000_000_000_000);

/// How long an operation may take, in virtual time: more than the protocol's longest time-outs together.
const DEADLINE: Duration = Duration::from_secs(600);

/// A group whose members take turns: each frame arrives at once and in order, and time passes when nothing is left to do.
/// For tests that step through a service's behaviour, its timers above all.
pub struct Stepped<S> {
    world: World,
    make: Box<dyn Fn() -> S>,
    now: Time,
    members: Vec<Option<Durable<S>>>,
    desk: Desk,
    client: PeerId,
    /// Frames under way: from, to, contents.
    frames: VecDeque<(PeerId, PeerId, Vec<u8>)>,
}

impl<S: StateMachine> Stepped<S> {
    /// A group that tolerates `f` Byzantine members, each beginning with a machine that `make` makes, and one client.
    ///
    /// # Errors
    /// If there is no group of that size.
    pub fn in_memory(f: u8, make: impl Fn() -> S + 'static) -> Result<Stepped<S>, ConfigError> {
        Stepped::tuned(f, |_| {}, make)
    }

    /// As [`Stepped::in_memory`], with parameters that `tune` changes.
    ///
    /// # Errors
    /// If the parameters do not fit each other.
    pub fn tuned(
        f: u8,
        tune: impl FnOnce(&mut Config),
        make: impl Fn() -> S + 'static,
    ) -> Result<Stepped<S>, ConfigError> {
        let world = World::new(f, tune)?;
        let desk = Desk::new(world.client(0, BEGIN));
        let members = world.config.all().map(|_| None).collect();
        let client = World::client_id(0);
        let mut group = Stepped {
            make: Box::new(make),
            now: BEGIN,
            members,
            desk,
            client,
            frames: VecDeque::new(),
            world,
        };
        for id in group.world.config.all() {
            group.restart(id);
        }
        Ok(group)
    }

    /// The present virtual time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Has the group execute an operation, and steps until there is a result.
    ///
    /// # Errors
    /// As [`Pending::wait`](crate::Pending::wait), after minutes of virtual time.
    pub fn submit(&mut self, op: impl Into<Vec<u8>>) -> Outcome {
        self.ask(Kind::Submit, op.into())
    }

    /// Asks for the result of an operation that changes nothing, and steps until it is there.
    ///
    /// # Errors
    /// As [`Stepped::submit`].
    pub fn read(&mut self, op: impl Into<Vec<u8>>) -> Outcome {
        self.ask(Kind::Read, op.into())
    }

    /// Lets so much virtual time pass.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        while self.step(until) {}
        self.now = until;
    }

    /// Stops a member; what it remembers is kept.
    pub fn crash(&mut self, id: MemberId) {
        self.members[usize::from(id.0)] = None;
    }

    /// Starts a member with what it remembers.
    ///
    /// # Panics
    /// If `make`'s machine does not take its own snapshot back.
    pub fn restart(&mut self, id: MemberId) {
        let replica = self
            .world
            .member(id, (self.make)(), self.now)
            .unwrap_or_else(|error| panic!("member {id} cannot go on with what it remembers: {error}"));
        self.members[usize::from(id.0)] = Some(replica);
        self.carry();
    }

    /// A member's machine as it has executed it; `None` if the member is down.
    pub fn machine(&self, id: MemberId) -> Option<&S> {
        self.members[usize::from(id.0)].as_ref().map(|member| member.replica().machine())
    }

    fn ask(&mut self, kind: Kind, op: Vec<u8>) -> Outcome {
        let (promise, pending) = Promise::new();
        self.desk.ask(self.now, Question { kind, op, within: DEADLINE, promise });
        loop {
            self.carry();
            if let Some(outcome) = pending.take() {
                return outcome;
            }
            assert!(self.step(Time::MAX), "an operation has a deadline");
        }
    }

    /// Delivers a frame, or lets time pass until somebody has something to do, though not beyond `until`. False if
    /// nothing is left to do until then.
    fn step(&mut self, until: Time) -> bool {
        self.carry();
        if let Some((from, to, bytes)) = self.frames.pop_front() {
            if to == self.client {
                self.desk.on_message(self.now, from, &bytes);
            } else if let Some(id) = self.world.config.member(to)
                && let Some(member) = &mut self.members[usize::from(id.0)]
            {
                member.on_message(self.now, from, &bytes);
            }
            return true;
        }
        let timers = self.members.iter().flatten().filter_map(Durable::next_timeout);
        let Some(next) = timers.chain(self.desk.next_timeout()).min().filter(|at| *at <= until) else {
            return false;
        };
        self.now = self.now.max(next);
        for member in self.members.iter_mut().flatten() {
            if member.next_timeout().is_some_and(|at| at <= self.now) {
                member.on_timeout(self.now);
            }
        }
        if self.desk.next_timeout().is_some_and(|at| at <= self.now) {
            self.desk.on_timeout(self.now);
        }
        true
    }

    /// Takes the frames that members and client want sent.
    fn carry(&mut self) {
        for (member, from) in self.members.iter_mut().zip(&self.world.config.members) {
            if let Some(member) = member {
                let drained = member.drain().expect("memory does not fail");
                self.frames.extend(drained.sends.into_iter().map(|(to, bytes)| (*from, to, bytes)));
            }
        }
        while let Some((to, bytes)) = self.desk.poll_send() {
            self.frames.push_back((self.client, to, bytes));
        }
    }
}
