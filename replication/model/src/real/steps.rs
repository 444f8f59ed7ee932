//! What correct members can do next.

use super::arena::{Arena, Fact, FactId, Input};
use super::{N, Real, State, forge};
use replication_proto::message::{self, Message, Vote};
use replication_proto::{MemberId, Rsn, View};
use std::sync::Arc;

/// A step of a correct member. Numbers of facts are those of the [`Arena`].
#[allow(missing_docs)] // fields are what their names say
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The primary proposes the request of client A or B.
    Propose { member: usize, letter: usize },
    /// Accepts the proposal of a correct primary, votes for it.
    Accept { member: usize, proposal: FactId },
    /// Accepts a proposal of the Byzantine primary.
    AcceptForged { member: usize, rsn: Rsn, letter: usize },
    /// Receives the body of a position that a NEW-VIEW carries over, votes for it.
    Body { member: usize, rsn: Rsn, letter: usize },
    /// A spare is asked to vote, too.
    Widen { member: usize },
    /// Sees the PREPAREs of these (a bit for each), has a certificate, sends COMMIT.
    Certify { member: usize, rsn: Rsn, voters: u8 },
    /// Sees the COMMITs of these, executes.
    Execute { member: usize, rsn: Rsn, voters: u8 },
    /// A timer fires: it leaves its view.
    TimeOut { member: usize },
    /// Leaves for a view because two others have.
    Join { member: usize, change: FactId },
    /// The primary opens a view with these VIEW-CHANGEs of others.
    Open { member: usize, changes: Vec<FactId> },
    /// Enters a view.
    Install { member: usize, new_view: FactId },
    /// Crashes and comes back with its records.
    Restart { member: usize },
}

impl Step {
    pub(super) fn member(&self) -> usize {
        match self {
            Step::Propose { member, .. }
            | Step::Accept { member, .. }
            | Step::AcceptForged { member, .. }
            | Step::Body { member, .. }
            | Step::Widen { member }
            | Step::Certify { member, .. }
            | Step::Execute { member, .. }
            | Step::TimeOut { member }
            | Step::Join { member, .. }
            | Step::Open { member, .. }
            | Step::Install { member, .. }
            | Step::Restart { member } => *member,
        }
    }

    /// Whether `gained` is what the step is for. One without it is no step: what was handed over is handed over
    /// again, together with what was missing.
    fn achieved(&self, gained: &Fact) -> bool {
        match self {
            Step::Propose { .. } => matches!(gained, Fact::PrePrepare(_)),
            Step::Accept { .. } | Step::AcceptForged { .. } | Step::Body { .. } => {
                matches!(gained, Fact::Prepare(_) | Fact::Commit(_))
            }
            Step::Widen { .. } => matches!(gained, Fact::Widened(_)),
            Step::Certify { .. } => matches!(gained, Fact::Commit(_)),
            Step::Execute { .. } => matches!(gained, Fact::Executed(..) | Fact::Halted(_)),
            Step::TimeOut { .. } | Step::Join { .. } => matches!(gained, Fact::ViewChange { .. }),
            Step::Open { .. } => matches!(gained, Fact::NewView { .. } | Fact::Halted(_)),
            Step::Install { .. } => matches!(gained, Fact::Installed { .. } | Fact::Halted(_)),
            Step::Restart { .. } => matches!(gained, Fact::Restarted),
        }
    }
}

/// What a member has accepted in its view: its own votes, and at the primary what its NEW-VIEW carries over.
fn accepted(model: &Real, arena: &Arena, number: u32) -> Vec<Vote> {
    let node = arena.node(number);
    let current = |vote: &Vote| (vote.view, vote.tag) == (node.view, node.tag);
    let mut votes: Vec<Vote> = arena
        .facts_of(number)
        .filter_map(|(_, fact)| match fact {
            Fact::PrePrepare(vote) | Fact::Prepare(vote) => Some(*vote),
            _ => None,
        })
        .filter(current)
        .collect();
    if model.primary(node.view) == node.member {
        votes.extend((1..).zip(&node.order).map(|(rsn, digest)| Vote {
            view: node.view,
            tag: node.tag,
            rsn,
            digest: *digest,
        }));
    }
    votes
}

fn has(arena: &Arena, number: u32, wanted: &Fact) -> Option<FactId> {
    arena.facts_of(number).find(|(_, fact)| *fact == wanted).map(|(id, _)| id)
}

fn has_view_change(arena: &Arena, number: u32, of: View) -> Option<FactId> {
    arena
        .facts_of(number)
        .find(|(_, fact)| matches!(fact, Fact::ViewChange { view, .. } if *view == of))
        .map(|(id, _)| id)
}

/// All steps that may have an effect.
pub(super) fn enumerate(model: &Real, state: &State, out: &mut Vec<Step>) {
    let arena = &mut *model.arena();
    for member in model.correct() {
        let node = arena.node(state[member]);
        if node.halted {
            continue;
        }
        if node.normal {
            propose_and_accept(model, arena, state, member, out);
            certify_and_execute(model, arena, state, member, out);
        }
        change_views(model, arena, state, member, out);
        let restarted = has(arena, state[member], &Fact::Restarted).is_some();
        if model.bounds.restarts && !restarted {
            out.push(Step::Restart { member });
        }
    }
}

fn propose_and_accept(model: &Real, arena: &Arena, state: &State, member: usize, out: &mut Vec<Step>) {
    let node = arena.node(state[member]);
    let votes = accepted(model, arena, state[member]);
    let next = votes.iter().map(|v| v.rsn).max().unwrap_or(0).max(node.order.len() as Rsn) + 1;
    let p = model.primary(node.view);
    // The letters are alike, so the first one ever proposed is A.
    let proposed =
        |i: usize| arena.facts_of(state[i]).any(|(_, f)| matches!(f, Fact::PrePrepare(_) | Fact::Prepare(_)));
    let letters = if model.correct().any(proposed) { 0..2 } else { 0..1 };
    if p == member {
        if next <= model.bounds.rsns {
            out.extend(letters.map(|letter| Step::Propose { member, letter }));
        }
    } else if p == model.bounds.byzantine {
        for rsn in node.order.len() as Rsn + 1..=model.bounds.rsns {
            if votes.iter().all(|vote| vote.rsn != rsn) {
                out.extend(letters.clone().map(|letter| Step::AcceptForged { member, rsn, letter }));
            }
        }
    } else if node.active || model.bounds.wide {
        for (id, fact) in arena.facts_of(state[p]) {
            if let Fact::PrePrepare(vote) = fact
                && (vote.view, vote.tag) == (node.view, node.tag)
                && votes.iter().all(|known| known.rsn != vote.rsn)
            {
                out.push(Step::Accept { member, proposal: id });
            }
        }
    }
    for (rsn, digest) in (1..).zip(&node.order) {
        if p != member && votes.iter().all(|vote| vote.rsn != rsn) {
            for letter in (0..2).filter(|letter| model.digest(rsn, *letter) == *digest) {
                out.push(Step::Body { member, rsn, letter });
            }
            if model.bounds.wide && !node.active {
                out.push(Step::Widen { member });
            }
        }
    }
}

fn certify_and_execute(model: &Real, arena: &Arena, state: &State, member: usize, out: &mut Vec<Step>) {
    let mine = state[member];
    let others = |fact: &Fact| -> u8 {
        model
            .correct()
            .filter(|j| *j != member && has(arena, state[*j], fact).is_some())
            .fold(0, |mask, j| mask | 1 << j)
    };
    for vote in accepted(model, arena, mine) {
        let rsn = vote.rsn;
        if has(arena, mine, &Fact::Commit(vote)).is_none() {
            let primary = model.primary(vote.view);
            let mut voters = others(&Fact::Prepare(vote));
            if primary != model.bounds.byzantine {
                voters |= 1 << model.bounds.byzantine;
            }
            out.push(Step::Certify { member, rsn, voters });
        } else if arena.node(mine).executed.iter().all(|(done, _)| *done != rsn) {
            let voters = others(&Fact::Commit(vote)) | 1 << model.bounds.byzantine;
            out.push(Step::Execute { member, rsn, voters });
        }
    }
}

fn change_views(model: &Real, arena: &mut Arena, state: &State, member: usize, out: &mut Vec<Step>) {
    let mine = state[member];
    let (view, normal) = (arena.node(mine).view, arena.node(mine).normal);
    let asked = (view + 1..model.bounds.views).filter(|v| has_view_change(arena, mine, *v).is_some()).max();
    if asked.unwrap_or(view) + 1 < model.bounds.views {
        out.push(Step::TimeOut { member });
    }
    let first = if normal { view + 1 } else { view };
    for w in first..model.bounds.views {
        let said: Vec<FactId> = model.correct().filter_map(|j| has_view_change(arena, state[j], w)).collect();
        let others: Vec<FactId> =
            said.iter().copied().filter(|id| arena.speaker(*id) != model.config.members[member]).collect();
        let forged = forge::view_changes(model, arena, state, w);
        let p = model.primary(w);
        if p == member {
            for (k, a) in others.iter().enumerate() {
                for b in others.iter().skip(k + 1).chain(&forged) {
                    out.push(Step::Open { member, changes: vec![*a, *b] });
                }
                // In mode M two may not be enough to decide.
                for (b, c) in others.iter().skip(k + 1).flat_map(|b| forged.iter().map(move |c| (b, c))) {
                    out.push(Step::Open { member, changes: vec![*a, *b, *c] });
                }
            }
        } else if p == model.bounds.byzantine {
            for own in &forged {
                for (k, a) in said.iter().enumerate() {
                    for b in said.iter().skip(k + 1) {
                        let new_view = forge::new_view(model, arena, &[*own, *a, *b]);
                        out.extend(new_view.map(|new_view| Step::Install { member, new_view }));
                    }
                }
                if said.len() == 3 {
                    let new_view = forge::new_view(model, arena, &[*own, said[0], said[1], said[2]]);
                    out.extend(new_view.map(|new_view| Step::Install { member, new_view }));
                }
            }
        } else {
            let shown = |(id, fact): (FactId, &Fact)| {
                matches!(fact, Fact::NewView { view, .. } if *view == w).then_some(id)
            };
            let shown: Vec<FactId> = arena.facts_of(state[p]).filter_map(shown).collect();
            out.extend(shown.into_iter().map(|new_view| Step::Install { member, new_view }));
        }
        // To the next view a timer leads as well.
        if w > view + 1 && has_view_change(arena, mine, w).is_none() {
            out.extend(others.iter().map(|change| Step::Join { member, change: *change }));
        }
    }
    // The same NEW-VIEW can be had by several V.
    let mut seen: Vec<Step> = Vec::with_capacity(out.len());
    out.retain(|step| {
        let new = !matches!(step, Step::Install { .. }) || !seen.contains(step);
        if new && matches!(step, Step::Install { .. }) {
            seen.push(step.clone());
        }
        new
    });
}

/// The member after the step, if it achieves something.
pub(super) fn take(model: &Real, from: u32, step: &Step) -> Option<u32> {
    let arena = &mut *model.arena();
    let key = (from, step.clone());
    if let Some(known) = arena.taken.get(&key) {
        return *known;
    }
    let inputs = inputs(model, arena, from, step);
    let to = arena.after(from, inputs);
    let before = arena.node(from).facts.clone();
    let gained = arena.facts_of(to).filter(|(id, _)| before.binary_search(id).is_err());
    let achieved = gained.map(|(_, fact)| fact).any(|fact| step.achieved(fact));
    let result = achieved.then_some(to);
    arena.taken.insert(key, result);
    result
}

fn inputs(model: &Real, arena: &mut Arena, from: u32, step: &Step) -> Vec<Input> {
    let shown = |arena: &Arena, id: FactId| -> Vec<Input> {
        let from = arena.speaker(id);
        arena.frames(id).iter().map(|bytes| Input::Frame { from, bytes: bytes.clone() }).collect()
    };
    match step {
        Step::Propose { letter, .. } => {
            let from = model.letters[*letter].client;
            vec![Input::Frame { from, bytes: model.request_frame(*letter).into() }]
        }
        Step::Accept { proposal, .. } => shown(arena, *proposal),
        Step::AcceptForged { rsn, letter, .. } => {
            let node = arena.node(from);
            let digest = model.digest(*rsn, *letter);
            let vote = Vote { view: node.view, tag: node.tag, rsn: *rsn, digest };
            vec![forge::said(model, forge::pre_prepare(model, vote, *letter))]
        }
        Step::Body { rsn, letter, .. } => {
            vec![forge::said(model, Message::BatchBody { rsn: *rsn, body: model.body(*letter) })]
        }
        Step::Widen { .. } => {
            let (view, tag) = (arena.node(from).view, arena.node(from).tag);
            let bytes: Arc<[u8]> = message::encode(&model.config, &Message::Widen { view, tag }).into();
            let members = model.config.active(view).into_iter();
            members.map(|m| Input::Frame { from: model.config.peer(m), bytes: bytes.clone() }).collect()
        }
        Step::Certify { rsn, voters, .. } | Step::Execute { rsn, voters, .. } => {
            let commits = matches!(step, Step::Execute { .. });
            let vote = accepted(model, arena, from).into_iter().find(|vote| vote.rsn == *rsn);
            let vote = vote.expect("steps are made of what is accepted");
            (0..N)
                .filter(|j| voters >> j & 1 == 1)
                .flat_map(|j| {
                    let message =
                        if commits { Message::Commit(vote) } else { forge::prepare(model, j, vote) };
                    let from = model.config.peer(MemberId(j as u8));
                    Some(Input::Frame { from, bytes: message::encode(&model.config, &message).into() })
                })
                .collect()
        }
        Step::TimeOut { .. } => vec![Input::TimeOut],
        Step::Restart { .. } => vec![Input::Restart],
        Step::Join { change, .. } => {
            let Fact::ViewChange { view, .. } = arena.fact(*change) else { return Vec::new() };
            let empty = forge::empty_view_change(model, arena, *view);
            [shown(arena, *change), shown(arena, empty), vec![Input::Joined(*change)]].concat()
        }
        Step::Open { changes, .. } => changes.iter().flat_map(|id| shown(arena, *id)).collect(),
        Step::Install { new_view, .. } => shown(arena, *new_view),
    }
}

impl Real {
    pub(super) fn primary(&self, view: View) -> usize {
        usize::from(self.config.primary(view).0)
    }

    /// A step in words.
    pub fn describe(&self, step: &Step) -> String {
        let arena = self.arena();
        let fact = |id: &FactId| format!("{:?} of {}", arena.fact(*id), arena.speaker(*id));
        match step {
            Step::Accept { member, proposal } => format!("{member} accepts {}", fact(proposal)),
            Step::Join { member, change } => format!("{member} joins after {}", fact(change)),
            Step::Open { member, changes } => {
                let changes: Vec<String> = changes.iter().map(fact).collect();
                format!("{member} opens a view with {}", changes.join(" and "))
            }
            Step::Install { member, new_view } => format!("{member} installs {}", fact(new_view)),
            step => format!("{step:?}"),
        }
    }

    /// What a member has said and done.
    pub fn biography(&self, state: &State) -> String {
        let arena = self.arena();
        let of = |i: usize| arena.facts_of(state[i]).map(move |(_, fact)| format!("member {i}: {fact:?}\n"));
        self.correct().flat_map(of).collect()
    }

    /// Different members met, and replays of inputs that it took.
    pub fn effort(&self) -> (usize, u64) {
        let arena = self.arena();
        (arena.len(), arena.replays)
    }
}
