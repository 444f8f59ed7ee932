//! The event loop behind [`super::User`].

use super::Heard;
use crate::class::{self, Class};
use crate::keys::Keyring;
use crate::link::{Incoming, LINK_TIMER, Link, NotSubmitted};
use crate::manager::ManagerStatus;
use crate::output::Message;
use cl::Received;
use cl::runtime::{Core, Priority, TimerId};
use cl_base::{Incarnation, PeerId, Time, codec};
use cmm_core::api::{Answer, Attempt, Notice, Op};
use cmm_core::bootstrap::{self, Decision};
use cmm_core::identity::{NodeId, Role, manager_node};
use replication_proto::{SubmitError, Ticket};
use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::Sender;
use std::time::Duration;

const LOCATE: TimerId = TimerId(1);
const STATUS: TimerId = TimerId(2);
/// How often agents are asked who the managers are, until one has answered.
const LOCATE_PERIOD: Duration = Duration::from_millis(200);
/// How often a manager is asked again for its status.
const STATUS_PERIOD: Duration = Duration::from_millis(100);

/// What the command line asks its service.
pub(super) enum Mail {
    Ask(Op, Sender<Result<Answer, String>>),
    Located(Sender<bool>),
    Status(Duration, Sender<Vec<(NodeId, Option<ManagerStatus>)>>),
    Consumed { to: PeerId, attempt: Attempt, bytes: u64 },
    Leave,
}

struct StatusRound {
    until: Time,
    answers: BTreeMap<NodeId, Option<ManagerStatus>>,
    tell: Sender<Vec<(NodeId, Option<ManagerStatus>)>>,
}

/// See the module.
pub(super) struct Service {
    link: Link,
    keyring: Keyring,
    election: bootstrap::Config,
    nodes: Vec<NodeId>,
    tell: Sender<Heard>,
    asked: BTreeMap<Ticket, Sender<Result<Answer, String>>>,
    waiting: VecDeque<(Op, Sender<Result<Answer, String>>)>,
    status: Option<StatusRound>,
    consumed: BTreeMap<(PeerId, Attempt), u64>,
}

type Cx = Core<Mail>;

impl Service {
    pub(super) fn new(
        keyring: Keyring,
        election: bootstrap::Config,
        nodes: Vec<NodeId>,
        me: PeerId,
        request_timeout: Duration,
        tell: Sender<Heard>,
    ) -> Result<Service, String> {
        let now = cl::Clock::new().now();
        Ok(Service {
            link: Link::new(keyring.clone(), me, Incarnation(now.as_nanos()), request_timeout)?,
            keyring,
            election,
            nodes,
            tell,
            asked: BTreeMap::new(),
            waiting: VecDeque::new(),
            status: None,
            consumed: BTreeMap::new(),
        })
    }

    fn drain(&mut self, cx: &mut Cx) {
        while let Some(incoming) = self.link.poll() {
            match incoming {
                Incoming::Message { class: Class::Locate, body, .. } => self.on_decision(cx, &body),
                Incoming::Message { from, class: Class::Status, body } => self.on_status(from, &body),
                Incoming::Message { from, class: Class::Output, body } => {
                    if let Ok(Message::Chunk(chunk)) = codec::decode(&body) {
                        // If nobody hears it any more, the process is about to end.
                        let _ = self.tell.send(Heard::Output(from, chunk));
                    }
                }
                Incoming::Answered(ticket, answer) => {
                    if let Some(tell) = self.asked.remove(&ticket) {
                        let _ = tell.send(Ok(answer));
                    }
                    self.ask_waiting(cx);
                }
                Incoming::Noticed(Notice::JobChanged(job)) => {
                    let _ = self.tell.send(Heard::Job(Box::new(job)));
                }
                Incoming::Outvoted(node) => {
                    tracing::warn!(%node, "a manager contradicts the others; its answer was outvoted");
                }
                _ => {}
            }
        }
    }

    fn on_decision(&mut self, cx: &mut Cx, body: &[u8]) {
        let Ok(decision) = codec::decode::<Decision>(body) else { return };
        if self.link.decision().is_some_and(|d| d.instance() >= decision.instance()) {
            return;
        }
        match decision.verify(&self.keyring, &self.election) {
            Ok(()) => {
                self.link.adopt(cx, &decision);
                self.ask_waiting(cx);
            }
            Err(error) => tracing::warn!(%error, "an agent shows a false decision"),
        }
    }

    fn ask_waiting(&mut self, cx: &mut Cx) {
        for (op, tell) in std::mem::take(&mut self.waiting) {
            self.ask(cx, op, tell);
        }
    }

    fn ask(&mut self, cx: &mut Cx, op: Op, tell: Sender<Result<Answer, String>>) {
        match self.link.submit(cx, &op) {
            Ok(ticket) => {
                self.asked.insert(ticket, tell);
            }
            Err(NotSubmitted::Client(error @ SubmitError::TooLong { .. })) => {
                let advice = "a job's command line and environment must fit; pass large data in files, or run \
                              the command from a smaller environment (`env -i PATH=$PATH ghidrah …`)";
                let _ = tell.send(Err(format!("{error}; {advice}")));
            }
            // No group yet, or no room: when there is.
            Err(_) => self.waiting.push_back((op, tell)),
        }
    }

    fn on_status(&mut self, from: PeerId, body: &[u8]) {
        let Some(round) = &mut self.status else { return };
        let (Some(node), Ok(status)) = (manager_node(from), codec::decode::<ManagerStatus>(body)) else {
            return;
        };
        if let Some(answer) = round.answers.get_mut(&node) {
            *answer = Some(status);
        }
        if round.answers.values().all(Option::is_some) {
            self.end_status();
        }
    }

    fn end_status(&mut self) {
        if let Some(round) = self.status.take() {
            let _ = round.tell.send(round.answers.into_iter().collect());
        }
    }

    fn ask_status(&mut self, cx: &mut Cx) {
        let Some(round) = &self.status else { return };
        if round.until <= cx.now() {
            return self.end_status();
        }
        let silent: Vec<NodeId> =
            round.answers.iter().filter(|(_, a)| a.is_none()).map(|(n, _)| *n).collect();
        cx.set_timer((cx.now() + STATUS_PERIOD).min(round.until), STATUS);
        for node in silent {
            self.link.send(cx, Role::Manager(node).peer(), Class::Status, &[]);
        }
    }
}

impl cl::runtime::Service for Service {
    type Mail = Mail;

    fn start(&mut self, cx: &mut Cx) {
        self.on_timer(cx, LOCATE);
    }

    fn classify(received: &Received) -> Priority {
        class::priority_of(&received.buf)
    }

    fn on_message(&mut self, cx: &mut Cx, received: Received) {
        self.link.on_message(cx, received);
        self.drain(cx);
    }

    fn on_timer(&mut self, cx: &mut Cx, id: TimerId) {
        match id {
            LINK_TIMER => self.link.on_timer(cx),
            STATUS => self.ask_status(cx),
            LOCATE if self.link.decision().is_none() => {
                for node in self.nodes.clone() {
                    self.link.send(cx, Role::Agent(node).peer(), Class::Locate, &[]);
                }
                cx.set_timer(cx.now() + LOCATE_PERIOD, LOCATE);
            }
            _ => {}
        }
        self.drain(cx);
    }

    fn on_mail(&mut self, cx: &mut Cx, mail: Mail) {
        match mail {
            Mail::Ask(op, tell) => self.ask(cx, op, tell),
            Mail::Located(tell) => {
                let _ = tell.send(self.link.decision().is_some());
            }
            Mail::Status(patience, tell) => {
                let members = self.link.managers().iter().filter_map(|m| manager_node(*m));
                let answers = members.map(|n| (n, None)).collect();
                self.status = Some(StatusRound { until: cx.now() + patience, answers, tell });
                self.ask_status(cx);
            }
            Mail::Leave => {
                self.link.close(cx);
                cx.stop();
                return;
            }
            Mail::Consumed { to, attempt, bytes } => {
                let total = self.consumed.entry((to, attempt)).or_default();
                *total += bytes;
                let message = codec::encode(&Message::Consumed { attempt, total: *total });
                if let Err(error) = self.link.send_acknowledged(cx, to, Class::Output, &message) {
                    tracing::warn!(%to, %error, "cannot say that output was printed");
                }
            }
        }
        self.drain(cx);
    }
}
