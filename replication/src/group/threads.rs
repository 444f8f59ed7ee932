//! A group on threads, in real time.

use super::World;
use crate::carrier::{Carrier, Net};
use crate::client::{self, Desk, Handle};
use crate::member::{Mail, Member, Thread};
use cl::runtime::RuntimeConfig;
use replication_proto::{Config, ConfigError, MemberId, ReplicaStatus, StateMachine};

/// Every member and every client on a thread of its own, frames handed over in memory, signatures real.
///
/// Members can be stopped and started again with what they remember. With the group all its members stop; its clients then
/// get no more answers.
pub struct Group<S: StateMachine + Send + 'static> {
    world: World,
    net: Net,
    make: Box<dyn Fn() -> S>,
    members: Vec<Option<Thread<S>>>,
    clients: u32,
}

impl<S: StateMachine + Send + 'static> Group<S> {
    /// A group that tolerates `f` Byzantine members, `3f+1` in all, of which each begins with a machine that `make` makes.
    ///
    /// # Errors
    /// If there is no group of that size.
    pub fn in_memory(f: u8, make: impl Fn() -> S + 'static) -> Result<Group<S>, ConfigError> {
        Group::tuned(f, |_| {}, make)
    }

    /// As [`Group::in_memory`], with parameters that `tune` changes.
    ///
    /// # Errors
    /// If the parameters do not fit each other.
    ///
    /// # Panics
    /// If the system has no more threads or descriptors: a test could not go on.
    pub fn tuned(
        f: u8,
        tune: impl FnOnce(&mut Config),
        make: impl Fn() -> S + 'static,
    ) -> Result<Group<S>, ConfigError> {
        let world = World::new(f, tune)?;
        let members = world.config.all().map(|_| None).collect();
        let mut group = Group { net: Net::default(), make: Box::new(make), members, clients: 0, world };
        for id in group.world.config.all() {
            group.restart(id);
        }
        Ok(group)
    }

    /// Its parameters.
    pub fn config(&self) -> &Config {
        &self.world.config
    }

    /// A new client.
    ///
    /// # Panics
    /// With the 65th client, or if the system has no more threads or descriptors.
    pub fn client(&mut self) -> Handle {
        let number = self.clients;
        self.clients += 1;
        let me = World::client_id(number);
        let client = self.world.client(number, cl::Clock::new().now());
        let carrier = Carrier::Memory { me, net: self.net.clone() };
        let service = client::Service { desk: Desk::new(client), carrier };
        let running = cl::runtime::spawn("replication client", RuntimeConfig::new(None), move |_| service)
            .expect("a thread and three descriptors");
        let mailbox = running.mailbox().clone();
        self.net.join(me, move |from, bytes| {
            // A full mailbox loses it, as a network would.
            let _ = mailbox.send(client::Mail::Frame { from, bytes });
        });
        let net = self.net.clone();
        Handle::new(running, Some(Box::new(move || net.leave(me))))
    }

    /// Stops a member at once; what it remembers is kept. Nothing happens if it is down already.
    pub fn crash(&mut self, id: MemberId) {
        self.net.leave(self.world.config.peer(id));
        if let Some(thread) = self.members[usize::from(id.0)].take()
            && let Err(error) = thread.stop()
        {
            tracing::warn!(member = %id, %error, "it had stopped before");
        }
    }

    /// Starts a member with what it remembers, after stopping it if it runs.
    ///
    /// # Panics
    /// If `make`'s machine does not take its own snapshot back, or the system has no more threads or descriptors.
    pub fn restart(&mut self, id: MemberId) {
        self.crash(id);
        let me = self.world.config.peer(id);
        let now = cl::Clock::new().now();
        let replica = self
            .world
            .member(id, (self.make)(), now)
            .unwrap_or_else(|error| panic!("member {id} cannot go on with what it remembers: {error}"));
        let carrier = Carrier::Memory { me, net: self.net.clone() };
        let member = Member::new(replica, Vec::new(), carrier);
        let name = format!("replication member {id}");
        let running = cl::runtime::spawn(&name, RuntimeConfig::new(None), move |_| member)
            .expect("a thread and three descriptors");
        let mailbox = running.mailbox().clone();
        self.net.join(me, move |from, bytes| {
            let _ = mailbox.send(Mail::Frame { from, bytes });
        });
        self.members[usize::from(id.0)] = Some(Thread(running));
    }

    /// What `look` sees of a member's machine as it has executed it; `None` if the member is down.
    pub fn look<R: Send + 'static>(
        &self,
        id: MemberId,
        look: impl FnOnce(&S) -> R + Send + 'static,
    ) -> Option<R> {
        self.members[usize::from(id.0)].as_ref()?.look(move |replica| look(replica.replica().machine()))
    }

    /// Where a member stands; `None` if it is down.
    pub fn status(&self, id: MemberId) -> Option<ReplicaStatus> {
        self.members[usize::from(id.0)].as_ref()?.look(|replica| replica.replica().status())
    }
}

impl<S: StateMachine + Send + 'static> Drop for Group<S> {
    fn drop(&mut self) {
        for id in self.world.config.all() {
            self.crash(id);
        }
    }
}
