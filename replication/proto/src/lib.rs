//! Byzantine fault-tolerant replication of a deterministic state machine, without I/O.
//!
//! A group of `3f+1` members executes the operations of its clients in one order, although up to f members
//! (and any clients) do whatever they like. In a quiet view only `2f+1` active members take part; the f spares
//! vote when somebody is silent (widening) and in view changes. The protocol is PBFT with a preferred quorum:
//! PROTOCOL.md section 2 is its specification, and comments cite its rules.
//!
//! The types to begin with:
//! * [`StateMachine`]: the service to replicate; [`Local`] executes one without a group.
//! * [`Replica`]: one member. Messages and time go in, [`Effect`]s come out.
//! * [`Client`]: submits operations, accepts what f+1 members say, reads in one round trip, receives
//!   notifications.
//!
//! Not in here: sockets, clocks, threads, files, entropy. The host moves bytes (authenticated by sender),
//! tells the time, makes [`Record`]s durable and holds the [`Keys`].
//!
//! Calling order of a [`Replica`]: any of [`on_message`](Replica::on_message) and
//! [`on_timeout`](Replica::on_timeout), then [`poll_effect`](Replica::poll_effect) until `None`, then
//! [`next_timeout`](Replica::next_timeout). A [`Client`] is driven alike.

//! # Where this departs from PROTOCOL.md
//!
//! * Of section 2 this is 2.1 to 2.9, 2.11 and 2.12 in both modes ([`VoteAuthentication`]), with widening or
//!   strict mode (2.10, [`ActiveSet`]), and epochs (2.15, [`Replacement`]). Evidence is not here yet.
//! * RECONFIG carries no evidence: whether it is allowed is asked of the replicated state machine, which knows the nodes
//!   and who may decide. Keys belong to parties, and are the host's business ([`Keys`]).
//! * A member that takes another's place has its number. View 0 of an epoch is led by the member after it.
//! * Variants (2.13) are chosen by [`Guarantee`]. With one phase COMMITs are sent, too, after the answers: they tell
//!   what is durable, so that notifications, checkpoints and views go on as with three. In a widened view answers
//!   wait for them. Notifications and checkpoints never hold what can still be undone.
//! * READ-REPLY names A(v): a client need not know how it was chosen. Who cannot answer a read says so, so that
//!   it is ordered without a time-out.
//! * Q names what was accepted with its body, voted for or not: rule 4 needs no more than that a correct member
//!   accepted it, and it need not be written a second time. Of one position it keeps the digests of the last 32
//!   views in which there was another one.
//! * A request with MACs ([`ClientAuthentication`]) is waited for by the primary alone, and dropped when the view
//!   ends: it may be good for one member only. A client that gets no answer in time signs what it sends again,
//!   and for a while what follows.
//! * T_req is doubled for fruitless views like T_nv. It is not raised to eight measured commit times: a primary
//!   that is slow on purpose could stretch that for ever.
//! * T_nv starts after q VIEW-CHANGEs for v' or later views: with those for v' alone, correct members wait for
//!   each other in two views for ever when a faulty one shows its VIEW-CHANGE to some only.
//! * Agreed time is made monotone at execution instead of by refusing proposals, so that a new primary whose
//!   clock is behind is not stuck.
//! * NEW-VIEW names VIEW-CHANGEs by digest only; who misses one fetches it from the primary.
//! * Clients that ask again and again make the group follow an active member that left its view alone (see
//!   `replica/unheard.rs`): without that rule fewer than f+1 correct members may be left to answer.

mod certificate;
mod client;
mod config;
mod effect;
mod epoch;
mod keys;
mod log;
mod machine;
mod merkle;
mod mutation;
mod notifications;
mod reads;
mod replica;
mod ring;
mod session;
mod storage;

pub mod message;

pub use certificate::{Certificate, CheckpointProof, VoteClaim};
pub use client::{Client, ClientEffect, SubmitError, Ticket, ViewHint};
pub use config::{
    ActiveSet, ClientAuthentication, Config, ConfigError, Guarantee, MemberId, Rsn, View, VoteAuthentication,
};
pub use effect::{Effect, Event, LeaveReason};
pub use epoch::{Beginning, Reconfiguration, ReplaceError, Replacement};
pub use keys::{Digest, Keys, Mac, Signature};
pub use machine::{Apply, Local, NO_CLIENT, Pushed, RestoreError, StateMachine};
pub use mutation::Mutation;
pub use reads::ReadTicket;
pub use replica::{Holding, Mode, Refusal, RefusalCounters, Replica, ReplicaStatus, Role};
pub use storage::{CheckpointRecord, InstalledView, Record, RecoverError, SlotRecord, StateRecord};
