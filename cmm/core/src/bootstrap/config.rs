use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::PeerId;
use std::time::Duration;

/// Agents a cluster may have: N² messages an election are too many beyond.
const AGENTS_MAX: usize = 1024;

/// Which agents run a manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Configuration {
    /// Which election this is the result of, from 1 upwards. The highest decided instance counts.
    pub instance: u64,
    /// The 3f+1 members, in the order of [`Config::agents`].
    pub members: Vec<PeerId>,
}

/// What all agents of a cluster must have in common, and how patient they are.
#[derive(Clone, Debug)]
pub struct Config {
    cluster: [u8; 32],
    agents: Vec<PeerId>,
    f: usize,
    /// How long to wait, once enough agents were heard, for the others before a leader chooses members.
    pub settle: Duration,
    /// How long a view may take before it is left; doubled with every view left.
    pub view_timeout: Duration,
    /// The longest `view_timeout` by doubling.
    pub view_timeout_max: Duration,
    /// When to repeat what was not answered; doubled with every repetition, with a quarter of jitter.
    pub resend: Duration,
    /// The longest `resend` by doubling.
    pub resend_max: Duration,
}

/// Why there can be no election with this configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Fewer than 3f+1 agents: there are not enough members.
    #[error("{agents} agents cannot tolerate {f} faulty ones: 3f+1 are needed")]
    TooFewAgents {
        /// Agents given.
        agents: usize,
        /// Faults to tolerate.
        f: usize,
    },
    /// More agents than an election can have.
    #[error("{0} agents are more than {AGENTS_MAX}")]
    TooManyAgents(usize),
    /// An agent is named twice.
    #[error("agent {0} is named twice")]
    Duplicate(PeerId),
    /// The agent that is to take part is not among the agents.
    #[error("{0} is not one of the agents")]
    NotAnAgent(PeerId),
}

impl Config {
    /// An election among `agents`, in this order, at most `f` of which are faulty.
    ///
    /// `cluster` identifies the cluster in everything signed, so that nothing signed in another cluster, or
    /// before this one was set up anew with empty disks, counts here.
    ///
    /// # Errors
    /// If there are too few or too many agents, or one is named twice.
    pub fn new(cluster: [u8; 32], agents: Vec<PeerId>, f: usize) -> Result<Config, ConfigError> {
        let n = agents.len();
        if n > AGENTS_MAX {
            return Err(ConfigError::TooManyAgents(n));
        }
        if n == 0 || f > (n - 1) / 3 {
            return Err(ConfigError::TooFewAgents { agents: n, f });
        }
        let mut sorted = agents.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Duplicate(pair[0]));
        }
        Ok(Config {
            cluster,
            agents,
            f,
            settle: Duration::from_millis(300),
            view_timeout: Duration::from_millis(500),
            view_timeout_max: Duration::from_secs(60),
            resend: Duration::from_millis(100),
            resend_max: Duration::from_secs(2),
        })
    }

    /// The identity of the cluster.
    pub fn cluster(&self) -> &[u8; 32] {
        &self.cluster
    }

    /// All agents, lowest first: the lowest capable ones become members.
    pub fn agents(&self) -> &[PeerId] {
        &self.agents
    }

    /// How many agents may be faulty.
    pub fn f(&self) -> usize {
        self.f
    }

    /// Q = ⌈(N+f+1)/2⌉: any two sets of so many agents share a correct one.
    pub fn quorum(&self) -> usize {
        (self.agents.len() + self.f + 1).div_ceil(2)
    }

    /// How many members a configuration has: 3f+1.
    pub fn members(&self) -> usize {
        3 * self.f + 1
    }

    /// The leader of `view`: its position among the agents.
    pub(super) fn leader(&self, view: u64) -> usize {
        (view % self.agents.len() as u64) as usize
    }

    /// The position of `agent` among the agents.
    pub(super) fn position(&self, agent: PeerId) -> Option<usize> {
        self.agents.iter().position(|&a| a == agent)
    }

    /// The longest message of an agent that follows the rules, in bytes: a proposal has an ALIVE, a
    /// NO-SERVICE, a PREPARE and a VIEW-CHANGE of everybody, and a configuration in the last.
    pub(super) fn message_max(&self) -> usize {
        let configuration = 64 + 8 * self.members();
        1024 + configuration + self.agents.len() * (4 * 96 + configuration)
    }

    /// Whether `configuration` has the form of a configuration here.
    pub(super) fn is_well_formed(&self, configuration: &Configuration) -> bool {
        let mut agents = self.agents.iter();
        configuration.instance > 0
            && configuration.members.len() == self.members()
            && configuration.members.iter().all(|m| agents.any(|a| a == m))
    }

    /// The members that follow from `alive`: the position of each agent heard, and whether it is capable.
    ///
    /// The lowest 3f+1 capable ones, once Q agents were heard and min(3f+1, N−f) of them are capable; so
    /// many correct agents must be up for the election to end. With fewer than 4f+1 agents there need not
    /// be 3f+1 correct ones, so the rest (at most f members, as many as may be faulty in the group as well)
    /// are the lowest not heard, then the lowest not capable.
    pub(super) fn choose(&self, alive: &[(usize, bool)]) -> Option<Vec<PeerId>> {
        let n = self.agents.len();
        let capable = alive.iter().filter(|(_, capable)| *capable).count();
        if alive.len() < self.quorum() || capable < self.members().min(n - self.f) {
            return None;
        }
        let mut rank = vec![1u8; n];
        for &(position, capable) in alive {
            rank[position] = if capable { 0 } else { 2 };
        }
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| (rank[i], i));
        order.truncate(self.members());
        order.sort_unstable();
        Some(order.into_iter().map(|i| self.agents[i]).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(n: u32, f: usize) -> Config {
        Config::new([0; 32], (0..n).map(|i| PeerId::new(10 + i, 0)).collect(), f).unwrap()
    }

    fn ids(ids: &[u32]) -> Option<Vec<PeerId>> {
        Some(ids.iter().map(|&i| PeerId::new(10 + i, 0)).collect())
    }

    #[test]
    fn two_quorums_share_a_correct_agent() {
        for n in 1..200 {
            for f in 0..=(n - 1) / 3 {
                let c = config(n as u32, f);
                assert!(2 * c.quorum() > n + f && c.quorum() <= n - f);
            }
        }
        assert_eq!(config(6, 1).quorum(), 4);
    }

    #[test]
    fn the_lowest_capable_agents_become_members() {
        let c = config(7, 1);
        let heard = |up: &[usize]| up.iter().map(|&i| (i, i != 2)).collect::<Vec<_>>();
        assert_eq!(c.choose(&heard(&[0, 1, 2, 3])), None);
        assert_eq!(c.choose(&heard(&[6, 5, 4, 2, 1])), ids(&[1, 4, 5, 6]));
        assert_eq!(c.choose(&heard(&[0, 1, 2, 3, 4, 5, 6])), ids(&[0, 1, 3, 4]));
    }

    #[test]
    fn four_agents_are_all_members_even_if_one_is_silent_or_unable() {
        let c = config(4, 1);
        assert_eq!(c.choose(&[(0, true), (2, true), (3, true)]), ids(&[0, 1, 2, 3]));
        assert_eq!(c.choose(&[(0, true), (1, false), (2, true), (3, true)]), ids(&[0, 1, 2, 3]));
        assert_eq!(c.choose(&[(0, true), (1, false), (2, true)]), None);
    }

    #[test]
    fn from_five_agents_on_nobody_becomes_a_member_unheard() {
        assert_eq!(config(5, 1).choose(&[(0, true), (2, true), (3, true), (4, false)]), None);
        assert_eq!(config(5, 1).choose(&[(0, true), (2, true), (3, true), (4, true)]), ids(&[0, 2, 3, 4]));
    }

    #[test]
    fn impossible_configurations_are_refused() {
        let new = |ids: &[u32], f| Config::new([0; 32], ids.iter().map(|&i| PeerId::new(i, 0)).collect(), f);
        assert_eq!(new(&[1, 2, 3], 1).unwrap_err(), ConfigError::TooFewAgents { agents: 3, f: 1 });
        assert_eq!(new(&[], 0).unwrap_err(), ConfigError::TooFewAgents { agents: 0, f: 0 });
        assert_eq!(new(&[1, 2, 1, 4], 1).unwrap_err(), ConfigError::Duplicate(PeerId::new(1, 0)));
    }

    #[test]
    fn members_must_be_agents_in_order() {
        let c = config(5, 1);
        let formed = |m: &[u32]| c.is_well_formed(&Configuration { instance: 1, members: ids(m).unwrap() });
        assert!(formed(&[0, 1, 3, 4]));
        assert!(!formed(&[0, 1, 3]));
        assert!(!formed(&[1, 0, 3, 4]));
        assert!(!formed(&[0, 0, 3, 4]));
        assert!(!formed(&[0, 1, 3, 9]));
    }
}
