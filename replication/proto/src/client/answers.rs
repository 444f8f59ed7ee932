//! When answers are enough.

use crate::config::{Config, MemberId, Rsn, View};
use crate::keys::Digest;
use crate::message::Tentative;
use crate::mutation::Mutation;
use std::collections::BTreeMap;

/// What a member said of a request.
pub(super) type Answer = (Rsn, Digest);

/// For an answer that can be undone the view, and what else must be equal.
pub(super) type Standing = Option<(View, Tentative)>;

/// The answer that is good: w members gave it for ever, or q of them in one view with one history, some of which may
/// be able to undo it (PROTOCOL.md 2.13).
pub(super) fn agreed(answers: &BTreeMap<MemberId, (Answer, Standing)>, config: &Config) -> Option<Answer> {
    let early = if config.mutated(Mutation::WeakTentativeQuorum) { config.weak() } else { config.quorum() };
    answers.values().find_map(|(answer, standing)| {
        let committed = answers.values().filter(|given| **given == (*answer, None)).count();
        let tentative = answers.values().filter(|given| **given == (*answer, *standing)).count();
        let enough = committed >= config.weak()
            || (standing.is_some() && config.guarantee.answers_early() && committed + tentative >= early);
        enough.then_some(*answer)
    })
}
