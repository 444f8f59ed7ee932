//! What agents sign and what they send each other.
//!
//! All of it travels as [`cl_base::codec`] bytes. Agents are named by their position in
//! [`Config::agents`], in certificates in ascending order.

use super::{Config, Configuration, Decision, Keys, Signature, Standing};
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::{Incarnation, PeerId, codec};

/// Precedes everything signed here: a signature made for another purpose never counts.
const DOMAIN: &[u8] = b"ghidrah bootstrap 1\0";

/// What an agent says under its signature. The kinds cannot be taken for each other.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Statement {
    /// "I take part in this instance."
    Alive(Alive),
    /// "The leader of this view proposed this, and it follows from what it showed." One of a leader is the
    /// proposal.
    Prepare {
        /// The view.
        view: u64,
        /// The configuration supported.
        configuration: Configuration,
    },
    /// "I hold PREPAREs of Q agents for this."
    Commit {
        /// The view of the PREPAREs.
        view: u64,
        /// The configuration accepted.
        configuration: Configuration,
    },
    /// "I left all lower views and ask for this one."
    ViewChange(ViewChange),
    /// "This instance is decided and its group does not answer me."
    NoService {
        /// The instance.
        instance: u64,
    },
    /// "I know this decided instance and had not said NO-SERVICE to it when I heard that life of `agent`",
    /// which lost its memory and asks whether it may have voted in the next instance.
    Vouch {
        /// The decided instance.
        instance: u64,
        /// Who asked.
        agent: PeerId,
        /// Which life of it.
        boot: Incarnation,
    },
}

/// What an ALIVE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Alive {
    /// The instance in which the sender takes part.
    pub instance: u64,
    /// The boot identifier of the sender. A higher one replaces a lower one.
    pub boot: Incarnation,
    /// The sender can run a manager.
    pub capable: bool,
    /// The sender votes and leads; false for one without its memory.
    pub votes: bool,
}

/// The highest view in which an agent held a certificate, and the configuration it was for; if any.
pub type Claim = Option<(u64, Configuration)>;

/// What a VIEW-CHANGE says.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ViewChange {
    /// The instance.
    pub instance: u64,
    /// The view asked for.
    pub view: u64,
    /// What the sender held a certificate for.
    pub prepared: Claim,
}

impl Statement {
    /// The instance it is about.
    pub fn instance(&self) -> u64 {
        match self {
            Statement::Alive(alive) => alive.instance,
            Statement::ViewChange(change) => change.instance,
            Statement::Prepare { configuration, .. } | Statement::Commit { configuration, .. } => {
                configuration.instance
            }
            Statement::NoService { instance } | Statement::Vouch { instance, .. } => *instance,
        }
    }

    /// The bytes that are signed in the cluster of `config`.
    pub fn to_sign(&self, config: &Config) -> Vec<u8> {
        [DOMAIN, config.cluster(), &codec::encode(self)].concat()
    }

    /// Whether `signature` is that of the agent at `position`.
    pub(super) fn is_signed(
        &self,
        position: usize,
        signature: &Signature,
        keys: &dyn Keys,
        config: &Config,
    ) -> bool {
        config
            .agents()
            .get(position)
            .is_some_and(|&agent| keys.verify(agent, &self.to_sign(config), signature))
    }
}

/// Signatures of one statement by different agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certificate(
    /// Position and signature of each agent, positions ascending.
    pub Vec<(u16, Signature)>,
);

impl Certificate {
    /// Whether Q agents signed `statement`, and every signature is right. Of those whose keys are revoked f count: so
    /// many faulty agents are what a quorum is made for. Without them the proof of a group would be gone with one key.
    pub fn proves(&self, statement: &Statement, keys: &dyn Keys, config: &Config) -> bool {
        let bytes = statement.to_sign(config);
        let agents = config.agents();
        if !is_quorum(self.0.iter().map(|s| s.0), config) {
            return false;
        }
        let standing = |(i, s): &(u16, Signature)| keys.verify_recorded(agents[usize::from(*i)], &bytes, s);
        let Some(signers) = self.0.iter().map(standing).collect::<Option<Vec<_>>>() else { return false };
        let revoked = signers.iter().filter(|standing| **standing == Standing::Revoked).count();
        signers.len() - revoked + revoked.min(config.f()) >= config.quorum()
    }
}

/// Whether `positions` are those of at least Q different agents, in ascending order.
pub(super) fn is_quorum(positions: impl Iterator<Item = u16> + Clone, config: &Config) -> bool {
    positions.clone().is_sorted_by(|a, b| a < b)
        && positions.clone().all(|i| usize::from(i) < config.agents().len())
        && positions.count() >= config.quorum()
}

/// PREPAREs of Q agents: nothing else can be decided in this view.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Prepared {
    /// The view.
    pub view: u64,
    /// The configuration.
    pub configuration: Configuration,
    /// The PREPAREs.
    pub prepares: Certificate,
}

impl Prepared {
    pub(super) fn is_valid(&self, keys: &dyn Keys, config: &Config) -> bool {
        let prepare = Statement::Prepare { view: self.view, configuration: self.configuration.clone() };
        config.is_well_formed(&self.configuration) && self.prepares.proves(&prepare, keys, config)
    }
}

/// What an agent sends to another.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// A statement of the sender. VIEW-CHANGEs and the PREPAREs of leaders go by the next two.
    Says(Statement, Signature),
    /// The sender asks for a view and shows the certificate it speaks of.
    ViewChange(ViewChange, Signature, Option<Prepared>),
    /// The sender leads a view and proposes. In all views but the first this is the NEW-VIEW.
    Propose(Box<Proposal>),
    /// Q NO-SERVICEs: the next instance is open.
    NoService {
        /// The instance without service.
        instance: u64,
        /// The NO-SERVICEs.
        signatures: Certificate,
    },
    /// The highest decision that the sender knows. Answered by `Knows` or a higher one.
    Decision(Decision),
    /// The sender knows the decision of this instance, and none higher. Asks for no answer.
    Knows {
        /// The instance.
        instance: u64,
    },
}

/// A proposal and what justifies it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// The view.
    pub view: u64,
    /// The configuration proposed.
    pub configuration: Configuration,
    /// The leader's signature of the PREPARE for it.
    pub signature: Signature,
    /// The VIEW-CHANGEs of Q agents for this view, by position; none in view 0.
    pub view_changes: Vec<(u16, Claim, Signature)>,
    /// Why this configuration.
    pub grounds: Grounds,
}

/// What a proposed configuration follows from.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Grounds {
    /// The certificate of the highest view in the VIEW-CHANGEs.
    Prepared(Prepared),
    /// There is no certificate: the ALIVEs of at least Q agents, by position, from which the members follow.
    Chosen {
        /// The ALIVEs.
        alive: Vec<(u16, Alive, Signature)>,
        /// The NO-SERVICEs to the instance before; none in the first.
        no_service: Certificate,
    },
}
