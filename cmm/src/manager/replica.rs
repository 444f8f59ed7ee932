//! The replica itself, with what a manager adds to it.

use super::ManagerOptions;
use super::corrupt::Corruption;
use crate::class::Class;
use crate::config::Config;
use crate::keys::{GroupKeys, Keyring};
use crate::layout::Layout;
use crate::link::{Link, group_config, party_of};
use cl::runtime::Core;
use cl_base::{Incarnation, PeerId, Time};
use cmm_core::bootstrap::Decision;
use cmm_core::identity::{NodeId, Role, manager_node};
use cmm_core::replicated::ReplicatedManager;
use replication::durable::{Drained, Durable};
use replication_proto::{Event, MemberId, ReplicaStatus};

/// A replica of the manager on its disk.
pub(super) struct Replicated {
    replica: Durable<ReplicatedManager>,
    members: Vec<PeerId>,
    me: PeerId,
    nodes: Vec<NodeId>,
    corruption: Corruption,
}

impl Replicated {
    /// Starts a replica, with what it remembers.
    ///
    /// # Errors
    /// If its storage is missing or damaged: a replica without its memory must not vote.
    pub(super) fn open(
        layout: &Layout,
        config: &Config,
        keyring: &Keyring,
        decision: &Decision,
        options: &ManagerOptions,
        now: Time,
    ) -> Result<Replicated, String> {
        let group = group_config(decision, config.request_timeout());
        let me = Role::Manager(options.node).peer();
        let member = group.member(me).ok_or_else(|| {
            format!("{} is not a member of manager group {}", options.node, decision.instance())
        })?;
        let path = layout.replica_storage(options.node, decision.instance());
        let members = group.members.clone();
        let keys = Box::new(GroupKeys(keyring.clone()));
        let machine = ReplicatedManager::new(config.manager());
        let replica = Durable::open(&path, config.sync, group, member, keys, machine, now)
            .map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Replicated {
            replica,
            members,
            me,
            nodes: config.node_ids(),
            corruption: Corruption::from_env(options.node)?,
        })
    }

    pub(super) fn on_message(&mut self, now: Time, from: PeerId, bytes: &[u8]) {
        self.replica.on_message(now, from, bytes);
    }

    pub(super) fn on_timeout(&mut self, now: Time) {
        self.replica.on_timeout(now);
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.replica.next_timeout()
    }

    pub(super) fn status(&self) -> ReplicaStatus {
        self.replica.replica().status()
    }

    /// Whether this replica is one of those that execute and answer in its view.
    pub(super) fn is_active(&self) -> bool {
        self.status().role != replication_proto::Role::Spare
    }

    /// The node of a member.
    pub(super) fn node_of(&self, member: MemberId) -> NodeId {
        manager_node(self.members[usize::from(member.0)]).expect("members are managers")
    }

    /// The nodes that heartbeats are expected from, as far as this replica has executed.
    pub(super) fn nodes_up(&self) -> impl Iterator<Item = (NodeId, Incarnation)> + '_ {
        let manager = self.replica.replica().machine().manager();
        self.nodes.iter().filter_map(|n| manager.incarnation_up(*n).map(|i| (*n, i)))
    }

    /// Whether `node` bundles heartbeats, as far as this replica has executed.
    pub(super) fn may_bundle(&self, node: NodeId) -> bool {
        self.replica.replica().machine().manager().may_bundle(node)
    }

    /// Carries out what the replica wants: storage first, then messages. Gives its events.
    ///
    /// # Errors
    /// If the storage fails, with nothing said that relied on it.
    pub(super) fn drain<M: Send + 'static>(
        &mut self,
        cx: &mut Core<M>,
        link: &mut Link,
    ) -> Result<Vec<Event>, String> {
        let Drained { sends, events } = self.replica.drain().map_err(|e| e.to_string())?;
        for (to, bytes) in sends {
            self.send(cx, link, to, bytes);
        }
        Ok(events)
    }

    fn send<M: Send + 'static>(&mut self, cx: &mut Core<M>, link: &mut Link, to: PeerId, mut bytes: Vec<u8>) {
        if self.members.contains(&to) {
            link.send(cx, to, Class::Replication, &bytes);
            return;
        }
        self.corruption.apply(&mut bytes);
        match party_of(to) {
            me if me == self.me => link.from_own_replica(cx, &bytes),
            party => link.send(cx, party, Class::GroupReply, &bytes),
        }
    }
}
