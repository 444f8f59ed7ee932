//! Requests that are known and not executed.

use crate::config::View;
use crate::message::Request;
use cl_base::PeerId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Requests kept in all. A client waits for its reply, so this is about the number of clients times what each
/// has outstanding; beyond it newcomers are refused and try again.
pub(super) const PENDING_MAX: usize = 16 * 1024;

/// A client and its sequence number.
pub(crate) type RequestId = (PeerId, u64);

/// Clients remembered that must sign; beyond it the ones with the lowest names are forgotten, which costs another
/// view change at most.
pub(super) const SIGNATURE_ONLY_MAX: usize = 4096;

/// Clients whose MACs count for nothing here, because a request of theirs held up a batch until the view changed
/// (PROTOCOL.md 2.2).
#[derive(Debug, Default)]
pub(super) struct SignatureOnly(BTreeSet<PeerId>);

impl SignatureOnly {
    pub(super) fn extend(&mut self, clients: impl IntoIterator<Item = PeerId>) {
        self.0.extend(clients);
        while self.0.len() > SIGNATURE_ONLY_MAX {
            self.0.pop_first();
        }
    }

    /// Whether this request needs a signature and has none.
    pub(super) fn bars(&self, request: &Request) -> bool {
        !request.is_signed() && self.0.contains(&request.client)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug)]
struct Waiting {
    request: Request,
    /// The last view in whose primary's hands it was put.
    relayed: Option<View>,
    /// Already in a proposal of the current view.
    proposed: bool,
}

/// Requests known and not executed, and the order in which a primary takes them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    requests: BTreeMap<RequestId, Waiting>,
    queue: VecDeque<RequestId>,
}

impl Pending {
    pub(crate) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Entries of the queue, those of requests that are gone included.
    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Takes a request in. False if it does not fit: in all, or beyond `window` of its client.
    pub(crate) fn insert(&mut self, request: Request, window: u64) -> bool {
        let id = (request.client, request.t);
        if let Some(known) = self.requests.get_mut(&id) {
            // A signature convinces everybody, MACs may not.
            if request.is_signed() && !known.request.is_signed() {
                known.request = request;
            }
            return true;
        }
        let of_client = (id.0, 0)..=(id.0, u64::MAX);
        if self.requests.range(of_client.clone()).count() as u64 >= window {
            // A client with W outstanding asks again only when the oldest is done, which a spare does not see.
            match self.requests.range(of_client).next().map(|(oldest, _)| *oldest) {
                Some(oldest) if oldest < id => self.requests.remove(&oldest),
                _ => return false,
            };
        }
        if self.requests.len() >= PENDING_MAX {
            return false;
        }
        self.requests.insert(id, Waiting { request, relayed: None, proposed: false });
        self.queue.push_back(id);
        true
    }

    /// The request, if the primary of `view` has not been given it yet; from now on it has.
    pub(crate) fn relay(&mut self, id: RequestId, view: View) -> Option<&Request> {
        let waiting = self.requests.get_mut(&id)?;
        (waiting.relayed.replace(view) != Some(view)).then_some(&waiting.request)
    }

    /// All that wait.
    pub(crate) fn ids(&self) -> Vec<RequestId> {
        self.requests.keys().copied().collect()
    }

    /// A new view begins: everything may be proposed again.
    pub(crate) fn requeue(&mut self) {
        for waiting in self.requests.values_mut() {
            waiting.proposed = false;
        }
        // Arrival order first, then whatever had left the queue with a proposal of an earlier view.
        let mut queue: VecDeque<RequestId> = VecDeque::with_capacity(self.requests.len());
        let mut seen = BTreeSet::new();
        for id in self.queue.drain(..).chain(self.requests.keys().copied()) {
            if self.requests.contains_key(&id) && seen.insert(id) {
                queue.push_back(id);
            }
        }
        self.queue = queue;
    }

    /// A proposal of the current view contains it.
    pub(crate) fn proposed(&mut self, id: RequestId) {
        if let Some(waiting) = self.requests.get_mut(&id) {
            waiting.proposed = true;
        }
    }

    /// Takes the next requests for a batch, within these limits.
    pub(crate) fn take(&mut self, requests_max: usize, bytes_max: usize) -> Vec<Request> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < requests_max
            && let Some(id) = self.queue.front()
        {
            if let Some(waiting) = self.requests.get_mut(id)
                && !waiting.proposed
            {
                bytes += waiting.request.encoded_len();
                if bytes > bytes_max {
                    break;
                }
                waiting.proposed = true;
                batch.push(waiting.request.clone());
            }
            self.queue.pop_front();
        }
        batch
    }

    /// It was executed.
    pub(crate) fn remove(&mut self, id: RequestId) {
        self.requests.remove(&id);
        // A backup never takes from the queue, so what has left is swept out now and then.
        if self.queue.len() > 2 * self.requests.len() + 64 {
            let requests = &self.requests;
            self.queue.retain(|id| requests.contains_key(id));
        }
    }

    /// The view ends: what has no signature goes. Nobody but the primary waits for it, and its client sends it
    /// again, signed.
    pub(crate) fn drop_unsigned(&mut self) {
        self.requests.retain(|_, waiting| waiting.request.is_signed());
    }

    /// Keeps only those for which `keep` holds.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(RequestId) -> bool) {
        self.requests.retain(|id, _| keep(*id));
    }
}
