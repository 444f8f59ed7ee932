//! Decisions, what follows them, and the way to the next instance (PROTOCOL.md 5).

use super::machine::{Bootstrap, Effect, Event, Refusal, Settling};
use super::ordering::{list, quorum_for};
use super::wire::{Alive, Certificate, Message, Statement};
use super::{Decision, Signature};
use cl_base::Time;

impl Bootstrap {
    /// Begins this life: says again what it knows and had signed.
    pub(super) fn start(&mut self, now: Time) {
        if let Some(decision) = self.state.decision.clone() {
            self.obey(decision);
        }
        self.sign_again();
        self.announce(now);
        self.advance(now);
    }

    /// Signs what this agent stands for, from what it remembers.
    fn sign_again(&mut self) {
        if self.state.no_service > 0 {
            let instance = self.state.no_service;
            let signature = self.sign(&Statement::NoService { instance });
            self.peers[self.me].no_service = Some((instance, signature));
        }
        if self.is_decided() {
            return;
        }
        let view = self.state.view;
        if self.state.changing {
            self.ask_for_view();
        }
        if let Some(configuration) = self.state.supported.clone() {
            let signature = self.sign(&Statement::Prepare { view, configuration: configuration.clone() });
            self.peers[self.me].prepare = Some((view, configuration, signature));
        }
        let accepted = self.state.prepared.as_ref().filter(|p| p.view == view && !self.state.changing);
        if let Some(configuration) = accepted.map(|p| p.configuration.clone()) {
            let signature = self.sign(&Statement::Commit { view, configuration: configuration.clone() });
            self.peers[self.me].commit = Some((view, configuration, signature));
        }
    }

    /// Phase 1 of this instance, unless it is decided: says that this agent is there.
    fn announce(&mut self, now: Time) {
        self.resend_soon(now);
        let alive = self.own_alive();
        let signature = self.sign(&alive);
        if !self.is_decided() {
            if let Statement::Alive(alive) = alive {
                self.peers[self.me].alive = Some((alive, signature));
            }
            let text = format!(
                "instance {}: ALIVE to {} agents, {} needed",
                self.state.instance,
                self.peers.len(),
                self.config.quorum()
            );
            self.phase(1, text);
        }
        for to in self.others() {
            self.tell(to);
        }
    }

    /// Whether a message of `instance` concerns this agent now. If not, who is behind learns why: "already
    /// in normal operation: reply with COMMIT" (Figure 6.1).
    pub(super) fn is_of_this_instance(&mut self, now: Time, from: usize, instance: u64) -> bool {
        if instance == self.state.instance && !self.is_decided() {
            return true;
        }
        self.answer(now, from, instance);
        false
    }

    /// Sends `to`, which is at the undecided `instance`, the highest decision if that helps, else what
    /// opened our instance, or if it is ahead of us, where we are.
    fn answer(&mut self, now: Time, to: usize, instance: u64) {
        if !self.may_answer(now, to) {
            return;
        }
        match &self.state.decision {
            Some(decision) if decision.instance() >= instance || self.is_decided() => {
                self.send(to, &Message::Decision(decision.clone()));
            }
            _ if instance > self.state.instance => self.tell(to),
            _ if self.state.instance == 1 => {}
            _ => {
                let signatures = self.state.opened_by.clone();
                self.send(to, &Message::NoService { instance: self.state.instance - 1, signatures });
            }
        }
    }

    /// Q COMMITs of one view for one configuration decide (Phase 4).
    pub(super) fn decide(&mut self, now: Time) -> bool {
        if self.is_decided() {
            return false;
        }
        let commits = || self.peers.iter().map(|p| p.commit.as_ref());
        let decision = commits().flatten().find_map(|(view, configuration, _)| {
            let commits = quorum_for(commits(), *view, configuration, self.config.quorum())?;
            Some(Decision { configuration: configuration.clone(), view: *view, commits })
        });
        match decision {
            Some(decision) => {
                self.adopt(now, decision);
                true
            }
            None => false,
        }
    }

    pub(super) fn on_decision(&mut self, now: Time, from: usize, decision: Decision) -> Result<(), Refusal> {
        let instance = decision.instance();
        if instance > self.state.decided() {
            decision.verify(&*self.keys, &self.config).map_err(|_| Refusal::Signature)?;
            self.peers[from].heard = true;
            self.adopt(now, decision);
        } else if let Some(ours) = self.state.decision.clone()
            && ours.instance() == instance
            && ours.configuration != decision.configuration
        {
            decision.verify(&*self.keys, &self.config).map_err(|_| Refusal::Signature)?;
            self.event(Event::Contradiction(decision));
            return Err(Refusal::Conflicting);
        }
        self.on_knows(now, from, instance)?;
        if instance == self.state.decided() {
            self.send(from, &Message::Knows { instance });
        }
        Ok(())
    }

    /// The sender knows a decision: if there is anything beyond, it is told.
    pub(super) fn on_knows(&mut self, now: Time, from: usize, instance: u64) -> Result<(), Refusal> {
        let peer = &mut self.peers[from];
        peer.decided = peer.decided.max(instance);
        if instance < self.state.decided() || (instance < self.state.instance && !self.is_decided()) {
            self.answer(now, from, instance + 1);
        }
        Ok(())
    }

    fn adopt(&mut self, now: Time, decision: Decision) {
        let instance = decision.instance();
        if instance > self.state.instance {
            self.enter(instance, Certificate::default());
        }
        self.state.decision = Some(decision.clone());
        self.persist();
        self.obey(decision.clone());
        for to in self.others() {
            if self.peers[to].decided < instance {
                self.send(to, &Message::Decision(decision.clone()));
            }
        }
        if self.is_decided() {
            self.deadline = None;
            self.proposal = None;
        }
        self.served = false;
        self.resend_soon(now);
    }

    /// Phase 4: the caller starts a manager if this node is a member, and JOINs.
    fn obey(&mut self, decision: Decision) {
        let members = &decision.configuration.members;
        let text = format!(
            "instance {} view {}: {} committed, {} JOIN",
            decision.instance(),
            decision.view,
            list(members),
            if members.contains(&self.config.agents()[self.me]) { "start a manager and" } else { "only" }
        );
        self.phase(4, text);
        self.effects.push_back(Effect::Decided(decision));
    }

    /// The decided group has admitted this node: normal operation. Until [`Bootstrap::no_service`] this
    /// agent seeks no other group, however many others do.
    pub fn admitted(&mut self, now: Time) {
        self.served = self.state.decision.is_some();
        self.advance(now);
    }

    /// The decided group does not answer the JOIN, or no longer answers: the caller's patience is over.
    /// Without a decision this does nothing.
    pub fn no_service(&mut self, now: Time) {
        let was_served = std::mem::take(&mut self.served);
        let instance = self.state.decided();
        if instance > self.state.no_service {
            self.state.no_service = instance;
            self.persist();
            let statement = Statement::NoService { instance };
            let signature = self.sign(&statement);
            self.peers[self.me].no_service = Some((instance, signature));
            self.broadcast(&Message::Says(statement, signature));
            self.resend_soon(now);
        } else if was_served {
            self.resend_soon(now);
        }
        self.advance(now);
    }

    pub(super) fn on_no_service(
        &mut self,
        now: Time,
        from: usize,
        instance: u64,
        signature: Signature,
    ) -> Result<(), Refusal> {
        if self.peers[from].no_service != Some((instance, signature)) {
            self.check_signature(from, &Statement::NoService { instance }, &signature)?;
            let known = &mut self.peers[from].no_service;
            if known.is_none_or(|(known, _)| known < instance) {
                *known = Some((instance, signature));
            }
        }
        self.on_knows(now, from, instance)
    }

    /// NO-SERVICEs of a quorum, whoever passes them on.
    pub(super) fn on_no_services(
        &mut self,
        from: usize,
        instance: u64,
        signatures: Certificate,
    ) -> Result<(), Refusal> {
        if instance == 0 || instance < self.state.instance {
            return Err(Refusal::Stale);
        }
        if !signatures.proves(&Statement::NoService { instance }, &*self.keys, &self.config) {
            return Err(Refusal::Signature);
        }
        self.peers[from].heard = true;
        self.keep_no_services(instance, signatures);
        Ok(())
    }

    fn keep_no_services(&mut self, instance: u64, signatures: Certificate) {
        if self.without_service.as_ref().is_none_or(|(known, _)| *known < instance) {
            self.without_service = Some((instance, signatures));
        }
    }

    /// Makes a certificate of the NO-SERVICEs of single agents. A liar's may be for any instance: it must
    /// not keep one passed on by others from counting, so that is kept apart.
    fn gather_no_services(&mut self) {
        let said = || self.peers.iter().filter_map(|p| p.no_service);
        let enough = |instance: u64| said().filter(|(i, _)| *i == instance).count() >= self.config.quorum();
        let Some(instance) = said().map(|(i, _)| i).find(|&i| i >= self.state.instance && enough(i)) else {
            return;
        };
        let signatures = self.peers.iter().enumerate().filter_map(|(i, p)| {
            p.no_service.filter(|(said, _)| *said == instance).map(|(_, signature)| (i as u16, signature))
        });
        let signatures = Certificate(signatures.take(self.config.quorum()).collect());
        self.keep_no_services(instance, signatures);
    }

    /// Q NO-SERVICEs to this instance, or to one beyond, open the next, unless its group serves us.
    pub(super) fn open_next_instance(&mut self, now: Time) -> bool {
        self.gather_no_services();
        let (here, serving) = (self.state.instance, self.served.then(|| self.state.decided()));
        let opens = |(instance, _): &mut (u64, Certificate)| *instance >= here && serving != Some(*instance);
        let Some((instance, opened_by)) = self.without_service.take_if(opens) else {
            return false;
        };
        self.served = false;
        self.enter(instance + 1, opened_by);
        self.persist();
        self.announce(now);
        true
    }

    fn enter(&mut self, instance: u64, opened_by: Certificate) {
        assert!(instance > self.state.instance, "instances are entered upwards");
        self.state.enter(instance, opened_by);
        for peer in &mut self.peers {
            peer.next_instance();
        }
        self.proposal = None;
        self.settling = Settling::Gathering;
        self.deadline = None;
        self.views_left = 0;
    }

    /// Vouches for an agent without its memory, if that life of it began before the next instance could.
    ///
    /// To have voted in instance k+1, it must have seen Q NO-SERVICEs to k. Of the Q that vouch, one is
    /// correct and among these, yet had not said it.
    pub(super) fn vouch_if_asked(&mut self, now: Time, to: usize, alive: Alive) {
        let instance = self.state.decided();
        let vouches = instance > 0
            && !alive.votes
            && alive.instance <= instance
            && self.state.remembers_from <= instance
            && self.state.no_service < instance
            && self.state.instance == instance;
        if vouches && self.may_vouch(now, to) {
            let agent = self.config.agents()[to];
            let statement = Statement::Vouch { instance, agent, boot: alive.boot };
            let signature = self.sign(&statement);
            self.send(to, &Message::Says(statement, signature));
        }
    }

    pub(super) fn on_vouch(
        &mut self,
        now: Time,
        from: usize,
        statement: Statement,
        signature: Signature,
    ) -> Result<(), Refusal> {
        let Statement::Vouch { instance, agent, boot } = statement else {
            unreachable!("only vouches come here")
        };
        if agent != self.config.agents()[self.me] || boot != self.boot {
            return Err(Refusal::Stale);
        }
        self.check_signature(from, &statement, &signature)?;
        self.peers[from].vouch = self.peers[from].vouch.max(Some(instance));
        let vouching = self.peers.iter().filter(|p| p.vouch == Some(instance)).count();
        if self.state.remembers_from == u64::MAX && vouching >= self.config.quorum() {
            self.state.remembers_from = instance + 1;
            self.persist();
            self.event(Event::VotesFrom(instance + 1));
            if self.takes_part() {
                self.announce(now);
            }
        }
        Ok(())
    }
}
