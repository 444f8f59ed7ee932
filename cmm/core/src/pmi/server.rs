//! The process management interface of one attempt's ranks on one node.

use super::exchange::{
    Exchange, NodeMessage, Output, PUT_BYTES_PER_RANK_MAX, Pair, Refusals, is_value, is_word, pair_bytes,
};
use super::mapping::process_mapping;
use super::wire::{KEY_BYTES_MAX, KVSNAME_BYTES_MAX, Reply, Request, RequestReader};
use crate::api::{Attempt, Part};
use std::collections::{BTreeMap, VecDeque};

/// The key under which MPICH looks for [`process_mapping`].
const MAPPING_KEY: &str = "PMI_process_mapping";
/// The exit code of a job whose rank broke the protocol.
const EXIT_CODE_PROTOCOL: i32 = 1;

/// What the agent has to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// Write to a local rank's socket.
    Reply {
        /// The rank.
        rank: u32,
        /// Whole lines.
        bytes: Vec<u8>,
    },
    /// Send to the agent of another node of the attempt.
    Send {
        /// Index into the attempt's placement.
        to: usize,
        /// What.
        message: NodeMessage,
    },
    /// The rank is in MPI: from now on it may not leave without [`Action::Finalized`].
    Initialized {
        /// The rank.
        rank: u32,
    },
    /// The rank has left MPI in good order.
    Finalized {
        /// The rank.
        rank: u32,
    },
    /// The whole job is to be ended with this code, because a rank asked for it or broke the protocol.
    Abort {
        /// The rank that is the reason.
        rank: u32,
        /// The job's exit code.
        code: i32,
        /// For the user.
        message: String,
    },
}

/// One local rank.
#[derive(Debug, Default)]
struct Rank {
    reader: RequestReader,
    in_barrier: bool,
    /// It has called for an abort, has broken the protocol or is gone: nothing it says counts any more.
    silenced: bool,
}

/// The ranks of one attempt on one node.
#[derive(Debug)]
pub struct NodePmi {
    kvsname: String,
    node: usize,
    size: u32,
    ranks: BTreeMap<u32, Rank>,
    store: BTreeMap<String, String>,
    /// Put by local ranks since the last barrier.
    puts: Vec<Pair>,
    /// Bytes that local ranks may still put.
    allowance: u64,
    exchange: Exchange,
    actions: VecDeque<Action>,
}

impl NodePmi {
    /// The interface for the ranks of `parts[node]`; `parts` is the attempt's placement in order of ranks.
    ///
    /// `cluster` becomes part of the key-value space's name and must be the same on all nodes. MPICH derives
    /// the names of its shared memory from it, and finds the leavings of a killed job if a name comes again:
    /// so it must differ from that of any other cluster that ever ran on these machines.
    ///
    /// # Panics
    /// If `node` is not an index into `parts`, the ranks of `parts` are not consecutive from 0, or `cluster`
    /// is not one short word.
    pub fn new(cluster: &str, attempt: Attempt, parts: &[Part], node: usize) -> NodePmi {
        let part = &parts[node];
        let size = parts.iter().fold(0, |next, p| {
            assert_eq!(p.first_rank, next, "ranks are numbered node after node");
            next + p.ranks
        });
        let kvsname = format!("ghidrah_{cluster}_{}_{}", attempt.job, attempt.number);
        assert!(is_word(&kvsname) && kvsname.len() <= KVSNAME_BYTES_MAX, "no name: {kvsname:?}");
        let ranks_of: Vec<u32> = parts.iter().map(|p| p.ranks).collect();
        let mapping = process_mapping(parts).map(|m| (MAPPING_KEY.to_owned(), m));
        NodePmi {
            kvsname,
            node,
            size,
            ranks: (part.first_rank..).take(part.ranks as usize).map(|r| (r, Rank::default())).collect(),
            store: mapping.into_iter().collect(),
            puts: Vec::new(),
            allowance: u64::from(part.ranks) * PUT_BYTES_PER_RANK_MAX,
            exchange: Exchange::new(attempt, node, &ranks_of),
            actions: VecDeque::new(),
        }
    }

    /// The variables a rank needs beside `PMI_FD`, the number of its socket.
    ///
    /// # Panics
    /// If `rank` is not local.
    pub fn environment(&self, rank: u32) -> [(&'static str, String); 2] {
        assert!(self.ranks.contains_key(&rank), "rank {rank} is not on this node");
        [("PMI_RANK", rank.to_string()), ("PMI_SIZE", self.size.to_string())]
    }

    /// The shared memory that MPICH 5 leaves behind when the local ranks are killed. To be removed, if it is
    /// there, once they are gone.
    pub fn shared_memory_file(&self) -> String {
        mpich_shared_memory(&self.kvsname, self.node)
    }

    /// Bytes came from a local rank's socket, cut anywhere.
    ///
    /// # Panics
    /// If `rank` is not local.
    pub fn on_bytes(&mut self, rank: u32, bytes: &[u8]) {
        let state = self.ranks.get_mut(&rank).expect("the rank is on this node");
        if state.silenced {
            return;
        }
        for request in state.reader.read(bytes) {
            match request {
                Ok(request) => self.on_request(rank, request),
                Err(error) => {
                    self.abort(rank, EXIT_CODE_PROTOCOL, format!("broke the PMI protocol: {error}"))
                }
            }
            if self.rank(rank).silenced {
                return;
            }
        }
    }

    /// A local rank's socket was closed. How the rank ended is known from its exit status.
    ///
    /// # Panics
    /// If `rank` is not local.
    pub fn on_close(&mut self, rank: u32) {
        self.rank(rank).silenced = true;
    }

    /// A message came from the agent of node `from` of the attempt, whose identity has been verified.
    pub fn on_message(&mut self, from: usize, message: NodeMessage) {
        self.exchange.on_message(from, message);
        self.drain_exchange();
    }

    /// Whether all local ranks wait in a barrier for other nodes.
    pub fn is_waiting(&self) -> bool {
        self.exchange.is_waiting()
    }

    /// Repeats what other agents may have missed; to be called every second or so while
    /// [`NodePmi::is_waiting`]. An agent can miss messages that come before it knows of the job.
    pub fn resend(&mut self) {
        self.exchange.resend();
        self.drain_exchange();
    }

    /// The next thing to do; to be called until it returns `None`.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Messages of other agents that were refused so far.
    pub fn refusals(&self) -> Refusals {
        self.exchange.refusals()
    }

    fn rank(&mut self, rank: u32) -> &mut Rank {
        self.ranks.get_mut(&rank).expect("the rank is on this node")
    }

    fn on_request(&mut self, rank: u32, request: Request) {
        let refuse = |reply, reason| Reply::Refused { reply, reason }.encode();
        let bytes = match request {
            Request::Init { version: 1, .. } => {
                self.actions.push_back(Action::Initialized { rank });
                Reply::Init.encode()
            }
            Request::Init { .. } => refuse("response_to_init", "only_version_1_is_spoken"),
            Request::GetMaxes => Reply::Maxes.encode(),
            Request::GetAppnum => Reply::Appnum.encode(),
            Request::GetMyKvsname => Reply::Kvsname(&self.kvsname).encode(),
            Request::GetUniverseSize => Reply::UniverseSize(self.size).encode(),
            Request::Put { kvsname, key, value } => match self.put(&kvsname, key, value) {
                Ok(()) => Reply::PutDone.encode(),
                Err(reason) => refuse("put_result", reason),
            },
            Request::Get { kvsname, key } => match self.store.get(&key) {
                _ if kvsname != self.kvsname => refuse("get_result", "kvs_unknown"),
                None => refuse("get_result", "key_not_found"),
                Some(value) => Reply::Value(value).encode(),
            },
            Request::BarrierIn { group: Some(_) } => refuse("barrier_out", "no_group_barriers"),
            Request::BarrierIn { group: None } => return self.barrier_in(rank),
            Request::Finalize => {
                self.actions.push_back(Action::Finalized { rank });
                Reply::FinalizeAck.encode()
            }
            Request::Abort { code, message } => return self.abort(rank, code, message),
            Request::PublishName => refuse("publish_result", "not_supported"),
            Request::UnpublishName => refuse("unpublish_result", "not_supported"),
            Request::LookupName => refuse("lookup_result", "not_supported"),
            Request::Spawn => refuse("spawn_result", "not_supported"),
            Request::Unknown { command } => refuse(&format!("{command}_result"), "unknown_command"),
        };
        self.actions.push_back(Action::Reply { rank, bytes });
    }

    fn put(&mut self, kvsname: &str, key: String, value: String) -> Result<(), &'static str> {
        if kvsname != self.kvsname {
            return Err("kvs_unknown");
        }
        if !is_word(&key) || key.len() > KEY_BYTES_MAX {
            return Err("key_invalid");
        }
        if !is_value(&value) {
            return Err("value_too_long");
        }
        let pair = (key, value);
        self.allowance = self.allowance.checked_sub(pair_bytes(&pair)).ok_or("store_full")?;
        self.store.insert(pair.0.clone(), pair.1.clone());
        self.puts.push(pair);
        Ok(())
    }

    fn barrier_in(&mut self, rank: u32) {
        if std::mem::replace(&mut self.rank(rank).in_barrier, true) {
            let message = "broke the PMI protocol: entered a barrier while in one".to_owned();
            return self.abort(rank, EXIT_CODE_PROTOCOL, message);
        }
        if self.ranks.values().all(|r| r.in_barrier) {
            self.exchange.enter(std::mem::take(&mut self.puts));
            self.drain_exchange();
        }
    }

    fn abort(&mut self, rank: u32, code: i32, message: String) {
        self.rank(rank).silenced = true;
        self.actions.push_back(Action::Abort { rank, code, message });
    }

    fn drain_exchange(&mut self) {
        while let Some(output) = self.exchange.poll_output() {
            match output {
                Output::Send { to, message } => self.actions.push_back(Action::Send { to, message }),
                Output::Released { puts } => {
                    self.store.extend(puts);
                    for (rank, state) in &mut self.ranks {
                        state.in_barrier = false;
                        if !state.silenced {
                            let bytes = Reply::BarrierOut.encode();
                            self.actions.push_back(Action::Reply { rank: *rank, bytes });
                        }
                    }
                }
            }
        }
    }
}

/// What MPICH 5 calls the shared memory of a node: its name holds the FNV-1a hash of the key-value space's.
pub(super) fn mpich_shared_memory(kvsname: &str, node: usize) -> String {
    let fnv1a = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    let hash = kvsname.bytes().fold(2_166_136_261, fnv1a);
    format!("/dev/shm/mpich_shm_{hash:x}_{node}")
}
