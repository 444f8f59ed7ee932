use super::wire::{Certificate, Statement};
use super::{Config, Configuration, Keys};
use borsh::{BorshDeserialize, BorshSerialize};

/// The result of an election, with the signatures that prove it to anybody who has the agents' keys.
///
/// Encode it with [`cl_base::codec`] to hand it on. Of several decisions the one with the highest instance
/// counts; two of one instance never differ while at most f agents are faulty.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Decision {
    /// What was decided.
    pub configuration: Configuration,
    /// The view in which it was.
    pub view: u64,
    /// The COMMITs of Q agents.
    pub commits: Certificate,
}

/// Why a [`Decision`] proves nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDecision {
    /// The members are not 3f+1 different agents in their order.
    #[error("not a configuration of this cluster")]
    Configuration,
    /// The COMMITs are too few, of one agent twice, or not properly signed.
    #[error("no quorum of signed COMMITs")]
    Commits,
}

impl Decision {
    /// The instance decided.
    pub fn instance(&self) -> u64 {
        self.configuration.instance
    }

    /// Checks that the agents of `config` decided this. Of `keys` only `verify_recorded` is used.
    ///
    /// # Errors
    /// If the configuration is not one of this cluster or the signatures do not carry it.
    pub fn verify(&self, keys: &dyn Keys, config: &Config) -> Result<(), InvalidDecision> {
        if !config.is_well_formed(&self.configuration) {
            return Err(InvalidDecision::Configuration);
        }
        let commit = Statement::Commit { view: self.view, configuration: self.configuration.clone() };
        if !self.commits.proves(&commit, keys, config) {
            return Err(InvalidDecision::Commits);
        }
        Ok(())
    }
}
