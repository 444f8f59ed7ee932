//! Phases 1 to 3: members are chosen from ALIVEs, proposed, supported and accepted (PROTOCOL.md 2.5, 2.8).

use super::machine::{Bootstrap, Refusal, Settling};
use super::peer::Vote;
use super::wire::{
    Alive, Certificate, Grounds, Message, Prepared, Proposal, Statement, ViewChange, is_quorum,
};
use super::{Configuration, Signature};
use cl_base::{PeerId, Time};

impl Bootstrap {
    /// Notes when members can be chosen, and when the wait for the remaining agents is over.
    pub(super) fn settle(&mut self, now: Time) {
        let heard = self.heard_alive();
        if self.config.choose(&heard).is_none() {
            self.settling = Settling::Gathering;
            return;
        }
        if self.settling == Settling::Gathering {
            self.settling = Settling::Until(now + self.config.settle);
        }
        if let Settling::Until(time) = self.settling
            && (now >= time || heard.len() == self.peers.len())
        {
            self.settling = Settling::Done;
        }
    }

    /// The leader of the view proposes: what the VIEW-CHANGEs' highest certificate is for, or else its choice.
    pub(super) fn propose(&mut self, now: Time) -> bool {
        let view = self.state.view;
        if self.config.leader(view) != self.me || self.has_begun() {
            return false;
        }
        let changes = self.view_changes();
        if view > 0 && changes.len() < self.config.quorum() {
            return false;
        }
        let highest = changes.iter().filter_map(|(_, prepared)| prepared.as_ref()).max_by_key(|p| p.view);
        let (configuration, grounds) = match highest {
            Some(prepared) => (prepared.configuration.clone(), Grounds::Prepared(prepared.clone())),
            None => match self.choose() {
                Some(chosen) => chosen,
                None => return false,
            },
        };
        let view_changes = changes
            .into_iter()
            .map(|(i, prepared)| {
                let (_, signature, _) = self.peers[i].view_change.as_ref().expect("it was just listed");
                (i as u16, prepared.map(|p| (p.view, p.configuration)), *signature)
            })
            .collect();
        let prepare = Statement::Prepare { view, configuration: configuration.clone() };
        let signature = self.sign(&prepare);
        self.begin(now, view, configuration.clone(), self.me);
        let proposal = Proposal { view, configuration, signature, view_changes, grounds };
        debug_assert_eq!(self.justify(&proposal), Ok(()));
        self.broadcast(&Message::Propose(Box::new(proposal.clone())));
        self.proposal = Some(proposal);
        self.support();
        true
    }

    /// The choice from the ALIVEs heard, with what it follows from; none until they have settled.
    fn choose(&self) -> Option<(Configuration, Grounds)> {
        if self.settling != Settling::Done {
            return None;
        }
        let members = self.config.choose(&self.heard_alive())?;
        let alive = self.peers.iter().enumerate();
        let alive = alive.filter_map(|(i, p)| p.alive.map(|(alive, s)| (i as u16, alive, s))).collect();
        let no_service = self.state.opened_by.clone();
        let configuration = Configuration { instance: self.state.instance, members };
        Some((configuration, Grounds::Chosen { alive, no_service }))
    }

    fn heard_alive(&self) -> Vec<(usize, bool)> {
        let peers = self.peers.iter().enumerate();
        peers.filter_map(|(i, p)| p.alive.map(|(alive, _)| (i, alive.capable))).collect()
    }

    /// The leader's proposal, in view 0 the PRE-PREPARE and later the NEW-VIEW.
    pub(super) fn on_proposal(&mut self, now: Time, from: usize, proposal: Proposal) -> Result<(), Refusal> {
        if !self.config.is_well_formed(&proposal.configuration) {
            return Err(Refusal::Malformed);
        }
        let prepare =
            Statement::Prepare { view: proposal.view, configuration: proposal.configuration.clone() };
        self.check_signature(from, &prepare, &proposal.signature)?;
        if let Grounds::Chosen { no_service, .. } = &proposal.grounds
            && proposal.configuration.instance > self.state.instance
        {
            self.on_no_services(from, proposal.configuration.instance - 1, no_service.clone())?;
            self.open_next_instance(now);
        }
        if !self.is_of_this_instance(now, from, proposal.configuration.instance) {
            return Ok(());
        }
        if self.config.leader(proposal.view) != from {
            return Err(Refusal::Unjustified);
        }
        if !self.takes_part() {
            return Ok(());
        }
        if proposal.view == self.state.view && self.has_begun() {
            return match self.state.supported == Some(proposal.configuration) {
                true => Ok(()),
                false => Err(Refusal::Conflicting),
            };
        }
        if proposal.view < self.state.view {
            return Err(Refusal::Stale);
        }
        self.justify(&proposal)?;
        let vote = (proposal.view, proposal.configuration.clone(), proposal.signature);
        newer(&mut self.peers[from].prepare, vote)?;
        self.begin(now, proposal.view, proposal.configuration, from);
        self.support();
        Ok(())
    }

    /// Whether a proposal follows from what it shows. The leader's signature is checked elsewhere.
    fn justify(&self, proposal: &Proposal) -> Result<(), Refusal> {
        let instance = proposal.configuration.instance;
        let mut highest = None;
        if proposal.view == 0 {
            if !proposal.view_changes.is_empty() {
                return Err(Refusal::Unjustified);
            }
        } else {
            if !is_quorum(proposal.view_changes.iter().map(|(i, ..)| *i), &self.config) {
                return Err(Refusal::Unjustified);
            }
            for (i, prepared, signature) in &proposal.view_changes {
                if prepared.as_ref().is_some_and(|(view, _)| *view >= proposal.view) {
                    return Err(Refusal::Unjustified);
                }
                let change = ViewChange { instance, view: proposal.view, prepared: prepared.clone() };
                if !self.is_signed(*i, &Statement::ViewChange(change), signature) {
                    return Err(Refusal::Signature);
                }
                highest = highest.max(prepared.as_ref().map(|(view, _)| *view));
            }
        }
        match &proposal.grounds {
            Grounds::Prepared(prepared) => {
                if highest != Some(prepared.view) || prepared.configuration != proposal.configuration {
                    return Err(Refusal::Unjustified);
                }
                if !prepared.is_valid(&*self.keys, &self.config) {
                    return Err(Refusal::Signature);
                }
            }
            Grounds::Chosen { alive, .. } => {
                if highest.is_some() {
                    return Err(Refusal::Unjustified);
                }
                self.justify_choice(&proposal.configuration, alive)?;
            }
        }
        Ok(())
    }

    /// Whether the members follow from these ALIVEs. That the instance is open is known to whoever is in it.
    fn justify_choice(
        &self,
        configuration: &Configuration,
        alive: &[(u16, Alive, Signature)],
    ) -> Result<(), Refusal> {
        if !is_quorum(alive.iter().map(|(i, ..)| *i), &self.config) {
            return Err(Refusal::Unjustified);
        }
        for (i, alive, signature) in alive {
            if alive.instance != configuration.instance {
                return Err(Refusal::Unjustified);
            }
            let known = self.peers[usize::from(*i)].alive == Some((*alive, *signature));
            if !known && !self.is_signed(*i, &Statement::Alive(*alive), signature) {
                return Err(Refusal::Signature);
            }
        }
        let heard: Vec<_> = alive.iter().map(|(i, alive, _)| (usize::from(*i), alive.capable)).collect();
        match self.config.choose(&heard).as_ref() == Some(&configuration.members) {
            true => Ok(()),
            false => Err(Refusal::Unjustified),
        }
    }

    fn is_signed(&self, position: u16, statement: &Statement, signature: &Signature) -> bool {
        statement.is_signed(usize::from(position), signature, &*self.keys, &self.config)
    }

    /// Whether this view has its proposal.
    pub(super) fn has_begun(&self) -> bool {
        !self.state.changing && self.state.supported.is_some()
    }

    /// Begins `view` with the proposal of its leader; Phase 2.
    fn begin(&mut self, now: Time, view: u64, configuration: Configuration, leader: usize) {
        assert!(view >= self.state.view && self.takes_part(), "a view begins only after the one before");
        let text = format!(
            "instance {} view {view}: {} proposes {}, supported",
            configuration.instance,
            self.config.agents()[leader],
            list(&configuration.members)
        );
        self.state.view = view;
        self.state.changing = false;
        self.state.supported = Some(configuration);
        self.proposal = None;
        self.deadline = None;
        self.persist();
        self.phase(2, text);
        self.resend_soon(now);
    }

    /// PREPAREs the proposal of this view.
    fn support(&mut self) {
        let configuration = self.state.supported.clone().expect("a begun view has a proposal");
        let prepare = Statement::Prepare { view: self.state.view, configuration: configuration.clone() };
        let signature = self.sign(&prepare);
        self.peers[self.me].prepare = Some((self.state.view, configuration, signature));
        self.broadcast(&Message::Says(prepare, signature));
    }

    /// PREPARE or COMMIT: kept if it is of a higher view than the last one of its kind.
    pub(super) fn on_vote(
        &mut self,
        now: Time,
        from: usize,
        statement: Statement,
        signature: Signature,
    ) -> Result<(), Refusal> {
        let (view, configuration, commits) = match &statement {
            Statement::Prepare { view, configuration } => (*view, configuration, false),
            Statement::Commit { view, configuration } => (*view, configuration, true),
            _ => unreachable!("only votes come here"),
        };
        if !self.config.is_well_formed(configuration) {
            return Err(Refusal::Malformed);
        }
        let vote = (view, configuration.clone(), signature);
        let known = if commits { &self.peers[from].commit } else { &self.peers[from].prepare };
        if known.as_ref() != Some(&vote) {
            self.check_signature(from, &statement, &signature)?;
        }
        if !self.is_of_this_instance(now, from, statement.instance()) {
            return Ok(());
        }
        match commits {
            true => newer(&mut self.peers[from].commit, vote),
            false => newer(&mut self.peers[from].prepare, vote),
        }
    }

    /// Phase 3: with PREPAREs of Q agents for the proposal of this view there is a certificate; COMMIT.
    pub(super) fn accept(&mut self, now: Time) -> bool {
        let view = self.state.view;
        let Some(configuration) = self.state.supported.clone().filter(|_| !self.state.changing) else {
            return false;
        };
        if self.peers[self.me].commit.as_ref().is_some_and(|(committed, ..)| *committed == view) {
            return false;
        }
        let prepares = self.peers.iter().map(|p| p.prepare.as_ref());
        let Some(prepares) = quorum_for(prepares, view, &configuration, self.config.quorum()) else {
            return false;
        };
        let text = format!(
            "instance {} view {view}: a quorum of {} supports it, accepted",
            configuration.instance,
            self.config.quorum()
        );
        self.state.prepared = Some(Prepared { view, configuration: configuration.clone(), prepares });
        self.persist();
        self.phase(3, text);
        let commit = Statement::Commit { view, configuration: configuration.clone() };
        let signature = self.sign(&commit);
        self.peers[self.me].commit = Some((view, configuration, signature));
        self.broadcast(&Message::Says(commit, signature));
        self.resend_soon(now);
        true
    }
}

/// Keeps `vote` if its view is higher than that of the vote kept.
fn newer(kept: &mut Option<Vote>, vote: Vote) -> Result<(), Refusal> {
    match kept {
        Some((view, ..)) if *view > vote.0 => Err(Refusal::Stale),
        Some((view, configuration, _)) if *view == vote.0 => match *configuration == vote.1 {
            true => Ok(()),
            false => Err(Refusal::Conflicting),
        },
        _ => {
            *kept = Some(vote);
            Ok(())
        }
    }
}

/// The first `quorum` of `votes` for `configuration` in `view`, if there are so many.
pub(super) fn quorum_for<'a>(
    votes: impl Iterator<Item = Option<&'a Vote>>,
    view: u64,
    configuration: &Configuration,
    quorum: usize,
) -> Option<Certificate> {
    let same = votes.enumerate().filter_map(|(i, vote)| {
        vote.filter(|(v, c, _)| *v == view && c == configuration)
            .map(|(_, _, signature)| (i as u16, *signature))
    });
    let signatures: Vec<_> = same.take(quorum).collect();
    (signatures.len() == quorum).then_some(Certificate(signatures))
}

/// `agents` for people.
pub(super) fn list(agents: &[PeerId]) -> String {
    let names: Vec<_> = agents.iter().map(PeerId::to_string).collect();
    format!("({})", names.join(", "))
}
