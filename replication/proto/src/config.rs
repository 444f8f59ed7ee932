//! What the members of a group must agree on before they start, and what each may tune.

use crate::certificate::{Certificate, VoteClaim};
use crate::epoch::Beginning;
use crate::message::{MESSAGE_BYTES_MAX, Proof, REQUEST_FIELDS_BYTES};
use crate::mutation::Mutation;
use crate::ring;
use borsh::{BorshDeserialize, BorshSerialize};
use cl_base::PeerId;
use std::fmt;
use std::time::Duration;

/// Number of a view; view `v` is led by the member `v mod n` (PROTOCOL.md 2.1).
pub type View = u64;

/// Replica sequence number: the position of a batch in the order, from 1.
pub type Rsn = u64;

/// Position of a member in the roster of its epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize,
)]
pub struct MemberId(pub u8);

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What an answer of the group is worth: it decides how many rounds of messages are behind each (PROTOCOL.md 2.13,
/// dissertation 7.1.1). Every variant of `active_members` goes with every one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Guarantee {
    /// Three phases: f Byzantine members, whatever they do. f+1 equal answers are enough for a client.
    #[default]
    Byzantine,
    /// Two phases: as safe as three. Members execute and answer what is prepared before it is committed, and undo that
    /// when the view changes first; so a client waits for 2f+1 equal answers of one view, and one silent or lying
    /// member costs it the third phase, or the time until it asks again.
    ByzantineTentative,
    /// One phase, NOT Byzantine fault-tolerant: f members may crash and lose messages, none may lie. Members execute
    /// and answer what the primary proposes. A primary that shows different batches to different members is noticed
    /// at once, since the 2f+1 answers with digests of the whole history that a client waits for never come; but
    /// what was acknowledged before can be lost in the view change that follows.
    CrashOnly,
}

impl Guarantee {
    /// Whether members answer before a batch is committed.
    pub(crate) fn answers_early(self) -> bool {
        self != Guarantee::Byzantine
    }
}

/// How members prove their PRE-PREPAREs and PREPAREs to each other (PROTOCOL.md 2.2).
///
/// Both are safe. CHECKPOINT, VIEW-CHANGE and NEW-VIEW are signed in both, since they are shown to third
/// parties; everything else relies on the transport, which authenticates the sender, in both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum VoteAuthentication {
    /// Mode S: each vote is signed, so that a prepared certificate convinces anybody.
    #[default]
    Signed,
    /// Mode M: votes carry no signature; that the transport authenticates their sender is enough. A
    /// VIEW-CHANGE then only claims what was prepared, and members that voted for it must back the claim up.
    Channel,
}

/// How clients prove their requests to the members (PROTOCOL.md 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuthentication {
    /// Each request is signed: all members judge it alike.
    #[default]
    Signed,
    /// A request carries a MAC for each member, and a signature only when it is sent again. For clients of one
    /// administrative domain: a request that is good for the primary alone holds up its batch until the view
    /// changes, so a faulty client can force n view changes. After each the members that saw it take nothing
    /// but signatures from this client.
    Macs,
}

/// Who is active in a view, and what becomes of an active member that is silent (PROTOCOL.md 2.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ActiveSet {
    /// The spares are the members before the primary on the ring. When somebody is silent they are asked to vote:
    /// that costs a round trip, no view change and no state.
    #[default]
    Widening,
    /// Strict: spares are never asked to vote. Who is silent costs a view change, and the views go through all
    /// sets of spares, each once in as many views as there are sets: 4, 21 and 120 for f = 1, 2 and 3.
    Strict,
}

/// The largest f of strict mode: f = 4 would have 715 sets of spares.
const STRICT_F_MAX: u8 = 3;

/// Parameters of one group in one epoch.
///
/// Everything except the time-outs must be equal at all members.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which group this is; messages of other groups are refused.
    pub group: u64,
    /// Which epoch of the group. [`Config::after`] gives the next one's configuration.
    pub epoch: u64,
    /// Where the epoch begins.
    pub begins: Beginning,
    /// How many Byzantine members are tolerated.
    pub f: u8,
    /// The roster: `3f+1` distinct parties, a [`MemberId`] is an index into it.
    pub members: Vec<PeerId>,
    /// Members asked to take part in a view: `2f+1` (fewest messages), up to `3f+1` (there are no spares, so f
    /// silent members cost nothing). A certificate takes `2f+1` in any case.
    pub active_members: usize,
    /// What an answer is worth; faults of members that lie are tolerated with the first two.
    pub guarantee: Guarantee,
    /// How active members are chosen.
    pub active_set: ActiveSet,
    /// How votes are authenticated between members.
    pub votes: VoteAuthentication,
    /// How requests are authenticated.
    pub clients: ClientAuthentication,
    /// K: batches between two checkpoints.
    pub checkpoint_interval: u64,
    /// L: how far above the stable checkpoint batches are ordered; a multiple of K, at least 2K.
    pub log_window: u64,
    /// Batches the primary keeps in flight; more requests wait and share the next batch.
    pub pipeline: u64,
    /// Requests in one batch at most.
    pub batch_requests_max: usize,
    /// Encoded bytes of one batch at most; also bounds one operation.
    pub batch_bytes_max: usize,
    /// W: requests a client may have outstanding, and replies cached for it.
    pub client_window: u64,
    /// Client sessions kept; beyond it the least recently used one is evicted.
    pub sessions_max: usize,
    /// Notifications a client may leave unacknowledged before [`Apply::notify`](crate::Apply::notify) refuses.
    pub outbox_max: usize,
    /// T_req: how long a known request may stay unexecuted before this member leaves the view.
    pub request_timeout: Duration,
    /// T0: how long a new view may take to be announced, doubled for each fruitless view.
    pub new_view_timeout: Duration,
    /// The cap of both time-outs however often they were doubled.
    pub timeout_max: Duration,
    /// T_c: when a client sends a request again, to all members.
    pub client_timeout: Duration,
    /// Interval of STATUS while something is unfinished.
    pub status_active: Duration,
    /// Interval of STATUS while nothing is.
    pub status_idle: Duration,
    /// Early threshold (dissertation 7.1.4): how far a proposed time may be ahead of the own clock.
    pub early_threshold: Duration,
    /// Late threshold (dissertation 7.1.4): how long after a deadline a backup becomes impatient.
    pub late_threshold: Duration,
    /// A rule to break on purpose.
    #[doc(hidden)]
    pub mutation: Option<Mutation>,
}

/// Why a configuration cannot work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The roster does not have `3f+1` members.
    #[error("{found} members where 3f+1 = {needed} are needed")]
    Members {
        /// Members given.
        found: usize,
        /// Members needed.
        needed: usize,
    },
    /// A party is in the roster twice.
    #[error("member {0} is in the roster twice")]
    Duplicate(PeerId),
    /// A field is out of its range; the text says which and why.
    #[error("{0}")]
    Range(&'static str),
}

impl Config {
    /// The usual parameters (PROTOCOL.md 2.1 and 2.9) for this roster of `3f+1` members, of which f may be Byzantine
    /// ([`Guarantee::Byzantine`]).
    ///
    /// # Errors
    /// As [`Config::validate`].
    pub fn new(group: u64, members: Vec<PeerId>) -> Result<Config, ConfigError> {
        let f = u8::try_from(members.len().saturating_sub(1) / 3)
            .map_err(|_| ConfigError::Range("at most 64 members are supported"))?;
        let config = Config {
            group,
            epoch: 0,
            begins: Beginning::default(),
            f,
            members,
            active_members: 2 * usize::from(f) + 1,
            guarantee: Guarantee::default(),
            active_set: ActiveSet::default(),
            votes: VoteAuthentication::default(),
            clients: ClientAuthentication::default(),
            checkpoint_interval: 128,
            log_window: 256,
            pipeline: 8,
            batch_requests_max: 256,
            batch_bytes_max: 48 * 1024,
            client_window: 32,
            sessions_max: 4096,
            outbox_max: 1024,
            request_timeout: Duration::from_millis(500),
            new_view_timeout: Duration::from_millis(500),
            timeout_max: Duration::from_secs(60),
            client_timeout: Duration::from_millis(1000),
            status_active: Duration::from_millis(50),
            status_idle: Duration::from_secs(1),
            early_threshold: Duration::from_millis(500),
            late_threshold: Duration::from_millis(250),
            mutation: None,
        };
        config.validate()?;
        Ok(config)
    }

    /// Checks that the parameters fit each other.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let needed = 3 * usize::from(self.f) + 1;
        if self.members.len() != needed {
            return Err(ConfigError::Members { found: self.members.len(), needed });
        }
        // Sets of members travel as the bits of a u64.
        if needed > 64 {
            return Err(ConfigError::Range("at most 64 members are supported"));
        }
        let mut sorted = self.members.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Duplicate(pair[0]));
        }
        let range = |ok: bool, why| if ok { Ok(()) } else { Err(ConfigError::Range(why)) };
        range(
            (self.quorum()..=needed).contains(&self.active_members),
            "active_members must be within 2f+1 and 3f+1",
        )?;
        range(
            self.active_set == ActiveSet::Widening || self.f <= STRICT_F_MAX,
            "too many sets of spares to go through them in strict mode",
        )?;
        range(self.has(self.begins.primary), "the first primary is not in the roster")?;
        range(self.checkpoint_interval > 0, "checkpoint_interval must be positive")?;
        range(
            self.log_window >= 2 * self.checkpoint_interval
                && self.log_window.is_multiple_of(self.checkpoint_interval),
            "log_window must be a multiple of checkpoint_interval and at least twice as long",
        )?;
        range(
            self.log_window <= 4096
                && self.log_window as usize * Certificate::encoded_max(self.f) <= MESSAGE_BYTES_MAX / 2,
            "a log_window of this length makes view changes too large",
        )?;
        range(self.pipeline > 0, "pipeline must be positive")?;
        range(self.batch_requests_max > 0, "batch_requests_max must be positive")?;
        range(
            self.batch_bytes_max > self.request_overhead() && self.batch_bytes_max <= MESSAGE_BYTES_MAX / 2,
            "batch_bytes_max must hold a request and fit into a message",
        )?;
        range((1..=1024).contains(&self.client_window), "client_window must be within 1 and 1024")?;
        range(self.sessions_max > 0, "sessions_max must be positive")?;
        range(self.outbox_max > 0, "outbox_max must be positive")?;
        range(
            [
                self.request_timeout,
                self.new_view_timeout,
                self.client_timeout,
                self.status_active,
                self.status_idle,
            ]
            .iter()
            .all(|d| *d >= Duration::from_millis(1)),
            "a time-out is below a millisecond",
        )
    }

    /// n: members in the roster.
    pub fn n(&self) -> usize {
        self.members.len()
    }

    /// q = 2f+1: members that make a certificate.
    pub fn quorum(&self) -> usize {
        2 * usize::from(self.f) + 1
    }

    /// w = f+1: members of which at least one is correct.
    pub fn weak(&self) -> usize {
        usize::from(self.f) + 1
    }

    /// The member that leads `view`.
    pub fn primary(&self, view: View) -> MemberId {
        let n = self.n() as u64;
        MemberId(((view % n + u64::from(self.begins.primary.0)) % n) as u8)
    }

    /// A(v): the members asked first in `view`, in ascending order ([`ActiveSet`]).
    pub fn active(&self, view: View) -> Vec<MemberId> {
        let n = self.n();
        let spares = n - self.active_members;
        let offsets = match self.active_set {
            ActiveSet::Widening => ring::last(n, spares),
            ActiveSet::Strict => ring::of_round(n, spares, view / n as u64),
        };
        let primary = usize::from(self.primary(view).0);
        self.all().filter(|m| offsets & 1 << ((usize::from(m.0) + n - primary) % n) == 0).collect()
    }

    /// Whether there are spares that may be asked to vote.
    pub(crate) fn widens(&self) -> bool {
        self.active_set == ActiveSet::Widening && self.active_members < self.n()
    }

    /// The member that is `peer`, if it is one.
    pub fn member(&self, peer: PeerId) -> Option<MemberId> {
        self.members.iter().position(|m| *m == peer).map(|i| MemberId(i as u8))
    }

    /// All members in roster order.
    pub fn all(&self) -> impl Iterator<Item = MemberId> + use<> {
        (0..self.n() as u8).map(MemberId)
    }

    /// The party that is `member`.
    ///
    /// # Panics
    /// If `member` is not in the roster.
    pub fn peer(&self, member: MemberId) -> PeerId {
        self.members[usize::from(member.0)]
    }

    /// Whether what is prepared is proven by the claims of several members (2.8, rule 4, mode M). Where nobody lies
    /// each claim is true.
    pub(crate) fn counts_claims(&self) -> bool {
        self.votes == VoteAuthentication::Channel && self.guarantee != Guarantee::CrashOnly
    }

    /// How many digests of one position a VIEW-CHANGE of mode M names at most: what keeps it below the limit of
    /// a message, and never more than 32. Each takes a view of its own in which another batch was proposed
    /// there, so more are needed only if 32 views in a row fail at one position.
    pub(crate) fn votes_claimed_max(&self) -> usize {
        (MESSAGE_BYTES_MAX / 2 / (self.log_window as usize * VoteClaim::BYTES)).clamp(2, 32)
    }

    /// Bytes of an operation at most.
    pub fn op_bytes_max(&self) -> usize {
        self.batch_bytes_max - self.request_overhead()
    }

    /// What an encoded request has beside its operation, at most.
    fn request_overhead(&self) -> usize {
        let signed = Proof::Signed([0; 64]).encoded_len();
        let proof = match self.clients {
            ClientAuthentication::Signed => signed,
            ClientAuthentication::Macs => signed.max(Proof::Macs(vec![[0; 16]; self.n()]).encoded_len()),
        };
        REQUEST_FIELDS_BYTES + proof
    }

    pub(crate) fn has(&self, member: MemberId) -> bool {
        usize::from(member.0) < self.n()
    }

    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(n: u32) -> Vec<PeerId> {
        (0..n).map(|i| PeerId::new(100 + i, 0)).collect()
    }

    #[test]
    fn only_3f_plus_1_distinct_members_are_a_group() {
        assert_eq!(Config::new(1, roster(4)).unwrap().f, 1);
        assert_eq!(Config::new(1, roster(1)).unwrap().quorum(), 1);
        assert!(matches!(Config::new(1, roster(5)), Err(ConfigError::Members { found: 5, needed: 4 })));
        let mut twice = roster(4);
        twice[3] = twice[0];
        assert_eq!(Config::new(1, twice.clone()).unwrap_err(), ConfigError::Duplicate(twice[0]));
    }

    #[test]
    fn the_spare_is_the_member_before_the_primary() {
        let config = Config::new(1, roster(4)).unwrap();
        assert_eq!(config.active(0), [0, 1, 2].map(MemberId));
        assert_eq!(config.active(1), [1, 2, 3].map(MemberId));
        assert_eq!(config.active(2), [0, 2, 3].map(MemberId));
        assert_eq!(config.active(7), [0, 1, 3].map(MemberId));
        assert_eq!(config.primary(u64::MAX), MemberId(3));
    }

    #[test]
    fn strict_mode_goes_through_all_sets_of_spares_and_begins_like_the_other() {
        for (f, sets) in [(0, 1), (1, 4), (2, 21), (3, 120)] {
            let n = 3 * f + 1;
            let widening = Config::new(1, roster(n)).unwrap();
            let strict = Config { active_set: ActiveSet::Strict, ..widening.clone() };
            strict.validate().unwrap();
            let seen: std::collections::BTreeSet<_> = (0..sets).map(|v| strict.active(v)).collect();
            assert_eq!(seen.len() as u64, sets, "f = {f}");
            for v in 0..3 * sets {
                assert!(strict.active(v).contains(&strict.primary(v)));
                assert_eq!(strict.active(v).len(), strict.quorum());
            }
            assert!((0..u64::from(n)).all(|v| strict.active(v) == widening.active(v)));
            assert_eq!(strict.active(sets + 1), strict.active(1));
        }
        let large = Config { active_set: ActiveSet::Strict, ..Config::new(1, roster(13)).unwrap() };
        assert!(large.validate().is_err());
    }

    #[test]
    fn more_members_than_a_quorum_may_be_active() {
        let config = Config { active_members: 4, ..Config::new(1, roster(4)).unwrap() };
        config.validate().unwrap();
        assert_eq!(config.active(2), [0, 1, 2, 3].map(MemberId));
        let config = Config { active_members: 6, ..Config::new(1, roster(7)).unwrap() };
        config.validate().unwrap();
        assert_eq!(config.active(1), [1, 2, 3, 4, 5, 6].map(MemberId));
        for active_members in [2, 5] {
            assert!(Config { active_members, ..Config::new(1, roster(4)).unwrap() }.validate().is_err());
        }
    }
}
