//! What goes wrong in a run, drawn from its seed, as a list from which a shrinker can strike things out.

mod draw;

use cl_base::PeerId;
use replication_proto::{Guarantee, Mutation, VoteAuthentication};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// The faulty client.
pub(crate) const ROGUE: PeerId = PeerId::new(90, 0);

/// What a Byzantine member, otherwise a real replica, does all the time. A member may have several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strategy {
    /// Sends nothing.
    Silent,
    /// Sends nothing to some members.
    Shunning,
    /// Changes fields of what it sends and signs the result.
    Lying,
    /// Changes bits of what it sends, and sends random bytes.
    Garbling,
    /// Runs twice under one key, each copy with a part of the others.
    Twins,
    /// Proposes one batch to some members and another to the rest, and votes for each where it was proposed,
    /// also for the double proposals of other Byzantine members.
    Equivocating,
    /// Forgets everything now and then and begins anew.
    Forgetful,
    /// Votes towards one other member only, and takes nothing along into new views.
    Courting,
    /// Sends what it sent or received before once more, much later, to anybody.
    Replaying,
    /// Keeps votes, view changes and checkpoints back and releases them much later.
    Hoarding,
    /// Serves wrong states and bodies.
    Misinforming,
    /// Lies in STATUS and signs checkpoints of states that nobody has.
    Boasting,
    /// Sends NEW-VIEW to some members only, or with changes, and VIEW-CHANGEs without what it prepared.
    Usurping,
    /// Sends many messages of views, positions and checkpoints that are not there.
    Flooding,
}

/// What happens to one member for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It is down, then restarts with its disk; what it had not made durable may be cut short.
    Crash,
    /// It can neither send nor receive.
    CutOff,
    /// It sends and receives nothing.
    Deaf,
    /// It receives, and nobody hears it.
    Mute,
    /// It stands still; what is sent to it waits.
    Paused,
    /// All that is sent to it takes so much longer.
    Slow(Duration),
    /// It crashes, its disk is gone, and it stays down: a member without its memory must not vote.
    LosesDisk,
    /// It crashes, a bit of its disk has changed when it restarts. If that shows, it stays down.
    RotsDisk,
}

impl Trouble {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Trouble::Crash => "crashes",
            Trouble::CutOff => "cut off",
            Trouble::Deaf | Trouble::Mute => "one-way cuts",
            Trouble::Paused => "pauses",
            Trouble::Slow(_) => "slow spells",
            Trouble::LosesDisk => "disks lost",
            Trouble::RotsDisk => "disks rotten",
        }
    }
}

/// A stretch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// From its beginning.
    pub from: Duration,
    /// Until then.
    pub to: Duration,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{} ms", self.from.as_millis(), self.to.as_millis())
    }
}

/// One thing that goes wrong. Its place in [`Plan::faults`] is its number on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A member is Byzantine.
    Byzantine {
        /// Which.
        member: usize,
        /// What it does.
        strategy: Strategy,
    },
    /// Something happens to a member.
    Member {
        /// Which.
        member: usize,
        /// When.
        span: Span,
        /// What.
        trouble: Trouble,
    },
    /// Messages between two sides get lost.
    Partition {
        /// One side, a bit for each member; the others are the other side.
        side: u64,
        /// When.
        span: Span,
        /// Only what goes to that side.
        one_way: bool,
        /// Comes and goes so often.
        flapping: Option<Duration>,
    },
    /// All members that are up crash at once and restart with their disks.
    PowerCut {
        /// When.
        span: Span,
    },
    /// A client has a member replaced by a newcomer.
    Replace {
        /// Which.
        member: usize,
        /// When it asks for that.
        at: Duration,
    },
    /// There is a faulty client.
    Rogue,
    /// A client restarts and knows nothing.
    ClientRestart {
        /// Which.
        client: usize,
        /// When.
        at: Duration,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Byzantine { member, strategy } => write!(f, "member {member} is {strategy:?}"),
            Fault::Member { member, span, trouble } => write!(f, "member {member}: {trouble:?}, {span}"),
            Fault::Partition { side, span, one_way, flapping } => {
                let members: Vec<u32> = (0..64).filter(|i| side >> i & 1 == 1).collect();
                let way = if *one_way { "nothing reaches" } else { "partition of" };
                write!(f, "{way} members {members:?}, {span}")?;
                flapping.map_or(Ok(()), |period| write!(f, ", flapping every {} ms", period.as_millis()))
            }
            Fault::PowerCut { span } => write!(f, "power cut, {span}"),
            Fault::Replace { member, at } => {
                write!(f, "member {member} is replaced at {} ms", at.as_millis())
            }
            Fault::Rogue => write!(f, "a faulty client"),
            Fault::ClientRestart { client, at } => {
                write!(f, "client {client} restarts at {} ms", at.as_millis())
            }
        }
    }
}

/// A rule broken on purpose, to test the judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// One of the protocol's own.
    Mutation(Mutation),
    /// Members restart without their records.
    Amnesia,
}

/// What is taken out of a drawn plan: how a failure is made smaller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// Numbers of faults that do not happen.
    pub without: BTreeSet<usize>,
    /// Clients at most.
    pub clients: Option<usize>,
    /// Operations of each client before the heal, at most.
    pub ops: Option<u64>,
    /// The heal comes after so many milliseconds at most.
    pub heal_ms: Option<u64>,
    /// Nothing is lost, duplicated or delayed beyond the usual.
    pub calm: bool,
}

impl fmt::Display for Trim {
    /// As options of the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.without.is_empty() {
            let numbers: Vec<String> = self.without.iter().map(ToString::to_string).collect();
            write!(f, " --without {}", numbers.join(","))?;
        }
        for (name, value) in
            [("clients", self.clients.map(|c| c as u64)), ("ops", self.ops), ("heal", self.heal_ms)]
        {
            if let Some(value) = value {
                write!(f, " --{name} {value}")?;
            }
        }
        if self.calm { write!(f, " --calm") } else { Ok(()) }
    }
}

/// A member's clock beside true time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Ahead by so much at the beginning; around a second for all.
    pub(crate) offset: Duration,
    /// Parts in a million by which it is fast, or slow if negative.
    pub(crate) drift: i64,
}

/// Everything drawn before the run begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Faulty members tolerated; the group has `3f+1`.
    pub(crate) f: usize,
    /// Mode S or M.
    pub(crate) votes: VoteAuthentication,
    /// Three phases, two or one.
    pub(crate) guarantee: Guarantee,
    /// What goes wrong; `None` where something was struck out.
    pub(crate) faults: Vec<Option<Fault>>,
    /// Faults stop here, Byzantine ones excepted.
    pub(crate) heal: Duration,
    /// Messages lost and duplicated, of a thousand.
    pub(crate) loss: u64,
    pub(crate) duplication: u64,
    /// One-way delay, shortest and longest, and how often of a thousand it is far longer.
    pub(crate) delay: (Duration, Duration),
    pub(crate) stragglers: u64,
    pub(crate) clients: usize,
    pub(crate) ops_per_client: u64,
    /// Operations of each client after the heal.
    pub(crate) ops_after: u64,
    pub(crate) think: Duration,
    pub(crate) checkpoint_interval: u64,
    pub(crate) pipeline: u64,
    pub(crate) batch: usize,
    /// T_req and T0; short ones make for many view changes.
    pub(crate) patience: Duration,
    pub(crate) clocks: Vec<Clock>,
}

impl Plan {
    /// The faults that happen, with their numbers.
    pub(crate) fn faults(&self) -> impl Iterator<Item = (usize, Fault)> + '_ {
        self.faults.iter().enumerate().filter_map(|(i, fault)| Some((i, (*fault)?)))
    }

    /// What the member does, if it is Byzantine.
    pub(crate) fn strategies(&self, of: usize) -> Vec<Strategy> {
        let strategy = |fault| match fault {
            Fault::Byzantine { member, strategy } if member == of => Some(strategy),
            _ => None,
        };
        self.faults().filter_map(|(_, fault)| strategy(fault)).collect()
    }

    /// Whether the member is one of the faulty ones, of which there may be f: Byzantine, or one whose disk fails.
    pub(crate) fn is_faulty(&self, of: usize) -> bool {
        self.faults().any(|(_, fault)| match fault {
            Fault::Byzantine { member, .. } => member == of,
            Fault::Member { member, trouble: Trouble::LosesDisk | Trouble::RotsDisk, .. } => member == of,
            _ => false,
        })
    }

    /// How many newcomers there are.
    pub(crate) fn newcomers(&self) -> usize {
        self.faults().filter(|(_, fault)| matches!(fault, Fault::Replace { .. })).count()
    }

    /// Strikes out lies, where nobody is promised to survive them. A member that would have lied fails otherwise or
    /// not at all.
    pub(crate) fn keep_honest(&mut self) {
        for fault in self.faults.iter_mut() {
            if matches!(fault, Some(Fault::Byzantine { .. })) {
                *fault = None;
            }
        }
    }

    /// Strikes out what `trim` says.
    pub(crate) fn trim(&mut self, trim: &Trim) {
        for (i, fault) in self.faults.iter_mut().enumerate() {
            if trim.without.contains(&i) {
                *fault = None;
            }
        }
        if let Some(clients) = trim.clients {
            self.clients = self.clients.min(clients.max(1));
        }
        if let Some(ops) = trim.ops {
            self.ops_per_client = self.ops_per_client.min(ops);
        }
        if let Some(heal) = trim.heal_ms.map(Duration::from_millis) {
            self.heal = self.heal.min(heal);
            for fault in self.faults.iter_mut() {
                match fault {
                    Some(
                        Fault::Member { span, .. } | Fault::Partition { span, .. } | Fault::PowerCut { span },
                    ) => {
                        span.to = span.to.min(heal);
                        if span.from >= span.to {
                            *fault = None;
                        }
                    }
                    Some(Fault::ClientRestart { at, .. } | Fault::Replace { at, .. }) if *at > heal => {
                        *fault = None
                    }
                    _ => {}
                }
            }
        }
        if trim.calm {
            (self.loss, self.duplication, self.stragglers) = (0, 0, 0);
        }
        let clients = self.clients;
        for fault in self.faults.iter_mut() {
            if matches!(fault, Some(Fault::ClientRestart { client, .. }) if *client >= clients) {
                *fault = None;
            }
        }
    }
}
