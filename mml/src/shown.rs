//! What the sessions do, for those who read the endpoint's counters from outside.

use cl::counters::{Group, Label, Live, PeerGroup};
use cl_base::PeerId;
use mml_proto::{Counters, Mml};

/// So the meanings of counters of frames that are refused begin.
const REFUSED: &str = "Refused: ";

/// Where the counters of this layer are shown: all together and of each peer, those of refused frames apart.
pub(crate) struct Shown {
    all: [Group; 2],
    of_peers: [PeerGroup; 2],
    /// Those that were remembered at the last time.
    peers: Vec<PeerId>,
}

impl Shown {
    pub(crate) fn new(live: &mut Live) -> Shown {
        let groups = [false, true].map(|refused| {
            let labels: Vec<Label> = Counters::NAMES
                .iter()
                .map(|(name, meaning)| Label::count(name, meaning.trim_start()))
                .filter(|label| label.meaning.starts_with(REFUSED) == refused)
                .collect();
            let name = if refused { "mml drops" } else { "mml" };
            (live.group(name, &labels), live.peer_group(name, &labels))
        });
        Shown { all: groups.map(|group| group.0), of_peers: groups.map(|group| group.1), peers: Vec::new() }
    }

    pub(crate) fn show(&mut self, live: &mut Live, mml: &Mml) {
        // Those that are forgotten are set to nothing.
        for peer in self.peers.drain(..) {
            set_peer(live, self.of_peers, peer, &Counters::default());
        }
        for (peer, counters) in mml.counters_of_peers() {
            set_peer(live, self.of_peers, peer, counters);
            self.peers.push(peer);
        }
        for (group, values) in self.all.into_iter().zip(parted(&mml.counters())) {
            live.set(group, &values);
        }
    }
}

fn set_peer(live: &mut Live, groups: [PeerGroup; 2], peer: PeerId, counters: &Counters) {
    for (group, values) in groups.into_iter().zip(parted(counters)) {
        live.set_peer(group, peer, &values);
    }
}

/// The values of what was done, and of what was refused, in the order of their labels.
fn parted(counters: &Counters) -> [Vec<u64>; 2] {
    [false, true].map(|refused| {
        let each = Counters::NAMES.iter().zip(counters.values());
        each.filter(|((_, meaning), _)| meaning.trim_start().starts_with(REFUSED) == refused)
            .map(|(_, value)| value)
            .collect()
    })
}
