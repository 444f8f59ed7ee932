//! What the Byzantine member can sign. The signatures of correct members in it are of statements that they made.

use super::arena::{Arena, Fact, FactId, Input, view_change};
use super::{N, NOW, Real, State};
use replication_proto::message::{self, Message, Signed, ViewChange, Vote, forge};
use replication_proto::{
    Certificate, CheckpointProof, Digest, Effect, Keys, MemberId, Record, Replica, Rsn, Signature, View,
    VoteAuthentication, VoteClaim,
};
use replication_sim::SimKeys;
use std::sync::Arc;

fn keys(model: &Real, member: usize) -> SimKeys {
    SimKeys::new(model.config.group, model.config.members[member])
}

fn id(member: usize) -> MemberId {
    MemberId(member as u8)
}

fn is_signed(model: &Real) -> bool {
    model.config.votes == VoteAuthentication::Signed
}

/// A message of the Byzantine member.
pub(super) fn said(model: &Real, message: Message) -> Input {
    let from = model.config.members[model.bounds.byzantine];
    Input::Frame { from, bytes: message::encode(&model.config, &message).into() }
}

pub(super) fn pre_prepare(model: &Real, vote: Vote, letter: usize) -> Message {
    let signature = is_signed(model).then(|| pre_prepare_signature(model, &vote));
    Message::PrePrepare { vote, signature, body: model.body(letter) }
}

fn pre_prepare_signature(model: &Real, vote: &Vote) -> Signature {
    let primary = model.primary(vote.view);
    keys(model, primary).sign(&forge::pre_prepare_statement(&model.config, id(primary), vote).0)
}

fn prepare_signature(model: &Real, member: usize, vote: &Vote) -> Signature {
    keys(model, member).sign(&forge::prepare_statement(&model.config, id(member), vote).0)
}

/// PREPARE of a member, which must have said it unless it is Byzantine.
pub(super) fn prepare(model: &Real, member: usize, vote: Vote) -> Message {
    let signature = is_signed(model).then(|| prepare_signature(model, member, &vote));
    Message::Prepare { vote, signature }
}

/// All VIEW-CHANGEs for `view` that are worth showing to somebody: with each certificate that can be had, or none.
pub(super) fn view_changes(model: &Real, arena: &mut Arena, state: &State, view: View) -> Vec<FactId> {
    let mut choices: Vec<Vec<Certificate>> = vec![Vec::new()];
    for rsn in 1..=model.bounds.rsns {
        let certificates = match model.config.votes {
            VoteAuthentication::Signed => certificates(model, arena, state, view, rsn),
            VoteAuthentication::Channel => claims(model, view, rsn),
        };
        let more: Vec<Vec<Certificate>> = choices
            .iter()
            .flat_map(|chosen| certificates.iter().map(move |c| [chosen.clone(), vec![c.clone()]].concat()))
            .collect();
        choices.extend(more);
    }
    // Whoever vouches for everything, and whoever vouches for nothing.
    let mut voted = vec![Vec::new()];
    if model.config.votes == VoteAuthentication::Channel {
        let mut all: Vec<VoteClaim> = (1..=model.bounds.rsns)
            .flat_map(|rsn| [0, 1].map(|letter| (rsn, model.digest(rsn, letter))))
            .map(|(rsn, digest)| VoteClaim { rsn, digest, view: view - 1 })
            .collect();
        all.sort_unstable();
        voted.push(all);
    }
    let mut out = Vec::new();
    for prepared in choices {
        for voted in &voted {
            out.push(note(model, arena, view, prepared.clone(), voted.clone()));
        }
    }
    out
}

pub(super) fn empty_view_change(model: &Real, arena: &mut Arena, view: View) -> FactId {
    note(model, arena, view, Vec::new(), Vec::new())
}

fn note(
    model: &Real,
    arena: &mut Arena,
    view: View,
    prepared: Vec<Certificate>,
    voted: Vec<VoteClaim>,
) -> FactId {
    let body = ViewChange { view, stable: CheckpointProof::default(), prepared, voted };
    let byzantine = model.bounds.byzantine;
    let fact = view_change(&body);
    if let Some(known) = arena.number(byzantine, &fact) {
        return known;
    }
    let statement = forge::signed_statement(&model.config, id(byzantine), &body);
    let signature = keys(model, byzantine).sign(&statement.0);
    let message = Message::ViewChange(Signed { sender: id(byzantine), body, signature });
    arena.note(byzantine, fact, vec![message::encode(&model.config, &message).into()])
}

/// Mode M: any claim at all.
fn claims(model: &Real, below: View, rsn: Rsn) -> Vec<Certificate> {
    let claim = |view, letter| {
        let vote = Vote { view, tag: Digest::default(), rsn, digest: model.digest(rsn, letter) };
        Certificate { vote, proposal: None, prepares: Vec::new() }
    };
    (0..below).flat_map(|view| [claim(view, 0), claim(view, 1)]).collect()
}

/// Mode S: the certificates that can be put together of what was said.
fn certificates(model: &Real, arena: &Arena, state: &State, below: View, rsn: Rsn) -> Vec<Certificate> {
    let byzantine = model.bounds.byzantine;
    let said = |i: usize| arena.facts_of(state[i]).map(|(_, fact)| fact);
    let mut votes: Vec<Vote> = model
        .correct()
        .flat_map(said)
        .filter_map(|fact| match fact {
            Fact::Prepare(vote) if vote.view < below && vote.rsn == rsn => Some(*vote),
            _ => None,
        })
        .collect();
    votes.sort_unstable();
    votes.dedup();
    let certificate = |vote: Vote| {
        let primary = model.primary(vote.view);
        let proposed = primary == byzantine
            || said(primary).any(|fact| match fact {
                Fact::PrePrepare(proposal) => *proposal == vote,
                Fact::NewView { view, tag, order } => {
                    (*view, *tag) == (vote.view, vote.tag)
                        && order.get(vote.rsn as usize - 1) == Some(&vote.digest)
                }
                _ => false,
            });
        let voters: Vec<usize> = (0..N)
            .filter(|j| *j != primary)
            .filter(|j| *j == byzantine || said(*j).any(|fact| *fact == Fact::Prepare(vote)))
            .take(model.config.quorum() - 1)
            .collect();
        (proposed && voters.len() + 1 == model.config.quorum()).then(|| Certificate {
            vote,
            proposal: Some(pre_prepare_signature(model, &vote)),
            prepares: voters.iter().map(|j| (id(*j), prepare_signature(model, *j, &vote))).collect(),
        })
    };
    votes.into_iter().filter_map(certificate).collect()
}

/// The NEW-VIEW that the Byzantine primary makes of its own VIEW-CHANGE, the first, and those of others: what its
/// own replica would make of them, for anything else is refused.
pub(super) fn new_view(model: &Real, arena: &mut Arena, changes: &[FactId]) -> Option<FactId> {
    if let Some(known) = arena.forged.get(changes) {
        return *known;
    }
    let byzantine = model.bounds.byzantine;
    let Ok(Message::ViewChange(own)) = message::decode(&model.config, &arena.frames(changes[0])[0]) else {
        panic!("the first is a VIEW-CHANGE of the Byzantine member")
    };
    let me = id(byzantine);
    let records = [Record::ViewChange(own)].into_iter();
    let keys = Box::new(keys(model, byzantine));
    let mut replica =
        Replica::recover(model.config.clone(), me, keys, super::arena::Nothing, NOW, records).ok()?;
    for change in &changes[1..] {
        replica.on_message(NOW, arena.speaker(*change), &arena.frames(*change)[0]);
    }
    let mut found = None;
    let mut justification: Vec<Arc<[u8]>> = Vec::new();
    while let Some(effect) = replica.poll_effect() {
        match effect {
            Effect::Persist(Record::NewView(installed)) => {
                let frame = |vc| message::encode(&model.config, &Message::ViewChange(vc)).into();
                justification = installed.justification.into_iter().map(frame).collect();
            }
            Effect::Send { bytes, .. } => {
                if let Ok(Message::NewView(nv)) = message::decode(&model.config, &bytes) {
                    let fact = Fact::NewView {
                        view: nv.body.view,
                        tag: forge::tag(&model.config, &nv.body),
                        order: nv.body.order.iter().map(|(digest, _)| *digest).collect(),
                    };
                    let mut frames: Vec<Arc<[u8]>> = vec![bytes.into()];
                    frames.extend(justification.iter().cloned());
                    found = Some(arena.note(byzantine, fact, frames));
                }
            }
            _ => {}
        }
    }
    arena.forged.insert(changes.to_vec(), found);
    found
}
