//! The f = 1 protocol of the dissertation as printed (4.2.1-4.2.4, Figures 4.5-4.7), with one position of the order
//! and two client messages.
//!
//! Readings are charitable: NEW-VIEW and ACK come from two different active replicas, Φ holds certificates of all
//! views, proposals that contradict what was executed are refused. PROTOCOL.md 1.1 gives the run that breaks it:
//! a replica goes on in a view after it has signed what justifies the next one.

use stateright::{Model, Property};
use std::collections::BTreeSet;
use std::fmt;

const N: usize = 4;
/// Views are numbered below this.
const VIEWS_MAX: usize = 5;

/// A client message, or 0 for none.
type Letter = u8;
const LETTERS: [Letter; 2] = [1, 2];

/// The printed protocol.
#[derive(Clone, Copy, Debug)]
pub struct Printed {
    /// The Byzantine replica.
    pub byzantine: usize,
    /// Views 0 to this, exclusive; at most five.
    pub views: usize,
    /// The repair: who has signed for the next view does nothing more in this one.
    pub stop: bool,
}

/// A prepared certificate: a letter in a view, as one bit.
type Certificates = u16;

fn certificate(view: usize, letter: Letter) -> Certificates {
    1 << (2 * view + usize::from(letter) - 1)
}

fn any_other(certificates: Certificates, letter: Letter) -> bool {
    let other = 3 - letter;
    (0..VIEWS_MAX).any(|view| certificates & certificate(view, other) != 0)
}

/// VIEW-CHANGE-ACK or NEW-VIEW: what a replica signs for the next view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Statement {
    by: usize,
    view: usize,
    state: Letter,
    phi: Certificates,
}

/// Everything that correct replicas are in and have said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    view: [usize; N],
    /// What each has executed as RSN 1.
    state: [Letter; N],
    certificates: [Certificates; N],
    votes: [[Letter; VIEWS_MAX]; N],
    commits: [[bool; VIEWS_MAX]; N],
    replies: [[Letter; VIEWS_MAX]; N],
    /// Views that their new member has announced to the others.
    relayed: [bool; VIEWS_MAX],
    ever_executed: [bool; 2],
    statements: BTreeSet<Statement>,
}

/// A step of a correct replica.
#[allow(missing_docs)] // fields are what their names say
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// PRE-PREPARE.
    Propose(usize, usize, Letter),
    /// PREPARE.
    Prepare(usize, usize, Letter),
    /// Prepared: COMMIT.
    Commit(usize, usize, Letter),
    /// Committed: executes and replies.
    Execute(usize, usize, Letter),
    /// Executes from a committed certificate in Ψ.
    CatchUp(usize, usize, Letter),
    /// Signs for the next view.
    Sign(usize, usize),
    /// The spare restores the state that two statements hold, and relays them.
    Activate { spare: usize, view: usize, signers: (usize, usize), state: Letter, phi: Certificates },
    /// Enters the next view.
    Install(usize, usize),
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |letter: &Letter| ["nothing", "A", "B"][usize::from(*letter)];
        match self {
            Step::Propose(i, v, m) => write!(f, "replica {i} proposes {} in view {v}", name(m)),
            Step::Prepare(i, v, m) => write!(f, "replica {i} prepares {} in view {v}", name(m)),
            Step::Commit(i, v, m) => write!(f, "replica {i} has prepared {} in view {v}, commits", name(m)),
            Step::Execute(i, v, m) => write!(f, "replica {i} executes {} in view {v}, replies", name(m)),
            Step::CatchUp(i, v, m) => {
                write!(f, "replica {i} executes {} from a certificate in view {v}", name(m))
            }
            Step::Sign(i, v) => write!(f, "replica {i} signs for view {v}"),
            Step::Activate { spare, view, signers: (a, b), state, .. } => {
                write!(f, "spare {spare} restores {} from {a} and {b}, enters view {view}", name(state))
            }
            Step::Install(i, v) => write!(f, "replica {i} enters view {v}"),
        }
    }
}

fn primary(view: usize) -> usize {
    view % N
}

fn spare(view: usize) -> usize {
    (view + 3) % N
}

fn active(view: usize) -> impl Iterator<Item = usize> {
    (0..3).map(move |k| (view + k) % N)
}

impl Printed {
    fn all_vote(&self, s: &State, view: usize, letter: Letter) -> bool {
        active(view).all(|r| r == self.byzantine || s.votes[r][view] == letter)
    }

    fn committed(&self, s: &State, view: usize, letter: Letter) -> bool {
        self.all_vote(s, view, letter) && active(view).all(|r| r == self.byzantine || s.commits[r][view])
    }

    fn somebody_correct_votes(s: &State, view: usize, letter: Letter) -> bool {
        active(view).any(|r| s.votes[r][view] == letter)
    }

    /// What a client accepts: equal replies of two active replicas of one view, one of them correct.
    fn accepted(&self, s: &State, letter: Letter) -> bool {
        (0..self.views).any(|v| {
            let correct = active(v).filter(|r| *r != self.byzantine && s.replies[*r][v] == letter).count();
            correct > 0 && correct + usize::from(active(v).any(|r| r == self.byzantine)) >= 2
        })
    }

    fn normal_case(&self, s: &State, i: usize, out: &mut Vec<Step>) {
        let v = s.view[i];
        let first = s.votes.iter().flatten().all(|vote| *vote == 0);
        let mine = s.votes[i][v];
        // The two letters are alike, so the first one voted for is A.
        let letters = LETTERS.into_iter().filter(|m| !first || *m == 1);
        if mine == 0 {
            let p = primary(v);
            for m in letters {
                let unlocked = !any_other(s.certificates[i], m);
                let fits = s.state[i] == 0 || s.state[i] == m;
                if i == p {
                    let prepared = (0..=v).any(|u| s.certificates[i] & certificate(u, m) != 0);
                    if s.state[i] == m || s.state[i] == 0 && (prepared || unlocked) {
                        out.push(Step::Propose(i, v, m));
                    }
                } else if (p == self.byzantine || s.votes[p][v] == m) && fits && unlocked {
                    out.push(Step::Prepare(i, v, m));
                }
            }
        } else if s.certificates[i] & certificate(v, mine) == 0 {
            if self.all_vote(s, v, mine) {
                out.push(Step::Commit(i, v, mine));
            }
        } else if s.state[i] == 0 && self.committed(s, v, mine) {
            out.push(Step::Execute(i, v, mine));
        }
        if s.state[i] == 0 && v + 1 < self.views {
            for m in LETTERS {
                let shown = spare(v) != self.byzantine
                    || active(v).any(|j| {
                        j != i && s.state[j] == m && s.statements.iter().any(|x| (x.by, x.view) == (j, v + 1))
                    });
                let proven =
                    (0..=v).any(|u| self.committed(s, u, m) && Self::somebody_correct_votes(s, u, m));
                if shown && proven {
                    out.push(Step::CatchUp(i, v, m));
                }
            }
        }
    }

    fn enter_next(&self, s: &State, i: usize, out: &mut Vec<Step>) {
        let w = s.view[i] + 1;
        let for_w = || s.statements.iter().filter(|x| x.view == w);
        let pairs = || {
            for_w().flat_map(|a| for_w().filter(|b| b.by > a.by && b.state == a.state).map(move |b| (a, b)))
        };
        if spare(w - 1) != i {
            let announced =
                if spare(w - 1) == self.byzantine { pairs().next().is_some() } else { s.relayed[w] };
            if announced {
                out.push(Step::Install(i, w));
            }
            return;
        }
        for (a, b) in pairs() {
            let (signers, phi) = ((a.by, b.by), a.phi | b.phi);
            out.push(Step::Activate { spare: i, view: w, signers, state: a.state, phi });
        }
        // Paired with the Byzantine replica, which repeats the state and adds any valid certificates.
        for a in for_w() {
            let more: Vec<Certificates> = (0..w)
                .flat_map(|u| LETTERS.map(|m| (u, m)))
                .filter(|(u, m)| {
                    a.state == 0
                        && a.phi & certificate(*u, *m) == 0
                        && self.all_vote(s, *u, *m)
                        && Self::somebody_correct_votes(s, *u, *m)
                })
                .map(|(u, m)| certificate(u, m))
                .collect();
            for chosen in 0..1u32 << more.len() {
                let added = (0..more.len()).filter(|k| chosen >> k & 1 == 1).fold(0, |x, k| x | more[k]);
                let (signers, phi) = ((a.by, self.byzantine), a.phi | added);
                out.push(Step::Activate { spare: i, view: w, signers, state: a.state, phi });
            }
        }
    }
}

impl Model for Printed {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        vec![State {
            view: [0; N],
            state: [0; N],
            certificates: [0; N],
            votes: [[0; VIEWS_MAX]; N],
            commits: [[false; VIEWS_MAX]; N],
            replies: [[0; VIEWS_MAX]; N],
            relayed: [false; VIEWS_MAX],
            ever_executed: [false; 2],
            statements: BTreeSet::new(),
        }]
    }

    fn actions(&self, s: &State, out: &mut Vec<Step>) {
        for i in (0..N).filter(|i| *i != self.byzantine) {
            let v = s.view[i];
            let signed = s.statements.iter().any(|x| (x.by, x.view) == (i, v + 1));
            if spare(v) != i && !(self.stop && signed) {
                self.normal_case(s, i, out);
                if v + 1 < self.views {
                    out.push(Step::Sign(i, v + 1));
                }
            }
            if v + 1 < self.views {
                self.enter_next(s, i, out);
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut s = last.clone();
        match step {
            Step::Propose(i, v, m) | Step::Prepare(i, v, m) => s.votes[i][v] = m,
            Step::Commit(i, v, m) => {
                s.certificates[i] |= certificate(v, m);
                s.commits[i][v] = true;
            }
            Step::Execute(i, v, m) | Step::CatchUp(i, v, m) => {
                s.state[i] = m;
                s.replies[i][v] = m;
                s.ever_executed[usize::from(m) - 1] = true;
            }
            Step::Sign(i, view) => {
                let phi = if s.state[i] == 0 { s.certificates[i] } else { 0 };
                if !s.statements.insert(Statement { by: i, view, state: s.state[i], phi }) {
                    return None;
                }
            }
            Step::Activate { spare, view, state, phi, .. } => {
                s.state[spare] = state;
                s.certificates[spare] = phi;
                s.view[spare] = view;
                s.relayed[view] = true;
            }
            Step::Install(i, w) => {
                s.view[i] = w;
                if spare(w) == i {
                    // It drops its state.
                    s.state[i] = 0;
                    s.certificates[i] = 0;
                }
            }
        }
        Some(s)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("correct replicas execute one message as RSN 1", |_, s: &State| {
                s.ever_executed != [true; 2]
            }),
            Property::always("clients accept one message as RSN 1", |m: &Printed, s| {
                !LETTERS.into_iter().all(|letter| m.accepted(s, letter))
            }),
        ]
    }
}
