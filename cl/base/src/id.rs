use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// Who holds a key: one entry of the roster (an agent, a manager, the hardcore, a user).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Principal(pub u32);

/// One communicating party, independent of transport and address.
///
/// A principal may be present several times at once (a user with three terminals), so the identity of a
/// party is its principal and an instance number that distinguishes these. Daemons use instance 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct PeerId {
    /// The roster entry whose key authenticates this party.
    pub principal: Principal,
    /// Distinguishes parties that share the key.
    pub instance: u32,
}

impl PeerId {
    /// The party `instance` of `principal`.
    pub const fn new(principal: u32, instance: u32) -> PeerId {
        PeerId { principal: Principal(principal), instance }
    }

    /// The identity as one number, principal in the upper half, as it travels in headers.
    pub const fn to_u64(self) -> u64 {
        (self.principal.0 as u64) << 32 | self.instance as u64
    }

    /// The inverse of [`PeerId::to_u64`].
    pub const fn from_u64(v: u64) -> PeerId {
        PeerId::new((v >> 32) as u32, v as u32)
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.instance {
            0 => write!(f, "{:#x}", self.principal.0),
            i => write!(f, "{:#x}/{i}", self.principal.0),
        }
    }
}

/// Which life of a process this is: larger than every earlier one of the same [`PeerId`].
///
/// Daemons take the wall clock in nanoseconds at start. A peer seen with a larger incarnation has
/// restarted and has forgotten its sessions; frames of a smaller one are refused.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct Incarnation(pub u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_id_survives_the_header() {
        let id = PeerId::new(0x0100_0007, 3);
        assert_eq!(PeerId::from_u64(id.to_u64()), id);
    }
}
