//! Both sides call whenever they like, over shared memory and not, and give up again: whoever wants to talk in the end
//! can.

use cl_base::{PeerId, Rng};
use rcl::{CloseReason, Endpoint, EndpointConfig, Event};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const PEERS: [PeerId; 2] = [PeerId::new(1, 0), PeerId::new(2, 0)];
/// For a machine with other work.
const LIMIT: Duration = Duration::from_secs(30);
const SEEDS: u64 = 150;
/// After a quarter of this a call to nobody goes to where the peer calls from.
const DEAD_AFTER: Duration = Duration::from_secs(2);

fn open(me: PeerId) -> Endpoint {
    let mut config = EndpointConfig::new(me, SocketAddr::from(([127, 0, 0, 1], 0)));
    config.protocol.dead_after = DEAD_AFTER;
    Endpoint::open(config).unwrap()
}

/// Two parties, and where nobody is who shares memory: a call there goes by the network.
struct World {
    ends: [Endpoint; 2],
    addrs: [SocketAddr; 2],
    nobody: UdpSocket,
}

impl World {
    fn new() -> World {
        let ends = PEERS.map(open);
        let addrs = [ends[0].local_addr(), ends[1].local_addr()];
        World { ends, addrs, nobody: UdpSocket::bind("127.0.0.1:0").unwrap() }
    }

    fn connect(&mut self, me: usize) {
        self.ends[me].connect(PEERS[1 - me], self.addrs[1 - me]);
    }

    fn call_nobody(&mut self, me: usize) {
        self.ends[me].connect(PEERS[1 - me], self.nobody.local_addr().unwrap());
    }

    fn abort(&mut self, me: usize) {
        self.ends[me].abort(PEERS[1 - me]);
    }

    fn poll(&mut self, me: usize, times: usize) {
        (0..times).for_each(|_| drop(self.ends[me].poll()));
    }

    /// Both talk to each other in the end. What was said to a connection that has ended is said again.
    fn talk(&mut self, what: &str) {
        let (mut heard, mut said, start) = ([false; 2], [false; 2], Instant::now());
        while heard != [true; 2] {
            assert!(start.elapsed() < LIMIT, "{what}: heard {heard:?}, said {said:?}");
            for me in 0..2 {
                let peer = PEERS[1 - me];
                if !said[me] {
                    self.connect(me);
                    let end = &mut self.ends[me];
                    said[me] = end.send(peer, end.alloc_copy(b"here I am").unwrap()).is_ok();
                }
                match self.ends[me].poll() {
                    Some(Event::Message { buf, .. }) => {
                        assert_eq!(buf[..], *b"here I am");
                        heard[me] = true;
                    }
                    Some(Event::Closed(_, reason)) => {
                        assert_ne!(reason, CloseReason::Dead, "{what}");
                        said[me] = false;
                    }
                    Some(Event::Connected(_)) | None => {}
                    Some(other) => panic!("{other:?}"),
                }
            }
        }
    }
}

#[test]
fn whoever_calls_and_is_called_at_once_gets_through() {
    for seed in 0..SEEDS {
        let (mut rng, mut world) = (Rng::new(seed), World::new());
        if rng.chance(1, 2) {
            // From a connection that there is already.
            (0..2).for_each(|me| world.connect(me));
            (0..20).for_each(|n| world.poll(n % 2, 1));
        }
        for _ in 0..rng.below(12) {
            let me = rng.below(2) as usize;
            match rng.below(6) {
                // One side only: the other has to know where to find it.
                0 if me == 0 => world.call_nobody(me),
                1 | 2 => world.connect(me),
                3 => world.abort(me),
                _ => world.poll(me, 1),
            }
        }
        world.talk(&format!("seed {seed}"));
    }
}

#[test]
fn a_call_that_crosses_the_end_of_another_through_another_channel_is_answered() {
    for (me, polls) in (0..12).map(|n| (n % 2, n / 2)) {
        let mut world = World::new();
        // Both call at once, so there are two channels.
        (0..2).for_each(|who| world.connect(who));
        (0..40).for_each(|n| world.poll(n % 2, 1));
        world.abort(me);
        (0..40).for_each(|n| world.poll(n % 2, 1));
        // One calls while the other refuses, or answers, gives that up, and calls as well.
        world.call_nobody(me);
        world.connect(1 - me);
        world.poll(me, polls);
        world.abort(me);
        world.connect(me);
        world.talk(&format!("{me} polls {polls} times"));
    }
}
