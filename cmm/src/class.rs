//! The kinds of management messages, and how urgent each is (dissertation 7.1.3).

use cl::runtime::Priority;

/// What a message is about: the class byte that mml carries in the clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// To a member of the manager group, from the others and from clients.
    Replication = 1,
    /// Between agents: the election of a manager group.
    Bootstrap = 2,
    /// From an agent to a backup manager, or to the agent that bundles for it: it is alive.
    Heartbeat = 3,
    /// From a backup manager to the others: heartbeats it has collected.
    HeartbeatBundle = 4,
    /// From a manager to the hardcore: it is alive.
    ManagerAlive = 5,
    /// Between the agents of one job: MPI's key exchange.
    Pmi = 6,
    /// From an agent to where a job's output goes.
    Output = 7,
    /// To an agent: who are the managers? And the answer: the decision, which proves itself.
    Locate = 8,
    /// To a manager: how do you see the group? And the answer, which is that manager's word alone.
    Status = 9,
    /// From a member of the manager group to a client: replies and notifications.
    GroupReply = 10,
    /// From an agent to the backup managers: heartbeats of its group.
    GroupBundle = 11,
    /// From a manager to who sends it heartbeats: at which port it looks for them as datagrams.
    HeartbeatWay = 12,
}

impl Class {
    /// The class of a message's class byte.
    pub fn of(byte: u8) -> Option<Class> {
        use Class::*;
        [
            Replication,
            Bootstrap,
            Heartbeat,
            HeartbeatBundle,
            ManagerAlive,
            Pmi,
            Output,
            Locate,
            Status,
            GroupReply,
            GroupBundle,
            HeartbeatWay,
        ]
        .into_iter()
        .find(|c| *c as u8 == byte)
    }

    /// How urgent it is: ordering before everything, job output behind everything.
    pub fn priority(self) -> Priority {
        match self {
            Class::Replication | Class::GroupReply | Class::Bootstrap => Priority::High,
            Class::Output => Priority::Low,
            _ => Priority::Normal,
        }
    }
}

/// How urgent a frame is that has just arrived and is not authenticated yet.
///
/// What has no class belongs to a session's handshake. It is as urgent as the most urgent message, or else
/// that message would overtake the handshake that it needs, and be refused.
pub fn priority_of(frame: &[u8]) -> Priority {
    match mml::peek_class(frame) {
        None => Priority::High,
        Some(byte) => Class::of(byte).map_or(Priority::Low, Class::priority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_survives_its_byte() {
        for byte in 0..=255 {
            if let Some(class) = Class::of(byte) {
                assert_eq!(class as u8, byte);
            }
        }
        assert_eq!(Class::of(10), Some(Class::GroupReply));
        assert_eq!(Class::of(13), None);
        assert_eq!(Class::of(0), None);
        assert_eq!(priority_of(b"no session frame"), Priority::High);
    }
}
