//! Who is who: the numbering of a cluster's principals, so that a role can be read off an identity.

use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{PeerId, Principal};
use serde::{Deserialize, Serialize};
use std::fmt;

/// A cluster node; counted from 1, as in the dissertation (6.2).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
#[serde(transparent)]
pub struct NodeId(pub u32);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node{}", self.0)
    }
}

/// What a principal is allowed to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// The agent of a node.
    Agent(NodeId),
    /// The manager replica on a node.
    Manager(NodeId),
    /// The trusted hardcore.
    Hardcore,
    /// A user, by number in the roster.
    User(u32),
}

const ROLE_SHIFT: u32 = 24;
const NUMBER_MASK: u32 = (1 << ROLE_SHIFT) - 1;
const AGENT: u32 = 1;
const MANAGER: u32 = 2;
const HARDCORE: u32 = 3;
const USER: u32 = 4;

impl Role {
    /// The role that a roster entry's number stands for, if it stands for any.
    pub fn of(principal: Principal) -> Option<Role> {
        let number = principal.0 & NUMBER_MASK;
        match principal.0 >> ROLE_SHIFT {
            AGENT => Some(Role::Agent(NodeId(number))),
            MANAGER => Some(Role::Manager(NodeId(number))),
            HARDCORE if number == 0 => Some(Role::Hardcore),
            USER => Some(Role::User(number)),
            _ => None,
        }
    }

    /// The roster number of this role.
    pub const fn principal(self) -> Principal {
        Principal(match self {
            Role::Agent(n) => AGENT << ROLE_SHIFT | n.0,
            Role::Manager(n) => MANAGER << ROLE_SHIFT | n.0,
            Role::Hardcore => HARDCORE << ROLE_SHIFT,
            Role::User(u) => USER << ROLE_SHIFT | u,
        })
    }

    /// The role of the user of this number, if there can be one: numbers are below 2^24.
    pub fn of_user(number: u32) -> Option<Role> {
        (number <= NUMBER_MASK).then_some(Role::User(number))
    }

    /// The identity of the one daemon that has this role. (Users have many: see [`PeerId::instance`].)
    pub const fn peer(self) -> PeerId {
        PeerId { principal: self.principal(), instance: 0 }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Agent(n) => write!(f, "agent of {n}"),
            Role::Manager(n) => write!(f, "manager on {n}"),
            Role::Hardcore => f.write_str("hardcore"),
            Role::User(u) => write!(f, "user {u}"),
        }
    }
}

/// The node that a manager's identity is on, or `None` if `peer` is no manager.
pub fn manager_node(peer: PeerId) -> Option<NodeId> {
    match Role::of(peer.principal) {
        Some(Role::Manager(n)) => Some(n),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_survives_its_number() {
        for role in [Role::Agent(NodeId(7)), Role::Manager(NodeId(1)), Role::Hardcore, Role::User(3)] {
            assert_eq!(Role::of(role.principal()), Some(role));
        }
        assert_eq!(Role::of_user(0xff_ffff), Role::of(Principal(0x04ff_ffff)));
        assert_eq!(Role::of_user(0x100_0000), None);
        assert_eq!(Role::of(Principal(0)), None);
        assert_eq!(Role::of(Principal(0x0300_0001)), None);
    }
}
